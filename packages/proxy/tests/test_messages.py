"""Messages between gRPC and the store: the mapping of grpc_v2.md §6 and §7."""

from __future__ import annotations

import gzip
import hashlib
import zlib

from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proxy.core.durations import timestamp
from apogeemq.proxy.core.messages import message_of, properties_of, sys_flag_of, user_properties_of
from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.compression import CompressionType, compress
from apogeemq.remoting_codec.message import decode_properties, encode_properties
from apogeemq.remoting_codec.record import Record, encode_host

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TOPIC = defs.Resource(name="T")


def record_of(properties: dict[str, str], body: bytes = b"x", **fields: int) -> Record:
    return Record(
        topic="%RETRY%G_T",
        queue_id=3,
        queue_offset=7,
        physical_offset=4096,
        born_timestamp_ms=1_500,
        born_host=encode_host("10.0.0.7", 8000),
        store_timestamp_ms=2_250,
        store_host=encode_host("127.0.0.1", 10911),
        body=body,
        properties=encode_properties(properties),
        sys_flag=fields.get("sys_flag", 0),
        reconsume_times=fields.get("reconsume_times", 0),
    )


def system_of(properties: dict[str, str], body: bytes = b"x", **fields: int) -> defs.SystemProperties:
    return message_of(record_of(properties, body, **fields), TOPIC, "handle", 60_000).system_properties


def test_every_field_of_a_send_becomes_its_property() -> None:
    """User properties stay, system fields get RocketMQ's keys, what is not set is not stored."""
    message = defs.Message(
        topic=TOPIC,
        user_properties={"colour": "red"},
        system_properties=defs.SystemProperties(
            tag="A",
            keys=["k1", "k2"],
            message_id="M1",
            born_timestamp=timestamp(1_500),
            born_host="laptop",
            message_group="g",
            trace_context="not W3C",
        ),
    )
    assert decode_properties(properties_of(message, "T")) == {
        "colour": "red",
        "UNIQ_KEY": "M1",
        "TAGS": "A",
        "KEYS": "k1 k2",
        "__SHARDINGKEY": "g",
        "TRACE_CONTEXT": "not W3C",
        "__BORNHOST": "laptop",
        "BORN_TIMESTAMP": "1500",
        "PGROUP": "T",
    }
    bare = defs.Message(system_properties=defs.SystemProperties(message_id="M1"))
    assert decode_properties(properties_of(bare, "T")) == {"UNIQ_KEY": "M1", "PGROUP": "T"}


def test_a_trace_goes_on_whoever_sends_or_receives() -> None:
    """trace_context becomes traceparent, and the other way round; a user's own traceparent stays."""
    message = defs.Message(system_properties=defs.SystemProperties(message_id="M1", trace_context=TRACEPARENT))
    assert decode_properties(properties_of(message, "T"))["traceparent"] == TRACEPARENT
    own = TRACEPARENT.replace("b7", "c8")
    message.user_properties["traceparent"] = own
    assert decode_properties(properties_of(message, "T"))["traceparent"] == own
    assert system_of({"traceparent": own}).trace_context == own
    assert system_of({"traceparent": own, "TRACE_CONTEXT": TRACEPARENT}).trace_context == TRACEPARENT
    assert not system_of({"colour": "red"}).HasField("trace_context")


