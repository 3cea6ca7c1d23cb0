"""What a command header is: declared once as a Struct, from which decoding, encoding and the errors follow.

On the wire a header is a flat map of strings (a command's ext fields). A class here lists its fields with their types:

- a field without a default is required (Apache marks it @CFNotNull), `X | None = None` is optional, and a default other
  than None is what Apache's class initialises the field to (such fields are always written);
- the wire name is the camel-case form of the attribute unless the class renames it;
- ints carry Java's range, so a number that a Java peer could not hold is refused by name. A little more is read
  than Java writes: `1e3` for 1000, `null` for an optional field that is absent, `1` and `0` for booleans.

Unknown ext fields are ignored: hooks and newer clients add their own (see the reference of each family).
"""

from enum import Enum
from typing import Self

import msgspec
from apogeemq.remoting_codec.errors import HeaderInvalid, HeaderMissing


class CommandHeader(msgspec.Struct, gc=False, rename="camel"):
    """Base of every header. Instances are values: compare them, never change them."""

    @classmethod
    def decode(cls, ext_fields: dict[str, str] | None) -> Self:
        """Read the header out of a command's ext fields (None: there are none).

        Raises HeaderMissing or HeaderInvalid with the wire name of the first field, in order of declaration, that is
        absent although required, or that does not parse.
        """
        try:
            return msgspec.convert(ext_fields or {}, cls, strict=False)
        except msgspec.ValidationError as error:
            raise _explain(cls, ext_fields or {}) from error

    def encode(self) -> dict[str, str]:
        """Write the header as ext fields: None is left out, booleans are `true` and `false`, an enum is its value."""
        ext_fields = {}
        for attribute, wire_name in zip(self.__struct_fields__, self.__struct_encode_fields__, strict=True):
            value = getattr(self, attribute)
            if value is not None:
                ext_fields[wire_name] = _text(value)
        return ext_fields


class RpcRequestHeader(CommandHeader, kw_only=True):
    """What 5.x may add to a request: namespace, target broker name, oneway. Source: Apache RpcRequestHeader."""

    ns: str | None = None
    nsd: bool | None = None
    bname: str | None = None
    oway: bool | None = None


class TopicRequestHeader(RpcRequestHeader, kw_only=True):
    """What 5.x may add to a request about a topic: `lo`, the queue id is a logical one (static topics)."""

    lo: bool | None = None


def _text(value: str | bool | int | Enum) -> str:
    """A field's value as the wire has it."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _explain(cls: type[CommandHeader], ext_fields: dict[str, str]) -> HeaderMissing | HeaderInvalid:
    """Find the field that made `ext_fields` unfit for `cls`. Slow, for the error path only."""
    for field in msgspec.structs.fields(cls):
        text = ext_fields.get(field.encode_name)
        if text is None:
            if field.required:
                return HeaderMissing(field.encode_name)
            continue
        try:
            msgspec.convert(text, field.type, strict=False)
        except msgspec.ValidationError as error:
            return HeaderInvalid(field.encode_name, str(error))
    raise AssertionError(f"{cls.__name__} refused ext fields that fit each of its fields")
