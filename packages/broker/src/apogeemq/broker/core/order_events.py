"""What happens to queues that are popped in order, as it is written down: messages of rmq_sys_ORDER_LOG_<cluster>.

```
tag    body (JSON)                  what is so from then on
pop    {k,f,pt,v,a,m:[[o,g,n],…]}   these messages are in hand since pt, and invisible until v, by attempt a
ack    {k,f,pt,o:[…]}               those of them that were popped at pt are done with
time   {k,f,pt,o:[…],v}             those of them that were popped at pt are invisible until v
move   {k,f}                        the group's position was set to f: nothing is in hand
```
k = [group, topic, queue id], f = the floor (the group's position) before the event, o = queue offset, g = message group
("" for none), n = how often it went out by now. Times are ms since 1970.

Apache's brokers do not know this topic: they keep ordered pops in config/consumerOrderInfo.json alone, which is written
every 5 s, so that a crash of theirs forgets what is in hand. Here that file is written too, and these records are what
it lacks (docs/adr/0021-order-by-message-group.md).
"""

from typing import TypeAlias

import msgspec

QueueKey: TypeAlias = tuple[str, str, int]
"""Group, topic, queue id."""


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    key: QueueKey = msgspec.field(name="k")
    floor: int = msgspec.field(name="f")


class Popped(_Event, frozen=True, kw_only=True):
    """Messages went out together, from one queue."""

    pop_time_ms: int = msgspec.field(name="pt")
    visible_ms: int = msgspec.field(name="v")
    attempt_id: str = msgspec.field(name="a")
    messages: tuple[tuple[int, str, int], ...] = msgspec.field(name="m")


class Settled(_Event, frozen=True, kw_only=True):
    """Messages were acknowledged."""

    pop_time_ms: int = msgspec.field(name="pt")
    offsets: tuple[int, ...] = msgspec.field(name="o")


class Timed(_Event, frozen=True, kw_only=True):
    """Messages got another time."""

    pop_time_ms: int = msgspec.field(name="pt")
    offsets: tuple[int, ...] = msgspec.field(name="o")
    visible_ms: int = msgspec.field(name="v")


class Moved(_Event, frozen=True, kw_only=True):
    """The group's position was set from outside."""


OrderEvent: TypeAlias = Popped | Settled | Timed | Moved

TAGS: dict[type[OrderEvent], str] = {Popped: "pop", Settled: "ack", Timed: "time", Moved: "move"}
_DECODERS = {tag: msgspec.json.Decoder(kind) for kind, tag in TAGS.items()}
_encode = msgspec.json.Encoder().encode


def encode_order_event(event: OrderEvent) -> tuple[str, bytes]:
    """Tag and body of an event."""
    return TAGS[type(event)], _encode(event)


def decode_order_event(tag: str, body: bytes) -> OrderEvent:
    """The event of a message. Raises ValueError when it holds none."""
    decoder = _DECODERS.get(tag)
    if decoder is None:
        raise ValueError(f"an order record has the tag {tag[:50]!r}; {', '.join(_DECODERS)} are known")
    try:
        event: OrderEvent = decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(f"an order record with the tag {tag} can't be read: {error}") from error
    return event
