"""Judges a history: what the broker did that it may not do, whatever was killed and whenever.

```
LOST          acknowledged, and never delivered; or popped, not settled, and never delivered again
EARLY         stored for its consumers before its time
OUT_OF_ORDER  delivered while an earlier message of its order group was not done with
ROLLED_BACK   delivered, although its producer never says anything but roll back
UNDECIDED     delivered, before its producer had committed it
RECALLED      delivered, although it was taken back in time
PHANTOM       delivered, and never sent, or refused
DUPLICATE     delivered again without a reason
REWRITTEN     another message than before lies at the same place
TAKEN_BACK    delivered, and in the end no longer in its queue
```
A call without an answer may have been done or not: only what no answer could excuse is a fault. A message may come
again for these reasons only:

- it was popped, its time is over, and it was not acknowledged in time (or nobody knows whether it was);
- the pop that took it was answered by nobody: then it comes again after its time, and nobody saw it the first time;
- a proxy asked again for its client when it lost a broker's answer, in a pop during a fault: the same, at any time;
- an attempt of an ordered pop was repeated;
- the consumer of an ordered queue begins again where its offset was saved, after a kill;
- the broker was killed soon after it had stored the copy, and stores another, or a client of a proxy, which sends
  again by itself, has it stored again (REPEAT_MS_MAX);
- a set had another master meanwhile, who does not know what consumers did last (UNDONE_MS_MAX, docs/ha.md).
"""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, auto
from typing import TypeVar

from tests.chaos.history import (
    GRPC_KINDS,
    POPPED,
    POPPED_IN_ORDER,
    Ack,
    Change,
    Decision,
    Delivery,
    End,
    Event,
    Gone,
    Kill,
    Kind,
    Outcome,
    Place,
    Pop,
    Recall,
    Send,
)

REPEAT_MS_MAX = 5_000
"""A copy that was stored longer before a kill than this is known to the next process: it does not store another."""

UNDONE_MS_MAX = 12_000
"""Pops, acknowledgements and the progress of delay levels that are older than this when a master goes are known to the
next one: tables are saved each 5 or 10 s."""

GRPC_SEND_MS_MAX, GRPC_SENT_AGAIN_MAX = 3_000, 2
"""For so long our gRPC library sends, and so often again; its copies of a delayed message come at their time, when the
fault may be over."""


