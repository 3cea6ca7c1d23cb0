"""What must hold of a run: nothing acknowledged is lost, nothing comes twice but for what at-least-once allows."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from tests.interop.events import Ack, Delivery, Failure, Place


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Keys and places that came more than once, by the cause that explains them."""

    stored_twice: frozenset[str]
    """Stored at more than one place, which a send whose outcome was unknown and that was sent again may cause."""
    redelivered: frozenset[Place]
    """Delivered more than once from one place, which an offset that was not committed yet may cause."""


def lost(expected: Iterable[str], deliveries: Iterable[Delivery]) -> frozenset[str]:
    """Keys that never came."""
    return frozenset(expected) - {delivery.key for delivery in deliveries}


def misplaced(acks: Iterable[Ack], deliveries: Iterable[Delivery]) -> frozenset[str]:
    """Keys that did not come from where the broker said it stored them."""
    seen = {(delivery.key, delivery.place) for delivery in deliveries}
    return frozenset(ack.key for ack in acks if (ack.key, ack.place) not in seen)


def renamed(acks: Iterable[Ack], deliveries: Iterable[Delivery]) -> frozenset[str]:
    """Keys that came under another message id than the sender knows, as Apache does to those of a batch only."""
    ids = {delivery.place: delivery.msg_id for delivery in deliveries}
    return frozenset(ack.key for ack in acks if ids.get(ack.place, ack.msg_id) != ack.msg_id)


def duplicates(deliveries: Iterable[Delivery]) -> Duplicates:
    """Everything that came more than once."""
    places: dict[str, set[Place]] = collections.defaultdict(set)
    counts: collections.Counter[Place] = collections.Counter()
    for delivery in deliveries:
        places[delivery.key].add(delivery.place)
        counts[delivery.place] += 1
    return Duplicates(
        stored_twice=frozenset(key for key, where in places.items() if len(where) > 1),
        redelivered=frozenset(place for place, count in counts.items() if count > 1),
    )


def unexplained(found: Duplicates, failures: Iterable[Failure], committed: Mapping[tuple[str, int], int]) -> list[str]:
    """The duplicates that at-least-once does not excuse.

    A key may be stored twice only when an attempt to send it failed. A place may be delivered twice only when it is not
    below the offset that was committed, per (broker, queue id), before the fault.
    """
    tried_again = {failure.key for failure in failures}
    never_failed = [f"{key} is stored twice, and no send of it failed" for key in found.stored_twice - tried_again]
    below_committed = [
        f"{place} came again, and {committed[place[:2]]} was committed"
        for place in found.redelivered
        if place[2] < committed.get(place[:2], 0)
    ]
    return sorted(never_failed + below_committed)


def gaps(deliveries: Iterable[Delivery]) -> list[str]:
    """Queues whose offsets, as delivered, do not run from 0 without a hole."""
    offsets: dict[tuple[str, int], set[int]] = collections.defaultdict(set)
    for delivery in deliveries:
        offsets[delivery.broker, delivery.queue_id].add(delivery.queue_offset)
    return [f"{queue}: {sorted(seen)[:20]}…" for queue, seen in offsets.items() if seen != set(range(len(seen)))]


def out_of_order(deliveries: Sequence[Delivery]) -> list[str]:
    """Deliveries to one member that came before an earlier message of their queue."""
    last: dict[tuple[str, int], int] = {}
    wrong = []
    for delivery in deliveries:
        queue = delivery.broker, delivery.queue_id
        if delivery.queue_offset < last.get(queue, 0):
            wrong.append(f"{delivery.place} after {last[queue]}")
        last[queue] = delivery.queue_offset
    return wrong
