"""Tests of bodies: everything recorded decodes and encodes back, config files included; damage names its field."""

import base64
import csv
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from apogeemq.remoting_codec import bodies, client_bodies, route
from apogeemq.remoting_codec.bodies import (
    BatchAck,
    BatchAckMessageRequestBody,
    BrokerMemberGroup,
    CheckClientRequestBody,
    ClusterInfo,
    ConsumeFromWhere,
    ConsumerConnection,
    ConsumerData,
    ConsumerOffsetSerializeWrapper,
    ConsumeStats,
    ConsumeType,
    CustomizedRetryPolicy,
    DataVersion,
    DelayOffsetSerializeWrapper,
    GetBrokerMemberGroupResponseBody,
    GetConsumerListByGroupResponseBody,
    GroupList,
    GroupRetryPolicy,
    HeartbeatData,
    KVTable,
    LockBatchRequestBody,
    LockBatchResponseBody,
    MessageModel,
    MessageQueue,
    OffsetWrapper,
    ProducerConnection,
    ProducerData,
    RegisterBrokerBody,
    ResetOffsetBody,
    SubscriptionData,
    SubscriptionGroupConfig,
    SubscriptionGroupWrapper,
    TopicConfig,
    TopicConfigAndMappingSerializeWrapper,
    TopicConfigAndQueueMapping,
    TopicConfigSerializeWrapper,
    TopicFilterType,
    TopicList,
    TopicStatsTable,
    UnlockBatchRequestBody,
)
from apogeemq.remoting_codec.client_bodies import (
    CMResult,
    ConsumeMessageDirectlyResult,
    ConsumerRunningInfo,
    GetConsumerStatusBody,
    LiteSubscriptionAction,
    LiteSubscriptionCtlRequestBody,
    LiteSubscriptionDTO,
    MessageQueueAssignment,
    MessageRequestMode,
    PopProcessQueueInfo,
    ProcessQueueInfo,
    QueryAssignmentRequestBody,
    QueryAssignmentResponseBody,
    SetMessageRequestModeRequestBody,
)
from apogeemq.remoting_codec.errors import BodyInvalid, CodecError
from apogeemq.remoting_codec.fastjson import TOLERANT_SIZE_BYTES_MAX, JsonBody
from apogeemq.remoting_codec.message import tags_code
from hypothesis import given
from hypothesis import strategies as st

TESTS = Path(__file__).parent
CONFIG = TESTS / "vectors_store" / "config"
RECORDED: list[dict[str, Any]] = [
    json.loads(line) for line in (TESTS / "vectors_bodies" / "recorded.jsonl").read_text().splitlines()
]

BODY_TYPES: dict[tuple[int, str], type[JsonBody]] = {
    (21, "response"): TopicConfigAndMappingSerializeWrapper,
    (28, "response"): KVTable,
    (34, "request"): HeartbeatData,
    (38, "response"): GetConsumerListByGroupResponseBody,
    (41, "request"): LockBatchRequestBody,
    (41, "response"): LockBatchResponseBody,
    (42, "request"): UnlockBatchRequestBody,
    (46, "request"): CheckClientRequestBody,
    (103, "request"): RegisterBrokerBody,
    (106, "response"): ClusterInfo,
    (200, "request"): SubscriptionGroupConfig,
    (201, "response"): SubscriptionGroupWrapper,
    (202, "response"): TopicStatsTable,
    (203, "response"): ConsumerConnection,
    (204, "response"): ProducerConnection,
    (206, "response"): TopicList,
    (221, "response"): GetConsumerStatusBody,
    (222, "response"): ResetOffsetBody,
    (223, "response"): GetConsumerStatusBody,
    (300, "response"): GroupList,
    (307, "response"): ConsumerRunningInfo,
    (309, "response"): ConsumeMessageDirectlyResult,
    (351, "response"): TopicConfigAndQueueMapping,
    (400, "request"): QueryAssignmentRequestBody,
    (400, "response"): QueryAssignmentResponseBody,
}
TYPED = [recorded for recorded in RECORDED if (recorded["code"], recorded["kind"]) in BODY_TYPES]


