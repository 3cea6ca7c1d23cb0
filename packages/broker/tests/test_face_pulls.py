"""Pulls over the Remoting face: held, woken, ended, closed; and commits in whatever order they come."""

import errno
from random import Random

import pytest
from apogeemq.broker.config import LimitsConfig, StoreSettings, TopicsConfig
from apogeemq.broker.errors import SystemBusy
from apogeemq.remoting_codec.batch import BatchMessage, encode_batch
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.store.errors import RecordCorrupt
from apogeemq.store.faulty_disk import FaultyDisk
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.world import (
    Client,
    World,
    bodies_of,
    consumer_beat,
    fields_of,
    pull_fields,
    send_fields,
    until,
)

HELD = {"sysFlag": "6", "suspendTimeoutMillis": "15000"}
HELD_AND_COMMIT = {"sysFlag": "7", "suspendTimeoutMillis": "15000"}


async def world_with_topic(
    disk: MemoryDisk | None = None,
    *,
    topics: TopicsConfig | None = None,
    store: StoreSettings | None = None,
    limits: LimitsConfig | None = None,
) -> World:
    world = World(disk, topics=topics, store=store, limits=limits)
    world.create_topic()
    return world


def produce(client: Client, body: bytes = b"body", queue_id: int = 0, properties: str = "") -> None:
    assert client.request(310, send_fields("T", queue_id, properties), body).code == 0


async def settled(world: World) -> None:
    """Let everything happen that needs no time."""
    await world.clock.run_for(0)


# -- answered at once --------------------------------------------------------------------------------------------------


async def test_an_answer_has_apaches_fields_and_the_logs_own_bytes() -> None:
    """The body is the records as they lie in the log."""
    async with await world_with_topic() as world:
        client = world.client()
        for number in range(3):
            produce(client, b"%d" % number)
        reply = client.request(11, pull_fields())
        assert (reply.code, reply.remark) == (0, "FOUND")
        assert fields_of(reply) == {
            "suggestWhichBrokerId": "0",
            "groupSysFlag": "0",
            "nextBeginOffset": "3",
            "maxOffset": "3",
            "minOffset": "0",
            "topicSysFlag": "0",
        }
        records = [world.store.record_at(record.physical_offset) or b"" for record in world.records("T")]
        assert reply.body == b"".join(records)


@pytest.mark.parametrize("code", [RequestCode.PULL_MESSAGE, RequestCode.LITE_PULL_MESSAGE])
async def test_both_kinds_of_pull_are_served(code: RequestCode) -> None:
    """A lite pull consumer reads as any other."""
    async with await world_with_topic() as world:
        client = world.client()
        produce(client)
        assert bodies_of(client.request(code, pull_fields())) == [b"body"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"sysFlag": "4", "suspendTimeoutMillis": "15000"}, 19),  # without the suspend bit
        ({"sysFlag": "6", "suspendTimeoutMillis": "0"}, 19),
        ({"sysFlag": "6", "suspendTimeoutMillis": "-1"}, 19),
        ({**HELD, "queueOffset": "5"}, 21),  # only code 19 waits (trap 15)
        ({**HELD, "queueOffset": "0", "subscription": "TagNone"}, 20),
    ],
)
async def test_what_is_not_held(more: dict[str, str], code: int) -> None:
    """Answered at once, whatever it was."""
    async with await world_with_topic() as world:
        client = world.client()
        produce(client)
        assert client.request(11, pull_fields(offset=1) | more).code == code
        assert len(world.broker.long_polling) == 0


async def test_a_oneway_pull_is_neither_held_nor_answered() -> None:
    """Nobody waits for it."""
    async with await world_with_topic() as world:
        client = world.client()
        produce(client)
        for offset in (0, 1, 9):
            client.send(11, pull_fields(offset=offset) | HELD, oneway=True)
        client.send(11, pull_fields(topic="Missing"), oneway=True)
        assert client.received() == []
        assert len(world.broker.long_polling) == 0


# -- held --------------------------------------------------------------------------------------------------------------


async def test_a_message_wakes_who_waits_for_its_queue() -> None:
    """Only those; each is answered once."""
    async with await world_with_topic() as world:
        waiting, other, producer = world.client(1), world.client(2), world.client(3)
        opaque = waiting.send(11, pull_fields() | HELD)
        elsewhere = other.send(11, pull_fields(queue_id=1) | HELD)
        produce(producer)
        produce(producer)
        await settled(world)
        assert bodies_of(waiting.reply(opaque)) == [b"body", b"body"]
        assert not other.has_reply(elsewhere)
        produce(producer)
        await settled(world)
        assert waiting.received() == []


