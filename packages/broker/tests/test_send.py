"""Sends: what is refused and in which order, what is stored and how."""

import itertools

import msgspec
import pytest
from apogeemq.broker.config import IdentityConfig, LimitsConfig, StoreSettings, TopicsConfig
from apogeemq.broker.errors import (
    BrokerError,
    InvalidParameter,
    MessageIllegal,
    NoPermission,
    SubscriptionGroupNotExist,
    SystemBusy,
    TopicNotExist,
)
from apogeemq.broker.service.send import Sent
from apogeemq.remoting_codec.batch import BatchMessage, encode_batch
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.headers.send import SendMessageRequestHeaderV2
from apogeemq.remoting_codec.message import PROPERTIES_SIZE_BYTES_MAX, decode_properties, tags_code
from apogeemq.remoting_codec.message_id import decode_unique_key
from apogeemq.store.errors import DiskFull
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.recordings import exchanges
from packages.broker.tests.world import STORE_HOST, World, fields_of, long_names, properties_of, send_fields

BORN_HOST = b"\x0a\x00\x00\x09\x00\x00\x9c\x41"
LEVEL_3_MS = 10_000
V4_9 = 400
"""A client that knows maxReconsumeTimes; those below 121 do not."""


def header(topic: str = "T", queue_id: int = 0, properties: str | None = None, **more: object) -> object:
    fields: dict[str, object] = {
        "producer_group": "P",
        "topic": topic,
        "default_topic": "TBW102",
        "default_topic_queue_nums": 4,
        "queue_id": queue_id,
        "sys_flag": 0,
        "born_timestamp": 1_795_356_276_399,
        "flag": 0,
        "properties": properties,
        **more,
    }
    return SendMessageRequestHeaderV2(**fields)  # type: ignore[arg-type]  # fields of several types


def send(
    world: World,
    topic: str = "T",
    queue_id: int = 0,
    properties: str | None = None,
    *,
    body: bytes = b"body",
    version: int = V4_9,
    **more: object,
) -> Sent:
    request = header(topic, queue_id, properties, **more)
    assert isinstance(request, SendMessageRequestHeaderV2)
    return world.broker.send.send(request, body, BORN_HOST, version)


def text(**properties: str) -> str:
    return "".join(f"{key}\x01{value}\x02" for key, value in properties.items())


# -- what an ordinary message becomes ----------------------------------------------------------------------------------


async def test_a_message_is_stored_as_it_came() -> None:
    """Body, flags, times, hosts and properties; the answer names its place and its key."""
    async with World() as world:
        world.create_topic()
        sent = send(world, properties=text(TAGS="TagA", UNIQ_KEY="K", colour="blå"), flag=-7, reconsume_times=2)
        record = world.record("T")
        assert (record.body, record.flag, record.sys_flag, record.reconsume_times) == (b"body", -7, 0, 2)
        assert (record.born_timestamp_ms, record.born_host) == (1_795_356_276_399, BORN_HOST)
        assert (record.store_timestamp_ms, record.store_host) == (world.clock.now_ms(), STORE_HOST)
        assert properties_of(record) == {
            "TAGS": "TagA",
            "UNIQ_KEY": "K",
            "colour": "blå",
            "MSG_REGION": "DefaultRegion",
            "TRACE_ON": "true",
            "CLUSTER": "DefaultCluster",
        }
        unit = world.store.queue_unit("T", 0, 0)
        assert unit is not None
        assert unit[2] == tags_code("TagA")
        assert (sent.queue_id, sent.queue_offset, sent.unique_key, sent.wait) == (0, 0, "K", True)
        assert sent.message_id == (STORE_HOST + record.physical_offset.to_bytes(8, "big")).hex().upper()
        assert sent.end_offset == world.store.written_offset
        assert sent.topic is world.broker.topics.get("T")