# -- recorded bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recorded", TYPED, ids=[f"{recorded['scenario']}-{recorded['code']}-{recorded['kind']}" for recorded in TYPED]
)
def test_recorded_body_decodes_and_encodes_back(recorded: dict[str, Any]) -> None:
    """Every recorded body of a type known here is written back to the bytes that Java wrote."""
    body = recorded["body"].encode()
    decoded = BODY_TYPES[recorded["code"], recorded["kind"]].decode(body)
    assert decoded.encode() == body


def test_every_known_type_was_recorded() -> None:
    """No row of the table above is idle."""
    assert {(recorded["code"], recorded["kind"]) for recorded in TYPED} == set(BODY_TYPES)


@pytest.mark.parametrize(
    ("name", "body_type"),
    [
        ("topics.json", TopicConfigSerializeWrapper),
        ("subscriptionGroup.json", SubscriptionGroupWrapper),
        ("consumerOffset.json", ConsumerOffsetSerializeWrapper),
        ("delayOffset.json", DelayOffsetSerializeWrapper),
    ],
)
def test_recorded_config_file_decodes_and_encodes_back(name: str, body_type: type[JsonBody]) -> None:
    """A Java broker's config file is written back to the same bytes, line breaks included."""
    text = (CONFIG / name).read_bytes()
    assert body_type.decode(text).encode(pretty=True) == text


def test_recorded_heartbeat_has_its_values() -> None:
    """A consumer's heartbeat, field by field."""
    body = next(r["body"] for r in TYPED if r["code"] == 34 and "TagA || TagB" in r["body"])
    heartbeat = HeartbeatData.decode(body.encode())
    assert heartbeat.client_id == "192.0.2.2@c1637242308536"
    assert heartbeat.producer_data_set == [ProducerData(group_name="CLIENT_INNER_PRODUCER")]
    (consumer,) = heartbeat.consumer_data_set
    assert (consumer.group_name, consumer.consume_type) == ("G_hb", ConsumeType.CONSUME_PASSIVELY)
    assert (consumer.message_model, consumer.consume_from_where) == (
        MessageModel.CLUSTERING,
        ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
    )
    assert consumer.subscription_data_set[0] == SubscriptionData(
        topic="TapNormal",
        sub_string="TagA || TagB",
        tags_set=["TagA", "TagB"],
        code_set=[tags_code("TagA"), tags_code("TagB")],
        sub_version=1_795_356_271_558,
    )


def test_recorded_offsets_have_bare_keys() -> None:
    """Consumer and delay offsets are keyed by integers."""
    offsets = ConsumerOffsetSerializeWrapper.decode((CONFIG / "consumerOffset.json").read_bytes())
    assert offsets.offset_table == {"StoreNormal@G_store": {0: 3}}
    delays = DelayOffsetSerializeWrapper.decode((CONFIG / "delayOffset.json").read_bytes())
    assert delays.offset_table == {18: 0}
    assert b'"StoreNormal@G_store":{0:3}' in offsets.encode()


def test_large_offset_files_are_read() -> None:
    """A broker with many groups has an offset file beyond the bound for bare keys in bodies from peers."""
    offsets = ConsumerOffsetSerializeWrapper(offset_table={f"T@G{n}": {0: n, 1: n} for n in range(20_000)})
    text = offsets.encode(pretty=True)
    assert len(text) > TOLERANT_SIZE_BYTES_MAX
    assert ConsumerOffsetSerializeWrapper.decode(text) == offsets


def test_recorded_stats_are_keyed_by_queue() -> None:
    """Topic stats and reset offsets read into maps of message queues."""
    stats = TopicStatsTable.decode(next(r["body"] for r in TYPED if r["code"] == 202).encode())
    assert stats.offset_table[MessageQueue("TapNormal", "broker-t", 0)].max_offset == 8
    reset = ResetOffsetBody.decode(next(r["body"] for r in TYPED if r["code"] == 222).encode())
    assert reset.offset_table == {
        MessageQueue("TapRun", "broker-t", 1): 0,
        MessageQueue("TapRun", "broker-t", 0): 0,
    }


