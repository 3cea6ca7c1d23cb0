"""Remoting frames as the load generator needs them: encoded once, patched in place, replies scanned, not decoded.

This is on purpose not our codec: it is faster for this one use, and owes nothing to the code that it measures.
A frame is: total length (4, without itself), serialize type and header length (1 + 3), JSON header, body; big-endian.
"""

import dataclasses
import itertools
import json
import os
import struct
import time
import types
from collections.abc import Mapping, Sequence

SEND_MESSAGE_V2 = 310
SEND_BATCH_MESSAGE = 320
PULL_MESSAGE = 11
HEART_BEAT = 34
GET_CONSUMER_LIST_BY_GROUP = 38
SUCCESS = 0
PULL_NOT_FOUND = 19

PULL_SYS_FLAG_SUBSCRIPTION = 4  # the expression is in the header; do not wait, do not commit
PULL_SYS_FLAG_SUSPEND = 2
VERSION_5_3_3 = 479
DEFAULT_TOPIC = "TBW102"  # the topic whose settings an auto-created topic inherits
TOPIC_QUEUES = 4

OPAQUE_BASE = 1_000_000_000
"""Opaques are this plus a slot number: always ten digits, so that a frame's length never depends on its slot."""
OPAQUE_DIGITS = 10

Buffer = bytes | bytearray

_PREFIX = struct.Struct(">II")
HEAD_BYTES = _PREFIX.size
_BATCH_ENTRY_HEAD = struct.Struct(">IIIII")  # total size, magic 0, CRC 0, flag, body length
_OPAQUE_KEY = b'"opaque":'
_SUCCESS_KEY = b'"code":0,'
_KEY_DIGITS = 8
_key_numbers = itertools.count()


class BrokenFrameError(Exception):
    """A reply that is no frame, or no frame of a reply."""


@dataclasses.dataclass(frozen=True)
class Template:
    """A whole request, and where in it the last eight hex digits of each message's UNIQ_KEY stand."""

    frame: bytearray
    key_offsets: tuple[int, ...]

    def address(self, slot: int) -> None:
        """Has the reply come to that slot."""
        at = self.frame.find(_OPAQUE_KEY) + len(_OPAQUE_KEY)
        self.frame[at : at + OPAQUE_DIGITS] = b"%d" % (OPAQUE_BASE + slot)

    def renew_keys(self) -> None:
        """Gives every message in it a key that no other message of this process has."""
        for offset in self.key_offsets:
            self.frame[offset : offset + _KEY_DIGITS] = b"%08X" % (next(_key_numbers) & 0xFFFFFFFF)


def encode(code: int, ext_fields: Mapping[str, str], opaque: int, body: Buffer = b"") -> bytes:
    """One request as RocketMQ's own clients lay it out."""
    header = json.dumps(
        {
            "code": code,
            "extFields": dict(ext_fields),
            "flag": 0,
            "language": "PYTHON",
            "opaque": opaque,
            "serializeTypeCurrentRPC": "JSON",
            "version": VERSION_5_3_3,
        },
        separators=(",", ":"),
    ).encode()
    return prefix(len(header), len(body)) + header + body


def prefix(header_bytes: int, body_bytes: int) -> bytes:
    """What stands before a JSON header: the frame's length and the mark."""
    return _PREFIX.pack(4 + header_bytes + body_bytes, header_bytes)


def send_template(
    topic: str,
    queue_id: int,
    slot: int,
    body: bytes,
    keys: int = 0,
    more: Mapping[str, str] = types.MappingProxyType({}),
    sys_flag: int = 0,
) -> Template:
    """A single send (310) with the properties that a producer always sets, so many KEYS that differ each time, and
    `more`.
    """
    properties = f"UNIQ_KEY\x01{_unique_key()}\x02WAIT\x01true\x02"
    properties += "".join(f"{name}\x01{value}\x02" for name, value in more.items())
    if keys:
        properties += f"KEYS\x01{' '.join(f'{_unique_key()}-{number}' for number in range(keys))}\x02"
    fields = _send_fields(topic, queue_id, properties) | {"f": str(sys_flag)}
    return _template(encode(SEND_MESSAGE_V2, fields, OPAQUE_BASE + slot, body))


def batch_template(topic: str, queue_id: int, slot: int, body: bytes, count: int) -> Template:
    """A batch (320) of `count` messages."""
    properties = f"UNIQ_KEY\x01{_unique_key()}\x02WAIT\x01true\x02".encode()
    size_bytes = _BATCH_ENTRY_HEAD.size + len(body) + 2 + len(properties)
    entry = (
        _BATCH_ENTRY_HEAD.pack(size_bytes, 0, 0, 0, len(body)) + body + struct.pack(">H", len(properties)) + properties
    )
    fields = _send_fields(topic, queue_id, properties="", batch=True)
    return _template(encode(SEND_BATCH_MESSAGE, fields, OPAQUE_BASE + slot, entry * count))