async def test_long_and_short_names_store_the_same() -> None:
    """SEND_MESSAGE and SEND_MESSAGE_V2: equal records but for their places, and answers with the same fields."""
    async with World() as world:
        world.create_topic()
        client = world.client()
        short = send_fields(properties=text(TAGS="TagA", UNIQ_KEY="K"), h="7", j="2")
        answers = [client.request(310, short, b"x"), client.request(10, long_names(short), b"x")]
        assert [answer.code for answer in answers] == [0, 0]
        assert [fields_of(answer)["queueOffset"] for answer in answers] == ["0", "1"]
        assert fields_of(answers[0]).keys() == fields_of(answers[1]).keys()
        first, second = world.records("T")
        places = {"queue_offset": second.queue_offset, "physical_offset": second.physical_offset}
        assert msgspec.structs.replace(first, **places) == second


async def test_the_recorded_sends_are_answered_as_recorded() -> None:
    """The fields of the answers of Apache 5.3.3; only offsets differ, since the log does."""
    async with World() as world:
        world.broker.topics.put(TopicConfig(topic_name="TapNormal", read_queue_nums=2, write_queue_nums=2))
        world.mark_saved()
        client = world.client()
        ordinary = [
            exchange
            for exchange in (*exchanges("send_v2", 310), *exchanges("send_batch", 320))
            if exchange.reply.code == 0 and "TIMER" not in fields_of(exchange.request)["i"]
        ]
        assert len(ordinary) == 4
        for exchange in ordinary:
            reply = client.request(exchange.request.code, exchange.request.ext_fields, exchange.request.body)
            ours, theirs = fields_of(reply), fields_of(exchange.reply)
            assert set(ours) == set(theirs)
            for key in ("queueId", "transactionId", "TRACE_ON", "MSG_REGION"):
                assert ours[key] == theirs[key]
            assert list(map(len, ours["msgId"].split(","))) == list(map(len, theirs["msgId"].split(",")))
        assert [record.body for record in world.records("TapNormal")][:1] == [ordinary[0].request.body]


async def test_a_4_9_client_leaves_the_last_separator_out() -> None:
    """What the broker adds stays apart from the client's last property (trap 9)."""
    async with World() as world:
        world.create_topic()
        send(world, properties="UNIQ_KEY\x01K\x02TAGS\x01TagA")
        assert properties_of(world.record("T"))["TAGS"] == "TagA"


async def test_a_message_without_key_gets_one() -> None:
    """In the store as in the answer, readable as every key is."""
    async with World() as world:
        world.create_topic()
        sent = send(world)
        assert properties_of(world.record("T"))["UNIQ_KEY"] == sent.unique_key
        assert decode_unique_key(sent.unique_key).address == STORE_HOST[:4]


async def test_a_receipt_handle_is_not_stored() -> None:
    """POP_CK of a delivery is taken out when the message is sent on."""
    async with World() as world:
        world.create_topic()
        send(world, properties=text(POP_CK="0 1 2 3", KEYS="k"))
        properties = properties_of(world.record("T"))
        assert "POP_CK" not in properties
        assert properties["KEYS"] == "k"


@pytest.mark.parametrize(("properties", "wait"), [("", True), (text(WAIT="true"), True), (text(WAIT="false"), False)])
async def test_a_sender_may_wish_not_to_wait(properties: str, wait: bool) -> None:
    """WAIT=false: the acknowledgement does not wait for the disk."""
    async with World() as world:
        world.create_topic()
        assert send(world, properties=properties).wait is wait


async def test_without_a_queue_the_broker_chooses_one() -> None:
    """Any of those that may be written; the answer names it."""
    async with World() as world:
        world.broker.topics.put(TopicConfig(topic_name="T", read_queue_nums=8, write_queue_nums=3))
        chosen = [send(world, queue_id=-1).queue_id for _ in range(60)]
        assert set(chosen) == {0, 1, 2}
        assert [len(world.records("T", queue)) for queue in range(3)] == [chosen.count(queue) for queue in range(3)]


