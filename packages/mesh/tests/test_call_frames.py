"""Frames of calls without I/O: order, pieces, credits, cancelling, and peers that break the rules."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import pytest
from apogeemq.mesh import call_frames
from apogeemq.mesh.call_frames import (
    CREDIT_SIZE_BYTES_MIN,
    ENTRY_SIZE_BYTES_MAX,
    FRAME_SIZE_BYTES_MAX,
    PIECE_SIZE_BYTES_MAX,
    WAITING_SIZE_BYTES_MAX,
    WINDOW_SIZE_BYTES,
    Answerer,
    Asked,
    Asker,
    Ended,
    Outgoing,
    PeerViolation,
)
from apogeemq.mesh.errors import CallsOverloaded, MessageTooLarge
from apogeemq.mesh.late_replies import LATE_MAX, LATE_S
from apogeemq.mesh.v1.calls_pb2 import (
    ENTRY_CANCEL,
    ENTRY_KIND_UNSPECIFIED,
    ENTRY_PIECE,
    ENTRY_REFUSAL,
    ENTRY_REPLY,
    ENTRY_REQUEST,
    Entry,
    EntryKind,
    Frame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

METHOD = 3
NOW = 100.0
LATER = 103.5


def over_the_wire(frame: Frame) -> Frame:
    data = frame.SerializeToString()
    assert len(data) <= FRAME_SIZE_BYTES_MAX
    return Frame.FromString(data)


class Stream:
    """Both sides and what is under way between them. Bytes of payloads tell which call they belong to."""

    def __init__(self) -> None:
        self.asker = Asker("broker-a:10921")
        self.answerer = Answerer()
        self.up: deque[Frame] = deque()
        self.down: deque[Frame] = deque()
        self.asked: list[Asked] = []
        self.ended: list[Ended] = []

    def ask(self, name: str, size_bytes: int = 0) -> Outgoing:
        payload = name.encode().ljust(size_bytes, b"x")
        return self.asker.ask(name, METHOD, payload, LATER)

    def send_up(self) -> bool:
        frame = self.asker.frame(NOW)
        if frame is not None:
            self.up.append(over_the_wire(frame))
        return frame is not None

    def send_down(self) -> bool:
        frame = self.answerer.frame(NOW)
        if frame is not None:
            self.down.append(over_the_wire(frame))
        return frame is not None

    def arrive_up(self) -> list[Asked]:
        """Let the answerer take a frame; gives what was cancelled by it."""
        if not self.up:
            return []
        asked, cancelled = self.answerer.receive(self.up.popleft(), NOW)
        self.asked += asked
        return cancelled

    def arrive_down(self, now: float = NOW) -> None:
        if self.down:
            self.ended += self.asker.receive(self.down.popleft(), now)

    def run(self, answer: Callable[[Asked], None] | None = None) -> None:
        """Exchange frames until nothing moves any more; `answer` is given each request."""
        moving = True
        while moving:
            moving = self.send_up() | self.send_down() | bool(self.up) | bool(self.down)
            self.arrive_up()
            self.arrive_down()
            while self.asked and answer is not None:
                answer(self.asked.pop(0))
                moving = True

    def echo(self, asked: Asked) -> None:
        self.answerer.reply(asked, asked.payload)


def test_many_small_requests_share_a_frame() -> None:
    """All that waits goes with one frame, in the order asked, each with its own number, time and trace."""
    stream = Stream()
    stream.asker.ask("a", 1, b"one", NOW + 3.0, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "k=v")
    stream.asker.ask("b", 2, b"two", NOW + 0.25)
    stream.send_up()
    (frame,) = stream.up
    first, second = frame.entries
    assert first == Entry(
        id=1,
        kind=ENTRY_REQUEST,
        method=1,
        timeout_ms=3000,
        payload=b"one",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate="k=v",
    )
    assert second == Entry(id=2, kind=ENTRY_REQUEST, method=2, timeout_ms=250, payload=b"two")
    assert stream.asker.frame(NOW) is None


def test_what_the_answerer_is_told() -> None:
    """A request comes with its call, its bytes, its trace, and a deadline on the answerer's own clock."""
    stream = Stream()
    stream.asker.ask("a", 7, b"one", NOW + 3.0, "traceparent", "tracestate")
    stream.send_up()
    ((asked,), _) = stream.answerer.receive(stream.up[0], 55.0)
    assert (asked.method, asked.payload, asked.deadline) == (7, b"one", 58.0)
    assert (asked.traceparent, asked.tracestate) == ("traceparent", "tracestate")


