"""When an acknowledgement may go out: once the message would be found again after a crash, as far as settings ask.

Two things may have to be on disk first: the file that names the topic, where the send has just made it; then, with
SYNC_FLUSH, the log up to the message's end. At last, in a broker set, its SyncStateSet must hold the message. Both
doors ask here, so that a message is as safe whoever sent it.

What waits is bounded, in number and bytes, in all and per client. And nobody joins those who wait while the first of
them has waited too long: with a disk that slow the next ones would come too late as well, and another broker may be
faster (ADR 0019). While nobody waits (always with ASYNC_FLUSH, but for first messages of topics) nothing is checked.
"""

from collections.abc import Callable, Hashable
from typing import NamedTuple

from apogeemq.broker.core.in_flight import InFlight
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.errors import SystemBusy
from apogeemq.broker.service.confirmation import Confirmation
from apogeemq.broker.service.durability import AcknowledgementLine, Outcome
from apogeemq.remoting_codec.codes import ResponseCode


class Verdict(NamedTuple):
    """How a wait for the disk ended: what the sender is told.

    SUCCESS             everything is where it should be
    FLUSH_DISK_TIMEOUT  stored, but not known to be on disk
    FLUSH_SLAVE_TIMEOUT stored, but not known to be held by the whole set, or by a SYNC_MASTER's slaves
    SLAVE_NOT_AVAILABLE stored, and a SYNC_MASTER has no slave that is near enough
    otherwise           the message may be lost; `remark` says what failed
    """

    code: ResponseCode
    remark: str | None


SAFE = Verdict(ResponseCode.SUCCESS, None)

FLUSH, TOPIC_WRITE, REPLICATION = "flush to disk", "write of the topic's configuration", "copy to the set's replicas"
"""What an acknowledgement may wait for, in words."""


class _Step(NamedTuple):
    """One wait: `add` calls back once its line has come to the target, or the deadline has."""

    what: str
    add: Callable[[int, float, Callable[[Outcome], None]], None]
    target: int
    deadline: float


QUEUE_TIME_LIMIT = "store.wait_time_in_send_queue_ms"
"""The setting that says how long the first one may have waited."""