class FaultKind(Enum):
    """See above."""

    LOST = auto()
    EARLY = auto()
    OUT_OF_ORDER = auto()
    ROLLED_BACK = auto()
    UNDECIDED = auto()
    RECALLED = auto()
    PHANTOM = auto()
    DUPLICATE = auto()
    REWRITTEN = auto()
    TAKEN_BACK = auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One thing that may not be; `number` is that of the event which shows it."""

    kind: FaultKind
    key: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.kind.name} {self.key} (event {self.number}): {self.text}"


@dataclasses.dataclass(slots=True)
class Hold:
    """A popped message in a consumer's hand, which ends between two moments, as far as one can know.

    Args:
        delivery: how it came into it.
        earliest_ms, latest_ms: the first moment at which somebody else may have got it, and at which it must be free.
        acks: when it was said to be processed.
        next_ms: when somebody got the message again, infinite for never: until then a broker may take an
            acknowledgement that comes after its time, and nothing is lost by that.
    """

    delivery: Delivery
    earliest_ms: int
    latest_ms: int
    acks: list[Ack]
    next_ms: float = math.inf

    @property
    def is_settled(self) -> bool:
        """Whether it was acknowledged in time, for sure."""
        return any(ack.outcome is Outcome.ACKNOWLEDGED and ack.ended_ms < self.earliest_ms for ack in self.acks)

    @property
    def may_be_settled(self) -> bool:
        """Whether an acknowledgement may have come in time."""
        return any(map(self.may_be_settled_by, self.acks))

    def may_be_settled_by(self, ack: Ack) -> bool:
        """Whether this one may have."""
        return ack.outcome is not Outcome.REFUSED and ack.at_ms < max(self.latest_ms, self.next_ms)


class Checker:
    """One history, sorted by message.

    Args:
        events: all of it, in order.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.sends = {send.key: send for send in of_type(events, Send)}
        self.kills = list(of_type(events, Kill))
        self._deliveries: dict[str, list[Delivery]] = defaultdict(list)
        self._unseen_pops: dict[Kind, list[Pop]] = defaultdict(list)
        self._recalls = by_key(of_type(events, Recall), lambda recall: recall.key)
        self._ends = by_key(of_type(events, End), lambda end: end.key)
        self._gone = list(of_type(events, Gone))
        self._holds: dict[int, Hold] = {}
        for event in events:
            if isinstance(event, Delivery):
                for before in self._deliveries[event.key][-1:]:
                    self._holds[before.number].next_ms = event.popped_ms or event.at_ms
                self._deliveries[event.key].append(event)
                self._holds[event.number] = Hold(event, event.visible_ms, event.visible_ms, [])
            elif isinstance(event, Ack):
                self._holds[event.of].acks.append(event)
            elif isinstance(event, Change):
                change(self._holds[event.of], event)
            elif isinstance(event, Pop) and self._may_be_unseen(event):
                self._unseen_pops[event.kind].append(event)

    def faults(self) -> list[Fault]:
        """All of them, in the order of the events that show them."""
        found = [fault for send in self.sends.values() for fault in self._of_message(send)]
        unknown = [deliveries[0] for key, deliveries in self._deliveries.items() if key not in self.sends]
        found += [fault_of(FaultKind.PHANTOM, delivery, "nobody sent it") for delivery in unknown]
        found += [Fault(FaultKind.TAKEN_BACK, gone.key, gone.number, f"{gone.place} is empty") for gone in self._gone]
        found += self._rewritten()
        found += self._out_of_order()
        return sorted((fault for fault in found if not self._is_undone(fault)), key=lambda fault: fault.number)

    def _may_be_unseen(self, pop: Pop) -> bool:
        """Whether nobody saw what it took, or some of that."""
        if pop.outcome is Outcome.UNKNOWN:
            return True
        return pop.kind in GRPC_KINDS and any(
            kill.at_ms <= pop.ended_ms and pop.at_ms <= kill.ended_ms for kill in self.kills
        )

    def _is_undone(self, fault: Fault) -> bool:
        """Whether it is a delivery that comes again because the next master did not know of the one before."""
        if fault.kind is not FaultKind.DUPLICATE or self.sends[fault.key].kind is Kind.PULL:
            return False
        events = [each for delivery in self._deliveries[fault.key] for each in (delivery, *self._acks_of(delivery))]
        again = next(each for each in events if each.number == fault.number)
        before_ms = max((each.at_ms for each in events if each.number < again.number), default=-math.inf)
        return any(
            kill.moves and kill.at_ms <= again.at_ms and kill.at_ms - UNDONE_MS_MAX <= before_ms <= kill.ended_ms
            for kill in self.kills
        )

    def _acks_of(self, delivery: Delivery) -> list[Ack]:
        return self._holds[delivery.number].acks

    def unfinished(self) -> list[Send]:
        """Messages that have yet to come, or to be settled."""
        return [send for send in self.sends.values() if self._is_lost(send)]

    def repeated_count(self) -> int:
        """How many messages came more than once; all with a reason, where there are no faults."""
        return sum(len(deliveries) > 1 for deliveries in self._deliveries.values())

    # -- each message by itself ----------------------------------------------------------------------------------------

    def _of_message(self, send: Send) -> Iterator[Fault]:
        deliveries = self._deliveries.get(send.key, [])
        if self._is_lost(send):
            text = "popped, not settled, and never came again" if deliveries else "acknowledged, and never delivered"
            yield Fault(FaultKind.LOST, send.key, send.number, text)
        if not deliveries:
            return
        first = deliveries[0]
        if send.outcome is Outcome.REFUSED:
            yield fault_of(FaultKind.PHANTOM, first, "it was refused")
        early = min(deliveries, key=lambda delivery: delivery.stored_ms)
        if early.stored_ms < send.not_before_ms:
            yield fault_of(FaultKind.EARLY, early, f"{send.not_before_ms - early.stored_ms} ms before its time")
        if send.decision is not None:
            yield from self._ended_otherwise(send, first)
        if self._was_recalled(send):
            yield fault_of(FaultKind.RECALLED, first, "it was taken back before its time")
        yield from self._repeated(send, deliveries)

    def _is_lost(self, send: Send) -> bool:
        if not self._must_come(send):
            return False
        deliveries = self._deliveries.get(send.key, [])
        if send.kind not in POPPED | POPPED_IN_ORDER:
            return not deliveries
        return not any(self._holds[delivery.number].may_be_settled for delivery in deliveries)

    def _must_come(self, send: Send) -> bool:
        """Whether it is there for sure: acknowledged or seen, and neither rolled back nor perhaps taken back."""
        is_there = send.outcome is Outcome.ACKNOWLEDGED or send.key in self._deliveries
        may_be_recalled = any(recall.outcome is not Outcome.REFUSED for recall in self._recalls[send.key])
        return is_there and not may_be_recalled and send.decision is not Decision.ROLLBACK

    def _ended_otherwise(self, send: Send, first: Delivery) -> Iterator[Fault]:
        if send.decision is Decision.ROLLBACK:
            yield fault_of(FaultKind.ROLLED_BACK, first, "its producer rolls it back")
        elif not any(end.number < first.number for end in self._ends[send.key]):
            yield fault_of(FaultKind.UNDECIDED, first, "its producer had not committed it yet")

    def _was_recalled(self, send: Send) -> bool:
        return any(
            recall.outcome is Outcome.ACKNOWLEDGED and recall.ended_ms < send.not_before_ms
            for recall in self._recalls[send.key]
        )

    # -- again ---------------------------------------------------------------------------------------------------------

    def _repeated(self, send: Send, deliveries: list[Delivery]) -> Iterator[Fault]:
        if send.kind is Kind.ORDERED_PULL:
            yield from self._pulled_again(deliveries)
        elif send.kind is Kind.GRPC_ORDERED:
            yield from self._stored_again(deliveries, 0)
            for copy in {delivery.place for delivery in deliveries}:
                yield from self._popped_again_in_order([each for each in deliveries if each.place == copy])
        elif send.kind in POPPED_IN_ORDER:
            yield from self._popped_again_in_order(deliveries)
        elif send.kind in POPPED:
            yield from self._popped_again(deliveries)
        elif send.kind is Kind.PULL:
            yield from self._stored_twice(deliveries)
        else:
            yield from self._stored_again(deliveries, 0)

    def _pulled_again(self, deliveries: list[Delivery]) -> Iterator[Fault]:
        """The consumer's offset may have been saved before the kill, or not: after one it may begin again."""
        for before, again in itertools.pairwise(deliveries):
            if not any(before.number < kill.number < again.number for kill in self.kills):
                yield fault_of(FaultKind.DUPLICATE, again, f"event {before.number} had it, and no kill came between")

    def _stored_twice(self, deliveries: list[Delivery]) -> Iterator[Fault]:
        """It was sent once, and lies in one place; from there it may be read again where its queue went back."""
        for again in deliveries[1:]:
            if again.place != deliveries[0].place:
                yield fault_of(FaultKind.DUPLICATE, again, f"it lies at {deliveries[0].place} too")

    def _popped_again_in_order(self, deliveries: list[Delivery]) -> Iterator[Fault]:
        """It stays in its place, and comes again when its time is over or its attempt is repeated."""
        for before, again in itertools.pairwise(sorted(deliveries, key=lambda delivery: delivery.popped_ms)):
            hold = self._holds[before.number]
            is_repeated = again.attempt != "" and again.attempt == before.attempt
            if again.place != before.place:
                yield fault_of(FaultKind.DUPLICATE, again, f"it was stored twice, event {before.number} has the other")
            elif hold.is_settled:
                yield fault_of(FaultKind.DUPLICATE, again, f"it was acknowledged as event {before.number}")
            elif again.popped_ms < hold.earliest_ms and not is_repeated:
                yield fault_of(FaultKind.DUPLICATE, again, f"event {before.number} had it until {hold.earliest_ms}")

    def _popped_again(self, deliveries: list[Delivery]) -> Iterator[Fault]:
        """It comes again as another copy, which is stored when the time of the one before is over."""
        generations: dict[int, list[Delivery]] = defaultdict(list)
        places: set[Place] = set()
        for delivery in deliveries:
            if delivery.place in places:
                yield fault_of(FaultKind.DUPLICATE, delivery, "this copy was handed out before")
                continue
            places.add(delivery.place)
            generations[delivery.failures].append(delivery)
        for failures, generation in generations.items():
            parents = generations.get(failures - 1, [])
            for delivery in generation:
                if failures and not self._may_come_back(delivery, parents):
                    yield fault_of(FaultKind.DUPLICATE, delivery, no_reason(delivery, parents, self._holds))
            yield from self._stored_again(generation, max(0, len(parents) - 1))

    def _may_come_back(self, delivery: Delivery, parents: list[Delivery]) -> bool:
        """Whether somebody had the copy before, and let its time go by."""
        holds = (self._holds[parent.number] for parent in parents)
        if any(not hold.is_settled and hold.earliest_ms <= delivery.stored_ms for hold in holds):
            return True
        pops = self._unseen_pops[self.sends[delivery.key].kind]
        return any(pop.at_ms + pop.invisible_ms <= delivery.stored_ms for pop in pops)

    def _stored_again(self, deliveries: list[Delivery], allowed: int) -> Iterator[Fault]:
        """Copies of the same, but for `allowed` ones, need a kill between them, and soon after the one before."""
        copies = sorted({delivery.place: delivery for delivery in deliveries}.values(), key=lambda copy: copy.stored_ms)
        groundless = [again for before, again in itertools.pairwise(copies) if not self._was_killed(before, again)]
        for again in groundless[allowed + self._sent_again_max(self.sends[deliveries[0].key]) :]:
            yield fault_of(FaultKind.DUPLICATE, again, "it was stored again, and no kill came between")

    def _sent_again_max(self, send: Send) -> int:
        """How often a client may have sent it again by itself: only what was on its way during a fault."""
        end_ms = send.ended_ms or send.at_ms + GRPC_SEND_MS_MAX
        is_disturbed = any(kill.at_ms <= end_ms and send.at_ms <= kill.ended_ms for kill in self.kills)
        return GRPC_SENT_AGAIN_MAX if send.kind in GRPC_KINDS and is_disturbed else 0

    def _was_killed(self, before: Delivery, again: Delivery) -> bool:
        return any(
            before.stored_ms <= kill.ended_ms
            and kill.at_ms <= again.stored_ms
            and kill.at_ms - before.stored_ms <= REPEAT_MS_MAX
            for kill in self.kills
        )

    # -- all together --------------------------------------------------------------------------------------------------

    def _rewritten(self) -> Iterator[Fault]:
        """A place holds one message for ever: what a consumer saw does not vanish when the broker is killed."""
        keys: dict[Place, str] = {}
        for delivery in itertools.chain.from_iterable(self._deliveries.values()):
            key = keys.setdefault(delivery.place, delivery.key)
            if key != delivery.key:
                yield fault_of(FaultKind.REWRITTEN, delivery, f"{key} was at {delivery.place}")

    def _out_of_order(self) -> Iterator[Fault]:
        groups = by_key((send for send in self.sends.values() if send.order_group), lambda send: send.order_group)
        for sends in groups.values():
            # When each message was done with for the first time: nothing behind it may come before.
            done_at = -math.inf
            blocking = ""
            for send in sends:
                deliveries = self._deliveries.get(send.key, [])
                if deliveries and deliveries[0].number < done_at:
                    yield fault_of(FaultKind.OUT_OF_ORDER, deliveries[0], f"{blocking} was sent before it")
                if not self._must_come(send):
                    continue
                done = self._done_at(send, deliveries)
                if done > done_at:
                    done_at, blocking = done, send.key

    def _done_at(self, send: Send, deliveries: list[Delivery]) -> float:
        """Number of the event from which on the next of its group may come; infinite for never."""
        if send.kind is Kind.ORDERED_PULL:
            return deliveries[0].number if deliveries else math.inf
        acks = (
            ack.number
            for delivery in deliveries
            for ack in self._holds[delivery.number].acks
            if self._holds[delivery.number].may_be_settled_by(ack)
        )
        return min(acks, default=math.inf)


