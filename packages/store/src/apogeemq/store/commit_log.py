"""Appending records to the log, and reading them back by physical offset."""

import struct
import zlib
from collections.abc import Callable, Sequence
from threading import Lock
from typing import NamedTuple, NoReturn

from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.message import PROPERTIES_SIZE_BYTES_MAX
from apogeemq.remoting_codec.record import (
    BLANK_SIZE_BYTES_MIN,
    HEADS,
    MAGIC_V1,
    MAGIC_V2,
    PROPERTIES_SIZE,
    RecordHead,
    encode_blank,
    peek_head,
)
from apogeemq.store.config import StoreConfig
from apogeemq.store.consume_queue import UNIT, ConsumeQueue
from apogeemq.store.errors import (
    DiskFull,
    MessageInvalid,
    MessageTooLarge,
    NotWritable,
    OffsetOutOfRange,
    StoreError,
)
from apogeemq.store.log_scan import ScannedRecord
from apogeemq.store.mapped_file_queue import MappedFileQueue

_BORN_HOST_BIT = MessageSysFlag.BORNHOST_V6_FLAG
_STORE_HOST_BIT = MessageSysFlag.STOREHOSTADDRESS_V6_FLAG
_HOST_BITS = _BORN_HOST_BIT | _STORE_HOST_BIT
_PREPARED_BIT = MessageSysFlag.TRANSACTION_PREPARED_TYPE
_INNER_BATCH_BIT = MessageSysFlag.INNER_BATCH_FLAG
_NO_UNIT_BITS = _PREPARED_BIT | _INNER_BATCH_BIT
_CRC_MASK = 0x7FFFFFFF
_RECORD_MAGICS = (MAGIC_V1, MAGIC_V2)
_HEAD_SIZE_BYTES_MAX = HEADS[_HOST_BITS].size

_SPAN_SIZE_BYTES_MAX = 1 << 20
_SPAN_GAP_SIZE_BYTES_MAX = 16 << 10
"""Copying this much for nothing costs about as much as another system call."""

_crc32 = zlib.crc32
_pack_properties_size = PROPERTIES_SIZE.pack
_pack_unit = UNIT.pack
_new_tuple = tuple.__new__


class AppendResult(NamedTuple):
    """Where a message went. `physical_offset + size_bytes` is what `notify_flushed` wants to hear."""

    physical_offset: int
    queue_offset: int
    size_bytes: int
    store_timestamp_ms: int


class BatchEntry(NamedTuple):
    """One message of a batch."""

    flag: int
    body: bytes
    properties: bytes
    tags_code: int


