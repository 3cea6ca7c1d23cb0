"""Errors of this client: those of `apogeemq.client_api.errors`, under this package's name too.

`NotSent` is a ConnectionBroken of which it is certain that nothing was sent.
"""

from apogeemq.client_api.errors import (
    ClientClosed,
    ClientError,
    ConnectionBroken,
    MessageInvalid,
    NotSupported,
    PayloadInvalid,
    ReceiveFailed,
    ReplyTimeout,
    RouteNotFound,
    SendFailed,
    SendTimeout,
    SettleFailed,
    StartFailed,
)
from apogeemq.client_remoting.connection import NotSent

__all__ = [
    "ClientClosed",
    "ClientError",
    "ConnectionBroken",
    "MessageInvalid",
    "NotSent",
    "NotSupported",
    "PayloadInvalid",
    "ReceiveFailed",
    "ReplyTimeout",
    "RouteNotFound",
    "SendFailed",
    "SendTimeout",
    "SettleFailed",
    "StartFailed",
]