def change(hold: Hold, event: Change) -> None:
    """A hold's time after it was changed: for sure when the answer came while it was in hand, else perhaps."""
    if event.outcome is Outcome.ACKNOWLEDGED and event.ended_ms < hold.earliest_ms:
        hold.earliest_ms = hold.latest_ms = event.visible_ms
    elif event.outcome is not Outcome.REFUSED:
        hold.earliest_ms = min(hold.earliest_ms, event.visible_ms)
        hold.latest_ms = max(hold.latest_ms, event.visible_ms)


def no_reason(delivery: Delivery, parents: list[Delivery], holds: dict[int, Hold]) -> str:
    """Why a copy should not be there."""
    if not parents:
        return "it comes back, and nobody had it before"
    hold = holds[parents[-1].number]
    if hold.is_settled:
        return f"it was acknowledged as event {parents[-1].number}"
    return f"event {parents[-1].number} had it until {hold.earliest_ms}, and it was stored at {delivery.stored_ms}"


def fault_of(kind: FaultKind, delivery: Delivery, text: str) -> Fault:
    """A fault that a delivery shows."""
    return Fault(kind, delivery.key, delivery.number, text)


EventT = TypeVar("EventT", bound=Event)


def of_type(events: Iterable[Event], kind: type[EventT]) -> Iterator[EventT]:
    """Those of one type."""
    return (event for event in events if isinstance(event, kind))


def by_key(events: Iterable[EventT], key: Callable[[EventT], str]) -> dict[str, list[EventT]]:
    """In lists, by a key."""
    lists: dict[str, list[EventT]] = defaultdict(list)
    for event in events:
        lists[key(event)].append(event)
    return lists
