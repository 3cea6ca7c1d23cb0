"""Compressed message bodies. Producers compress and consumers decompress; a broker only passes them on.

The system flag says how: bit 0x1 = compressed, bits 0x700 = with what (CompressionType << 8).
```
type 0  zlib of old clients; gRPC clients' GZIP bodies are stored so, too: the first bytes tell (1F 8B)
type 1  LZ4, the frame format; Java reads frames with independent blocks only
type 2  Zstandard, one frame
type 3  zlib
```
Readers of a body clear only bit 0x1 in the flag and leave the type.
zlib is always there; the libraries for the two others are extras, imported when first needed.
Source: remoting.md §5 (Apache CompressionType, Compressor and its three implementations).
"""

import zlib
from enum import IntEnum
from types import ModuleType

from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.errors import BodyInvalid, LocalProtocolError

COMPRESSION_LEVEL_DEFAULT = 5
COMPRESS_BODY_SIZE_BYTES_MIN = 4096
"""Producers compress bodies from this size on (compressMsgBodyOverHowmuch)."""

_TYPE_SHIFT = 8
_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
"""Tells zlib to look at the first bytes for the format."""
_CHUNK_SIZE_BYTES = 256 * 1024
_ZSTD_LEVEL_MAX = 22


class CompressionType(IntEnum):
    """The compression types, by their number in the system flag."""

    LZ4 = 1
    ZSTD = 2
    ZLIB = 3

    @property
    def sys_flag(self) -> int:
        """The bits to set in the flag of a message whose body was compressed so."""
        return MessageSysFlag.COMPRESSED_FLAG | self << _TYPE_SHIFT


def compress(body: bytes, kind: CompressionType, level: int = COMPRESSION_LEVEL_DEFAULT) -> bytes:
    """The body in the form that `kind.sys_flag` announces.

    `level`: 0 to 9 for zlib, 1 to 22 for Zstandard, not used by LZ4 (as in Java).
    Errors: LocalProtocolError for a level out of range, or when the library is not installed.
    """
    if kind is CompressionType.ZLIB:
        _check_level(level, 0, 9)
        return zlib.compress(body, level)
    if kind is CompressionType.ZSTD:
        _check_level(level, 1, _ZSTD_LEVEL_MAX)
        compressed: bytes = _zstandard().ZstdCompressor(level=level).compress(body)
        return compressed
    frame: bytes = _lz4_frame().compress(body, block_linked=False)
    return frame


def decompress(body: bytes, sys_flag: int, max_size_bytes: int) -> bytes:
    """The body as the user sent it; returned as it is unless `sys_flag` says compressed.

    Never produces more than a chunk above `max_size_bytes` before it gives up, whatever the body claims.
    Errors: BodyInvalid when the result would exceed the bound, the bytes are damaged, end early, or something follows
    them, or the type is unknown; LocalProtocolError when the library is not installed.
    """
    if not sys_flag & MessageSysFlag.COMPRESSED_FLAG:
        return body
    kind = (sys_flag & MessageSysFlag.COMPRESSION_TYPE_COMPARATOR) >> _TYPE_SHIFT
    if kind in (0, CompressionType.ZLIB):
        return _inflate(body, max_size_bytes)
    if kind == CompressionType.LZ4:
        return _decompress_lz4(body, max_size_bytes)
    if kind == CompressionType.ZSTD:
        return _decompress_zstd(body, max_size_bytes)
    raise BodyInvalid(f"unknown compression type {kind}")


def _inflate(body: bytes, max_size_bytes: int) -> bytes:
    """zlib or gzip. zlib itself stops at the length asked for and grows its buffer step by step."""
    inflater = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        inflated = inflater.decompress(body, max_size_bytes + 1)
    except zlib.error as error:
        raise BodyInvalid(f"not a zlib or gzip stream: {error}") from error
    _check_bound(len(inflated), max_size_bytes)
    _check_end(inflater.eof, inflater.unused_data)
    return inflated


def _decompress_lz4(body: bytes, max_size_bytes: int) -> bytes:
    decompressor = _lz4_frame().LZ4FrameDecompressor()
    chunks: list[bytes] = []
    size_bytes = 0
    data = body
    try:
        while not decompressor.eof:
            chunk: bytes = decompressor.decompress(data, max_length=_CHUNK_SIZE_BYTES)
            data = b""
            size_bytes += len(chunk)
            _check_bound(size_bytes, max_size_bytes)
            chunks.append(chunk)
            if not chunk and decompressor.needs_input:
                break
    except RuntimeError as error:
        raise BodyInvalid(f"not an LZ4 frame: {error}") from error
    _check_end(decompressor.eof, decompressor.unused_data or b"")
    return b"".join(chunks)


def _decompress_zstd(body: bytes, max_size_bytes: int) -> bytes:
    """First measured in chunks that are thrown away: the reader bounds its output but hides a cut-off frame, while the
    decompression object tells the end of the frame but has no bound.
    """
    zstandard = _zstandard()
    decompressor = zstandard.ZstdDecompressor()
    size_bytes = 0
    try:
        reader = decompressor.stream_reader(body)
        while chunk := reader.read(_CHUNK_SIZE_BYTES):
            size_bytes += len(chunk)
            _check_bound(size_bytes, max_size_bytes)
        whole = decompressor.decompressobj()
        decompressed: bytes = whole.decompress(body)
    except zstandard.ZstdError as error:
        raise BodyInvalid(f"not a Zstandard frame: {error}") from error
    _check_end(whole.eof, whole.unused_data)
    return decompressed


def _check_level(level: int, level_min: int, level_max: int) -> None:
    if not level_min <= level <= level_max:
        raise LocalProtocolError(f"compression level {level} is not in {level_min} to {level_max}")


def _check_bound(size_bytes: int, max_size_bytes: int) -> None:
    if size_bytes > max_size_bytes:
        raise BodyInvalid(f"the decompressed body exceeds {max_size_bytes} bytes")


def _check_end(complete: bool, rest: bytes) -> None:
    if not complete:
        raise BodyInvalid("the compressed body ends early")
    if rest:
        raise BodyInvalid(f"{len(rest)} bytes follow the compressed body")


def _lz4_frame() -> ModuleType:
    try:
        import lz4.frame
    except ImportError as error:
        raise LocalProtocolError("LZ4 bodies need the lz4 library: install apogeemq-remoting-codec[lz4]") from error
    module: ModuleType = lz4.frame
    return module


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise LocalProtocolError(
            "Zstandard bodies need the zstandard library: install apogeemq-remoting-codec[zstd]"
        ) from error
    return zstandard
