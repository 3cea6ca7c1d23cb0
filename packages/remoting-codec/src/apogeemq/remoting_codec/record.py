"""The stored record: what lies in the commit log, and back to back (no count) in pull, pop, query and view answers.

All integers are big-endian. Offsets in the table hold for IPv4 hosts; each IPv6 host adds 12 bytes.
```
  at  size     field                                 at  size     field
   0  4        total size                            56  8        store timestamp, ms
   4  4        magic                                 64  8 or 20  store host
   8  4        CRC-32 of the body & 0x7FFFFFFF       72  4        reconsume times
  12  4        queue id                              76  8        prepared transaction offset
  16  4        flag (the user's)                     84  4        body length
  20  8        queue offset                          88  n        body, as stored (perhaps compressed)
  28  8        physical offset                           1 or 2   topic length: 1 byte in V1, 2 in V2
  36  4        system flag                               t        topic
  40  8        born timestamp, ms                        2        properties length, at most 32,767
  48  8 or 20  born host: 4 or 16 + port (4)             p        properties (see message.py)
```
Bits 0x10 and 0x20 of the system flag say whether the born and the store host are IPv6.
The end of a log file that the next record does not fit into is a blank filler: total size = what is left of the file,
magic = MAGIC_BLANK, the rest means nothing.
Source: remoting.md §5 (Apache MessageDecoder, CommitLog, MessageVersion) and the recorded commit log of 5.3.3.
"""

import struct
import zlib
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, TypeAlias

import msgspec
from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.errors import LocalProtocolError, RecordInvalid
from apogeemq.remoting_codec.message import (
    PROPERTIES_SIZE_BYTES_MAX,
    PROPERTY_UNIQ_KEY,
    MessageExt,
    decode_properties,
)
from apogeemq.remoting_codec.message_id import encode_offset_message_id

Buffer: TypeAlias = bytes | bytearray | memoryview

MAGIC_V1 = 0xDAA320A7
"""Topic length in one byte, at most 127."""
MAGIC_V2 = 0xDAA320AB
"""Topic length in two bytes, at most 32,767."""
MAGIC_BLANK = 0xCBD43194
"""Filler at the end of a log file."""

BLANK_SIZE_BYTES_MIN = 8
"""Size and magic of the filler: a log file always keeps this much room at its end."""
TOPIC_SIZE_BYTES_MAX_V1 = 127
TOPIC_SIZE_BYTES_MAX_V2 = 32_767

_HOST_BITS = MessageSysFlag.BORNHOST_V6_FLAG | MessageSysFlag.STOREHOSTADDRESS_V6_FLAG

HEAD = struct.Struct(">iIIiiqqiq8sq8siqi")
"""The 88 bytes before the body when both hosts are IPv4: size, magic, body CRC, queue id, flag, queue offset, physical
offset, system flag, born timestamp, born host, store timestamp, store host, reconsume times, prepared transaction
offset, body length. The store's append packs this one directly.
"""
HEADS: dict[int, struct.Struct] = {
    0: HEAD,
    MessageSysFlag.BORNHOST_V6_FLAG: struct.Struct(">iIIiiqqiq20sq8siqi"),
    MessageSysFlag.STOREHOSTADDRESS_V6_FLAG: struct.Struct(">iIIiiqqiq8sq20siqi"),
    _HOST_BITS: struct.Struct(">iIIiiqqiq20sq20siqi"),
}
"""The same head for every family of hosts, by the two IPv6 bits of the system flag."""
TOPIC_SIZE_V1 = struct.Struct(">b")
TOPIC_SIZE_V2 = struct.Struct(">h")
PROPERTIES_SIZE = struct.Struct(">h")
SIZE_AND_MAGIC = struct.Struct(">iI")

QUEUE_OFFSET_AT = 20
PHYSICAL_OFFSET_AT = 28
SYS_FLAG_AT = 36
BORN_HOST_AT = 48
STORE_TIMESTAMP_AT = 56
"""With an IPv4 born host; 12 more with IPv6."""

