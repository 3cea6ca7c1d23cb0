"""When an acknowledgement may go out: once the message would be found again after a crash, as far as settings ask.

Two things may have to be on disk first: the file that names the topic, where the send has just made it; then, with
SYNC_FLUSH, the log up to the message's end. Both doors ask here, so that a message is as safe whoever sent it.
"""

from collections.abc import Callable
from typing import NamedTuple

from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.service.durability import AcknowledgementLine, Outcome
from apogeemq.remoting_codec.codes import ResponseCode


class Verdict(NamedTuple):
    """How a wait for the disk ended: what the sender is told.

    SUCCESS             everything is where it should be
    FLUSH_DISK_TIMEOUT  stored, but not known to be on disk
    otherwise           the message may be lost; `remark` says what failed
    """

    code: ResponseCode
    remark: str | None


SAFE = Verdict(ResponseCode.SUCCESS, None)


class Acknowledger:
    """Decides when acknowledgements go out.

    Args:
        topics: to know whether a topic's file is written.
        flush_line: where acknowledgements wait for the disk; None with ASYNC_FLUSH.
        topic_line: where they wait until their new topic is in the file.
        monotonic: seconds.
        timeout_s: how long both may take together (syncFlushTimeout).
    """

    def __init__(
        self,
        *,
        topics: TopicTable,
        flush_line: AcknowledgementLine | None,
        topic_line: AcknowledgementLine,
        monotonic: Callable[[], float],
        timeout_s: float,
    ) -> None:
        self._topics = topics
        self._flush_line = flush_line
        self._topic_line = topic_line
        self._monotonic = monotonic
        self._timeout_s = timeout_s

    def check_room(self) -> None:
        """Raise SystemBusy while too many wait. To be asked before a message is stored."""
        if self._flush_line is not None:
            self._flush_line.check_room()
        self._topic_line.check_room()

    def check_room_for_topic(self) -> None:
        """The same for what does not wait for a flush."""
        self._topic_line.check_room()

    def is_safe(self, topic: Topic, wait: bool) -> bool:
        """Whether the acknowledgement of what was just stored may go out at once.

        `topic` is where it will be found. `wait` says whether the sender wants the flush waited for.
        """
        return topic.version <= self._topics.saved_version and (self._flush_line is None or not wait)

    def when_safe(self, topic: Topic, end_offset: int, wait: bool, done: Callable[[Verdict], None]) -> None:
        """Call `done` exactly once: when all is on disk, when it failed, or when its time is up.

        `end_offset` is the physical offset behind the message; the rest is as for `is_safe`.
        """
        flush_line = self._flush_line if wait else None
        deadline = self._monotonic() + self._timeout_s

        def flushed(outcome: Outcome) -> None:
            done(self._verdict(outcome, "flush to disk"))

        def topic_saved(outcome: Outcome) -> None:
            if outcome is Outcome.DONE and flush_line is not None:
                flush_line.add(end_offset, deadline, flushed)
            else:
                done(self._verdict(outcome, "write of the topic's configuration"))

        if topic.version > self._topics.saved_version:
            self._topic_line.add(topic.version, deadline, topic_saved)
        elif flush_line is not None:
            flush_line.add(end_offset, deadline, flushed)
        else:
            done(SAFE)

    def _verdict(self, outcome: Outcome, what: str) -> Verdict:
        if outcome is Outcome.DONE:
            return SAFE
        if outcome is Outcome.TIMEOUT:
            remark = f"the message is stored, but its {what} was not done within {self._timeout_s:g} s"
            return Verdict(ResponseCode.FLUSH_DISK_TIMEOUT, remark)
        remark = f"the {what} failed: the message may be lost, send it again"
        return Verdict(ResponseCode.SERVICE_NOT_AVAILABLE, remark)
