"""Tests of record: the recorded commit log of Apache RocketMQ 5.3.3, round trips, and damage of every kind."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from apogeemq.remoting_codec import record as record_module
from apogeemq.remoting_codec.errors import CodecError, LocalProtocolError, RecordInvalid
from apogeemq.remoting_codec.message import decode_properties, with_host_families
from apogeemq.remoting_codec.record import (
    HEAD,
    HEADS,
    MAGIC_BLANK,
    MAGIC_V1,
    MAGIC_V2,
    Record,
    decode_record,
    decode_records,
    encode_blank,
    encode_host,
    encode_record,
    format_host,
    magic_of_topic,
    message_from_record,
    peek_head,
    peek_properties,
    peek_size_and_magic,
    peek_store_timestamp_ms,
    record_size_bytes,
)
from hypothesis import given
from hypothesis import strategies as st

STORE = Path(__file__).parent / "vectors_store"
COMMIT_LOG = (STORE / "commitlog" / "00000000000000000000").read_bytes()
MESSAGES: list[dict[str, Any]] = json.loads((STORE / "messages.json").read_text())

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
HOSTS = st.builds(encode_host, st.ip_addresses().map(str), st.integers(0, 65_535))


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Any record that the format can hold."""
    topic = draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40) | st.just("t" * 200))
    born_host, store_host = draw(HOSTS), draw(HOSTS)
    return Record(
        topic=topic,
        queue_id=draw(INT32),
        queue_offset=draw(INT64),
        physical_offset=draw(INT64),
        born_timestamp_ms=draw(INT64),
        born_host=born_host,
        store_timestamp_ms=draw(INT64),
        store_host=store_host,
        body=draw(st.binary(max_size=100)),
        properties=draw(st.binary(max_size=100)),
        flag=draw(INT32),
        sys_flag=with_host_families(draw(st.integers(0, 0x7FF)), born_host, store_host),
        reconsume_times=draw(INT32),
        prepared_transaction_offset=draw(INT64),
        magic=draw(st.sampled_from([magic_of_topic(len(topic.encode())), MAGIC_V2])),
    )


def a_record(**changes: Any) -> Record:
    """A plain record, with some fields changed."""
    fields: dict[str, Any] = {
        "topic": "T",
        "queue_id": 1,
        "queue_offset": 2,
        "physical_offset": 3,
        "born_timestamp_ms": 4,
        "born_host": encode_host("127.0.0.1", 5),
        "store_timestamp_ms": 6,
        "store_host": encode_host("127.0.0.2", 7),
        "body": b"body",
        "properties": b"k\x01v\x02",
    }
    return Record(**{**fields, **changes})


# -- the recorded commit log -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", MESSAGES, ids=[str(message["offset"]) for message in MESSAGES])
def test_recorded_record_decodes_as_the_independent_reader_did(expected: dict[str, Any]) -> None:
    """Every field of every record in the Java broker's commit log has the value that messages.json gives."""
    record = decode_record(COMMIT_LOG, expected["offset"])
    message = message_from_record(record)
    assert {
        "size": record.size_bytes,
        "magic": f"{record.magic:08X}",
        "bodyCRC": record.body_crc,
        "topic": message.topic,
        "queueId": message.queue_id,
        "queueOffset": message.queue_offset,
        "physicalOffset": message.physical_offset,
        "flag": message.flag,
        "sysFlag": message.sys_flag,
        "bornTimestamp": message.born_timestamp_ms,
        "bornHost": message.born_host,
        "storeTimestamp": message.store_timestamp_ms,
        "storeHost": message.store_host,
        "reconsumeTimes": message.reconsume_times,
        "preparedTransactionOffset": message.prepared_transaction_offset,
        "bodyLen": len(message.body),
        "properties": message.properties,
    }.items() <= expected.items()
    if expected.get("body") is not None and not record.sys_flag & 1:
        assert record.body.decode() == expected["body"]


def test_recorded_commit_log_encodes_back_to_the_same_bytes() -> None:
    """All records, decoded one after the other and encoded again, are the file."""
    decoded = decode_records(COMMIT_LOG)
    assert len(decoded) == len(MESSAGES)
    assert b"".join(encode_record(record) for record in decoded) == COMMIT_LOG


def test_peeked_heads_agree_with_the_decoded_records() -> None:
    """What the fixed places say is what a full decode says, for every recorded record."""
    for expected in MESSAGES:
        head = peek_head(memoryview(COMMIT_LOG), expected["offset"])
        assert head.size_bytes == expected["size"]
        assert head.magic == MAGIC_V1
        assert head.queue_id == expected["queueId"]
        assert head.queue_offset == expected["queueOffset"]
        assert head.physical_offset == expected["physicalOffset"]
        assert head.sys_flag == expected["sysFlag"]
        assert head.store_timestamp_ms == expected["storeTimestamp"]


