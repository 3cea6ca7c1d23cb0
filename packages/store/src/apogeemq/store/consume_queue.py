"""Consume queues: where the messages of each queue lie in the commit log."""

import struct
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock

from apogeemq.remoting_codec.record import MAGIC_V1, TOPIC_SIZE_V1, TOPIC_SIZE_V2, magic_of_topic
from apogeemq.store.errors import MessageInvalid, MessageTooLarge
from apogeemq.store.files import Disk, Segment
from apogeemq.store.segment_files import SegmentFiles, segment_starts
from apogeemq.store.side_by_side import DoAll, one_by_one

_QUEUE_ID_MAX = 0x7FFFFFFF

UNIT = struct.Struct(">qiq")
"""Physical offset, record size, tags code."""
UNIT_SIZE_BYTES = UNIT.size

PADDING_SIZE = 0x7FFFFFFF
"""The record size in a unit that stands for no message."""

TOPIC_SIZE_BYTES_MAX = 255


class ConsumeQueue:
    """Logical queue of one (topic, queue id): where its n-th message lies in the commit log.

    ```
    unit, 20 bytes, big-endian:   physical offset i64 │ record size i32 │ tags code i64
    ```
    The unit of queue offset n lies at byte n · 20 of the row of files; a file holds 300,000 units by default and is
    named by the byte offset of its first one. After the last unit there are zeros: a record size of 0 ends the queue.
    Where a queue does not begin with its file, units {0, 0x7FFFFFFF, 0} fill the front; if messages are missing in
    between (never by our doing), units {physical offset of the next one, 0x7FFFFFFF, 0} stand for them.
    Tags code: Java's String.hashCode of the tag, 0 without tag; in SCHEDULE_TOPIC_XXXX the time of delivery.
    Rebuilt from the commit log after a crash, hence neither checksummed nor synced per append.
    Source: Apache store/ConsumeQueue 5.x; broker_behaviour.md §9.

    Newest units are in `tail`, from queue offset `tail_offset` on; all before are in files, written by ConsumeQueues.
    """

    __slots__ = (
        "directory",
        "first_offset",
        "key_prefix",
        "magic",
        "max_offset",
        "min_offset",
        "queue_id",
        "tail",
        "tail_offset",
        "topic",
        "topic_field",
    )

    def __init__(self, topic: str, queue_id: int, directory: Path) -> None:
        topic_bytes = topic.encode()
        self.topic = topic
        self.queue_id = queue_id
        self.directory = directory
        self.magic = magic_of_topic(len(topic_bytes))
        topic_size = TOPIC_SIZE_V1 if self.magic == MAGIC_V1 else TOPIC_SIZE_V2
        self.topic_field = topic_size.pack(len(topic_bytes)) + topic_bytes
        """Length and topic as they stand in a record."""
        self.key_prefix = topic_bytes + b"#"
        """What stands before a key in the text that the index hashes."""
        self.first_offset = 0
        """Of the first unit of the first file, be it a message or padding."""
        self.min_offset = 0
        """The first queue offset whose record is still in the commit log."""
        self.tail_offset = 0
        self.tail = bytearray()
        self.max_offset = 0
        """One past the last queue offset: tail_offset + units in the tail."""