_PEEK = struct.Struct(">iIIiiqqi")
_INT64 = struct.Struct(">q")
_INT32 = struct.Struct(">i")


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One stored record, decoded but not interpreted: body and properties stay the stored bytes.

    Hosts are packed: 4 or 16 address bytes and the port as int32 (`encode_host`, `format_host`); their sizes must
    agree with the IPv6 bits of `sys_flag` (message.with_host_families). Size and CRC follow from the rest.
    """

    topic: str
    queue_id: int
    queue_offset: int
    physical_offset: int
    born_timestamp_ms: int
    born_host: bytes
    store_timestamp_ms: int
    store_host: bytes
    body: bytes = b""
    properties: bytes = b""
    flag: int = 0
    sys_flag: int = 0
    reconsume_times: int = 0
    prepared_transaction_offset: int = 0
    magic: int = MAGIC_V1

    @property
    def body_crc(self) -> int:
        """What the head holds as CRC."""
        return body_crc(self.body)

    @property
    def size_bytes(self) -> int:
        """What the head holds as total size."""
        return record_size_bytes(
            len(self.topic.encode()), len(self.body), len(self.properties), self.sys_flag, self.magic
        )


class RecordHead(NamedTuple):
    """What recovery and queries by time need of a record, read at fixed places.

    Only that the bytes are there and the magic is a record's was checked: not sizes, not the CRC.
    """

    size_bytes: int
    magic: int
    queue_id: int
    queue_offset: int
    physical_offset: int
    sys_flag: int
    store_timestamp_ms: int


# --------------------------------------------------------------------------------------------------------------------
# Rules
# --------------------------------------------------------------------------------------------------------------------


def body_crc(body: Buffer) -> int:
    """CRC-32 of the stored body with the sign bit cleared; 0 for an empty body."""
    return zlib.crc32(body) & 0x7FFFFFFF


def magic_of_topic(topic_size_bytes: int) -> int:
    """The oldest version that can hold a topic of this size in UTF-8 bytes (autoMessageVersionOnTopicLen)."""
    return MAGIC_V1 if topic_size_bytes <= TOPIC_SIZE_BYTES_MAX_V1 else MAGIC_V2


def record_size_bytes(
    topic_size_bytes: int, body_size_bytes: int, properties_size_bytes: int, sys_flag: int, magic: int = MAGIC_V1
) -> int:
    """Total size of a record with parts of these sizes: 91 bytes more than they, for IPv4 hosts and V1."""
    topic_length = TOPIC_SIZE_V1 if magic == MAGIC_V1 else TOPIC_SIZE_V2
    head_size_bytes = HEADS[sys_flag & _HOST_BITS].size
    fixed_size_bytes = head_size_bytes + topic_length.size + PROPERTIES_SIZE.size
    return fixed_size_bytes + body_size_bytes + topic_size_bytes + properties_size_bytes


def encode_host(ip: str, port: int) -> bytes:
    """4 or 16 address bytes, then the port as int32. Errors: LocalProtocolError for a name, or a port beyond 65535."""
    try:
        address = ip_address(ip)
    except ValueError as error:
        raise LocalProtocolError(f"not an IP address: {ip!r}") from error
    if not 0 <= port <= 65_535:
        raise LocalProtocolError(f"not a port: {port}")
    return address.packed + _INT32.pack(port)


def format_host(host: bytes) -> str:
    """ "ip:port", or "[ip]:port" for IPv6. Errors: RecordInvalid unless `host` is 8 or 20 bytes."""
    try:
        port = int.from_bytes(host[-4:], "big", signed=True)
        if len(host) == 8:
            return f"{IPv4Address(host[:4])}:{port}"
        return f"[{IPv6Address(host[:-4])}]:{port}"
    except AddressValueError as error:
        raise RecordInvalid(f"a host has {len(host)} bytes instead of 8 or 20") from error


# --------------------------------------------------------------------------------------------------------------------
# Whole records
# --------------------------------------------------------------------------------------------------------------------


def encode_record(record: Record) -> bytes:
    """The bytes of one record. The plain twin of the store's append.

    Errors: LocalProtocolError when a field does not fit its place, a topic or the properties are too long for the
    version, or the hosts' sizes contradict `sys_flag`.
    """
    try:
        topic = record.topic.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"the topic is not valid Unicode: {error.reason}") from error
    topic_length = _topic_length_struct(record.magic)
    if topic_length is None:
        raise LocalProtocolError(f"magic 0x{record.magic:08X} is not a record's")
    if len(topic) > (TOPIC_SIZE_BYTES_MAX_V1 if topic_length is TOPIC_SIZE_V1 else TOPIC_SIZE_BYTES_MAX_V2):
        raise LocalProtocolError(f"a topic of {len(topic)} bytes does not fit a record of this version")
    if len(record.properties) > PROPERTIES_SIZE_BYTES_MAX:
        raise LocalProtocolError(f"properties of {len(record.properties)} bytes exceed {PROPERTIES_SIZE_BYTES_MAX}")
    _check_host(record.born_host, record.sys_flag & MessageSysFlag.BORNHOST_V6_FLAG, "born")
    _check_host(record.store_host, record.sys_flag & MessageSysFlag.STOREHOSTADDRESS_V6_FLAG, "store")
    size_bytes = record_size_bytes(len(topic), len(record.body), len(record.properties), record.sys_flag, record.magic)
    try:
        head = HEADS[record.sys_flag & _HOST_BITS].pack(
            size_bytes,
            record.magic,
            body_crc(record.body),
            record.queue_id,
            record.flag,
            record.queue_offset,
            record.physical_offset,
            record.sys_flag,
            record.born_timestamp_ms,
            record.born_host,
            record.store_timestamp_ms,
            record.store_host,
            record.reconsume_times,
            record.prepared_transaction_offset,
            len(record.body),
        )
    except struct.error as error:
        raise LocalProtocolError(f"a record field is out of range: {error}") from error
    properties_size = PROPERTIES_SIZE.pack(len(record.properties))
    return b"".join((head, record.body, topic_length.pack(len(topic)), topic, properties_size, record.properties))


def decode_record(buffer: Buffer, offset: int = 0, *, check_crc: bool = True) -> Record:
    """The record that starts at `offset` in `buffer`; what follows it is not looked at.

    The parts must add up to the total size. Body and properties are copied out of the buffer.
    Errors: RecordInvalid with the record's start, also for a blank filler, and when the CRC of the body differs
    (unless `check_crc` is False).
    """
    (_, magic, crc, *fields, body_size_bytes), body_at, topic_at, topic_end, properties_at, end = _parts(buffer, offset)
    body = bytes(buffer[body_at : body_at + body_size_bytes])
    if check_crc and body_crc(body) != crc:
        raise RecordInvalid("the CRC of the body differs", offset)
    try:
        topic = bytes(buffer[topic_at:topic_end]).decode()
    except UnicodeDecodeError as error:
        raise RecordInvalid("the topic is not UTF-8", offset) from error
    (
        queue_id,
        flag,
        queue_offset,
        physical_offset,
        sys_flag,
        born_timestamp_ms,
        born_host,
        store_timestamp_ms,
        store_host,
        reconsume_times,
        prepared_transaction_offset,
    ) = fields
    return Record(
        topic=topic,
        queue_id=queue_id,
        queue_offset=queue_offset,
        physical_offset=physical_offset,
        born_timestamp_ms=born_timestamp_ms,
        born_host=born_host,
        store_timestamp_ms=store_timestamp_ms,
        store_host=store_host,
        body=body,
        properties=bytes(buffer[properties_at:end]),
        flag=flag,
        sys_flag=sys_flag,
        reconsume_times=reconsume_times,
        prepared_transaction_offset=prepared_transaction_offset,
        magic=magic,
    )


def decode_records(buffer: Buffer, *, check_crc: bool = True) -> list[Record]:
    """All records of a pull or pop body. Errors: as `decode_record`; Java's clients stop silently there instead."""
    records: list[Record] = []
    offset = 0
    while offset < len(buffer):
        records.append(decode_record(buffer, offset, check_crc=check_crc))
        offset += SIZE_AND_MAGIC.unpack_from(buffer, offset)[0]
    return records


