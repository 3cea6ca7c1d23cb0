"""A replica's stream to its master, at the replica's end: what came and what goes, so that nobody waits for either.

Acknowledgements stand in one place, where a newer one takes an older one's: however many chunks came while the last one
was on its way, one is sent. A link is used once; it ends by `close`, or by itself, and says why in `ended`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.network import ClientStream, Network
from apogeemq.mesh.tls import ClientTls
from apogeemq.mesh.v1 import replication_pb2 as pb
from apogeemq.mesh.v1.methods import REPLICATE

INBOX_SIZE_BYTES_MAX = 8 << 20
"""So much may wait to be appended; then the master has to wait. One message may always wait."""
INBOX_MESSAGES_MAX = 256
"""The same for their number."""

_log = logging.getLogger(__name__)

_Stream: TypeAlias = ClientStream[pb.ReplicaMessage, pb.MasterMessage]


class MasterLink:
    """See the module. `on_change` is called whenever there is something to look at."""

    def __init__(
        self,
        network: Network,
        address: str,
        hello: pb.ReplicaMessage.Hello,
        *,
        tls: ClientTls | None,
        on_change: Callable[[], None],
    ) -> None:
        self.address = address
        self.ended: str | None = None
        """Why it is over; None while it is not."""
        self._network = network
        self._hello = hello
        self._tls = tls
        self._on_change = on_change
        self._inbox: deque[tuple[pb.MasterMessage, int]] = deque()
        self._inbox_bytes = 0
        self._room_made = asyncio.Event()
        self._outbox: deque[pb.ReplicaMessage] = deque()
        self._acknowledgement: pb.ReplicaMessage.Acknowledge | None = None
        self._has_mail = asyncio.Event()
        self.running = asyncio.create_task(self._run())
        """Done once the connection is closed."""

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._inbox)

    def take(self) -> pb.MasterMessage:
        """The next message that came."""
        message, size_bytes = self._inbox.popleft()
        self._inbox_bytes -= size_bytes
        self._room_made.set()
        return message

    def send(self, message: pb.ReplicaMessage) -> None:
        """Send in order; before any acknowledgement that waits. The caller bounds their number: one for each answer."""
        self._outbox.append(message)
        self._has_mail.set()

    def acknowledge(self, epoch: int, offset: int, states: int) -> None:
        """Send this in place of an acknowledgement that was not sent yet."""
        self._acknowledgement = pb.ReplicaMessage.Acknowledge(epoch=epoch, offset=offset, states=states)
        self._has_mail.set()

    def close(self) -> None:
        """Nothing is sent from now on, and nothing comes."""
        self._inbox.clear()
        self._outbox.clear()
        self._acknowledgement = None
        self._end("it was given up here")
        self.running.cancel()

    def _end(self, why: str) -> None:
        if self.ended is None:
            self.ended = why
            self._on_change()

    async def _run(self) -> None:
        channel = self._network.channel(self.address, tls=self._tls)
        try:
            await self._converse(channel.stream(REPLICATE))
            self._end("the master ended the stream")
        except MeshError as error:
            self._end(str(error))
        except Exception as error:  # noqa: BLE001 — logged; whoever waits for this stream has to hear that it is over
            _log.exception("the stream to %s failed", self.address)
            self._end(repr(error))
        finally:
            await channel.close()

    async def _converse(self, stream: _Stream) -> None:
        """A write that fails says only that the master takes no more: its last word may still come."""
        writing = asyncio.ensure_future(self._write(stream))
        try:
            await self._read(stream)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _read(self, stream: _Stream) -> None:
        while (message := await stream.receive()) is not None:
            size_bytes = _size_bytes(message)
            while self._inbox and not self._has_room_for(size_bytes):
                self._room_made.clear()
                await self._room_made.wait()
            self._inbox.append((message, size_bytes))
            self._inbox_bytes += size_bytes
            self._on_change()

    def _has_room_for(self, size_bytes: int) -> bool:
        return len(self._inbox) < INBOX_MESSAGES_MAX and self._inbox_bytes + size_bytes <= INBOX_SIZE_BYTES_MAX

    async def _write(self, stream: _Stream) -> None:
        await stream.send(pb.ReplicaMessage(hello=self._hello))
        while True:
            await self._has_mail.wait()
            self._has_mail.clear()
            while self._outbox:
                await stream.send(self._outbox.popleft())
            if self._acknowledgement is not None:
                said, self._acknowledgement = self._acknowledgement, None
                await stream.send(pb.ReplicaMessage(acknowledge=said))
                self._has_mail.set()


def _size_bytes(message: pb.MasterMessage) -> int:
    """Of what weighs; each look at the data copies it."""
    return len(message.chunk.data) + len(message.state.data)
