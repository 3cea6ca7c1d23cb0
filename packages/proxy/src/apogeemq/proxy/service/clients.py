"""The clients of this proxy: their settings, streams and memberships."""

from __future__ import annotations

from typing import Protocol

from apogeemq.proto.v2 import service_pb2 as v2


class TelemetrySession(Protocol):
    """One open Telemetry stream of one client. The face calls on_command for one command after another."""

    async def on_command(self, command: v2.TelemetryCommand) -> None:
        """A command came; what it brings about is sent through the stream's `send`.

        Raises ProxyError: the stream is to be ended with it.
        """
        ...

    def closed(self) -> None:
        """The stream is over, however it ended. The last call."""
        ...