class Acknowledger:
    """Decides when acknowledgements go out.

    Args:
        topics: to know whether a topic's file is written.
        flush_line: where acknowledgements wait for the disk; None with ASYNC_FLUSH.
        topic_line: where they wait until their new topic is in the file.
        confirmation: of the epoch that is led; None without a broker set.
        in_flight: bounds what waits in all of them.
        monotonic: seconds.
        timeout_s: how long both may take together (syncFlushTimeout).
        queue_time_s_max: how long the first send that waits for the disk may have waited when another comes
            (waitTimeMillsInSendQueue); None: any time.
    """

    def __init__(
        self,
        *,
        topics: TopicTable,
        flush_line: AcknowledgementLine | None,
        topic_line: AcknowledgementLine,
        in_flight: InFlight,
        monotonic: Callable[[], float],
        timeout_s: float,
        queue_time_s_max: float | None,
        confirmation: Confirmation | None = None,
    ) -> None:
        self._topics = topics
        self._confirmation = confirmation
        self._waits_for_set = confirmation is not None and confirmation.waits
        self._flush_line = flush_line
        self._topic_line = topic_line
        self._monotonic = monotonic
        self._in_flight = in_flight
        self._timeout_s = timeout_s
        self._queue_time_s_max = queue_time_s_max

    def check_room(self, client: Hashable | None = None, size_bytes: int = 0) -> None:
        """Raise SystemBusy while too many wait, or for too long. To be asked before a message is stored.

        `client` is the connection, None for a proxy; `size_bytes` is what would lie in memory. In a broker set: see
        also Confirmation.check.
        """
        if self._confirmation is not None:
            self._confirmation.check()
        if not self._in_flight.count:
            return
        self._in_flight.check(client, size_bytes)
        if self._flush_line is not None and self._queue_time_s_max is not None:
            self._check_queue_time(self._flush_line, self._queue_time_s_max)

    def check_room_for_topic(self) -> None:
        """The same for what does not wait for a flush."""
        self._topic_line.check_room()

    def is_safe(self, topic: Topic, wait: bool) -> bool:
        """Whether the acknowledgement of what was just stored may go out at once.

        `topic` is where it will be found. `wait` says whether the sender wants the flush waited for.
        """
        waits_for_log = wait and (self._flush_line is not None or self._waits_for_set)
        return topic.version <= self._topics.saved_version and not waits_for_log

    def when_safe(
        self,
        topic: Topic,
        end_offset: int,
        wait: bool,
        done: Callable[[Verdict], None],
        client: Hashable | None = None,
        size_bytes: int = 0,
    ) -> None:
        """Call `done` exactly once: when all is on disk, when it failed, or when its time is up.

        `end_offset` is the physical offset behind the message; the rest is as for `is_safe` and `check_room`.
        """
        deadline = self._monotonic() + self._timeout_s
        self._in_flight.enter(client, size_bytes)
        steps: list[_Step] = []
        if topic.version > self._topics.saved_version:
            steps.append(_Step(TOPIC_WRITE, self._topic_line.add, topic.version, deadline))
        if wait and self._flush_line is not None:
            steps.append(_Step(FLUSH, self._flush_line.add, end_offset, deadline))
        if wait and self._waits_for_set and self._confirmation is not None:
            set_deadline = self._monotonic() + self._confirmation.timeout_s
            steps.append(_Step(REPLICATION, self._confirmation.when_confirmed, end_offset, set_deadline))
        self._go_on(steps, client, size_bytes, done)

    def _go_on(
        self, steps: list[_Step], client: Hashable | None, size_bytes: int, done: Callable[[Verdict], None]
    ) -> None:
        """Wait for one line after the other."""
        if not steps:
            self._end("", client, size_bytes, done, Outcome.DONE)
            return
        step, *rest = steps

        def reached(outcome: Outcome) -> None:
            if outcome is Outcome.DONE:
                self._go_on(rest, client, size_bytes, done)
            else:
                self._end(step.what, client, size_bytes, done, outcome)

        step.add(step.target, step.deadline, reached)

    def _end(
        self, what: str, client: Hashable | None, size_bytes: int, done: Callable[[Verdict], None], outcome: Outcome
    ) -> None:
        self._in_flight.leave(client, size_bytes)
        done(SAFE if outcome is Outcome.DONE else self._verdict(outcome, what))

    def _check_queue_time(self, line: AcknowledgementLine, time_s_max: float) -> None:
        deadline = line.first_deadline
        if deadline is None:
            return
        waited_s = self._monotonic() - (deadline - self._timeout_s)
        if waited_s >= time_s_max:
            raise SystemBusy(
                f"[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: "
                f"{waited_s * 1000:.0f}ms, size of queue: {len(line)}: the send that waits longest for the disk has "
                f"waited longer than the limit ({QUEUE_TIME_LIMIT}), {time_s_max * 1000:.0f}",
                limit=QUEUE_TIME_LIMIT,
            )

    def _verdict(self, outcome: Outcome, what: str) -> Verdict:
        if outcome is Outcome.NO_SLAVE:
            remark = "the message is stored here, and no slave is there, or near enough, that would have it too"
            return Verdict(ResponseCode.SLAVE_NOT_AVAILABLE, remark)
        if outcome is Outcome.TIMEOUT and what == REPLICATION:
            remark = "the message is stored here, but not known to be held by all replicas yet that it needs"
            return Verdict(ResponseCode.FLUSH_SLAVE_TIMEOUT, remark)
        if outcome is Outcome.TIMEOUT:
            remark = f"the message is stored, but its {what} was not done within {self._timeout_s:g} s"
            return Verdict(ResponseCode.FLUSH_DISK_TIMEOUT, remark)
        remark = f"the {what} failed: the message may be lost, send it again"
        return Verdict(ResponseCode.SERVICE_NOT_AVAILABLE, remark)
