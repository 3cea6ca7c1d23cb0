r"""JSON as Apache RocketMQ's fastjson writes it, and values that become bodies.

Two shapes on the wire and on disk are no JSON, yet must be read and written:
```
bare integer keys     {"brokerAddrs":{0:"10.0.0.1:10911"}}
object keys           {"offsetTable":{{"brokerName":"b","queueId":3,"topic":"T"}:55}}
```
`loads` reads strict JSON with a native parser and falls back to a tolerant one of our own; an object key becomes a
`FrozenObject`. `dumps` writes what fastjson writes:
- no white space; the fields of a Struct in alphabetical order of their wire names; fields and map values that are None
  left out; enums by name; text as raw UTF-8;
- maps keep their own order (Java's are in hash order, which means nothing), so what was read is written back alike;
- `standard=True`, the form of a route answer to a client of version 401 or later: integer keys in quotes, every
  character beyond ASCII as \uXXXX, and / as \/ ;
- `pretty=True`, the form of the files under config/: every member with a text key on a line of its own, indented by
  tabs; members with bare keys are not broken (so fastjson does it).
Source: remoting.md §8, recorded bodies and config files of 5.3.3.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from math import isfinite
from typing import ClassVar, Self, TypeAlias, TypeVar

import msgspec
from apogeemq.remoting_codec.errors import BodyInvalid, LocalProtocolError

BODY_SIZE_BYTES_MAX = 16 * 1024 * 1024
"""No frame is larger, so no body is."""
TOLERANT_SIZE_BYTES_MAX = 256 * 1024
"""Bound for text that only the tolerant parser can read, some fifty times slower than the native one: a peer must not
hold the event loop with it. Who reads a file of his own, or has time, sets a higher one.
"""
DEPTH_MAX = 64
"""Objects and lists in each other; Apache's deepest body has 6."""
FILE_SIZE_BYTES_MAX = 64 * 1024 * 1024
"""Bound for the tables under config/: some million offsets. They come from the own disk or the own master."""

Scalar: TypeAlias = bool | int | float | str | None


class FrozenObject(Mapping[str, Scalar]):
    """An object that served as a key: an immutable mapping with scalar values, equal to a dict with the same items."""

    __slots__ = ("_fields", "_hash")

    def __init__(self, fields: Mapping[str, Scalar]) -> None:
        self._fields = dict(fields)
        self._hash = hash(frozenset(self._fields.items()))

    def __getitem__(self, name: str) -> Scalar:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"FrozenObject({self._fields!r})"


JsonKey: TypeAlias = str | int | FrozenObject
JsonValue: TypeAlias = "Scalar | list[JsonValue] | dict[JsonKey, JsonValue]"

# --------------------------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------------------------


def loads(
    text: bytes,
    *,
    size_bytes_max: int = BODY_SIZE_BYTES_MAX,
    tolerant_size_bytes_max: int = TOLERANT_SIZE_BYTES_MAX,
) -> JsonValue:
    """The value that `text` (UTF-8) holds. Bare integer keys become ints, object keys FrozenObjects; of two equal keys
    the later one wins. Quoted integers stay text: the reader cannot know what was meant.

    Errors: BodyInvalid, with the position, for anything else, for nesting beyond DEPTH_MAX (in strict JSON: beyond the
    native parser's own bound) and for text above the bounds.
    """
    if len(text) > size_bytes_max:
        raise BodyInvalid(f"JSON text of {len(text)} bytes exceeds {size_bytes_max}")
    try:
        strict: JsonValue = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return _Reader(_decode_utf8(text), tolerant_size_bytes_max).document()
    except RecursionError as error:
        raise BodyInvalid("JSON text is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise BodyInvalid(f"JSON text is not UTF-8 at {error.start}") from error
    return strict


def _decode_utf8(text: bytes) -> str:
    try:
        return bytes(text).decode()
    except UnicodeDecodeError as error:
        raise BodyInvalid(f"JSON text is not UTF-8 at {error.start}") from error


_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
        "([^"\\\x00-\x1f]*)"                                     # 1  text without escapes
      | ([{}\[\]:,])                                              # 2
      | (-?(?:0|[1-9][0-9]*)(?![0-9.eE]))                         # 3  integer
      | ("[^"\\]*(?:\\.[^"\\]*)*")                               # 4  text to be unescaped
      | (-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)    # 5
      | (true|false|null)                                         # 6
      | (\Z)                                                      # 7
      | (.)                                                       # 8  nothing that belongs there
    )""",
    re.VERBOSE | re.DOTALL,
)
"""Numbered groups: this runs once a token, and a name costs a look-up."""
_PLAIN, _MARK, _INT, _TEXT, _FLOAT, _WORD, _END, _UNKNOWN = range(1, 9)
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_NUMBER_SIZE_MAX = 64
"""No number in a body needs more digits, and Python's int() takes quadratic time."""