async def test_the_bits_of_the_broker_are_not_the_clients() -> None:
    """An inner batch or a message to be unwrapped is made by brokers; recovery builds no queue for such records.

    Kept, they would leave a gap in the queue after a crash, or have the start refused.
    """
    disk = MemoryDisk()
    world = World(disk)
    world.create_topic()
    compressed = MessageSysFlag.COMPRESSED_FLAG | MessageSysFlag.COMPRESSION_ZSTD_TYPE
    send(world, sys_flag=compressed | MessageSysFlag.INNER_BATCH_FLAG | MessageSysFlag.NEED_UNWRAP_FLAG)
    batch = encode_batch([BatchMessage(0, b"in a batch", b"")])
    send(world, body=batch, batch=True, sys_flag=MessageSysFlag.INNER_BATCH_FLAG)
    send(world)
    assert [record.sys_flag for record in world.records("T")] == [compressed, 0, 0]
    await world.kill()
    async with World(disk) as again:
        assert again.store.max_offset("T", 0) == 3


# -- what is refused, in which order -----------------------------------------------------------------------------------


REFUSALS: list[tuple[type[BrokerError], str, dict[str, object]]] = [
    (TopicNotExist, r"topic\[Missing\] not exist, apply first please!", {"topic": "Missing", "default_topic": "None"}),
    (InvalidParameter, "contains illegal characters", {"topic": "a b"}),
    (InvalidParameter, "the specified topic is blank", {"topic": ""}),
    (InvalidParameter, "longer than topic max length 127", {"topic": "x" * 128}),
    (NoPermission, r"Sending message to topic\[SCHEDULE_TOPIC_XXXX\] is forbidden", {"topic": "SCHEDULE_TOPIC_XXXX"}),
    (NoPermission, r"the topic\[ReadOnly\] sending message is forbidden", {"topic": "ReadOnly"}),
    (InvalidParameter, r"request queueId\[4\] is illegal, TopicConfig \[topicName=T, ", {"queue_id": 4}),
    (MessageIllegal, "the message body is empty", {"body": b""}),
    (MessageIllegal, r"body is 1001 bytes, this broker's limit \(maxMessageSize\) is 1000", {"body": bytes(1001)}),
    (MessageIllegal, "bit of a half message .* no property TRAN_MSG=true", {"sys_flag": 4}),
    (MessageIllegal, "property PGROUP is missing", {"sys_flag": 4, "properties": text(TRAN_MSG="true")}),
    (
        MessageIllegal,
        "a transactional message has no delay",
        {"properties": text(TRAN_MSG="true", PGROUP="P", DELAY="1")},
    ),
    (MessageIllegal, "property DELAY must be a whole number", {"properties": text(DELAY="soon")}),
    (MessageIllegal, "timers wait for at most 259200000 ms", {"properties": text(TIMER_DELAY_SEC="259201")}),
    (MessageIllegal, "with what the broker adds, the limit is 32767", {"properties": text(long="x" * 32_700)}),
    (MessageIllegal, "are 1000008 characters, the limit is 32767", {"properties": text(long="x" * 1_000_002)}),
]


@pytest.mark.parametrize("index", range(len(REFUSALS)))
async def test_each_fault_has_its_code_and_remark(index: int) -> None:
    """Apache's, where it has them; nothing is stored."""
    kind, remark, fault = REFUSALS[index]
    async with World(store=StoreSettings(max_message_size_bytes=1000)) as world:
        world.create_topic()
        world.broker.topics.put(TopicConfig(topic_name="ReadOnly", perm=4))
        with pytest.raises(kind, match=remark):
            send(world, **fault)  # type: ignore[arg-type]  # fields of several types
        assert world.store.written_offset == 0