def test_recorded_running_info_has_its_values() -> None:
    """A consumer's own view of itself: queues it holds, its topics, its settings."""
    info = ConsumerRunningInfo.decode(next(r["body"] for r in TYPED if r["code"] == 307).encode())
    assert set(info.mq_table) == {MessageQueue("TapRun", "broker-t", 0), MessageQueue("TapRun", "broker-t", 1)}
    held = info.mq_table[MessageQueue("TapRun", "broker-t", 1)]
    assert held == ProcessQueueInfo(
        commit_offset=1,
        locked=True,
        last_lock_timestamp=1_795_356_409_255,
        last_pull_timestamp=1_795_356_409_774,
        last_consume_timestamp=1_795_356_409_773,
    )
    assert set(info.status_table) == {"TapRun", "%RETRY%G_run"}
    assert [subscription.topic for subscription in info.subscription_set] == ["%RETRY%G_run", "TapRun"]
    assert info.properties["consumeTimestamp"] == "20261122133648"


def test_recorded_answers_of_clients_have_their_values() -> None:
    """What one client consumed directly, which offsets it holds, and the queues it was allotted."""
    result = ConsumeMessageDirectlyResult.decode(next(r["body"] for r in TYPED if r["code"] == 309).encode())
    assert result == ConsumeMessageDirectlyResult(consume_result=CMResult.CR_SUCCESS, spent_time_mills=1)
    queue = MessageQueue("TapRun", "broker-t", 1)
    own = GetConsumerStatusBody.decode(next(r["body"] for r in TYPED if r["code"] == 221).encode())
    assert own == GetConsumerStatusBody(message_queue_table={queue: 1})
    relayed = GetConsumerStatusBody.decode(next(r["body"] for r in TYPED if r["code"] == 223).encode())
    assert relayed == GetConsumerStatusBody(consumer_table={"192.0.2.2@c1773920857679": {queue: 1}})
    answers = [r["body"].encode() for r in TYPED if (r["code"], r["kind"]) == (400, "response")]
    assert [QueryAssignmentResponseBody.decode(body) for body in answers] == [
        QueryAssignmentResponseBody(),
        QueryAssignmentResponseBody(
            message_queue_assignments=[
                MessageQueueAssignment(
                    message_queue=MessageQueue("TapPop", "broker-t", -1), mode=MessageRequestMode.POP
                )
            ]
        ),
    ]


def test_recorded_cluster_info_has_bare_keys() -> None:
    """Cluster info has bare integer keys whatever the client's version."""
    body = next(r["body"] for r in TYPED if r["code"] == 106).encode()
    assert b"{0:" in body
    info = ClusterInfo.decode(body)
    assert info.broker_addr_table["broker-t"].broker_addrs == {0: "127.0.0.2:20911"}
    assert info.cluster_addr_table == {"TapCluster": ["broker-t"]}


def test_member_group_is_wrapped() -> None:
    """The answer to GET_BROKER_MEMBER_GROUP has one member that holds the group."""
    body = b'{"brokerMemberGroup":{"brokerAddrs":{0:"a:1",2:"b:2"},"brokerName":"b","cluster":"c"}}'
    decoded = GetBrokerMemberGroupResponseBody.decode(body)
    assert decoded.broker_member_group == BrokerMemberGroup(
        cluster="c", broker_name="b", broker_addrs={0: "a:1", 2: "b:2"}
    )
    assert decoded.encode() == body


# -- Apache's declarations -------------------------------------------------------------------------------------------

NOT_WRITTEN = {"SubscriptionData": {"filterClassSource"}}
"""Fields of Apache's that its own annotations keep off the wire."""
BEYOND_THE_TABLE = {"ConsumerOffsetSerializeWrapper": {"groupTopicMap"}}
"""Fields that 5.3.3 was recorded writing although its class declares none: a getter's."""


