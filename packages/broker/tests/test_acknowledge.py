"""When an acknowledgement may go out, with lines that the test moves by hand."""

import pytest
from apogeemq.broker.core.topics import Topic, TopicTable
from apogeemq.broker.errors import SystemBusy
from apogeemq.broker.service.acknowledge import SAFE, Acknowledger, Verdict
from apogeemq.broker.service.durability import AcknowledgementLine
from apogeemq.mesh.clock import ManualClock
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.remoting_codec.codes import ResponseCode

TIMEOUT_S = 5.0


class World:
    """One topic, not written yet; the lines; what was told."""

    def __init__(self, *, sync_flush: bool = True, waiting_max: int = 10) -> None:
        self.clock = ManualClock()
        self.topics = TopicTable(now_ms=self.clock.now_ms, auto_create=True, default_queue_nums=4)
        self.topic: Topic = self.topics.put(TopicConfig(topic_name="T"))
        self.topic_line = AcknowledgementLine(waiting_max=waiting_max, what="the topic")
        self.flush_line = AcknowledgementLine(waiting_max=waiting_max, what="the flush")
        self.acknowledger = Acknowledger(
            topics=self.topics,
            flush_line=self.flush_line if sync_flush else None,
            topic_line=self.topic_line,
            monotonic=self.clock.monotonic,
            timeout_s=TIMEOUT_S,
        )
        self.told: list[Verdict] = []

    def save_topic(self) -> None:
        self.topics.saved(self.topics.version)
        self.topic_line.reached(self.topics.saved_version)

    def wait(self, end_offset: int = 100, *, wait: bool = True) -> None:
        self.acknowledger.when_safe(self.topic, end_offset, wait, self.told.append)


@pytest.mark.parametrize(
    ("sync_flush", "is_saved", "wait", "is_safe"),
    [
        (False, True, True, True),
        (False, False, True, False),
        (True, True, True, False),
        (True, True, False, True),
        (True, False, False, False),
    ],
)
def test_what_has_to_be_waited_for(*, sync_flush: bool, is_saved: bool, wait: bool, is_safe: bool) -> None:
    """The topic's file in any case; the flush with SYNC_FLUSH, unless the sender does not want it."""
    world = World(sync_flush=sync_flush)
    if is_saved:
        world.save_topic()
    assert world.acknowledger.is_safe(world.topic, wait) is is_safe


def test_a_new_topic_is_waited_for_first_and_then_the_flush() -> None:
    """Only both together make the message safe."""
    world = World()
    world.wait()
    world.flush_line.reached(1_000)
    assert world.told == []
    world.save_topic()
    assert world.told == []
    world.flush_line.reached(99)
    assert world.told == []
    world.flush_line.reached(100)
    assert world.told == [SAFE]


def test_what_is_safe_by_now_is_told_at_once() -> None:
    """Nothing is left to wait for."""
    world = World()
    world.save_topic()
    world.wait(wait=False)
    assert world.told == [SAFE]


def test_one_deadline_holds_for_both_waits() -> None:
    """4 s for the topic leave one for the flush; the message is stored, which the code tells."""
    world = World()
    world.wait()
    world.clock.advance(4.0)
    world.save_topic()
    world.flush_line.expire(4.9)
    assert world.told == []
    world.flush_line.expire(TIMEOUT_S)
    remark = "the message is stored, but its flush to disk was not done within 5 s"
    assert world.told == [Verdict(ResponseCode.FLUSH_DISK_TIMEOUT, remark)]


@pytest.mark.parametrize("line", ["topic", "flush"])
def test_a_failure_says_what_failed(line: str) -> None:
    """The message may be lost: whoever sent it is to send it again."""
    world = World()
    if line == "flush":
        world.save_topic()
    world.wait()
    (world.topic_line if line == "topic" else world.flush_line).fail()
    ((code, remark),) = world.told
    assert code is ResponseCode.SERVICE_NOT_AVAILABLE
    failed = "write of the topic's configuration" if line == "topic" else "flush to disk"
    assert remark == f"the {failed} failed: the message may be lost, send it again"


@pytest.mark.parametrize("line", ["topic", "flush"])
def test_a_full_line_refuses_before_anything_is_stored(line: str) -> None:
    """What does not wait for a flush is not refused for its line."""
    world = World(waiting_max=1)
    if line == "flush":
        world.save_topic()
    world.wait()
    with pytest.raises(SystemBusy, match=f"the {line}"):
        world.acknowledger.check_room()
    if line == "flush":
        world.acknowledger.check_room_for_topic()
    else:
        with pytest.raises(SystemBusy):
            world.acknowledger.check_room_for_topic()