# One fault of each check, in the order in which they are asked. A later fault must never hide an earlier one.
ORDERED: list[tuple[type[BrokerError], str, dict[str, object]]] = [
    (NoPermission, "ReadOnly", {"topic": "ReadOnly"}),
    (InvalidParameter, "queueId", {"queue_id": 99}),
    (MessageIllegal, "body is 1001", {"body": bytes(1001)}),
    (MessageIllegal, "system flag", {"sys_flag": 4}),
    (MessageIllegal, "the limit is 32767", {"properties": text(long="x" * 32_700)}),
]


@pytest.mark.parametrize("pair", list(itertools.combinations(range(len(ORDERED)), 2)))
async def test_the_first_fault_decides(pair: tuple[int, int]) -> None:
    """With two faults the one that Apache looks at first is told."""
    (kind, remark, first), (_, _, second) = (ORDERED[index] for index in pair)
    async with World(store=StoreSettings(max_message_size_bytes=1000)) as world:
        world.create_topic()
        world.broker.topics.put(TopicConfig(topic_name="ReadOnly", perm=4))
        with pytest.raises(kind, match=remark):
            send(world, **{**second, **first})  # type: ignore[arg-type]  # fields of several types


async def test_a_broker_without_write_permission_takes_nothing() -> None:
    """Said before the topic is even looked at."""
    async with World(identity=IdentityConfig(broker_name="broker-a", broker_permission=4)) as world:
        with pytest.raises(NoPermission, match=r"the broker\[broker-a\] sending message is forbidden"):
            send(world, "a b")


async def test_an_illegal_queue_is_told_as_apache_does() -> None:
    """The recorded remark, up to the producer's address, which ours leaves out."""
    async with World() as world:
        world.broker.topics.put(
            TopicConfig(
                topic_name="TapNormal",
                read_queue_nums=2,
                write_queue_nums=2,
                attributes={"message.type": "NORMAL"},
            )
        )
        (refused,) = [e for e in exchanges("send_v2", 310) if e.reply.code == 29]
        reply = world.client().request(refused.request.code, refused.request.ext_fields, refused.request.body)
        assert reply.code == refused.reply.code
        assert reply.remark == str(refused.reply.remark).partition(" Producer: ")[0]


async def test_the_recorded_send_without_body_is_refused() -> None:
    """Apache leaks a Java exception with code 1; ours says what is wrong, and that no retry will mend it."""
    async with World() as world:
        (exchange,) = exchanges("errors", 310)
        reply = world.client().request(exchange.request.code, exchange.request.ext_fields)
        assert (reply.code, reply.remark) == (13, "the message body is empty")


async def test_a_queue_beyond_the_writable_ones_may_be_readable() -> None:
    """While a topic shrinks, queues that can only be read any more are no error (Apache compares with the larger)."""
    async with World() as world:
        world.broker.topics.put(TopicConfig(topic_name="T", read_queue_nums=4, write_queue_nums=2))
        assert send(world, queue_id=3).queue_offset == 0


async def test_properties_may_fill_the_record_to_the_last_byte() -> None:
    """The limit counts what the broker adds."""
    async with World() as world:
        world.create_topic()
        send(world, properties=text(UNIQ_KEY="K"))
        own_bytes = len(world.record("T").properties)
        room = PROPERTIES_SIZE_BYTES_MAX - own_bytes - len("x\x01\x02")
        send(world, properties=text(UNIQ_KEY="K", x="y" * room))
        with pytest.raises(MessageIllegal, match="32768 bytes with what the broker adds, the limit is 32767"):
            send(world, properties=text(UNIQ_KEY="K", x="y" * (room + 1)))


async def test_text_without_utf8_form_is_refused() -> None:
    """A lone surrogate can be written in JSON, and nowhere else."""
    async with World() as world:
        world.create_topic()
        with pytest.raises(MessageIllegal, match="no UTF-8 form"):
            send(world, properties="a\x01\ud800\x02")


