"""Messages as gRPC clients have them, and as brokers store them.

| gRPC                                      | stored                                                     |
|-------------------------------------------|------------------------------------------------------------|
| user_properties                           | properties under the same keys                             |
| tag, keys, message_id                     | TAGS, KEYS (joined by a space), UNIQ_KEY                   |
| message_group, trace_context              | __SHARDINGKEY, TRACE_CONTEXT                               |
| delivery_timestamp                        | TIMER_DELIVER_MS                                           |
| born_host, born_timestamp                 | __BORNHOST, BORN_TIMESTAMP; born timestamp of the record   |
| delivery_attempt                          | reconsume times + 1                                        |
| body_encoding GZIP                        | system flag 1; the body stays as it was sent               |
| message_type TRANSACTION                  | TRAN_MSG, system flag 4                                    |
| orphaned_transaction_recovery_duration    | CHECK_IMMUNITY_TIME_IN_SECONDS, of a transaction           |

A trace_context that is a W3C traceparent also becomes the user property `traceparent`, unless the user set one, and a
message that has only that one gets its trace_context from it: a trace goes through whichever client sent or receives.
Source: reference grpc_v2.md §6, §7 (Apache GrpcConverter, SendMessageActivity.buildMessageExt).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from apogeemq.mesh.trace_context import TRACEPARENT, parse_traceparent
from apogeemq.proto.v2.definition_pb2 import (
    DELAY,
    FIFO,
    GZIP,
    IDENTITY,
    MD5,
    NORMAL,
    TRANSACTION,
    Encoding,
    Message,
    MessageType,
    Resource,
    SystemProperties,
)
from apogeemq.proxy.core.durations import duration, milliseconds, timestamp
from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.compression import decompress
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.message import (
    PROPERTY_BORN_HOST,
    PROPERTY_BORN_TIMESTAMP,
    PROPERTY_CHECK_IMMUNITY_TIME_IN_SECONDS,
    PROPERTY_DELAY,
    PROPERTY_DLQ_ORIGIN_MESSAGE_ID,
    PROPERTY_DLQ_ORIGIN_TOPIC,
    PROPERTY_KEYS,
    PROPERTY_PGROUP,
    PROPERTY_SHARDING_KEY,
    PROPERTY_TAGS,
    PROPERTY_TIMER_DELIVER_MS,
    PROPERTY_TRACE_CONTEXT,
    PROPERTY_TRAN_MSG,
    PROPERTY_TRANSIENT_PREFIX,
    PROPERTY_UNIQ_KEY,
    RESERVED_PROPERTY_KEYS,
    decode_properties,
    encode_properties,
    is_compressed,
)
from apogeemq.remoting_codec.message_id import encode_offset_message_id
from apogeemq.remoting_codec.record import Record, format_host

_TIMER_OFFSET = "APOGEEMQ_TIMER_OFFSET"
"""Where a message lay until its time came: a matter between brokers."""

_SHOWN_AS_FIELDS = RESERVED_PROPERTY_KEYS | {PROPERTY_SHARDING_KEY, PROPERTY_TRACE_CONTEXT, _TIMER_OFFSET}
"""Properties that a receiver finds in system_properties, or never."""

_GZIP_MAGIC = b"\x1f\x8b"
_OPENED_BODY_SIZE_BYTES_MAX = 16 * 1024 * 1024


def properties_of(message: Message, topic: str) -> bytes:
    """The stored properties of a checked message. `topic` is its producer group, as in Apache's proxy."""
    system = message.system_properties
    properties = dict(message.user_properties) if message.user_properties else {}
    trace_context = system.trace_context
    if trace_context and TRACEPARENT not in properties and parse_traceparent(trace_context) is not None:
        properties[TRACEPARENT] = trace_context
    properties |= {
        PROPERTY_UNIQ_KEY: system.message_id,
        PROPERTY_TAGS: system.tag,
        PROPERTY_KEYS: " ".join(system.keys),
        PROPERTY_SHARDING_KEY: system.message_group,
        PROPERTY_TRACE_CONTEXT: trace_context,
        PROPERTY_BORN_HOST: system.born_host,
        PROPERTY_PGROUP: topic,
    }
    if system.HasField("delivery_timestamp"):
        # A time before 1970 is over like any other that is.
        properties[PROPERTY_TIMER_DELIVER_MS] = str(max(milliseconds(system.delivery_timestamp), 0))
    if system.HasField("born_timestamp"):
        properties[PROPERTY_BORN_TIMESTAMP] = str(milliseconds(system.born_timestamp))
    if system.message_type == TRANSACTION:
        properties[PROPERTY_TRAN_MSG] = "true"
        if system.HasField("orphaned_transaction_recovery_duration"):
            recovery_s = milliseconds(system.orphaned_transaction_recovery_duration) // 1000
            properties[PROPERTY_CHECK_IMMUNITY_TIME_IN_SECONDS] = str(recovery_s)
    return encode_properties(properties)


