"""Pulls: what is refused and in which order, what comes back, and under which code."""

import itertools
import json
from collections.abc import Iterable

import msgspec
import pytest
from apogeemq.broker.config import IdentityConfig, LimitsConfig, StoreSettings, TopicsConfig
from apogeemq.broker.errors import (
    BrokerError,
    InvalidParameter,
    NoPermission,
    RequestFailed,
    SubscriptionGroupNotExist,
    SubscriptionNotExist,
    SubscriptionNotLatest,
    SubscriptionParseFailed,
    TopicNotExist,
)
from apogeemq.broker.filter.message_filter import EVERYTHING
from apogeemq.broker.service.fetch import FetchService, Pull, Pulled
from apogeemq.remoting_codec.bodies import HeartbeatData, MessageModel, TopicConfig
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.headers.pull import PullMessageRequestHeader
from apogeemq.remoting_codec.record import decode_records
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import ReadResult, ReadStatus

from packages.broker.tests.recordings import exchanges
from packages.broker.tests.world import Client, World, consumer_beat, fields_of, send_fields

COMMIT, SUSPEND, SUBSCRIPTION = 1, 2, 4
CLIENT = "10.0.0.9:40001"


def request(topic: str = "T", queue_id: int = 0, offset: int = 0, **more: object) -> PullMessageRequestHeader:
    fields: dict[str, object] = {
        "consumer_group": "G",
        "topic": topic,
        "queue_id": queue_id,
        "queue_offset": offset,
        "max_msg_nums": 32,
        "sys_flag": SUBSCRIPTION,
        "commit_offset": 0,
        "suspend_timeout_millis": 0,
        "sub_version": 0,
        "subscription": "*",
        **more,
    }
    return PullMessageRequestHeader(**fields)  # type: ignore[arg-type]  # fields of several types


def pull(world: World, *arguments: object, **more: object) -> Pulled:
    header = request(*arguments, **more)  # type: ignore[arg-type]  # as above
    return world.broker.fetch.read(world.broker.fetch.check(header, CLIENT))


def fill(
    world: World, count: int, *, topic: str = "T", queue_id: int = 0, body: bytes = b"body", tag: str = ""
) -> None:
    properties = f"TAGS\x01{tag}\x02" if tag else ""
    client = world.client()
    for _ in range(count):
        assert client.request(310, send_fields("T", 0, properties), body).code == 0


def offsets_of(pulled: Pulled) -> list[int]:
    return [record.queue_offset for record in decode_records(b"".join(pulled.buffers))]


def join(world: World, beat: HeartbeatData) -> Client:
    client = world.client()
    assert client.heartbeat(beat).code == 0
    return client


async def world_with(count: int = 0, **more: object) -> World:
    world = World(**more)  # type: ignore[arg-type]  # as World has them
    world.create_topic()
    fill(world, count)
    return world


# -- checks ------------------------------------------------------------------------------------------------------------


REFUSALS: list[tuple[type[BrokerError], str, dict[str, object]]] = [
    (InvalidParameter, "the specified group is blank", {"consumer_group": ""}),
    (NoPermission, "subscription group no permission, Forbidden", {"consumer_group": "Forbidden"}),
    (TopicNotExist, r"topic\[Missing\] not exist, apply first please! \nSee https", {"topic": "Missing"}),
    (NoPermission, r"the topic\[WriteOnly\] pulling message is forbidden", {"topic": "WriteOnly"}),
    (
        InvalidParameter,
        r"queueId\[4\] is illegal, topic:\[T\] topicConfig.readQueueNums:\[4\] consumer:\[/10.0.0.9:40001\]",
        {"queue_id": 4},
    ),
    (InvalidParameter, r"queueId\[-1\] is illegal", {"queue_id": -1}),
    (InvalidParameter, r"maxMsgNums\[0\] is illegal", {"max_msg_nums": 0}),
    (RequestFailed, "does not support consumer to filter message by XPATH", {"expression_type": "XPATH"}),
    (SubscriptionParseFailed, "names no tag", {"subscription": "||"}),
    (SubscriptionNotExist, "the consumer's group info not exist, group: G", {"sys_flag": 0}),
]