async def test_a_full_disk_refuses_the_message() -> None:
    """Nothing is counted, and the topic stays usable."""
    settings = StoreSettings(disk_space_warning_level_percent=100, disk_refuse_free_bytes=0)
    async with World(MemoryDisk(capacity_bytes=3 << 20), store=settings, log_file_size_bytes=8 << 20) as world:
        world.create_topic()
        send(world, body=bytes(1 << 20))
        with pytest.raises(DiskFull):
            send(world, body=bytes(3 << 20))
        send(world)
        assert world.broker.topics.require("T").messages_in == world.store.max_offset("T", 0) == 2


# -- topics made by use ------------------------------------------------------------------------------------------------


async def test_the_first_send_makes_its_topic() -> None:
    """As many queues as the client asks for, at most the template's; the answer names the topic to wait for."""
    async with World() as world:
        sent = send(world, "New", 1, default_topic_queue_nums=3)
        assert sent.topic.config == TopicConfig(topic_name="New", read_queue_nums=3, write_queue_nums=3, perm=6)
        assert sent.topic.version > world.broker.topics.saved_version
        assert send(world, "Big", default_topic_queue_nums=99).topic.config.write_queue_nums == 8


async def test_without_auto_creation_no_send_makes_a_topic() -> None:
    """Not even when TBW102 is there from a time when topics were made by use."""
    disk = MemoryDisk()
    async with World(disk) as world:
        await world.broker.saver.save_topics()
    async with World(disk, topics=TopicsConfig(auto_create_topic_enable=False)) as world:
        assert world.broker.topics.get("TBW102") is not None
        with pytest.raises(TopicNotExist, match=r"topic\[New\] not exist"):
            send(world, "New")
        assert world.broker.topics.get("New") is None


async def test_another_template_serves_where_it_may_be_inherited() -> None:
    """The cluster's topic has INHERIT, an ordinary one has not."""
    async with World() as world:
        assert send(world, "New", default_topic="DefaultCluster").topic.config.perm == 6
        with pytest.raises(TopicNotExist):
            send(world, "Newer", default_topic="New")


async def test_the_limit_of_topics_is_said() -> None:
    """SYSTEM_BUSY, with the name of the setting."""
    async with World(limits=LimitsConfig(topics_max=13)) as world:
        with pytest.raises(SystemBusy, match=r"limits.topics_max\) is 13"):
            send(world, "New")


# -- delays ------------------------------------------------------------------------------------------------------------


async def test_a_delayed_message_waits_in_the_queue_of_its_level() -> None:
    """Queue level - 1 of SCHEDULE_TOPIC_XXXX, its real place in properties, its due time as tags code (trap 14)."""
    async with World() as world:
        world.create_topic()
        sent = send(world, "T", 3, text(DELAY="3", TAGS="TagA", KEYS="k"))
        assert world.records("T", 3) == []
        record = world.record("SCHEDULE_TOPIC_XXXX", 2)
        properties = properties_of(record)
        assert (properties["REAL_TOPIC"], properties["REAL_QID"]) == ("T", "3")
        assert (properties["DELAY"], properties["TAGS"], properties["KEYS"]) == ("3", "TagA", "k")
        unit = world.store.queue_unit("SCHEDULE_TOPIC_XXXX", 2, 0)
        assert unit is not None
        assert unit[2] == world.clock.now_ms() + LEVEL_3_MS
        assert sent.queue_id == 3


async def test_the_due_time_survives_a_rebuilt_queue() -> None:
    """What recovery reads out of the record is what the send wrote into the queue."""
    disk = MemoryDisk()
    world = World(disk)
    world.create_topic()
    send(world, properties=text(DELAY="3", TAGS="TagA"))
    send(world, properties=text(DELAY="99"))
    before = [world.store.queue_unit("SCHEDULE_TOPIC_XXXX", queue_id, 0) for queue_id in (2, 17)]
    assert None not in before
    await world.kill()
    for path in [path for path in disk.files if "consumequeue" in path.parts]:
        disk.remove(path)
    async with World(disk) as again:
        assert [again.store.queue_unit("SCHEDULE_TOPIC_XXXX", queue_id, 0) for queue_id in (2, 17)] == before


