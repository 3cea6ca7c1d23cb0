"""What a pop hands out, and what a client says about it later: requests, receipt handles, results, retry topics.

A popped message is invisible to its group for a time. Its handle names the pop that took it: with it the message is
acknowledged, or its time is changed. When the time is over it goes to the pop retry topic of (group, topic).
Source: reference broker_behaviour.md §8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import NamedTuple

from apogeemq.broker.core.names import RETRY_TOPIC_PREFIX
from apogeemq.broker.errors import InvalidParameter

POP_MESSAGES_MAX = 32
"""In one pop; a checkpoint has a bitmap of as many bits."""
HANDLES_PER_CALL_MAX = 1_024
ORDER_REVIVE_QUEUE_ID = 999
"""In handles of ordered pops: they have no checkpoint."""

_SEPARATORS = ("", "_", "+")


class RetryMark(IntEnum):
    """Where a popped message lay: in its topic, or in one of the two kinds of pop retry topics."""

    NORMAL = 0
    V1 = 1
    V2 = 2


class InitMode(IntEnum):
    """Where a group begins that never popped a queue: at its oldest message, or at its newest."""

    MIN = 0
    MAX = 1


def pop_retry_topic(group: str, topic: str, mark: RetryMark) -> str:
    """Where messages of `topic` that `group` did not acknowledge in time lie; the topic itself for NORMAL.

    What was popped out of a retry topic goes back there: retry topics have none of their own.
    """
    if mark is RetryMark.NORMAL or topic.startswith(RETRY_TOPIC_PREFIX):
        return topic
    return f"{RETRY_TOPIC_PREFIX}{group}{_SEPARATORS[mark]}{topic}"


@dataclass(slots=True, frozen=True, kw_only=True)
class PopRequest:
    """What a consumer wants.

    `queue_id` -1 means all queues of the broker. `invisible_time_ms` is a duration. `expression_type` None or empty
    means TAG. `order`: keep the order of each message group; `attempt_id` then names the asking, so that it can be
    repeated. `client` names the asker in remarks.
    """

    group: str
    topic: str
    queue_id: int
    count_max: int
    invisible_time_ms: int
    init_mode: int = InitMode.MIN
    expression_type: str | None = None
    expression: str | None = None
    order: bool = False
    attempt_id: str = ""
    client: str = ""


class PopHandle(NamedTuple):
    """Which popped message. `invisible_time_ms` is a duration, as it was when the handle was made.

    `start_offset` is the queue offset at which the pop began in this queue.
    """

    retry_mark: RetryMark
    queue_id: int
    queue_offset: int
    start_offset: int
    pop_time_ms: int
    invisible_time_ms: int
    revive_queue_id: int


class HandleResult(Enum):
    """What became of a handle."""

    OK = auto()
    """Acknowledged now or before, or its time was prolonged."""
    EXPIRED = auto()
    """Its time is over, or a newer handle replaced it."""
    NO_MESSAGE = auto()
    """The queue has no such message."""


class Changed(NamedTuple):
    """The end of a change of the invisible time; with OK the other fields are those of the new handle."""

    result: HandleResult
    pop_time_ms: int = 0
    invisible_time_ms: int = 0
    revive_queue_id: int = 0


@dataclass(slots=True, frozen=True)
class PoppedRun:
    """Messages of one queue that were popped together.

    `buffers` are records of the log, back to back; may be views into it. `queue_offsets` are theirs, ascending.
    `times` says of ordered pops how often each went out by now, this time included; empty for others, whose records
    say how often they failed.
    """

    retry_mark: RetryMark
    queue_id: int
    start_offset: int
    count: int
    buffers: Sequence[bytes | memoryview]
    queue_offsets: Sequence[int]
    times: Sequence[int] = ()


@dataclass(slots=True, frozen=True)
class Popped:
    """What a pop took: at least one message. `rest_num` is how many more lie in the queues that were asked for."""

    pop_time_ms: int
    invisible_time_ms: int
    revive_queue_id: int
    rest_num: int
    runs: list[PoppedRun]

    @property
    def count(self) -> int:
        """Messages in all runs."""
        return sum(run.count for run in self.runs)


def parse_receipt_handle(text: str) -> PopHandle:
    """The handle that Remoting clients send: 8 fields, or 9 from a proxy, separated by spaces; of a real topic.

    start offset, pop time, invisible time, revive queue, retry mark, broker, queue, offset [, commit log offset].
    The mark is not taken over: Remoting requests name the real topic (trap 24). Raises InvalidParameter.
    """
    fields = text.split(" ")
    numbers = [*fields[:5], *fields[6:8]]
    if len(fields) not in (8, 9) or not all(number.isdecimal() and len(number) <= 19 for number in numbers):
        raise InvalidParameter(
            f"the handle (extraInfo) {text[:100]!r} is illegal, it must be "
            "`startOffset popTime invisibleTime reviveQid retryMark brokerName queueId offset`"
        )
    start_offset, pop_time_ms, invisible_time_ms, revive_queue_id, _, queue_id, queue_offset = map(int, numbers)
    return PopHandle(
        RetryMark.NORMAL, queue_id, queue_offset, start_offset, pop_time_ms, invisible_time_ms, revive_queue_id
    )


def format_receipt_handle(handle: PopHandle, broker_name: str) -> str:
    """The text of a handle: what a broker writes as POP_CK, and what clients send back."""
    return (
        f"{handle.start_offset} {handle.pop_time_ms} {handle.invisible_time_ms} {handle.revive_queue_id} "
        f"{int(handle.retry_mark)} {broker_name} {handle.queue_id} {handle.queue_offset}"
    )
