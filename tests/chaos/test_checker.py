"""The checker finds each fault that is planted in a history, and finds none where there is an excuse."""

import json
import pathlib

import pytest

from tests.chaos.checker import REPEAT_MS_MAX, UNDONE_MS_MAX, Checker, FaultKind
from tests.chaos.history import (
    Ack,
    Call,
    Change,
    Decision,
    Delivery,
    End,
    Gone,
    History,
    Kill,
    Kind,
    Outcome,
    Place,
    Pop,
    Recall,
    Send,
)

ACKNOWLEDGED, REFUSED, UNKNOWN = Outcome.ACKNOWLEDGED, Outcome.REFUSED, Outcome.UNKNOWN
INVISIBLE_MS = 1_000


class Story:
    """A history told step by step; each step takes ten milliseconds, and its answer comes a millisecond after it."""

    def __init__(self) -> None:
        self.history = History()
        self.now_ms = 100_000
        self._next_offset = 0

    def wait(self, ms: int) -> None:
        self.now_ms += ms

    def send(
        self,
        key: str,
        kind: Kind = Kind.POP,
        outcome: Outcome = ACKNOWLEDGED,
        *,
        order_group: str = "",
        due_ms: int = 0,
        wait_ms: int = 0,
        decision: Decision | None = None,
    ) -> None:
        call = Send(key=key, kind=kind, order_group=order_group, due_ms=due_ms, wait_ms=wait_ms, decision=decision)
        self._call(call, outcome)

    def deliver(
        self, key: str, *, failures: int = 0, offset: int | None = None, stored_ms: int | None = None, attempt: str = ""
    ) -> Delivery:
        """A copy at a place of its own, unless one is given, which was stored just now, unless a time is given."""
        self.wait(10)
        if offset is None:
            self._next_offset = offset = self._next_offset + 1
        place = Place("T", 0, offset)
        delivery = Delivery(
            at_ms=self.now_ms,
            key=key,
            place=place,
            stored_ms=self.now_ms if stored_ms is None else stored_ms,
            failures=failures,
            popped_ms=self.now_ms,
            visible_ms=self.now_ms + INVISIBLE_MS,
            attempt=attempt,
        )
        return self.history.add(delivery)

    def ack(self, delivery: Delivery, outcome: Outcome = ACKNOWLEDGED) -> None:
        self._call(Ack(of=delivery.number), outcome)

    def change(self, delivery: Delivery, new_ms: int, outcome: Outcome = ACKNOWLEDGED) -> None:
        """It is to be in hand for so long from now on."""
        self._call(Change(of=delivery.number, visible_ms=self.now_ms + 10 + new_ms), outcome)

    def pop(self, outcome: Outcome, kind: Kind = Kind.POP, invisible_ms: int = INVISIBLE_MS) -> None:
        self._call(Pop(kind=kind, invisible_ms=invisible_ms), outcome)

    def recall(self, key: str, outcome: Outcome = ACKNOWLEDGED) -> None:
        self._call(Recall(key=key), outcome)

    def end(self, key: str, decision: Decision, outcome: Outcome = ACKNOWLEDGED) -> None:
        self._call(End(key=key, decision=decision), outcome)

    def kill(self, *, moves: bool = False, lasts_ms: int = 0) -> None:
        """What follows is in its time, if it lasts."""
        self.wait(10)
        self.history.add(Kill(at_ms=self.now_ms, ended_ms=self.now_ms + lasts_ms, moves=moves))

    def found(self) -> list[tuple[FaultKind, str]]:
        return [(fault.kind, fault.key) for fault in Checker(self.history.events()).faults()]

    def _call(self, call: Call, outcome: Outcome) -> None:
        self.wait(10)
        call.at_ms = self.now_ms
        self.history.add(call)
        call.outcome = outcome
        if outcome is not UNKNOWN:
            call.ended_ms = self.now_ms + 1


@pytest.fixture
def story() -> Story:
    return Story()


