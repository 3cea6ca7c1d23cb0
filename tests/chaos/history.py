"""What clients did and saw, in one order: the record that the checker judges.

A call is in the history from the moment before it is sent; its end is filled in when its answer comes. A call whose
answer never came stays UNKNOWN: it may have happened or not, and the checker has to bear both.

```
number   event                 at_ms       outcome        ended_ms
0        Send  pop-0           1000        ACKNOWLEDGED   1002
1        Pop   G               1003        ACKNOWLEDGED   1004
2        Delivery pop-0        1004
3        Ack   pop-0           1004        UNKNOWN        -            the broker died
4        Kill                  1005                       1009
```
Times are ms since 1970 of the machine on which both the broker and its clients run: they can be compared.
"""

import dataclasses
import json
import pathlib
import threading
import time
from enum import Enum, auto
from typing import NamedTuple, TypeVar


class Kind(Enum):
    """How a message is sent and consumed."""

    POP = "pop"
    """Popped, and acknowledged message by message."""
    ORDERED_POP = "ordered-pop"
    """Popped in the order of its message group."""
    ORDERED_PULL = "ordered-pull"
    """Pulled in the order of its queue; the consumer's offset is committed."""
    PULL = "pull"
    """Pulled from the beginning of its queue on, by one that keeps its offset itself."""
    DELAYED = "delayed"
    """Due after a level's delay or at a millisecond; perhaps recalled."""
    TRANSACTION = "transaction"
    """Sent as a half message, and ended later."""
    GRPC = "grpc"
    """Sent and popped over a proxy, as the next three are, by a client that sends again by itself."""
    GRPC_ORDERED = "grpc-ordered"
    """Popped in the order of its message group."""
    GRPC_DELAYED = "grpc-delayed"
    """Due at a millisecond; perhaps recalled."""
    GRPC_TRANSACTION = "grpc-transaction"
    """Sent as a half message, and ended later."""


GRPC_KINDS = frozenset({Kind.GRPC, Kind.GRPC_ORDERED, Kind.GRPC_DELAYED, Kind.GRPC_TRANSACTION})
POPPED = frozenset({Kind.POP, Kind.GRPC, Kind.GRPC_DELAYED, Kind.GRPC_TRANSACTION})
"""What is not acknowledged comes again as another copy."""
POPPED_IN_ORDER = frozenset({Kind.ORDERED_POP, Kind.GRPC_ORDERED})
"""What is not acknowledged comes again from its place."""


class Outcome(Enum):
    """What is known of a call."""

    UNKNOWN = auto()
    """No answer came: it may have been done or not."""
    ACKNOWLEDGED = auto()
    REFUSED = auto()


class Decision(Enum):
    """What the producer of a transaction makes of it."""

    COMMIT = auto()
    ROLLBACK = auto()


class Place(NamedTuple):
    """Where a copy of a message lies. `topic` is the real one: a retry topic for what was popped there."""

    topic: str
    queue_id: int
    queue_offset: int


@dataclasses.dataclass(slots=True, kw_only=True)
class Event:
    """`at_ms` and `number` are given by the history."""

    at_ms: int = 0
    number: int = -1


@dataclasses.dataclass(slots=True, kw_only=True)
class Call(Event):
    """Something that was asked of the broker, at `at_ms`."""

    outcome: Outcome = Outcome.UNKNOWN
    ended_ms: int = 0
    """When its answer came; 0 for none."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Send(Call):
    """A message; its `key` is its body. It is never sent twice under one key.

    `order_group` names those that must come in the order of their sending. `due_ms` is the first moment at which it
    may be delivered, `wait_ms` the same from when the broker took it; 0 for none. `decision` is what its producer will
    say, sooner or later, when it is a transaction.
    """

    key: str
    kind: Kind
    order_group: str = ""
    due_ms: int = 0
    wait_ms: int = 0
    decision: Decision | None = None

    @property
    def not_before_ms(self) -> int:
        """The first moment at which it may be delivered, as far as its sender can tell."""
        return max(self.due_ms, self.at_ms + self.wait_ms)


@dataclasses.dataclass(slots=True, kw_only=True)
class Pop(Call):
    """Messages of a kind were asked for. One that is UNKNOWN may have taken some, which nobody saw.

    `invisible_ms` is the least time after which these come again: 0 over a proxy, which gives back what it could not
    hand out.
    """

    kind: Kind
    invisible_ms: int


@dataclasses.dataclass(slots=True, kw_only=True)
class Delivery(Event):
    """A copy of a message came to a consumer.

    `stored_ms` is when the broker stored the copy, `failures` how often it came back before. Of a popped one,
    [`popped_ms`, `visible_ms`) is the time in which nobody else may get it, and `attempt` names the asking, if it has
    a name.
    """

    key: str
    place: Place
    stored_ms: int
    failures: int = 0
    popped_ms: int = 0
    visible_ms: int = 0
    attempt: str = ""


@dataclasses.dataclass(slots=True, kw_only=True)
class Gone(Event):
    """In the end a place is empty from which a message was delivered before."""

    key: str
    place: Place


@dataclasses.dataclass(slots=True, kw_only=True)
class Ack(Call):
    """What was delivered by the event with the number `of` was processed."""

    of: int


@dataclasses.dataclass(slots=True, kw_only=True)
class Change(Call):
    """What was delivered by the event with the number `of` gets another time: `visible_ms`, by the answer or, as long
    as there is none, by what was asked for.
    """

    of: int
    visible_ms: int


@dataclasses.dataclass(slots=True, kw_only=True)
class Recall(Call):
    """A message that waits for its time is taken back."""

    key: str


@dataclasses.dataclass(slots=True, kw_only=True)
class End(Call):
    """A transaction was decided."""

    key: str
    decision: Decision


@dataclasses.dataclass(slots=True, kw_only=True)
class Kill(Event):
    """The broker was killed: it lived before `at_ms`, and was dead at `ended_ms`.

    With `moves` it is one of a set, killed, frozen or stopped, or what the set needs was: another broker may have gone
    on meanwhile, and at `ended_ms` all was whole again.
    """

    ended_ms: int = 0
    moves: bool = False


EventT = TypeVar("EventT", bound=Event)
CallT = TypeVar("CallT", bound=Call)


class History:
    """Events in the order in which they were added, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []

    def add(self, event: EventT) -> EventT:
        """Put an event, or the begin of a call, behind all others; gives it back."""
        with self._lock:
            event.at_ms = event.at_ms or now_ms()
            event.number = len(self._events)
            self._events.append(event)
        return event

    def end(self, call: CallT, outcome: Outcome) -> CallT:
        """A call's answer came; gives it back."""
        call.ended_ms = now_ms()
        call.outcome = outcome
        return call

    def events(self) -> list[Event]:
        """All so far."""
        with self._lock:
            return list(self._events)

    def write(self, path: pathlib.Path) -> None:
        """One line of JSON for each event: to be looked at when something was found."""
        with path.open("w") as file:
            for event in self.events():
                fields = {"event": type(event).__name__, **dataclasses.asdict(event)}
                file.write(json.dumps(fields, default=lambda value: value.name) + "\n")


def now_ms() -> int:
    """Wall clock, as the broker reads it."""
    return time.time_ns() // 1_000_000
