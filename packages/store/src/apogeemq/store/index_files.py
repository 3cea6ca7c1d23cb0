"""The index of a store: which records have a key, over a row of index files."""

import logging
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from threading import Lock

import msgspec
from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.files import Disk
from apogeemq.store.index_file import PENDING, IndexFile, index_file_size_bytes
from apogeemq.store.key_hash import KeyHashes, index_hash, key_prefix, keys_of

_logger = logging.getLogger(__name__)

_ROLLED_BACK = MessageSysFlag.TRANSACTION_ROLLBACK_TYPE
_BATCH_SIZE_BYTES = 256 * PENDING.size
"""Entries that are chained in one go, with the GIL held: about 0.3 ms."""
_ENTRIES_LOOKED_AT_MAX = 1_000_000
"""A query looks at this many entries: about a second."""
_NOTED_MAX = 64
"""Records whose keys are hashed together: about 0.2 ms, which one append in 64 takes longer."""


class IndexAnswer(msgspec.Struct, frozen=True):
    """What the index says of a key, and how far it has come."""

    physical_offsets: list[int]
    """Of records that may have the key, newest first."""
    last_update_timestamp_ms: int
    last_update_physical_offset: int


class IndexFiles:
    """Finds records by topic and key.

    ```
    index/20261122141341752   full │ index/20261123081502113   being added to │ tail: in memory, not chained yet
    ```
    A file is named by the local time of its making, yyyyMMddHHmmssSSS; the next one begins when it is full.
    `put` notes, and hashes many at a time, without waiting. `write` brings what was put to the file, `sync` to the
    disk. What is not synced when the process dies is put again by recovery: `end_physical_offset` says how far the
    files go.

    `lock` is that of the commit log; whoever calls `put` beside other threads holds it. Everything else may be called
    from any thread and may wait for the disk. Methods raise OSError as the disk does; nothing is lost then, and the
    call may be repeated if the disk was merely full.
    Source: Apache store/index/IndexService 5.x; broker_behaviour.md §9.
    """

    def __init__(
        self, disk: Disk, directory: Path, *, slots: int, entries_max: int, lock: Lock, now_ms: Callable[[], int]
    ) -> None:
        self.tail = bytearray()
        """PENDING units in the order of the log. Guarded by `lock`."""
        self.end_physical_offset = 0
        """Records that begin below this are in it, or have no keys; those noted count when they are hashed."""
        self._noted: list[tuple[bytes, bytes, int, int]] = []
        """(prefix, properties, physical offset, store timestamp ms) of the newest records. Guarded by `lock`."""
        self._disk = disk
        self.directory = directory
        self._slots = slots
        self._entries_max = entries_max
        self._lock = lock
        self._now_ms = now_ms
        self._hashes = KeyHashes()
        self._files: list[IndexFile] = []
        self._unsynced: list[IndexFile] = []
        self._doomed: list[str] = []
        self._is_wanted = False
        self._has_new_names = False
        self._last_timestamp_ms = 0
        self._write_lock = Lock()
        """Guards the files: which there are, their slots and headers."""
        self._sync_lock = Lock()
        """Held by whoever syncs or takes back; taken before `_write_lock`."""

    # -- opening -------------------------------------------------------------------------------------------------------

    def load(self, *, clean: bool, sure_timestamp_ms: int | None) -> bool:
        """Open what is there. False when something is missing, or will be after `remove_doomed`.

        Args:
            clean: the files were left in good order.
            sure_timestamp_ms: for files of others: after a crash, those with later records are not believed; None for
                ours, whose headers tell the truth.
        Errors: LayoutInvalid when files are of another size.
        """
        names = [name for name in self._disk.list_dir(self.directory) if name.isdecimal()]
        for at, name in enumerate(names):
            file = self._new_file(name)
            if not self._load(file, clean=clean, sure_timestamp_ms=sure_timestamp_ms):
                self._doomed = names[at:]
                break
            self._files.append(file)
            if file.room > 0:
                self._doomed = names[at + 1 :]
                break
            if at + 1 < len(names):
                file.release()
        if self._doomed:
            _logger.warning("%s: %s and later files do not fit the others", self.directory, self._doomed[0])
        self._unsynced = self._files[-1:]
        if sure_timestamp_ms is not None:
            for file in self._unsynced:
                file.distrust()
        self._note_end()
        # After a full file there may have been another one.
        return bool(self._files) and self._files[-1].room > 0 and not self._doomed

    def remove_doomed(self) -> None:
        """Remove what `load` did not believe."""
        self._remove_names(self._doomed)
        self._doomed = []

    def mend(self) -> int | None:
        """After a crash or `remove_doomed`: let slots be as headers say, and forget the last record.

        Its keys may be cut in two, at the end of a file or of what was synced.

        Returns where that record begins, to be put again; None when there is no record.
        """
        self._has_new_names = bool(self._files)
        for file in reversed(self._files):
            if file.repair():
                _logger.warning("%s: mended slots that pointed beyond its entries", file.path)
            if file not in self._unsynced:
                self._unsynced.insert(0, file)
            if not file.is_empty:
                break
        last = self.last_physical_offset
        if last is not None:
            self.truncate(last)
        return last

    def _load(self, file: IndexFile, *, clean: bool, sure_timestamp_ms: int | None) -> bool:
        expected_bytes = index_file_size_bytes(self._slots, self._entries_max)
        size_bytes = self._disk.size_of(file.path) or 0
        if size_bytes > expected_bytes:
            raise LayoutInvalid(file.path, f"{size_bytes} bytes, but index files of {expected_bytes} are configured")
        is_sane = file.load()
        is_sure = clean or sure_timestamp_ms is None or file.header.end_timestamp_ms <= sure_timestamp_ms
        return is_sane and is_sure

    def _remove_names(self, names: list[str]) -> None:
        for name in reversed(names):
            self._disk.remove(self.directory / name)
        if names:
            self._disk.sync_dir(self.directory)

    def _note_end(self) -> None:
        self.end_physical_offset = self._last_timestamp_ms = 0
        for file in self._files:
            if not file.is_empty:
                self.end_physical_offset = file.header.end_physical_offset + 1
                self._last_timestamp_ms = file.header.end_timestamp_ms
        if self.tail:
            _, physical_offset, self._last_timestamp_ms = PENDING.unpack_from(self.tail, len(self.tail) - PENDING.size)
            self.end_physical_offset = physical_offset + 1

    @property
    def last_physical_offset(self) -> int | None:
        """Where the newest record that is in it begins; None when it has none."""
        with self._lock:
            self._hash_noted()
        return self.end_physical_offset - 1 if self.end_physical_offset else None

    # -- adding --------------------------------------------------------------------------------------------------------

    def put(self, topic: str, properties: bytes, sys_flag: int, physical_offset: int, store_timestamp_ms: int) -> None:
        """Add a record, unless it is below `end_physical_offset`. Records come in the order of the log."""
        self.put_prefixed(key_prefix(topic), properties, sys_flag, physical_offset, store_timestamp_ms)

    def put_prefixed(
        self, prefix: bytes, properties: bytes, sys_flag: int, physical_offset: int, store_timestamp_ms: int
    ) -> None:
        """The same, with the topic and `#` as bytes. The hot path: never raises, never waits."""
        self._is_wanted = True
        if sys_flag & _ROLLED_BACK != _ROLLED_BACK:
            self._noted.append((prefix, properties, physical_offset, store_timestamp_ms))
            if len(self._noted) >= _NOTED_MAX:
                self._hash_noted()

    def _hash_noted(self) -> None:
        """Move what is noted to the tail, with `lock` held."""
        if not self._noted:
            return
        prefixes, keys, offsets, timestamps = [], [], [], []
        end = self.end_physical_offset
        for prefix, properties, physical_offset, store_timestamp_ms in self._noted:
            if physical_offset < end:
                continue
            for key in keys_of(properties):
                prefixes.append(prefix)
                keys.append(key)
                offsets.append(physical_offset)
                timestamps.append(store_timestamp_ms)
                end = physical_offset + 1
        self._noted.clear()
        if keys:
            hashes = self._hashes.hashes_of(prefixes, keys)
            self.tail += b"".join(map(PENDING.pack, hashes, offsets, timestamps))
            self.end_physical_offset = end
            self._last_timestamp_ms = timestamps[-1]

    def write(self) -> None:
        """Bring everything that was put to the files, unsynced."""
        while self.write_some():
            pass

    def write_some(self) -> bool:
        """A bounded part of the same; True when there is more."""
        with self._write_lock:
            with self._lock:
                self._hash_noted()
                batch = bytes(self.tail[:_BATCH_SIZE_BYTES])
            # Like Java, begin with the first record, keys or not: a store without an index file is one that lost it.
            if not batch and (self._files or not self._is_wanted):
                return False
            file = self._file_with_room()
            if batch:
                batch = batch[: file.room * PENDING.size]
                file.append(batch)
                with self._lock:
                    del self.tail[: len(batch)]
            return bool(self.tail)

    def sync(self) -> None:
        """Make durable what was written, then the headers that speak of it. A failed sync is final, see GroupCommit."""
        with self._sync_lock:
            with self._write_lock:
                due = [(file, file.begin_sync()) for file in self._unsynced]
            if self._has_new_names:
                self._disk.sync_dir(self.directory)
                self._disk.sync_dir(self.directory.parent)
                self._has_new_names = False
            for file, header in due:
                if header is not None:
                    file.finish_sync(header)
            with self._write_lock:
                current = self._files[-1:]
                for file in self._unsynced:
                    file.drop_slots()
                    if file not in current and not file.is_unsynced:
                        file.release()
                self._unsynced = [file for file in self._unsynced if file in current or file.is_unsynced]

    def _file_with_room(self) -> IndexFile:
        if self._files:
            if self._files[-1].room > 0:
                return self._files[-1]
            self._files[-1].write_slots()
        file = self._new_file(self._new_name())
        file.create()
        self._has_new_names = True
        self._files.append(file)
        self._unsynced.append(file)
        return file

    def _new_file(self, name: str) -> IndexFile:
        return IndexFile(self._disk, self.directory / name, self._slots, self._entries_max)

    def _new_name(self) -> str:
        now_ms = self._now_ms()
        name = time.strftime("%Y%m%d%H%M%S", time.localtime(now_ms // 1000)) + f"{now_ms % 1000:03d}"
        if self._files:
            # The order of names is the order of files, also when clocks go back or two are made in a millisecond.
            name = str(max(int(name), int(self._files[-1].path.name) + 1))
        return name

    # -- finding -------------------------------------------------------------------------------------------------------

    def query(self, topic: str, key: str, max_count: int, begin_ms: int, end_ms: int) -> IndexAnswer:
        """Records of the topic that may have the key and were stored in [begin_ms, end_ms], newest first.

        They may also have another key of the same hash, and times are compared by the second: readers look themselves.
        """
        found = list(islice(self.candidates(topic, key, begin_ms, end_ms), max_count))
        return IndexAnswer(found, *self.last_update())

    def last_update(self) -> tuple[int, int]:
        """Store timestamp and physical offset of the newest record that is in it; zeros when there is none."""
        with self._lock:
            self._hash_noted()
            return self._last_timestamp_ms, max(0, self.end_physical_offset - 1)

    def candidates(self, topic: str, key: str, begin_ms: int, end_ms: int) -> Iterator[int]:
        """The same one by one, each offset once."""
        key_hash = index_hash(key_prefix(topic) + key.encode(errors="replace"))
        with self._write_lock:
            with self._lock:
                self._hash_noted()
                tail = bytes(self.tail)
            files = self._files[:]
            head = files[-1].head(key_hash) if files else 0
        last_offset = -1
        for physical_offset, timestamp_ms in _pending_of(tail, key_hash):
            if begin_ms <= timestamp_ms <= end_ms and physical_offset != last_offset:
                last_offset = physical_offset
                yield physical_offset
        for physical_offset in self._chained(files, head, key_hash, begin_ms, end_ms):
            if physical_offset != last_offset:
                last_offset = physical_offset
                yield physical_offset

    def _chained(
        self, files: list[IndexFile], newest_head: int, key_hash: int, begin_ms: int, end_ms: int
    ) -> Iterator[int]:
        """What the files say; `newest_head` is the slot of the newest file."""
        left = _ENTRIES_LOOKED_AT_MAX
        for file in reversed(files):
            header = file.header
            if file.is_empty or begin_ms > header.end_timestamp_ms or end_ms < header.begin_timestamp_ms:
                continue
            try:
                segment = file.segment()
            except FileNotFoundError:  # retention took it, and all before it
                return
            if file is not files[-1]:
                newest_head = file.head(key_hash)
            for physical_offset, second_ms, is_same in file.chain(segment, newest_head, key_hash):
                left -= 1
                if second_ms + 999 < begin_ms or left < 0:
                    return
                if is_same and second_ms <= end_ms:
                    yield physical_offset

    # -- taking back ---------------------------------------------------------------------------------------------------

    def delete_before(self, physical_offset: int) -> int:
        """Remove files whose every record begins below the offset; never the last file. Returns how many."""
        with self._sync_lock, self._write_lock:
            expired = 0
            for file in self._files[:-1]:
                if file.header.end_physical_offset >= physical_offset:
                    break
                expired += 1
            names = [file.path.name for file in self._files[:expired]]
            self._unsynced = [file for file in self._unsynced if file not in self._files[:expired]]
            del self._files[:expired]
        for name in names:  # oldest first: what is left has no gap
            self._disk.remove(self.directory / name)
        if names:
            self._disk.sync_dir(self.directory)
        return expired

    def truncate(self, physical_offset: int) -> None:
        """Forget records at or beyond the offset, durably."""
        last = self.last_physical_offset
        if last is None or last < physical_offset:
            return
        with self._sync_lock, self._write_lock:
            with self._lock:
                self._truncate_tail(physical_offset)
            while self._files:
                file = self._files[-1]
                if not file.is_empty:
                    file.truncate(physical_offset)
                if not file.is_empty or len(self._files) == 1:
                    break
                self._files.pop()
                self._unsynced = [other for other in self._unsynced if other is not file]
                self._remove_names([file.path.name])
            self._unsynced = [file for file in self._unsynced if file not in self._files[-1:]] + self._files[-1:]
            self._note_end()

    def _truncate_tail(self, physical_offset: int) -> None:
        self._hash_noted()
        while self.tail:
            _, last_offset, _ = PENDING.unpack_from(self.tail, len(self.tail) - PENDING.size)
            if last_offset < physical_offset:
                break
            del self.tail[-PENDING.size :]

    def close(self) -> None:
        """Let go of all files. What was not synced is put again by the next recovery."""
        with self._write_lock:
            self._files.clear()
            self._unsynced.clear()


def _pending_of(tail: bytes, key_hash: int) -> Iterator[tuple[int, int]]:
    """(physical offset, store timestamp ms) of the hash's entries that are not chained yet, newest first."""
    wanted = key_hash.to_bytes(4, "big")
    at = tail.rfind(wanted)
    while at >= 0:
        if at % PENDING.size == 0:
            _, physical_offset, timestamp_ms = PENDING.unpack_from(tail, at)
            yield physical_offset, timestamp_ms
        at = tail.rfind(wanted, 0, at + len(wanted) - 1)