def send_in_order(story: Story, kind: Kind, *keys: str) -> None:
    for key in keys:
        story.send(key, kind, order_group="g")


# -- histories without a fault -----------------------------------------------------------------------------------------


def test_all_kinds_without_a_fault(story: Story) -> None:
    """Failures, new times, kills, and everything that may come of them."""
    story.send("done")
    story.send("failed-once")
    story.ack(story.deliver("done"))
    story.deliver("failed-once")
    story.wait(INVISIBLE_MS)
    story.ack(story.deliver("failed-once", failures=1))
    send_in_order(story, Kind.ORDERED_POP, "first", "second")
    story.ack(story.deliver("first"))
    story.ack(story.deliver("second"))
    send_in_order(story, Kind.ORDERED_PULL, "line-1", "line-2")
    story.deliver("line-1", offset=101)
    story.deliver("line-2", offset=102)
    story.kill()
    story.deliver("line-1", offset=101)
    story.deliver("line-2", offset=102)
    story.send("timer", Kind.DELAYED, due_ms=story.now_ms + 500)
    story.send("taken-back", Kind.DELAYED, due_ms=story.now_ms + 500)
    story.recall("taken-back")
    story.wait(500)
    story.deliver("timer")
    story.send("commit", Kind.TRANSACTION, decision=Decision.COMMIT)
    story.send("rollback", Kind.TRANSACTION, decision=Decision.ROLLBACK)
    story.end("commit", Decision.COMMIT)
    story.end("rollback", Decision.ROLLBACK)
    story.deliver("commit")
    assert story.found() == []


@pytest.mark.parametrize("is_delivered", [True, False])
def test_a_send_without_an_answer_may_be_there_or_not(story: Story, *, is_delivered: bool) -> None:
    """Both are right; but when it is there, it is settled like any other."""
    story.send("perhaps", outcome=UNKNOWN)
    story.kill()
    if is_delivered:
        story.ack(story.deliver("perhaps"))
    assert story.found() == []


def test_a_message_that_is_there_must_be_settled(story: Story) -> None:
    """Also when its send had no answer: once seen it is there."""
    story.send("perhaps", outcome=UNKNOWN)
    story.deliver("perhaps")
    assert story.found() == [(FaultKind.LOST, "perhaps")]


@pytest.mark.parametrize("comes_again", [True, False])
def test_an_ack_without_an_answer_may_count_or_not(story: Story, *, comes_again: bool) -> None:
    """It comes again after its time, or never."""
    story.send("m")
    story.ack(story.deliver("m"), UNKNOWN)
    story.kill()
    story.wait(INVISIBLE_MS)
    if comes_again:
        story.ack(story.deliver("m", failures=1))
    assert story.found() == []


@pytest.mark.parametrize("is_delivered", [True, False])
def test_a_recall_without_an_answer_may_count_or_not(story: Story, *, is_delivered: bool) -> None:
    """The message comes at its time, or never."""
    story.send("timer", Kind.DELAYED, wait_ms=500)
    story.recall("timer", UNKNOWN)
    story.wait(500)
    if is_delivered:
        story.deliver("timer")
    assert story.found() == []


def test_a_commit_without_an_answer_may_count(story: Story) -> None:
    """It is delivered before the broker asks."""
    story.send("half", Kind.TRANSACTION, decision=Decision.COMMIT)
    story.end("half", Decision.COMMIT, UNKNOWN)
    story.deliver("half")
    assert story.found() == []


def test_what_a_pop_without_an_answer_took_comes_after_its_time(story: Story) -> None:
    """Nobody saw it the first time."""
    story.send("m")
    story.pop(UNKNOWN)
    story.kill()
    story.wait(INVISIBLE_MS)
    story.ack(story.deliver("m", failures=1))
    assert story.found() == []


def test_a_repeated_attempt_gets_the_same(story: Story) -> None:
    """Its answer may have been lost."""
    story.send("m", Kind.ORDERED_POP)
    story.deliver("m", offset=5, attempt="a")
    story.ack(story.deliver("m", offset=5, attempt="a"))
    assert story.found() == []


