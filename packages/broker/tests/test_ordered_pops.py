"""Ordered pops over a broker in memory: orders, handles, attempts, positions, restarts, and both doors."""

import asyncio

import pytest
from apogeemq.broker.config import LimitsConfig, PopConfig, StoreSettings
from apogeemq.broker.core.pop import ORDER_REVIVE_QUEUE_ID, Changed, HandleResult, PopHandle, Popped, PopRequest
from apogeemq.broker.errors import SystemBusy
from apogeemq.broker.service.pop import NothingPopped
from apogeemq.mesh.v1 import broker_pb2 as pb
from apogeemq.mesh.v1 import methods
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.store.errors import NotWritable
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.mesh_asking import Asker
from packages.broker.tests.test_metrics import labels, scrape
from packages.broker.tests.test_pop import bodies_of, handles_of, refuse_to_append, send
from packages.broker.tests.test_pop_waits import Poll
from packages.broker.tests.world import Client, World, send_fields, until

OK, EXPIRED = HandleResult.OK, HandleResult.EXPIRED
INVISIBLE_MS = 20_000


def wanted(*, count_max: int = 32, attempt_id: str = "", queue_id: int = -1, tags: str = "*") -> PopRequest:
    return PopRequest(
        group="G",
        topic="T",
        queue_id=queue_id,
        count_max=count_max,
        invisible_time_ms=INVISIBLE_MS,
        expression=tags,
        order=True,
        attempt_id=attempt_id,
    )


def send_group(world: World, message_group: str, *bodies: bytes, queue_id: int = 0) -> None:
    for body in bodies:
        fields = send_fields("T", queue_id, f"__SHARDINGKEY\x01{message_group}\x02")
        assert world.client().request(310, fields, body).code == 0


def pop(world: World, request: PopRequest | None = None) -> Popped | None:
    service = world.broker.popping.service
    found = service.pop(service.check(request or wanted()))
    assert isinstance(found, Popped | NothingPopped)
    return found if isinstance(found, Popped) else None


def bodies(found: Popped | None) -> list[bytes]:
    return [] if found is None else bodies_of(found)


def ack(world: World, *handles: PopHandle) -> list[HandleResult]:
    return world.broker.popping.service.ack("G", "T", handles)


def position(world: World, queue_id: int = 0) -> int | None:
    return world.broker.offsets.query("T", "G", queue_id)


async def test_a_message_group_waits_for_its_first_message_and_others_go_on() -> None:
    """One of each group goes out; after its acknowledgement the next of that group."""
    async with World() as world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1", b"a2")
        send_group(world, "B", b"b1")
        send_group(world, "A", b"a3")
        first = pop(world)
        assert first is not None
        assert bodies(first) == [b"a1", b"b1"]
        assert first.revive_queue_id == ORDER_REVIVE_QUEUE_ID
        assert pop(world) is None
        a1, b1 = handles_of(first)
        assert ack(world, b1) == [OK]
        assert (pop(world), position(world)) == (None, 0)
        assert ack(world, a1) == [OK]
        assert position(world) == 1
        second = pop(world)
        assert bodies(second) == [b"a2"]
        assert second is not None
        assert ack(world, *handles_of(second)) == [OK]
        assert position(world) == 3, "b1, which lies between, is done with"


async def test_messages_without_a_group_are_one_order_of_their_queue() -> None:
    """As Apache's brokers do it: a whole pop at a time, and the queue waits for all of it."""
    async with World() as world:
        world.create_topic("T", 2)
        send(world, b"1", b"2", b"3", queue_id=0)
        send(world, b"x", queue_id=1)
        first = pop(world, wanted(count_max=2, queue_id=0))
        assert first is not None
        assert bodies(first) == [b"1", b"2"]
        assert bodies(pop(world)) == [b"x"]
        one, two = handles_of(first)
        assert ack(world, two) == [OK]
        assert (pop(world), position(world)) == (None, 0)
        assert ack(world, one) == [OK]
        assert (bodies(pop(world)), position(world)) == ([b"3"], 2)


async def test_more_of_a_group_at_a_time_where_the_setting_says_so() -> None:
    """Pop.message_group_in_flight_max."""
    async with World(pop=PopConfig(message_group_in_flight_max=2)) as world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1", b"a2", b"a3")
        assert bodies(pop(world)) == [b"a1", b"a2"]
        assert pop(world) is None