def pull_request(
    topic: str, group: str, queue_id: int, queue_offset: int, max_messages: int, slot: int, suspend_ms: int = 0
) -> bytes:
    """A pull (11) that commits nothing, and waits for a message only if it is given a time."""
    sys_flag = PULL_SYS_FLAG_SUBSCRIPTION | (PULL_SYS_FLAG_SUSPEND if suspend_ms else 0)
    fields = {
        "consumerGroup": group,
        "topic": topic,
        "queueId": str(queue_id),
        "queueOffset": str(queue_offset),
        "maxMsgNums": str(max_messages),
        "sysFlag": str(sys_flag),
        "commitOffset": "0",
        "suspendTimeoutMillis": str(suspend_ms),
        "subscription": "*",
        "subVersion": "0",
        "expressionType": "TAG",
    }
    return encode(PULL_MESSAGE, fields, OPAQUE_BASE + slot)


def heartbeat_request(client_id: str, group: str, topics: Sequence[str], slot: int) -> bytes:
    """HEART_BEAT (34) of a Java push consumer: these topics and its group's retry topic, by TAG."""
    subscriptions = [
        {
            "classFilterMode": False,
            "codeSet": [],
            "expressionType": "TAG",
            "subString": "*",
            "subVersion": time.time_ns() // 1_000_000,
            "tagsSet": [],
            "topic": topic,
        }
        for topic in (*topics, f"%RETRY%{group}")
    ]
    consumer = {
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET",
        "consumeType": "CONSUME_PASSIVELY",
        "groupName": group,
        "messageModel": "CLUSTERING",
        "subscriptionDataSet": subscriptions,
        "unitMode": False,
    }
    beat = {
        "clientID": client_id,
        "consumerDataSet": [consumer],
        "heartbeatFingerprint": 0,
        "producerDataSet": [{"groupName": "CLIENT_INNER_PRODUCER"}],
        "withoutSub": False,
    }
    return encode(HEART_BEAT, {}, OPAQUE_BASE + slot, json.dumps(beat, separators=(",", ":")).encode())


def member_list_request(group: str, slot: int) -> bytes:
    """GET_CONSUMER_LIST_BY_GROUP (38): answered at once, by a look into one table."""
    return encode(GET_CONSUMER_LIST_BY_GROUP, {"consumerGroup": group}, OPAQUE_BASE + slot)


@dataclasses.dataclass(frozen=True)
class Reply:
    """What the generator wants to know of a reply."""

    slot: int
    code: int
    remark: str
    ext_fields: Mapping[str, str]
    body: memoryview


def bounds(buffer: Buffer, start: int) -> tuple[int, int]:
    """Where the header and the whole of the frame at `start` end; its first HEAD_BYTES must be there."""
    size_bytes, mark = _PREFIX.unpack_from(buffer, start)
    header_bytes = mark & 0xFFFFFF
    if size_bytes < 4 + header_bytes:
        raise BrokenFrameError(f"frame of {size_bytes} bytes with a header of {header_bytes}")
    return start + HEAD_BYTES + header_bytes, start + 4 + size_bytes


def slot_of(buffer: Buffer, start: int, header_end: int) -> int:
    """The slot that a reply answers; negative when the frame is no reply to one of our requests."""
    at = buffer.find(_OPAQUE_KEY, start, header_end) + len(_OPAQUE_KEY)
    digits = buffer[at : at + OPAQUE_DIGITS]
    return int(digits) - OPAQUE_BASE if digits.isdigit() else -1


def is_success(buffer: Buffer, start: int, header_end: int) -> bool:
    """Whether the header says code 0; False may also mean that it is laid out otherwise, which `decode` tells."""
    return buffer.find(_SUCCESS_KEY, start, header_end) >= 0


def decode(buffer: Buffer, start: int) -> Reply:
    """The whole reply at `start`; its body is a view of the buffer."""
    header_end, end = bounds(buffer, start)
    header = json.loads(buffer[start + HEAD_BYTES : header_end])
    return Reply(
        slot=header["opaque"] - OPAQUE_BASE,
        code=header["code"],
        remark=header.get("remark") or "",
        ext_fields=header.get("extFields") or {},
        body=memoryview(buffer)[header_end:end],
    )


def count_records(body: memoryview) -> int:
    """How many stored records stand in the body of a pull: each starts with its total size."""
    count = start = 0
    while start < len(body):
        size_bytes = int.from_bytes(body[start : start + 4], "big")
        if size_bytes < 4:
            raise BrokenFrameError(f"record of {size_bytes} bytes")
        start += size_bytes
        count += 1
    if start != len(body):
        raise BrokenFrameError("the last record is cut")
    return count


def _send_fields(topic: str, queue_id: int, properties: str, *, batch: bool = False) -> dict[str, str]:
    return {
        "a": "bench_producers",
        "b": topic,
        "c": DEFAULT_TOPIC,
        "d": str(TOPIC_QUEUES),
        "e": str(queue_id),
        "f": "0",
        "g": str(time.time_ns() // 1_000_000),
        "h": "0",
        "i": properties,
        "j": "0",
        "k": "false",
        "l": "0",
        "m": "true" if batch else "false",
    }


def _unique_key() -> str:
    """32 hex digits; those that differ between the messages of a run are the last eight, still zero here."""
    return f"7F000001{os.getpid() & 0xFFFF:04X}{'0' * 12}{'0' * _KEY_DIGITS}"


def _template(frame: bytes) -> Template:
    key = _unique_key().encode()
    offsets = []
    at = frame.find(key)
    while at >= 0:
        offsets.append(at + len(key) - _KEY_DIGITS)
        at = frame.find(key, at + len(key))
    return Template(bytearray(frame), tuple(offsets))
