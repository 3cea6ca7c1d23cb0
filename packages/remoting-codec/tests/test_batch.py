"""Tests of batch: a recorded batch, round trips, and damage."""

import contextlib
import json
import struct
from pathlib import Path

import pytest
from apogeemq.remoting_codec.batch import BatchMessage, decode_batch, encode_batch
from apogeemq.remoting_codec.errors import BodyInvalid, CodecError, LocalProtocolError
from apogeemq.remoting_codec.message import decode_properties
from hypothesis import given
from hypothesis import strategies as st

ENTRIES = st.builds(BatchMessage, st.integers(-(2**31), 2**31 - 1), st.binary(max_size=50), st.binary(max_size=50))


def recorded_batches() -> list[bytes]:
    """The bodies of the recorded send-batch requests (code 320)."""
    path = Path(__file__).parent / "wire" / "vectors" / "send_batch.jsonl"
    bodies = []
    for line in path.read_text().splitlines():
        frame = json.loads(line)
        if frame["header"]["code"] == 320:
            raw = bytes.fromhex(frame["hex"])
            bodies.append(raw[8 + int.from_bytes(raw[5:8], "big") :])
    return bodies


def test_recorded_batches_decode_and_encode_back() -> None:
    """The batches of a Java producer have three messages with their own keys and encode to the same bytes."""
    bodies = recorded_batches()
    assert len(bodies) == 2
    for body in bodies:
        entries = decode_batch(body)
        assert [entry.body for entry in entries] == [b"batch 0", b"batch 1", b"batch 2"]
        assert [decode_properties(entry.properties)["KEYS"] for entry in entries] == ["bk0", "bk1", "bk2"]
        assert [entry.flag for entry in entries] == [0, 0, 0]
        assert encode_batch(entries) == body


def test_sample_of_the_reference() -> None:
    """Flag 0 and body "hi" look as in remoting.md §5.2: 0x38 bytes with 32 bytes of properties."""
    body = encode_batch([BatchMessage(0, b"hi", b"p" * 32)])
    assert body == bytes.fromhex("0000003800000000000000000000000000000002") + b"hi" + b"\x00\x20" + b"p" * 32


@given(st.lists(ENTRIES, max_size=5))
def test_batches_survive_the_round_trip(entries: list[BatchMessage]) -> None:
    """Any messages come back in their order."""
    assert decode_batch(encode_batch(entries)) == entries


@given(st.lists(ENTRIES, min_size=1, max_size=3), st.data())
def test_damaged_batches_raise_only_codec_errors(entries: list[BatchMessage], data: st.DataObject) -> None:
    """Flipped bytes and cut ends give messages or a CodecError, never another exception."""
    body = bytearray(encode_batch(entries))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CodecError):
        decode_batch(bytes(body[: data.draw(st.integers(0, len(body)))]))


@pytest.mark.parametrize("size", range(1, len(encode_batch([BatchMessage(0, b"hi", b"a\x01b")]))))
def test_cut_batch_names_the_entry(size: int) -> None:
    """A batch that ends inside its second entry is refused, with the place of that entry."""
    entry = encode_batch([BatchMessage(0, b"hi", b"a\x01b")])
    with pytest.raises(BodyInvalid, match=rf"\b{len(entry)}\b"):
        decode_batch(entry + entry[:size])


@pytest.mark.parametrize(("at", "value"), [(0, 26), (0, -1), (16, -1), (16, 2**31 - 1)])
def test_sizes_that_do_not_fit_are_refused(at: int, value: int) -> None:
    """Total size and body length must agree with the bytes that are there."""
    body = bytearray(encode_batch([BatchMessage(0, b"hi", b"a\x01b")]))
    struct.pack_into(">i", body, at, value)
    with pytest.raises(BodyInvalid):
        decode_batch(bytes(body))


def test_too_many_messages_are_refused() -> None:
    """The bound on the count holds, and a batch of just that many is fine."""
    body = encode_batch([BatchMessage(0, b"", b"")] * 3)
    assert len(decode_batch(body, count_max=3)) == 3
    with pytest.raises(BodyInvalid, match="more than 2"):
        decode_batch(body, count_max=2)


@pytest.mark.parametrize("entry", [BatchMessage(2**31, b"", b""), BatchMessage(0, b"", bytes(32_768))])
def test_what_does_not_fit_is_our_own_error(entry: BatchMessage) -> None:
    """A flag beyond 32 bits or properties beyond 32,767 bytes cannot be sent."""
    with pytest.raises(LocalProtocolError):
        encode_batch([entry])