async def test_a_message_comes_again_before_what_follows_it() -> None:
    """When its time is over; the old handle is dead then, and it is told how often it went out."""
    async with World() as world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1", b"a2")
        first = pop(world)
        assert first is not None
        assert list(first.runs[0].times) == [1]
        world.clock.advance(INVISIBLE_MS / 1000)
        again = pop(world)
        assert again is not None
        assert (bodies(again), list(again.runs[0].times)) == ([b"a1"], [2])
        assert ack(world, *handles_of(first)) == [EXPIRED]
        assert ack(world, *handles_of(again)) == [OK]
        assert bodies(pop(world)) == [b"a2"]


async def test_an_acknowledgement_that_comes_late_counts_while_nobody_else_has_the_message() -> None:
    """And one that is repeated is fine."""
    async with World() as world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1")
        found = pop(world)
        assert found is not None
        world.clock.advance(INVISIBLE_MS / 1000)
        for _ in range(2):
            assert ack(world, *handles_of(found)) == [OK]
        assert (pop(world), position(world)) == (None, 1)


async def test_an_attempt_that_is_repeated_gets_the_same_again() -> None:
    """Its answer was lost: under new handles, and not counted as another delivery."""
    async with World() as world:
        world.create_topic("T", 2)
        send_group(world, "A", b"a1", queue_id=0)
        send_group(world, "B", b"b1", queue_id=1)
        first = pop(world, wanted(attempt_id="x"))
        send_group(world, "C", b"c1", queue_id=0)
        assert bodies(pop(world, wanted(attempt_id="y"))) == [b"c1"]
        again = pop(world, wanted(attempt_id="x"))
        assert again is not None
        assert first is not None
        assert sorted(bodies(again)) == sorted(bodies(first)) == [b"a1", b"b1"]
        assert [list(run.times) for run in again.runs] == [[1], [1]]
        assert ack(world, *handles_of(first)) == [EXPIRED, EXPIRED]
        assert ack(world, *handles_of(again)) == [OK, OK]
        assert pop(world, wanted(attempt_id="x")) is None


async def test_a_message_may_get_more_time_or_none() -> None:
    """An extension never shortens; a change does, and keeps the handle."""
    async with World() as world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1")
        found = pop(world)
        assert found is not None
        (handle,) = handles_of(found)
        service = world.broker.popping.service
        assert service.extend("G", "T", [handle], 5_000) == [OK]
        assert service.extend("G", "T", [handle], 30_000) == [OK]
        world.clock.advance(29.999)
        assert pop(world) is None
        changed = service.change_invisible("G", "T", handle, 10_000)
        assert changed == Changed(OK, handle.pop_time_ms, 39_999, ORDER_REVIVE_QUEUE_ID)
        world.clock.advance(9.999)
        assert pop(world) is None
        assert service.change_invisible("G", "T", handle, 0).result is OK
        assert bodies(pop(world)) == [b"a1"]
        assert service.change_invisible("G", "T", handle, 0) == Changed(EXPIRED)
        assert service.extend("G", "T", [handle], 30_000) == [EXPIRED]