async def world_for_refusals() -> World:
    world = await world_with()
    world.broker.topics.put(TopicConfig(topic_name="WriteOnly", perm=2))
    group = world.broker.groups.find_or_create("Forbidden")
    world.broker.groups._put_all([msgspec.structs.replace(group, consume_enable=False)])
    return world


@pytest.mark.parametrize("index", range(len(REFUSALS)))
async def test_each_fault_has_its_code_and_remark(index: int) -> None:
    """Apache's, where it has them."""
    kind, remark, fault = REFUSALS[index]
    async with await world_for_refusals() as world:
        with pytest.raises(kind, match=remark):
            world.broker.fetch.check(request(**fault), CLIENT)  # type: ignore[arg-type]  # fields of several types


ORDERED = [1, 2, 4, 9]
"""Of the refusals above: one of each check that can stand beside another."""


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(ORDERED, 2)))
async def test_the_first_fault_decides(first: int, second: int) -> None:
    """With two faults the one that Apache looks at first is told (reference broker_behaviour.md §5)."""
    kind, remark, fault = REFUSALS[first]
    async with await world_for_refusals() as world:
        with pytest.raises(kind, match=remark):
            world.broker.fetch.check(
                request(**{**REFUSALS[second][2], **fault}),  # type: ignore[arg-type]  # fields of several types
                CLIENT,
            )


async def test_a_broker_without_read_permission_hands_nothing_out() -> None:
    """Said before the group is even looked at."""
    async with World(identity=IdentityConfig(broker_name="broker-a", broker_permission=2)) as world:
        with pytest.raises(NoPermission, match=r"the broker\[broker-a\] pulling message is forbidden"):
            world.broker.fetch.check(request(consumer_group=""), CLIENT)


async def test_a_pull_makes_its_group_where_that_is_allowed() -> None:
    """autoCreateSubscriptionGroup; else 26."""
    async with await world_with() as world:
        world.broker.fetch.check(request(), CLIENT)
        assert world.broker.groups.get("G") is not None
    async with World(topics=TopicsConfig(auto_create_subscription_group=False)) as world:
        with pytest.raises(SubscriptionGroupNotExist):
            world.broker.fetch.check(request(), CLIENT)


async def test_the_recorded_refusals_are_answered_as_recorded() -> None:
    """An illegal queue and a missing topic: code and remark of Apache 5.3.3, byte for byte."""
    async with World() as world:
        world.broker.topics.put(TopicConfig(topic_name="TapNormal", read_queue_nums=2, write_queue_nums=2))
        refused = [e for e in exchanges("pull", 11) if e.reply.code in (17, 29)]
        assert len(refused) == 2
        client = world.client(55_972)
        for exchange in refused:
            reply = client.request(11, exchange.request.ext_fields)
            remark = (exchange.reply.remark or "").replace("127.0.0.1:", "10.0.0.9:")
            assert (reply.code, reply.remark) == (exchange.reply.code, remark)


# -- subscriptions -----------------------------------------------------------------------------------------------------


async def test_without_its_own_a_pull_has_its_groups_subscription() -> None:
    """The tags that the group told in its heartbeat."""
    async with await world_with() as world:
        fill(world, 2, tag="TagA")
        fill(world, 2, tag="TagB")
        join(world, consumer_beat(expression="TagB"))
        assert offsets_of(pull(world, sys_flag=0)) == [2, 3]
        assert offsets_of(pull(world, sys_flag=SUBSCRIPTION, subscription="TagA")) == [0, 1]