class _Reader:
    """The tolerant parser: recursive descent over the tokens of one text.

    `_kind` and `_token` are the token to be looked at next.
    """

    def __init__(self, text: str, size_max: int) -> None:
        if len(text) > size_max:
            raise BodyInvalid(f"not strict JSON, and too long for the tolerant parser ({len(text)} > {size_max})")
        self._tokens = _TOKEN.finditer(text)
        self._depth = 0
        self._advance()

    def document(self) -> JsonValue:
        value = self._value()
        if self._kind != _END:
            raise self._error("more text after the value")
        return value

    def _advance(self) -> None:
        """Goes one token on. After the end comes nothing, but nobody asks: the end fits no rule but `document`'s."""
        self._match = match = next(self._tokens)
        kind = match.lastindex
        assert kind is not None, "every alternative is a group"
        self._kind = kind
        self._token: str = match[kind]

    def _take_mark(self, mark: str) -> bool:
        """Moves past `mark` if it is next; text in quotes is never a mark."""
        if self._token != mark or self._kind != _MARK:
            return False
        self._advance()
        return True

    def _expect(self, mark: str) -> None:
        if not self._take_mark(mark):
            raise self._error(f"expected {mark}")

    def _value(self) -> JsonValue:
        if self._kind != _MARK:
            return self._scalar()
        return self._object() if self._token == "{" else self._list()  # noqa: S105 — a JSON token, not a secret

    def _open(self, mark: str) -> None:
        self._expect(mark)
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._error("nested too deeply")

    def _close(self, mark: str) -> None:
        self._expect(mark)
        self._depth -= 1

    def _object(self) -> dict[JsonKey, JsonValue]:
        members: dict[JsonKey, JsonValue] = {}
        self._open("{")
        more = self._token != "}"  # noqa: S105
        while more:
            key = self._key()
            self._expect(":")
            members[key] = self._value()
            more = self._take_mark(",")
        self._close("}")
        return members

    def _list(self) -> list[JsonValue]:
        items: list[JsonValue] = []
        self._open("[")
        more = self._token != "]"  # noqa: S105
        while more:
            items.append(self._value())
            more = self._take_mark(",")
        self._close("]")
        return items

    def _key(self) -> JsonKey:
        if self._kind in (_PLAIN, _TEXT, _INT):
            key = self._scalar()
            assert isinstance(key, (str, int)), "these tokens are text or integers"
            return key
        fields: dict[str, Scalar] = {}
        for name, value in self._object().items():
            if not isinstance(name, str) or isinstance(value, (dict, list)):
                raise self._error("an object key has more than plain fields")
            fields[name] = value
        return FrozenObject(fields)

    def _scalar(self) -> Scalar:
        kind, token = self._kind, self._token
        if kind == _PLAIN:
            value: Scalar = token
        elif kind in (_INT, _FLOAT):
            value = self._number(token)
        elif kind == _TEXT:
            value = self._unescaped(token)
        elif kind == _WORD:
            value = _WORDS[token]
        else:
            raise self._error("not a value")
        self._advance()
        return value

    def _number(self, token: str) -> int | float:
        if len(token) > _NUMBER_SIZE_MAX:
            raise self._error("a number with too many digits")
        if self._kind == _INT:
            return int(token)
        number = float(token)
        if not isfinite(number):
            raise self._error("a number out of range")
        return number

    def _unescaped(self, token: str) -> str:
        try:
            return msgspec.json.decode(token, type=str)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise self._error("text with an invalid escape or control character") from error

    def _error(self, reason: str) -> BodyInvalid:
        return BodyInvalid(f"{reason} at character {self._match.start(self._kind)}")


