"""Our descriptors against the field tables of the API: every message, field and constant, both ways."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from apogeemq.proto.v2 import definition_pb2, service_pb2
from google.protobuf.descriptor import FieldDescriptor

VECTORS = Path(__file__).parent / "vectors"
FILES = {"definition": definition_pb2.DESCRIPTOR, "service": service_pb2.DESCRIPTOR}
SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_FLOAT: "float",
}
RPCS = [
    "QueryRoute",
    "Heartbeat",
    "SendMessage",
    "QueryAssignment",
    "ReceiveMessage",
    "AckMessage",
    "ForwardMessageToDeadLetterQueue",
    "PullMessage",
    "UpdateOffset",
    "GetOffset",
    "QueryOffset",
    "EndTransaction",
    "Telemetry",
    "NotifyClientTermination",
    "ChangeInvisibleDuration",
    "RecallMessage",
    "SyncLiteSubscription",
]

Row = tuple[str, ...]


def rows_of(name: str) -> set[Row]:
    """The rows of a table without its heading and without the release that has each first."""
    with (VECTORS / name).open(newline="") as file:
        return {tuple(row[:-1]) for row in list(csv.reader(file, delimiter="\t"))[1:]}


def messages_of(file: Any) -> list[Any]:
    """All message types of a file, apart from the entries of maps; nested ones too."""
    found = []
    waiting = list(file.message_types_by_name.values())
    while waiting:
        message = waiting.pop()
        if not message.GetOptions().map_entry:
            found.append(message)
            waiting += message.nested_types
    return found


def type_of(field: Any) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"map<{type_of(key)}, {type_of(value)}>"
    named = field.message_type or field.enum_type
    if named is None:
        return SCALARS[field.type]
    is_googles = named.full_name.startswith("google.protobuf.")
    return str(named.full_name if is_googles else named.name)


def label_of(field: Any) -> str:
    oneof = field.containing_oneof
    if oneof is not None:
        return "optional" if oneof.name == f"_{field.name}" else f"oneof {oneof.name}"
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    return "repeated" if field.is_repeated and not is_map else ""


def test_every_field_is_as_the_table_says() -> None:
    """Message, number, name, type and label; none missing, none of our own."""
    ours = {
        (name, message.name, str(field.number), field.name, type_of(field), label_of(field))
        for name, file in FILES.items()
        for message in messages_of(file)
        for field in message.fields
    }
    assert ours == rows_of("grpc_v2_fields.tsv")


def test_every_constant_is_as_the_table_says() -> None:
    """Enum, name and number; none missing, none of our own."""
    ours = set()
    for file in FILES.values():
        enums = [(enum.name, enum) for enum in file.enum_types_by_name.values()]
        enums += [(f"{m.name}.{enum.name}", enum) for m in messages_of(file) for enum in m.enum_types]
        ours |= {(name, value.name, str(value.number)) for name, enum in enums for value in enum.values}
    assert ours == rows_of("grpc_v2_enums.tsv")


def test_the_service_has_all_calls() -> None:
    """The calls of the API by name; ReceiveMessage and PullMessage stream their answers, Telemetry both ways."""
    (service,) = service_pb2.DESCRIPTOR.services_by_name.values()
    assert sorted(method.name for method in service.methods) == sorted(RPCS)
    for method in service.methods:
        assert method.input_type.name == ("TelemetryCommand" if method.name == "Telemetry" else f"{method.name}Request")
        assert method.server_streaming == (method.name in ("ReceiveMessage", "PullMessage", "Telemetry"))
        assert method.client_streaming == (method.name == "Telemetry")


@pytest.mark.parametrize("file", FILES.values(), ids=list(FILES))
def test_no_name_of_ours_is_the_official_one(file: Any) -> None:
    """The pool of a process would refuse the second owner of a name."""
    assert file.package == "apogeemq.proto.v2"
    assert file.name.startswith("apogeemq/proto/v2/")
