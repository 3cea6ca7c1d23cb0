"""Messages for any millisecond: taken in, delivered, recalled, kept over a crash and when their file goes."""

import asyncio
import itertools
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from random import Random

import pytest
from apogeemq.broker.config import FlushDiskType, StoreSettings, TimersConfig
from apogeemq.broker.service.timer_intake import PER_TURN_MAX
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.v1 import broker_pb2 as pb
from apogeemq.mesh.v1 import methods
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.message_id import RecallHandle, encode_recall_handle
from apogeemq.store.errors import NotWritable
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.mesh_asking import Asker
from packages.broker.tests.world import World, fields_of, properties_of, send_fields, until

WHEEL = "rmq_sys_wheel_timer"
SMALL = StoreSettings(commit_log_size_bytes_max=4 * 8192, delete_when="04", clean_resource_interval_ms=1)
"""The log may have four files of 8 KiB: older ones go, whatever their age."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        world.create_topic()
        world.start_deliveries()
        yield world


def text(**properties: object) -> str:
    return "".join(f"{key}\x01{value}\x02" for key, value in properties.items())


def send(world: World, body: object = b"body", **properties: object) -> RemotingCommand:
    assert isinstance(body, bytes)
    return world.client().request(310, send_fields("T", 0, text(**properties)), body)


def recall(world: World, handle: str, topic: str = "T") -> RemotingCommand:
    return world.client().request(370, {"producerGroup": "P", "topic": topic, "recallHandle": handle})


def bodies(world: World) -> list[bytes]:
    return [record.body for record in world.records("T")]


@pytest.mark.parametrize(
    ("properties", "wait_ms"),
    [
        ({"TIMER_DELAY_MS": 1}, 1),
        ({"TIMER_DELAY_MS": 1_000}, 1_000),
        ({"TIMER_DELAY_MS": 86_400_001}, 86_400_001),
        ({"TIMER_DELAY_SEC": 7}, 7_000),
        ({"TIMER_DELIVER_MS": 1_700_000_003_999}, 3_999),
        ({"TIMER_DELIVER_MS": 1_700_000_004_000}, 4_000),
        ({"TIMER_DELAY_SEC": 2, "TIMER_DELAY_MS": 1, "TIMER_DELIVER_MS": 1_700_000_000_005}, 2_000),
    ],
)
async def test_it_comes_in_its_millisecond_and_never_early(
    world: World, properties: dict[str, object], wait_ms: int
) -> None:
    """Each of the three ways to say when; seconds before milliseconds before a time."""
    assert send(world, **properties).code == 0
    await world.clock.run_for((wait_ms - 1) / 1000)
    assert bodies(world) == []
    await world.clock.run_for(0.001)
    assert bodies(world) == [b"body"]
    await until(lambda: world.store.timer.pending_count == 0)


async def test_many_come_each_at_its_time(world: World) -> None:
    """Random times, in random order: never early, none lost, none twice."""
    random = Random(11)
    due_ms = {b"%d" % number: world.clock.now_ms() + random.randint(1, 100_000) for number in range(300)}
    for body, deliver_ms in due_ms.items():
        assert send(world, body, TIMER_DELIVER_MS=deliver_ms).code == 0
    await world.clock.run_for(101)
    found = {record.body: record.store_timestamp_ms for record in world.records("T")}
    assert found == due_ms
    assert len(world.records("T")) == 300


async def test_a_time_that_has_come_is_no_delay(world: World) -> None:
    """The message is an ordinary one, and has no handle to be recalled with."""
    reply = send(world, TIMER_DELIVER_MS=world.clock.now_ms())
    assert reply.code == 0
    assert "recallHandle" not in fields_of(reply)
    assert bodies(world) == [b"body"]


async def test_what_waits_has_javas_form(world: World) -> None:
    """The slot before its time, and where it goes; the copy that is delivered has all its properties and more."""
    assert send(world, TIMER_DELIVER_MS=1_700_000_005_000, TAGS="TagA", UNIQ_KEY="K", WAIT="true").code == 0
    waited = properties_of(world.record(WHEEL))
    assert (waited["TIMER_OUT_MS"], waited["REAL_TOPIC"], waited["REAL_QID"]) == ("1700000004000", "T", "0")
    await world.clock.run_for(5)
    record = world.record("T")
    expected = waited | {
        "WAIT": "false",
        "TIMER_ENQUEUE_MS": "1700000000000",
        "TIMER_DEQUEUE_MS": "1700000005000",
        "APOGEEMQ_TIMER_OFFSET": str(world.record(WHEEL).physical_offset),
    }
    del expected["APOGEEMQ_DUE_MS"]
    assert properties_of(record) == expected
    unit = world.store.queue_unit("T", 0, 0)
    assert unit is not None
    assert unit[2] == 2598919, "the hash of TagA"


async def test_a_delivered_message_that_is_sent_on_does_not_wait_again(world: World) -> None:
    """TIMER_OUT_MS says that it has waited, as for Apache's broker."""
    assert send(world, TIMER_DELAY_SEC=5, TIMER_OUT_MS=1).code == 0
    assert bodies(world) == [b"body"]