def sys_flag_of(message: Message) -> int:
    """The system flag of a checked message: whether its body is compressed, whether it is a half message."""
    system = message.system_properties
    sys_flag = MessageSysFlag.COMPRESSED_FLAG if system.body_encoding == GZIP else 0
    return sys_flag | MessageSysFlag.TRANSACTION_PREPARED_TYPE if system.message_type == TRANSACTION else sys_flag


def message_of(record: Record, resource: Resource, receipt_handle: str, invisible_time_ms: int) -> Message:
    """A stored record as a client receives it.

    `resource` is the topic that was asked for: what lies in a retry topic is shown under it.
    """
    properties = decode_properties(record.properties)
    body, encoding = readable_body(record)
    system = _system_properties(record, properties, receipt_handle, invisible_time_ms)
    system.body_encoding = encoding
    system.body_digest.type = MD5
    system.body_digest.checksum = hashlib.md5(body, usedforsecurity=False).hexdigest().upper()
    return Message(topic=resource, user_properties=user_properties_of(properties), system_properties=system, body=body)


def readable_body(record: Record) -> tuple[bytes, Encoding]:
    """The body in a form that gRPC clients know: plain, or GZIP as one of them sent it.

    What a Remoting client compressed otherwise (zlib, LZ4, Zstandard) is opened here. One that can't be opened, be it
    damaged, above 16 MiB or by a library that is not installed, stays as it is: the record is what was stored.
    """
    if not is_compressed(record.sys_flag):
        return record.body, IDENTITY
    if record.body.startswith(_GZIP_MAGIC):
        return record.body, GZIP
    try:
        return decompress(record.body, record.sys_flag, max_size_bytes=_OPENED_BODY_SIZE_BYTES_MAX), IDENTITY
    except CodecError:
        return record.body, IDENTITY


def user_properties_of(properties: Mapping[str, str]) -> dict[str, str]:
    """What the sender set by itself."""
    return {
        key: value
        for key, value in properties.items()
        if key not in _SHOWN_AS_FIELDS and not key.startswith(PROPERTY_TRANSIENT_PREFIX)
    }


def _system_properties(
    record: Record, properties: Mapping[str, str], receipt_handle: str, invisible_time_ms: int
) -> SystemProperties:
    message_id = properties.get(PROPERTY_UNIQ_KEY)
    system = SystemProperties(
        keys=properties.get(PROPERTY_KEYS, "").split(),
        message_id=message_id or encode_offset_message_id(record.store_host, record.physical_offset),
        message_type=_stored_type(properties),
        born_timestamp=timestamp(max(record.born_timestamp_ms, 0)),
        born_host=properties.get(PROPERTY_BORN_HOST) or format_host(record.born_host),
        store_timestamp=timestamp(max(record.store_timestamp_ms, 0)),
        store_host=format_host(record.store_host),
        receipt_handle=receipt_handle,
        queue_id=record.queue_id,
        queue_offset=record.queue_offset,
        invisible_duration=duration(invisible_time_ms),
        delivery_attempt=record.reconsume_times + 1,
    )
    _set_optional(system, properties)
    return system


def _set_optional(system: SystemProperties, properties: Mapping[str, str]) -> None:
    """Fields that a message may lack altogether."""
    if tag := properties.get(PROPERTY_TAGS):
        system.tag = tag
    if message_group := properties.get(PROPERTY_SHARDING_KEY):
        system.message_group = message_group
    if trace_context := properties.get(PROPERTY_TRACE_CONTEXT) or properties.get(TRACEPARENT):
        system.trace_context = trace_context
    deliver_ms = properties.get(PROPERTY_TIMER_DELIVER_MS, "")
    if deliver_ms.isdecimal() and len(deliver_ms) <= 15:
        system.delivery_timestamp.CopyFrom(timestamp(int(deliver_ms)))
    origin_topic = properties.get(PROPERTY_DLQ_ORIGIN_TOPIC)
    origin_message_id = properties.get(PROPERTY_DLQ_ORIGIN_MESSAGE_ID)
    if origin_topic and origin_message_id:
        system.dead_letter_queue.topic = origin_topic
        system.dead_letter_queue.message_id = origin_message_id


def _stored_type(properties: Mapping[str, str]) -> MessageType:
    if properties.get(PROPERTY_TRAN_MSG) == "true":
        return TRANSACTION
    if PROPERTY_DELAY in properties or PROPERTY_TIMER_DELIVER_MS in properties:
        return DELAY
    return FIFO if PROPERTY_SHARDING_KEY in properties else NORMAL
