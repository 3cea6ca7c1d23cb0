"""Messages to the API's and back."""

import gzip
import hashlib
import zlib
from typing import Any

import pytest
from apogeemq.client_api.errors import MessageInvalid
from apogeemq.client_api.message import Message
from apogeemq.client_grpc.core import messages as m
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.proto.v2 import definition_pb2 as d

PLACE = Endpoints.parse("127.0.0.1:8081")
ORIGIN = m.Origin(group="G", broker_name="b", endpoints=PLACE, now_s=100.0, invisible_s=30.0)
BODY = b"a body, any body"


def received(body: bytes = BODY, **system: Any) -> d.Message:
    return d.Message(topic=d.Resource(name="T"), body=body, system_properties=d.SystemProperties(**system))


def test_everything_that_a_message_has_is_sent() -> None:
    """Tag, keys and properties, each where the API has it."""
    sent = m.to_proto(
        Message("T", BODY, tag="t", keys=("k", "l"), properties={"p": "q"}),
        message_id="ID",
        born_timestamp_ms=1_700_000_000_123,
        born_host="host",
    )
    system = sent.system_properties
    assert (sent.topic.name, sent.body, dict(sent.user_properties)) == ("T", BODY, {"p": "q"})
    assert (system.tag, list(system.keys), system.message_id, system.born_host) == ("t", ["k", "l"], "ID", "host")
    assert (system.born_timestamp.seconds, system.born_timestamp.nanos) == (1_700_000_000, 123_000_000)
    assert (system.body_encoding, system.message_type) == (d.Encoding.IDENTITY, d.MessageType.NORMAL)
    assert not system.HasField("trace_context")
    assert not system.HasField("message_group")
    assert not system.HasField("delivery_timestamp")


def test_no_tag_is_not_an_empty_tag() -> None:
    """Servers refuse a blank tag."""
    sent = m.to_proto(Message("T", BODY), message_id="ID", born_timestamp_ms=0, born_host="")
    assert not sent.system_properties.HasField("tag")


def test_group_and_delivery_time_decide_the_type() -> None:
    """FIFO and DELAY, as the topic's type is checked against."""
    fifo = m.to_proto(Message("T", BODY, message_group="g"), message_id="ID", born_timestamp_ms=0, born_host="")
    assert (fifo.system_properties.message_type, fifo.system_properties.message_group) == (d.MessageType.FIFO, "g")
    delay = m.to_proto(
        Message("T", BODY, delivery_timestamp_ms=1_500), message_id="ID", born_timestamp_ms=0, born_host=""
    )
    assert delay.system_properties.message_type == d.MessageType.DELAY
    assert delay.system_properties.delivery_timestamp.nanos == 500_000_000


def test_a_delay_counts_from_the_sending() -> None:
    """Milliseconds after the time at which the message is born; none at all is a delay too."""
    for delay_ms, due_ms in ((2_500, 1_002_500), (0, 1_000_000)):
        sent = m.to_proto(
            Message("T", BODY, delay_ms=delay_ms), message_id="ID", born_timestamp_ms=1_000_000, born_host=""
        )
        assert sent.system_properties.message_type == d.MessageType.DELAY
        assert sent.system_properties.delivery_timestamp.ToMilliseconds() == due_ms


def test_a_delay_level_is_refused_by_name() -> None:
    """The API has no field for it; the hint says what it has."""
    with pytest.raises(MessageInvalid, match=r"delay_level is for Remoting only.*delay_ms") as refused:
        m.to_proto(Message("T", BODY, delay_level=3), message_id="ID", born_timestamp_ms=0, born_host="")
    assert refused.value.field == "delay_level"


def test_the_trace_context_is_mirrored_both_ways() -> None:
    """In the property traceparent and in the API's own field; the property comes first when both are there."""
    sent = m.to_proto(
        Message("T", BODY, properties={"traceparent": "tp"}), message_id="ID", born_timestamp_ms=0, born_host=""
    )
    assert (sent.system_properties.trace_context, sent.user_properties["traceparent"]) == ("tp", "tp")
    assert m.from_proto(received(trace_context="official"), ORIGIN).properties == {"traceparent": "official"}
    both = received(trace_context="official")
    both.user_properties["traceparent"] = "ours"
    assert m.from_proto(both, ORIGIN).properties == {"traceparent": "ours"}


