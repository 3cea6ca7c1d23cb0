"""Tests of message_id: ids recorded from Java clients and brokers, and round trips."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apogeemq.remoting_codec.errors import LocalProtocolError, RemoteProtocolError
from apogeemq.remoting_codec.message_id import (
    GrpcMessageId,
    RecallHandle,
    UniqueKey,
    create_unique_key,
    decode_grpc_message_id,
    decode_offset_message_id,
    decode_recall_handle,
    decode_unique_key,
    encode_grpc_message_id,
    encode_offset_message_id,
    encode_recall_handle,
    month_start_of,
    unique_key_created_ms,
)
from hypothesis import given
from hypothesis import strategies as st

STORE = Path(__file__).parent / "vectors_store"
MESSAGES: list[dict[str, Any]] = json.loads((STORE / "messages.json").read_text())
KEYED = [message for message in MESSAGES if "UNIQ_KEY" in message["properties"]]

RECORDED_HANDLE = (
    "djEgVGFwRGVsYXkgYnJva2VyLXQgMTc5NTM1NjM1NzAwMSBGRDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMjFCQUUzMDk0NkUwOTZGMkIyMDg5"
    "MDAxQg=="
)
"""From the recorded answer to a send of a delayed message (scenario recall)."""


def ms(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


# -- offset message ids ----------------------------------------------------------------------------------------------


def test_offset_message_id_is_host_and_offset_in_hex() -> None:
    """Store host 127.0.0.2:20911 and physical offset 419, as 32 upper-case digits."""
    host = bytes.fromhex("7f000002000051af")
    assert encode_offset_message_id(host, 419) == "7F000002000051AF00000000000001A3"
    assert decode_offset_message_id("7F000002000051AF00000000000001A3") == (host, 419)


@given(st.binary(min_size=8, max_size=8) | st.binary(min_size=20, max_size=20), st.integers(0, 2**63 - 1))
def test_offset_message_ids_survive_the_round_trip(host: bytes, physical_offset: int) -> None:
    """32 digits for IPv4 hosts, 56 for IPv6."""
    text = encode_offset_message_id(host, physical_offset)
    assert len(text) == (32 if len(host) == 8 else 56)
    assert decode_offset_message_id(text) == (host, physical_offset)


@pytest.mark.parametrize("text", ["", "00", "G" * 32, "0" * 31, "0" * 33, " " * 32, "00 " * 8 + "0" * 8, "٣" * 32])
def test_other_texts_are_no_ids(text: str) -> None:
    """Only 32 or 56 hex digits are ids."""
    with pytest.raises(RemoteProtocolError):
        decode_offset_message_id(text)
    with pytest.raises(RemoteProtocolError):
        decode_unique_key(text)


# -- unique keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", KEYED, ids=[str(message["offset"]) for message in KEYED])
def test_recorded_unique_keys_tell_when_they_were_made(message: dict[str, Any]) -> None:
    """The time inside a Java client's key is that of the message's birth, within a second (its zone was UTC)."""
    key = decode_unique_key(message["properties"]["UNIQ_KEY"])
    created_ms = unique_key_created_ms(key, message["storeTimestamp"], UTC)
    assert abs(message["bornTimestamp"] - created_ms) < 1000


@pytest.mark.parametrize("message", KEYED, ids=[str(message["offset"]) for message in KEYED])
def test_recorded_unique_keys_are_made_again_from_their_parts(message: dict[str, Any]) -> None:
    """The parts of a recorded key make the same text."""
    text = message["properties"]["UNIQ_KEY"]
    key = decode_unique_key(text)
    month_start_ms = month_start_of(message["storeTimestamp"], UTC)
    again = create_unique_key(
        address=key.address,
        process_id=key.process_id,
        instance_hash=key.instance_hash,
        now_ms=month_start_ms + key.elapsed_ms,
        month_start_ms=month_start_ms,
        counter=key.counter,
    )
    assert again == text


def test_parts_of_a_recorded_unique_key() -> None:
    """Address, process id, hash, time and counter lie where the layout says."""
    key = decode_unique_key("FD0000000000000000000000000000025F5030946E096F33206D0000")
    assert key == UniqueKey(bytes.fromhex("fd000000000000000000000000000002"), 0x5F50, 0x30946E09, 0x6F33206D, 0)


def test_late_in_a_long_month_the_time_needs_32_unsigned_bits() -> None:
    """From day 25 on the milliseconds exceed 2³¹; they are still read as positive."""
    zone = UTC
    now_ms = ms(datetime(2026, 10, 31, 23, 59, 59, tzinfo=zone))
    text = create_unique_key(
        address=bytes(4),
        process_id=70_000,
        instance_hash=-1,
        now_ms=now_ms,
        month_start_ms=month_start_of(now_ms, zone),
        counter=65_537,
    )
    key = decode_unique_key(text)
    assert key == UniqueKey(bytes(4), 70_000 - 65_536, 0xFFFFFFFF, (30 * 86_400 + 86_399) * 1000, 1)
    assert unique_key_created_ms(key, now_ms, zone) == now_ms


def test_key_from_the_end_of_last_month_is_not_from_the_future() -> None:
    """On the first of a month, a key with 30 days in it was made in the month before."""
    key = UniqueKey(bytes(4), 1, 1, 30 * 86_400_000, 0)
    now_ms = ms(datetime(2026, 11, 1, 0, 0, 1, tzinfo=UTC))
    assert unique_key_created_ms(key, now_ms, UTC) == ms(datetime(2026, 10, 31, tzinfo=UTC))


def test_months_begin_at_local_midnight() -> None:
    """The month starts by the maker's clock on the wall, also across a change of the clocks."""
    berlin = ZoneInfo("Europe/Berlin")
    now_ms = ms(datetime(2026, 10, 31, 12, tzinfo=UTC))
    assert month_start_of(now_ms, berlin) == ms(datetime(2026, 9, 30, 22, tzinfo=UTC))
    assert month_start_of(now_ms, timezone(timedelta(hours=14))) == ms(datetime(2026, 10, 31, 10, tzinfo=UTC))
    assert month_start_of(now_ms, UTC) == ms(datetime(2026, 10, 1, tzinfo=UTC))