def test_peeked_properties_agree_with_the_decoded_records() -> None:
    """Without a look at the body."""
    for expected in MESSAGES:
        record = decode_record(COMMIT_LOG, expected["offset"])
        assert peek_properties(memoryview(COMMIT_LOG), expected["offset"]) == record.properties


@pytest.mark.parametrize("scenario", ["pull", "send_back", "query_view", "transaction", "heartbeat", "unregister"])
def test_recorded_bodies_of_records_encode_back_to_the_same_bytes(scenario: str) -> None:
    """Pull, query, view and check-back frames carry records; each such body decodes and encodes to itself."""
    reproduced = 0
    path = Path(__file__).parent / "wire" / "vectors" / f"{scenario}.jsonl"
    for line in path.read_text().splitlines():
        raw = bytes.fromhex(json.loads(line)["hex"])
        body = raw[8 + int.from_bytes(raw[5:8], "big") :]
        if body[4:8] == bytes.fromhex("daa320a7"):
            assert b"".join(encode_record(record) for record in decode_records(body)) == body
            reproduced += 1
    assert reproduced > 0


# -- layout ----------------------------------------------------------------------------------------------------------


def test_head_sizes_are_those_of_the_format() -> None:
    """The head has 88 bytes, and 12 more for each IPv6 host."""
    assert HEAD.size == 88
    assert {bits: head.size for bits, head in HEADS.items()} == {0: 88, 0x10: 100, 0x20: 100, 0x30: 112}


def test_size_of_a_record_is_91_bytes_and_its_parts() -> None:
    """Fixed overhead with IPv4 hosts and V1 is 91 bytes; V2 has one more, each IPv6 host 12."""
    assert record_size_bytes(1, 2, 3, 0) == 97
    assert record_size_bytes(1, 2, 3, 0, MAGIC_V2) == 98
    assert record_size_bytes(1, 2, 3, 0x30) == 121


def dumb_encode(record: Record) -> bytes:
    """The table of the format, written down field by field."""
    topic = record.topic.encode()
    tail = (
        struct.pack(">i", record.magic - (1 << 32))
        + struct.pack(">i", record.body_crc)
        + struct.pack(">i", record.queue_id)
        + struct.pack(">i", record.flag)
        + struct.pack(">q", record.queue_offset)
        + struct.pack(">q", record.physical_offset)
        + struct.pack(">i", record.sys_flag)
        + struct.pack(">q", record.born_timestamp_ms)
        + record.born_host
        + struct.pack(">q", record.store_timestamp_ms)
        + record.store_host
        + struct.pack(">i", record.reconsume_times)
        + struct.pack(">q", record.prepared_transaction_offset)
        + struct.pack(">i", len(record.body))
        + record.body
        + (bytes([len(topic)]) if record.magic == MAGIC_V1 else struct.pack(">h", len(topic)))
        + topic
        + struct.pack(">h", len(record.properties))
        + record.properties
    )
    return struct.pack(">i", 4 + len(tail)) + tail


@given(records())
def test_encoding_agrees_with_the_table_of_the_format(record: Record) -> None:
    """The precompiled heads write what the format's table says, for all host families and both versions."""
    assert encode_record(record) == dumb_encode(record)


@given(st.lists(records(), max_size=4))
def test_records_survive_the_round_trip(batch: list[Record]) -> None:
    """Any records, encoded back to back, decode to the same values, from bytes and from a view."""
    encoded = b"".join(encode_record(record) for record in batch)
    assert decode_records(encoded) == batch
    assert decode_records(memoryview(bytearray(encoded))) == batch


@given(records(), st.binary(max_size=20))
def test_peek_finds_the_store_timestamp_for_all_hosts(record: Record, before: bytes) -> None:
    """The store timestamp is found behind IPv4 and IPv6 born hosts, anywhere in a buffer."""
    buffer = before + encode_record(record)
    assert peek_store_timestamp_ms(buffer, len(before)) == record.store_timestamp_ms
    assert peek_size_and_magic(buffer, len(before)) == (record.size_bytes, record.magic)


# -- damage ----------------------------------------------------------------------------------------------------------


@given(records(), st.data())
def test_damaged_records_raise_only_codec_errors(record: Record, data: st.DataObject) -> None:
    """Flipped bytes and cut ends give a record or a CodecError, never another exception."""
    encoded = bytearray(encode_record(record))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(encoded[: data.draw(st.integers(0, len(encoded)))])
    for function in (decode_record, decode_records, peek_head, peek_properties, peek_size_and_magic):
        try:
            function(cut)
        except CodecError:
            continue


@pytest.mark.parametrize("size", range(len(encode_record(a_record()))))
def test_truncated_record_is_invalid(size: int) -> None:
    """A record that ends early at any byte is refused, with the place where it starts."""
    buffer = b"before" + encode_record(a_record())[:size]
    with pytest.raises(RecordInvalid) as caught:
        decode_record(buffer, 6)
    assert caught.value.offset == 6


