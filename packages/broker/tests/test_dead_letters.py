"""Dead letters: forwarded over the mesh, and what each of them says of its last failure."""

import asyncio

import pytest
from apogeemq.broker.config import StoreSettings
from apogeemq.broker.service.dead_letters import REASON_LENGTH_MAX
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.v1 import broker_pb2 as pb
from apogeemq.mesh.v1 import methods
from apogeemq.remoting_codec.bodies import SubscriptionGroupConfig, TopicConfig
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

from packages.broker.tests.mesh_asking import Asker, handles_of
from packages.broker.tests.world import STORE_HOST, World, properties_of, send_fields, until

ORIGIN = "UNIQ_KEY\x01U1\x02KEYS\x01k\x02TRACE_CONTEXT\x0100-a-b-01\x02traceparent\x0100-a-b-01\x02colour\x01red\x02"
KEPT = {"UNIQ_KEY": "U1", "KEYS": "k", "TRACE_CONTEXT": "00-a-b-01", "traceparent": "00-a-b-01", "colour": "red"}


async def world_with_message(store: StoreSettings | None = None) -> World:
    """A broker with a group G and one message of topic T."""
    world = World(store=store)
    world.broker.topics.put(TopicConfig(topic_name="T", read_queue_nums=1, write_queue_nums=1))
    world.broker.groups.find_or_create("G")
    await world.broker.popping.restore()
    world.mark_saved()
    world.client().request(RequestCode.SEND_MESSAGE_V2, send_fields("T", 0, ORIGIN), b"body")
    return world


def forward_request(
    handle: pb.PopHandle, reason: str = "spoilt", group: str = "G"
) -> pb.ForwardToDeadLetterQueueRequest:
    return pb.ForwardToDeadLetterQueueRequest(consumer_group=group, topic="T", handle=handle, reason=reason)


async def forward(world: World, handle: pb.PopHandle, reason: str = "spoilt") -> pb.HandleResult:
    """Ask for it, and write the file of topics, which the answer waits for where the DLQ is new."""
    asking = asyncio.ensure_future(
        Asker(world).ask(methods.FORWARD_TO_DEAD_LETTER_QUEUE, forward_request(handle, reason))
    )
    while not asking.done():
        await asyncio.sleep(0.001 if world.config.store.hot_window_bytes == 1 else 0)
        await world.broker.saver.save_topics()
    return asking.result().result


def is_subset(part: dict[str, str], whole: dict[str, str]) -> bool:
    return part.items() <= whole.items()


@pytest.mark.parametrize("hot_window_bytes", [1, 1 << 20])
async def test_a_forwarded_message_is_a_dead_letter_and_acknowledged(hot_window_bytes: int) -> None:
    """With where it came from, its trace and why; read from the disk where it is old. It does not come again."""
    async with await world_with_message(StoreSettings(hot_window_bytes=hot_window_bytes)) as world:
        (handle,) = handles_of(await Asker(world).pop())
        assert await forward(world, handle) == pb.HANDLE_OK
        dead = world.record("%DLQ%G")
        message_id = (STORE_HOST + bytes(8)).hex().upper()
        assert (dead.body, dead.reconsume_times, dead.queue_id) == (b"body", 1, 0)
        assert is_subset(
            KEPT
            | {
                "DLQ_ORIGIN_TOPIC": "T",
                "DLQ_ORIGIN_MESSAGE_ID": message_id,
                "ORIGIN_MESSAGE_ID": message_id,
                "RETRY_TOPIC": "T",
                "APOGEEMQ_FAILURE_REASON": "spoilt",
            },
            properties_of(dead),
        )
        assert len(world.broker.popping.log.table) == 0
        assert world.broker.dead_letters == {("G", "T"): 1}


async def test_forwarding_may_be_repeated() -> None:
    """Whoever got no answer asks again; there is one dead letter all the same."""
    async with await world_with_message() as world:
        (handle,) = handles_of(await Asker(world).pop())
        assert [await forward(world, handle) for _ in range(3)] == [pb.HANDLE_OK] * 3
        assert len(world.records("%DLQ%G")) == 1


async def test_two_at_once_make_one_dead_letter() -> None:
    """Both read the message from the disk before either has stored anything."""
    async with await world_with_message(StoreSettings(hot_window_bytes=1)) as world:
        (handle,) = handles_of(await Asker(world).pop())
        results = await asyncio.gather(forward(world, handle), forward(world, handle))
        assert set(results) == {pb.HANDLE_OK}
        assert len(world.records("%DLQ%G")) == 1


async def test_an_acknowledged_message_is_not_forwarded() -> None:
    """It was processed."""
    async with await world_with_message() as world:
        (handle,) = handles_of(await Asker(world).pop())
        ack = pb.AckMessageRequest(consumer_group="G", topic="T", handles=[handle])
        await Asker(world).ask(methods.ACK_MESSAGE, ack)
        assert await forward(world, handle) == pb.HANDLE_OK
        assert world.records("%DLQ%G") == []