@pytest.mark.parametrize("kind", [Kind.DELAYED, Kind.TRANSACTION])
def test_a_kill_right_after_a_copy_excuses_a_second_one(story: Story, kind: Kind) -> None:
    """That the first was made is written down behind it."""
    story.send("m", kind, decision=Decision.COMMIT if kind is Kind.TRANSACTION else None)
    story.end("m", Decision.COMMIT)
    story.deliver("m")
    story.kill()
    story.deliver("m")
    assert story.found() == []


def test_a_shorter_time_ends_sooner(story: Story) -> None:
    """With an answer for sure, without one perhaps."""
    for key, outcome in (("sure", ACKNOWLEDGED), ("perhaps", UNKNOWN)):
        story.send(key)
        story.change(story.deliver(key), 50, outcome)
        story.wait(50)
        story.ack(story.deliver(key, failures=1))
    assert story.found() == []


# -- planted faults ----------------------------------------------------------------------------------------------------


def test_a_lost_message(story: Story) -> None:
    """Acknowledged, and nobody ever sees it; of each kind."""
    for kind in Kind:
        story.send(kind.value, kind, decision=Decision.COMMIT if kind is Kind.TRANSACTION else None)
    story.kill()
    assert story.found() == [(FaultKind.LOST, kind.value) for kind in Kind]


def test_a_message_that_was_popped_and_does_not_come_back(story: Story) -> None:
    """It was not acknowledged, or only after somebody else had got it: the broker must bring it back."""
    story.send("forgotten")
    story.deliver("forgotten")
    story.send("late")
    late = story.deliver("late")
    story.wait(INVISIBLE_MS)
    story.deliver("late", failures=1)
    story.ack(late)
    assert story.found() == [(FaultKind.LOST, "forgotten"), (FaultKind.LOST, "late")]


def test_a_late_acknowledgement_counts_while_nobody_else_has_the_message(story: Story) -> None:
    """A broker may take it, as Apache's does of an ordered pop; or bring the message back."""
    for key in ("taken", "brought-back"):
        story.send(key)
    taken, brought_back = story.deliver("taken"), story.deliver("brought-back")
    story.wait(INVISIBLE_MS)
    story.ack(taken)
    story.ack(brought_back)
    story.ack(story.deliver("brought-back", failures=1))
    assert story.found() == []


def test_a_committed_message_that_never_comes(story: Story) -> None:
    """Also when the commit had no answer: the broker asks then, and is told again."""
    story.send("half", Kind.TRANSACTION, decision=Decision.COMMIT)
    story.end("half", Decision.COMMIT, UNKNOWN)
    story.kill()
    assert story.found() == [(FaultKind.LOST, "half")]


def test_a_message_whose_recall_was_refused_must_come(story: Story) -> None:
    """It was not taken back."""
    story.send("timer", Kind.DELAYED, wait_ms=500)
    story.recall("timer", REFUSED)
    assert story.found() == [(FaultKind.LOST, "timer")]


@pytest.mark.parametrize(("due_ms", "wait_ms"), [(101_000, 0), (0, 500)])
def test_an_early_message(story: Story, due_ms: int, wait_ms: int) -> None:
    """By a millisecond: what counts is when the broker stored it for its consumers."""
    story.send("timer", Kind.DELAYED, due_ms=due_ms, wait_ms=wait_ms)
    due_ms = due_ms or story.now_ms + wait_ms
    story.wait(2_000)
    story.deliver("timer", stored_ms=due_ms - 1)
    assert story.found() == [(FaultKind.EARLY, "timer")]


def test_a_pulled_message_out_of_order(story: Story) -> None:
    """The second before the first, or without it."""
    send_in_order(story, Kind.ORDERED_PULL, "1", "2", "3")
    story.deliver("2")
    story.deliver("1")
    story.deliver("3")
    assert story.found() == [(FaultKind.OUT_OF_ORDER, "2")]