def encode_blank(size_bytes: int) -> bytes:
    """The first 8 bytes of a filler that covers the last `size_bytes` (at least 8) of a log file."""
    if size_bytes < BLANK_SIZE_BYTES_MIN:
        raise LocalProtocolError(f"a blank filler needs {BLANK_SIZE_BYTES_MIN} bytes, not {size_bytes}")
    return SIZE_AND_MAGIC.pack(size_bytes, MAGIC_BLANK)


def message_from_record(record: Record) -> MessageExt:
    """The record as a message for a user; the body stays as stored (perhaps compressed)."""
    properties = decode_properties(record.properties)
    offset_message_id = encode_offset_message_id(record.store_host, record.physical_offset)
    return MessageExt(
        topic=record.topic,
        body=record.body,
        properties=properties,
        flag=record.flag,
        queue_id=record.queue_id,
        queue_offset=record.queue_offset,
        physical_offset=record.physical_offset,
        sys_flag=record.sys_flag,
        born_timestamp_ms=record.born_timestamp_ms,
        born_host=format_host(record.born_host),
        store_timestamp_ms=record.store_timestamp_ms,
        store_host=format_host(record.store_host),
        reconsume_times=record.reconsume_times,
        prepared_transaction_offset=record.prepared_transaction_offset,
        body_crc=record.body_crc,
        store_size_bytes=record.size_bytes,
        message_id=properties.get(PROPERTY_UNIQ_KEY, offset_message_id),
        offset_message_id=offset_message_id,
    )


# --------------------------------------------------------------------------------------------------------------------
# A look without decoding
# --------------------------------------------------------------------------------------------------------------------


def peek_size_and_magic(buffer: Buffer, offset: int = 0) -> tuple[int, int]:
    """Total size and magic, unchecked: a blank filler, zeros and rubbish come out as they are.

    Errors: RecordInvalid when fewer than 8 bytes are there.
    """
    size_bytes, magic = _unpack(SIZE_AND_MAGIC, buffer, offset, "size and magic")
    return size_bytes, magic


