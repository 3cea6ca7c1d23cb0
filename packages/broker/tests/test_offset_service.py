"""Offsets: what groups committed, the ends of queues, offsets by time."""

import pytest
from apogeemq.broker.config import StoreSettings
from apogeemq.broker.errors import InvalidParameter, QueryNotFound, SubscriptionGroupNotExist, TopicNotExist
from apogeemq.remoting_codec.bodies import TopicConfig

from packages.broker.tests.recordings import exchanges
from packages.broker.tests.world import World, fields_of, send_fields


async def world_with(count: int, *, step_s: float = 0.0, hot_window_bytes: int = 1 << 20) -> World:
    """A topic T with so many messages in queue 0, and a group G."""
    world = World(store=StoreSettings(hot_window_bytes=hot_window_bytes))
    world.create_topic()
    world.broker.groups.find_or_create("G")
    client = world.client()
    for _ in range(count):
        client.request(310, send_fields(), b"body")
        world.clock.advance(step_s)
    return world


async def test_a_committed_offset_is_told() -> None:
    """0 too; lower ones replace higher ones; groups and queues do not mix."""
    async with await world_with(5) as world:
        service = world.broker.offset_service
        for offset in (3, 0, 2):
            service.commit("T", "G", 0, offset)
            assert service.query("T", "G", 0) == offset
            assert service.query("T", "G", 0, zero_if_not_found=False) == offset
        with pytest.raises(QueryNotFound):
            service.query("T", "G", 1)


async def test_a_young_queue_is_read_from_its_start() -> None:
    """Nothing committed, message 0 still in memory: 0, unless the client asks not to guess (trap 17)."""
    async with await world_with(1) as world:
        service = world.broker.offset_service
        assert service.query("T", "G", 0) == 0
        with pytest.raises(QueryNotFound, match="Not found, do not set to zero, maybe this group boot first"):
            service.query("T", "G", 0, zero_if_not_found=False)


async def test_an_old_queue_leaves_the_choice_to_the_client() -> None:
    """Message 0 is no longer in memory, or there is none: 22."""
    async with await world_with(20, hot_window_bytes=1_000) as world:
        for queue_id in (0, 1):
            with pytest.raises(QueryNotFound, match="Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first"):
                world.broker.offset_service.query("T", "G", queue_id)


async def test_the_recorded_questions_are_answered_as_recorded() -> None:
    """Codes, remarks and fields of Apache 5.3.3 for offsets asked, set and refused."""
    async with World() as world:
        world.broker.topics.put(TopicConfig(topic_name="TapNormal", read_queue_nums=2, write_queue_nums=2))
        world.mark_saved()
        world.broker.groups.find_or_create("G_off_ok")
        client = world.client()
        for _ in range(3):
            client.request(310, send_fields("TapNormal"), b"x")
        recorded = [e for code in (14, 15, 30, 31) for e in exchanges("consumer_offset", code)]
        assert {exchange.reply.code for exchange in recorded} == {0, 22, 26}
        for exchange in recorded:
            if fields_of(exchange.request).get("setZeroIfNotFound") and exchange.reply.code == 0:
                continue  # asked after the commit that is among the recorded ones: tried by the next test
            reply = client.request(exchange.request.code, exchange.request.ext_fields)
            assert (reply.code, reply.remark or None) == (exchange.reply.code, exchange.reply.remark or None)
            assert (reply.ext_fields or {}) == (exchange.reply.ext_fields or {})


async def test_a_commit_over_the_wire_is_found_again() -> None:
    """With and without waiting for the answer."""
    async with await world_with(5) as world:
        client = world.client()
        asked = {"consumerGroup": "G", "topic": "T", "queueId": "0"}
        assert client.request(15, {**asked, "commitOffset": "4"}).code == 0
        assert fields_of(client.request(14, asked)) == {"offset": "4"}
        client.send(15, {**asked, "commitOffset": "5"}, oneway=True)
        assert fields_of(client.request(14, {**asked, "setZeroIfNotFound": "false"})) == {"offset": "5"}