@pytest.mark.parametrize(("left_s", "timeout_ms"), [(-1.0, 1), (0.0, 1), (0.0019, 1), (5e6, 0xFFFFFFFF)])
def test_times_at_the_bounds(left_s: float, timeout_ms: int) -> None:
    """A time that is up, or longer than the field can say, travels as the nearest that it can."""
    asker = Asker("broker-a:10921")
    asker.ask("a", METHOD, b"", NOW + left_s)
    frame = asker.frame(NOW)
    assert frame is not None
    assert [entry.timeout_ms for entry in frame.entries] == [timeout_ms]


def test_long_tracestates_are_left_out() -> None:
    """A tracestate beyond what must be passed on is left out; the rest of the trace goes along."""
    asker = Asker("broker-a:10921")
    asker.ask("a", METHOD, b"", LATER, "traceparent", "x" * 513)
    frame = asker.frame(NOW)
    assert frame is not None
    assert [(entry.traceparent, entry.tracestate) for entry in frame.entries] == [("traceparent", "")]


def test_replies_and_refusals() -> None:
    """Each request ends by itself, in any order, with its reply or with a refusal's code and text."""
    stream = Stream()
    stream.ask("a")
    stream.ask("b")
    stream.run()
    first, second = stream.asked
    stream.answerer.refuse(second, 17, "no topic T")
    stream.answerer.reply(first, b"")
    stream.run()
    assert sorted(stream.ended) == [Ended("a", b"", 0, ""), Ended("b", None, 17, "no topic T")]


def test_a_request_is_answered_once() -> None:
    """A second answer is a mistake of ours and says so."""
    stream = Stream()
    stream.ask("a")
    stream.run()
    stream.answerer.reply(stream.asked[0], b"")
    with pytest.raises(ValueError, match="answered already"):
        stream.answerer.refuse(stream.asked[0], 1, "")


def test_long_texts_are_cut() -> None:
    """A refusal's text is bounded, whatever its characters take."""
    stream = Stream()
    for name in ("a", "b", "c"):
        stream.ask(name)
    stream.run()
    for asked in stream.asked:
        stream.answerer.refuse(asked, 1, "字" * 100_000)
    stream.run()
    assert [len(ended.text) for ended in stream.ended] == [1000, 1000, 1000]


@pytest.mark.parametrize("code", [-1, 2**32])
def test_refusals_that_fit_no_field(code: int) -> None:
    """A code or text that the entry can't hold is replaced: the stream goes on."""
    stream = Stream()
    stream.ask("a")
    stream.run(lambda asked: stream.answerer.refuse(asked, code, "no topic \ud800!"))
    assert stream.ended == [Ended("a", None, 1, "no topic ?!")]


def test_small_entries_pass_a_large_one() -> None:
    """Small requests that come while 4 MiB are under way are in the very next frame, and all arrives whole."""
    stream = Stream()
    stream.ask("large", 4 * 1024 * 1024)
    stream.send_up()
    stream.ask("small", 100)
    stream.send_up()
    stream.arrive_up()
    assert stream.asked == []
    stream.arrive_up()
    assert [asked.payload[:5] for asked in stream.asked] == [b"small"]
    stream.run(stream.echo)
    sizes = {ended.ticket: len(ended.payload or b"") for ended in stream.ended}
    assert sizes == {"small": 100, "large": 4 * 1024 * 1024}


