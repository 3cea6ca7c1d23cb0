"""Failed messages: when they come again, and when they do not."""

import msgspec
import pytest
from apogeemq.broker.errors import NoPermission, RequestFailed, SubscriptionGroupNotExist
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.remoting_codec.headers.send import ConsumerSendMsgBackRequestHeader
from apogeemq.remoting_codec.record import Record, decode_records

from packages.broker.tests.recordings import exchanges
from packages.broker.tests.world import STORE_HOST, World, bodies_of, properties_of, pull_fields, send_fields

LEVELS_S = (1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200)
V5 = 479


async def world_with_message(properties: str = "UNIQ_KEY\x01K\x02TAGS\x01TagA\x02") -> tuple[World, Record]:
    """A broker with a group G and one message of topic T."""
    world = World()
    world.create_topic()
    world.broker.groups.find_or_create("G")
    world.client().request(310, send_fields("T", 0, properties), b"body")
    return world, world.record("T")


def settings(world: World, **changes: object) -> None:
    group = world.broker.groups.get("G")
    assert group is not None
    world.broker.groups._put_all([msgspec.structs.replace(group, **changes)])


def send_back(
    world: World,
    record: Record,
    delay_level: int = 0,
    *,
    reconsume_times: int = 0,
    maximum: int | None = None,
    version: int = V5,
) -> str:
    """Send it back as if it had failed so often before; gives the name of the topic where it will be found."""
    service = world.broker.send_back
    request = ConsumerSendMsgBackRequestHeader(
        offset=record.physical_offset, group="G", delay_level=delay_level, max_reconsume_times=maximum
    )
    retry = service.check(request, version)
    assert retry is not None
    read = service.read(record.physical_offset)
    end_offset, topic = service.store(retry, msgspec.structs.replace(read, reconsume_times=reconsume_times))
    assert end_offset == world.store.written_offset
    return topic.name


@pytest.mark.parametrize("reconsume_times", range(16))
async def test_level_0_grows_with_each_failure(reconsume_times: int) -> None:
    """3 + reconsumeTimes, at most the last level: 10 s the first time, 2 h from the sixteenth on."""
    async with (await world_with_message())[0] as world:
        assert send_back(world, world.record("T"), reconsume_times=reconsume_times, maximum=99) == "%RETRY%G"
        queue_id = min(3 + reconsume_times, 18) - 1
        record = world.record("SCHEDULE_TOPIC_XXXX", queue_id)
        unit = world.store.queue_unit("SCHEDULE_TOPIC_XXXX", queue_id, 0)
        assert unit is not None
        assert unit[2] == world.clock.now_ms() + LEVELS_S[queue_id] * 1000
        properties = properties_of(record)
        assert (properties["REAL_TOPIC"], properties["REAL_QID"]) == ("%RETRY%G", "0")
        assert record.reconsume_times == reconsume_times + 1


@pytest.mark.parametrize(("level", "queue_id"), [(1, 0), (18, 17), (19, 17), (2**31 - 1, 17)])
async def test_the_consumer_may_choose_the_level(level: int, queue_id: int) -> None:
    """Those beyond the last are the last."""
    world, record = await world_with_message()
    async with world:
        send_back(world, record, level)
        assert len(world.records("SCHEDULE_TOPIC_XXXX", queue_id)) == 1


@pytest.mark.parametrize(
    ("reconsume_times", "maximum", "version", "is_dead"),
    [
        (15, None, V5, False),
        (16, None, V5, True),  # the group's own maximum, compared with >= (trap 22)
        (2, 3, V5, False),
        (3, 3, V5, True),
        (16, 99, V5, False),
        (0, 0, V5, True),
        (3, 3, 120, False),  # before version 121 the header's maximum does not count
        (16, 99, 120, True),
        (3, 3, 121, True),
    ],
)
async def test_after_the_last_failure_comes_the_dlq(
    reconsume_times: int, maximum: int | None, version: int, *, is_dead: bool
) -> None:
    """As many failures as the maximum are enough."""
    world, record = await world_with_message()
    async with world:
        topic = send_back(world, record, reconsume_times=reconsume_times, maximum=maximum, version=version)
        assert topic == ("%DLQ%G" if is_dead else "%RETRY%G")
        assert len(world.records("%DLQ%G")) == is_dead


