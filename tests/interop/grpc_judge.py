"""What must hold of a run with official gRPC clients. Each rule gives complaints in words; none means that it holds."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from tests.interop.grpc_events import Received, Sent, Settled

NAMED_MAX = 10


@dataclasses.dataclass(frozen=True)
class Content:
    """What every message of a producer carries beside its key."""

    topic: str
    tag: str | None = None
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    size_bytes: int = 0

    def body(self, key: str) -> bytes:
        """The drivers' rule: the key, then a space and every byte value in turn where there is room."""
        filler = b" " + bytes(range(256)) * (self.size_bytes // 256 + 1)
        return key.encode() + filler[: max(0, self.size_bytes - len(key))]


def name_some(keys: Iterable[str]) -> str:
    """How many there are, and the first of them by name."""
    ordered = sorted(keys)
    rest = ", …" if len(ordered) > NAMED_MAX else ""
    return f"{len(ordered)}: {', '.join(ordered[:NAMED_MAX])}{rest}"


def lost(sent: Iterable[Sent], received: Iterable[Received]) -> list[str]:
    """Acknowledged to the producer, and never delivered."""
    missing = {event.key for event in sent} - {event.key for event in received}
    return [f"never received {name_some(missing)}"] if missing else []


def unsettled(sent: Iterable[Sent], settled: Iterable[Settled]) -> list[str]:
    """Acknowledged to the producer, and never acknowledged by the consumer."""
    missing = {event.key for event in sent} - {event.key for event in settled}
    return [f"never settled {name_some(missing)}"] if missing else []


def unknown(sent: Iterable[Sent], received: Iterable[Received]) -> list[str]:
    """Delivered, and never sent."""
    surplus = {event.key for event in received} - {event.key for event in sent}
    return [f"received and never sent {name_some(surplus)}"] if surplus else []


def delivered_again(received: Iterable[Received]) -> list[str]:
    """Delivered more than once, which nothing in an undisturbed run excuses."""
    counts = collections.Counter(event.key for event in received)
    again = {key for key, count in counts.items() if count > 1}
    return [f"received more than once {name_some(again)}"] if again else []


def received_after_settled(events: Iterable[object]) -> list[str]:
    """Delivered although an earlier delivery was acknowledged with success; `events` in the order of happening."""
    done: set[str] = set()
    again: set[str] = set()
    for event in events:
        if isinstance(event, Settled):
            done.add(event.key)
        elif isinstance(event, Received) and event.key in done:
            again.add(event.key)
    return [f"received after the acknowledgement {name_some(again)}"] if again else []


def changed(sent: Iterable[Sent], received: Iterable[Received], content: Content) -> list[str]:
    """Deliveries whose id, topic, keys, tag, properties or body are not those that were sent; the first few."""
    ids = {event.key: event.msg_id for event in sent}
    complaints = []
    for event in received:
        body = content.body(event.key)
        wanted = {
            "msg_id": ids.get(event.key, event.msg_id),
            "topic": content.topic,
            "keys": [event.key],
            "tag": content.tag,
            "properties": dict(content.properties),
            "size_bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "is_corrupted": False,
        }
        complaints += [
            f"{event.key}: {name} is {getattr(event, name)!r}, was sent as {value!r}"
            for name, value in wanted.items()
            if getattr(event, name) != value
        ]
    return complaints[:NAMED_MAX]


def wrong_attempts(received: Iterable[Received], wanted: Mapping[str, Sequence[int]]) -> list[str]:
    """Keys whose deliveries, in order, did not count their attempts as wanted; the first few."""
    attempts: dict[str, list[int]] = {key: [] for key in wanted}
    for event in received:
        attempts.setdefault(event.key, []).append(event.attempt)
    return [
        f"{key}: attempts {seen}, expected {list(wanted.get(key, ()))}"
        for key, seen in attempts.items()
        if seen != list(wanted.get(key, ()))
    ][:NAMED_MAX]


def undisturbed(sent: Sequence[Sent], events: Sequence[object], content: Content) -> list[str]:
    """All that must hold of one consumer group's run in which nothing failed."""
    received = [event for event in events if isinstance(event, Received)]
    settled = [event for event in events if isinstance(event, Settled)]
    return [
        *lost(sent, received),
        *unsettled(sent, settled),
        *unknown(sent, received),
        *delivered_again(received),
        *changed(sent, received, content),
    ]