async def test_many_that_wait_for_one_queue_are_all_answered() -> None:
    """By one message, and by the end of their time: more than are answered at a time."""
    async with await world_with_topic() as world:
        world.broker.start()
        waiting, producer = world.client(1), world.client(2)
        first = [waiting.send(11, pull_fields() | HELD) for _ in range(40)]
        produce(producer)
        await settled(world)
        assert all(bodies_of(waiting.reply(opaque)) == [b"body"] for opaque in first)
        second = [waiting.send(11, pull_fields(offset=1) | HELD) for _ in range(40)]
        await world.clock.run_for(15.4)
        assert {waiting.reply(opaque).code for opaque in second} == {19}
        assert waiting.received() == []
        assert len(world.broker.long_polling) == 0


async def test_all_messages_of_one_read_come_in_one_answer() -> None:
    """Who waits is woken when the sends that were read together are all stored."""
    async with await world_with_topic() as world:
        waiting, producer = world.client(1), world.client(2)
        opaque = waiting.send(11, pull_fields() | HELD)
        producer.send_together([(310, send_fields(), b"%d" % number) for number in range(10)])
        assert not waiting.has_reply(opaque)
        await settled(world)
        assert bodies_of(waiting.reply(opaque)) == [b"%d" % number for number in range(10)]


async def test_a_batch_wakes_too() -> None:
    """With any of its messages' tags."""
    async with await world_with_topic() as world:
        waiting, producer = world.client(1), world.client(2)
        opaque = waiting.send(11, pull_fields(subscription="B") | HELD)
        body = encode_batch([BatchMessage(0, tag.encode(), f"TAGS\x01{tag}\x02".encode()) for tag in "ABC"])
        producer.request(320, send_fields(m="true"), body)
        await settled(world)
        assert bodies_of(waiting.reply(opaque)) == [b"B"]


async def test_a_message_of_another_tag_does_not_wake() -> None:
    """A pull that is woken later begins where it stood, and skips what it does not want."""
    async with await world_with_topic() as world:
        waiting, producer = world.client(1), world.client(2)
        opaque = waiting.send(11, pull_fields(subscription="TagA") | HELD)
        produce(producer, b"no", properties="TAGS\x01TagB\x02")
        await settled(world)
        assert not waiting.has_reply(opaque)
        produce(producer, b"yes", properties="TAGS\x01TagA\x02")
        await settled(world)
        reply = waiting.reply(opaque)
        assert bodies_of(reply) == [b"yes"]
        assert fields_of(reply)["nextBeginOffset"] == "2"


async def test_a_hash_that_collides_wakes_with_what_the_client_sorts_out() -> None:
    """`Aa` and `BB` have one hash (trap 13)."""
    async with await world_with_topic() as world:
        waiting, producer = world.client(1), world.client(2)
        opaque = waiting.send(11, pull_fields(subscription="Aa") | HELD)
        produce(producer, properties="TAGS\x01BB\x02")
        await settled(world)
        assert waiting.reply(opaque).code == 0


async def test_a_held_pull_ends_after_the_clients_time() -> None:
    """19 with Apache's remark and the same offset; not before, and not much later."""
    async with await world_with_topic() as world:
        world.broker.start()
        client = world.client()
        produce(client)
        opaque = client.send(11, pull_fields(offset=1) | HELD)
        await world.clock.run_for(14.9)
        assert not client.has_reply(opaque)
        await world.clock.run_for(0.4)
        reply = client.reply(opaque)
        assert (reply.code, reply.remark) == (19, "OFFSET_OVERFLOW_ONE")
        assert fields_of(reply)["nextBeginOffset"] == "1"


async def test_the_broker_bounds_what_a_client_may_ask_for() -> None:
    """pull_hold_s_max."""
    async with await world_with_topic(limits=LimitsConfig(pull_hold_s_max=3.0)) as world:
        world.broker.start()
        client = world.client()
        opaque = client.send(11, pull_fields(sysFlag="6", suspendTimeoutMillis=str(2**62)))
        await world.clock.run_for(3.3)
        assert client.reply(opaque).code == 19


async def test_without_long_polling_a_pull_is_held_shortly() -> None:
    """longPollingEnable=false: shortPollingTimeMills, whatever the client asks for."""
    topics = TopicsConfig(long_polling_enable=False, short_polling_time_ms=1_000)
    async with await world_with_topic(topics=topics) as world:
        world.broker.start()
        client = world.client()
        opaque = client.send(11, pull_fields() | HELD)
        await world.clock.run_for(0.9)
        assert not client.has_reply(opaque)
        await world.clock.run_for(0.4)
        assert client.reply(opaque).code == 19


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (LimitsConfig(held_pulls_max=1), "1 pulls wait, the limit (limits.held_pulls_max) is 1"),
        (
            LimitsConfig(held_pulls_per_queue_max=1),
            "1 pulls wait for this queue, the limit (limits.held_pulls_per_queue_max) is 1",
        ),
    ],
)
async def test_beyond_the_bound_nothing_is_held(limits: LimitsConfig, told: str) -> None:
    """FLOW_CONTROL, which names the limit: "nothing there" would be asked again at once, all the time."""
    async with await world_with_topic(limits=limits) as world:
        client = world.client()
        held = client.send(11, pull_fields() | HELD)
        refused = client.request(11, pull_fields() | HELD)
        assert (refused.code, refused.remark) == (215, told)
        assert not client.has_reply(held)


