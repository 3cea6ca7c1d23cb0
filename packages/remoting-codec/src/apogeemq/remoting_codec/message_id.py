"""Identifiers of messages: where a message lies, who made it, and the handle to take a delayed one back.

```
offset message id   store address (4 or 16) | port i32 | physical offset i64           32 or 56 hex digits
unique key          address (4 or 16) | process id u16 | hash i32 | time u32 | counter u16   32 or 56 hex digits
                    time = milliseconds since the month began, in the client's local time; hash tells apart two
                    clients in one process (Java: its class loader's hash). Clients read the time out of it to narrow
                    queries by key, so the layout must be kept.
gRPC message id     01 | MAC address (6) | process id u16 | seconds since 2021-01-01 UTC u32 | sequence u32   34 digits
recall handle       url-safe Base64 of "v1 topic brokerName deliverMs uniqueKey"
```
All integers are big-endian, all digits upper case; any text of another length is somebody's own id.
No clock in here: callers hand in the time.
Source: remoting.md §6 (Apache MessageDecoder, MessageClientIDSetter, RecallMessageHandle; clients' MessageIdCodec).
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime, timedelta, tzinfo
from struct import Struct
from typing import NamedTuple

from apogeemq.remoting_codec.errors import LocalProtocolError, RemoteProtocolError

_OFFSET = Struct(">q")
_UNIQUE_TAIL = Struct(">HIIH")
_GRPC = Struct(">B6sHII")
_GRPC_VERSION = 1
_GRPC_EPOCH_MS = 1_609_459_200_000
"""2021-01-01T00:00:00Z."""
_ADDRESS_SIZES = (4, 16)
_ID_SIZES_BYTES = (16, 28)
_RECALL_VERSION = "v1"
_RECALL_SIZE_MAX = 4096
"""A topic, a broker name and a key fit several times; what is longer was not made by a broker."""


class UniqueKey(NamedTuple):
    """The parts of a unique key. `elapsed_ms` counts from the start of the month, in the maker's local time."""

    address: bytes
    process_id: int
    instance_hash: int
    elapsed_ms: int
    counter: int


class GrpcMessageId(NamedTuple):
    """The parts of a message id of the gRPC clients. `created_ms` has whole seconds."""

    mac: bytes
    process_id: int
    created_ms: int
    sequence: int


class RecallHandle(NamedTuple):
    """What a broker needs to find and delete a timer message. `deliver_ms` is the time it was to be delivered."""

    topic: str
    broker_name: str
    deliver_ms: int
    message_id: str


def encode_offset_message_id(store_host: bytes, physical_offset: int) -> str:
    """The id of the record at `physical_offset` in the broker at `store_host` (packed: 8 or 20 bytes)."""
    return (store_host + _OFFSET.pack(physical_offset)).hex().upper()


def decode_offset_message_id(message_id: str) -> tuple[bytes, int]:
    """Packed store host and physical offset. Errors: RemoteProtocolError when it is not 32 or 56 hex digits."""
    raw = _unhex(message_id, "offset message id")
    return raw[:-8], _OFFSET.unpack(raw[-8:])[0]


def create_unique_key(
    *, address: bytes, process_id: int, instance_hash: int, now_ms: int, month_start_ms: int, counter: int
) -> str:
    """A unique key for a message made at `now_ms`; `month_start_ms` comes from `month_start_of`.

    Process id and counter are cut to 16 bits, hash and time to 32, as in Java: a producer counts up for ever.
    Errors: LocalProtocolError unless `address` has 4 or 16 bytes.
    """
    if len(address) not in _ADDRESS_SIZES:
        raise LocalProtocolError(f"an address has {len(address)} bytes instead of 4 or 16")
    tail = _UNIQUE_TAIL.pack(
        process_id & 0xFFFF, instance_hash & 0xFFFFFFFF, (now_ms - month_start_ms) & 0xFFFFFFFF, counter & 0xFFFF
    )
    return (address + tail).hex().upper()


def decode_unique_key(unique_key: str) -> UniqueKey:
    """The parts. Errors: RemoteProtocolError when it is not 32 or 56 hex digits."""
    raw = _unhex(unique_key, "unique key")
    return UniqueKey(raw[:-12], *_UNIQUE_TAIL.unpack(raw[-12:]))