def test_a_message_of_another_group_blocks_nobody(story: Story) -> None:
    """Each group has an order of its own."""
    story.send("a", Kind.ORDERED_POP, order_group="a")
    story.send("b", Kind.ORDERED_POP, order_group="b")
    story.ack(story.deliver("b"))
    story.ack(story.deliver("a"))
    assert story.found() == []


def test_a_popped_message_out_of_order(story: Story) -> None:
    """The first is out, and not acknowledged: the second must wait."""
    send_in_order(story, Kind.ORDERED_POP, "1", "2")
    first = story.deliver("1")
    second = story.deliver("2")
    story.ack(first)
    story.ack(second)
    assert story.found() == [(FaultKind.OUT_OF_ORDER, "2")]


def test_a_rolled_back_message(story: Story) -> None:
    """Whatever was answered."""
    story.send("half", Kind.TRANSACTION, decision=Decision.ROLLBACK)
    story.end("half", Decision.ROLLBACK, UNKNOWN)
    story.deliver("half")
    assert story.found() == [(FaultKind.ROLLED_BACK, "half")]


def test_a_message_that_nobody_committed(story: Story) -> None:
    """Its producer says commit only after it was delivered."""
    story.send("half", Kind.TRANSACTION, decision=Decision.COMMIT)
    story.deliver("half")
    story.end("half", Decision.COMMIT)
    assert story.found() == [(FaultKind.UNDECIDED, "half")]


def test_a_recalled_message(story: Story) -> None:
    """The recall was answered before the time; one that was answered after it may have been too late."""
    for key, wait_ms in (("in-time", 500), ("too-late", 5)):
        story.send(key, Kind.DELAYED, wait_ms=wait_ms)
        story.recall(key)
        story.wait(500)
        story.deliver(key)
    assert story.found() == [(FaultKind.RECALLED, "in-time")]


def test_a_phantom(story: Story) -> None:
    """Never sent, or refused."""
    story.send("refused", outcome=REFUSED)
    story.ack(story.deliver("refused"))
    story.ack(story.deliver("never-sent"))
    assert story.found() == [(FaultKind.PHANTOM, "refused"), (FaultKind.PHANTOM, "never-sent")]


def test_an_acknowledged_message_that_comes_again(story: Story) -> None:
    """Popped in any way; also after a kill."""
    story.send("m")
    story.ack(story.deliver("m"))
    story.send("o", Kind.ORDERED_POP)
    story.ack(story.deliver("o", offset=50))
    story.kill()
    story.wait(INVISIBLE_MS)
    story.ack(story.deliver("m", failures=1))
    story.ack(story.deliver("o", offset=50))
    assert story.found() == [(FaultKind.DUPLICATE, "m"), (FaultKind.DUPLICATE, "o")]


@pytest.mark.parametrize(
    ("moves", "older_ms", "is_fault"), [(True, 0, False), (True, UNDONE_MS_MAX, True), (False, 0, True)]
)
def test_another_master_may_not_know_of_the_last_acknowledgements(
    story: Story, *, moves: bool, older_ms: int, is_fault: bool
) -> None:
    """Not of the last ones; a broker that was killed and came back knows all; and nobody else gets what was handed out
    long before."""
    story.send("a")
    story.ack(story.deliver("a"))
    story.wait(older_ms)
    story.kill(moves=moves)
    story.ack(story.deliver("a", failures=1))
    assert story.found() == ([(FaultKind.DUPLICATE, "a")] if is_fault else [])


def test_a_message_in_two_hands(story: Story) -> None:
    """It comes again while its time runs; also when that was prolonged."""
    story.send("m")
    story.deliver("m")
    story.send("o", Kind.ORDERED_POP)
    story.deliver("o", offset=50)
    story.send("longer")
    story.change(story.deliver("longer"), 5_000)
    story.wait(500)
    story.ack(story.deliver("m", failures=1))
    story.ack(story.deliver("o", offset=50))
    story.wait(INVISIBLE_MS)
    story.ack(story.deliver("longer", failures=1))
    assert story.found() == [(FaultKind.DUPLICATE, key) for key in ("m", "o", "longer")]