class ConsumeQueues:
    """All consume queues of a store: the table by (topic, queue id), their files, and writing tails to them.

    `lock` guards tails and the ends of queues, as in CommitLog; it is not held while files are written. Tails are
    written by any thread, one queue after the other.
    Methods may raise OSError; those that only read leave everything as it was.
    """

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        *,
        units_per_file: int,
        open_files_max: int,
        lock: Lock,
        sync_all: DoAll = one_by_one,
    ) -> None:
        """`sync_all` does the syncs of many files."""
        self.table: dict[tuple[str, int], ConsumeQueue] = {}
        self.dirty: list[ConsumeQueue] = []
        """Queues whose tail is not empty; guarded by `lock`."""
        self.units_per_file = units_per_file
        self._disk = disk
        self._directory = directory
        self._file_size_bytes = units_per_file * UNIT_SIZE_BYTES
        self._files = SegmentFiles(disk, self._file_size_bytes, open_files_max)
        self._lock = lock
        self._sync_all = sync_all
        self._drain_lock = Lock()
        self._unsynced: set[tuple[Path, int]] = set()

    def create(self, topic: str, queue_id: int, directory: Path | None = None) -> ConsumeQueue:
        """An empty queue, in the table. Its directory, `<topic>/<queue id>`, appears with its first written unit.

        Errors: MessageTooLarge and MessageInvalid when the topic cannot be a directory or the id is no queue's.
        """
        topic_size_bytes = len(topic.encode(errors="surrogateescape"))
        if topic_size_bytes > TOPIC_SIZE_BYTES_MAX:
            raise MessageTooLarge("topic", topic_size_bytes, TOPIC_SIZE_BYTES_MAX)
        if topic in ("", ".", "..") or not topic.isprintable() or "/" in topic:
            raise MessageInvalid(f"{topic!r} is not a topic")
        if not 0 <= queue_id <= _QUEUE_ID_MAX:
            raise MessageInvalid(f"{queue_id} is not a queue id")
        queue = ConsumeQueue(topic, queue_id, directory or self._directory / topic / str(queue_id))
        self.table[topic, queue_id] = queue
        return queue

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, queue: ConsumeQueue, queue_offset: int, count: int, *, wait: bool) -> bytes | None:
        """The units of [queue_offset, queue_offset + count), less where the queue ends.

        None when they are not in memory and `wait` is False. `queue_offset` must not be below the first file.
        Errors: FileNotFoundError when a file of the queue is gone.
        """
        with self._lock:
            tail_offset = queue.tail_offset
            stop = min(queue_offset + count, queue.max_offset)
            if queue_offset >= tail_offset:
                start = (queue_offset - tail_offset) * UNIT_SIZE_BYTES
                return bytes(queue.tail[start : (stop - tail_offset) * UNIT_SIZE_BYTES])
            recent = bytes(queue.tail[: max(0, stop - tail_offset) * UNIT_SIZE_BYTES])
        written = self._read_files(queue.directory, queue_offset, min(stop, tail_offset), wait=wait)
        return None if written is None else written + recent

    def unit_at(self, queue: ConsumeQueue, queue_offset: int) -> tuple[int, int, int]:
        """(physical offset, record size, tags code) of a queue offset that exists. May wait for the disk."""
        data = self.read(queue, queue_offset, 1, wait=True)
        assert data, f"{queue.topic} {queue.queue_id} ends at {queue.max_offset}, before {queue_offset}"
        physical_offset, size_bytes, tags_code = UNIT.unpack(data)
        return physical_offset, size_bytes, tags_code

    def next_file_offset(self, queue_offset: int) -> int:
        """The queue offset with which the file after that of `queue_offset` begins."""
        return queue_offset - queue_offset % self.units_per_file + self.units_per_file

    def _read_files(self, directory: Path, queue_offset: int, stop: int, *, wait: bool) -> bytes | None:
        pieces = []
        at, end = queue_offset * UNIT_SIZE_BYTES, stop * UNIT_SIZE_BYTES
        while at < end:
            start = at - at % self._file_size_bytes
            size_bytes = min(end, start + self._file_size_bytes) - at
            segment = self._files.get(directory, start)
            piece = segment.pread(at - start, size_bytes) if wait else segment.pread_cached(at - start, size_bytes)
            if piece is None:
                return None
            pieces.append(piece)
            at += size_bytes
        return b"".join(pieces)

    # -- writing tails -------------------------------------------------------------------------------------------------

    def drain(self, queue: ConsumeQueue) -> None:
        """Write the tail to its file, unsynced, and drop it. On an error it stays."""
        with self._drain_lock:
            with self._lock:
                data = bytes(queue.tail)
                queue_offset = queue.tail_offset
            if not data:
                return
            self._write_files(queue.directory, queue_offset * UNIT_SIZE_BYTES, data)
            with self._lock:
                del queue.tail[: len(data)]
                queue.tail_offset += len(data) // UNIT_SIZE_BYTES
                if queue.tail:
                    # Came while the file was written. Its appender saw a tail that was not empty, so it did not note
                    # the queue as dirty: without this a stop would leave these units out of the file.
                    self.dirty.append(queue)

    def drain_all(self) -> None:
        """Write all tails. On an error those not written stay dirty."""
        with self._lock:
            queues = self.dirty[:]
            self.dirty.clear()
        while queues:
            try:
                self.drain(queues[-1])
            except OSError:
                with self._lock:
                    self.dirty += queues
                raise
            queues.pop()

    def sync(self) -> None:
        """Sync what was written since the last call. A queue whose directory was removed meanwhile needs none.

        On an error it is not known any more what is synced.
        """
        with self._drain_lock:  # not longer: an appender with a full tail must not wait for the disk
            unsynced, self._unsynced = self._unsynced, set()
        self._sync_all([partial(self._sync_file, directory, start) for directory, start in sorted(unsynced)])
        changed = self._files.take_changed_directories()
        changed |= {parent for directory in changed for parent in (directory.parent, self._directory)}
        if changed:
            changed.add(self._directory.parent)
        self._sync_all([partial(self._sync_names, directory) for directory in sorted(changed)])

    def _sync_file(self, directory: Path, start: int) -> None:
        with suppress(FileNotFoundError):
            self._files.get(directory, start).sync()

    def _sync_names(self, directory: Path) -> None:
        with suppress(FileNotFoundError):
            self._disk.sync_dir(directory)

    def _write_files(self, directory: Path, at: int, data: bytes) -> None:
        while data:
            start = at - at % self._file_size_bytes
            piece = data[: start + self._file_size_bytes - at]
            self._unsynced.add((directory, start))
            self._files.get(directory, start, create=True).write(at - start, piece)
            data = data[len(piece) :]
            at += len(piece)

    # -- following the log ---------------------------------------------------------------------------------------------

    def follow(self, queue: ConsumeQueue, log_min_offset: int) -> int:
        """Let the queue begin with the first record that the log still has; gives how many files went.

        A file goes when the one behind it, too, begins with a record that is gone. So one always stays, which keeps
        the queue's end; and as what is gone from the log was synced here before, that one is sure to be on the disk.
        For one thread. Errors: OSError, and the file is there as before.
        """
        try:
            if queue.min_offset < queue.max_offset and self.unit_at(queue, queue.min_offset)[0] >= log_min_offset:
                return 0
            queue.min_offset = self.find_min(queue, log_min_offset)
        except FileNotFoundError:
            return 0  # its directory was removed meanwhile
        files = 0
        while queue.first_offset + self.units_per_file < queue.min_offset:
            with suppress(FileNotFoundError):  # as above
                self._files.remove(queue.directory, queue.first_offset * UNIT_SIZE_BYTES)
            queue.first_offset += self.units_per_file
            files += 1
        return files

    # -- following another store's log, see replication_view -----------------------------------------------------------

    def drop_units(self, queue: ConsumeQueue, queue_offset: int) -> None:
        """Let the queue end at `queue_offset`, in memory; `clear_behind` has to follow before units are added."""
        with self._drain_lock, self._lock:
            del queue.tail[max(0, queue_offset - queue.tail_offset) * UNIT_SIZE_BYTES :]
            queue.tail_offset = min(queue.tail_offset, queue_offset)
            queue.max_offset = queue_offset
            queue.min_offset = min(queue.min_offset, queue_offset)

    def clear_behind(self, queue: ConsumeQueue) -> None:
        """Clear the files behind the end of the queue, as `cut` does, but never shorten one: it is being read."""
        with self._drain_lock:
            at = queue.max_offset * UNIT_SIZE_BYTES
            for start in reversed(segment_starts(self._disk, queue.directory, self._file_size_bytes)):
                if start > at:
                    self._files.remove(queue.directory, start)
                elif start + self._file_size_bytes > at:
                    segment = self._files.get(queue.directory, start)
                    data_end = segment.data_end(at - start)
                    if data_end > at - start:
                        segment.write(at - start, bytes(data_end - (at - start)))
                        self._unsynced.add((queue.directory, start))

    def begin_at(self, queue: ConsumeQueue, queue_offset: int) -> None:
        """Let a queue that never had a unit begin at `queue_offset`, with padding in front of it."""
        with self._lock:
            assert queue.max_offset == queue.first_offset
            padding_units = queue_offset % self.units_per_file
            queue.first_offset = queue.tail_offset = queue_offset - padding_units
            self._pad(queue, padding_units, 0)
            queue.min_offset = queue_offset

    # -- while opening: no other thread is at work ---------------------------------------------------------------------

    def load(self, physical_limit: int) -> Iterator[ConsumeQueue]:
        """Find all queues. Each ends before its first unit that is empty or not below `physical_limit`; what its files
        hold behind that is removed.

        They come one by one, so that whoever has a look at a queue's units finds its file still open.
        Errors: LayoutInvalid.
        """
        for topic in self._disk.list_dir(self._directory):
            topic_directory = self._directory / topic
            for name in self._disk.list_dir(topic_directory):
                directory = topic_directory / name
                starts = segment_starts(self._disk, directory, self._file_size_bytes)
                if starts and name.isdecimal():
                    queue = self.create(topic, int(name), directory)
                    queue.first_offset = queue.min_offset = starts.start // UNIT_SIZE_BYTES
                    end, is_tidy = self._find_end(queue, starts, physical_limit)
                    queue.max_offset = queue.tail_offset = end
                    if not is_tidy:
                        self.cut(queue, end)
                    yield queue

    def put(self, queue: ConsumeQueue, physical_offset: int, size_bytes: int, tags_code: int) -> None:
        """Append one unit, as CommitLog.append does on its own."""
        tail = queue.tail
        if not tail:
            self.dirty.append(queue)
        tail += UNIT.pack(physical_offset, size_bytes, tags_code)
        queue.max_offset += 1

    def cut(self, queue: ConsumeQueue, queue_offset: int) -> None:
        """Remove the units from `queue_offset` on, and whatever lies behind the end in the files."""
        assert queue_offset <= queue.max_offset
        del queue.tail[max(0, queue_offset - queue.tail_offset) * UNIT_SIZE_BYTES :]
        queue.tail_offset = min(queue.tail_offset, queue_offset)
        queue.max_offset = queue_offset
        queue.min_offset = min(queue.min_offset, queue_offset)
        at = queue_offset * UNIT_SIZE_BYTES
        for start in reversed(segment_starts(self._disk, queue.directory, self._file_size_bytes)):
            if start > at:
                self._files.remove(queue.directory, start)
            elif start + self._file_size_bytes > at:
                segment = self._files.get(queue.directory, start)
                if segment.data_end(at - start) > at - start:
                    segment.clear_from(at - start)
                    self._unsynced.add((queue.directory, start))
                if start == at:  # nothing that was ever synced is in it: perhaps its name was not either
                    self._files.distrust_names(queue.directory)

    def start_at(self, queue: ConsumeQueue, queue_offset: int) -> None:
        """Let the queue begin anew at `queue_offset`, with padding in front of it; what it had is gone."""
        self.cut(queue, queue.first_offset)
        for start in segment_starts(self._disk, queue.directory, self._file_size_bytes):
            self._files.remove(queue.directory, start)
        padding_units = queue_offset % self.units_per_file
        queue.first_offset = queue.tail_offset = queue_offset - padding_units
        self._pad(queue, padding_units, 0)

    def fill_gap(self, queue: ConsumeQueue, queue_offset: int, next_physical_offset: int) -> None:
        """Let units that stand for no message lead from the end of the queue to `queue_offset`."""
        while queue.max_offset < queue_offset:
            self._pad(queue, min(queue_offset - queue.max_offset, self.units_per_file), next_physical_offset)
            self.drain(queue)

    def distrust_names(self, queue: ConsumeQueue) -> None:
        """Have the next sync cover the names of the queue's files too, whoever made them."""
        self._files.distrust_names(queue.directory)

    def find_min(self, queue: ConsumeQueue, log_min_offset: int) -> int:
        """The first queue offset whose record is not before `log_min_offset`; the queue's end when there is none."""

        def is_there(queue_offset: int) -> bool:
            physical_offset, size_bytes, _ = self.unit_at(queue, queue_offset)
            is_front_padding = size_bytes == PADDING_SIZE and physical_offset == 0
            return physical_offset >= log_min_offset and not is_front_padding

        offsets = range(queue.first_offset, queue.max_offset)
        if not offsets or is_there(offsets[0]):
            return queue.first_offset
        return queue.first_offset + bisect_left(offsets, True, key=is_there)

    def _pad(self, queue: ConsumeQueue, units: int, physical_offset: int) -> None:
        if not queue.tail:
            self.dirty.append(queue)
        queue.tail += UNIT.pack(physical_offset, PADDING_SIZE, 0) * units
        queue.max_offset = queue.tail_offset + len(queue.tail) // UNIT_SIZE_BYTES

    def _find_end(self, queue: ConsumeQueue, starts: range, physical_limit: int) -> tuple[int, bool]:
        """One past the last queue offset, and whether the row of files ends there too, with nothing but zeros behind.

        A queue that was closed in good order costs one look at where the data of its last file ends, and one unit.
        """
        for start in reversed(starts):
            segment = self._files.get(queue.directory, start)
            used_units = -(-segment.data_end(0) // UNIT_SIZE_BYTES)
            units = _good_units(segment, used_units, physical_limit)
            if units:
                return start // UNIT_SIZE_BYTES + units, units == used_units and start == starts[-1]
        return starts.start // UNIT_SIZE_BYTES, False

    def close(self) -> None:
        """Let go of all files."""
        self._files.close()


def _good_units(segment: Segment, used_units: int, physical_limit: int) -> int:
    """How many of the first `used_units` are not empty and below `physical_limit`: normally all, else bisection."""

    def is_past_end(index: int) -> bool:
        physical_offset, size_bytes, _ = UNIT.unpack(segment.pread(index * UNIT_SIZE_BYTES, UNIT_SIZE_BYTES))
        return not (size_bytes > 0 and 0 <= physical_offset < physical_limit)

    if used_units == 0 or not is_past_end(used_units - 1):
        return used_units
    return bisect_left(range(used_units), True, key=is_past_end)
