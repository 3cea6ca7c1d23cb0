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


@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=6))
def test_any_text(texts: list[str]) -> None:
    """Both ways agree with the definition, characters beyond 16 bits included, whatever was hashed before."""
    hashes = KeyHashes()
    for text in texts:
        assert hashes.hash_of(text.encode()) == index_hash(text.encode()) == twin(text)


@given(head=st.text("aZ#%09", max_size=40), tails=st.lists(st.text("ABCDEF0123456789", max_size=30), max_size=10))
def test_texts_with_one_beginning(head: str, tails: list[str]) -> None:
    """Heads that are remembered give the same hashes as heads that are not."""
    hashes = KeyHashes()
    for tail in [*tails, *tails]:
        assert hashes.hash_of((head + tail).encode()) == twin(head + tail)


def test_more_beginnings_than_are_remembered() -> None:
    """The table of heads begins anew when it is full; hashes stay right."""
    hashes = KeyHashes()
    texts = [f"topic#{n:08d}-0123456789ab" for n in range(5000)]
    assert [hashes.hash_of(text.encode()) for text in [*texts, *texts]] == [twin(text) for text in [*texts, *texts]]


@pytest.mark.parametrize("text", ["polygenelubricants", "DESIGNING WORKHOUSES"])
def test_the_hash_without_a_positive_twin(text: str) -> None:
    """Java's Math.abs(-2³¹) stays negative; the index takes 0."""
    assert twin(text) == 0
    assert index_hash(text.encode()) == KeyHashes().hash_of(text.encode()) == 0


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
        (b"MYKEYS\x01x\x02NOKEYS\x01KEYS\x02", []),
    ],
)
def test_keys_of_a_message(properties: bytes, keys: list[bytes]) -> None:
    """The unique key first, then each word of KEYS."""
    assert keys_of(properties) == keys


def test_the_prefix_is_topic_and_hash_sign() -> None:
    """What Java puts before a key."""
    assert key_prefix("TopicTest") == b"TopicTest#"
