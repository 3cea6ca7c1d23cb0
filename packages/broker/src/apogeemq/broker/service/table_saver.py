"""Writes one table: what changed goes into the journal of its file, or the whole goes into the file."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from apogeemq.broker.service.saved_tables import KeyT, SavedTable
from apogeemq.remoting_codec.fastjson import JsonBody
from apogeemq.store.config_journal import JournaledFile

T = TypeVar("T")


class TableSaver(Generic[KeyT]):
    """One table and its file.

    What is written is copied from the table on the event loop; making the text and writing it, with its sync, happens
    in a thread. While one write runs, changes gather for the next.

    Args:
        table: what.
        file: where to; loaded already.
        before_write: waited for after the copy was made and before it is written.
        on_written: gets each change, in the form of the file, once it is on the disk.
    """

    def __init__(
        self,
        table: SavedTable[KeyT],
        file: JournaledFile,
        *,
        before_write: Callable[[], Awaitable[None]] | None = None,
        on_written: Callable[[bytes], None] | None = None,
    ) -> None:
        self._table = table
        self._on_written = on_written
        self._file = file
        self._before_write = before_write
        self._lock = asyncio.Lock()

    async def whole(self) -> bytes:
        """The form of the file, as the table is now."""
        body = await self._table.whole()
        return await asyncio.to_thread(body.encode)

    async def save(self) -> None:
        """Have every change so far on the disk. Errors: OSError, StoreError; the changes are written the next time."""
        async with self._lock:
            if self._table.changed:
                await self._write(whole=False)

    async def save_whole(self) -> None:
        """Have everything in the file and nothing in the journal, as Java reads it. Errors: as `save`."""
        async with self._lock:
            if self._table.changed or self._file.holds_changes:
                await self._write(whole=True)

    async def settle(self) -> None:
        """After a start: write anew what the last process left in the journal and may never have synced."""
        async with self._lock:
            if self._file.holds_changes:
                await self._write(whole=True)

    async def _write(self, *, whole: bool) -> None:
        version = self._table.version
        keys = set(self._table.changed)
        self._table.changed.clear()
        try:
            is_part_wanted = not whole or self._on_written is not None
            part = await self._table.part(keys) if is_part_wanted else None
            if whole or part is None or not await self._put(self._append, part):
                await self._put(self._save, await self._table.whole())
        except BaseException:
            self._table.changed.update(keys)
            raise
        self._table.saved(version)
        if self._on_written is not None and part is not None and keys:
            self._on_written(await asyncio.to_thread(part.encode))

    async def _put(self, write: Callable[[JsonBody], T], body: JsonBody) -> T:
        if self._before_write is not None:
            await self._before_write()
        return await _in_thread(write, body)

    def _append(self, part: JsonBody) -> bool:
        return self._file.append(part.encode())

    def _save(self, whole: JsonBody) -> None:
        self._file.save(whole.encode(pretty=True))


async def _in_thread(write: Callable[[JsonBody], T], body: JsonBody) -> T:
    """Write in a thread. When cancelled, wait for it first: two writes of one file must never overlap."""
    writing = asyncio.ensure_future(asyncio.to_thread(write, body))
    try:
        return await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.gather(writing, return_exceptions=True)  # what failed now is written once more by `stop`
        raise