@pytest.mark.parametrize(("level", "queue_id"), [("1", 0), ("18", 17), ("19", 17), ("999999999", 17)])
async def test_levels_beyond_the_last_are_the_last(level: str, queue_id: int) -> None:
    """And are stored as that."""
    async with World() as world:
        world.create_topic()
        send(world, properties=text(DELAY=level))
        properties = properties_of(world.record("SCHEDULE_TOPIC_XXXX", queue_id))
        assert properties["DELAY"] == str(queue_id + 1)


@pytest.mark.parametrize("level", ["0", "-1"])
async def test_no_level_is_no_delay(level: str) -> None:
    """0 and less: an ordinary message."""
    async with World() as world:
        world.create_topic()
        send(world, properties=text(DELAY=level))
        assert len(world.records("T")) == 1


@pytest.mark.parametrize("level", ["1.5", "--1", "1" * 10, "x", "-"])
async def test_a_level_that_is_no_number_is_refused(level: str) -> None:
    """With what was sent."""
    async with World() as world:
        world.create_topic()
        with pytest.raises(MessageIllegal, match="property DELAY must be a whole number"):
            send(world, properties=text(DELAY=level))


async def test_a_level_wins_over_timer_properties() -> None:
    """They are dropped (Apache does so): the message is a delayed one and no timer message."""
    async with World() as world:
        world.create_topic()
        send(world, properties=text(TIMER_DELAY_SEC="9", DELAY="1", TIMER_DELIVER_MS="1", n="1"))
        properties = properties_of(world.record("SCHEDULE_TOPIC_XXXX"))
        assert not [key for key in properties if key.startswith("TIMER")]
        assert properties["n"] == "1"


async def test_a_delayed_message_that_was_consumed_before_keeps_its_real_place() -> None:
    """A consumer sends on a message with all its properties: the broker's own and an earlier delay's must not count."""
    async with World() as world:
        world.create_topic("T2")
        earlier = text(
            MSG_REGION="DefaultRegion",
            TRACE_ON="true",
            CLUSTER="DefaultCluster",
            REAL_TOPIC="T1",
            REAL_QID="7",
            DELAY="2",
            UNIQ_KEY="K",
        )
        send(world, "T2", 1, earlier)
        record = world.record("SCHEDULE_TOPIC_XXXX", 1)
        properties = properties_of(record)
        assert (properties["REAL_TOPIC"], properties["REAL_QID"]) == ("T2", "1")
        assert record.properties.count(b"REAL_TOPIC") == record.properties.count(b"MSG_REGION") == 1


async def test_a_delayed_message_to_a_new_topic_waits_for_that_topic() -> None:
    """The acknowledgement must wait until the topic would be found again: without it the message could not come due."""
    async with World() as world:
        sent = send(world, "New", properties=text(DELAY="1"))
        assert sent.topic.name == "New"


# -- sends to retry topics ---------------------------------------------------------------------------------------------


def with_group(world: World, **settings: object) -> None:
    group = world.broker.groups.find_or_create("G")
    if settings:
        world.broker.groups._put_all([msgspec.structs.replace(group, **settings)])


async def test_a_retry_sent_directly_is_stored() -> None:
    """The topic is made with one queue, whatever the sender says of templates."""
    async with World() as world:
        with_group(world)
        sent = send(world, "%RETRY%G", reconsume_times=1, default_topic="None")
        assert sent.topic.config == TopicConfig(topic_name="%RETRY%G", read_queue_nums=1, write_queue_nums=1, perm=6)
        assert world.record("%RETRY%G").reconsume_times == 1