class CommitLog:
    """All messages of all topics in the order of their arrival.

    A file is a row of records (`remoting_codec.record` draws them) that never span files:
    ```
    ├─ record ─┬─ record ─┬── … ──┬─ record ─┬─ blank filler: rest's size i32, MAGIC_BLANK, anything ─┤
    ```
    A record fits if 8 bytes are left after it, so that the filler always has room. After the last record there are
    zeros up to the end of the file. Physical offset = start of the file (its name) + position in it.
    Store timestamps never go back, whatever the clock does.
    A CRC covers the body only; it is checked by recovery, not by reads.
    Source: Apache store/CommitLog 5.x; broker_behaviour.md §9.

    Records are appended by one thread at a time; `lock` guards the end of the log and the tails of the queues, and is
    never held across a call that waits for the disk, except when the writer has overtaken the reservation of blocks.
    """

    def __init__(
        self,
        files: MappedFileQueue,
        config: StoreConfig,
        *,
        lock: Lock,
        dirty_queues: list[ConsumeQueue],
        now_ms: Callable[[], int],
        request_room: Callable[[], None],
        tags_code_of: Callable[[str, bytes, int], int],
        put_keys: Callable[[bytes, bytes, int, int, int], None] | None = None,
    ) -> None:
        """`dirty_queues` gets each queue whose tail is no longer empty.

        `tags_code_of` is recovery's rule, for appends that leave the tags code to it.
        `put_keys`, if given, is IndexFiles.put_prefixed.
        `request_room` is called when the reserved blocks are half used up, to have somebody call `files.prepare`.
        """
        self.files = files
        self.written_offset = 0
        """One past the last byte appended. Read by all threads: assigned after the bytes, before the unit."""
        self.confirm_limit: int | None = None
        """Readers stop here; None = at the written offset. See `confirm`."""
        self._was_confirmed_whole = False
        self.store_timestamp_ms = 0
        """Of the last record."""
        self.refusal: StoreError | None = None
        """Why nothing is accepted: what `refuse` was told, else the oldest suspension. All that an append looks at."""
        self._final_refusal: StoreError | None = None
        self._suspensions: dict[str, StoreError] = {}
        self._opened_offset = 0
        self._lock = lock
        self._dirty_queues = dirty_queues
        self._now_ms = now_ms
        self._request_room = request_room
        self._tags_code_of = tags_code_of
        self._put_keys = put_keys
        self._hot_read_window_bytes = config.hot_read_window_bytes
        self._body_size_bytes_max = config.message_size_bytes_max
        self._record_size_bytes_max = min(
            config.record_size_bytes_max, config.commit_log_file_size_bytes - BLANK_SIZE_BYTES_MIN
        )
        self._file_size_bytes = config.commit_log_file_size_bytes
        self._low_water_bytes = config.reserve_ahead_bytes // 2
        self._store_host = config.store_host
        store_bit = _STORE_HOST_BIT if len(config.store_host) == 20 else 0
        # By the size of the born host: bits for the system flag, pack, and all sizes that do not vary.
        self._families = {
            size_bytes: (bits, HEADS[bits].pack, HEADS[bits].size + PROPERTIES_SIZE.size)
            for size_bytes, bits in ((8, store_bit), (20, store_bit | _BORN_HOST_BIT))
        }
        self._view = memoryview(b"")
        self._position = 0
        self._file_start = 0
        self._attention_at = -1

    def open_at(self, offset: int, store_timestamp_ms: int) -> None:
        """Continue after the last record: it ends at `offset` and has this timestamp."""
        segment = self.files.open_at(offset)
        self._switch_to(segment.view, self.files.start_of(offset))
        self._position = offset - self._file_start
        self.written_offset = self._opened_offset = offset
        self.store_timestamp_ms = store_timestamp_ms

    @property
    def min_offset(self) -> int:
        """Where the oldest file begins."""
        return self.files.min_offset

    @property
    def confirm_offset(self) -> int:
        """One past the last byte that readers may see."""
        limit = self.confirm_limit
        return self.written_offset if limit is None else min(limit, self.written_offset)

    def confirm(self, physical_offset: int | None) -> None:
        """Let readers see the log up to here; None = all of it, also what is yet to come.

        The confirm offset never goes back: a lower value than before (an acknowledgement that comes late) is passed
        over, and after None a limit begins at the written offset at the lowest. Only the first limit of all may be
        anything: until then whoever owns the store has to keep readers out. A limit beyond the written offset
        confirms what arrives up to there, as a replica hears it from its master.
        """
        with self._lock:
            if physical_offset is None:
                self._was_confirmed_whole = True
                self.confirm_limit = None
                return
            lowest = self.confirm_limit
            if lowest is None:
                lowest = self.written_offset if self._was_confirmed_whole else 0
            self.confirm_limit = max(lowest, physical_offset)

    @property
    def hot_from(self) -> int:
        """From here on the log was written by this process not long ago: its map does not wait for the disk."""
        return max(self._opened_offset, self.written_offset - self._hot_read_window_bytes)

    # -- appending -----------------------------------------------------------------------------------------------------

    def append(
        self,
        queue: ConsumeQueue,
        flag: int,
        sys_flag: int,
        born_timestamp_ms: int,
        born_host: bytes,
        reconsume_times: int,
        prepared_transaction_offset: int,
        body: bytes | memoryview,
        properties: bytes,
        tags_code: int | None,
    ) -> AppendResult:
        """Store one message and its consume-queue unit. The hot path: one flat function.

        Without a tags code the unit gets what recovery would give it: for codes that depend on the store timestamp,
        which is known only here.
        The two host bits of `sys_flag` are set as the hosts demand. Prepared and rolled-back messages (transaction
        bits 4 and 12) get queue offset 0 and no unit. Inner batches (0x80) are MessageInvalid, as Apache refuses them
        for queues of any type but BatchCQ: nobody could read them.
        Errors, with nothing changed: MessageTooLarge, MessageInvalid, DiskFull; what `refuse` or `suspend` was told.
        """
        body_size_bytes = len(body)
        properties_size_bytes = len(properties)
        if body_size_bytes > self._body_size_bytes_max:
            raise MessageTooLarge("body", body_size_bytes, self._body_size_bytes_max)
        if properties_size_bytes > PROPERTIES_SIZE_BYTES_MAX:
            raise MessageTooLarge("properties", properties_size_bytes, PROPERTIES_SIZE_BYTES_MAX)
        try:
            host_bits, pack_head, fixed_size_bytes = self._families[len(born_host)]
        except KeyError:
            _refuse_born_host(born_host)
        topic_field = queue.topic_field
        size_bytes = fixed_size_bytes + body_size_bytes + len(topic_field) + properties_size_bytes
        sys_flag = sys_flag & ~_HOST_BITS | host_bits
        crc = _crc32(body) & _CRC_MASK
        now_ms = self._now_ms()
        with self._lock:
            if self.refusal is not None:
                raise self.refusal.with_traceback(None)  # one object for all: else its traceback would grow for ever
            end = self._position + size_bytes
            if end > self._attention_at:
                self._make_room(size_bytes)
                end = self._position + size_bytes
            if now_ms < self.store_timestamp_ms:  # noqa: PLR1730 — max() costs 0.07 µs here
                now_ms = self.store_timestamp_ms
            if tags_code is None:
                tags_code = self._tags_code_of(queue.topic, properties, now_ms)
            physical_offset = self.written_offset
            has_unit = not sys_flag & _NO_UNIT_BITS
            queue_offset = queue.max_offset if has_unit else _queue_offset_without_unit(sys_flag)
            try:
                head = pack_head(
                    size_bytes,
                    queue.magic,
                    crc,
                    queue.queue_id,
                    flag,
                    queue_offset,
                    physical_offset,
                    sys_flag,
                    born_timestamp_ms,
                    born_host,
                    now_ms,
                    self._store_host,
                    reconsume_times,
                    prepared_transaction_offset,
                    body_size_bytes,
                )
                unit = _pack_unit(physical_offset, size_bytes, tags_code)
            except struct.error as error:
                raise MessageInvalid(str(error)) from error
            self._view[self._position : end] = b"".join(
                (head, body, topic_field, _pack_properties_size(properties_size_bytes), properties)
            )
            self.store_timestamp_ms = now_ms
            self._position = end
            self.written_offset = physical_offset + size_bytes
            if has_unit:
                tail = queue.tail
                if not tail:
                    self._dirty_queues.append(queue)
                tail += unit
                queue.max_offset = queue_offset + 1
            if self._put_keys is not None:
                self._put_keys(queue.key_prefix, properties, sys_flag, physical_offset, now_ms)
        return _new_tuple(AppendResult, (physical_offset, queue_offset, size_bytes, now_ms))

    def append_batch(
        self,
        queue: ConsumeQueue,
        sys_flag: int,
        born_timestamp_ms: int,
        born_host: bytes,
        entries: Sequence[BatchEntry | tuple[int, bytes, bytes, int]],
    ) -> list[AppendResult]:
        """Store several messages of one queue back to back in one file: all of them or none.

        Together they may be as large as one record. Errors: as `append`.
        """
        for _, body, properties, _ in entries:
            if len(body) > self._body_size_bytes_max:
                raise MessageTooLarge("body", len(body), self._body_size_bytes_max)
            if len(properties) > PROPERTIES_SIZE_BYTES_MAX:
                raise MessageTooLarge("properties", len(properties), PROPERTIES_SIZE_BYTES_MAX)
        try:
            host_bits, pack_head, fixed_size_bytes = self._families[len(born_host)]
        except KeyError:
            _refuse_born_host(born_host)
        topic_field = queue.topic_field
        sys_flag = sys_flag & ~_HOST_BITS | host_bits
        if sys_flag & _NO_UNIT_BITS:
            _queue_offset_without_unit(sys_flag)
            raise MessageInvalid("prepared messages come one by one")
        fixed_size_bytes += len(topic_field)
        sizes = [fixed_size_bytes + len(body) + len(properties) for _, body, properties, _ in entries]
        total_size_bytes = sum(sizes)
        if total_size_bytes > self._record_size_bytes_max:
            raise MessageTooLarge("batch", total_size_bytes, self._record_size_bytes_max)
        now_ms = self._now_ms()
        with self._lock:
            if self.refusal is not None:
                raise self.refusal.with_traceback(None)  # one object for all: else its traceback would grow for ever
            if self._position + total_size_bytes > self._attention_at:
                self._make_room(total_size_bytes)
            now_ms = max(now_ms, self.store_timestamp_ms)
            physical_offset = self.written_offset
            queue_offset = queue.max_offset
            parts: list[bytes] = []
            units = bytearray()
            results = []
            try:
                for (flag, body, properties, tags_code), size_bytes in zip(entries, sizes, strict=True):
                    head = pack_head(
                        size_bytes,
                        queue.magic,
                        _crc32(body) & _CRC_MASK,
                        queue.queue_id,
                        flag,
                        queue_offset,
                        physical_offset,
                        sys_flag,
                        born_timestamp_ms,
                        born_host,
                        now_ms,
                        self._store_host,
                        0,
                        0,
                        len(body),
                    )
                    parts += (head, body, topic_field, _pack_properties_size(len(properties)), properties)
                    units += _pack_unit(physical_offset, size_bytes, tags_code)
                    results.append(AppendResult(physical_offset, queue_offset, size_bytes, now_ms))
                    physical_offset += size_bytes
                    queue_offset += 1
            except struct.error as error:
                raise MessageInvalid(str(error)) from error
            end = self._position + total_size_bytes
            self._view[self._position : end] = b"".join(parts)
            self.store_timestamp_ms = now_ms
            self._position = end
            self.written_offset = physical_offset
            if not queue.tail:
                self._dirty_queues.append(queue)
            queue.tail += units
            queue.max_offset = queue_offset
            if self._put_keys is not None:
                for (_, _, properties, _), result in zip(entries, results, strict=True):
                    self._put_keys(queue.key_prefix, properties, sys_flag, result.physical_offset, now_ms)
        return results

    def append_raw(
        self,
        data: bytes,
        units: Sequence[tuple[ConsumeQueue, bytes]],
        records: Sequence[ScannedRecord],
        *,
        ends_file: bool,
    ) -> None:
        """Store whole records as another log has them, back to back, their consume-queue units in this order, and keys.

        They lie in the current file, which `data` fills up, blank filler and all, with `ends_file`; zeros at the end of
        the filler may be left out. The records must have been checked.
        Errors, with nothing changed: DiskFull; what `refuse` or `suspend` was told.
        """
        with self._lock:
            if self.refusal is not None:
                raise self.refusal.with_traceback(None)
            position, end = self._position, self._position + len(data)
            try:
                if end > self._attention_at:
                    self.files.reserve(self._file_start + end)
                next_view = self.files.advance().view if ends_file else None
            except OSError as error:
                raise self._cannot_grow(error) from error
            self._view[position:end] = data
            if records:
                self.store_timestamp_ms = max(self.store_timestamp_ms, records[-1].store_timestamp_ms)
            if next_view is not None:
                self._switch_to(next_view, self._file_start + self._file_size_bytes)
            else:
                self._position = end
                if end > self._attention_at:
                    self._keep_ahead(end)
            self.written_offset = self._file_start + self._position
            for queue, unit in units:
                tail = queue.tail
                if not tail:
                    self._dirty_queues.append(queue)
                tail += unit
                queue.max_offset += 1
            if self._put_keys is not None:
                for physical_offset, _, _, _, sys_flag, timestamp_ms, topic, properties in records:
                    self._put_keys(topic + b"#", properties, sys_flag, physical_offset, timestamp_ms)

    def begin_at(self, offset: int) -> None:
        """Let an empty log begin there, with a file of its own. Errors: NotWritable, until opened again."""
        try:
            self.files.begin_at(offset)
            self.open_at(offset, self.store_timestamp_ms)
        except (OSError, DiskFull) as error:
            refusal = NotWritable(f"the commit log cannot begin at {offset}: {error}")
            self.refuse(refusal)
            raise refusal from error

    def truncate(self, offset: int, store_timestamp_ms: int) -> None:
        """Cut the log at `offset`, where a record begins, durably; `store_timestamp_ms` is that of the one before.

        Reads end there at once; views handed out before stay memory, but show zeros or what comes after. Nobody appends
        meanwhile. Errors: NotWritable; opening again settles what was left half done.
        """
        with self._lock:
            data_end, self.written_offset = self.written_offset, offset
            self.store_timestamp_ms = store_timestamp_ms
            self._opened_offset = min(self._opened_offset, offset)
        try:
            segment = self.files.truncate(offset, data_end)
        except OSError as error:
            refusal = NotWritable(f"cutting the commit log failed: {error}")
            self.refuse(refusal)
            raise refusal from error
        with self._lock:
            self._switch_to(segment.view, self.files.start_of(offset))
            self._position = offset - self._file_start

    def end(self) -> tuple[int, int]:
        """The written offset and the store timestamp of the last record, of one moment."""
        with self._lock:
            return self.written_offset, self.store_timestamp_ms

    def refuse(self, refusal: StoreError) -> None:
        """Accept nothing more, for good; the first reason stays."""
        with self._lock:
            self._refuse_locked(refusal)

    def suspend(self, cause: str, refusal: StoreError) -> None:
        """Accept nothing until `resume` is called with the same cause; a later refusal for it replaces the earlier."""
        with self._lock:
            self._suspensions[cause] = refusal
            self._choose_refusal()

    def resume(self, cause: str) -> None:
        """This cause is gone. Appends are taken again unless there is another one, or a refusal for good."""
        with self._lock:
            self._suspensions.pop(cause, None)
            self._choose_refusal()

    def _refuse_locked(self, refusal: StoreError) -> None:
        if self._final_refusal is None:
            self._final_refusal = refusal
            self._choose_refusal()

    def _choose_refusal(self) -> None:
        self.refusal = self._final_refusal or next(iter(self._suspensions.values()), None)

    def _make_room(self, size_bytes: int) -> None:
        """Have `size_bytes` reserved in the current file, or in the next one; and ask for more ahead of need.

        `_attention_at` is where an append has to call this again: halfway through what is reserved, so that the
        background thread is asked in time, then at its end.
        """
        if size_bytes > self._record_size_bytes_max:
            raise MessageTooLarge("record", size_bytes, self._record_size_bytes_max)
        try:
            if self._position + size_bytes + BLANK_SIZE_BYTES_MIN > self._file_size_bytes:
                self._roll()
            end = self._position + size_bytes
            self.files.reserve(self._file_start + end)
        except OSError as error:
            raise self._cannot_grow(error) from error
        self._keep_ahead(end)

    def _keep_ahead(self, end: int) -> None:
        """Ask for more reserved room; `end`, a position in the current file, has it already."""
        self._request_room()
        reserved = self.files.reserved_end - self._file_start
        low_water = reserved - self._low_water_bytes
        self._attention_at = min(
            low_water if end < low_water else reserved, self._file_size_bytes - BLANK_SIZE_BYTES_MIN
        )

    def _cannot_grow(self, error: OSError) -> NotWritable:
        refusal = NotWritable(f"the commit log cannot grow: {error}")
        self._refuse_locked(refusal)
        return refusal

    def _roll(self) -> None:
        """Fill up the current file and go on in the next."""
        position, rest_size_bytes = self._position, self._file_size_bytes - self._position
        self.files.reserve(self._file_start + position + BLANK_SIZE_BYTES_MIN)
        next_view = self.files.advance().view
        self._view[position : position + BLANK_SIZE_BYTES_MIN] = encode_blank(rest_size_bytes)
        self._switch_to(next_view, self._file_start + self._file_size_bytes)
        self.written_offset = self._file_start

    def _switch_to(self, view: memoryview, file_start: int) -> None:
        self._view = view
        self._file_start = file_start
        self._position = 0
        self._attention_at = -1

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, physical_offset: int, size_bytes: int, *, wait: bool) -> memoryview | bytes | None:
        """Bytes of one file, as they lie there; None when that would wait for the disk and `wait` is False.

        Recent bytes are a view of the log itself, which pins the file while it is held; older ones are a copy.
        Errors: OffsetOutOfRange when they are not all there.
        """
        if physical_offset < self.files.min_offset or physical_offset + size_bytes > self.written_offset:
            raise OffsetOutOfRange(physical_offset, self.files.min_offset, self.written_offset)
        if physical_offset >= self.hot_from:
            view = self.files.view(physical_offset, size_bytes)
            if view is not None:
                return view
        return self.files.pread(physical_offset, size_bytes, wait=wait)

    def read_runs(self, runs: Sequence[tuple[int, int]], *, wait: bool) -> list[memoryview | bytes] | None:
        """Several ranges [start, end), in ascending order, each as in `read`; None if one of them is.

        Older ranges that lie close together, as those of a queue do among other queues' records, are read in one go.
        """
        buffers: list[memoryview | bytes] = []
        hot_from = self.hot_from
        at = 0
        while at < len(runs):
            start, end = runs[at]
            stop = at + 1
            if start < hot_from:
                file_end = self.files.start_of(start) + self._file_size_bytes
                limit = min(start + _SPAN_SIZE_BYTES_MAX, file_end, hot_from)
                while stop < len(runs):
                    next_start, next_end = runs[stop]
                    if not 0 <= next_start - end <= _SPAN_GAP_SIZE_BYTES_MAX or next_end > limit:
                        break
                    end = next_end
                    stop += 1
            data = self.read(start, end - start, wait=wait)
            if data is None:
                return None
            if stop == at + 1:
                buffers.append(data)
            else:
                view = memoryview(data)
                buffers += [view[first - start : last - start] for first, last in runs[at:stop]]
            at = stop
        return buffers

    def head_at(self, physical_offset: int, *, is_confirmed: bool = True) -> RecordHead | None:
        """The fixed part of the record that begins there; None when none does. May wait for the disk.

        Without `is_confirmed` also that of a record which may yet be cut off.
        """
        end = self.confirm_offset if is_confirmed else self.written_offset
        rest_bytes = min(end, self.files.start_of(physical_offset) + self._file_size_bytes)
        size_bytes = min(_HEAD_SIZE_BYTES_MAX, rest_bytes - physical_offset)
        if physical_offset < self.files.min_offset or size_bytes <= 0:
            return None
        data = self._read_if_there(physical_offset, size_bytes)
        if data is None:
            return None
        try:
            head = peek_head(data)
        except RecordInvalid:
            return None
        if head.physical_offset != physical_offset or not 0 < head.size_bytes <= rest_bytes - physical_offset:
            return None
        return head

    def record_at(self, physical_offset: int, *, is_confirmed: bool = True) -> bytes | None:
        """The whole record that begins there; None when none does. See `head_at`."""
        head = self.head_at(physical_offset, is_confirmed=is_confirmed)
        if head is None:
            return None
        data = self._read_if_there(physical_offset, head.size_bytes)
        return None if data is None else bytes(data)

    def _read_if_there(self, physical_offset: int, size_bytes: int) -> memoryview | bytes | None:
        """Waiting for the disk; None when the file was deleted since the caller looked."""
        try:
            return self.read(physical_offset, size_bytes, wait=True)
        except OffsetOutOfRange:
            if physical_offset < self.files.min_offset:
                return None
            raise


def _queue_offset_without_unit(sys_flag: int) -> int:
    """The queue offset of a message that no queue lists."""
    if sys_flag & _INNER_BATCH_BIT:
        raise MessageInvalid("an inner batch needs a queue of type BatchCQ")
    return 0


def _refuse_born_host(born_host: bytes) -> NoReturn:
    raise MessageInvalid(f"a born host has {len(born_host)} bytes instead of 8 or 20") from None