def test_changed_body_fails_the_crc_unless_it_is_not_asked_for() -> None:
    """One changed body byte makes the record invalid; without the check the record is still readable."""
    encoded = encode_record(a_record()).replace(b"body", b"bodx")
    with pytest.raises(RecordInvalid, match="CRC"):
        decode_record(encoded)
    assert decode_record(encoded, check_crc=False).body == b"bodx"


def test_total_size_must_be_that_of_the_parts() -> None:
    """A total size that is not the sum of the parts makes the record invalid, even when the bytes are there."""
    encoded = encode_record(a_record())
    longer = struct.pack(">i", len(encoded) + 1) + encoded[4:] + b"\0"
    with pytest.raises(RecordInvalid, match="parts"):
        decode_record(longer)


@pytest.mark.parametrize("magic", [MAGIC_BLANK, 0, 0xDAA320A8])
def test_other_magics_are_no_records(magic: int) -> None:
    """A blank filler, zeros and unknown magics are refused."""
    encoded = encode_record(a_record())
    with pytest.raises(RecordInvalid):
        decode_record(encoded[:4] + struct.pack(">I", magic) + encoded[8:])


def test_second_bad_record_is_named_by_its_place() -> None:
    """The error of decode_records says where the bad record starts."""
    good = encode_record(a_record())
    with pytest.raises(RecordInvalid) as caught:
        decode_records(good + good[:50])
    assert caught.value.offset == len(good)


@pytest.mark.parametrize(
    "changes",
    [
        {"topic": "t" * 128},
        {"topic": "\ud800"},
        {"properties": bytes(32_768)},
        {"queue_id": 2**31},
        {"physical_offset": 2**63},
        {"born_host": bytes(20)},
        {"store_host": b""},
        {"sys_flag": 0x10},
        {"magic": MAGIC_BLANK},
        {"magic": MAGIC_V2, "topic": "t" * 32_768},
    ],
)
def test_what_does_not_fit_is_our_own_error(changes: dict[str, Any]) -> None:
    """A field beyond its place is refused as LocalProtocolError before any byte is written."""
    with pytest.raises(LocalProtocolError):
        encode_record(a_record(**changes))


# -- small rules -----------------------------------------------------------------------------------------------------


def test_long_topics_take_the_second_version() -> None:
    """127 bytes of topic still fit V1; one more needs V2."""
    assert magic_of_topic(127) == MAGIC_V1
    assert magic_of_topic(128) == MAGIC_V2


def test_crc_has_no_sign_bit_and_is_zero_without_a_body() -> None:
    """CRC-32 of "a" is 0xE8B7BE43, stored without its top bit; an empty body has 0."""
    assert record_module.body_crc(b"a") == 0x68B7BE43
    assert record_module.body_crc(b"") == 0


def test_blank_filler_is_its_size_and_magic() -> None:
    """A filler of 100 bytes starts with 100 and the blank magic; below 8 bytes there is none."""
    assert encode_blank(100) == bytes.fromhex("00000064cbd43194")
    with pytest.raises(LocalProtocolError):
        encode_blank(7)


def test_hosts_pack_and_format() -> None:
    """Address bytes and an int32 port; IPv6 addresses get brackets in text."""
    assert encode_host("127.0.0.2", 20_911) == bytes.fromhex("7f000002000051af")
    assert format_host(bytes.fromhex("7f000002000051af")) == "127.0.0.2:20911"
    assert encode_host("::1", 1) == bytes(15) + b"\x01" + b"\0\0\0\x01"
    assert format_host(bytes(15) + b"\x01" + b"\0\0\0\x01") == "[::1]:1"


@pytest.mark.parametrize(("ip", "port"), [("localhost", 1), ("127.0.0.1", -1), ("127.0.0.1", 65_536), ("", 1)])
def test_names_and_wrong_ports_are_no_hosts(ip: str, port: int) -> None:
    """Only addresses pack, and only with a real port."""
    with pytest.raises(LocalProtocolError):
        encode_host(ip, port)


@pytest.mark.parametrize("size", [0, 3, 7, 9, 21])
def test_hosts_of_other_sizes_do_not_format(size: int) -> None:
    """Packed hosts have 8 or 20 bytes."""
    with pytest.raises(RecordInvalid):
        format_host(bytes(size))


def test_message_without_unique_key_is_named_by_its_place() -> None:
    """msgId is the producer's unique key if there is one, else the offset message id."""
    plain = message_from_record(a_record(properties=b""))
    assert plain.message_id == plain.offset_message_id == "7F000002000000070000000000000003"
    named = message_from_record(a_record(properties=b"UNIQ_KEY\x01abc"))
    assert named.message_id == "abc"
    assert decode_properties(b"UNIQ_KEY\x01abc") == named.properties
