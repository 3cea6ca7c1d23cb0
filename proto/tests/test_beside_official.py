"""Our classes and the official Python client's in one process, whichever is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, logging, sys

ours, theirs = "apogeemq.proto.v2", "rocketmq.grpc_protocol"
modules = {}
for package in sys.argv[1:]:
    for name in ("definition_pb2", "service_pb2"):
        modules[package, name] = importlib.import_module(f"{package}.{name}")


def messages(package):
    return (modules[package, name].DESCRIPTOR.message_types_by_name for name in ("definition_pb2", "service_pb2"))


def fill(message, depth=0):
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)["key"] = "value"
        elif field.message_type is not None:
            if depth < 6:
                child = getattr(message, field.name)
                fill(child.add() if field.is_repeated else child, depth + 1)
                if not field.is_repeated:
                    child.SetInParent()
        else:
            value = {"string": "text", "bytes": b"bytes", "bool": True, "enum": 1}.get(kinds[field.type], field.number)
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


from google.protobuf.descriptor import FieldDescriptor

kinds = {getattr(FieldDescriptor, n): n[5:].lower() for n in dir(FieldDescriptor) if n.startswith("TYPE_")}
checked = 0
for name in ("definition_pb2", "service_pb2"):
    for kind in modules[theirs, name].DESCRIPTOR.message_types_by_name:
        our_class = getattr(modules[ours, name], kind)
        their_class = getattr(modules[theirs, name], kind)
        theirs_filled = fill(their_class())
        data = theirs_filled.SerializeToString(deterministic=True)
        assert data or not their_class.DESCRIPTOR.fields, kind
        again = our_class.FromString(data).SerializeToString(deterministic=True)
        assert again == data, kind
        # What we know beyond the official client's release it keeps as unknown fields: nothing is lost on the way.
        back = their_class.FromString(fill(our_class()).SerializeToString())
        whole = our_class.FromString(back.SerializeToString())
        assert whole == fill(our_class()), kind
        checked += 1
print(checked)
"""


@pytest.mark.parametrize(
    "order",
    [("apogeemq.proto.v2", "rocketmq.grpc_protocol"), ("rocketmq.grpc_protocol", "apogeemq.proto.v2")],
    ids=["ours first", "theirs first"],
)
def test_both_read_what_the_other_wrote(order: tuple[str, str]) -> None:
    """Every message of the API, every field set, goes from each side to the other and back without loss."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *order], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.strip().splitlines()[-1]) > 60
