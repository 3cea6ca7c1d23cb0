"""The receipt handle: which message was handed out, when, and for how long.

Nine fields, separated by spaces:
```
start offset, pop time ms, invisible time ms, revive queue, retry mark, broker, queue, queue offset, physical offset
```
The first eight are RocketMQ's POP_CK; the proxy adds the last, which names the record for who moves it to the DLQ.
Source: reference broker_behaviour.md §8, grpc_v2.md §7, traps.md 24.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.errors import ProxyError

HANDLE_SIZE_MAX = 512
"""Seven 19-digit numbers and a broker name fit; what is longer is not ours."""

_NUMBER = re.compile(r"[0-9]{1,19}")
QUEUE_ID_MAX = 16_383
"""No topic of a broker has more queues. A broker refuses a call as a whole for one handle beyond its bounds, so that
such a handle may not get there: the others of its acknowledgement are good."""

_INT64_MAX = 2**63 - 1
_INT32_MAX = 2**31 - 1
_RETRY_MARKS = (mesh.RETRY_MARK_NORMAL, mesh.RETRY_MARK_V1, mesh.RETRY_MARK_V2)


@dataclass(frozen=True, slots=True)
class ReceiptHandle:
    """The parts of a receipt handle. `physical_offset` is 0 in a handle of eight fields."""

    start_offset: int
    pop_time_ms: int
    invisible_time_ms: int
    revive_queue_id: int
    retry_mark: mesh.RetryMark
    broker_name: str
    queue_id: int
    queue_offset: int
    physical_offset: int

    @property
    def expires_at_ms(self) -> int:
        """When the message is handed out again, unless its time was prolonged under the same handle."""
        return self.pop_time_ms + self.invisible_time_ms

    def __str__(self) -> str:
        return (
            f"{self.start_offset} {self.pop_time_ms} {self.invisible_time_ms} {self.revive_queue_id} "
            f"{int(self.retry_mark)} {self.broker_name} {self.queue_id} {self.queue_offset} {self.physical_offset}"
        )


def parse(text: str) -> ReceiptHandle:
    """The parts of a handle as a client sent it; eight or nine fields.

    Raises:
        ProxyError INVALID_RECEIPT_HANDLE: it is none, or a number does not fit.
    """
    fields = text.split(" ") if len(text) <= HANDLE_SIZE_MAX else []
    if len(fields) not in (8, 9) or not fields[5]:
        raise _invalid("it does not have the nine fields of a receipt handle; send back what was received")
    start_offset, pop_time_ms, invisible_time_ms = (_number(field, _INT64_MAX) for field in fields[:3])
    if pop_time_ms == 0:
        raise _invalid("its pop time is 0")
    retry_mark = _number(fields[4], _INT32_MAX)
    if retry_mark not in _RETRY_MARKS:
        raise _invalid(f"{retry_mark} is no kind of topic")
    return ReceiptHandle(
        start_offset=start_offset,
        pop_time_ms=pop_time_ms,
        invisible_time_ms=invisible_time_ms,
        revive_queue_id=_number(fields[3], QUEUE_ID_MAX),
        retry_mark=_RETRY_MARKS[retry_mark],
        broker_name=fields[5],
        queue_id=_number(fields[6], QUEUE_ID_MAX),
        queue_offset=_number(fields[7], _INT64_MAX),
        physical_offset=_number(fields[8], _INT64_MAX) if len(fields) == 9 else 0,
    )


def to_mesh(handle: ReceiptHandle) -> mesh.PopHandle:
    """The parts that the broker needs."""
    return mesh.PopHandle(
        retry_mark=handle.retry_mark,
        queue_id=handle.queue_id,
        queue_offset=handle.queue_offset,
        start_offset=handle.start_offset,
        pop_time_ms=handle.pop_time_ms,
        invisible_time_ms=handle.invisible_time_ms,
        revive_queue_id=handle.revive_queue_id,
    )


def renewed(handle: ReceiptHandle, changed: mesh.ChangeInvisibleTimeReply) -> ReceiptHandle:
    """The handle that replaces `handle` once its invisible time was changed; a pop of this one message."""
    return ReceiptHandle(
        start_offset=handle.queue_offset,
        pop_time_ms=changed.pop_time_ms,
        invisible_time_ms=changed.invisible_time_ms,
        revive_queue_id=changed.revive_queue_id,
        retry_mark=handle.retry_mark,
        broker_name=handle.broker_name,
        queue_id=handle.queue_id,
        queue_offset=handle.queue_offset,
        physical_offset=handle.physical_offset,
    )


def _number(field: str, most: int) -> int:
    if not _NUMBER.fullmatch(field) or int(field) > most:
        raise _invalid(f"{field!r} is not a number from 0 to {most}")
    return int(field)


def _invalid(reason: str) -> ProxyError:
    return ProxyError(Code.INVALID_RECEIPT_HANDLE, f"receipt_handle: {reason}")
