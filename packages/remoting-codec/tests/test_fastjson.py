r"""Tests of fastjson: the two shapes that are no JSON, the written forms, bounds, and agreement with a JSON library."""

import json
from enum import IntEnum, StrEnum
from typing import Any

import msgspec
import pytest
from apogeemq.remoting_codec.errors import BodyInvalid, CodecError, LocalProtocolError
from apogeemq.remoting_codec.fastjson import DEPTH_MAX, FrozenObject, JsonBody, JsonValue, dumps, loads, without_nulls
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
OBJECT_KEYS = st.dictionaries(TEXT, st.integers() | TEXT | st.booleans(), max_size=3).map(FrozenObject)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(TEXT | st.integers(-(2**63), 2**63) | OBJECT_KEYS, values, max_size=3)
    ),
    max_leaves=15,
)
STRICT_VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXT, values, max_size=3),
    max_leaves=15,
)


class Colour(StrEnum):
    """An enum whose values differ from its names."""

    RED = "red"


class Level(IntEnum):
    """An enum of ints."""

    LOW = 1


class Inner(JsonBody, frozen=True):
    """Some value, usable as a key."""

    zeta: int
    alpha: str


class Outer(JsonBody, frozen=True, kw_only=True):
    """Some body with every kind of field."""

    some_name: str
    colour: Colour = Colour.RED
    by_number: dict[int, str] = msgspec.field(default_factory=dict)
    by_object: dict[Inner, int] = msgspec.field(default_factory=dict)
    absent: str | None = None
    count: int = 7


# -- reading ---------------------------------------------------------------------------------------------------------


def test_bare_integer_keys_become_integers() -> None:
    """The broker addresses of cluster info have bare keys, negative ones included."""
    assert loads(b'{"brokerAddrs":{0:"a:1",-1:"b:2"}}') == {"brokerAddrs": {0: "a:1", -1: "b:2"}}


def test_object_keys_become_frozen_objects() -> None:
    """The offset table of a reset is keyed by queue."""
    loaded = loads(b'{"offsetTable":{{"brokerName":"b","queueId":3,"topic":"T"}:55}}')
    key = FrozenObject({"topic": "T", "queueId": 3, "brokerName": "b"})
    assert loaded == {"offsetTable": {key: 55}}


def test_quoted_integer_keys_stay_text() -> None:
    """Standard JSON has no integer keys; a typed body converts them."""
    assert loads(b'{"0":"a"}') == {"0": "a"}
    assert Outer.decode(b'{"someName":"n","byNumber":{"0":"a"}}').by_number == {0: "a"}
    assert Outer.decode(b'{"someName":"n","byNumber":{0:"a"}}').by_number == {0: "a"}


def test_white_space_is_skipped_everywhere() -> None:
    """Config files are broken into lines, also around bare keys."""
    assert loads(b' {\n\t"a" : [ 1 , {} ,\t[ ] ] ,\r 0 : 3\n\t} ') == {"a": [1, {}, []], 0: 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (rb'{0:"\u00e9\n\"\\\/"}', 'é\n"\\/'),
        (rb'{0:"\ud83d\ude00"}', "😀"),
        ('{0:"日本"}'.encode(), "日本"),
        (b'{0:"{1:2}"}', "{1:2}"),
        (b"{0:-0}", 0),
        (b"{0:1.5e3}", 1500.0),
        (b"{0:1E2}", 100.0),
        (b"{0:9223372036854775807}", 2**63 - 1),
        (b"{0:true}", True),
        (b"{0:null}", None),
    ],
)
def test_tolerant_reader_knows_all_values(text: bytes, value: JsonValue) -> None:
    """Escapes, surrogate pairs, numbers and words read in text that is no JSON because of its key."""
    assert loads(text) == {0: value}


def test_of_two_equal_keys_the_later_wins() -> None:
    """In strict and in tolerant reading."""
    assert loads(b'{"a":1,"a":2}') == {"a": 2}
    assert loads(b"{1:1,1:2}") == {1: 2}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"{0",
        b"{0:",
        b"{0:1",
        b"{0:1,",
        b"{0:1,}",
        b"{0:1]",
        b"{0 1}",
        b"{0:1}x",
        b"{0:1}{",
        b"{,}",
        b"[1,]",
        b"[1 2]",
        b"[0:1]",
        b"]",
        b":",
        b"{a:1}",
        b"{'a':1}",
        b"{true:1}",
        b"{null:1}",
        b"{1.5:1}",
        b"{[1]:1}",
        b'{{"a":[1]}:1}',
        b'{{"a":{}}:1}',
        b"{{0:1}:1}",
        b"{0:01}",
        b"{0:+1}",
        b"{0:1.}",
        b"{0:.5}",
        b"{0:1e999}",
        b"{0:" + b"9" * 100 + b"}",
        b"{0:nul}",
        b"{0:NaN}",
        b'{0:"a}',
        b'{0:"\\x"}',
        b'{0:"\\ud800"}',
        b'{0:"\n"}',
        b'{0:"\xff"}',
        b'{"a":"\xff"}',
        b"\xff",
    ],
)
def test_other_text_is_invalid(text: bytes) -> None:
    """What neither JSON nor fastjson would write is refused as BodyInvalid."""
    with pytest.raises(BodyInvalid):
        loads(text)


