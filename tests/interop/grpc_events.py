"""The lines that the drivers of the official gRPC clients print, as values. A line's first field tells what it is.

A `key` is the first word of the message's body, and its KEYS property too; times are Unix ms of the driver's clock.
"""

import msgspec


class Started(msgspec.Struct, frozen=True):
    """The client has started."""

    command: str = msgspec.field(name="started")
    at_ms: int


class Sent(msgspec.Struct, frozen=True):
    """One message that the server acknowledged. With more than one attempt it may be stored more than once."""

    key: str = msgspec.field(name="sent")
    msg_id: str
    attempts: int
    at_ms: int


class SendFailed(msgspec.Struct, frozen=True):
    """One attempt to send that failed for good after what the client tries of its own accord."""

    key: str = msgspec.field(name="failed")
    attempt: int
    error: str
    at_ms: int


class Abandoned(msgspec.Struct, frozen=True):
    """A message that was not acknowledged before the deadline."""

    key: str = msgspec.field(name="abandoned")
    attempts: int


class Received(msgspec.Struct, frozen=True):
    """One delivery; `attempt` is 1 for the first, `sha256` is that of the body, in hex."""

    key: str = msgspec.field(name="received")
    msg_id: str
    topic: str
    keys: list[str]
    tag: str | None
    properties: dict[str, str]
    size_bytes: int
    sha256: str
    attempt: int
    at_ms: int
    is_corrupted: bool = False
    """The body's digest is wrong. The Java client never hands such a message out."""


class Settled(msgspec.Struct, frozen=True):
    """One delivery acknowledged with success; for a push consumer: taken with success, the client does the rest."""

    key: str = msgspec.field(name="settled")
    msg_id: str
    at_ms: int


class SettleFailed(msgspec.Struct, frozen=True):
    """One acknowledgement that the server refused or that did not reach it."""

    key: str = msgspec.field(name="settle_failed")
    msg_id: str
    error: str
    at_ms: int


class ReceiveFailed(msgspec.Struct, frozen=True):
    """One receive that ended with an error rather than with messages or none."""

    error: str = msgspec.field(name="receive_failed")
    at_ms: int


class Recalled(msgspec.Struct, frozen=True):
    """One message that was taken back before its time."""

    key: str = msgspec.field(name="recalled")
    msg_id: str


class Half(msgspec.Struct, frozen=True):
    """A half message was taken; `said` is what its producer made of it at once: c commit, r roll back, u nothing."""

    key: str = msgspec.field(name="half")
    msg_id: str
    said: str


class Asked(msgspec.Struct, frozen=True):
    """A producer was asked what becomes of a half message; `said` is its answer: c commit, r roll back, u unknown."""

    key: str = msgspec.field(name="asked")
    msg_id: str
    topic: str
    keys: list[str]
    said: str
    at_ms: int


Event = (
    Started
    | Sent
    | SendFailed
    | Abandoned
    | Received
    | Settled
    | SettleFailed
    | ReceiveFailed
    | Recalled
    | Half
    | Asked
)

TYPES: dict[str, type[Event]] = {
    "started": Started,
    "sent": Sent,
    "failed": SendFailed,
    "abandoned": Abandoned,
    "received": Received,
    "settled": Settled,
    "settle_failed": SettleFailed,
    "receive_failed": ReceiveFailed,
    "recalled": Recalled,
    "half": Half,
    "asked": Asked,
}


def parse(line: str) -> Event:
    """The event that one line of a driver tells; a ValueError (of msgspec) for anything else."""
    fields = msgspec.json.decode(line, type=dict[str, object])
    kind: type[Event] = TYPES[next(iter(fields))]
    return msgspec.convert(fields, kind)