def test_large_entries_take_turns_and_are_not_starved() -> None:
    """Two large entries come on side by side, also while small ones fill the frames."""
    stream = Stream()
    stream.ask("first", 1_000_000)
    stream.ask("second", 1_000_000)
    frames = 0
    while len([asked for asked in stream.asked if len(asked.payload) == 1_000_000]) < 2:
        for number in range(40):
            stream.ask(f"s{frames}.{number}", 10_000)
        stream.send_up()
        stream.arrive_up()
        frames += 1
        assert frames <= 2 * (1_000_000 // PIECE_SIZE_BYTES_MAX + 1) + 1
    large = [asked.payload[:3] for asked in stream.asked if len(asked.payload) == 1_000_000]
    assert large == [b"fir", b"sec"]


def test_credit_holds_the_sender() -> None:
    """No more than the window is sent to an answerer that is not done; what it gives back lets the rest go."""
    stream = Stream()
    for number in range(5):
        stream.ask(f"{number}", ENTRY_SIZE_BYTES_MAX // 2)
    stream.run()
    assert len(stream.asked) == 2 * WINDOW_SIZE_BYTES // ENTRY_SIZE_BYTES_MAX == 4
    stream.answerer.reply(stream.asked[0], b"")
    stream.run()
    assert len(stream.asked) == 5


def test_no_request_passes_one_that_waits_for_credit() -> None:
    """A small request waits behind a large one that lacks credit, so that the large one gets its turn."""
    stream = Stream()
    for name in ("a", "b", "c"):
        stream.ask(name, ENTRY_SIZE_BYTES_MAX)
    stream.ask("small", 1)
    stream.run()
    assert [asked.payload[:1] for asked in stream.asked] == [b"a", b"b"]
    stream.answerer.reply(stream.asked[0], b"")
    stream.run()
    assert [asked.payload[:1] for asked in stream.asked[2:]] == [b"c"]
    stream.answerer.reply(stream.asked[1], b"")
    stream.run()
    assert [asked.payload for asked in stream.asked[3:]] == [b"small"]


def test_credit_alone_is_worth_a_frame() -> None:
    """Credit goes with frames that go anyway; enough of it makes a frame by itself."""
    stream = Stream()
    outgoing = stream.ask("a", CREDIT_SIZE_BYTES_MIN - 1)
    stream.run()
    stream.answerer.inbox.release(CREDIT_SIZE_BYTES_MIN - 1)
    assert not stream.send_down()
    stream.answerer.inbox.release(1)
    assert stream.send_down()
    assert stream.down[0] == Frame(credit_bytes=CREDIT_SIZE_BYTES_MIN)
    assert outgoing.is_sent


def test_the_largest_entry_gets_through_whatever_credit_is_withheld() -> None:
    """The sum of the bounds leaves no deadlock: 16 MiB go through after others whose credit was too little to send."""
    stream = Stream()
    stream.ask("held", CREDIT_SIZE_BYTES_MIN - 1)
    stream.run()
    stream.answerer.inbox.release(CREDIT_SIZE_BYTES_MIN - 1)
    stream.ask("large", ENTRY_SIZE_BYTES_MAX)
    stream.run()
    assert len(stream.asked) == 2


@pytest.mark.parametrize("size_bytes", [0, 1, PIECE_SIZE_BYTES_MAX, PIECE_SIZE_BYTES_MAX + 1, ENTRY_SIZE_BYTES_MAX])
def test_sizes_at_the_bounds(size_bytes: int) -> None:
    """A payload of any allowed size comes out as it went in, both ways."""
    stream = Stream()
    payload = bytes(range(256)) * (size_bytes // 256) + b"z" * (size_bytes % 256)
    stream.asker.ask("a", METHOD, payload, LATER)
    stream.run(stream.echo)
    assert [ended.payload == payload for ended in stream.ended] == [True]


def test_too_large() -> None:
    """A request above the bound is not taken; a reply above it becomes a refusal that says so."""
    stream = Stream()
    with pytest.raises(MessageTooLarge):
        stream.ask("a", ENTRY_SIZE_BYTES_MAX + 1)
    stream.ask("b")
    stream.run(lambda asked: stream.answerer.reply(asked, b"x" * (ENTRY_SIZE_BYTES_MAX + 1)))
    ((ticket, payload, code, text, _),) = stream.ended
    assert (ticket, payload, code) == ("b", None, 1)
    assert str(ENTRY_SIZE_BYTES_MAX + 1) in text


def test_bounds_on_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The asker refuses a request beyond the bytes that may wait, or the calls in flight, and keeps none of it."""
    stream = Stream()
    for _ in range(WAITING_SIZE_BYTES_MAX // ENTRY_SIZE_BYTES_MAX):
        stream.ask("a", ENTRY_SIZE_BYTES_MAX)
    with pytest.raises(CallsOverloaded, match="bytes that wait"):
        stream.ask("b", 1)
    monkeypatch.setattr(call_frames, "IN_FLIGHT_MAX", 3)
    stream = Stream()
    outgoing = [stream.ask(name) for name in ("a", "b", "c")]
    with pytest.raises(CallsOverloaded, match="calls in flight"):
        stream.ask("d")
    stream.asker.cancel(outgoing[0], NOW)
    stream.ask("d")
    stream.run(stream.echo)
    assert [ended.ticket for ended in stream.ended] == ["b", "c", "d"]
    for name in ("e", "f", "g"):
        stream.ask(name)


def test_replies_that_nobody_reads_are_bounded() -> None:
    """Replies beyond what may wait are refused, then new requests before they are carried out."""
    stream = Stream()
    count = WAITING_SIZE_BYTES_MAX // ENTRY_SIZE_BYTES_MAX + 2
    for number in range(count):
        stream.ask(f"{number}")
    stream.run()
    for asked in stream.asked:
        stream.answerer.reply(asked, b"x" * ENTRY_SIZE_BYTES_MAX)
    assert stream.answerer.waiting_bytes <= WAITING_SIZE_BYTES_MAX
    stream.asked.clear()
    stream.ask("late")
    stream.send_up()
    stream.arrive_up()
    assert stream.asked == []
    stream.run()
    refused = {ended.ticket: ended.code for ended in stream.ended if ended.payload is None}
    assert refused == {"4": 2, "5": 2, "late": 2}


class TestCancel:
    """Requests that nobody waits for any more."""

    def test_before_it_was_sent(self) -> None:
        """Nothing of it is sent, and nothing is left of it."""
        stream = Stream()
        outgoing = stream.ask("a", 10_000_000)
        stream.asker.cancel(outgoing, NOW)
        stream.asker.cancel(outgoing, NOW)
        assert stream.asker.frame(NOW) is None
        assert stream.asker.waiting_bytes == 0

    def test_while_it_is_answered(self) -> None:
        """The answerer is told; whatever it answers then, nobody hears of it."""
        stream = Stream()
        outgoing = stream.ask("a")
        stream.run()
        stream.asker.cancel(outgoing, NOW)
        stream.send_up()
        assert stream.arrive_up() == stream.asked
        stream.answerer.reply(stream.asked[0], b"late")
        stream.run()
        assert stream.ended == []
        assert list(stream.answerer.in_flight) == []

    def test_in_the_middle_of_its_pieces(self) -> None:
        """The rest is not sent, its credit is free again on both sides, and others go on."""
        stream = Stream()
        outgoing = stream.ask("a", ENTRY_SIZE_BYTES_MAX)
        stream.send_up()
        stream.arrive_up()
        stream.asker.cancel(outgoing, NOW)
        stream.run(stream.echo)
        for name in ("b", "c"):
            stream.ask(name, ENTRY_SIZE_BYTES_MAX)
        stream.run(stream.echo)
        assert [(ended.ticket, len(ended.payload or b"")) for ended in stream.ended] == [
            ("b", ENTRY_SIZE_BYTES_MAX),
            ("c", ENTRY_SIZE_BYTES_MAX),
        ]

    def test_while_its_reply_waits(self) -> None:
        """A reply that has not begun is not sent."""
        stream = Stream()
        outgoing = stream.ask("a")
        stream.run()
        stream.answerer.reply(stream.asked[0], b"x" * ENTRY_SIZE_BYTES_MAX)
        stream.asker.cancel(outgoing, NOW)
        stream.send_up()
        stream.arrive_up()
        assert stream.answerer.waiting_bytes == 0
        stream.send_down()
        assert [entry.kind for entry in stream.down[0].entries] == [ENTRY_REFUSAL]
        stream.run()
        assert stream.ended == []

    def test_after_its_reply_has_begun(self) -> None:
        """The rest of a reply under way still comes, unseen, and its credit goes back."""
        stream = Stream()
        outgoing = stream.ask("a")
        stream.run()
        stream.answerer.reply(stream.asked[0], b"x" * ENTRY_SIZE_BYTES_MAX)
        stream.send_down()
        stream.arrive_down()
        stream.asker.cancel(outgoing, NOW)
        stream.run()
        assert stream.ended == []
        assert stream.answerer.frame(NOW) is None

    def test_many_that_wait(self) -> None:
        """Cancelled requests that wait behind one without credit do not pile up."""
        stream = Stream()
        for name in ("a", "b", "c"):
            stream.ask(name, ENTRY_SIZE_BYTES_MAX)
        stream.run()
        for number in range(100_000):
            stream.asker.cancel(stream.ask(f"{number}"), NOW)
        assert len(stream.asker._waiting) < 10


class TestLateReplies:
    """Replies that come after their requests were cancelled."""

    def test_one_that_passes_its_cancellation(self) -> None:
        """It is given once, as late, to whom the canceller named; the cancellation that arrives then does no harm."""
        stream = Stream()
        outgoing = stream.ask("a")
        stream.run()
        stream.echo(stream.asked.pop())
        stream.send_down()
        stream.asker.cancel(outgoing, NOW, "heir")
        stream.asker.cancel(outgoing, NOW, "another")
        stream.run()
        assert stream.ended == [Ended("heir", b"a", 0, "", is_late=True)]

    def test_one_in_pieces(self) -> None:
        """A large one whose first pieces have come is given whole."""
        stream = Stream()
        outgoing = stream.ask("a")
        stream.run()
        stream.answerer.reply(stream.asked.pop(), b"x" * ENTRY_SIZE_BYTES_MAX)
        stream.send_down()
        stream.arrive_down()
        stream.asker.cancel(outgoing, NOW, "heir")
        stream.run()
        assert stream.ended == [Ended("heir", b"x" * ENTRY_SIZE_BYTES_MAX, 0, "", is_late=True)]

    @pytest.mark.parametrize("is_kept", [True, False])
    def test_one_that_waits_to_be_sent(self, is_kept: bool) -> None:
        """Only a kept reply is sent when its cancellation comes before that."""
        stream = Stream()
        outgoing = stream.ask("a")
        stream.run()
        stream.answerer.reply(stream.asked.pop(), b"x" * ENTRY_SIZE_BYTES_MAX, is_kept=is_kept)
        stream.asker.cancel(outgoing, NOW, "heir")
        stream.send_up()
        assert stream.arrive_up() == []
        stream.run()
        assert [(ended.ticket, ended.is_late) for ended in stream.ended] == ([("heir", True)] if is_kept else [])
        assert list(stream.answerer.in_flight) == []

    def test_refusals_are_none(self) -> None:
        """Nobody is told of a refusal, and nothing is remembered behind it."""
        stream = Stream()
        stream.ask("a")
        outgoing = stream.ask("b")
        stream.run()
        stream.asker.cancel(outgoing, NOW, "heir")
        stream.run(lambda asked: stream.answerer.refuse(asked, 1, ""))
        assert [ended.ticket for ended in stream.ended] == ["a"]
        assert len(stream.asker._late) == 0

    def test_what_was_not_asked_has_no_reply(self) -> None:
        """A request that did not leave, or not to its end, is not remembered."""
        stream = Stream()
        waiting, begun = stream.ask("a"), stream.ask("b", ENTRY_SIZE_BYTES_MAX)
        stream.asker.cancel(waiting, NOW, "heir")
        stream.send_up()
        stream.asker.cancel(begun, NOW, "heir")
        assert len(stream.asker._late) == 0
        stream.run(stream.echo)
        assert stream.ended == []

    @pytest.mark.parametrize(("after_s", "told"), [(LATE_S, ["heir"]), (LATE_S + 0.001, [])])
    def test_too_late(self, after_s: float, told: list[str]) -> None:
        """Behind the bound in time nobody is told any more."""
        stream = Stream()
        outgoing = stream.ask("a")
        stream.run()
        stream.echo(stream.asked.pop())
        stream.send_down()
        stream.asker.cancel(outgoing, NOW, "heir")
        stream.arrive_down(NOW + after_s)
        assert [ended.ticket for ended in stream.ended] == told

    def test_too_many(self) -> None:
        """Beyond the bound in number the oldest is forgotten, and what is too old makes room first."""
        stream = Stream()
        outgoing = [stream.ask(f"{number}") for number in range(LATE_MAX + 2)]
        stream.run()
        for number, one in enumerate(outgoing):
            stream.asker.cancel(one, NOW + number / 1e6, number)
        assert len(stream.asker._late) == LATE_MAX
        stream.run(lambda asked: stream.answerer.reply(asked, b"", is_kept=True))
        assert sorted(int(str(ended.ticket)) for ended in stream.ended) == list(range(2, LATE_MAX + 2))
        assert len(stream.asker._late) == 0

    def test_old_ones_go(self) -> None:
        """One that nobody wants any more is not remembered for longer than until the next."""
        stream = Stream()
        old, young = stream.ask("old"), stream.ask("young")
        stream.run()
        stream.asker.cancel(old, NOW, "heir")
        stream.asker.cancel(young, NOW + LATE_S + 1, "heir")
        assert len(stream.asker._late) == 1


def test_lost_streams_tell_what_was_sent() -> None:
    """What is in no frame was never sent; what is in one, even in part, was; what has ended or was cancelled is out."""
    stream = Stream()
    stream.ask("ended")
    stream.run(stream.echo)
    stream.ask("whole")
    stream.ask("in part", ENTRY_SIZE_BYTES_MAX)
    stream.asker.cancel(stream.ask("cancelled"), NOW)
    stream.send_up()
    stream.ask("waits")
    unsent, sent = stream.asker.lost()
    assert [outgoing.ticket for outgoing in unsent] == ["waits"]
    assert [outgoing.ticket for outgoing in sent] == ["whole", "in part"]


def request(number: int, payload: bytes = b"", *, total: int = 0) -> Entry:
    return Entry(id=number, kind=ENTRY_REQUEST, method=1, payload=payload, total_size_bytes=total)


def piece(number: int, payload: bytes) -> Entry:
    return Entry(id=number, kind=ENTRY_PIECE, payload=payload)


PIECE = b"x" * PIECE_SIZE_BYTES_MAX
WINDOW_OF_PIECES = [
    entry for number in range(1, WINDOW_SIZE_BYTES // PIECE_SIZE_BYTES_MAX + 1) for entry in [request(number, PIECE)]
]


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([request(2), request(2)], "id 2 after 2"),
        ([request(2), request(1)], "id 1 after 2"),
        ([request(0)], "id 0 after 0"),
        ([piece(1, b"x")], "has none to come"),
        ([request(1, b"x"), piece(1, b"x")], "has none to come"),
        ([request(1, b"x", total=3), piece(1, b"xyz")], "4 bytes of entry 1, which has 3"),
        ([request(1, b"x", total=3), piece(1, b"")], "a piece of 0 bytes"),
        ([request(1, b"x", total=9), piece(1, PIECE + b"x")], "a piece of 65537 bytes"),
        ([request(1, PIECE + b"x")], "a piece of 65537 bytes"),
        ([request(1, b"", total=3)], "first piece of 0 bytes of 3"),
        ([request(1, b"xyz", total=3)], "first piece of 3 bytes of 3"),
        ([request(1, b"x", total=ENTRY_SIZE_BYTES_MAX + 1)], "an entry of 16777217 bytes"),
        ([*WINDOW_OF_PIECES, request(10_000, b"x")], "credit for 0"),
        ([Entry(id=1, kind=ENTRY_CANCEL)], "never asked"),
        ([Entry(id=1, kind=ENTRY_REPLY)], "kind 2 from the asking side"),
        ([Entry(id=1, kind=ENTRY_KIND_UNSPECIFIED)], "kind 0 from the asking side"),
        ([Entry.FromString(b"\x08\x01\x10\x09")], "kind 9 from the asking side"),
        ([request(number) for number in range(1, 4_098)], "4097 entries in a frame"),
    ],
)
def test_askers_that_break_the_rules(entries: Sequence[Entry], what: str) -> None:
    """Each breach by an asker is told as what it is."""
    with pytest.raises(PeerViolation, match=what):
        Answerer().receive(Frame(entries=entries), NOW)


def test_floods_of_requests() -> None:
    """An asker that asks on and on without waiting for replies breaks the rules at the bound, not later."""
    answerer = Answerer()
    for start in range(1, 16_384, 4_096):
        answerer.receive(Frame(entries=[request(number) for number in range(start, start + 4_096)]), NOW)
    with pytest.raises(PeerViolation, match="more than 16384 requests"):
        answerer.receive(Frame(entries=[request(16_385)]), NOW)


def reply(number: int, payload: bytes = b"", *, total: int = 0) -> Entry:
    return Entry(id=number, kind=ENTRY_REPLY, payload=payload, total_size_bytes=total)


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([reply(3)], "answer to 3, which is not asked"),
        ([reply(1), reply(1)], "answer to 1, which is not asked"),
        ([Entry(id=3, kind=ENTRY_REFUSAL)], "answer to 3, which is not asked"),
        ([reply(1, b"x", total=3), reply(1)], "answer to 1"),
        ([reply(1, b"x", total=3), Entry(id=1, kind=ENTRY_REFUSAL)], "answer to 1"),
        ([reply(2)], "answer to 2 before all of it was sent"),
        ([piece(1, b"x")], "has none to come"),
        ([reply(1, b"x", total=3), piece(1, b"xyz")], "4 bytes of entry 1, which has 3"),
        ([reply(1, b"x", total=ENTRY_SIZE_BYTES_MAX + 1)], "an entry of 16777217 bytes"),
        ([Entry(id=1, kind=ENTRY_CANCEL)], "kind 4 from the answering side"),
        ([request(1)], "kind 1 from the answering side"),
        ([Entry(id=1, kind=ENTRY_REFUSAL)] * 4_097, "4097 entries in a frame"),
    ],
)
def test_answerers_that_break_the_rules(entries: Sequence[Entry], what: str) -> None:
    """Each breach by an answerer is told as what it is."""
    asker = Asker("broker-a:10921")
    asker.ask("a", METHOD, b"", LATER)
    asker.ask("b", METHOD, b"x" * 1_000_000, LATER)
    asker.frame(NOW)
    with pytest.raises(PeerViolation, match=what):
        asker.receive(Frame(entries=entries), NOW)


def test_too_much_credit() -> None:
    """Credit beyond the window is a breach on either side."""
    with pytest.raises(PeerViolation, match="window"):
        Asker("broker-a:10921").receive(Frame(credit_bytes=1), NOW)
    with pytest.raises(PeerViolation, match="window"):
        Answerer().receive(Frame(credit_bytes=1), NOW)


def test_cancelling_what_was_answered_meanwhile_is_no_breach() -> None:
    """A reply and a cancellation that pass each other on the way harm nothing."""
    stream = Stream()
    outgoing = stream.ask("a")
    stream.run()
    stream.echo(stream.asked.pop())
    stream.send_down()
    stream.asker.cancel(outgoing, NOW)
    stream.send_up()
    assert stream.arrive_up() == []
    stream.arrive_down()
    assert stream.ended == []


# Any interleaving against a dumb twin, with bounds so small that they are met all the time.

SMALL_WINDOW = 40_000
SIZES = st.sampled_from([0, 1, 100, 900, 1_000, 1_001, 5_000, 12_000, 16_000])
NUMBERS = st.integers(0, 30)
Step: TypeAlias = tuple[str, int, int]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "ask",
                "ask",
                "ask",
                "cancel",
                "cancel but want it",
                "reply",
                "reply",
                "refuse",
                "send_up",
                "send_down",
                "arrive_up",
                "arrive_down",
            ]
        ),
        NUMBERS,
        SIZES,
    ),
    max_size=120,
)


@contextmanager
def small_bounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(call_frames, "WINDOW_SIZE_BYTES", SMALL_WINDOW)
        patch.setattr(call_frames, "ENTRY_SIZE_BYTES_MAX", 16_000)
        patch.setattr(call_frames, "CREDIT_SIZE_BYTES_MIN", 20_000)
        patch.setattr(call_frames, "PIECE_SIZE_BYTES_MAX", 1_000)
        patch.setattr(call_frames, "FRAME_SIZE_BYTES_MAX", 12_000)
        yield


def is_even(name: str) -> bool:
    return int(name.strip("<>")) % 2 == 0


class Twin:
    """Runs steps on a stream, and keeps account by name of what was asked, cancelled, and answered with what.

    Replies whose name is even are kept ones. `wanted_late` is by name: whether all of the request had left.
    """

    def __init__(self) -> None:
        self.stream = Stream()
        self.waited_for: dict[str, Outgoing] = {}
        self.wanted_late: dict[str, bool] = {}
        self.answers: dict[str, bytes | None] = {}
        self.count = 0
        self.given_up: list[Asked] = []

    def step(self, what: str, number: int, size_bytes: int) -> None:
        stream = self.stream
        if what == "ask":
            self.count += 1
            name = f"<{self.count}>"
            self.waited_for[name] = stream.ask(name, max(size_bytes, len(name)))
        elif what == "cancel" and self.waited_for:
            stream.asker.cancel(self.give_up(number)[1], NOW)
        elif what == "cancel but want it" and self.waited_for:
            name, outgoing = self.give_up(number)
            self.wanted_late[name] = outgoing.is_sent
            stream.asker.cancel(outgoing, NOW, name)
        elif what in ("reply", "refuse") and stream.asked:
            self.answer(stream.asked.pop(number % len(stream.asked)), None if what == "refuse" else size_bytes)
        elif what in ("send_up", "send_down"):
            getattr(stream, what)()
        elif what == "arrive_up":
            self.given_up += stream.arrive_up()
        elif what == "arrive_down":
            stream.arrive_down()
            self.check_ended()

    def give_up(self, number: int) -> tuple[str, Outgoing]:
        name = sorted(self.waited_for)[number % len(self.waited_for)]
        return name, self.waited_for.pop(name)

    def answer(self, asked: Asked, size_bytes: int | None) -> None:
        name = asked.payload[: asked.payload.index(b">") + 1].decode()
        if size_bytes is None:
            self.answers[name] = None
            self.stream.answerer.refuse(asked, 1, name)
        else:
            self.answers[name] = name.encode().ljust(size_bytes, b"y")
            self.stream.answerer.reply(asked, self.answers[name] or b"", is_kept=is_even(name))

    def check_ended(self) -> None:
        for ended in self.stream.ended:
            assert isinstance(ended.ticket, str)
            if ended.is_late:
                assert self.wanted_late.pop(ended.ticket)
                assert ended.payload is not None
            else:
                assert self.waited_for.pop(ended.ticket)
            assert ended.payload == self.answers[ended.ticket]
            assert ended.text == ("" if ended.payload is not None else ended.ticket)
        self.stream.ended.clear()

    def missing(self) -> list[str]:
        """The kept replies that were wanted late and never came."""
        return [
            name
            for name, was_sent in self.wanted_late.items()
            if was_sent and is_even(name) and self.answers.get(name) is not None
        ]

    def finish(self) -> None:
        self.stream.run(lambda asked: self.answer(asked, 5))
        self.check_ended()


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_any_interleaving(steps: list[Step]) -> None:
    """Whatever the order of steps: all that is waited for ends once, with its own answer; each kept reply that is
    wanted late comes, once; and nothing stays behind.
    """
    with small_bounds():
        twin = Twin()
        for step in steps:
            twin.step(*step)
        twin.finish()
        assert twin.waited_for == {}
        assert twin.missing() == []
        assert len(twin.stream.asker._late) == 0
        for sender, receiver in (
            (twin.stream.asker, twin.stream.answerer),
            (twin.stream.answerer, twin.stream.asker),
        ):
            assert sender.waiting_bytes == 0
            assert not sender._waiting
            assert not sender._in_flight
            assert not receiver.inbox.arriving
            assert sender._credit_bytes + receiver.inbox._owed_bytes == SMALL_WINDOW
            assert sender._credit_bytes == receiver.inbox._left_bytes


def split(number: int, payload: bytes, cuts: list[int], kind: EntryKind) -> list[Entry]:
    """Entries that carry a payload in pieces, cut anywhere."""
    at = sorted({cut % len(payload) for cut in cuts} - {0}) if payload else []
    pieces = [payload[start:end] for start, end in zip([0, *at], [*at, len(payload)], strict=True)]
    total = len(payload) if at else 0
    first = Entry(id=number, kind=kind, method=METHOD, payload=pieces[0], total_size_bytes=total)
    return [first, *(piece(number, rest) for rest in pieces[1:])]


CUTS = st.lists(st.integers(0, 100_000), max_size=6)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3_000), CUTS), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, 40), max_size=10),
)
def test_any_split_into_pieces_and_frames(
    payloads: list[tuple[int, list[int]]], lots: random.Random, ends: list[int]
) -> None:
    """However a peer cuts payloads into pieces, mixes them and cuts the row into frames: each comes out as it was."""
    sent = [bytes([number]) * size for number, (size, _) in enumerate(payloads, 1)]
    rows: list[list[Entry]] = [[], []]
    for row, kind in zip(rows, (ENTRY_REQUEST, ENTRY_REPLY), strict=True):
        waiting = [split(number, sent[number - 1], cuts, kind) for number, (_, cuts) in enumerate(payloads, 1)]
        begun = 0
        while any(waiting):
            # Requests begin in the order of their ids; whatever has begun may come next.
            open_ones = [index for index, entries in enumerate(waiting) if entries and index <= begun]
            index = lots.choice(open_ones)
            begun = max(begun, index + 1)
            row.append(waiting[index].pop(0))
    asker, answerer = Asker("broker-a:10921"), Answerer()
    for number in range(len(sent)):
        asker.ask(number, METHOD, b"", LATER)
    asker.frame(NOW)
    got_requests: dict[int, bytes] = {}
    got_replies: dict[object, bytes | None] = {}
    for row in rows:
        at = sorted({0, *(end for end in ends if end < len(row)), len(row)})
        for start, end in itertools.pairwise(at):
            frame = Frame(entries=row[start:end])
            if row is rows[0]:
                got_requests.update((asked.id, asked.payload) for asked in answerer.receive(frame, NOW)[0])
            else:
                got_replies.update((ended.ticket, ended.payload) for ended in asker.receive(frame, NOW))
    assert got_requests == dict(enumerate(sent, 1))
    assert got_replies == dict(enumerate(sent))


ENTRIES = st.builds(
    Entry,
    id=st.integers(0, 6),
    kind=st.integers(0, 6),
    method=st.integers(0, 3),
    payload=st.sampled_from([b"", b"x", b"x" * 999, b"x" * 1_001]),
    total_size_bytes=st.sampled_from([0, 0, 1, 2, 3, 1_000, 16_001]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.builds(Frame, entries=st.lists(ENTRIES, max_size=5), credit_bytes=st.sampled_from([0, 0, 0, 1]))))
def test_any_frame_is_taken_or_a_violation(frames: list[Frame]) -> None:
    """No frame makes either side fail in any other way."""
    with small_bounds():
        asker, answerer = Asker("broker-a:10921"), Answerer()
        asker.ask("a", METHOD, b"", LATER)
        asker.cancel(asker.ask("b", METHOD, b"x" * 5_000, LATER), NOW)
        asker.ask("c", METHOD, b"x" * 5_000, LATER)
        asker.frame(NOW)
        for frame in frames:
            try:
                asker.receive(frame, NOW)
            except PeerViolation:
                break
        for frame in frames:
            try:
                for asked in answerer.receive(frame, NOW)[0]:
                    answerer.reply(asked, b"")
                answerer.frame(NOW)
            except PeerViolation:
                break