async def test_what_a_filter_leaves_out_holds_nobody_up() -> None:
    """The position moves over it."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"no", tag="No")
        send(world, b"yes", tag="Yes")
        send(world, b"no", tag="No")
        found = pop(world, wanted(tags="Yes"))
        assert found is not None
        assert (bodies(found), position(world)) == ([b"yes"], 1)
        assert ack(world, *handles_of(found)) == [OK]
        assert position(world) == 3


async def test_a_position_that_an_operator_sets_counts_at_once() -> None:
    """What was in hand belongs to the old one, also after a restart that comes before the next pop."""
    world = World()
    await world.broker.restore()
    await world.save_topic("T", 1)
    send_group(world, "A", b"a1", b"a2")
    found = pop(world)
    assert found is not None
    assert ack(world, *handles_of(found)) == [OK]
    world.broker.offsets.reset("T", "G", 0, 0)
    world.broker._offsets_reset("T", "G", [0])
    await world.broker.saver.save_consumer_offsets()
    await world.kill()
    async with World(world.disk, clock=world.clock) as again:
        assert bodies(pop(again)) == [b"a1"]


@pytest.mark.parametrize("is_saved", [False, True], ids=["from the log alone", "from the file and the log"])
async def test_a_killed_broker_knows_again_what_is_in_hand(is_saved: bool) -> None:
    """Nothing goes out early, what was acknowledged stays so, and handles from before live on."""
    world = World()
    await world.broker.restore()
    await world.save_topic("T", 1)
    send_group(world, "A", b"a1", b"a2")
    send_group(world, "B", b"b1", b"b2")
    first = pop(world)
    assert first is not None
    a1, b1 = handles_of(first)
    if is_saved:
        await world.broker.saver.save_consumer_offsets()
    assert ack(world, b1) == [OK]
    await world.kill()
    async with World(world.disk, clock=world.clock) as again:
        assert bodies(pop(again)) == [b"b2"]
        assert ack(again, a1) == [OK]
        assert bodies(pop(again)) == [b"a2"]


async def test_messages_of_one_queue_are_acknowledged_by_one_record() -> None:
    """Those that went out together; and each of them has its own result."""
    async with World() as world:
        world.create_topic("T", 1)
        for name in "ABC":
            send_group(world, name, name.encode())
        found = pop(world)
        assert found is not None
        handles = handles_of(found)
        assert ack(world, handles[1], handles[0]._replace(pop_time_ms=1), handles[2]) == [OK, EXPIRED, OK]
        assert world.store.max_offset("rmq_sys_ORDER_LOG_DefaultCluster", 0) == 2
        assert ack(world, *handles) == [OK] * 3
        assert position(world) == 3


async def test_nothing_is_popped_that_can_not_be_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store refuses: the messages are there for the next pop."""
    async with World() as world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1")
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "append", refuse_to_append)
            with pytest.raises(NotWritable):
                pop(world)
        found = pop(world)
        assert bodies(found) == [b"a1"]
        assert found is not None
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "append", refuse_to_append)
            with pytest.raises(NotWritable):
                ack(world, *handles_of(found))
        assert ack(world, *handles_of(found)) == [OK]


async def test_what_is_in_hand_is_counted() -> None:
    """Among the messages in flight of its group and topic, and in the limit of popped messages."""
    async with World() as world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1")
        found = pop(world)
        assert found is not None
        in_flight = labels(consumer_group="G", topic="T", is_retry="false", is_system="false")
        assert scrape(world)["rocketmq_consumer_inflight_messages", in_flight] == 1
        assert ack(world, *handles_of(found)) == [OK]
        assert scrape(world)["rocketmq_consumer_inflight_messages", in_flight] == 0
    async with World(limits=LimitsConfig(popped_messages_max=1)) as world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1")
        send_group(world, "B", b"b1")
        assert bodies(pop(world, wanted(count_max=1))) == [b"a1"]
        with pytest.raises(SystemBusy, match="popped_messages_max"):
            pop(world, wanted(count_max=1))


# -- waiting and the doors


def pop_fields(world: World, **fields: str) -> dict[str, str]:
    return {
        "consumerGroup": "G",
        "topic": "T",
        "queueId": "-1",
        "maxMsgNums": "32",
        "invisibleTime": str(INVISIBLE_MS),
        "pollTime": "15000",
        "bornTime": str(world.clock.now_ms()),
        "initMode": "0",
        "order": "true",
        **fields,
    }


async def answer(client: Client, opaque: int) -> RemotingCommand:
    """The answer to a request that was held, after a turn of the loop."""
    await asyncio.sleep(0)
    return client.reply(opaque)


async def test_who_waits_is_served_when_a_group_is_free_again() -> None:
    """By an acknowledgement, and when the time of a message is over."""
    async with World() as world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1", b"a2")
        client = world.client()
        first = client.request(200050, pop_fields(world))
        assert first.ext_fields is not None
        assert first.ext_fields["reviveQid"] == "999"
        assert first.ext_fields["orderCountInfo"] == "0 0 0"
        opaque = client.send(200050, pop_fields(world))
        assert not client.has_reply(opaque)
        handle = f"0 {first.ext_fields['popTime']} {INVISIBLE_MS} 999 0 broker-a 0 0"
        fields = {"consumerGroup": "G", "topic": "T", "queueId": "0", "offset": "0", "extraInfo": handle}
        assert client.request(200051, fields).code == 0
        second = await answer(client, opaque)
        assert b"a2" in second.body
        opaque = client.send(200050, pop_fields(world, pollTime="60000"))
        world.clock.advance(INVISIBLE_MS / 1000 + 0.001)  # no two pops have the same time
        world.broker.popping.expire()
        third = await answer(client, opaque)
        assert b"a2" in third.body
        assert third.ext_fields is not None
        assert third.ext_fields["orderCountInfo"] == "0 0 1;0 qo0%1 1"