async def test_a_handle_whose_time_is_over_is_good_for_it() -> None:
    """As for Apache's: its clients would repeat a refused one for ever. The message comes again besides."""
    async with await world_with_message() as world:
        (handle,) = handles_of(await Asker(world).pop(invisible_time_ms=1_000))
        world.clock.advance(2.0)
        assert await forward(world, handle) == pb.HANDLE_OK
        assert len(world.records("%DLQ%G")) == 1
        assert len(world.broker.popping.log.table) == 1


async def test_what_can_not_be_forwarded() -> None:
    """No such message, no such group, a broker that takes no writes: nothing is stored, nothing acknowledged."""
    async with await world_with_message() as world:
        (handle,) = handles_of(await Asker(world).pop())
        missing = pb.PopHandle()
        missing.CopyFrom(handle)
        missing.queue_offset = 7
        assert await forward(world, missing) == pb.HANDLE_NO_MESSAGE
        with pytest.raises(CallRefused) as unknown:
            await Asker(world).ask(methods.FORWARD_TO_DEAD_LETTER_QUEUE, forward_request(handle, group="H"))
        assert unknown.value.code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST
        world.broker.send_back.permission = 4
        with pytest.raises(CallRefused) as read_only:
            await Asker(world).ask(methods.FORWARD_TO_DEAD_LETTER_QUEUE, forward_request(handle))
        assert read_only.value.code == ResponseCode.NO_PERMISSION
        assert (world.records("%DLQ%G"), len(world.broker.popping.log.table)) == ([], 1)


async def test_a_damaged_message_is_not_forwarded() -> None:
    """There is nothing to keep; the handle names no message that can be read."""
    async with await world_with_message() as world:
        (handle,) = handles_of(await Asker(world).pop())
        world.damage(world.record("T").physical_offset)
        assert await forward(world, handle) == pb.HANDLE_NO_MESSAGE
        assert world.records("%DLQ%G") == []


async def test_a_group_without_retry_queues_keeps_no_dead_letters() -> None:
    """Its failures are acknowledged, as by a send-back (broker_behaviour.md §2)."""
    async with await world_with_message() as world:
        world.broker.groups._put_all([SubscriptionGroupConfig(group_name="G", retry_queue_nums=0)])
        (handle,) = handles_of(await Asker(world).pop())
        assert await forward(world, handle) == pb.HANDLE_OK
        assert (world.records("%DLQ%G"), len(world.broker.popping.log.table)) == ([], 0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", "forwarded by its consumer, which gave no reason"),
        ("a\x01b\x02c\nd", "a b c d"),
        ("é" * REASON_LENGTH_MAX, "é" * REASON_LENGTH_MAX),
    ],
)
async def test_a_reason_spoils_no_property(given: str, kept: str) -> None:
    """What divides properties, or lines, becomes a space."""
    async with await world_with_message() as world:
        (handle,) = handles_of(await Asker(world).pop())
        await forward(world, handle, given)
        properties = properties_of(world.record("%DLQ%G"))
        assert properties["APOGEEMQ_FAILURE_REASON"] == kept
        assert is_subset(KEPT, properties)


@pytest.mark.parametrize(
    ("level", "maximum", "given", "reason"),
    [
        (-1, 16, {}, "given up by its consumer on delivery 1"),
        (0, 0, {}, "sent back by its consumer on delivery 1; the maximum is 0 retries"),
        (-1, 16, {"failureReason": "an order without content"}, "an order without content"),
    ],
)
async def test_a_message_that_is_sent_back_says_why_it_is_dead(
    level: int, maximum: int, given: dict[str, str], reason: str
) -> None:
    """Official clients give no reason: the broker says what it knows."""
    async with await world_with_message() as world:
        client = world.client()
        fields = {"offset": "0", "group": "G", "delayLevel": str(level), "maxReconsumeTimes": str(maximum), **given}
        client.send(RequestCode.CONSUMER_SEND_MSG_BACK, fields)
        await until(lambda: world.records("%DLQ%G") != [])
        properties = properties_of(world.record("%DLQ%G"))
        assert properties["APOGEEMQ_FAILURE_REASON"] == reason
        assert is_subset(KEPT, properties)


async def test_a_message_that_its_consumer_sends_to_its_retry_topic_too_often_says_so() -> None:
    """Its last reason counts: one that it had before is replaced."""
    async with await world_with_message() as world:
        client = world.client()
        properties = f"{ORIGIN}APOGEEMQ_FAILURE_REASON\x01of another time\x02"
        fields = send_fields("%RETRY%G", 0, properties, j="3", l="2")
        client.send(RequestCode.SEND_MESSAGE_V2, fields, b"body")
        stored = properties_of(world.record("%DLQ%G"))
        assert stored["APOGEEMQ_FAILURE_REASON"] == "sent to its retry topic by its consumer, 3 times until now"
        assert is_subset(KEPT, stored)
