"""Tests of compression: a recorded body, every type, bombs and damage."""

import contextlib
import gzip
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from apogeemq.remoting_codec.compression import CompressionType, compress, decompress
from apogeemq.remoting_codec.errors import BodyInvalid, CodecError, LocalProtocolError
from apogeemq.remoting_codec.record import decode_records
from hypothesis import given
from hypothesis import strategies as st

COMMIT_LOG = Path(__file__).parent / "vectors_store" / "commitlog" / "00000000000000000000"
ALL_TYPES = pytest.mark.parametrize("kind", list(CompressionType), ids=lambda kind: kind.name)
MIB = 1024 * 1024


def test_recorded_compressed_body_decompresses() -> None:
    """The body that a Java producer compressed (flag 769: zlib) is 8192 times "z"."""
    record = next(record for record in decode_records(COMMIT_LOG.read_bytes()) if record.sys_flag & 1)
    assert record.sys_flag == 769 == CompressionType.ZLIB.sys_flag
    assert decompress(record.body, record.sys_flag, 8192) == b"z" * 8192


def test_flags_are_those_of_the_types() -> None:
    """0x1 for compressed, and the type at 0x700."""
    assert {kind.name: kind.sys_flag for kind in CompressionType} == {"LZ4": 0x101, "ZSTD": 0x201, "ZLIB": 0x301}


@ALL_TYPES
@given(body=st.binary(max_size=2000))
def test_bodies_survive_the_round_trip(kind: CompressionType, body: bytes) -> None:
    """Any body comes back, within a bound of just its size."""
    assert decompress(compress(body, kind), kind.sys_flag, len(body)) == body


@ALL_TYPES
def test_large_bodies_survive_the_round_trip(kind: CompressionType) -> None:
    """A body of several chunks comes back whole."""
    body = bytes(range(256)) * 4096
    assert decompress(compress(body, kind), kind.sys_flag, MIB) == body


def test_body_without_the_flag_is_returned_as_it_is() -> None:
    """Clients clear only bit 0x1 after decompressing: the type bits alone say nothing."""
    assert decompress(b"plain", 0x300, 0) == b"plain"


def test_type_0_is_zlib_or_gzip() -> None:
    """Old clients' zlib and the GZIP of gRPC clients are told apart by their first bytes."""
    assert decompress(zlib.compress(b"old"), 0x1, 10) == b"old"
    assert decompress(gzip.compress(b"grpc"), 0x1, 10) == b"grpc"


def test_lz4_frames_have_independent_blocks() -> None:
    """Java's reader refuses linked blocks: bit 5 of the frame's flag byte must be set."""
    assert compress(b"x" * 100_000, CompressionType.LZ4)[4] & 0x20


@ALL_TYPES
def test_bombs_are_stopped_at_the_bound(kind: CompressionType) -> None:
    """A small body that would become 64 MiB is refused long before that was allocated."""
    bomb = compress(bytes(64 * MIB), kind)
    tracemalloc.start()
    try:
        with pytest.raises(BodyInvalid, match="exceeds"):
            decompress(bomb, kind.sys_flag, 4 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()


@ALL_TYPES
def test_one_byte_above_the_bound_is_refused(kind: CompressionType) -> None:
    """The bound is exact."""
    body = compress(bytes(1001), kind)
    assert len(decompress(body, kind.sys_flag, 1001)) == 1001
    with pytest.raises(BodyInvalid, match="exceeds 1000 bytes"):
        decompress(body, kind.sys_flag, 1000)


@ALL_TYPES
def test_cut_and_prolonged_bodies_are_refused(kind: CompressionType) -> None:
    """A body that ends early at any byte, or that something follows, is damaged."""
    body = compress(b"some text, some more text", kind)
    for size in range(len(body)):
        with pytest.raises(BodyInvalid):
            decompress(body[:size], kind.sys_flag, 1000)
    with pytest.raises(BodyInvalid):
        decompress(body + b"\0", kind.sys_flag, 1000)


@ALL_TYPES
@given(data=st.data())
def test_damaged_bodies_raise_only_codec_errors(kind: CompressionType, data: st.DataObject) -> None:
    """Flipped bytes give some body or a CodecError, never another exception."""
    body = bytearray(compress(b"some text, some more text" * 10, kind))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CodecError):
        decompress(bytes(body), kind.sys_flag, 1000)


def test_unknown_type_is_refused() -> None:
    """Types 4 to 7 do not exist."""
    with pytest.raises(BodyInvalid, match="type 4"):
        decompress(b"", 0x401, 10)


@pytest.mark.parametrize(
    ("kind", "level"),
    [(CompressionType.ZLIB, -1), (CompressionType.ZLIB, 10), (CompressionType.ZSTD, 0), (CompressionType.ZSTD, 23)],
)
def test_level_out_of_range_is_our_own_error(kind: CompressionType, level: int) -> None:
    """zlib has levels 0 to 9, Zstandard 1 to 22."""
    with pytest.raises(LocalProtocolError, match="level"):
        compress(b"", kind, level)


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [(CompressionType.LZ4, "lz4.frame", "[lz4]"), (CompressionType.ZSTD, "zstandard", "[zstd]")],
)
def test_missing_library_names_the_extra(
    kind: CompressionType, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the library both directions tell what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LocalProtocolError) as compressing:
        compress(b"x", kind)
    with pytest.raises(LocalProtocolError) as decompressing:
        decompress(b"x", kind.sys_flag, 10)
    for caught in (compressing, decompressing):
        assert f"apogeemq-remoting-codec{extra}" in str(caught.value)
