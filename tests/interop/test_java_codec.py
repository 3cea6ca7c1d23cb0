"""Every header of our codec against Apache's: what one writes the other reads, with all and with required fields."""

import base64
import dataclasses
import random
from collections.abc import Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Union, get_args, get_origin

import msgspec
import pytest
from apogeemq.remoting_codec.codes import SerializeType
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import LocalProtocolError
from apogeemq.remoting_codec.framing import LENGTH_SIZE_BYTES, decode_frame, encode_frame
from apogeemq.remoting_codec.headers import (
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    BoundaryType,
    CommandHeader,
    EndTransactionRequestHeader,
    Int32,
    Int64,
    SendMessageRequestHeaderV2,
)

from tests.interop.java_codec import Answer, JavaCodec

pytestmark = pytest.mark.verify

ROUNDS = 10
"""Values for each header, serialisation and choice of fields."""
BINARY_CODE_MAX = 32_767
HEADERS_AFTER_5_3_3 = {
    "PopLiteMessageRequestHeader",
    "PopLiteMessageResponseHeader",
    "LiteSubscriptionCtlRequestHeader",
    "NotifyUnsubscribeLiteRequestHeader",
}
"""Apache 5.3.3 has no class for them."""
FIELDS_AFTER_5_3_3 = {
    ("PullMessageRequestHeader", "liteTopic"),
    ("QueryMessageRequestHeader", "indexType"),
    ("QueryMessageRequestHeader", "lastKey"),
    ("AckMessageRequestHeader", "liteTopic"),
    ("ChangeInvisibleTimeRequestHeader", "liteTopic"),
    ("ChangeInvisibleTimeRequestHeader", "suspend"),
    ("SearchOffsetRequestHeader", "liteTopic"),
    ("NotificationRequestHeader", "expType"),
    ("NotificationRequestHeader", "exp"),
}
"""Apache 5.3.3 neither writes nor reads them, though it has their headers."""
PRIMITIVE_SINCE_5_5 = {("ChangeInvisibleTimeRequestHeader", "suspend")}
"""Optional, for older clients have no such field; those that have it cannot leave it out."""
RPC_FIELDS = ("ns", "nsd", "bname", "oway", "lo")
"""Fields that a V2 send header inherits; its own encoder and decoder in Apache leave them out."""
BITS: dict[object, int] = {Int32: 31, Int64: 63}
LETTERS = "aZ09 _%-.:/\\\"'{}[],\x01\x02\t\n\x7fäßЖ主题\u2028\U0001f680"


@dataclasses.dataclass(frozen=True)
class Case:
    """One header with values, to be written with one code in one serialisation."""

    header: CommandHeader
    code: int
    serialize_type: SerializeType
    fast: bool
    """By the header's own encoder and decoder, where Apache's class has them, instead of by reflection."""

    @property
    def header_class(self) -> str:
        return type(self.header).__name__

    @property
    def fields(self) -> dict[str, str]:
        return self.header.encode()

    def question(self, what: str) -> dict[str, object]:
        return {"do": what, "class": self.header_class, "fast": self.fast}


def is_known(version: str, header_class: str, field: str | None = None) -> bool:
    """Whether Apache has the header, or the field in it, in this version."""
    if version == "5.3.3":
        return header_class not in HEADERS_AFTER_5_3_3 and (header_class, field) not in FIELDS_AFTER_5_3_3
    return True


def all_cases(version: str) -> list[Case]:
    """The same ones in every run: every header and field that Apache has in this version."""
    chance = random.Random(1)
    with_codes = [*REQUEST_HEADERS.items(), *((0, cls) for cls in RESPONSE_HEADERS.values())]
    return [
        Case(header, code, serialize_type, fast)
        for code, cls in sorted(set(with_codes), key=lambda item: (item[0], item[1].__name__))
        if is_known(version, cls.__name__)
        for only_required in (False, True)
        for header in generated(version, cls, chance, only_required=only_required)
        for serialize_type in SerializeType
        for fast in (False, True)
    ]


def generated(
    version: str, cls: type[CommandHeader], chance: random.Random, *, only_required: bool
) -> Iterator[CommandHeader]:
    for _ in range(ROUNDS):
        yield cls(
            **{
                field.name: value_for(cls, field, chance)
                for field in msgspec.structs.fields(cls)
                if (field.required or not only_required or (cls.__name__, field.encode_name) in PRIMITIVE_SINCE_5_5)
                and is_known(version, cls.__name__, field.encode_name)
            }
        )