async def test_a_subscription_must_be_told_before() -> None:
    """No live group, a group that does not subscribe to the topic: 24."""
    async with await world_with() as world:
        world.create_topic("U")
        client = join(world, consumer_beat())
        with pytest.raises(SubscriptionNotExist, match="the consumer's subscription not exist, group: G, topic: U"):
            world.broker.fetch.check(request("U", sys_flag=0), CLIENT)
        client.close()
        with pytest.raises(SubscriptionNotExist, match="the consumer's group info not exist, group: G"):
            world.broker.fetch.check(request(sys_flag=0), CLIENT)


@pytest.mark.parametrize(("told", "pulled", "is_known"), [(5, 5, True), (5, 4, True), (5, 6, False)])
async def test_a_newer_subscription_than_the_told_one_is_refused(told: int, pulled: int, *, is_known: bool) -> None:
    """25 until the next heartbeat, as recorded from Apache; older pulls go on."""
    async with await world_with() as world:
        join(world, consumer_beat(version=told))
        if is_known:
            world.broker.fetch.check(request(sys_flag=0, sub_version=pulled), CLIENT)
        else:
            with pytest.raises(SubscriptionNotLatest, match="the consumer's subscription not latest"):
                world.broker.fetch.check(request(sys_flag=0, sub_version=pulled), CLIENT)


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_broadcasting_is_the_groups_to_allow(*, is_allowed: bool) -> None:
    """consumeBroadcastEnable."""
    async with await world_with() as world:
        group = world.broker.groups.find_or_create("G")
        world.broker.groups._put_all([msgspec.structs.replace(group, consume_broadcast_enable=is_allowed)])
        join(world, consumer_beat(model=MessageModel.BROADCASTING))
        if is_allowed:
            world.broker.fetch.check(request(sys_flag=0), CLIENT)
        else:
            with pytest.raises(NoPermission, match=r"group\[G\] can not consume by broadcast way"):
                world.broker.fetch.check(request(sys_flag=0), CLIENT)


async def test_sql_that_is_switched_off_is_refused() -> None:
    """In the words of an Apache broker with enablePropertyFilter off, wherever the expression comes from."""
    async with await world_with(topics=TopicsConfig(property_filter_enable=False)) as world:
        with pytest.raises(RequestFailed, match="filter message by SQL92: enablePropertyFilter is off"):
            world.broker.fetch.check(request(subscription="a > 1", expression_type="SQL92"), CLIENT)
        join(world, consumer_beat(expression="a > 1", expression_type="SQL92"))
        with pytest.raises(RequestFailed, match="filter message by SQL92"):
            world.broker.fetch.check(request(sys_flag=0), CLIENT)


# -- filters by SQL92 --------------------------------------------------------------------------------------------------


def fill_numbered(world: World, values: Iterable[object], body: bytes = b"body") -> None:
    """Messages with a property n."""
    client = world.client()
    for value in values:
        assert client.request(310, send_fields("T", 0, f"n\x01{value}\x02"), body).code == 0


def sql(expression: str, **more: object) -> dict[str, object]:
    return {"subscription": expression, "expression_type": "SQL92", **more}


async def test_sql_hands_out_what_matches() -> None:
    """Whole records, in order; the next pull begins behind the last message that was looked at."""
    async with await world_with() as world:
        fill_numbered(world, range(10))
        pulled = pull(world, **sql("n BETWEEN 3 AND 5 OR n = 8"))
        assert (pulled.code, pulled.next_offset, pulled.count) == (ResponseCode.SUCCESS, 10, 4)
        assert offsets_of(pulled) == [3, 4, 5, 8]
        assert pulled.size_bytes == sum(len(buffer) for buffer in pulled.buffers)


async def test_sql_of_a_heartbeat_counts_where_the_pull_has_none() -> None:
    """Java's push consumers tell their expression once."""
    async with await world_with() as world:
        fill_numbered(world, range(4))
        join(world, consumer_beat(expression="n > 2", expression_type="SQL92"))
        assert offsets_of(pull(world, sys_flag=0, subscription=None)) == [3]


