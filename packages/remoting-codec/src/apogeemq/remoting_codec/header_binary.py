"""The binary form of a command's header (serialise type ROCKETMQ), big-endian.

    code i16 | language i8 | version i16 | opaque i32 | flag i32 | remark length i32 | remark
    | ext length i32 | { key length i16 | key | value length i32 | value }*

Texts are UTF-8. The format cannot tell empty from absent: a remark of length 0 is None, no ext bytes are None, and a
pair with an empty key or value reads as absent (Apache: null, which it skips again when writing). Codes above 32,767
(pop and what follows) do not fit; Apache truncates them, this module refuses.
"""

import struct
from typing import Final

from apogeemq.remoting_codec.codes import LanguageCode, SerializeType
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import FrameInvalid, LocalProtocolError

_BINARY: Final = int(SerializeType.ROCKETMQ)
_FIXED: Final = struct.Struct(">hbhiii")
_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_unpack_int16 = _INT16.unpack_from
_unpack_int32 = _INT32.unpack_from
_LANGUAGE_NAMES: Final = {int(language): language.name for language in LanguageCode}


def decode_header_binary(header: bytes | memoryview, body: bytes = b"") -> RemotingCommand:
    """Read a binary header; `body` is put into the command as it is. An unknown language reads as OTHER.

    Raises FrameInvalid that names the field whose length or text is wrong.
    """
    data = bytes(header)
    if len(data) < _FIXED.size:
        raise FrameInvalid(f"binary header: {len(data)} bytes are less than its fixed part of {_FIXED.size}")
    code, language, version, opaque, flag, remark_size = _FIXED.unpack_from(data)
    ext_start = _FIXED.size + remark_size
    if not _FIXED.size <= ext_start <= len(data) - _INT32.size:
        raise FrameInvalid(f"binary header: <remark> has length {remark_size} in a header of {len(data)} bytes")
    (ext_size,) = _unpack_int32(data, ext_start)
    ext_start += _INT32.size
    if ext_start + ext_size != len(data):
        raise FrameInvalid(f"binary header: <extFields> has length {ext_size} of {len(data) - ext_start} bytes left")
    try:
        remark = data[_FIXED.size : _FIXED.size + remark_size].decode() or None
    except UnicodeDecodeError as error:
        raise FrameInvalid("binary header: <remark> is not UTF-8") from error
    ext_fields = _ext_fields(data, ext_start) if ext_size else None
    language_name = _LANGUAGE_NAMES.get(language, LanguageCode.OTHER.name)
    return RemotingCommand(code, flag, opaque, remark, ext_fields, body, language_name, version, _BINARY)


def encode_header_binary(command: RemotingCommand) -> bytes:
    """Write a command's header in binary. A language without a number is written as OTHER.

    Raises LocalProtocolError when a value does not fit its field, above all a code above 32,767.
    """
    try:
        language = LanguageCode.__members__.get(command.language, LanguageCode.OTHER)
        remark = (command.remark or "").encode()
        ext_fields = b"".join([_pair(name, value) for name, value in (command.ext_fields or {}).items()])
        fixed = _FIXED.pack(command.code, language, command.version, command.opaque, command.flag, len(remark))
        return b"".join((fixed, remark, _INT32.pack(len(ext_fields)), ext_fields))
    except (struct.error, UnicodeEncodeError) as error:
        raise LocalProtocolError(f"the command has no binary header: {error}") from error


def _pair(name: str, value: str) -> bytes:
    """One ext field."""
    key, text = name.encode(), value.encode()
    return b"".join((_INT16.pack(len(key)), key, _INT32.pack(len(text)), text))


def _ext_fields(data: bytes, position: int) -> dict[str, str]:
    """The ext fields from `position` to the end: one loop without calls of our own, for it runs per field received."""
    ext_fields = {}
    end = len(data)
    try:
        while position < end:
            (key_size,) = _unpack_int16(data, position)
            key_end = position + 2 + key_size
            (value_size,) = _unpack_int32(data, key_end)
            value_end = key_end + 4 + value_size
            if key_size < 0 or value_size < 0 or value_end > end:
                raise FrameInvalid(f"binary header: <extFields> has a pair of lengths {key_size} and {value_size}")
            if key_size and value_size:
                ext_fields[data[position + 2 : key_end].decode()] = data[key_end + 4 : value_end].decode()
            position = value_end
    except struct.error as error:
        raise FrameInvalid("binary header: <extFields> is truncated") from error
    except UnicodeDecodeError as error:
        raise FrameInvalid("binary header: <extFields> has a text that is not UTF-8") from error
    return ext_fields
