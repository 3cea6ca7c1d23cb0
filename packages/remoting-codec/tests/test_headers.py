"""Header declarations against Apache's classes (tests/wire/tables/headers.tsv), decoding and encoding of each."""

import csv
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin

import msgspec
import pytest
from apogeemq.remoting_codec import headers
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.errors import HeaderInvalid, HeaderMissing
from apogeemq.remoting_codec.headers import (
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    BoundaryType,
    CommandHeader,
    EndTransactionRequestHeader,
    GetMaxOffsetRequestHeader,
    Int32,
    Int64,
    PullMessageResponseHeader,
    SearchOffsetRequestHeader,
    SendMessageRequestHeader,
    SendMessageRequestHeaderV2,
)
from hypothesis import given
from hypothesis import strategies as st

TABLE = Path(__file__).parent / "wire" / "tables" / "headers.tsv"
JAVA_TYPES = {
    "String": str,
    "Integer": Int32,
    "int": Int32,
    "Long": Int64,
    "long": Int64,
    "Boolean": bool,
    "boolean": bool,
    "BoundaryType": BoundaryType,
}
PRIMITIVE = {("GetConsumerRunningInfoRequestHeader", "jstackEnable")}
ALL_HEADERS = sorted({*REQUEST_HEADERS.values(), *RESPONSE_HEADERS.values()}, key=lambda cls: cls.__name__)
GOOD_TEXT: dict[object, str] = {str: "text", Int32: "7", Int64: "1795356276399", bool: "true", BoundaryType: "UPPER"}


def declared_classes() -> dict[str, list[dict[str, str]]]:
    """Table rows of each class, by class name; a class without fields has an empty list."""
    classes: dict[str, list[dict[str, str]]] = {}
    with TABLE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            classes.setdefault(row["header_class"], [])
            if row["field"] != "(none)":
                classes[row["header_class"]].append(row)
    return classes


def plain_type(annotation: object) -> object:
    """The annotation without its `| None`."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (choice for choice in get_args(annotation) if choice is not NoneType)
    return annotation


def fields_of(cls: type[CommandHeader]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(cls)}


def good_ext_fields(cls: type[CommandHeader]) -> dict[str, str]:
    return {name: GOOD_TEXT[plain_type(field.type)] for name, field in fields_of(cls).items()}


def every_field() -> list[tuple[type[CommandHeader], str]]:
    return [(cls, name) for cls in ALL_HEADERS for name in fields_of(cls)]


def test_every_class_of_the_table_is_declared() -> None:
    """The classes registered here are exactly those of the table."""
    assert {cls.__name__ for cls in ALL_HEADERS} == set(declared_classes())


@pytest.mark.parametrize("cls", ALL_HEADERS, ids=lambda cls: cls.__name__)
def test_declaration_matches_apache(cls: type[CommandHeader]) -> None:
    """Wire names, types and required fields are those of Apache's class of the same name."""
    expected = {
        row["field"]: (JAVA_TYPES[row["java_type"]], row["required"] == "yes")
        for row in declared_classes()[cls.__name__]
    }
    assert {name: (plain_type(field.type), field.required) for name, field in fields_of(cls).items()} == expected


@pytest.mark.parametrize("cls", ALL_HEADERS, ids=lambda cls: cls.__name__)
def test_defaults_match_apache(cls: type[CommandHeader]) -> None:
    """A field that Apache initialises has that default, every other optional one None.

    So has a boolean that Java cannot leave out, unless older clients, whose class lacks the field, do.
    """
    written = {"": None, "false": False, "Boolean.FALSE": False, "true": True, "-1": -1}
    rows = [row for row in declared_classes()[cls.__name__] if row["required"] != "yes"]
    expected = {row["field"]: written[row["default_or_init"]] for row in rows}
    expected |= {row["field"]: False for row in rows if (cls.__name__, row["field"]) in PRIMITIVE}
    assert {name: field.default for name, field in fields_of(cls).items() if not field.required} == expected


def test_headers_are_reachable_by_name() -> None:
    """Every registered class can be imported from the package `headers`."""
    assert all(getattr(headers, cls.__name__) is cls for cls in ALL_HEADERS)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (RequestCode.SEND_MESSAGE, SendMessageRequestHeader),
        (RequestCode.SEND_REPLY_MESSAGE, SendMessageRequestHeader),
        (RequestCode.SEND_MESSAGE_V2, SendMessageRequestHeaderV2),
        (RequestCode.SEND_BATCH_MESSAGE, SendMessageRequestHeaderV2),
        (RequestCode.SEND_REPLY_MESSAGE_V2, SendMessageRequestHeaderV2),
    ],
)
def test_send_header_follows_from_the_code(code: RequestCode, expected: type[CommandHeader]) -> None:
    """Codes 310, 320 and 325 carry the one-letter header, 10 and 324 the long one."""
    assert REQUEST_HEADERS[code] is expected


def test_both_send_headers_have_the_same_attributes() -> None:
    """Code that reads a send header need not know which of the two it has."""
    v1 = {field.name for field in msgspec.structs.fields(SendMessageRequestHeader)}
    v2 = {field.name for field in msgspec.structs.fields(SendMessageRequestHeaderV2)}
    assert v2 - v1 == {"broker_name"}
    assert not v1 - v2