@pytest.mark.parametrize("size", [0, 3, 5, 15])
def test_unique_key_needs_a_whole_address(size: int) -> None:
    """Addresses have 4 or 16 bytes."""
    with pytest.raises(LocalProtocolError):
        create_unique_key(address=bytes(size), process_id=1, instance_hash=1, now_ms=0, month_start_ms=0, counter=0)


# -- gRPC message ids ------------------------------------------------------------------------------------------------


def test_grpc_message_id_has_the_layout_of_the_clients() -> None:
    """Version, MAC, process id, seconds since 2021, sequence: 34 upper-case digits."""
    created_ms = ms(datetime(2021, 1, 1, 0, 1, 0, tzinfo=UTC))
    text = encode_grpc_message_id(bytes.fromhex("567a1f2c3d4e"), 0x12345, created_ms + 999, 7)
    assert text == "01" + "567A1F2C3D4E" + "2345" + "0000003C" + "00000007"
    assert decode_grpc_message_id(text) == GrpcMessageId(bytes.fromhex("567a1f2c3d4e"), 0x2345, created_ms, 7)


@given(
    st.binary(min_size=6, max_size=6),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF).map(lambda seconds: 1_609_459_200_000 + seconds * 1000),
    st.integers(0, 0xFFFFFFFF),
)
def test_grpc_message_ids_survive_the_round_trip(mac: bytes, process_id: int, created_ms: int, sequence: int) -> None:
    """All parts come back."""
    text = encode_grpc_message_id(mac, process_id, created_ms, sequence)
    assert len(text) == 34
    assert decode_grpc_message_id(text) == GrpcMessageId(mac, process_id, created_ms, sequence)


@pytest.mark.parametrize("text", ["", "my own id", "0" * 34, "01" + "G" * 32, "01" + " " * 32, "01" * 16])
def test_other_ids_are_of_version_0(text: str) -> None:
    """Ids of any other shape are legal and have no parts."""
    assert decode_grpc_message_id(text) is None


def test_grpc_message_id_needs_a_whole_mac_address() -> None:
    """MAC addresses have 6 bytes."""
    with pytest.raises(LocalProtocolError):
        encode_grpc_message_id(bytes(5), 1, 0, 0)


# -- recall handles --------------------------------------------------------------------------------------------------


def test_recorded_recall_handle() -> None:
    """A handle from a Java broker has its parts, and they make the same text."""
    handle = RecallHandle(
        "TapDelay", "broker-t", 1_795_356_357_001, "FD0000000000000000000000000000021BAE30946E096F2B2089001B"
    )
    assert decode_recall_handle(RECORDED_HANDLE) == handle
    assert encode_recall_handle(handle) == RECORDED_HANDLE


@pytest.mark.parametrize(
    "text", ["", "!", "djE=", "djIgVCBiIDEgaw==", "djEgVCBiIHggaw==", "A", "A" * 5000, "/////w==", "ü" * 8]
)
def test_other_texts_are_no_recall_handles(text: str) -> None:
    """Wrong Base64, parts, version or number, or too long: refused."""
    with pytest.raises(RemoteProtocolError):
        decode_recall_handle(text)


@pytest.mark.parametrize("topic", ["", "a b"])
def test_recall_handle_needs_whole_words(topic: str) -> None:
    """A part without text or with a space would be read as something else."""
    with pytest.raises(LocalProtocolError):
        encode_recall_handle(RecallHandle(topic, "b", 1, "k"))