# --------------------------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------------------------


def dumps(value: object, *, standard: bool = False, pretty: bool = False) -> bytes:
    """`value` as fastjson writes it (see the head of this module), in UTF-8.

    Takes None, bool, int, float, str, Enum, Struct, mappings with keys of text, int, or (not in the standard form)
    Struct or mapping, and any other collection as a list.
    Errors: LocalProtocolError for anything else, for numbers that JSON does not have, and beyond DEPTH_MAX.
    """
    parts: list[str] = []
    _Writer(parts.append, standard=standard, pretty=pretty).value(value, 0)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"text is not valid Unicode: {error.reason}") from error


_ESCAPED_RAW = re.compile(r'["\\\x00-\x1f]')
_ESCAPED_STANDARD = re.compile(r'["\\/]|[^ -~]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def _escape(match: re.Match[str]) -> str:
    """One character in escaped form; beyond the BMP as a surrogate pair."""
    character = match[0]
    known = _ESCAPES.get(character)
    if known is not None:
        return known
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02X}{units[i + 1]:02X}" for i in range(0, len(units), 2))


class _Writer:
    """Writes one value through `emit`, which takes pieces of text."""

    def __init__(self, emit: Callable[[str], None], *, standard: bool, pretty: bool) -> None:
        self._emit = emit
        self._standard = standard
        self._pretty = pretty
        self._escaped = _ESCAPED_STANDARD if standard else _ESCAPED_RAW

    def value(self, value: object, depth: int) -> None:
        if value is None:
            self._emit("null")
        elif value is True:
            self._emit("true")
        elif value is False:
            self._emit("false")
        elif isinstance(value, Enum):
            self._emit(self._quote(value.name))
        elif isinstance(value, str):
            self._emit(self._quote(value))
        elif isinstance(value, int):
            self._emit(str(value))
        elif isinstance(value, float):
            if not isfinite(value):
                raise LocalProtocolError(f"JSON has no number {value}")
            self._emit(repr(value))
        elif depth >= DEPTH_MAX:
            raise LocalProtocolError("a value is nested too deeply for JSON")
        elif isinstance(value, msgspec.Struct):
            self._members(((name, getattr(value, attribute)) for name, attribute in _fields(type(value))), depth)
        elif isinstance(value, Mapping):
            self._members(value.items(), depth)
        elif isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, memoryview)):
            self._list(value, depth)
        else:
            raise LocalProtocolError(f"JSON has no form for {type(value).__name__}")

    def _members(self, members: Iterable[tuple[object, object]], depth: int) -> None:
        separator = "{"
        indent = "\n" + "\t" * (depth + 1) if self._pretty else ""
        for key, value in members:
            if value is None:
                continue
            self._emit(separator)
            separator = ","
            if isinstance(key, str):
                self._emit(indent)
                self._emit(self._quote(key))
            else:
                self._bare_key(key, depth)
            self._emit(":")
            self.value(value, depth + 1)
        if separator == "{":
            self._emit("{}")
        else:
            self._emit("\n" + "\t" * depth + "}" if self._pretty else "}")

    def _bare_key(self, key: object, depth: int) -> None:
        """A key that is no text: only fastjson's own dialect leaves it without quotes."""
        if isinstance(key, int) and not isinstance(key, bool):
            self._emit(f'"{int(key)}"' if self._standard else str(int(key)))
        elif isinstance(key, (msgspec.Struct, Mapping)) and not self._standard:
            _Writer(self._emit, standard=False, pretty=False).value(key, depth + 1)
        else:
            raise LocalProtocolError(f"JSON has no form for a key of type {type(key).__name__}")

    def _list(self, items: Iterable[object], depth: int) -> None:
        self._emit("[")
        for index, item in enumerate(items):
            if index:
                self._emit(",")
            self.value(item, depth + 1)
        self._emit("]")

    def _quote(self, text: str) -> str:
        return f'"{self._escaped.sub(_escape, text)}"'