def value_for(cls: type[CommandHeader], field: msgspec.structs.FieldInfo, chance: random.Random) -> object:
    if cls is EndTransactionRequestHeader and field.name == "commit_or_rollback":
        return chance.choice([0, 8, 12])  # Apache refuses all others
    kind = plain_type(field.type)
    if kind is str:
        # Never empty: the binary form cannot tell that from absent.
        return "".join(chance.choices(LETTERS, k=chance.choice([1, 7, 300])))
    if kind is bool:
        return chance.random() < 0.5
    if kind is BoundaryType:
        return chance.choice(list(BoundaryType))
    bits = BITS[kind]
    return chance.choice([-(1 << bits), -1, 0, 1, (1 << bits) - 1, chance.randrange(1 << bits)])


def plain_type(annotation: object) -> object:
    """The annotation without its `| None`."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (choice for choice in get_args(annotation) if choice is not NoneType)
    return annotation


def fits(case: Case) -> bool:
    """The binary form has 16 bits for the code."""
    return case.serialize_type is SerializeType.JSON or case.code <= BINARY_CODE_MAX


def without_rpc_fields(header: CommandHeader) -> CommandHeader:
    """What is left of a V2 send header in Apache's own encoder and decoder for it; other headers as they are."""
    if isinstance(header, SendMessageRequestHeaderV2):
        return msgspec.structs.replace(header, **dict.fromkeys(RPC_FIELDS))
    return header


def frame_of(answer: Answer) -> bytes:
    return base64.b64decode(str(answer["frame"]))


def encode_question(case: Case) -> dict[str, object]:
    serialize = {"serialize": case.serialize_type.name, "code": case.code, "fields": case.fields}
    return case.question("encode") | serialize


def decode_question(case: Case) -> dict[str, object]:
    command = RemotingCommand(case.code, ext_fields=case.fields, serialize_type=case.serialize_type)
    return case.question("decode") | {"frame": base64.b64encode(encode_frame(command)).decode()}


def texts(version: str, header: CommandHeader) -> dict[str, str | None]:
    """The values of all fields that Apache has, as Java's toString has them."""
    values = {}
    for attribute, name in zip(header.__struct_fields__, header.__struct_encode_fields__, strict=True):
        value = getattr(header, attribute)
        values[name] = value.name if isinstance(value, Enum) else None if value is None else str(value)
        if isinstance(value, bool):
            values[name] = str(value).lower()
    return {name: value for name, value in values.items() if is_known(version, type(header).__name__, name)}


def test_we_read_what_apache_writes(apache_codec: JavaCodec) -> None:
    """Equal code and values, in JSON and binary, by both of Apache's ways to encode.

    In JSON they are one way: a header's own encoder writes binary only.
    """
    cases = [case for case in all_cases(apache_codec.version) if fits(case)]
    answers = apache_codec.answers(encode_question(case) for case in cases)
    for case, answer in zip(cases, answers, strict=True):
        command = decode_frame(frame_of(answer)[LENGTH_SIZE_BYTES:])
        assert command.code == case.code, case
        assert command.serialize_type == case.serialize_type, case
        is_own = case.fast and case.serialize_type is SerializeType.ROCKETMQ
        expected = without_rpc_fields(case.header) if is_own else case.header
        assert type(expected).decode(command.ext_fields) == expected, (case, command)


def test_apache_reads_what_we_write(apache_codec: JavaCodec) -> None:
    """Equal code and values in its own header objects, in JSON and binary, by both of Apache's ways to decode."""
    cases = [case for case in all_cases(apache_codec.version) if fits(case)]
    answers = apache_codec.answers(decode_question(case) for case in cases)
    for case, answer in zip(cases, answers, strict=True):
        expected = without_rpc_fields(case.header) if case.fast else case.header
        assert answer == {"code": case.code, "fields": texts(apache_codec.version, expected)}, case


def test_codes_that_do_not_fit_the_binary_form(apache_codec: JavaCodec) -> None:
    """Where we refuse to write, Apache writes another code: the lower 16 bits, signed. The fields are whole."""
    cases = [case for case in all_cases(apache_codec.version) if not fits(case)]
    assert {case.code for case in cases} >= {200_050, 200_051, 200_053, 200_054}
    answers = apache_codec.answers(encode_question(case) for case in cases)
    for case, answer in zip(cases, answers, strict=True):
        command = decode_frame(frame_of(answer)[LENGTH_SIZE_BYTES:])
        assert command.code == (case.code + 0x8000) % 0x10000 - 0x8000, case
        assert type(case.header).decode(command.ext_fields) == case.header, (case, command)
        with pytest.raises(LocalProtocolError):
            decode_question(case)