def test_the_same_copy_twice(story: Story) -> None:
    """What comes back is another copy; the first one is done with."""
    story.send("m")
    story.deliver("m", offset=7)
    story.kill()
    story.wait(INVISIBLE_MS)
    story.ack(story.deliver("m", offset=7))
    assert story.found() == [(FaultKind.DUPLICATE, "m")]


def test_a_retry_of_what_nobody_had(story: Story) -> None:
    """A pop without an answer excuses it only after its time."""
    story.send("m")
    story.ack(story.deliver("m", failures=1))
    story.send("n")
    story.pop(UNKNOWN)
    story.ack(story.deliver("n", failures=1))
    assert story.found() == [(FaultKind.DUPLICATE, "m"), (FaultKind.DUPLICATE, "n")]


@pytest.mark.parametrize("killed_after_ms", [None, REPEAT_MS_MAX + 100])
def test_a_copy_stored_again(story: Story, killed_after_ms: int | None) -> None:
    """Without a kill, or long before it."""
    story.send("timer", Kind.DELAYED)
    story.deliver("timer")
    if killed_after_ms is not None:
        story.wait(killed_after_ms)
        story.kill()
    story.deliver("timer")
    assert story.found() == [(FaultKind.DUPLICATE, "timer")]


def test_a_failure_stored_again(story: Story) -> None:
    """Of a message that was given up once there are two to be had."""
    story.send("m")
    story.deliver("m")
    story.wait(INVISIBLE_MS)
    story.ack(story.deliver("m", failures=1))
    story.ack(story.deliver("m", failures=1))
    assert story.found() == [(FaultKind.DUPLICATE, "m")]


def test_an_ordered_queue_that_begins_again(story: Story) -> None:
    """Only after a kill."""
    send_in_order(story, Kind.ORDERED_PULL, "1")
    story.deliver("1", offset=1)
    story.deliver("1", offset=1)
    assert story.found() == [(FaultKind.DUPLICATE, "1")]


def test_a_pulled_message_may_be_read_again_from_its_place(story: Story) -> None:
    """Where a queue's end went back, its reader does."""
    story.send("1", Kind.PULL)
    story.deliver("1", offset=1)
    story.deliver("1", offset=1)
    assert story.found() == []


def test_a_pulled_message_that_lies_in_two_places(story: Story) -> None:
    """It was sent once; no kill excuses that it is stored twice."""
    story.send("1", Kind.PULL)
    story.deliver("1", offset=1)
    story.kill()
    story.deliver("1", offset=2)
    assert story.found() == [(FaultKind.DUPLICATE, "1")]


def test_what_was_shown_and_is_gone_in_the_end(story: Story) -> None:
    """Whatever became of its send."""
    story.send("1", Kind.PULL, UNKNOWN)
    delivery = story.deliver("1", offset=1)
    story.kill()
    story.history.add(Gone(key="1", place=delivery.place))
    assert story.found() == [(FaultKind.TAKEN_BACK, "1")]


def test_a_pulled_message_that_never_came(story: Story) -> None:
    """It was acknowledged."""
    story.send("1", Kind.PULL)
    story.send("2", Kind.PULL, UNKNOWN)
    assert story.found() == [(FaultKind.LOST, "1")]


def test_a_place_that_was_written_again(story: Story) -> None:
    """What a consumer saw was cut off, and something else came there."""
    story.send("seen", Kind.DELAYED)
    story.deliver("seen", offset=3)
    story.kill()
    story.send("other", Kind.DELAYED)
    story.deliver("other", offset=3)
    assert story.found() == [(FaultKind.REWRITTEN, "other")]


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_a_history_is_written_to_be_read(story: Story, tmp_path: pathlib.Path) -> None:
    """A line for each event, in their order."""
    story.send("m")
    story.ack(story.deliver("m"))
    story.history.write(tmp_path / "history")
    lines = [json.loads(line) for line in (tmp_path / "history").read_text().splitlines()]
    assert [(line["event"], line["number"]) for line in lines] == [("Send", 0), ("Delivery", 1), ("Ack", 2)]
    assert lines[0]["outcome"] == "ACKNOWLEDGED"