@cache
def _fields(struct_type: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    """(wire name, attribute) of a Struct, in the order of writing."""
    return tuple(sorted(zip(struct_type.__struct_encode_fields__, struct_type.__struct_fields__, strict=True)))


# --------------------------------------------------------------------------------------------------------------------
# Bodies
# --------------------------------------------------------------------------------------------------------------------

T = TypeVar("T")


class JsonBody(msgspec.Struct, frozen=True, rename="camel"):
    """Base of all values that travel as a JSON body or lie in a config file.

    A subclass names its fields in snake case; on the wire they are camel case, or as `msgspec.field(name=…)` says.
    """

    SIZE_BYTES_MAX: ClassVar[int] = BODY_SIZE_BYTES_MAX
    TOLERANT_SIZE_BYTES_MAX: ClassVar[int] = TOLERANT_SIZE_BYTES_MAX
    """Bounds that `decode` keeps unless told otherwise; a table that is also a file has higher ones."""

    @classmethod
    def decode(
        cls, body: bytes, *, size_bytes_max: int | None = None, tolerant_size_bytes_max: int | None = None
    ) -> Self:
        """The value of a body: strict JSON or fastjson's. Tolerant as fastjson is: unknown fields are ignored, a null
        stands for an absent field, numbers may be quoted.

        Errors: BodyInvalid that names the field (as a path from `$`, the body) or the position.
        """
        size_bytes_max = cls.SIZE_BYTES_MAX if size_bytes_max is None else size_bytes_max
        if tolerant_size_bytes_max is None:
            tolerant_size_bytes_max = cls.TOLERANT_SIZE_BYTES_MAX
        if len(body) <= size_bytes_max:
            try:
                decoded: Self = _decoder(cls).decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # the slow way finds out what is wrong, or reads it after all
            else:
                return decoded
        value = loads(body, size_bytes_max=size_bytes_max, tolerant_size_bytes_max=tolerant_size_bytes_max)
        try:
            return msgspec.convert(cls._repair(without_nulls(value)), cls, strict=False)
        except msgspec.ValidationError as error:
            raise BodyInvalid(f"{cls.__name__}: {error}") from error

    @classmethod
    def _repair(cls, value: JsonValue) -> JsonValue:
        """A place for a subclass to mend what a known peer writes in a form of its own."""
        return value

    def encode(self, *, standard: bool = False, pretty: bool = False) -> bytes:
        """The body as Java writes it; `standard` and `pretty` as in `dumps`."""
        return dumps(self, standard=standard, pretty=pretty)


@cache
def _decoder(cls: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(cls, strict=False)


def without_nulls(value: JsonValue, depth: int = 0) -> JsonValue:
    """`value` with all object members that are null left out, so that defaults take their places.

    Errors: BodyInvalid beyond DEPTH_MAX.
    """
    if not isinstance(value, (dict, list)):
        return value
    if depth >= DEPTH_MAX:
        raise BodyInvalid("JSON text is nested too deeply")
    if isinstance(value, list):
        return [without_nulls(item, depth + 1) for item in value]
    return {key: without_nulls(member, depth + 1) for key, member in value.items() if member is not None}