def month_start_of(now_ms: int, timezone: tzinfo | None = None) -> int:
    """When the month of `now_ms` began, in milliseconds since 1970. `timezone` None means the machine's."""
    return _to_ms(_month_start(_local(now_ms, timezone)))


def unique_key_created_ms(unique_key: UniqueKey, now_ms: int, timezone: tzinfo | None = None) -> int:
    """When the key was made, given that it is not from the future and at most a month old.

    The key has no month: this month is tried first and, when that lies after `now_ms`, the one before.
    """
    month_start = _month_start(_local(now_ms, timezone))
    created_ms = _to_ms(month_start) + unique_key.elapsed_ms
    if created_ms <= now_ms:
        return created_ms
    month_before = _month_start(_local(_to_ms(month_start - timedelta(days=1)), timezone))
    return _to_ms(month_before) + unique_key.elapsed_ms


def encode_grpc_message_id(mac: bytes, process_id: int, created_ms: int, sequence: int) -> str:
    """The 34 digits. Process id, time and sequence are cut to their widths.

    Errors: LocalProtocolError unless `mac` has 6 bytes.
    """
    if len(mac) != 6:
        raise LocalProtocolError(f"a MAC address has {len(mac)} bytes instead of 6")
    seconds = (created_ms - _GRPC_EPOCH_MS) // 1000 & 0xFFFFFFFF
    return _GRPC.pack(_GRPC_VERSION, mac, process_id & 0xFFFF, seconds, sequence & 0xFFFFFFFF).hex().upper()


def decode_grpc_message_id(message_id: str) -> GrpcMessageId | None:
    """The parts, or None: ids of any other shape are legal (version 0) and say nothing."""
    try:
        raw = bytes.fromhex(message_id) if len(message_id) == 2 * _GRPC.size else b""
    except ValueError:
        return None
    if len(raw) != _GRPC.size or raw[0] != _GRPC_VERSION:
        return None
    _, mac, process_id, seconds, sequence = _GRPC.unpack(raw)
    return GrpcMessageId(mac, process_id, _GRPC_EPOCH_MS + seconds * 1000, sequence)


def encode_recall_handle(handle: RecallHandle) -> str:
    """The handle as text. Errors: LocalProtocolError when a part is empty or contains a space."""
    parts = (_RECALL_VERSION, handle.topic, handle.broker_name, str(handle.deliver_ms), handle.message_id)
    if any(not part or " " in part for part in parts):
        raise LocalProtocolError("a part of a recall handle is empty or contains a space")
    return urlsafe_b64encode(" ".join(parts).encode()).decode()


def decode_recall_handle(text: str) -> RecallHandle:
    """The parts of a handle. Errors: RemoteProtocolError when it is none, or of another version."""
    if len(text) > _RECALL_SIZE_MAX:
        raise RemoteProtocolError(f"a recall handle of {len(text)} characters")
    try:
        version, topic, broker_name, deliver_ms, message_id = urlsafe_b64decode(text).decode().split(" ")
        if version != _RECALL_VERSION:
            raise RemoteProtocolError("a recall handle of an unknown version")
        return RecallHandle(topic, broker_name, int(deliver_ms), message_id)
    except (binascii.Error, ValueError) as error:
        raise RemoteProtocolError("not a recall handle") from error


def _unhex(text: str, what: str) -> bytes:
    """The bytes of an id of either length. `bytes.fromhex` skips spaces, hence the check of the length after it."""
    try:
        raw = bytes.fromhex(text) if len(text) in (2 * size for size in _ID_SIZES_BYTES) else b""
    except ValueError as error:
        raise RemoteProtocolError(f"{what} has characters that are no hex digits") from error
    if len(raw) not in _ID_SIZES_BYTES:
        raise RemoteProtocolError(f"{what} has {len(text)} characters instead of 32 or 56 hex digits")
    return raw


def _local(time_ms: int, timezone: tzinfo | None) -> datetime:
    """Wall time there. A naive value means the machine's zone, with the offset valid at each moment; a fixed offset
    would be wrong in a month with a clock change.
    """
    return datetime.fromtimestamp(time_ms / 1000, timezone)


def _month_start(local: datetime) -> datetime:
    return local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