def test_error_tells_the_position() -> None:
    """The offending token's place is in the message."""
    with pytest.raises(BodyInvalid, match="at character 5"):
        loads(b"{0:1 2}")


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"{0:", b"{", b'{{"a":'])
@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 100_000])
def test_deep_nesting_is_invalid(opening: bytes, depth: int) -> None:
    """Brackets without end are refused by depth, not by the interpreter's stack."""
    with pytest.raises(BodyInvalid):
        loads(b"{0:" + opening * depth)


def test_deep_strict_json_is_invalid() -> None:
    """Also when the native parser gives up."""
    with pytest.raises(BodyInvalid, match="nested"):
        loads(b"[" * 200_000 + b"]" * 200_000)


def test_sizes_are_bounded() -> None:
    """One bound for all text, a lower one for text that only the tolerant parser reads."""
    with pytest.raises(BodyInvalid, match="exceeds 3"):
        loads(b'"abc"', size_bytes_max=3)
    with pytest.raises(BodyInvalid, match="tolerant"):
        loads(b"{0:1}", tolerant_size_bytes_max=4)
    assert loads(b'{"":1}', tolerant_size_bytes_max=4) == {"": 1}
    with pytest.raises(BodyInvalid):
        Outer.decode(b'{"someName":"n"}', size_bytes_max=3)


@given(STRICT_VALUES)
def test_tolerant_reader_agrees_with_a_json_library(value: Any) -> None:
    """Text of another JSON writer, made unreadable for strict readers by one bare key, reads the same."""
    text = json.dumps(value, ensure_ascii=False, indent=1).encode()
    assert loads(b"{0:" + text + b"}") == {0: value}
    assert loads(text) == value


@given(VALUES)
def test_values_survive_the_round_trip(value: Any) -> None:
    """Whatever can be written is read back; object members that are None do not come back."""
    assert loads(dumps(value)) == without_nulls(value)
    assert loads(dumps(value, pretty=True)) == without_nulls(value)


@given(STRICT_VALUES)
def test_standard_form_is_json_in_ascii(value: Any) -> None:
    """A JSON library reads the standard form, and it has no character beyond ASCII."""
    text = dumps(value, standard=True)
    assert text.isascii()
    assert json.loads(text) == without_nulls(value)


@given(
    st.binary(max_size=60) | st.text(st.sampled_from('{}[]:,"\\0123456789-.e truefalsn'), max_size=40).map(str.encode)
)
def test_any_bytes_raise_only_codec_errors(text: bytes) -> None:
    """Rubbish gives a value or a CodecError, never another exception."""
    for function in (loads, Outer.decode):
        try:
            function(text)
        except CodecError:
            continue


# -- frozen objects --------------------------------------------------------------------------------------------------


def test_frozen_objects_are_keys() -> None:
    """Equal to a dict with the same items, and hashed without regard to their order."""
    one, other = FrozenObject({"a": 1, "b": "x"}), FrozenObject({"b": "x", "a": 1})
    assert one == other == {"a": 1, "b": "x"}
    assert hash(one) == hash(other)
    assert {one: 5}[other] == 5
    assert (one["a"], list(one), len(one), repr(one)) == (1, ["a", "b"], 2, "FrozenObject({'a': 1, 'b': 'x'})")


# -- writing ---------------------------------------------------------------------------------------------------------


def test_fields_are_alphabetical_nulls_absent_and_enums_by_name() -> None:
    """A Struct is written as fastjson writes a bean."""
    body = Outer(some_name="n", by_number={1: "b", 0: "a"}, by_object={Inner(1, "x"): 5})
    assert body.encode() == (
        b'{"byNumber":{1:"b",0:"a"},"byObject":{{"alpha":"x","zeta":1}:5},"colour":"RED","count":7,"someName":"n"}'
    )


def test_maps_keep_their_order_and_lose_their_nulls() -> None:
    """A map is written in its own order; null stays only in lists."""
    assert dumps({"b": 1, "a": None, "c": [None]}) == b'{"b":1,"c":[null]}'