async def test_sql_stops_at_the_counts_of_a_pull() -> None:
    """The message that did not fit any more is the first of the next pull."""
    async with await world_with() as world:
        fill_numbered(world, [1, 0, 1, 1, 0, 1])
        first = pull(world, **sql("n = 1", max_msg_nums=2))
        assert (offsets_of(first), first.next_offset) == ([0, 2], 3)
        second = pull(world, offset=3, **sql("n = 1", max_msg_nums=2))
        assert (offsets_of(second), second.next_offset) == ([3, 5], 6)
        small = pull(world, **sql("n = 1", max_msg_bytes=1))
        assert (offsets_of(small), small.next_offset) == ([0], 2)


async def test_sql_without_a_match_goes_on_behind_what_it_looked_at() -> None:
    """At most 800 messages, however many there are; the client asks again at once (PULL_RETRY_IMMEDIATELY)."""
    async with await world_with() as world:
        fill_numbered(world, [0] * 1_000)
        at, answers = 0, []
        while at < 1_000:
            pulled = pull(world, offset=at, **sql("n = 1"))
            answers.append((pulled.code, pulled.remark, pulled.next_offset, pulled.count))
            at = pulled.next_offset
        retry = ResponseCode.PULL_RETRY_IMMEDIATELY
        assert answers == [(retry, "NO_MATCHED_MESSAGE", 800, 0), (retry, "NO_MATCHED_MESSAGE", 1_000, 0)]
        end = pull(world, offset=1_000, **sql("n = 1"))
        assert (end.code, end.next_offset) == (ResponseCode.PULL_NOT_FOUND, 1_000)


async def test_sql_reads_on_over_large_messages() -> None:
    """Matches beyond the first bytes that are read together are found in the same pull."""
    async with await world_with() as world:
        fill_numbered(world, [0, 0, 0, 0, 0, 0, 1], body=bytes(100_000))
        pulled = pull(world, **sql("n = 1"))
        assert (offsets_of(pulled), pulled.next_offset) == ([6], 7)


async def test_sql_takes_cold_messages_in_a_thread() -> None:
    """What would wait for the disk is cold, with a filter too, and is found once it may wait."""
    async with await world_with(store=StoreSettings(hot_window_bytes=1)) as world:
        fill_numbered(world, range(3))
        world.disk.cached = False
        checked = world.broker.fetch.check(request(subscription="n = 2", expression_type="SQL92"), CLIENT)
        assert world.broker.fetch.read(checked).is_cold
        assert offsets_of(world.broker.fetch.read(checked, cold_allowed=True)) == [2]