def test_a_record_becomes_a_message() -> None:
    """Each stored value in its field; the topic is the one asked for, not the retry topic it lay in."""
    properties = {
        "UNIQ_KEY": "M1",
        "TAGS": "A",
        "KEYS": "k1 k2",
        "__SHARDINGKEY": "g",
        "PGROUP": "T",
        "WAIT": "true",
        "colour": "red",
        "DLQ_ORIGIN_TOPIC": "O",
        "DLQ_ORIGIN_MESSAGE_ID": "OM",
    }
    message = message_of(record_of(properties, b"hello", reconsume_times=2), TOPIC, "handle", 60_000)
    system = message.system_properties
    assert (message.topic.name, message.body, dict(message.user_properties)) == ("T", b"hello", {"colour": "red"})
    assert (system.message_id, system.tag, list(system.keys), system.message_group) == ("M1", "A", ["k1", "k2"], "g")
    assert system.body_digest.checksum == hashlib.md5(b"hello", usedforsecurity=False).hexdigest().upper()
    assert (system.body_encoding, system.message_type) == (defs.IDENTITY, defs.FIFO)
    assert (system.born_host, system.store_host) == ("10.0.0.7:8000", "127.0.0.1:10911")
    assert (system.born_timestamp.seconds, system.born_timestamp.nanos) == (1, 500_000_000)
    assert (system.store_timestamp.seconds, system.store_timestamp.nanos) == (2, 250_000_000)
    assert (system.receipt_handle, system.invisible_duration.seconds) == ("handle", 60)
    assert (system.queue_id, system.queue_offset, system.delivery_attempt) == (3, 7, 3)
    assert (system.dead_letter_queue.topic, system.dead_letter_queue.message_id) == ("O", "OM")


def test_a_record_without_properties_is_a_message_too() -> None:
    """Its id is then where it lies: store host and physical offset."""
    system = system_of({})
    assert system.message_id == "7F00000100002A9F0000000000001000"
    assert not system.HasField("tag")
    assert not system.HasField("message_group")
    assert not system.HasField("dead_letter_queue")


def test_the_type_follows_from_the_properties() -> None:
    """Transaction before delay before order."""
    assert system_of({"TRAN_MSG": "true", "DELAY": "3"}).message_type == defs.TRANSACTION
    assert system_of({"DELAY": "3", "__SHARDINGKEY": "g"}).message_type == defs.DELAY
    timed = system_of({"TIMER_DELIVER_MS": "1500"})
    assert (timed.message_type, timed.delivery_timestamp.seconds) == (defs.DELAY, 1)
    assert system_of({"TRAN_MSG": "false"}).message_type == defs.NORMAL


def test_what_a_timer_notes_is_no_property_of_the_users() -> None:
    """Unlike the reason of a dead letter, which its reader is to find."""
    properties = {
        "APOGEEMQ_TIMER_OFFSET": "7",
        "TIMER_OUT_MS": "1",
        "APOGEEMQ_FAILURE_REASON": "spoilt",
        "colour": "red",
    }
    assert user_properties_of(properties) == {"APOGEEMQ_FAILURE_REASON": "spoilt", "colour": "red"}


def test_a_gzip_body_goes_through_as_it_is() -> None:
    """The system flag says compressed, the digest is over what was sent."""
    message = defs.Message(system_properties=defs.SystemProperties(message_id="M1", body_encoding=defs.GZIP))
    assert sys_flag_of(message) == MessageSysFlag.COMPRESSED_FLAG
    body = gzip.compress(b"hello" * 100)
    shown = message_of(record_of({}, body, sys_flag=1), TOPIC, "handle", 0)
    assert (shown.body, shown.system_properties.body_encoding) == (body, defs.GZIP)
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest().upper()
    assert shown.system_properties.body_digest.checksum == digest


def test_what_a_remoting_client_compressed_is_opened() -> None:
    """gRPC clients know GZIP only; a body that can't be opened stays what it is."""
    text = b"hello" * 100
    for body, sys_flag in (
        (zlib.compress(text), 1),
        (compress(text, CompressionType.ZLIB), CompressionType.ZLIB.sys_flag),
    ):
        shown = message_of(record_of({}, body, sys_flag=sys_flag), TOPIC, "handle", 0)
        assert (shown.body, shown.system_properties.body_encoding) == (text, defs.IDENTITY)
    damaged = message_of(record_of({}, b"no zlib", sys_flag=1), TOPIC, "handle", 0)
    assert damaged.body == b"no zlib"