@pytest.mark.parametrize(
    ("properties", "code", "remark"),
    [
        ({"TIMER_DELAY_SEC": 61}, 13, "61000 ms away, but timers wait for at most 60000 ms"),
        ({"TIMER_DELAY_MS": 60_001}, 13, "60001 ms away"),
        ({"TIMER_DELAY_MS": "soon"}, 13, "property TIMER_DELAY_MS must be a whole number, not 'soon'"),
        ({"TIMER_DELIVER_MS": "1" * 19}, 13, "property TIMER_DELIVER_MS must be a whole number"),
        ({"TIMER_DELIVER_MS": 1, "TIMER_DEL_UNIQKEY": "K"}, 13, "can't be recalled any more"),
        ({"TIMER_DEL_UNIQKEY": "K"}, 13, "no property its time"),
    ],
)
async def test_what_may_not_wait_is_refused(properties: dict[str, object], code: int, remark: str) -> None:
    """With Apache's code; nothing is stored."""
    async with World(timers=TimersConfig(timer_max_delay_sec=60)) as world:
        world.create_topic()
        reply = send(world, **properties)
        assert reply.code == code
        assert remark in (reply.remark or "")
        assert world.store.written_offset == 0


async def test_switched_off_they_are_refused() -> None:
    """As by Apache's broker with timerWheelEnable=false, whatever their time."""
    async with World(timers=TimersConfig(timer_wheel_enable=False)) as world:
        world.create_topic()
        assert send(world, TIMER_DELIVER_MS=1).code == 1
        assert send(world, DELAY=1, TIMER_DELAY_SEC=1).code == 0, "a level wins"


async def test_nobody_sends_into_the_timer_queue_itself(world: World) -> None:
    """Whoever could would decide where others' messages go."""
    assert world.client().request(310, send_fields(WHEEL, 0), b"x").code == 16


async def test_a_crash_loses_none() -> None:
    """Killed with some delivered and some waiting: these come, at their time; of those at most the last ones again."""
    disk = MemoryDisk()
    world = World(disk)
    world.start_deliveries()
    await world.save_topic()
    for number in range(20):
        assert send(world, b"%d" % number, TIMER_DELAY_SEC=number + 1).code == 0
    await world.clock.run_for(10)
    await until(lambda: world.store.timer.pending_count == 10)
    await world.kill()
    async with World(disk, clock=world.clock) as again:
        again.start_deliveries()
        await again.clock.run_for(9.999)
        assert bodies(again) == [b"%d" % number for number in range(19)]
        await again.clock.run_for(0.001)
        assert bodies(again) == [b"%d" % number for number in range(20)]


async def test_what_was_stored_and_not_taken_in_comes_after_a_crash() -> None:
    """The queue is the truth; the timer reads it from where it was."""
    disk = MemoryDisk()
    world = World(disk)
    await world.save_topic()
    assert send(world, TIMER_DELAY_SEC=1).code == 0
    await world.kill()
    async with World(disk, clock=world.clock) as again:
        again.start_deliveries()
        await again.clock.run_for(1)
        assert bodies(again) == [b"body"]


async def test_many_due_at_once_leave_the_loop_to_others(world: World) -> None:
    """After a bounded number of deliveries everybody else has a turn."""
    for _ in range(3 * PER_TURN_MAX):
        assert send(world, TIMER_DELAY_MS=5).code == 0
    await world.clock.run_for(0.004)
    world.clock.advance(0.001)
    steps: list[int] = []

    def is_done() -> bool:
        steps.append(world.store.max_offset("T", 0))
        return steps[-1] == 3 * PER_TURN_MAX

    await until(is_done)
    assert max(after - before for before, after in itertools.pairwise(steps)) == PER_TURN_MAX