@pytest.mark.parametrize(
    ("reconsume_times", "maximum", "version", "is_dead"),
    [
        (16, None, V4_9, False),
        (17, None, V4_9, True),
        (3, 3, V4_9, False),  # a direct send is compared with >, a send-back with >= (trap 22)
        (4, 3, V4_9, True),
        (17, 99, V4_9, False),
        (17, 99, 120, True),  # before version 121 the header's maximum does not count
        (4, 3, 120, False),
        (0, -1, V4_9, True),
    ],
)
async def test_after_the_last_retry_comes_the_dlq(
    reconsume_times: int, maximum: int | None, version: int, *, is_dead: bool
) -> None:
    """Beyond the maximum: of the header, or of the group for clients that know none."""
    async with World() as world:
        with_group(world)
        sent = send(world, "%RETRY%G", reconsume_times=reconsume_times, max_reconsume_times=maximum, version=version)
        assert sent.topic.name == ("%DLQ%G" if is_dead else "%RETRY%G")
        assert len(world.records("%DLQ%G" if is_dead else "%RETRY%G")) == 1


async def test_the_groups_own_maximum_counts_where_the_header_has_none() -> None:
    """retryMaxTimes."""
    async with World() as world:
        with_group(world, retry_max_times=2)
        assert send(world, "%RETRY%G", reconsume_times=2).topic.name == "%RETRY%G"
        assert send(world, "%RETRY%G", reconsume_times=3).topic.name == "%DLQ%G"


async def test_a_dead_letter_is_not_delayed() -> None:
    """Java's fallback gives every retry a level; a dead letter is nothing to wait for."""
    async with World() as world:
        with_group(world)
        world.create_topic("T")
        send(
            world,
            "%RETRY%G",
            properties=text(DELAY="5", RETRY_TOPIC="T", MSG_REGION="R"),
            reconsume_times=17,
        )
        properties = properties_of(world.record("%DLQ%G"))
        assert "DELAY" not in properties
        assert properties["RETRY_TOPIC"] == "T"
        assert world.broker.dead_letters == {("G", "T"): 1}


async def test_dead_letters_are_counted_under_topics_that_exist() -> None:
    """A property may name anything; what it names is not kept."""
    async with World() as world:
        with_group(world)
        for number in range(3):
            send(world, "%RETRY%G", properties=text(RETRY_TOPIC=f"made-up-{number}"), reconsume_times=17)
        assert world.broker.dead_letters == {("G", "%RETRY%G"): 3}


async def test_an_ordered_group_wants_no_message_again() -> None:
    """While one of its queues is locked, what it gives up goes to the DLQ at once."""
    async with World() as world:
        with_group(world)
        world.broker.queue_locks.lock("G", "c", [("T", 0)], world.clock.monotonic())
        assert send(world, "%RETRY%G", reconsume_times=1).topic.name == "%DLQ%G"
        world.clock.advance(61)
        assert send(world, "%RETRY%G", reconsume_times=1).topic.name == "%RETRY%G"


async def test_a_retry_with_a_level_comes_back_to_its_retry_topic() -> None:
    """Java's fallback after a failed send-back: a message with all the properties of the one that failed."""
    async with World() as world:
        with_group(world)
        send(
            world,
            "%RETRY%G",
            properties=text(DELAY="4", RETRY_TOPIC="T", MSG_REGION="R", TRACE_ON="true", CLUSTER="C"),
            reconsume_times=1,
        )
        properties = properties_of(world.record("SCHEDULE_TOPIC_XXXX", 3))
        assert (properties["REAL_TOPIC"], properties["REAL_QID"]) == ("%RETRY%G", "0")


async def test_a_retry_for_an_unknown_group_is_refused() -> None:
    """26, as Apache says it."""
    async with World() as world:
        with pytest.raises(SubscriptionGroupNotExist, match="subscription group not exist, Nobody"):
            send(world, "%RETRY%Nobody")


# -- batches -----------------------------------------------------------------------------------------------------------


def batch_of(*properties: str) -> bytes:
    return encode_batch(
        [BatchMessage(number, b"body %d" % number, text.encode()) for number, text in enumerate(properties)]
    )


