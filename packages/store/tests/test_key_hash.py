"""Hashes of index keys against Java's definition, written out."""

import pytest
from apogeemq.store.key_hash import KeyHashes, index_hash, key_prefix, keys_of
from hypothesis import given
from hypothesis import strategies as st


def twin(text: str) -> int:
    """String.hashCode over UTF-16 units with 32-bit overflow, then Math.abs as IndexFile uses it."""
    total = 0
    units = text.encode("utf-16-be")
    for at in range(0, len(units), 2):
        total = (31 * total + int.from_bytes(units[at : at + 2], "big")) % 2**32
    signed = total - 2**32 if total >= 2**31 else total
    return 0 if signed == -(2**31) else abs(signed)


_ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def hashes_of(hashes: KeyHashes, prefix: str, keys: list[str]) -> list[int]:
    """Of keys that have one prefix."""
    return hashes.hashes_of([prefix.encode()] * len(keys), [key.encode() for key in keys])


@given(prefix=_ANY_TEXT, keys=st.lists(_ANY_TEXT, max_size=6))
def test_any_text(prefix: str, keys: list[str]) -> None:
    """Both ways agree with the definition, characters beyond 16 bits included."""
    expected = [twin(prefix + key) for key in keys]
    assert hashes_of(KeyHashes(), prefix, keys) == expected
    assert [index_hash((prefix + key).encode()) for key in keys] == expected


@given(prefix=_ANY_TEXT, keys=st.lists(st.text(st.characters(codec="ascii"), max_size=70), max_size=20))
def test_ascii_keys_of_any_length(prefix: str, keys: list[str]) -> None:
    """Keys in lanes of either width, and those that are too long for a lane."""
    assert hashes_of(KeyHashes(), prefix, keys) == [twin(prefix + key) for key in keys]


@pytest.mark.parametrize("size", [31, 32, 33, 63, 64, 65])
@pytest.mark.parametrize("character", ["\0", "\x7f"])
def test_full_lanes(size: int, character: str) -> None:
    """Neither the highest nor the lowest characters in a lane reach its neighbours."""
    keys = [character * size, "A", character * size, ""]
    assert hashes_of(KeyHashes(), "T#", keys) == [twin("T#" + key) for key in keys]


def test_more_keys_than_stand_side_by_side() -> None:
    """A long list is hashed in parts, a prefix of its own for each key."""
    prefixes, keys = [f"topic{n % 7}#" for n in range(1000)], [f"{n:X}" for n in range(1000)]
    found = KeyHashes().hashes_of([prefix.encode() for prefix in prefixes], [key.encode() for key in keys])
    assert found == [twin(prefix + key) for prefix, key in zip(prefixes, keys, strict=True)]


def test_more_prefixes_than_are_remembered() -> None:
    """The table of prefixes begins anew when it is full; hashes stay right."""
    hashes = KeyHashes()
    prefixes = [f"topic{n}#" for n in range(5000)]
    encoded = [prefix.encode() for prefix in prefixes]
    for _ in range(2):
        assert hashes.hashes_of(encoded, [b"key"] * 5000) == [twin(prefix + "key") for prefix in prefixes]


@pytest.mark.parametrize("text", ["polygenelubricants", "DESIGNING WORKHOUSES"])
def test_the_hash_without_a_positive_twin(text: str) -> None:
    """Java's Math.abs(-2³¹) stays negative; the index takes 0."""
    assert twin(text) == 0
    assert index_hash(text.encode()) == 0
    assert hashes_of(KeyHashes(), text[:4], [text[4:]]) == [0]


@pytest.mark.parametrize(
    ("properties", "keys"),
    [
        (b"", []),
        (b"TAGS\x01a\x02", []),
        (b"UNIQ_KEY\x01id\x02", [b"id"]),
        (b"KEYS\x01one\x02UNIQ_KEY\x01id\x02", [b"id", b"one"]),
        (b"KEYS\x01 one  two \x02", [b"one", b"two"]),
        (b"KEYS\x01 \x02", []),
        (b"KEYS\x01a a\x02", [b"a", b"a"]),
        (b"UNIQ_KEY\x01first\x02UNIQ_KEY\x01last\x02UNIQ_KEY\x01\x02", [b"last"]),
        (b"KEYS\x01no separator behind", [b"no", b"separator", b"behind"]),
        (b"MYKEYS\x01x\x02NOKEYS\x01KEYS\x02", []),
    ],
)
def test_keys_of_a_message(properties: bytes, keys: list[bytes]) -> None:
    """The unique key first, then each word of KEYS."""
    assert keys_of(properties) == keys


def test_the_prefix_is_topic_and_hash_sign() -> None:
    """What Java puts before a key."""
    assert key_prefix("TopicTest") == b"TopicTest#"
