"""The methods of the mesh API, version 1: each path tied to its messages, declared once for both sides of a call."""

from __future__ import annotations

from apogeemq.mesh.network import Stream
from apogeemq.mesh.v1.namesrv_pb2 import RegistrationReply, RegistrationRequest

NAMESRV_REGISTER: Stream[RegistrationRequest, RegistrationReply] = Stream(
    "/apogeemq.mesh.v1.NamesrvService/Register", RegistrationRequest, RegistrationReply
)
"""A broker's registration; opened by the broker. See proto/apogeemq/mesh/v1/namesrv.proto for who says what when."""
