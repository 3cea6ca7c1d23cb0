"""Offsets of a broadcasting consumer, in a file of its own: no broker knows how far each of its members is.

`<directory>/<group>/offsets.json`, in the form of Java's client, whose file may be taken over:

    {"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"orders"}:55}}

The file is written whole beside the old one, synced, and put in its place, so that a crash leaves one or the other.
Source: Apache LocalFileOffsetStore; reference broker_behaviour.md §6.
"""

import asyncio
import logging
import os
import pathlib
from collections.abc import Iterable

import msgspec
from apogeemq.client_api.errors import StartFailed
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.fastjson import JsonBody

logger = logging.getLogger(__name__)


class OffsetsFile(JsonBody, frozen=True, kw_only=True):
    """What is in the file."""

    offset_table: dict[MessageQueue, int] = msgspec.field(default_factory=dict)


class LocalOffsets:
    """The offsets of one group's member. Files are read and written in threads, one write at a time."""

    def __init__(self, directory: pathlib.Path, group: str) -> None:
        self._path = directory / group / "offsets.json"
        self._offsets: dict[MessageQueue, int] = {}
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Read the file, if there is one. Raises StartFailed for one that cannot be read."""
        try:
            text = await asyncio.to_thread(self._read)
            self._offsets = dict(OffsetsFile.decode(text).offset_table) if text else {}
        except (OSError, CodecError) as error:
            raise StartFailed(
                f"the offsets in {self._path} cannot be read: {error}",
                hint="Mend the file, or remove it to begin as a new member does.",
            ) from error

    async def committed(self, queue: MessageQueue) -> int | None:
        """What the file has."""
        return self._offsets.get(queue)

    async def commit(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage]) -> bool:
        """Keep one queue's offset."""
        return await self.commit_all([(queue, in_hand)])

    async def commit_all(self, queues: Iterable[tuple[MessageQueue, ProcessQueue[ReceivedMessage]]]) -> bool:
        """Keep what changed, in one write."""
        changed = [
            (queue, in_hand, in_hand.commit_offset) for queue, in_hand in queues if in_hand.uncommitted is not None
        ]
        if not changed:
            return True
        is_kept = await self._keep({queue: offset for queue, _, offset in changed})
        if is_kept:
            for _, in_hand, offset in changed:
                in_hand.committed(offset)
        return is_kept

    async def set(self, queue: MessageQueue, offset: int) -> bool:
        """Keep this offset."""
        return await self._keep({queue: offset})

    async def _keep(self, offsets: dict[MessageQueue, int]) -> bool:
        async with self._writing:
            self._offsets |= offsets
            text = OffsetsFile(offset_table=self._offsets).encode()
            try:
                await asyncio.to_thread(self._write, text)
            except OSError as error:
                logger.warning("offsets are not kept in %s yet: %s", self._path, error)
                return False
        return True

    def _read(self) -> bytes:
        """The file's bytes; none without a file."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""

    def _write(self, text: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".json.tmp")
        with fresh.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
