"""What a consumer wants of a topic, by tags or by SQL92, and reading a queue for it.

Tags are looked up in the consume queue, by their hash codes. SQL92 needs the properties, hence the records: so many
are read for one answer as Apache looks at (800), and what does not match is left out. That may take 10 ms, which an
event loop can't spend at one go: such a read ends early when its time is over, and says so by its `next_offset`.
Source: Apache ExpressionMessageFilter, DefaultMessageStore.getMessage 5.x; broker_behaviour.md §5.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec
from apogeemq.broker.errors import RequestFailed
from apogeemq.broker.filter.sql92 import Predicate, compile_sql92
from apogeemq.broker.filter.tags import tag_codes
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import peek_head, peek_properties
from apogeemq.store.message_store import MessageStore, ReadResult, ReadStatus

SQL92: Final = "SQL92"
TAG: Final = "TAG"

LOOKED_AT_MAX: Final = 800
"""Messages that are looked at for one answer; Apache's bound for consume-queue units (16,000 bytes)."""
_READ_AHEAD_SIZE_BYTES: Final = 256 * 1024
"""Bytes read at a time to look for matches."""
_READ_AHEAD_MAX: Final = 200
"""Messages read at a time: about what a slice of a millisecond looks at."""
_CLOCK_INTERVAL: Final = 16
"""Messages that are looked at from one look at the clock to the next: some 0.2 ms."""


class MessageFilter(NamedTuple):
    """Which messages are wanted: those that have one of the tag codes (None: any) and pass the predicate."""

    tag_codes: frozenset[int] | None = None
    predicate: Predicate | None = None


EVERYTHING: Final = MessageFilter()


def message_filter(expression_type: str | None, expression: str | None, *, sql_enabled: bool) -> MessageFilter:
    """The filter of an expression. The type None or "" is TAG.

    Raises SubscriptionParseFailed for an expression that can't be read, RequestFailed for a type that is not known or
    is switched off.
    """
    if expression_type in (None, "", TAG):
        return MessageFilter(tag_codes(expression))
    if expression_type != SQL92:
        raise RequestFailed(f"The broker does not support consumer to filter message by {str(expression_type)[:100]}")
    if not sql_enabled:
        raise RequestFailed(
            f"The broker does not support consumer to filter message by {expression_type}: enablePropertyFilter is off"
        )
    return MessageFilter(None, compile_sql92(expression or ""))


def slice_time(monotonic: Callable[[], float], size_s: float) -> Callable[[], bool]:
    """Whether a slice of time is over; it begins when that is asked first: waiting for the disk holds nobody."""
    end: float | None = None

    def is_over() -> bool:
        nonlocal end
        now = monotonic()
        if end is None:
            end = now + size_s
        return now >= end

    return is_over


def read_filtered(
    store: MessageStore,
    topic: str,
    queue_id: int,
    queue_offset: int,
    count_max: int,
    size_bytes_max: int,
    wanted: MessageFilter,
    *,
    cold_allowed: bool = False,
    is_over: Callable[[], bool] = lambda: False,
) -> ReadResult:
    """`MessageStore.read` for a filter: the same answers, and `next_offset` behind the last message looked at.

    `is_over` is asked now and then while messages are looked at one by one: whether to end with what was found so far,
    were it nothing. Each call looks at some all the same, so that who repeats it comes to an end.
    """
    predicate = wanted.predicate
    if predicate is None:
        return store.read(
            topic, queue_id, queue_offset, count_max, size_bytes_max, wanted.tag_codes, cold_allowed=cold_allowed
        )
    found: list[memoryview | bytes] = []
    total_size_bytes = 0
    at = queue_offset
    while True:
        result = store.read(
            topic,
            queue_id,
            at,
            min(LOOKED_AT_MAX - (at - queue_offset), _READ_AHEAD_MAX),
            max(size_bytes_max, _READ_AHEAD_SIZE_BYTES),
            None,
            cold_allowed=cold_allowed,
        )
        if result.status not in (ReadStatus.FOUND, ReadStatus.MESSAGE_WAS_REMOVING):
            break
        at = result.next_offset
        for index, (record, record_offset) in enumerate(records_of(result)):
            if index % _CLOCK_INTERVAL == 0 and record_offset > queue_offset and is_over():
                return _ended(result, record_offset, found, total_size_bytes)
            if not predicate(decode_properties(peek_properties(record))):
                continue
            if found and (len(found) >= count_max or total_size_bytes + len(record) > size_bytes_max):
                return _ended(result, record_offset, found, total_size_bytes)
            found.append(record)
            total_size_bytes += len(record)
        if at - queue_offset >= LOOKED_AT_MAX or len(found) >= count_max:
            break
    return result if at == queue_offset else _ended(result, at, found, total_size_bytes)


def _ended(result: ReadResult, next_offset: int, found: list[memoryview | bytes], size_bytes: int) -> ReadResult:
    return msgspec.structs.replace(
        result,
        status=ReadStatus.FOUND if found else ReadStatus.NO_MATCHED_MESSAGE,
        next_offset=next_offset,
        buffers=found,
        count=len(found),
        size_bytes=size_bytes,
    )


def records_of(result: ReadResult) -> Iterator[tuple[memoryview, int]]:
    """(record, its queue offset) of what was read, one by one: whoever ends early pays for no more."""
    for buffer in result.buffers:
        view, position = memoryview(buffer), 0
        while position < len(view):
            head = peek_head(view, position)
            yield view[position : position + head.size_bytes], head.queue_offset
            position += head.size_bytes