async def test_a_dead_letter_says_where_it_came_from() -> None:
    """A negative level is the consumer's word that it is over; nothing is delayed, the DLQ has one queue."""
    world, record = await world_with_message()
    async with world:
        send_back(world, record, -1)
        dead = world.record("%DLQ%G")
        properties = properties_of(dead)
        message_id = (STORE_HOST + record.physical_offset.to_bytes(8, "big")).hex().upper()
        assert properties["DLQ_ORIGIN_TOPIC"] == properties["RETRY_TOPIC"] == "T"
        assert properties["DLQ_ORIGIN_MESSAGE_ID"] == properties["ORIGIN_MESSAGE_ID"] == message_id
        assert "DELAY" not in properties
        assert (dead.body, dead.reconsume_times) == (b"body", 1)
        unit = world.store.queue_unit("%DLQ%G", 0, 0)
        assert unit is not None
        assert unit[2] == 2598919, "the hash of TagA, as for any message"
        assert world.broker.topics.require("%DLQ%G").config.write_queue_nums == 1
        assert world.broker.dead_letters == {("G", "T"): 1}


async def test_a_message_keeps_its_origin_over_many_retries() -> None:
    """ORIGIN_MESSAGE_ID, RETRY_TOPIC and UNIQ_KEY stay those of the first send, until the DLQ."""
    world, record = await world_with_message()
    async with world:
        origin = (STORE_HOST + record.physical_offset.to_bytes(8, "big")).hex().upper()
        for failures in range(1, 4):
            send_back(world, record, 1, reconsume_times=record.reconsume_times, maximum=3)
            record = world.records("SCHEDULE_TOPIC_XXXX")[-1]
            properties = properties_of(record)
            assert (properties["ORIGIN_MESSAGE_ID"], properties["RETRY_TOPIC"]) == (origin, "T")
            assert (properties["UNIQ_KEY"], properties["TAGS"]) == ("K", "TagA")
            assert record.reconsume_times == failures
        assert send_back(world, record, 1, reconsume_times=record.reconsume_times, maximum=3) == "%DLQ%G"
        assert properties_of(world.record("%DLQ%G"))["DLQ_ORIGIN_MESSAGE_ID"] == origin


async def test_the_recorded_retry_has_our_properties() -> None:
    """The message that Apache 5.3.3 put into the retry topic, from the one that it had handed out before."""
    pulls = [decode_records(e.reply.body) for e in exchanges("send_back", 11) if e.reply.body]
    ((original,), (retried,)) = pulls
    (sent_back,) = exchanges("send_back", 36)
    async with World() as world:
        world.broker.topics.put(TopicConfig(topic_name="TapBack"))
        group = world.broker.groups.find_or_create("G_back")
        service = world.broker.send_back
        retry = service.check(ConsumerSendMsgBackRequestHeader.decode(sent_back.request.ext_fields), V5)
        assert retry is not None
        assert retry.topic.name == "%RETRY%" + group.group_name
        service.store(retry, original)
        ours = world.record("SCHEDULE_TOPIC_XXXX")
        expected = properties_of(retried)
        assert properties_of(ours) | {"ORIGIN_MESSAGE_ID": ""} == expected | {"ORIGIN_MESSAGE_ID": ""}
        assert (ours.body, ours.born_timestamp_ms, ours.born_host) == (
            retried.body,
            retried.born_timestamp_ms,
            retried.born_host,
        )
        assert ours.reconsume_times == retried.reconsume_times


async def test_a_value_with_a_separator_goes_through() -> None:
    """What a reader of properties takes must not keep a message from being retried."""
    world, record = await world_with_message("odd\x01a\x01b\x02")
    async with world:
        send_back(world, record, 1)
        assert properties_of(world.record("SCHEDULE_TOPIC_XXXX"))["odd"] == "a\x01b"


async def test_an_offset_without_message_is_an_error() -> None:
    """Behind the end, before the begin, in the middle of a record: code 1 in Apache's words."""
    world, record = await world_with_message()
    async with world:
        for offset in (-1, record.physical_offset + 1, world.store.written_offset, 2**62):
            with pytest.raises(RequestFailed, match=f"look message by offset failed, {offset}"):
                world.broker.send_back.read(offset)