async def test_commits_are_refused_for_what_does_not_exist() -> None:
    """Group, topic, queue, and an offset below 0; in this order."""
    async with await world_with(1) as world:
        commit = world.broker.offset_service.commit
        with pytest.raises(SubscriptionGroupNotExist, match="Group Nobody not exist!"):
            commit("Missing", "Nobody", 9, -1)
        with pytest.raises(TopicNotExist):
            commit("Missing", "G", 9, -1)
        with pytest.raises(InvalidParameter, match=r"queueId\[9\] is illegal, topic:\[T\] has 4 queues"):
            commit("T", "G", 9, -1)
        with pytest.raises(InvalidParameter, match=r"commitOffset\[-1\] is illegal"):
            commit("T", "G", 0, -1)
        assert not world.broker.offsets.changed


async def test_queues_of_a_topic_that_shrinks_can_still_be_asked_about() -> None:
    """The larger of read and write queues counts."""
    async with await world_with(1) as world:
        world.broker.topics.put(TopicConfig(topic_name="T", read_queue_nums=4, write_queue_nums=1))
        world.broker.offset_service.commit("T", "G", 3, 0)
        assert world.broker.offset_service.max_offset("T", 3) == 0


async def test_the_ends_of_a_queue() -> None:
    """Where the next message will be, and where the oldest is."""
    async with await world_with(5) as world:
        service = world.broker.offset_service
        assert [service.max_offset("T", queue_id) for queue_id in (0, 1)] == [5, 0]
        assert [service.min_offset("T", queue_id) for queue_id in (0, 1)] == [0, 0]
        for asked in (service.max_offset, service.min_offset):
            with pytest.raises(TopicNotExist):
                asked("Missing", 0)
            with pytest.raises(InvalidParameter):
                asked("T", 4)


@pytest.mark.parametrize(
    ("after_ms", "boundary", "offset"),
    [
        (-1, "LOWER", 0),
        (0, "LOWER", 0),
        (1, "LOWER", 1),
        (20_000, "LOWER", 2),
        (40_000, "lower", 4),
        (40_001, "LOWER", 5),
        (-1, "UPPER", 0),
        (25_000, "UPPER", 2),
        (40_000, "upper", 4),
        (99_000, "UPPER", 4),
    ],
)
async def test_offsets_by_time(after_ms: int, boundary: str, offset: int) -> None:
    """Five messages, 10 s apart: the first at or after, or the last at or before (reference broker_behaviour.md §6)."""
    world = await world_with(0)
    start_ms = world.clock.now_ms()
    client = world.client()
    async with world:
        for _ in range(5):
            client.request(310, send_fields(), b"body")
            world.clock.advance(10)
        assert world.broker.offset_service.by_time("T", 0, start_ms + after_ms, boundary)() == offset


async def test_an_unknown_boundary_is_named() -> None:
    """What is wrong with the question is said before anything is read."""
    async with await world_with(1) as world:
        with pytest.raises(InvalidParameter, match=r"boundaryType\[MIDDLE\] is illegal, it must be LOWER or UPPER"):
            world.broker.offset_service.by_time("T", 0, 0, "MIDDLE")


async def test_when_the_oldest_message_was_stored() -> None:
    """-1 for a queue that has none."""
    async with await world_with(3, step_s=10) as world:
        service = world.broker.offset_service
        assert service.earliest_store_time_ms("T", 0)() == world.clock.now_ms() - 30_000
        assert service.earliest_store_time_ms("T", 1)() == -1


async def test_searches_are_answered_from_threads() -> None:
    """They may read from the disk; the answers have Apache's field names."""
    async with await world_with(3, step_s=10) as world:
        client = world.client()
        asked = {"topic": "T", "queueId": "0"}
        found = await client.later(client.send(29, {**asked, "timestamp": "0", "boundaryType": "LOWER"}))
        assert fields_of(found) == {"offset": "0"}
        earliest = await client.later(client.send(32, asked))
        assert fields_of(earliest) == {"timestamp": str(world.clock.now_ms() - 30_000)}
