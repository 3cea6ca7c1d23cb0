"""What a broker popped, made ready for a client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.proto.v2.definition_pb2 import Message, Resource
from apogeemq.proxy.core.messages import message_of
from apogeemq.proxy.core.receipt_handle import ReceiptHandle
from apogeemq.remoting_codec.message import PROPERTY_TAGS, find_property
from apogeemq.remoting_codec.record import Record, decode_records

_TAGS = PROPERTY_TAGS.encode()


class Popped(NamedTuple):
    """One popped message: as stored, and the handle that goes with it."""

    record: Record
    handle: ReceiptHandle

    def message(self, resource: Resource) -> Message:
        """The message for the client; `resource` is the topic that it asked for."""
        return message_of(self.record, resource, str(self.handle), self.handle.invisible_time_ms)


class TagFilter:
    """A tag expression by text: "*", or tags divided by ||.

    Brokers compare hashes of tags, so that a message of another tag with the same hash gets through.
    """

    def __init__(self, expression: str) -> None:
        self._tags = None if expression == "*" else {tag.strip().encode() for tag in expression.split("||")}

    def __call__(self, record: Record) -> bool:
        """Whether the message is wanted."""
        return self._tags is None or find_property(record.properties, _TAGS) in self._tags


def popped_messages(broker_name: str, reply: mesh.PopMessageReply) -> Iterator[Popped]:
    """The messages of a pop's reply, in its order.

    Errors: RecordInvalid when the bytes are no records.
    """
    for run in reply.runs:
        for index, record in enumerate(decode_records(run.records)):
            yield Popped(
                _counted(record, run.delivery_attempts, index),
                ReceiptHandle(
                    start_offset=run.start_offset,
                    pop_time_ms=reply.pop_time_ms,
                    invisible_time_ms=reply.invisible_time_ms,
                    revive_queue_id=reply.revive_queue_id,
                    retry_mark=run.retry_mark,
                    broker_name=broker_name,
                    queue_id=run.queue_id,
                    queue_offset=record.queue_offset,
                    physical_offset=record.physical_offset,
                ),
            )


def _counted(record: Record, delivery_attempts: Sequence[int], index: int) -> Record:
    """A message of an ordered pop failed as often as it went out before: its record lies where it always lay."""
    if index >= len(delivery_attempts):
        return record
    return msgspec.structs.replace(record, reconsume_times=delivery_attempts[index] - 1)