def peek_head(buffer: Buffer, offset: int = 0) -> RecordHead:
    """The fixed part of the record that starts at `offset`.

    Errors: RecordInvalid when the magic is not a record's or the bytes end too early.
    """
    size_bytes, magic, _, queue_id, _, queue_offset, physical_offset, sys_flag = _peek(buffer, offset)
    timestamp_at = STORE_TIMESTAMP_AT + (12 if sys_flag & MessageSysFlag.BORNHOST_V6_FLAG else 0)
    store_timestamp_ms = _unpack(_INT64, buffer, offset + timestamp_at, "the store timestamp", offset)[0]
    return RecordHead(size_bytes, magic, queue_id, queue_offset, physical_offset, sys_flag, store_timestamp_ms)


def peek_properties(buffer: Buffer, offset: int = 0) -> bytes:
    """The properties of the record that starts at `offset`, as stored. Its body, however large, is not touched.

    Errors: as `decode_record` without its CRC.
    """
    _, _, _, _, properties_at, end = _parts(buffer, offset)
    return bytes(buffer[properties_at:end])


def peek_store_timestamp_ms(buffer: Buffer, offset: int = 0) -> int:
    """When the record that starts at `offset` was stored. Errors: as `peek_head`."""
    return peek_head(buffer, offset).store_timestamp_ms


# --------------------------------------------------------------------------------------------------------------------


def _topic_length_struct(magic: int) -> struct.Struct | None:
    if magic == MAGIC_V1:
        return TOPIC_SIZE_V1
    return TOPIC_SIZE_V2 if magic == MAGIC_V2 else None


def _peek(buffer: Buffer, offset: int) -> tuple[int, ...]:
    """The fields up to the system flag, from a buffer that starts with a record's magic."""
    fields = _unpack(_PEEK, buffer, offset, "its head")
    if fields[1] == MAGIC_BLANK:
        raise RecordInvalid("a blank filler, not a record", offset)
    if fields[1] not in (MAGIC_V1, MAGIC_V2):
        raise RecordInvalid(f"unknown magic 0x{fields[1]:08X}", offset)
    return fields


def _parts(buffer: Buffer, offset: int) -> tuple[tuple, int, int, int, int, int]:  # type: ignore[type-arg]  # as _unpack
    """The head's fields, and where body, topic, topic's end, properties and the record's end are.

    Errors: RecordInvalid when they do not add up to the total size.
    """
    sys_flag = _peek(buffer, offset)[-1]
    head = HEADS[sys_flag & _HOST_BITS]
    fields = _unpack(head, buffer, offset, "its head")
    size_bytes, magic, body_size_bytes = fields[0], fields[1], fields[-1]
    if size_bytes > len(buffer) - offset:
        raise RecordInvalid(f"total size {size_bytes} exceeds the {len(buffer) - offset} bytes there are", offset)
    body_at = offset + head.size
    topic_length = TOPIC_SIZE_V1 if magic == MAGIC_V1 else TOPIC_SIZE_V2
    topic_at = body_at + _size(body_size_bytes, "body", offset) + topic_length.size
    topic_size_bytes = _unpack(topic_length, buffer, topic_at - topic_length.size, "the topic length", offset)[0]
    topic_end = topic_at + _size(topic_size_bytes, "topic", offset)
    properties_at = topic_end + PROPERTIES_SIZE.size
    properties_size_bytes = _unpack(PROPERTIES_SIZE, buffer, topic_end, "the properties length", offset)[0]
    end = properties_at + _size(properties_size_bytes, "properties", offset)
    if end - offset != size_bytes:
        raise RecordInvalid(f"total size {size_bytes}, but the parts have {end - offset} bytes", offset)
    return fields, body_at, topic_at, topic_end, properties_at, end


def _unpack(layout: struct.Struct, buffer: Buffer, at: int, what: str, offset: int | None = None) -> tuple:  # type: ignore[type-arg]  # struct types nothing
    """`layout` at `at`, or RecordInvalid naming the start of the record."""
    start = at if offset is None else offset
    if at < 0 or at + layout.size > len(buffer):
        raise RecordInvalid(f"the bytes end inside {what}", start)
    return layout.unpack_from(buffer, at)


def _size(size_bytes: int, what: str, offset: int) -> int:
    if size_bytes < 0:
        raise RecordInvalid(f"{what} length {size_bytes} is negative", offset)
    return size_bytes


def _check_host(host: bytes, ipv6_bit: int, which: str) -> None:
    if len(host) != (20 if ipv6_bit else 8):
        raise LocalProtocolError(f"the {which} host has {len(host)} bytes, which contradicts the system flag")
