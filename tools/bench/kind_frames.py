"""Frames of pops, transactions and timer messages, as Java's Remoting clients write them, and what is read of replies.

As in `frames`, nothing here is shared with the code that is measured.
"""

import base64
import dataclasses
import json
import struct
import time

from tools.bench import frames

END_TRANSACTION = 37
GET_MAX_OFFSET = 30
POP_MESSAGE = 200050
ACK_MESSAGE = 200051
BATCH_ACK_MESSAGE = 200151

INVISIBLE_MS = 60_000
POP_MESSAGES_MAX = 32
ONEWAY_FLAG = b'"flag":2'
PREPARED_SYS_FLAG = 4
HALF_PROPERTIES = {"TRAN_MSG": "true", "PGROUP": "bench_producers"}
COMMIT_SYS_FLAG = 8

_BODY_LENGTH_AT = 84
"""Of a stored record whose hosts are IPv4."""


def pop_request(topic: str, group: str, slot: int = 0) -> bytes:
    """POP_MESSAGE of 32 from all queues, oldest first, answered at once."""
    fields = {
        "consumerGroup": group,
        "topic": topic,
        "queueId": "-1",
        "maxMsgNums": str(POP_MESSAGES_MAX),
        "invisibleTime": str(INVISIBLE_MS),
        "pollTime": "0",
        "bornTime": str(time.time_ns() // 1_000_000),
        "initMode": "0",
        "expType": "TAG",
        "exp": "*",
        "order": "false",
    }
    return frames.encode(POP_MESSAGE, fields, frames.OPAQUE_BASE + slot)


@dataclasses.dataclass(frozen=True)
class Run:
    """Messages that one pop handed out of one queue."""

    mark: str
    queue_id: int
    start_offset: int
    offsets: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Popped:
    """What a pop's reply tells of the messages: the parts of their handles."""

    pop_time: int
    revive_queue_id: int
    runs: tuple[Run, ...]

    @classmethod
    def of(cls, reply: frames.Reply) -> "Popped":
        """Of `startOffsetInfo` ("mark queue start;…") and `msgOffsetInfo` ("mark queue offset,offset;…")."""
        fields = reply.ext_fields
        starts = {
            (mark, queue): int(start)
            for mark, queue, start in (part.split(" ") for part in fields["startOffsetInfo"].split(";"))
        }
        runs = tuple(
            Run(mark, int(queue), starts[mark, queue], tuple(map(int, offsets.split(","))))
            for mark, queue, offsets in (part.split(" ") for part in fields["msgOffsetInfo"].split(";"))
        )
        return cls(int(fields["popTime"]), int(fields["reviveQid"]), runs)

    @property
    def count(self) -> int:
        """Messages."""
        return sum(len(run.offsets) for run in self.runs)


def batch_ack_request(topic: str, group: str, broker: str, popped: Popped, slot: int = 0) -> bytes:
    """BATCH_ACK_MESSAGE of all that a pop handed out."""
    acks = [
        {
            "c": group,
            "t": topic,
            "r": run.mark,
            "so": run.start_offset,
            "q": run.queue_id,
            "rq": popped.revive_queue_id,
            "pt": popped.pop_time,
            "it": INVISIBLE_MS,
            "b": _bit_set(run),
        }
        for run in popped.runs
    ]
    body = json.dumps({"brokerName": broker, "acks": acks}, separators=(",", ":")).encode()
    return frames.encode(BATCH_ACK_MESSAGE, {}, frames.OPAQUE_BASE + slot, body)


def ack_requests(topic: str, group: str, broker: str, popped: Popped) -> list[bytes]:
    """ACK_MESSAGE for each message that a pop handed out."""
    return [
        _ack_request(topic, group, broker, popped, run, offset, slot)
        for slot, (run, offset) in enumerate((run, offset) for run in popped.runs for offset in run.offsets)
    ]


def _ack_request(topic: str, group: str, broker: str, popped: Popped, run: Run, offset: int, slot: int) -> bytes:
    times = f"{popped.pop_time} {INVISIBLE_MS} {popped.revive_queue_id}"
    fields = {
        "consumerGroup": group,
        "topic": topic,
        "queueId": str(run.queue_id),
        "extraInfo": f"{run.start_offset} {times} {run.mark} {broker} {run.queue_id} {offset}",
        "offset": str(offset),
    }
    return frames.encode(ACK_MESSAGE, fields, frames.OPAQUE_BASE + slot)


def _bit_set(run: Run) -> str:
    bits = sum(1 << (offset - run.start_offset) for offset in run.offsets)
    return base64.b64encode(bits.to_bytes((bits.bit_length() + 7) // 8, "little")).decode()


def end_transaction_request(topic: str, reply: frames.Reply) -> bytes:
    """END_TRANSACTION, oneway as Java's producer sends it, that commits the half message which a reply tells of."""
    fields = {
        "topic": topic,
        "producerGroup": "bench_producers",
        "tranStateTableOffset": reply.ext_fields["queueOffset"],
        "commitLogOffset": str(int(reply.ext_fields["msgId"][-16:], 16)),
        "commitOrRollback": str(COMMIT_SYS_FLAG),
        "fromTransactionCheck": "false",
        "msgId": reply.ext_fields["transactionId"],
        "transactionId": reply.ext_fields["transactionId"],
    }
    return frames.encode(END_TRANSACTION, fields, frames.OPAQUE_BASE).replace(b'"flag":0', ONEWAY_FLAG, 1)


def max_offset_request(topic: str, queue_id: int) -> bytes:
    """GET_MAX_OFFSET (30)."""
    return frames.encode(GET_MAX_OFFSET, {"topic": topic, "queueId": str(queue_id)}, frames.OPAQUE_BASE)


def bodies(body: memoryview) -> list[bytes]:
    """Of the records in the body of a pull, whose hosts are IPv4."""
    found, start = [], 0
    while start < len(body):
        size_bytes, length = (struct.unpack_from(">I", body, start + at)[0] for at in (0, _BODY_LENGTH_AT))
        found.append(bytes(body[start + _BODY_LENGTH_AT + 4 : start + _BODY_LENGTH_AT + 4 + length]))
        start += size_bytes
    return found