async def test_a_batch_becomes_its_messages() -> None:
    """Consecutive offsets, each with its own key, flag and tag; ids joined with commas, the first one's offset."""
    async with World() as world:
        world.create_topic()
        send(world, "T", 2)
        body = batch_of(*(text(UNIQ_KEY=f"K{number}", TAGS="TagA") for number in range(3)))
        sent = send(world, "T", 2, text(UNIQ_KEY="WHOLE", WAIT="false"), body=body, batch=True)
        records = world.records("T", 2)[1:]
        assert [record.body for record in records] == [b"body 0", b"body 1", b"body 2"]
        assert [record.flag for record in records] == [0, 1, 2]
        assert [properties_of(record)["UNIQ_KEY"] for record in records] == ["K0", "K1", "K2"]
        assert all(record.properties.count(b"UNIQ_KEY") == 1 for record in records)
        ids = [(STORE_HOST + record.physical_offset.to_bytes(8, "big")).hex().upper() for record in records]
        assert sent.message_id == ",".join(ids)
        assert (sent.queue_offset, sent.unique_key, sent.wait) == (1, "WHOLE", False)
        assert sent.end_offset == world.store.written_offset
        assert world.broker.topics.require("T").messages_in == 4


async def test_messages_of_a_batch_without_key_get_one() -> None:
    """Each its own."""
    async with World() as world:
        world.create_topic()
        send(world, body=batch_of("", "TAGS\x01A"), batch=True)
        keys = [properties_of(record)["UNIQ_KEY"] for record in world.records("T")]
        assert len(set(keys)) == 2
        assert properties_of(world.records("T")[1])["TAGS"] == "A"


@pytest.mark.parametrize(
    ("body", "remark"),
    [
        (batch_of(text(n="1"), text(DELAY="1")), "message 1 of the batch has a delay"),
        (batch_of(text(TRAN_MSG="true")), "message 0 of the batch has a delay or is transactional"),
        (batch_of(text(n="1"), text(TIMER_DELAY_SEC="1")), "message 1"),
        (batch_of(text(n="1"), text(x="y" * 32_700)), "the limit is 32767"),
        (b"\x00\x00\x00\x07", "the batch can't be read"),
        (encode_batch([BatchMessage(0, b"x", b"n\x011\x02"), BatchMessage(0, b"x", b"\xff\x01\xfe\x02")]), "not UTF-8"),
    ],
)
async def test_a_batch_is_stored_whole_or_not_at_all(body: bytes, remark: str) -> None:
    """One message that can't be taken keeps the others out too."""
    async with World() as world:
        world.create_topic()
        with pytest.raises(MessageIllegal, match=remark):
            send(world, body=body, batch=True)
        assert world.store.written_offset == 0
        assert world.broker.topics.require("T").messages_in == 0


async def test_a_batch_as_a_whole_has_no_delay() -> None:
    """Apache refuses it too."""
    async with World() as world:
        world.create_topic()
        with pytest.raises(MessageIllegal, match="has a delay"):
            send(world, properties=text(DELAY="1"), body=batch_of(""), batch=True)


async def test_a_batch_is_not_for_retry_topics() -> None:
    """In Apache's words."""
    async with World() as world:
        with_group(world)
        with pytest.raises(MessageIllegal, match="batch request does not support retry group %RETRY%G"):
            send(world, "%RETRY%G", body=batch_of(""), batch=True)


async def test_decoded_properties_of_the_recorded_batch_are_the_clients() -> None:
    """Ours stores what the client wrote into each message; Apache appends the batch's own key to all of them."""
    async with World() as world:
        world.broker.topics.put(TopicConfig(topic_name="TapNormal"))
        world.mark_saved()
        (exchange, *_) = exchanges("send_batch", 320)
        world.client().request(320, exchange.request.ext_fields, exchange.request.body)
        keys = [decode_properties(record.properties)["UNIQ_KEY"] for record in world.records("TapNormal")]
        assert [key[-2:] for key in keys] == ["0B", "0C", "0D"]