async def test_who_is_gone_is_forgotten() -> None:
    """A closed connection leaves nothing behind, and is not read for."""
    async with await world_with_topic() as world:
        gone, producer = world.client(1), world.client(2)
        gone.send(11, pull_fields() | HELD)
        gone.close()
        assert len(world.broker.long_polling) == 0
        produce(producer)
        await settled(world)
        assert gone.received() == []
        assert world.broker.topics.require("T").messages_out == 0


async def test_who_is_closing_when_woken_is_not_answered() -> None:
    """Its messages are not counted as handed out."""
    async with await world_with_topic() as world:
        closing, producer = world.client(1), world.client(2)
        closing.send(11, pull_fields() | HELD)
        closing.channel.close("the test says so")
        produce(producer)
        await settled(world)
        assert world.broker.topics.require("T").messages_out == 0


async def test_a_stop_answers_who_waits() -> None:
    """The client may go on at another broker at once."""
    world = await world_with_topic()
    client = world.client()
    opaque = client.send(11, pull_fields() | HELD)
    await world.stop()
    assert client.reply(opaque).code == 19


async def test_a_read_that_fails_on_waking_is_answered() -> None:
    """One broken queue costs its own readers one answer, and nobody else anything."""
    async with await world_with_topic() as world:
        waiting, other, producer = world.client(1), world.client(2), world.client(3)
        broken = waiting.send(11, pull_fields() | HELD)
        good = other.send(11, pull_fields(queue_id=1) | HELD)
        read = world.broker.fetch.read

        def fails_on_queue_0(pull: object, *, cold_allowed: bool = False) -> object:
            if getattr(pull, "queue_id", None) == 0:
                raise RecordCorrupt(7, "the test says so")
            return read(pull, cold_allowed=cold_allowed)  # type: ignore[arg-type]  # a Pull

        world.broker.fetch.read = fails_on_queue_0  # type: ignore[method-assign,assignment]  # a failing disk
        produce(producer)
        produce(producer, queue_id=1)
        await settled(world)
        assert waiting.reply(broken).code == 1
        assert bodies_of(other.reply(good)) == [b"body"]


# -- messages that must be fetched from the disk -----------------------------------------------------------------------


async def test_old_messages_are_read_in_a_thread() -> None:
    """What is neither in the hot window nor in the page cache: answered when it is read."""
    disk = MemoryDisk()
    async with await world_with_topic(disk, store=StoreSettings(hot_window_bytes=1)) as world:
        client = world.client()
        for number in range(3):
            produce(client, b"%d" % number)
        disk.cached = False
        opaque = client.send(11, pull_fields())
        assert not client.has_reply(opaque)
        assert bodies_of(await client.later(opaque)) == [b"0", b"1", b"2"]
        assert world.broker.topics.require("T").messages_out == 3


async def test_a_woken_pull_may_have_to_wait_for_the_disk() -> None:
    """Still one answer, when it is read."""
    disk = MemoryDisk()
    async with await world_with_topic(disk, store=StoreSettings(hot_window_bytes=1)) as world:
        client = world.client()
        opaque = client.send(11, pull_fields() | HELD)
        disk.cached = False
        client.send(310, send_fields(), b"body")
        assert bodies_of(await client.later(opaque)) == [b"body"]


async def test_reads_from_the_disk_are_bounded() -> None:
    """One more is refused with the limit's name; others of the connection go on."""
    disk = MemoryDisk()
    settings = StoreSettings(hot_window_bytes=1)
    async with await world_with_topic(disk, store=settings, limits=LimitsConfig(cold_reads_max=2)) as world:
        client = world.client()
        for _ in range(3):
            produce(client)
        disk.cached = False
        *running, refused = client.send_together([(11, pull_fields(), b"")] * 3)
        reply = client.reply(refused)
        assert reply.code == SystemBusy.code
        assert "2 reads of old messages wait for the disk, the limit (limits.cold_reads_max) is 2" in str(reply.remark)
        for opaque in running:
            assert (await client.later(opaque)).code == 0
        for _ in range(3):
            assert (await client.later(client.send(11, pull_fields()))).code == 0, "there is room again"


