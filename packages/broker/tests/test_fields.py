"""Every field of every call, missing, too long or out of range: generated from the messages' own descriptions."""

from collections.abc import Iterator
from typing import Any

import pytest
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.v1 import broker_pb2 as pb
from apogeemq.mesh.v1 import methods
from apogeemq.remoting_codec.codes import ResponseCode
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from packages.broker.tests.mesh_asking import GOOD, Asker
from packages.broker.tests.world import World

REQUIRED = {
    "SendMessage": {"topic", "born_timestamp_ms", "born_host", "body"},
    "PopMessage": {"consumer_group", "topic", "max_msg_nums", "invisible_time_ms"},
    "AckMessage": {"consumer_group", "topic", "handles", "handles.pop_time_ms"},
    "ChangeInvisibleTime": {"consumer_group", "topic", "handle", "handle.pop_time_ms"},
    "ExtendInvisible": {"consumer_group", "topic", "handles", "handles.pop_time_ms", "invisible_time_ms"},
    "QueryTopic": {"topic"},
    "EnsureTopic": {"topic"},
    "QueryGroup": {"consumer_group"},
    "ClientHeartbeat": {"client_id", "consumers.group", "consumers.subscriptions.topic"},
    "UnregisterClient": {"client_id"},
    "QueryOffset": {"topic", "kind", "consumer_group"},
    "UpdateOffset": {"topic", "consumer_group"},
    "RecallMessage": {"topic", "recall_handle"},
    "ForwardToDeadLetterQueue": {"consumer_group", "topic", "handle", "handle.pop_time_ms"},
    "TakeTransactionChecks": {"max_nums"},
    "EndTransaction": {"producer_group", "resolution"},
}
"""What has to be there; 0, false and the empty text are right for the others."""

ANY_NUMBER = {"flag"}
"""The sender's own 32 bits."""

REFUSALS = {ResponseCode.INVALID_PARAMETER, ResponseCode.MESSAGE_ILLEGAL}
"""29; 13 where the message itself is wrong: its body or properties."""


def fields_of(message: Message, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field with its path, those of messages inside too."""
    for field in message.DESCRIPTOR.fields:
        path = f"{prefix}{field.name}"
        yield path, field
        if field.message_type is not None:
            value = getattr(message, field.name)
            yield from fields_of(value[0] if field.is_repeated else value, f"{path}.")


def holder_of(message: Message, path: str) -> Message:
    """The message that has the field at the end of a path; lists are entered by their first entry."""
    *parents, _ = path.split(".")
    for name in parents:
        value = getattr(message, name)
        message = value if isinstance(value, Message) else value[0]
    return message


def without(message: Message, path: str) -> Message:
    """A copy that lacks a field."""
    copy = type(message)()
    copy.CopyFrom(message)
    holder_of(copy, path).ClearField(path.rpartition(".")[2])
    return copy


def with_value(message: Message, path: str, field: Any, value: object) -> Message:
    """A copy with another value in a field."""
    copy = without(message, path)
    holder = holder_of(copy, path)
    if field.is_repeated:
        getattr(holder, field.name).append(value)
    else:
        setattr(holder, field.name, value)
    return copy


def wrong_values(path: str, field: Any) -> list[object]:
    """Values outside of a field's bounds; none for what can't be wrong."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return [b"x" * (5 << 20)]
        return ["x" * 5_000]
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return [99]
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL or field.message_type is not None or path in ANY_NUMBER:
        return []
    bits = 31 if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else 63
    return [-2, -(1 << bits)]


FIELDS = [(name, path, field) for name, (_, request) in GOOD.items() for path, field in fields_of(request)]
MISSING = [pytest.param(name, path, id=f"{name}-{path}") for name, path, _ in FIELDS]
WRONG = [
    pytest.param(name, path, field, value, id=f"{name}-{path}-{number}")
    for name, path, field in FIELDS
    for number, value in enumerate(wrong_values(path, field))
]


async def world_with_group() -> World:
    world = World()
    world.create_topic()
    await world.broker.popping.restore()
    world.broker.groups.find_or_create("G")
    world.mark_saved()
    return world


def test_every_call_is_tried_here() -> None:
    """A new one must be added to the tables of this file and of mesh_asking."""
    calls = {value.name for value in vars(methods).values() if type(value).__name__ == "Call"}
    assert set(GOOD) == set(REQUIRED) == calls


def test_every_required_field_exists() -> None:
    """No name in the table is misspelt."""
    paths = {(name, path) for name, path, _ in FIELDS}
    assert {(name, path) for name, required in REQUIRED.items() for path in required} <= paths


@pytest.mark.parametrize("name", GOOD)
async def test_a_good_request_is_answered(name: str) -> None:
    """So what the others are refused for is the one field that they change."""
    async with await world_with_group() as world:
        call, request = GOOD[name]
        assert isinstance(await Asker(world).ask(call, request), call.response_type)


@pytest.mark.parametrize(("name", "path"), MISSING)
async def test_a_missing_field_is_named_where_it_is_required(name: str, path: str) -> None:
    """The others may be left out."""
    async with await world_with_group() as world:
        call, request = GOOD[name]
        asking = Asker(world).ask(call, without(request, path))
        if path in REQUIRED[name]:
            with pytest.raises(CallRefused) as refused:
                await asking
            assert refused.value.code in REFUSALS
            assert path.rpartition(".")[2] in refused.value.text
        else:
            assert isinstance(await asking, call.response_type)


@pytest.mark.parametrize(("name", "path", "field", "value"), WRONG)
async def test_a_field_out_of_its_bounds_is_named(name: str, path: str, field: Any, value: object) -> None:
    """Too long, below its range, or no such number: refused, and nothing is stored."""
    async with await world_with_group() as world:
        call, request = GOOD[name]
        with pytest.raises(CallRefused) as refused:
            await Asker(world).ask(call, with_value(request, path, field, value))
        assert refused.value.code in REFUSALS
        assert field.name in refused.value.text
        assert world.store.written_offset == 0


async def test_handles_are_bounded() -> None:
    """1,024 in a call."""
    handles = [pb.PopHandle(pop_time_ms=1)] * 1_025
    async with await world_with_group() as world:
        asker = Asker(world)
        ack = pb.AckMessageRequest(consumer_group="G", topic="T", handles=handles)
        with pytest.raises(CallRefused, match="handles has 1025 entries; it must have 1 to 1024"):
            await asker.ask(methods.ACK_MESSAGE, ack)
        del ack.handles[-1]
        assert len((await asker.ask(methods.ACK_MESSAGE, ack)).results) == 1_024