async def test_the_mesh_tells_how_often_messages_went_out() -> None:
    """PopMessage with order; its handles are settled as others are."""
    async with World() as world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1", b"a2")
        asker = Asker(world)
        request = pb.PopMessageRequest(
            consumer_group="G", topic="T", queue_id=-1, max_msg_nums=8, invisible_time_ms=INVISIBLE_MS, order=True
        )
        await asker.ask(methods.POP_MESSAGE, request)
        world.clock.advance(INVISIBLE_MS / 1000)
        reply = await asker.ask(methods.POP_MESSAGE, request)
        (run,) = reply.runs
        assert (run.count, list(run.delivery_attempts), reply.revive_queue_id) == (1, [2], 999)
        handle = pb.PopHandle(
            queue_offset=0, pop_time_ms=reply.pop_time_ms, invisible_time_ms=INVISIBLE_MS, revive_queue_id=999
        )
        request_of_ack = pb.AckMessageRequest(consumer_group="G", topic="T", handles=[handle])
        done = await asker.ask(methods.ACK_MESSAGE, request_of_ack)
        assert list(done.results) == [pb.HANDLE_OK]


# -- old messages ------------------------------------------------------------------------------------------------------


def old_messages() -> tuple[World, MemoryDisk]:
    """A broker whose disk has nothing in memory once `cached` is False, whatever is read."""
    disk = MemoryDisk()
    return World(disk, store=StoreSettings(hot_window_bytes=1), limits=LimitsConfig(cold_reads_max=2)), disk


async def popped(world: World, request: PopRequest) -> Popped:
    """What is handed out to one that waits for it."""
    poll = Poll(world, pop=request)
    await until(lambda: bool(poll.outcomes))
    (found,) = poll.outcomes
    assert isinstance(found, Popped)
    return found


async def test_old_messages_go_out_though_memory_never_keeps_what_was_read() -> None:
    """Of all queues, each message group's in order."""
    world, disk = old_messages()
    async with world:
        world.create_topic("T", 2)
        for number in range(3):
            send_group(world, "A", b"a%d" % number, queue_id=0)
            send_group(world, "B", b"b%d" % number, queue_id=1)
            send_group(world, "C", b"c%d" % number, queue_id=1)
        disk.cached = False
        came: list[bytes] = []
        while len(came) < 9:
            found = await popped(world, wanted(count_max=2))
            came += bodies_of(found)
            assert ack(world, *handles_of(found)) == [OK] * len(handles_of(found))
        for group in (b"a", b"b", b"c"):
            assert [body for body in came if body.startswith(group)] == [group + b"%d" % number for number in range(3)]
        assert (position(world, 0), position(world, 1)) == (3, 6)


async def test_an_attempt_gets_its_old_messages_once_more() -> None:
    """Under a new handle; two that ask at a time wait for one disk, and one message goes to one of them."""
    world, disk = old_messages()
    async with world:
        world.create_topic("T", 1)
        send_group(world, "A", b"a1")
        send_group(world, "B", b"b1")
        disk.cached = False
        one, other = await asyncio.gather(
            popped(world, wanted(count_max=1, attempt_id="one")), popped(world, wanted(count_max=1, attempt_id="other"))
        )
        assert sorted(bodies_of(one) + bodies_of(other)) == [b"a1", b"b1"]
        again = await popped(world, wanted(count_max=1, attempt_id="one"))
        assert bodies_of(again) == bodies_of(one)
        assert handles_of(again) != handles_of(one)


async def test_a_filter_looks_through_old_messages() -> None:
    """What it does not want is passed over by the reads, as many as that takes."""
    world, disk = old_messages()
    async with world:
        world.create_topic("T", 1)
        for number in range(100):
            fields = send_fields(
                "T", 0, f"__SHARDINGKEY\x01{number}\x02TAGS\x01{'last' if number == 99 else 'other'}\x02"
            )
            assert world.client().request(310, fields, b"%d" % number).code == 0
        disk.cached = False
        assert bodies_of(await popped(world, wanted(tags="last"))) == [b"99"]
