"""Tests of message: properties, system flags, hashes."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from apogeemq.remoting_codec import message as message_module
from apogeemq.remoting_codec.errors import LocalProtocolError
from apogeemq.remoting_codec.message import (
    RESERVED_PROPERTY_KEYS,
    Message,
    decode_properties,
    encode_properties,
    find_property,
    is_compressed,
    java_string_hash,
    tags_code,
    transaction_type,
    with_host_families,
    with_transaction_type,
)
from hypothesis import given
from hypothesis import strategies as st

STORE = Path(__file__).parent / "vectors_store"
MESSAGES: list[dict[str, Any]] = json.loads((STORE / "messages.json").read_text())

PLAIN_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x01\x02"), min_size=1, max_size=8)
DENSE_BYTES = st.lists(st.sampled_from([b"\x01", b"\x02", b"K", b"E", b"Y", b"\xc3"]), max_size=30).map(b"".join)


# -- properties ------------------------------------------------------------------------------------------------------


def dumb_decode(text: str) -> dict[str, str]:
    """The rules of the reference, word by word."""
    result: dict[str, str] = {}
    for item in text.split("\x02"):
        if len(item) < 3 or "\x01" not in item:
            continue
        key, value = item.split("\x01", 1)
        if key != "" and value != "":
            result[key] = value
    return result


def test_properties_are_written_with_the_last_separator() -> None:
    """Key, 0x01, value, 0x02; the last 0x02 as 5.x writes it."""
    assert encode_properties({"KEYS": "k", "TAGS": "ü"}) == b"KEYS\x01k\x02TAGS\x01\xc3\xbc\x02"


def test_last_separator_is_optional_on_read() -> None:
    """4.9.8 strips the last 0x02; both forms read the same."""
    assert decode_properties(b"a\x01b\x02c\x01d") == decode_properties("a\x01b\x02c\x01d\x02") == {"a": "b", "c": "d"}


@pytest.mark.parametrize("item", ["", "a", "ab", "a\x01", "\x01a", "\x01", "\x01\x01a", "abc"])
def test_damaged_items_vanish(item: str) -> None:
    """Items below 3 characters, without separator, key or value are dropped; their neighbours stay."""
    assert decode_properties(f"x\x01y\x02{item}\x02z\x01w") == {"x": "y", "z": "w"}


def test_of_two_items_the_later_wins() -> None:
    """In a batch UNIQ_KEY and WAIT stand twice; the later value counts, unless it is empty."""
    assert decode_properties("a\x011\x02a\x012\x02") == {"a": "2"}
    assert decode_properties("a\x011\x02a\x01\x02") == {"a": "1"}


def test_invalid_utf8_becomes_the_replacement_character() -> None:
    """Damaged UTF-8 does not make a record unreadable."""
    assert decode_properties(b"a\x01\xff") == {"a": "\ufffd"}


@pytest.mark.parametrize("properties", [{"a\x01": "b"}, {"a": "b\x02"}, {"a": "\x01"}, {"a": "\ud800"}])
def test_separators_and_surrogates_cannot_be_written(properties: dict[str, str]) -> None:
    """A key or value with a separator would become another property: our own error."""
    with pytest.raises(LocalProtocolError):
        encode_properties(properties)


@given(st.dictionaries(PLAIN_TEXT, PLAIN_TEXT))
def test_properties_survive_the_round_trip(properties: dict[str, str]) -> None:
    """What was written is read, in the same order."""
    decoded = decode_properties(encode_properties(properties))
    assert decoded == properties
    assert list(decoded) == list(properties)


@given(st.text(st.sampled_from("ab\x01\x02")))
def test_decoding_agrees_with_the_rules_word_by_word(text: str) -> None:
    """Any string of separators and letters reads as the reference's rules say."""
    assert decode_properties(text) == dumb_decode(text)


def test_empty_keys_and_values_are_not_written() -> None:
    """Readers drop them, so they are left out."""
    assert encode_properties({"": "x", "a": "", "b": "c"}) == b"b\x01c\x02"


@given(DENSE_BYTES, st.sampled_from([b"K", b"KE", b"KEY", b"E", b""]))
def test_search_agrees_with_a_full_decode(properties: bytes, key: bytes) -> None:
    """The search on raw bytes finds what decoding everything finds, whatever the bytes."""
    found = find_property(properties, key)
    decoded = dumb_decode(properties.decode("latin-1")).get(key.decode())
    assert (None if found is None else found.decode("latin-1")) == decoded