@pytest.mark.parametrize("delay", [{"TIMER_DELAY_SEC": 5}, {"DELAY": 2}])
async def test_a_message_whose_queue_is_gone_goes_to_the_last_one(world: World, delay: dict[str, object]) -> None:
    """Its topic shrank while it waited; where Apache's broker puts it, nobody would read it."""
    assert world.client().request(310, send_fields("T", 3, text(**delay)), b"body").code == 0
    world.broker.topics.put(TopicConfig(topic_name="T", read_queue_nums=2, write_queue_nums=1))
    await world.clock.run_for(6)
    assert [record.body for record in world.records("T", 1)] == [b"body"]
    assert world.records("T", 3) == []


async def test_a_message_without_a_topic_is_given_up(world: World) -> None:
    """It is counted, and holds nobody up."""
    properties = text(TIMER_OUT_MS=1_700_000_000_000, REAL_TOPIC="Gone", REAL_QID=0).encode()
    world.store.append(WHEEL, 0, 0, 0, 1, bytes(8), 0, 0, b"x", properties, 0)
    assert send(world, TIMER_DELAY_SEC=1).code == 0
    await world.clock.run_for(1)
    assert bodies(world) == [b"body"]
    assert world.broker.timers.intake.undeliverable == 1


# -- recall ------------------------------------------------------------------------------------------------------------


async def test_a_recalled_message_never_comes(world: World) -> None:
    """The handle has Java's layout; the answer names the message; others of the same second come."""
    first = send(world, b"recalled", TIMER_DELIVER_MS=1_700_000_005_678, UNIQ_KEY="K1")
    assert send(world, b"kept", TIMER_DELIVER_MS=1_700_000_005_678, UNIQ_KEY="K2").code == 0
    handle = fields_of(first)["recallHandle"]
    assert urlsafe_b64decode(handle) == b"v1 T broker-a 1700000005001 K1"
    await world.clock.run_for(1)
    reply = recall(world, handle)
    assert (reply.code, fields_of(reply)) == (0, {"msgId": "K1", "MSG_REGION": "DefaultRegion"})
    await until(lambda: world.store.timer.pending_count == 1)
    await world.clock.run_for(60)
    assert bodies(world) == [b"kept"]


async def test_a_message_stored_anew_as_the_broker_died_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the older copy counted as done: the newer one says so, and can be recalled."""
    disk = MemoryDisk()
    world = World(disk)
    await world.save_topic()
    handle = fields_of(send(world, TIMER_DELAY_SEC=5, UNIQ_KEY="K"))["recallHandle"]

    def killed(entries: object) -> int:
        raise NotWritable("the process was killed")

    monkeypatch.setattr(world.store.timer, "commit", killed)
    with pytest.raises(NotWritable):
        await world.broker.timers.roll_forward(world.store.written_offset)
    await world.kill()
    async with World(disk, clock=world.clock) as again:
        again.start_deliveries()
        await again.clock.run_for(1)
        assert again.store.timer.pending_count == 1
        assert recall(again, handle).code == 0
        await until(lambda: again.store.timer.pending_count == 0)
        await again.clock.run_for(10)
        assert bodies(again) == []


async def test_a_message_of_a_proxy_is_recalled_through_it(world: World) -> None:
    """The reply to a send over the mesh has the handle that the reply over Remoting has."""
    world.mark_saved()
    asker = Asker(world)
    sent = await asker.send(properties=text(TIMER_DELIVER_MS=1_700_000_005_678, UNIQ_KEY="K1").encode())
    assert urlsafe_b64decode(sent.recall_handle) == b"v1 T broker-a 1700000005001 K1"
    assert (await asker.send(properties=b"UNIQ_KEY\x01K2\x02")).recall_handle == ""
    request = pb.RecallMessageRequest(topic="T", recall_handle=sent.recall_handle)
    assert (await asker.ask(methods.RECALL_MESSAGE, request)).message_id == "K1"
    await world.clock.run_for(60)
    assert bodies(world) == [b"hello"]
    with pytest.raises(CallRefused) as too_late:
        await asker.ask(methods.RECALL_MESSAGE, request)
    assert too_late.value.code == 604


async def test_a_recall_over_the_mesh_waits_for_its_flush() -> None:
    """As over Remoting, and as a send does."""
    async with World(store=StoreSettings(flush_disk_type=FlushDiskType.SYNC_FLUSH)) as world:
        world.create_topic()
        world.mark_saved()
        handle = encode_recall_handle(RecallHandle("T", "broker-a", 1_700_000_009_000, "K"))
        request = pb.RecallMessageRequest(topic="T", recall_handle=handle)
        asking = asyncio.ensure_future(Asker(world).ask(methods.RECALL_MESSAGE, request))
        await asyncio.sleep(0)
        assert not asking.done()
        assert world.broker.flush_line is not None
        world.broker.flush_line.expire(1e9)
        with pytest.raises(CallRefused) as late:
            await asking
        assert late.value.code == ResponseCode.FLUSH_DISK_TIMEOUT


async def test_a_recall_of_another_topics_message_takes_nothing(world: World) -> None:
    """Keys are the producers' and may be equal."""
    world.create_topic("U")
    assert send(world, TIMER_DELAY_SEC=5, UNIQ_KEY="K").code == 0
    deliver_ms = world.clock.now_ms() + 4_001
    assert recall(world, encode_recall_handle(RecallHandle("U", "broker-a", deliver_ms, "K")), "U").code == 0
    await until(lambda: world.store.timer.queue_offset == 2)  # looking for what to recall is done in a thread
    await world.clock.run_for(5)
    assert bodies(world) == [b"body"]