@pytest.mark.parametrize(
    ("subscription", "code", "remark"),
    [
        ({"expressionType": "SQL92", "subString": "a > 1"}, 0, None),
        ({"expressionType": "TAG", "subString": "a || b"}, 0, None),
        ({"expressionType": "SQL92", "subString": "a ==== 3"}, 23, "line 1, column 4"),
        ({"expressionType": "SQL92", "subString": ""}, 23, "line 1, column 1"),
        ({"expressionType": "XPATH", "subString": "/a"}, 1, "filter message by XPATH"),
    ],
)
async def test_client_asks_before_it_starts(subscription: dict[str, str], code: int, remark: str | None) -> None:
    """CHECK_CLIENT_CONFIG: as recorded from Apache, but for the words that say what is wrong."""
    async with await world_with() as world:
        body = {"clientId": "c", "group": "G", "subscriptionData": {"topic": "T", **subscription}}
        reply = world.client().request(46, {}, json.dumps(body).encode())
        assert reply.code == code
        assert (remark is None) == (reply.remark is None)
        assert remark is None or remark in (reply.remark or "")


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "offset", "code", "remark", "next_offset"),
    [
        (3, 0, ResponseCode.SUCCESS, "FOUND", 3),
        (3, 2, ResponseCode.SUCCESS, "FOUND", 3),
        (3, 3, ResponseCode.PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE", 3),
        (3, 4, ResponseCode.PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY", 3),
        (3, 2**62, ResponseCode.PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY", 3),
        (3, -1, ResponseCode.PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL", 0),
        (0, 0, ResponseCode.PULL_NOT_FOUND, "NO_MATCHED_LOGIC_QUEUE", 0),
        (0, 1, ResponseCode.PULL_OFFSET_MOVED, "NO_MATCHED_LOGIC_QUEUE", 0),
    ],
)
async def test_where_a_pull_may_begin(
    count: int, offset: int, code: ResponseCode, remark: str, next_offset: int
) -> None:
    """The table of results (reference broker_behaviour.md §5, trap 16), tried on a real queue."""
    async with await world_with(count) as world:
        pulled = pull(world, offset=offset)
        assert (pulled.code, pulled.remark, pulled.next_offset) == (code, remark, next_offset)
        assert (pulled.min_offset, pulled.max_offset) == (0, count)
        assert offsets_of(pulled) == list(range(offset, count) if code is ResponseCode.SUCCESS else [])


RESULTS = [
    (ReadStatus.FOUND, 7, 0),
    (ReadStatus.NO_MATCHED_MESSAGE, 7, 20),
    (ReadStatus.MESSAGE_WAS_REMOVING, 7, 20),
    (ReadStatus.NO_MESSAGE_IN_QUEUE, 0, 19),
    (ReadStatus.NO_MESSAGE_IN_QUEUE, 7, 21),
    (ReadStatus.NO_MATCHED_LOGIC_QUEUE, 0, 19),
    (ReadStatus.NO_MATCHED_LOGIC_QUEUE, 7, 21),
    (ReadStatus.OFFSET_OVERFLOW_ONE, 7, 19),
    (ReadStatus.OFFSET_FOUND_NULL, 7, 19),
    (ReadStatus.OFFSET_TOO_SMALL, 7, 21),
    (ReadStatus.OFFSET_OVERFLOW_BADLY, 7, 21),
]


@pytest.mark.parametrize(("status", "offset", "code"), RESULTS)
async def test_every_result_of_a_read_has_apaches_code(status: ReadStatus, offset: int, code: int) -> None:
    """The whole table, the states that are hard to bring about too."""
    async with await world_with() as world:
        checked = Pull(world.broker.topics.require("T"), "G", 0, offset, 32, 1 << 18, EVERYTHING)
        pulled = FetchService._pulled(checked, ReadResult(status, 5, 2, 9, []))
        assert pulled.code == code
        assert (pulled.remark, pulled.next_offset, pulled.min_offset, pulled.max_offset) == (status.name, 5, 2, 9)
        assert not pulled.is_cold


def test_no_state_of_the_store_is_missing_in_the_table() -> None:
    """A new ReadStatus would have to be given a code."""
    assert {status for status, _, _ in RESULTS} | {ReadStatus.COLD} == set(ReadStatus)


async def test_the_recorded_pulls_are_answered_as_recorded() -> None:
    """Apache's queue filled with Apache's messages: all codes, remarks, offsets and bodies of 5.3.3 come out again."""
    recorded = [e for e in exchanges("pull", 11) if e.reply.code in (0, 19, 20, 21)]
    whole = [decode_records(e.reply.body) for e in recorded[:2]]
    async with World() as world:
        world.broker.topics.put(TopicConfig(topic_name="TapNormal", read_queue_nums=2, write_queue_nums=2))
        world.mark_saved()
        client = world.client()
        for record in itertools.chain(*whole):
            properties = record.properties.decode()
            fields = send_fields("TapNormal", record.queue_id, properties, f=str(record.sys_flag))
            assert client.request(310, fields, record.body).code == 0
        # The ninth message came while the first client was gone; it has no tag.
        assert client.request(310, send_fields("TapNormal"), b"ninth").code == 0
        beat = consumer_beat("c", "G_pull", "TapNormal", version=2**62)
        join(world, beat)
        for exchange in recorded[2:]:
            fields = dict(fields_of(exchange.request)) | {
                "sysFlag": str(int(fields_of(exchange.request)["sysFlag"]) & 4)
            }
            reply = client.request(11, fields)
            assert (reply.code, reply.remark) == (exchange.reply.code, exchange.reply.remark)
            assert fields_of(reply) == fields_of(exchange.reply)
            assert [record.body for record in decode_records(reply.body)] == [
                record.body for record in decode_records(exchange.reply.body)
            ]


async def test_messages_come_up_to_the_count_asked_for() -> None:
    """And never more than maxTransferCountOnMessageInMemory, whatever is asked for."""
    async with await world_with(40) as world:
        assert offsets_of(pull(world, max_msg_nums=5)) == [0, 1, 2, 3, 4]
        assert len(offsets_of(pull(world, max_msg_nums=2**31 - 1))) == 32
    async with await world_with(9, limits=LimitsConfig(pull_messages_max=7)) as world:
        assert len(offsets_of(pull(world))) == 7


async def test_messages_come_up_to_the_bytes_allowed() -> None:
    """The broker's bound or the client's, whichever is lower; the first message always, however large."""
    async with World(limits=LimitsConfig(pull_size_bytes_max=10_000)) as world:
        world.create_topic()
        fill(world, 5, body=bytes(3_000))
        assert offsets_of(pull(world)) == [0, 1, 2]
        assert offsets_of(pull(world, max_msg_bytes=7_000)) == [0, 1]
        assert offsets_of(pull(world, max_msg_bytes=1)) == [0]
        assert offsets_of(pull(world, max_msg_bytes=0)) == [0, 1, 2]
        assert offsets_of(pull(world, max_msg_bytes=2**31 - 1)) == [0, 1, 2]
        fill(world, 1, body=bytes(20_000))
        assert offsets_of(pull(world, offset=5)) == [5]


async def test_tags_are_compared_by_hash() -> None:
    """`Aa` and `BB` are one to Java's hashCode: the client tells them apart (trap 13)."""
    async with await world_with() as world:
        for tag in ("Aa", "other", "BB", ""):
            fill(world, 1, tag=tag)
        pulled = pull(world, subscription="Aa")
        assert offsets_of(pulled) == [0, 2]
        assert pulled.next_offset == 4
        nothing = pull(world, offset=3, subscription="Aa")
        assert (nothing.code, nothing.next_offset) == (ResponseCode.PULL_RETRY_IMMEDIATELY, 4)


async def test_what_is_handed_out_is_counted() -> None:
    """Messages and bytes of records, by topic."""
    async with await world_with(3) as world:
        pulled = pull(world)
        topic = world.broker.topics.require("T")
        assert (topic.messages_out, topic.bytes_out) == (0, 0)
        checked = world.broker.fetch.check(request(), CLIENT)
        world.broker.fetch.count_handed_out(checked, pulled)
        assert (topic.messages_out, topic.bytes_out) == (3, world.store.written_offset)


async def test_messages_of_the_past_are_read_only_where_waiting_is_no_harm() -> None:
    """Outside the hot window, and not in the page cache: nothing is read until the caller says it may wait."""
    disk = MemoryDisk()
    world = await world_with(2, disk=disk, store=StoreSettings(hot_window_bytes=1))
    async with world:
        disk.cached = False
        checked = world.broker.fetch.check(request(), CLIENT)
        assert world.broker.fetch.read(checked).is_cold
        assert offsets_of(world.broker.fetch.read(checked, cold_allowed=True)) == [0, 1]


# -- commits on pulls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sys_flag", "offset", "committed"),
    [(COMMIT, 7, 7), (COMMIT | SUSPEND, 7, 7), (SUSPEND, 7, None), (0, 7, None), (COMMIT, -1, None), (COMMIT, 0, 0)],
)
async def test_a_pull_commits_only_when_it_says_so(sys_flag: int, offset: int, committed: int | None) -> None:
    """Bit 1; Java's -1 means that it has nothing to commit."""
    async with await world_with() as world:
        world.broker.fetch.commit_offset(request(sys_flag=sys_flag, commit_offset=offset))
        assert world.broker.offsets.query("T", "G", 0) == committed
