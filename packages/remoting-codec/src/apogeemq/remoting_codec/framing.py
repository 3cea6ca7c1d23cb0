"""One frame: length prefix, mark, header, body. All integers big-endian and unsigned here.

    length u32 = bytes after this field | mark u32 = serialise type (top byte) and header length | header | body

The bound counts the whole frame with its length field, as Apache's `com.rocketmq.remoting.frameMaxLength` does.
"""

from struct import Struct
from typing import Final

from apogeemq.remoting_codec.codes import RESPONSE_FLAG, VERSION, SerializeType
from apogeemq.remoting_codec.command import OWN_LANGUAGE, RemotingCommand
from apogeemq.remoting_codec.errors import FrameInvalid, LocalProtocolError, UnknownSerializeType
from apogeemq.remoting_codec.header_binary import decode_header_binary, encode_header_binary
from apogeemq.remoting_codec.header_json import decode_header_json, encode_header_json

FRAME_SIZE_BYTES_MAX: Final = 16_777_216
"""Largest frame, length field included."""

LENGTH_SIZE_BYTES: Final = 4
MARK_SIZE_BYTES: Final = 4

_HEADER_SIZE_BYTES_MAX: Final = 0xFFFFFF
_JSON: Final = int(SerializeType.JSON)
_BINARY: Final = int(SerializeType.ROCKETMQ)
_PREFIX: Final = Struct(">II")
_unpack_mark = Struct(">I").unpack_from


def decode_frame(frame: bytes | memoryview) -> RemotingCommand:
    """Read one frame without its length field: mark, header, body. The body is copied.

    Raises FrameInvalid or UnknownSerializeType. The caller bounds the size (Connection does).
    """
    view = memoryview(frame)
    return decode_frame_between(view, 0, len(view))


def decode_frame_between(view: memoryview, start: int, end: int) -> RemotingCommand:
    """`decode_frame` of view[start:end], for a buffer with many frames."""
    if end - start < MARK_SIZE_BYTES:
        raise FrameInvalid(f"{end - start} bytes have no room for the mark")
    (mark,) = _unpack_mark(view, start)
    header_start = start + MARK_SIZE_BYTES
    header_end = header_start + (mark & _HEADER_SIZE_BYTES_MAX)
    if header_end > end:
        raise FrameInvalid(f"header of {header_end - header_start} bytes in a frame with {end - header_start} left")
    body = view[header_end:end].tobytes() if header_end < end else b""
    serialize_type = mark >> 24
    if serialize_type == _JSON:
        return decode_header_json(view[header_start:header_end], body)
    if serialize_type == _BINARY:
        return decode_header_binary(view[header_start:header_end], body)
    raise UnknownSerializeType(serialize_type)


def encode_frame(command: RemotingCommand) -> bytes:
    """Write a whole frame, length field included. Raises LocalProtocolError when it has no valid form."""
    return encode_frame_head(command, len(command.body)) + command.body


def encode_frame_head(command: RemotingCommand, body_size_bytes: int) -> bytes:
    """Write a frame up to its body; exactly `body_size_bytes` bytes must follow. `command.body` is not looked at.

    For bodies that lie elsewhere (a view of the commit log) and should not be copied.
    """
    if command.serialize_type == _BINARY:
        return _head(_BINARY, encode_header_binary(command), body_size_bytes)
    header = encode_header_json(
        command.code,
        command.flag,
        command.opaque,
        command.remark,
        command.ext_fields,
        command.language,
        command.version,
    )
    return _head(_JSON, header, body_size_bytes)


def encode_response_frame(
    opaque: int,
    code: int,
    ext_fields: dict[str, str] | None = None,
    remark: str | None = None,
    body: bytes = b"",
) -> bytes:
    """Write the frame of a response from its parts: the fast path of servers, with no command built.

    Equal to `encode_frame(response(request, code, remark, ext_fields, body))` for the request with that opaque.
    """
    return encode_response_head(opaque, code, ext_fields, remark, len(body)) + body


def encode_response_head(
    opaque: int,
    code: int,
    ext_fields: dict[str, str] | None,
    remark: str | None,
    body_size_bytes: int,
) -> bytes:
    """`encode_response_frame` up to the body: exactly `body_size_bytes` bytes must follow."""
    header = encode_header_json(code, RESPONSE_FLAG, opaque, remark, ext_fields, OWN_LANGUAGE, VERSION)
    return _head(_JSON, header, body_size_bytes)


def _head(serialize_type: int, header: bytes, body_size_bytes: int) -> bytes:
    """Length, mark and header, after checking the bounds."""
    size_bytes = LENGTH_SIZE_BYTES + MARK_SIZE_BYTES + len(header) + body_size_bytes
    if size_bytes > FRAME_SIZE_BYTES_MAX:
        raise LocalProtocolError(f"frame of {size_bytes} bytes exceeds the bound of {FRAME_SIZE_BYTES_MAX} bytes")
    return _PREFIX.pack(size_bytes - LENGTH_SIZE_BYTES, serialize_type << 24 | len(header)) + header