def test_text_is_raw_utf8_with_the_escapes_of_json() -> None:
    """Only quotes, backslashes and control characters are escaped; slashes are not."""
    assert dumps('é/"\\\b\t\n\f\r\x01') == r'"é/\"\\\b\t\n\f\r\u0001"'.encode()


def test_standard_form_quotes_keys_and_escapes() -> None:
    r"""Integer keys get quotes, characters beyond ASCII \uXXXX, and / becomes \/ ."""
    assert dumps({0: "é/😀"}, standard=True) == b'{"0":"\\u00E9\\/\\uD83D\\uDE00"}'


def test_pretty_form_breaks_lines_before_text_keys_only() -> None:
    """As the recorded config/consumerOffset.json: bare keys follow their brace, empty maps stay closed."""
    value = {"offsetTable": {"T@G": {0: 3, 1: 4}}, "empty": {}, "list": ["x", "y"]}
    assert dumps(value, pretty=True).decode() == (
        '{\n\t"offsetTable":{\n\t\t"T@G":{0:3,1:4\n\t\t}\n\t},\n\t"empty":{},\n\t"list":["x","y"]\n}'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, b"null"),
        (True, b"true"),
        (0.5, b"0.5"),
        (Level.LOW, b'"LOW"'),
        ((1, 2), b"[1,2]"),
        ({}, b"{}"),
        ([], b"[]"),
        ({Level.LOW: 1}, b"{1:1}"),
        (Outer(some_name="x").by_object, b"{}"),
    ],
)
def test_every_kind_of_value(value: object, text: bytes) -> None:
    """Scalars, enums, tuples and empty containers have one form each."""
    assert dumps(value) == text


@pytest.mark.parametrize(
    "value", [b"x", object(), float("nan"), float("inf"), {True: 1}, {1.5: 1}, {None: 1}, {(1,): 1}, "\ud800"]
)
def test_what_json_does_not_have_is_our_own_error(value: object) -> None:
    """Bytes, arbitrary objects, NaN, and keys of other types cannot be written."""
    with pytest.raises(LocalProtocolError):
        dumps(value)


def test_object_keys_have_no_standard_form() -> None:
    """5.5.0 refuses object keys in quotes, so they are never made."""
    with pytest.raises(LocalProtocolError):
        dumps({Inner(1, "x"): 5}, standard=True)


def test_deep_values_are_our_own_error() -> None:
    """A value that holds itself ends at the depth bound."""
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(LocalProtocolError, match="nested"):
        dumps(endless)


# -- typed bodies ----------------------------------------------------------------------------------------------------


def test_unknown_fields_are_ignored_and_defaults_taken() -> None:
    """A body of a newer or older peer reads."""
    assert Outer.decode(b'{"someName":"n","newField":{"x":1}}') == Outer(some_name="n")


def test_null_stands_for_an_absent_field() -> None:
    """fastjson leaves a field as it is when the JSON says null."""
    assert Outer.decode(b'{"someName":"n","count":null,"byNumber":null}') == Outer(some_name="n")


def test_quoted_numbers_are_numbers() -> None:
    """C++ clients quote their longs."""
    assert Outer.decode(b'{"someName":"n","count":"12"}').count == 12


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b'{"count":1}', "someName"),
        (b'{"someName":1}', r"\$.someName"),
        (b'{"someName":"n","colour":"BLUE"}', r"\$.colour"),
        (b'{"someName":"n","count":[]}', r"\$.count"),
        (b'{"someName":"n","byNumber":{"x":"a"}}', r"\$.byNumber"),
        (b'{"someName":"n","byObject":{{"zeta":1}:2}}', "alpha"),
        (b"[]", "Outer"),
        (b"null", "Outer"),
    ],
)
def test_error_names_the_field(text: bytes, field: str) -> None:
    """A missing, mistyped or unknown value is refused with the path of its field."""
    with pytest.raises(BodyInvalid, match=field):
        Outer.decode(text)


def test_list_where_a_map_is_expected_is_refused() -> None:
    """As seen with fastjson of either version."""
    with pytest.raises(BodyInvalid):
        Outer.decode(b'{"someName":"n","byObject":[{"zeta":1,"alpha":"x"}]}')


def test_bodies_are_values() -> None:
    """A body equals another with the same fields and cannot be changed."""
    assert Inner(1, "x") == Inner(1, "x")
    with pytest.raises(AttributeError):
        setattr(Inner(1, "x"), "zeta", 2)  # noqa: B010


def test_null_stripping_is_bounded_in_depth() -> None:
    """A value nested beyond the bound is refused."""
    deep: JsonValue = 1
    for _ in range(DEPTH_MAX + 1):
        deep = [deep]
    with pytest.raises(BodyInvalid):
        without_nulls(deep)
