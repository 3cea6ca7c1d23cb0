"""The lines that the Java driver prints, as values. A line's first field tells what it is (tests/interop/java)."""

import msgspec

Place = tuple[str, int, int]
"""Where a message is stored: broker name, queue id, queue offset."""


class Started(msgspec.Struct, frozen=True):
    """The client has started."""

    command: str = msgspec.field(name="started")


class Summary(msgspec.Struct, frozen=True):
    """The driver's last line; `reason` tells why a consumer ended."""

    command: str = msgspec.field(name="summary")
    reason: str | None = None


class Ack(msgspec.Struct, rename="camel", frozen=True):
    """One message that the broker acknowledged. With more than one attempt it may be stored more than once."""

    key: str = msgspec.field(name="acked")
    msg_id: str
    broker: str
    queue_id: int
    queue_offset: int
    status: str
    attempts: int

    @property
    def place(self) -> Place:
        return self.broker, self.queue_id, self.queue_offset


class Sent(msgspec.Struct, frozen=True):
    """One message that left the client oneway."""

    key: str = msgspec.field(name="sent")
    attempts: int


class Failure(msgspec.Struct, frozen=True):
    """One attempt to send that failed; `code` is the broker's or the client's, None when there is none."""

    key: str = msgspec.field(name="failed")
    attempt: int
    code: int | None
    error: str


class Abandoned(msgspec.Struct, frozen=True):
    """A message that was not acknowledged before the deadline."""

    key: str = msgspec.field(name="abandoned")
    attempts: int


class Delivery(msgspec.Struct, rename="camel", frozen=True):
    """One message handed to the listener. `key` is the body's start, `keys` the KEYS property; times are Unix ms."""

    key: str = msgspec.field(name="received")
    keys: str = msgspec.field(name="key")
    tags: str | None
    topic: str
    size_bytes: int
    msg_id: str
    broker: str
    queue_id: int
    queue_offset: int
    reconsume_times: int
    born_ms: int
    store_ms: int
    received_ms: int
    verdict: str
    properties: dict[str, str] | None = None
    """Those of the message, where the driver was asked for them."""

    @property
    def place(self) -> Place:
        return self.broker, self.queue_id, self.queue_offset


class Refused(msgspec.Struct, frozen=True):
    """A consumer could not start; `code` is the broker's or the client's."""

    command: str = msgspec.field(name="refused")
    code: int
    error: str


class Suspended(msgspec.Struct, frozen=True):
    """A consumer was told to deliver nothing more until it is resumed."""

    is_suspended: bool = msgspec.field(name="suspended")


class Committed(msgspec.Struct, frozen=True):
    """A lite pull consumer committed, after so many messages."""

    polled: int = msgspec.field(name="committed")


class Sought(msgspec.Struct, frozen=True):
    """A lite pull consumer goes on at this offset in every queue it took."""

    offset: int = msgspec.field(name="sought")


class Members(msgspec.Struct, frozen=True):
    """How many members of its group a consumer sees from now on."""

    count: int = msgspec.field(name="members")


class Assigned(msgspec.Struct, frozen=True):
    """The queues ("broker:id") that a member of a group holds from now on."""

    queues: frozenset[str] = msgspec.field(name="assigned")


class QueueOffsets(msgspec.Struct, rename="camel", frozen=True):
    """The offsets of one queue; `committed` is -1 when the group has none, `by_time` None when nobody asked.

    `earliest_ms` is when its oldest message was stored, -1 when there is none.
    """

    queue_id: int = msgspec.field(name="queue")
    broker: str
    min: int
    max: int
    committed: int
    earliest_ms: int
    by_time: int | None = None


class Pulling(msgspec.Struct, frozen=True):
    """A pull from a queue begins."""

    queue_id: int = msgspec.field(name="pulling")


class Pulled(msgspec.Struct, frozen=True):
    """The answer to one pull."""

    queue_id: int = msgspec.field(name="pulled")
    broker: str
    status: str
    next: int
    min: int
    max: int
    keys: list[str]
    offsets: list[int]


class Answered(msgspec.Struct, frozen=True):
    """A request has its reply."""

    key: str = msgspec.field(name="answered")
    body: str


class Unanswered(msgspec.Struct, frozen=True):
    """A request has none; `error` is the class of the client's error."""

    key: str = msgspec.field(name="unanswered")
    error: str


class Replied(msgspec.Struct, frozen=True):
    """A reply was sent, and how the broker took it."""

    key: str = msgspec.field(name="replied")
    status: str


class Unreplied(msgspec.Struct, frozen=True):
    """A reply could not be sent."""

    key: str = msgspec.field(name="unreplied")
    error: str


class Half(msgspec.Struct, rename="camel", frozen=True):
    """A half message was taken; `state` is what its producer said of it at once."""

    key: str = msgspec.field(name="half")
    msg_id: str
    status: str
    state: str


class Asked(msgspec.Struct, rename="camel", frozen=True):
    """A producer was asked what becomes of a half message; `state` is its answer."""

    key: str = msgspec.field(name="asked")
    msg_id: str
    topic: str
    body: str
    state: str


class Delayed(msgspec.Struct, rename="camel", frozen=True):
    """A message that waits for its time was taken; `handle` takes it back, where there is one."""

    key: str = msgspec.field(name="delayed")
    msg_id: str
    status: str
    sent_ms: int
    handle: str | None


class Undelayed(msgspec.Struct, frozen=True):
    """A message with a delay was refused."""

    key: str = msgspec.field(name="undelayed")
    code: int
    error: str


class Recalled(msgspec.Struct, rename="camel", frozen=True):
    """A message was taken back."""

    handle: str = msgspec.field(name="recalled")
    msg_id: str


class Unrecalled(msgspec.Struct, frozen=True):
    """A recall was refused."""

    handle: str = msgspec.field(name="unrecalled")
    code: int
    error: str


Event = (
    Started
    | Summary
    | Ack
    | Sent
    | Failure
    | Abandoned
    | Delivery
    | Refused
    | Suspended
    | Committed
    | Sought
    | Members
    | Assigned
    | QueueOffsets
    | Pulling
    | Pulled
    | Answered
    | Unanswered
    | Replied
    | Unreplied
    | Half
    | Asked
    | Delayed
    | Undelayed
    | Recalled
    | Unrecalled
)

TYPES: dict[str, type[Event]] = {
    "started": Started,
    "summary": Summary,
    "acked": Ack,
    "sent": Sent,
    "failed": Failure,
    "abandoned": Abandoned,
    "received": Delivery,
    "refused": Refused,
    "suspended": Suspended,
    "committed": Committed,
    "sought": Sought,
    "members": Members,
    "assigned": Assigned,
    "queue": QueueOffsets,
    "pulling": Pulling,
    "pulled": Pulled,
    "answered": Answered,
    "unanswered": Unanswered,
    "replied": Replied,
    "unreplied": Unreplied,
    "half": Half,
    "asked": Asked,
    "delayed": Delayed,
    "undelayed": Undelayed,
    "recalled": Recalled,
    "unrecalled": Unrecalled,
}


def parse(line: str) -> Event:
    """The event that one line of the driver tells; a ValueError (of msgspec) for anything else."""
    fields = msgspec.json.decode(line, type=dict[str, object])
    kind: type[Event] = TYPES[next(iter(fields))]
    return msgspec.convert(fields, kind)
