"""The log of a broker that belongs to a set: the store's, with the file that says which master wrote which part.

What waits for the disk runs in a thread. Everything else belongs to the event loop, which is the thread that appends:
nothing is appended while a cut is under way, because a replica does one thing after another.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable

from apogeemq.broker.core.replication import follower
from apogeemq.store.epoch_file import EpochEntry, EpochFile
from apogeemq.store.message_store import MessageStore
from apogeemq.store.replication_view import ChunkStatus

APPEND_SIZE_BYTES_MAX = 32 << 10
"""So much of a chunk is appended at a time, then others get a turn: 32 KiB of the smallest records take some 2 ms."""

_log = logging.getLogger(__name__)


class FullCopyNeeded(Exception):  # noqa: N818 — a fact, as those of the mesh
    """This broker's directory holds what the master's log does not continue, and only a person may drop it."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}; nothing was dropped. If the master's log is the right one, stop this broker, move its store "
            "directory away and start it again: it then copies everything"
        )


class LogExpired(Exception):  # noqa: N818
    """The log begins behind the offset that was asked for."""

    def __init__(self, offset: int, min_offset: int) -> None:
        super().__init__(f"the log begins at {min_offset}, {offset} has expired")


class ReplicatedLog:
    """See the module. `store` is the open store; whoever has it appends and reads through it as ever."""

    @classmethod
    def open(cls, store: MessageStore, epochs: EpochFile) -> ReplicatedLog:
        """Take a store that was just opened. Blocking; before anybody reads from the store or appends.

        Readers see what the checkpoint says was confirmed; 0 where it says nothing. Epochs that begin behind the log's
        end are forgotten: the log lost that end, or never had their first record.
        Errors: DiskFull, OSError.
        """
        store.confirm_offset = store.replication.known_confirm_offset
        epochs.truncate_suffix(store.written_offset + 1)
        return cls(store, epochs)

    def __init__(self, store: MessageStore, epochs: EpochFile) -> None:
        """For `open`."""
        self.store = store
        self._epochs = epochs
        self._replication = store.replication
        self._starts: tuple[int, ...] = ()
        self._starts_of: tuple[EpochEntry, ...] = ()

    # -- what there is -------------------------------------------------------------------------------------------------

    @property
    def entries(self) -> tuple[EpochEntry, ...]:
        """Of the epoch file, oldest first."""
        return self._epochs.entries

    @property
    def last_epoch(self) -> int:
        """The newest epoch of the log; 0 = none."""
        return self._epochs.last_epoch

    @property
    def min_offset(self) -> int:
        """Where the log begins."""
        return self.store.min_physical_offset

    @property
    def end_offset(self) -> int:
        """Where it ends: whole records, in the page cache. What a replica acknowledges."""
        return self.store.written_offset

    @property
    def flushed_offset(self) -> int:
        """Up to here it is synced."""
        return self.store.flushed_offset

    @property
    def confirm_offset(self) -> int:
        """Readers see the log up to here."""
        return self.store.confirm_offset

    @property
    def file_size_bytes(self) -> int:
        """Size of the log's files."""
        return self._replication.file_size_bytes

    @property
    def record_size_bytes_max(self) -> int:
        """Size of the largest record."""
        return self._replication.record_size_bytes_max

    def view(self) -> follower.Log:
        """The log of this moment, as the follower's machine sees it."""
        return follower.Log(self.entries, self.min_offset, self.end_offset, self.confirm_offset)

    def confirm(self, offset: int) -> None:
        """Let readers see up to here; a lower offset than before is passed over."""
        self.store.confirm_offset = offset

    def notify_flushed(self, offset: int, callback: Callable[[Exception | None], None]) -> None:
        """See MessageStore.notify_flushed."""
        self.store.notify_flushed(offset, callback)

    # -- as a master ---------------------------------------------------------------------------------------------------

    async def begin_epoch(self, epoch: int) -> None:
        """Note that this broker's own epoch begins at the log's end; durable before it returns.

        A log that never was a set's belongs to its first epoch from its beginning. Errors: EpochInvalid, DiskFull,
        OSError.
        """
        start_offset = self.end_offset if self.entries else self.min_offset
        await self.add_entry(EpochEntry(epoch, start_offset))

    async def add_entry(self, entry: EpochEntry) -> None:
        """Add an entry, durably; epochs of which nothing is left go. Errors: EpochInvalid, DiskFull, OSError."""
        min_offset = self.min_offset

        def add() -> None:
            self._epochs.append_epoch(*entry)
            self._epochs.truncate_prefix(min_offset)

        await asyncio.to_thread(add)

    def epoch_at(self, offset: int) -> tuple[EpochEntry, int | None]:
        """Which epoch the byte at `offset` was written in, and where that epoch ends; None for the last one.

        Bytes before the first entry count as its own: nobody knows better.
        """
        entries = self.entries
        if self._starts_of is not entries:
            self._starts_of, self._starts = entries, tuple(entry.start_offset for entry in entries)
        at = max(bisect_right(self._starts, offset), 1)
        return entries[at - 1], self._starts[at] if at < len(entries) else None

    async def read(self, offset: int, size_bytes_max: int) -> bytes:
        """Bytes from `offset` on, of one file; none when the log ends there.

        Errors: LogExpired; ValueError behind the log's end; OSError.
        """
        chunk = self._replication.read_chunk(offset, size_bytes_max, wait=False)
        if chunk.status is ChunkStatus.COLD:
            chunk = await asyncio.to_thread(self._replication.read_chunk, offset, size_bytes_max, wait=True)
        match chunk.status:
            case ChunkStatus.FOUND:
                return bytes(chunk.data)
            case ChunkStatus.EXPIRED:
                raise LogExpired(offset, chunk.min_offset)
            case ChunkStatus.BEYOND_END:
                raise ValueError(f"the log ends at {chunk.written_offset}, {offset} lies behind it")
            case _:
                return b""

    async def crc_of(self, start: int, end: int) -> int:
        """CRC-32 of [start, end). Errors: OffsetOutOfRange, ValueError, OSError."""
        return await asyncio.to_thread(self._replication.crc_of, start, end)

    # -- as a replica --------------------------------------------------------------------------------------------------

    async def append(self, offset: int, data: bytes) -> None:
        """Continue the log with the master's bytes; other tasks run in between, none of which may append.

        Errors: see ReplicationView.append_chunk; the pieces before are there then.
        """
        if len(data) <= APPEND_SIZE_BYTES_MAX:
            self._replication.append_chunk(offset, data)
            return
        view = memoryview(data)
        for start in range(0, len(data), APPEND_SIZE_BYTES_MAX):
            self._replication.append_chunk(offset + start, view[start : start + APPEND_SIZE_BYTES_MAX])
            await asyncio.sleep(0)

    async def cut(self, offset: int) -> None:
        """Cut the log, what is derived from it, and then its epochs; half a record in memory goes too. Durable.

        With the log's end as offset only epochs go, and the half record. A crash in between leaves epochs that begin
        at the cut at the latest: the next cut there takes them.
        Errors: see ReplicationView.truncate; DiskFull, OSError.
        """

        def run() -> None:
            self._replication.truncate(offset)
            self._epochs.truncate_suffix(offset)

        await asyncio.to_thread(run)

    async def drop_half_record(self) -> None:
        """Forget what was received of a record that has not come whole: another master may go on otherwise."""
        await asyncio.to_thread(self._replication.truncate, self.end_offset)

    async def start_over(self, offset: int) -> None:
        """Drop everything, and let the log begin at `offset`, where a file of the master's begins.

        Errors: FullCopyNeeded when something in it is confirmed, or when it never was a set's; see
        ReplicationView.truncate and begin_at.
        """
        if self.confirm_offset > self.min_offset:
            raise FullCopyNeeded(
                f"the master's log begins at {offset} and has nothing in common with this broker's, which is confirmed "
                f"up to {self.confirm_offset}"
            )
        if self.end_offset > self.min_offset and not self.entries:
            raise FullCopyNeeded(
                f"this broker's log of {self.end_offset - self.min_offset} bytes was written before it belonged to a "
                "broker set, and the set's master has another one"
            )
        if self.end_offset > self.min_offset:
            _log.warning("dropping the log [%d, %d): nothing in it is confirmed", self.min_offset, self.end_offset)

        def run() -> None:
            self._replication.truncate(self.min_offset)
            if offset != self.min_offset:
                self._replication.begin_at(offset)
            self._epochs.replace(())

        await asyncio.to_thread(run)