def test_fields_are_those_of_apache() -> None:
    """Each body with a class in Apache's table (tests/wire/tables/json_bodies.tsv) has its fields, by their names."""
    declared: dict[str, set[str]] = {}
    with (TESTS / "wire" / "tables" / "json_bodies.tsv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            declared.setdefault(row["class"], set()).add(row["json_field"])
    ours = {
        name: {field.encode_name for field in msgspec.structs.fields(cls)}
        for module in (bodies, client_bodies, route)
        for name, cls in vars(module).items()
        if isinstance(cls, type) and issubclass(cls, JsonBody) and name in declared
    }
    assert ours == {
        name: fields - NOT_WRITTEN.get(name, set()) | BEYOND_THE_TABLE.get(name, set())
        for name, fields in declared.items()
    }


# -- samples of the reference ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (
            (
                '{"clientID":"c","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":'
                '"CONSUME_PASSIVELY","groupName":"g","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":'
                'false,"codeSet":[65],"expressionType":"TAG","subString":"A || B","subVersion":1,"tagsSet":["A"],'
                '"topic":"T"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"pg"}],"withoutSub":'
                "false}"
            ),
            HeartbeatData(
                client_id="c",
                producer_data_set=[ProducerData(group_name="pg")],
                consumer_data_set=[
                    ConsumerData(
                        group_name="g",
                        consume_type=ConsumeType.CONSUME_PASSIVELY,
                        message_model=MessageModel.CLUSTERING,
                        consume_from_where=ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET,
                        subscription_data_set=[
                            SubscriptionData(
                                topic="T", sub_string="A || B", tags_set=["A"], code_set=[65], sub_version=1
                            )
                        ],
                    )
                ],
            ),
        ),
        (
            (
                '{"attributes":{},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"T",'
                '"topicSysFlag":0,"writeQueueNums":4}'
            ),
            TopicConfig(topic_name="T", read_queue_nums=4, write_queue_nums=4),
        ),
        (
            (
                '{"clientId":"c","consumerGroup":"g","mqSet":[{"brokerName":"b","queueId":3,"topic":"T"}],'
                '"onlyThisBroker":false}'
            ),
            LockBatchRequestBody(consumer_group="g", client_id="c", mq_set=[MessageQueue("T", "b", 3)]),
        ),
        ('{"lockOKMQSet":[]}', LockBatchResponseBody()),
        (
            '{"consumerGroup":"g","mode":"POP","popShareQueueNum":0,"topic":"T"}',
            SetMessageRequestModeRequestBody(topic="T", consumer_group="g", mode=MessageRequestMode.POP),
        ),
        (
            (
                '{"subscriptionSet":[{"action":"PARTIAL_ADD","clientId":"c","group":"g","liteTopicSet":["l"],'
                '"topic":"T","version":0}]}'
            ),
            LiteSubscriptionCtlRequestBody(
                subscription_set=[
                    LiteSubscriptionDTO(
                        action=LiteSubscriptionAction.PARTIAL_ADD,
                        client_id="c",
                        group="g",
                        topic="T",
                        lite_topic_set=["l"],
                    )
                ]
            ),
        ),
        (
            (
                '{"mqPopTable":{{"brokerName":"b","queueId":-1,"topic":"T"}:{"droped":true,"lastPopTimestamp":5,'
                '"waitAckCount":2}},"mqTable":{},"properties":{},"statusTable":{},"subscriptionSet":[],'
                '"userConsumerInfo":{}}'
            ),
            ConsumerRunningInfo(
                mq_pop_table={
                    MessageQueue("T", "b", -1): PopProcessQueueInfo(wait_ack_count=2, droped=True, last_pop_timestamp=5)
                }
            ),
        ),
        ('{"consumerIdList":["ip@pid"]}', GetConsumerListByGroupResponseBody(consumer_id_list=["ip@pid"])),
        (
            (
                '{"consumeTps":0.0,"offsetTable":{{"brokerName":"b","queueId":3,"topic":"T"}:{"brokerOffset":9,'
                '"consumerOffset":5,"lastTimestamp":1,"pullOffset":6}}}'
            ),
            ConsumeStats(
                offset_table={
                    MessageQueue("T", "b", 3): OffsetWrapper(
                        broker_offset=9, consumer_offset=5, pull_offset=6, last_timestamp=1
                    )
                }
            ),
        ),
    ],
)
def test_samples_of_the_reference(text: str, body: JsonBody) -> None:
    """The shapes that remoting.md §8 lists are written and read."""
    assert body.encode().decode() == text
    assert type(body).decode(text.encode()) == body


