"""The JSON form of a command's header.

As Apache writes it: one object, keys in alphabetical order, absent values left out (here broken in two):

    {"code":0,"extFields":{"queueId":"1"},"flag":1,"language":"JAVA","opaque":7,"remark":"r",
     "serializeTypeCurrentRPC":"JSON","version":479}

Every value in extFields is a string. The order inside extFields has no meaning (Java writes hash order); it is kept, so
that a decoded header encodes to the same bytes. Reading ignores unknown keys and, as fastjson does, takes numbers and
booleans in extFields for their text, a number in quotes for the number, and null for absent.
"""

from typing import Final

import msgspec
from apogeemq.remoting_codec.codes import LanguageCode, SerializeType
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import FrameInvalid, LocalProtocolError
from apogeemq.remoting_codec.java_numbers import Int32

_JSON: Final = int(SerializeType.JSON)


class _JsonHeader(msgspec.Struct, gc=False, rename="camel"):
    """The header as it stands in JSON. Fields in alphabetical order of their wire names: the encoder keeps it.

    A command without `version` gets 0, which means the oldest behaviour everywhere.
    """

    code: Int32
    ext_fields: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    flag: Int32 = 0
    language: str = LanguageCode.OTHER.name
    opaque: Int32 = 0
    remark: str | msgspec.UnsetType = msgspec.UNSET
    serialize_type: str = msgspec.field(default="JSON", name="serializeTypeCurrentRPC")
    version: Int32 = 0


_decode = msgspec.json.Decoder(_JsonHeader).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


def decode_header_json(header: bytes | memoryview, body: bytes = b"") -> RemotingCommand:
    """Read a JSON header; `body` is put into the command as it is.

    Raises FrameInvalid that names the field, or says what is wrong with the JSON. Header bytes are never quoted.
    """
    try:
        parsed = _decode(header)
    except msgspec.ValidationError:
        parsed = _decode_leniently(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error
    return RemotingCommand(
        parsed.code,
        parsed.flag,
        parsed.opaque,
        None if parsed.remark is msgspec.UNSET else parsed.remark,
        None if parsed.ext_fields is msgspec.UNSET else parsed.ext_fields,
        body,
        parsed.language,
        parsed.version,
        _JSON,
    )


def encode_header_json(
    code: int,
    flag: int,
    opaque: int,
    remark: str | None,
    ext_fields: dict[str, str] | None,
    language: str,
    version: int,
) -> bytes:
    """Write a JSON header, byte for byte as Apache would for the same order of ext fields.

    Takes the parts and not a command, so that replies on a hot path need not build one.
    Raises LocalProtocolError when a text is not encodable (a lone surrogate).
    """
    try:
        return _encode(
            _JsonHeader(
                code,
                msgspec.UNSET if ext_fields is None else ext_fields,
                flag,
                language,
                opaque,
                msgspec.UNSET if remark is None else remark,
                "JSON",
                version,
            )
        )
    except UnicodeEncodeError as error:
        raise LocalProtocolError("a header text holds a lone surrogate and has no UTF-8 form") from error


def _decode_leniently(header: bytes | memoryview) -> _JsonHeader:
    """Read a header with values of other JSON types than Apache writes, which fastjson accepts. Slow, rarely taken."""
    try:
        values: dict[str, object] = {}
        for name, raw in _decode_object(header).items():
            if bytes(raw) != b"null":
                values[name] = _ext_fields(raw) if name == "extFields" else msgspec.json.decode(raw)
        return msgspec.convert(values, _JsonHeader, strict=False)
    except msgspec.ValidationError as error:
        raise FrameInvalid(f"JSON header: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error


def _ext_fields(raw: msgspec.Raw) -> dict[str, str]:
    """Ext fields with scalar values as text; null ones are dropped."""
    ext_fields = {}
    for name, value in _decode_object(raw).items():
        match bytes(value)[:1]:
            case b"n":
                continue
            case b'"':
                ext_fields[name] = _decode_string(value)
            case b"{" | b"[":
                raise FrameInvalid(f"JSON header: the ext field <{name[:64]}> is not a scalar")
            case _:
                ext_fields[name] = bytes(value).decode("ascii")
    return ext_fields


def _malformed(error: Exception) -> FrameInvalid:
    """Say what is wrong with the JSON, without the bytes that a UnicodeDecodeError would show."""
    match error:
        case UnicodeDecodeError():
            return FrameInvalid("JSON header: a text is not UTF-8")
        case RecursionError():
            return FrameInvalid("JSON header: nested too deeply")
        case _:
            return FrameInvalid(f"JSON header: {error}")