@pytest.mark.parametrize("cls", ALL_HEADERS, ids=lambda cls: cls.__name__)
def test_full_header_survives_a_round_trip(cls: type[CommandHeader]) -> None:
    """Decoding all fields and encoding them again gives the same ext fields."""
    ext_fields = good_ext_fields(cls)
    assert cls.decode(ext_fields).encode() == ext_fields


@pytest.mark.parametrize(("cls", "name"), every_field(), ids=lambda value: getattr(value, "__name__", value))
def test_missing_field_is_named_or_takes_its_default(cls: type[CommandHeader], name: str) -> None:
    """Without a required field decoding fails and names it; without an optional one it gives the default."""
    field = fields_of(cls)[name]
    ext_fields = good_ext_fields(cls)
    del ext_fields[name]
    if field.required:
        with pytest.raises(HeaderMissing, match=f"<{name}>") as caught:
            cls.decode(ext_fields)
        assert caught.value.field == name
    else:
        assert getattr(cls.decode(ext_fields), field.name) == field.default


MALFORMED: dict[object, list[str]] = {
    Int32: ["", "x", "1.5", "0x10", "2147483648", "-2147483649", "9" * 40],
    Int64: ["", "x", "1.5", "9223372036854775808", "-9223372036854775809"],
    bool: ["", "yes", "2"],
    BoundaryType: ["", "middle"],
}


@pytest.mark.parametrize(("cls", "name"), every_field(), ids=lambda value: getattr(value, "__name__", value))
def test_malformed_field_is_named(cls: type[CommandHeader], name: str) -> None:
    """A value outside the field's type or range fails and names the field; any text will do for a string."""
    for text in MALFORMED.get(plain_type(fields_of(cls)[name].type), []):
        with pytest.raises(HeaderInvalid, match=f"<{name}>") as caught:
            cls.decode({**good_ext_fields(cls), name: text})
        assert caught.value.field == name


@pytest.mark.parametrize(("cls", "name"), every_field(), ids=lambda value: getattr(value, "__name__", value))
def test_extreme_values_are_kept(cls: type[CommandHeader], name: str) -> None:
    """The ends of Java's ranges, both booleans and odd strings decode and encode to themselves."""
    extremes: dict[object, list[str]] = {
        Int32: ["2147483647", "-2147483648", "0"],
        Int64: ["9223372036854775807", "-9223372036854775808", "0"],
        bool: ["true", "false"],
        BoundaryType: ["LOWER", "UPPER"],
        str: ["", "null", "true", "12", "a\x01b\x02", "主题 💡"],
    }
    for text in extremes[plain_type(fields_of(cls)[name].type)]:
        assert cls.decode({**good_ext_fields(cls), name: text}).encode()[name] == text


def test_first_wrong_field_is_the_one_named() -> None:
    """With several faults the error names the first in order of declaration."""
    with pytest.raises(HeaderMissing, match="<producerGroup>"):
        SendMessageRequestHeader.decode({"queueId": "x"})


def test_error_never_shows_the_value() -> None:
    """The text of an error goes to logs and peers: it has the field, not what the peer sent."""
    with pytest.raises(HeaderInvalid) as caught:
        GetMaxOffsetRequestHeader.decode({"topic": "t", "queueId": "secret"})
    assert "secret" not in str(caught.value)


def test_no_ext_fields_are_an_empty_map() -> None:
    """None and an empty map decode alike."""
    with pytest.raises(HeaderMissing, match="<topic>"):
        GetMaxOffsetRequestHeader.decode(None)


def test_unknown_ext_fields_are_ignored() -> None:
    """Hooks and newer clients add fields that a header does not declare."""
    header = GetMaxOffsetRequestHeader.decode({"topic": "t", "queueId": "1", "AccessKey": "k", "newInVersion9": "x"})
    assert header == GetMaxOffsetRequestHeader(topic="t", queue_id=1)


def test_initialised_field_is_always_written() -> None:
    """Fields that Apache initialises go over the wire although nobody set them."""
    header = EndTransactionRequestHeader(
        producer_group="p", tran_state_table_offset=1, commit_log_offset=2, commit_or_rollback=8, msg_id="m"
    )
    assert header.encode()["fromTransactionCheck"] == "false"
    assert "topic" not in header.encode()


def test_boundary_type_is_read_in_any_case() -> None:
    """`upper` means the same as `UPPER`."""
    header = SearchOffsetRequestHeader.decode({"topic": "t", "queueId": "0", "timestamp": "1", "boundaryType": "upper"})
    assert header.boundary_type is BoundaryType.UPPER


@given(*[st.integers(-(2**63), 2**63 - 1)] * 4)
def test_any_long_round_trips(suggested: int, next_begin: int, minimum: int, maximum: int) -> None:
    """Every value of Java's long survives as text."""
    header = PullMessageResponseHeader(
        suggest_which_broker_id=suggested, next_begin_offset=next_begin, min_offset=minimum, max_offset=maximum
    )
    assert PullMessageResponseHeader.decode(header.encode()) == header


def test_type_table_covers_every_field() -> None:
    """The generated tests above know each type that a header uses."""
    used = {plain_type(field.type) for cls in ALL_HEADERS for field in fields_of(cls).values()}
    assert used == set(GOOD_TEXT)
    assert all(get_origin(kind) is Annotated or isinstance(kind, type) for kind in used)