async def test_a_damaged_message_is_an_error() -> None:
    """A copy of it would have a CRC that fits the damage."""
    world, record = await world_with_message()
    async with world:
        world.damage(record.physical_offset)
        with pytest.raises(RequestFailed, match=r"look message by offset failed, 0: .*CRC"):
            world.broker.send_back.read(record.physical_offset)


async def test_what_is_refused_before_the_message_is_read() -> None:
    """An unknown group (26), a retry topic that may not be written (16)."""
    async with World() as world:
        request = ConsumerSendMsgBackRequestHeader(offset=0, group="G", delay_level=0)
        with pytest.raises(SubscriptionGroupNotExist, match="subscription group not exist, G"):
            world.broker.send_back.check(request, V5)
        world.broker.groups.find_or_create("G")
        world.broker.topics.put(TopicConfig(topic_name="%RETRY%G", perm=4))
        with pytest.raises(NoPermission, match=r"the topic\[%RETRY%G\] sending message is forbidden"):
            world.broker.send_back.check(request, V5)


async def test_a_group_without_retry_queues_retries_nothing() -> None:
    """The consumer is told that all is well, and nothing is stored."""
    world, record = await world_with_message()
    async with world:
        settings(world, retry_queue_nums=0)
        before = world.store.written_offset
        fields = {"offset": str(record.physical_offset), "group": "G", "delayLevel": "0"}
        assert world.client().request(36, fields).code == 0
        assert world.store.written_offset == before


async def test_the_retry_topic_has_the_groups_queues() -> None:
    """retryQueueNums."""
    world, record = await world_with_message()
    async with world:
        settings(world, retry_queue_nums=3)
        send_back(world, record)
        config = world.broker.topics.require("%RETRY%G").config
        assert (config.read_queue_nums, config.write_queue_nums, config.perm) == (3, 3, 6)


async def test_a_message_of_the_past_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes when it is read; whatever that meets becomes one answer too."""
    world, record = await world_with_message()
    async with world:
        world.broker.topics.create_for_group("%RETRY%G", 1)
        world.mark_saved()
        client = world.client()
        fields = {"offset": str(record.physical_offset), "group": "G", "delayLevel": "1"}
        opaque = client.send(36, fields)
        assert not client.has_reply(opaque)
        assert (await client.later(opaque)).code == 0
        missing = await client.later(client.send(36, {**fields, "offset": "99999"}))
        assert (missing.code, missing.remark) == (1, "look message by offset failed, 99999")

        def bug(physical_offset: int) -> Record:
            raise ZeroDivisionError

        monkeypatch.setattr(world.broker.send_back, "read", bug)
        assert (await client.later(client.send(36, fields))).code == 1
        assert bodies_of(client.request(11, pull_fields())) == [b"body"]


async def test_failures_are_spread_over_the_groups_retry_queues() -> None:
    """retryQueueNums of them, by chance: with 200 failures each of 4 queues gets some."""
    world, record = await world_with_message()
    async with world:
        settings(world, retry_queue_nums=4)
        for _ in range(200):
            send_back(world, record)
        queues = [properties_of(each)["REAL_QID"] for each in world.records("SCHEDULE_TOPIC_XXXX", 2)]
        assert set(queues) == {"0", "1", "2", "3"}


async def test_no_failure_goes_to_a_queue_that_nobody_reads() -> None:
    """The retry topic was made when the group had one retry queue: more in its settings change nothing."""
    world, record = await world_with_message()
    async with world:
        send_back(world, record)
        settings(world, retry_queue_nums=16)
        for _ in range(20):
            send_back(world, record)
        queues = [properties_of(each)["REAL_QID"] for each in world.records("SCHEDULE_TOPIC_XXXX", 2)]
        assert set(queues) == {"0"}


async def test_a_broker_without_write_permission_takes_nothing_back() -> None:
    """As it takes no sends (16); the consumer turns to its fallback."""
    world, record = await world_with_message()
    async with world:
        world.broker.send_back.permission = 4
        with pytest.raises(NoPermission, match=r"the broker\[broker-a\] sending message is forbidden"):
            send_back(world, record)