def test_what_is_unfinished_is_told(story: Story) -> None:
    """A run waits for it before it judges."""
    story.send("m")
    delivery = story.deliver("m")
    assert [send.key for send in Checker(story.history.events()).unfinished()] == ["m"]
    story.ack(delivery)
    assert Checker(story.history.events()).unfinished() == []


# -- over proxies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_client_of_a_proxy_may_store_a_message_twice_around_a_fault(story: Story, *, is_killed: bool) -> None:
    """Its library sends again by itself; without a fault nothing is in its way."""
    send_in_order(story, Kind.GRPC_ORDERED, "m1")
    first = story.deliver("m1")
    story.ack(first)
    if is_killed:
        story.kill()
    story.ack(story.deliver("m1"))
    assert story.found() == ([] if is_killed else [(FaultKind.DUPLICATE, "m1")])


@pytest.mark.parametrize("lasts_ms", [100, 0])
def test_a_delayed_message_that_was_sent_again_in_a_fault_may_come_twice_after_it(story: Story, lasts_ms: int) -> None:
    """Both copies waited for their time; a send that no fault disturbed is stored once."""
    story.kill(moves=True, lasts_ms=lasts_ms)
    story.send("m1", Kind.GRPC_DELAYED, UNKNOWN if lasts_ms else ACKNOWLEDGED, due_ms=story.now_ms + 50_000)
    story.wait(60_000)
    for _ in range(2):
        story.ack(story.deliver("m1"))
    assert story.found() == ([] if lasts_ms else [(FaultKind.DUPLICATE, "m1")])


def test_an_ordered_copy_over_a_proxy_that_was_acknowledged_and_comes_again(story: Story) -> None:
    """From the same place: no sending again excuses that."""
    send_in_order(story, Kind.GRPC_ORDERED, "m1")
    first = story.deliver("m1", offset=7)
    story.ack(first)
    story.deliver("m1", offset=7, stored_ms=first.stored_ms)
    assert story.found() == [(FaultKind.DUPLICATE, "m1")]


@pytest.mark.parametrize("lasts_ms", [100, 0])
def test_a_proxy_may_ask_again_during_a_fault(story: Story, lasts_ms: int) -> None:
    """The client gets an answer, and not what an answer before that one had; a fault that is over excuses nothing."""
    story.send("m1", Kind.GRPC)
    story.kill(moves=True, lasts_ms=lasts_ms)
    story.pop(ACKNOWLEDGED, Kind.GRPC, invisible_ms=0)
    story.ack(story.deliver("m1", failures=1))
    assert story.found() == ([] if lasts_ms else [(FaultKind.DUPLICATE, "m1")])


@pytest.mark.parametrize(
    ("decision", "found"),
    [(Decision.COMMIT, [(FaultKind.UNDECIDED, "m1")]), (Decision.ROLLBACK, [(FaultKind.ROLLED_BACK, "m1")])],
)
def test_a_transaction_over_a_proxy_that_nobody_ended(
    story: Story, decision: Decision, found: list[tuple[FaultKind, str]]
) -> None:
    """It may not be popped."""
    story.send("m1", Kind.GRPC_TRANSACTION, decision=decision)
    story.ack(story.deliver("m1"))
    assert story.found() == found


@pytest.mark.parametrize("kind", [Kind.GRPC, Kind.GRPC_ORDERED, Kind.GRPC_DELAYED, Kind.GRPC_TRANSACTION])
def test_what_was_popped_over_a_proxy_must_be_settled(story: Story, kind: Kind) -> None:
    """Or come again."""
    story.send("m1", kind, decision=Decision.COMMIT if kind is Kind.GRPC_TRANSACTION else None)
    story.end("m1", Decision.COMMIT)
    story.deliver("m1")
    assert story.found() == [(FaultKind.LOST, "m1")]