def test_search_does_not_match_inside_another_key() -> None:
    """KEY is neither found at the end of MYKEY nor in a value, but is found first, last and between."""
    assert find_property(b"MYKEY\x011\x02v\x01KEY\x02", b"KEY") is None
    assert find_property(b"KEY\x011\x02a\x01b", b"KEY") == b"1"
    assert find_property(b"a\x01b\x02KEY\x012", b"KEY") == b"2"
    assert find_property(b"KEY\x011\x02KEY\x012\x02KEY\x01\x02", b"KEY") == b"2"


def test_reserved_keys_are_the_table_of_the_reference_without_its_exceptions() -> None:
    """Reserved are all keys of remoting.md §7 but the ten named there and the transient prefix."""
    exceptions = {
        "REDIRECT",
        "INNER_NUM",
        "INNER_BASE",
        "INNER_MULTI_DISPATCH",
        "CHECK_IMMUNITY_TIME_IN_SECONDS",
        "TRANSACTION_CHECK_TIMES",
        "__transactionId__",
        "__SHARDINGKEY",
        "TRACE_CONTEXT",
        "PROPERTY_FORWARD_QUEUE_ID",
    }
    all_keys = {
        value
        for name, value in vars(message_module).items()
        if name.startswith("PROPERTY_") and not value.startswith("__RMQ.TRANSIENT.")
    }
    assert exceptions <= all_keys
    assert all_keys - exceptions == RESERVED_PROPERTY_KEYS


# -- system flag -----------------------------------------------------------------------------------------------------


def test_transaction_bits_are_replaced_and_the_others_kept() -> None:
    """0xC are the transaction bits: 4 prepared, 8 commit, 12 rollback."""
    assert transaction_type(0x30D) == 0xC
    assert with_transaction_type(0x305, 0x8) == 0x309
    assert is_compressed(0x301)
    assert not is_compressed(0x300)


def test_host_bits_follow_the_hosts() -> None:
    """0x10 for an IPv6 born host, 0x20 for an IPv6 store host; stale bits are cleared."""
    assert with_host_families(0x301, bytes(20), bytes(8)) == 0x311
    assert with_host_families(0x331, bytes(8), bytes(20)) == 0x321
    assert with_host_families(0x330, bytes(8), bytes(8)) == 0x300


# -- hashes ----------------------------------------------------------------------------------------------------------


def dumb_hash(text: str) -> int:
    """String.hashCode by the textbook loop."""
    encoded = text.encode("utf-16-be", "surrogatepass")
    value = 0
    for (unit,) in struct.iter_unpack(">H", encoded):
        value = (31 * value + unit) % 2**32
    return value - 2**32 if value >= 2**31 else value


@given(st.text(st.characters(exclude_categories=[])) | st.text(st.characters(codec="ascii"), min_size=30, max_size=300))
def test_hash_agrees_with_the_textbook_loop(text: str) -> None:
    """Any text, also with surrogates, also longer than one 128-character piece, hashes as Java's."""
    assert java_string_hash(text) == dumb_hash(text)


@pytest.mark.parametrize("size", [1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000])
def test_hash_of_the_largest_lanes_does_not_overflow(size: int) -> None:
    """The highest ASCII character, many times, at the edges of the folds."""
    assert java_string_hash("\x7f" * size) == dumb_hash("\x7f" * size)


@pytest.mark.parametrize(("tag", "code"), [("TagA", 2_598_919), ("TagB", 2_598_920), ("A", 65), (None, 0), ("", 0)])
def test_tags_have_the_codes_that_java_clients_sent(tag: str | None, code: int) -> None:
    """TagA and TagB as in the codeSet of a recorded heartbeat; no tag is 0."""
    assert tags_code(tag) == code


def test_recorded_consume_queues_hold_our_tags_codes() -> None:
    """The tag hash of every unit that the Java broker wrote for the plain topics is ours for the record's tag."""
    by_offset = {message["offset"]: message for message in MESSAGES}
    checked = 0
    for path in (STORE / "consumequeue").glob("Store*/*/*"):
        for physical_offset, _, code in struct.iter_unpack(">qiq", path.read_bytes()):
            assert code == tags_code(by_offset[physical_offset]["properties"].get("TAGS"))
            checked += 1
    assert checked > 10


def test_long_tags_are_hashed_without_the_cache() -> None:
    """A tag beyond 64 characters has the same code but takes no room in the cache."""
    before = message_module._cached_hash.cache_info().currsize
    assert tags_code("x" * 65) == dumb_hash("x" * 65)
    assert message_module._cached_hash.cache_info().currsize == before


# -- values ----------------------------------------------------------------------------------------------------------


def test_message_gives_its_tag_and_keys() -> None:
    """KEYS are separated by spaces; without them there are none."""
    message = Message("T", b"", {"TAGS": "a", "KEYS": "k1 k2"})
    assert (message.tags, message.keys) == ("a", ["k1", "k2"])
    assert (Message("T", b"").tags, Message("T", b"").keys) == (None, [])