def test_defaults_of_a_group_are_those_of_the_recorded_ones() -> None:
    """A new group, given only its name, is what a Java operator's tool sends for a new group."""
    recorded = next(r["body"] for r in TYPED if r["code"] == 200 and "G_off_ok" in r["body"])
    name = json.loads(recorded)["groupName"]
    assert SubscriptionGroupConfig(group_name=name).encode().decode() == recorded


def test_retry_policies_are_kept() -> None:
    """A group's policy with its own delays survives the round trip."""
    config = SubscriptionGroupConfig(
        group_name="g",
        group_retry_policy=GroupRetryPolicy(customized_retry_policy=CustomizedRetryPolicy(next=[1000, 5000])),
    )
    assert b'"groupRetryPolicy":{"customizedRetryPolicy":{"next":[1000,5000]},"type":"CUSTOMIZED"}' in config.encode()
    assert SubscriptionGroupConfig.decode(config.encode()) == config


def test_default_back_off_is_that_of_the_clients_settings() -> None:
    """1, 5, 10, 30, 60 … 7200 seconds: 18 steps."""
    delays_s = [delay // 1000 for delay in CustomizedRetryPolicy().next]
    assert delays_s[:5] == [1, 5, 10, 30, 60]
    assert (delays_s[-1], len(delays_s)) == (7200, 18)


def test_data_version_counts_changes() -> None:
    """Each change counts one up and takes the time; the state version changes only when told."""
    first = DataVersion(state_version=1, timestamp=10, counter=4)
    assert first.next(20) == DataVersion(state_version=1, timestamp=20, counter=5)
    assert first.next(20, 2) == DataVersion(state_version=2, timestamp=20, counter=5)


def test_queues_sort_by_topic_broker_and_number() -> None:
    """All members of a group must number the queues alike: by topic, then broker name, then queue id."""
    queues = [
        MessageQueue("T", "b", 1),
        MessageQueue("T", "a", 10),
        MessageQueue("S", "z", 9),
        MessageQueue("T", "b", 0),
    ]
    assert sorted(queues) == [queues[2], queues[1], queues[3], queues[0]]


# -- other peers -----------------------------------------------------------------------------------------------------


def test_heartbeat_of_the_cpp_client_reads() -> None:
    """The C++ client writes enums by ordinal, longs in quotes, and leaves the expression type out."""
    body = (
        b'{"clientID":"c","consumerDataSet":[{"consumeFromWhere":0,"consumeType":1,"groupName":"g","messageModel":1,'
        b'"subscriptionDataSet":[{"codeSet":["65"],"subString":"A","subVersion":"1795356271558","tagsSet":["A"],'
        b'"topic":"T"}]}],"producerDataSet":null}'
    )
    (consumer,) = HeartbeatData.decode(body).consumer_data_set
    assert consumer.consume_type is ConsumeType.CONSUME_PASSIVELY
    assert consumer.message_model is MessageModel.CLUSTERING
    assert consumer.consume_from_where is ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET
    assert consumer.subscription_data_set[0].sub_version == 1_795_356_271_558
    assert consumer.subscription_data_set[0].code_set == [65]
    assert consumer.subscription_data_set[0].expression_type == "TAG"


@pytest.mark.parametrize(
    ("consumer", "field"),
    [
        ('{"groupName":"g"}', "consumeType"),
        ('{"groupName":"g","consumeType":"NO","messageModel":"CLUSTERING","consumeFromWhere":0}', "consumeType"),
        ('{"groupName":"g","consumeType":3,"messageModel":1,"consumeFromWhere":0}', "consumeType"),
        ('{"groupName":"g","consumeType":-1,"messageModel":1,"consumeFromWhere":0}', "consumeType"),
        ('{"groupName":"g","consumeType":true,"messageModel":1,"consumeFromWhere":0}', "consumeType"),
        ("5", "consumerDataSet"),
    ],
)
def test_unknown_enums_name_their_field(consumer: str, field: str) -> None:
    """An enum that is absent, unknown or out of range is refused."""
    with pytest.raises(BodyInvalid, match=field):
        HeartbeatData.decode(f'{{"clientID":"c","consumerDataSet":[{consumer}]}}'.encode())


@pytest.mark.parametrize("body", [b'{"clientID":"c","consumerDataSet":5}', b"[]", b"5", b"", b"{}"])
def test_heartbeats_that_are_none_are_refused(body: bytes) -> None:
    """Bodies of another shape are BodyInvalid."""
    with pytest.raises(BodyInvalid):
        HeartbeatData.decode(body)


# -- compressed registrations ----------------------------------------------------------------------------------------


def block(content: str) -> bytes:
    """Text with its size before it."""
    return struct.pack(">i", len(content.encode())) + content.encode()


def registration(topics: list[str], mappings: list[str] | None = None) -> bytes:
    """A registration as remoting.md §8 describes it, before compression."""
    parts = [block('{"counter":1,"stateVersion":0,"timestamp":5}'), struct.pack(">i", len(topics))]
    parts += [block(topic) for topic in topics]
    parts.append(block('["f:1"]'))
    if mappings is not None:
        parts.append(struct.pack(">i", len(mappings)))
        parts += [block(mapping) for mapping in mappings]
    return b"".join(parts)


def compressed(plain: bytes) -> bytes:
    """As Java does it: zlib, level 9, starts 78 DA."""
    body = zlib.compress(plain, 9)
    assert body.startswith(b"\x78\xda")
    return body


def test_compressed_registration_of_a_5x_broker() -> None:
    """Topics with attributes and the mapping section."""
    topics = ['T 4 8 6 SINGLE_TAG {"+k":"v w"}', "U 1 1 2 MULTI_TAG"]
    mapping = '{"bname":"b","currIdMap":{0:1},"topic":"T"}'
    body = RegisterBrokerBody.decode_compressed(compressed(registration(topics, [mapping])), 479)
    wrapper = body.topic_config_serialize_wrapper
    assert wrapper.data_version == DataVersion(counter=1, timestamp=5)
    assert wrapper.topic_config_table == {
        "T": TopicConfig(topic_name="T", read_queue_nums=4, write_queue_nums=8, attributes={"+k": "v w"}),
        "U": TopicConfig(
            topic_name="U", read_queue_nums=1, write_queue_nums=1, perm=2, topic_filter_type=TopicFilterType.MULTI_TAG
        ),
    }
    assert wrapper.topic_queue_mapping_info_map["T"].curr_id_map == {0: 1}
    assert body.filter_server_list == ["f:1"]


def test_compressed_registration_of_a_4x_broker_has_no_mappings() -> None:
    """Below version 413 the body ends with the filter servers."""
    body = RegisterBrokerBody.decode_compressed(compressed(registration(["T 4 4 6 SINGLE_TAG"])), 409)
    assert set(body.topic_config_serialize_wrapper.topic_config_table) == {"T"}
    with pytest.raises(BodyInvalid, match="ends"):
        RegisterBrokerBody.decode_compressed(compressed(registration(["T 4 4 6 SINGLE_TAG"])), 479)
    with pytest.raises(BodyInvalid, match="follow"):
        RegisterBrokerBody.decode_compressed(compressed(registration(["T 4 4 6 SINGLE_TAG"], [])), 409)


@pytest.mark.parametrize(
    "topic", ["", "T 4 4 6", "T x 4 6 SINGLE_TAG", "T 4 4 6 NO_TAG", "T 4 4 6 SINGLE_TAG {", "T 4 4 6 SINGLE_TAG []"]
)
def test_damaged_topic_of_a_registration_is_refused(topic: str) -> None:
    """Missing words, wrong numbers, unknown filter types and broken attributes."""
    with pytest.raises(BodyInvalid, match="topic"):
        RegisterBrokerBody.decode_compressed(compressed(registration([topic], [])), 479)


def test_compressed_registration_is_bounded() -> None:
    """A small body that becomes large is refused."""
    with pytest.raises(BodyInvalid, match="exceeds 100"):
        RegisterBrokerBody.decode_compressed(zlib.compress(bytes(1_000_000)), 479, size_bytes_max=100)


@given(st.data())
def test_damaged_registrations_raise_only_codec_errors(data: st.DataObject) -> None:
    """Flipped bytes and cut ends inside give a value or a CodecError."""
    plain = bytearray(registration(['T 4 8 6 SINGLE_TAG {"a":"b"}'], ['{"topic":"T"}']))
    plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(plain[: data.draw(st.integers(0, len(plain)))])
    try:
        RegisterBrokerBody.decode_compressed(zlib.compress(cut), 479)
    except CodecError:
        return


def test_damaged_filter_servers_are_refused() -> None:
    """They are a JSON list of text."""
    plain = registration(["T 4 4 6 SINGLE_TAG"]).replace(b'["f:1"]', b'["f:1" ')
    with pytest.raises(BodyInvalid, match="filter servers"):
        RegisterBrokerBody.decode_compressed(compressed(plain), 409)


# -- pop -------------------------------------------------------------------------------------------------------------


def test_the_recorded_batch_acknowledgement_reads() -> None:
    """What a 5.3.3 client sent (vectors, pop): bits 0 and 1 of Base64 "Aw==", short names."""
    text = (
        b'{"acks":[{"b":"Aw==","c":"G_pop","it":20000,"pt":1795356284159,"q":0,"r":"0","rq":1,"so":0,"t":"TapPop"}],'
        b'"brokerName":"broker-t"}'
    )
    body = BatchAckMessageRequestBody.decode(text)
    (ack,) = body.acks
    assert ack.offsets(32) == [0, 1]
    assert (ack.consumer_group, ack.topic, ack.retry, ack.queue_id, ack.revive_queue_id) == (
        "G_pop",
        "TapPop",
        "0",
        0,
        1,
    )
    assert body.encode() == text


@given(st.integers(0, 2**60), st.sets(st.integers(0, 99), min_size=1))
def test_bit_sets_are_little_endian(start: int, bits: set[int]) -> None:
    """Bit i of byte b stands for start + 8 b + i (trap 25)."""
    data = bytearray(13)
    for bit in bits:
        data[bit // 8] |= 1 << bit % 8
    ack = batch_ack(base64.b64encode(data).decode(), start)
    assert ack.offsets(104) == sorted(start + bit for bit in bits)


@pytest.mark.parametrize("text", ["?", "AAAAAAE=", "A" * 100], ids=["no base64", "bit 32", "long"])
def test_bit_sets_that_are_none_are_refused(text: str) -> None:
    """No Base64, or more bits than one pop has messages."""
    with pytest.raises(BodyInvalid, match="bit set b"):
        batch_ack(text, 0).offsets(32)


def batch_ack(bit_set: str, start: int) -> BatchAck:
    return BatchAck(
        consumer_group="G",
        topic="T",
        start_offset=start,
        queue_id=0,
        revive_queue_id=0,
        pop_time=1,
        invisible_time=1,
        bit_set=bit_set,
    )