def test_everything_that_a_server_says_is_received() -> None:
    """Where the message lies, whence and when it came, and what settles it."""
    system: dict[str, Any] = {
        "message_id": "ID",
        "tag": "t",
        "keys": ["k"],
        "message_group": "g",
        "born_timestamp": {"seconds": 1, "nanos": 5_000_000},
        "store_timestamp": {"seconds": 2},
        "born_host": "10.0.0.1:5",
        "queue_id": 3,
        "queue_offset": 4,
        "delivery_attempt": 2,
        "receipt_handle": "handle",
    }
    got = m.from_proto(received(**system), ORIGIN)
    assert (got.message_id, got.topic, got.body, got.tag, got.keys) == ("ID", "T", BODY, "t", ("k",))
    assert (got.born_timestamp_ms, got.store_timestamp_ms, got.born_host) == (1005, 2000, "10.0.0.1:5")
    assert (got.broker_name, got.queue_id, got.queue_offset, got.delivery_attempt) == ("b", 3, 4, 2)
    assert (got.group, got.message_group) == ("G", "g")
    assert got.receipt == m.Receipt("handle", PLACE, 130.0)


def test_the_proxys_own_invisible_time_counts() -> None:
    """With auto renew the client asked for none, and the message says which it got."""
    assert m.receipt_of(received(invisible_duration={"seconds": 60}), ORIGIN).expires_s == 160.0


@pytest.mark.parametrize(
    ("kind", "checksum"),
    [
        (d.DigestType.CRC32, f"{zlib.crc32(BODY):X}"),
        (d.DigestType.CRC32, f"{zlib.crc32(BODY):08x}"),
        (d.DigestType.MD5, hashlib.md5(BODY).hexdigest().upper()),
        (d.DigestType.SHA1, hashlib.sha1(BODY).hexdigest().upper()),
        (d.DigestType.DIGEST_TYPE_UNSPECIFIED, ""),
    ],
)
def test_a_right_digest_passes(kind: d.DigestType, checksum: str) -> None:
    """In either case, with or without leading zeros; no digest is fine too."""
    assert m.from_proto(received(body_digest=d.Digest(type=kind, checksum=checksum)), ORIGIN).body == BODY


@pytest.mark.parametrize(
    ("kind", "checksum", "why"),
    [
        (d.DigestType.CRC32, "1", "is not the one"),
        (d.DigestType.MD5, hashlib.md5(b"another").hexdigest(), "is not the one"),
        (d.DigestType.SHA1, hashlib.md5(BODY).hexdigest(), "is not the one"),
        (d.DigestType.MD5, "not hex", "not a hexadecimal"),
        (d.DigestType.DIGEST_TYPE_UNSPECIFIED, "AB", "unknown type"),
    ],
)
def test_a_wrong_digest_is_corruption(kind: d.DigestType, checksum: str, why: str) -> None:
    """The application never sees such a message, and the log says why."""
    damaged = received(body_digest=d.Digest(type=kind, checksum=checksum), message_id="ID", receipt_handle="h")
    with pytest.raises(m.Corrupted, match=why):
        m.from_proto(damaged, ORIGIN)
    settle = m.without_body(damaged, ORIGIN)
    assert (settle.message_id, settle.body, settle.receipt) == (
        "ID",
        b"",
        m.Receipt("h", PLACE, 130.0, is_readable=False),
    )


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_compressed_body_is_unfolded(compress: Any) -> None:
    """gzip from gRPC clients, zlib from Remoting ones; the digest is that of the compressed bytes."""
    packed = compress(BODY)
    digest = d.Digest(type=d.DigestType.CRC32, checksum=f"{zlib.crc32(packed):X}")
    got = m.from_proto(received(packed, body_encoding=d.Encoding.GZIP, body_digest=digest), ORIGIN)
    assert got.body == BODY


def test_a_bomb_is_not_unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body has a bound after decompression too; exactly the bound passes."""
    monkeypatch.setattr(m, "DECOMPRESSED_SIZE_MAX", 1000)
    fits = received(gzip.compress(bytes(1000)), body_encoding=d.Encoding.GZIP)
    assert m.from_proto(fits, ORIGIN).body == bytes(1000)
    with pytest.raises(m.Corrupted, match="more than 1000"):
        m.from_proto(received(gzip.compress(bytes(100_000)), body_encoding=d.Encoding.GZIP), ORIGIN)


@pytest.mark.parametrize(
    ("body", "encoding", "why"),
    [
        (b"no gzip", d.Encoding.GZIP, "can't be decompressed"),
        (gzip.compress(BODY, mtime=0)[:-9], d.Encoding.GZIP, "ends too early"),
        (BODY, 7, "unknown encoding"),
    ],
    ids=["garbage", "half", "from the future"],
)
def test_a_body_that_cannot_be_read_is_corruption(body: bytes, encoding: Any, why: str) -> None:
    """Garbage, half of a body, and encodings from the future."""
    with pytest.raises(m.Corrupted, match=why):
        m.from_proto(received(body, body_encoding=encoding), ORIGIN)