async def test_a_read_that_fails_in_its_thread_is_answered() -> None:
    """With the store's own words."""
    disk = FaultyDisk(Random(1))
    async with await world_with_topic(disk, store=StoreSettings(hot_window_bytes=1)) as world:
        client = world.client()
        for _ in range(3):
            produce(client)
        disk.cached = False
        disk.fail("pread", errno.EIO)
        reply = await client.later(client.send(11, pull_fields()))
        assert reply.code == 1
        await until(lambda: client.request(14, {"consumerGroup": "G", "topic": "T", "queueId": "0"}).code == 22)


# -- commits, in whatever order ----------------------------------------------------------------------------------------


async def test_a_held_pull_commits_when_it_arrives_and_not_again() -> None:
    """Woken or ended, it must not overwrite what was committed meanwhile (trap 15)."""
    async with await world_with_topic() as world:
        world.broker.start()
        world.broker.groups.find_or_create("G")
        client = world.client()
        client.send(11, pull_fields(commitOffset="3") | HELD_AND_COMMIT)
        client.send(11, pull_fields(queue_id=1, commitOffset="4") | HELD_AND_COMMIT)
        assert world.broker.offsets.query("T", "G", 0) == 3
        commit = {"consumerGroup": "G", "topic": "T", "queueId": "0", "commitOffset": "9"}
        client.send(15, commit, oneway=True)
        client.send(15, {**commit, "queueId": "1"}, oneway=True)
        produce(client)
        await world.clock.run_for(16)
        assert len(client.received()) == 2
        assert [world.broker.offsets.query("T", "G", queue_id) for queue_id in (0, 1)] == [9, 9]


async def test_a_pull_that_is_refused_commits_nothing() -> None:
    """As in Apache's broker: the checks come first. The client's oneway commit of the same offset still counts."""
    async with await world_with_topic() as world:
        client = world.client()
        client.heartbeat(consumer_beat(version=1))
        refused = client.request(11, pull_fields(sysFlag="3", subVersion="2", commitOffset="7"))
        assert refused.code == 25
        assert world.broker.offsets.query("T", "G", 0) is None
        client.send(15, {"consumerGroup": "G", "topic": "T", "queueId": "0", "commitOffset": "7"}, oneway=True)
        assert world.broker.offsets.query("T", "G", 0) == 7


async def test_the_last_word_of_one_connection_counts() -> None:
    """Commits and pulls that carry commits, read together, take effect in their order."""
    async with await world_with_topic() as world:
        world.broker.groups.find_or_create("G")
        client = world.client()
        commit = {"consumerGroup": "G", "topic": "T", "queueId": "0"}
        client.send_together(
            [
                (15, {**commit, "commitOffset": "5"}, b""),
                (11, pull_fields(commitOffset="6") | HELD_AND_COMMIT, b""),
                (15, {**commit, "commitOffset": "7"}, b""),
            ],
            oneway=False,
        )
        assert world.broker.offsets.query("T", "G", 0) == 7


async def test_a_shutdown_in_good_order_leaves_its_offsets() -> None:
    """As Java's consumer ends: oneway commits, leaving the group, closing the socket, all in one read of ours.

    A pull that is still held on the same connection has no say any more.
    """
    async with await world_with_topic() as world:
        leaving, staying = world.client(1), world.client(2)
        leaving.heartbeat(consumer_beat("c1"))
        staying.heartbeat(consumer_beat("c2"))
        for queue_id in range(4):
            leaving.send(11, pull_fields(queue_id=queue_id, commitOffset="1") | HELD_AND_COMMIT)
        commit = {"consumerGroup": "G", "topic": "T"}
        for queue_id in range(4):
            leaving.send(15, {**commit, "queueId": str(queue_id), "commitOffset": "42"}, oneway=True)
        leaving.send(35, {"clientID": "c1", "consumerGroup": "G"})
        leaving.close()
        produce(staying)
        await settled(world)
        assert [world.broker.offsets.query("T", "G", queue_id) for queue_id in range(4)] == [42] * 4
        asked = staying.request(14, {**commit, "queueId": "3", "setZeroIfNotFound": "false"})
        assert fields_of(asked) == {"offset": "42"}


async def test_a_commit_of_a_group_that_was_saved_is_taken_after_a_kill() -> None:
    """Before any heartbeat reaches the restarted broker: nobody would tell the client that it was refused."""
    disk = MemoryDisk()
    world = World(disk)
    await world.save_topic()
    world.client().heartbeat(consumer_beat())
    await world.broker.saver.save_groups()
    await world.kill()
    async with World(disk) as again:
        commit = {"consumerGroup": "G", "topic": "T", "queueId": "0", "commitOffset": "5"}
        again.client().send(15, commit, oneway=True)
        assert again.broker.offsets.query("T", "G", 0) == 5
