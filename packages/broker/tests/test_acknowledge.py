"""When an acknowledgement may go out, with lines that the test moves by hand."""

import pytest
from apogeemq.broker.core.in_flight import InFlight, Limit
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

    def __init__(self, *, sync_flush: bool = True, waiting_max: int = 10, queue_time_s_max: float | None = 1.0) -> None:
        self.clock = ManualClock()
        self.topics = TopicTable(now_ms=self.clock.now_ms, auto_create=True, default_queue_nums=4)
        self.topic: Topic = self.topics.put(TopicConfig(topic_name="T"))
        self.topic_line = AcknowledgementLine(waiting_max=waiting_max, what="the topic")
        self.flush_line = AcknowledgementLine(waiting_max=waiting_max, what="the flush")
        self.acknowledger = Acknowledger(
            topics=self.topics,
            flush_line=self.flush_line if sync_flush else None,
            topic_line=self.topic_line,
            in_flight=InFlight(
                "sends",
                count=Limit("in all", waiting_max),
                size_bytes=Limit("bytes in all", 1 << 30),
                client_count=Limit("a client's", 1 << 30),
                client_size_bytes=Limit("a client's bytes", 1 << 30),
            ),
            monotonic=self.clock.monotonic,
            timeout_s=TIMEOUT_S,
            queue_time_s_max=queue_time_s_max,
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
    """What makes a topic, and waits for no flush, is refused for its own line only."""
    world = World(waiting_max=1)
    if line == "flush":
        world.save_topic()
    world.wait()
    with pytest.raises(SystemBusy, match=r"sends: 1 in all, 1 more would be too many, the limit \(in all\) is 1"):
        world.acknowledger.check_room()
    if line == "flush":
        world.acknowledger.check_room_for_topic()
    else:
        with pytest.raises(SystemBusy):
            world.acknowledger.check_room_for_topic()


def test_nobody_joins_those_who_have_waited_too_long() -> None:
    """By the first one's time, in the words that people look for; room is there again when it is gone."""
    world = World()
    world.save_topic()
    world.wait(100)
    world.clock.advance(0.9)
    world.wait(200)
    world.acknowledger.check_room()
    world.clock.advance(0.1)
    told = (
        "[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: 1000ms, size of queue: 2: "
    )
    with pytest.raises(SystemBusy) as refused:
        world.acknowledger.check_room()
    assert refused.value.remark.startswith(told)
    assert refused.value.limit == "store.wait_time_in_send_queue_ms"
    world.flush_line.reached(100)
    world.acknowledger.check_room()
    world.flush_line.reached(200)
    assert world.told == [SAFE, SAFE]
    world.acknowledger.check_room()


def test_the_time_may_be_of_no_matter() -> None:
    """brokerFastFailureEnable=false; and with what waits for its topic only it never is."""
    for world in (World(queue_time_s_max=None), World(sync_flush=False)):
        world.wait()
        world.clock.advance(4.9)
        world.acknowledger.check_room()
