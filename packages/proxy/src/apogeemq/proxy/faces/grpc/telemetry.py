"""What waits to be written on one Telemetry stream."""

from __future__ import annotations

import asyncio
from collections import deque

from apogeemq.mesh.errors import RefusalCode
from apogeemq.proto.v2.service_pb2 import TelemetryCommand
from apogeemq.proxy.faces.grpc.port import DoorRefused


class Outbox:
    """Commands for one client, in order; iterating gives them encoded, until the stream is ended.

    A client that does not read stops its stream being read at half of `commands_max`, so that it can't pile up answers
    to its own commands; commands of the proxy's own go on until the bound, which ends the stream.
    """

    def __init__(self, commands_max: int) -> None:
        self._commands_max = commands_max
        self._waiting: deque[TelemetryCommand] = deque()
        self._is_ended = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def has_room(self) -> bool:
        """Whether the client has read enough for a command that can wait."""
        return not self._is_ended and self._has_room.is_set()

    def put(self, command: TelemetryCommand) -> None:
        """Add a command; never waits and never raises. After the end it is dropped, as for a client that is gone."""
        if self._is_ended:
            return
        if len(self._waiting) >= self._commands_max:
            self._waiting.clear()
            self.end(
                DoorRefused(
                    RefusalCode.RESOURCE_EXHAUSTED,
                    f"{self._commands_max} telemetry commands wait to be read; open the stream again and read it",
                )
            )
            return
        self._waiting.append(command)
        if len(self._waiting) * 2 >= self._commands_max:
            self._has_room.clear()
        self._changed.set()

    def end(self, error: Exception | None = None) -> None:
        """End the stream once what waits is written: in good order, or with an error. The first end counts."""
        if not self._is_ended:
            self._is_ended = True
            self._error = error
            self._has_room.set()
            self._changed.set()

    async def wait_for_room(self) -> None:
        """Wait until the client has read enough for its next command to be taken."""
        await self._has_room.wait()

    def __aiter__(self) -> Outbox:
        return self

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self._is_ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        command = self._waiting.popleft()
        if len(self._waiting) * 2 < self._commands_max:
            self._has_room.set()
        return command.SerializeToString()