@pytest.mark.parametrize(
    ("handle", "topic", "code", "remark"),
    [
        ("no handle", "T", 604, "recall handle is invalid"),
        (encode_recall_handle(RecallHandle("U", "broker-a", 1_700_000_009_000, "K")), "T", 604, "topic not match"),
        (encode_recall_handle(RecallHandle("T", "broker-b", 1_700_000_009_000, "K")), "T", 604, "another broker"),
        (encode_recall_handle(RecallHandle("T", "broker-a", 1_700_000_000_000, "K")), "T", 604, "timestamp invalid"),
        (encode_recall_handle(RecallHandle("T", "broker-a", 1_800_000_000_000, "K")), "T", 604, "timestamp invalid"),
        (encode_recall_handle(RecallHandle("N", "broker-a", 1_700_000_009_000, "K")), "N", 17, r"topic[N] not exist"),
    ],
)
async def test_what_is_no_recall_is_refused(world: World, handle: str, topic: str, code: int, remark: str) -> None:
    """With Apache's codes; nothing is stored."""
    reply = recall(world, handle, topic)
    assert reply.code == code
    assert remark in (reply.remark or "")
    assert world.store.written_offset == 0


async def test_recalls_can_be_switched_off() -> None:
    """As Apache's broker has them by default."""
    async with World(timers=TimersConfig(recall_message_enable=False)) as world:
        world.create_topic()
        handle = fields_of(send(world, TIMER_DELAY_SEC=5))["recallHandle"]
        assert recall(world, handle).code == 16


# -- files go ----------------------------------------------------------------------------------------------------------


async def test_a_waiting_message_outlives_its_file() -> None:
    """It is stored anew with its time, delivered once, and its recall is still found."""
    async with World(store=SMALL, log_file_size_bytes=8192) as world:
        world.create_topic()
        world.create_topic("Filler")
        world.broker.start()
        assert send(world, b"later", TIMER_DELAY_SEC=60).code == 0
        handle = fields_of(send(world, b"recalled", TIMER_DELAY_SEC=60))["recallHandle"]
        began_ms = world.clock.now_ms()
        for _ in range(64):
            assert world.client().request(310, send_fields("Filler", 0), bytes(1000)).code == 0
        for _ in range(400):
            world.store.flush_once()
            await world.clock.run_for(0.001)
            if world.store.min_physical_offset >= 4 * 8192:
                break
        assert world.store.min_physical_offset >= 4 * 8192
        assert recall(world, handle).code == 0
        await world.clock.run_for((began_ms + 59_999 - world.clock.now_ms()) / 1000)
        assert bodies(world) == []
        await world.clock.run_for(0.001)
        assert bodies(world) == [b"later"]
        await world.clock.run_for(100)
        assert bodies(world) == [b"later"]


async def test_what_was_taken_back_in_time_does_not_come_while_others_are_delivered(world: World) -> None:
    """A recall that was answered before the message was due wins, though more than a turn's messages come first."""
    first_ms = world.clock.now_ms() + 1_000
    for number in range(2 * PER_TURN_MAX):
        assert send(world, b"%d" % number, TIMER_DELIVER_MS=first_ms).code == 0
    late = send(world, b"late", TIMER_DELIVER_MS=first_ms + 1, UNIQ_KEY="LATE")
    await world.clock.run_for(0.5)
    world.clock.advance(0.5)
    await until(lambda: bodies(world) != [])
    assert len(bodies(world)) < 2 * PER_TURN_MAX, "others are still to be delivered"
    assert recall(world, fields_of(late)["recallHandle"]).code == 0
    world.clock.advance(0.001)
    await until(lambda: world.store.timer.pending_count == 0)
    assert b"late" not in bodies(world)
    assert len(bodies(world)) == 2 * PER_TURN_MAX
