"""Calls in frames, without I/O: what each side of a stream puts into its next frame and makes of what it gets.

An entry's life, as the asking side sees it:

    state      what has happened                    ends by
    WAITING    ask() took it                        credit for all of it: SENDING; cancel(): gone, nothing was sent
    SENDING    its first piece is in a frame        its last piece: ASKED; cancel(): ABANDONED
    ASKED      the whole request is in frames       REPLY or REFUSAL: gone; cancel(): ABANDONED
    ABANDONED  CANCEL is in a frame, or about to    REPLY: gone, told as a late one where it is still wanted;
                                                    REFUSAL: gone, nobody is told

and as the answering side sees it:

    state      what has happened                    ends by
    ARRIVING   the first of several pieces came     its last piece: ANSWERING; CANCEL: REFUSAL
    ANSWERING  receive() handed it out              reply(), refuse(): REPLYING; CANCEL is told to who answers
    REPLYING   the reply waits for room or credit   its last piece is in a frame: gone; CANCEL before the first:
                                                    REFUSAL, but for a kept one, which goes on

Every request whose first piece was sent ends with exactly one REPLY or REFUSAL, also a cancelled one: so both sides
agree on what is in flight, and an id that is not is a violation by the peer.

Credits: each direction starts with WINDOW_SIZE_BYTES. An entry begins only when there is credit for its whole payload,
and those behind it wait with it, so that a large one is never passed for ever. The receiver gives the bytes back when
it is done with the payload; less than CREDIT_SIZE_BYTES_MIN waits for a frame that goes anyway. As
WINDOW_SIZE_BYTES - CREDIT_SIZE_BYTES_MIN ≥ ENTRY_SIZE_BYTES_MAX, the largest entry always gets its turn.

In a frame: first what has no payload, then one piece of a large entry, then small entries as they came, then pieces of
the large ones in turn. So neither kind holds the other up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, cast

from apogeemq.mesh.calls import SYSTEM_BUSY, SYSTEM_ERROR
from apogeemq.mesh.errors import CallsOverloaded, MessageTooLarge
from apogeemq.mesh.late_replies import LateReplies
from apogeemq.mesh.network import MESSAGE_SIZE_BYTES_MAX
from apogeemq.mesh.v1.calls_pb2 import (
    ENTRY_CANCEL,
    ENTRY_PIECE,
    ENTRY_REFUSAL,
    ENTRY_REPLY,
    ENTRY_REQUEST,
    Entry,
    Frame,
)

FRAME_SIZE_BYTES_MAX = 256 * 1024
"""Largest frame, encoded."""

PIECE_SIZE_BYTES_MAX = 64 * 1024
"""Largest payload that one entry of a frame carries; a larger one comes in several."""

ENTRY_SIZE_BYTES_MAX = MESSAGE_SIZE_BYTES_MAX
"""Largest request or reply, encoded."""

WINDOW_SIZE_BYTES = 32 * 1024 * 1024
"""Payload bytes that each side may have sent without having got credit back: what a stream may cost its receiver."""

CREDIT_SIZE_BYTES_MIN = 4 * 1024 * 1024
"""Credit that is worth a frame of its own."""

IN_FLIGHT_MAX = 16_384
"""Requests on one stream that have no reply yet; polls wait there for their messages."""

WAITING_SIZE_BYTES_MAX = 64 * 1024 * 1024
"""Payload bytes that wait on one side to be put into frames."""

TEXT_LENGTH_MAX = 1000
"""Characters of a refusal's text; the rest is cut off."""

TRACESTATE_LENGTH_MAX = 512
"""A longer tracestate is left out, as W3C Trace Context allows."""

_ENTRY_OVERHEAD_BYTES = 64
# Upper bound of what an entry's numbers, tags and lengths take beside its payload and texts.

ENTRIES_PER_FRAME_MAX = FRAME_SIZE_BYTES_MAX // _ENTRY_OVERHEAD_BYTES
"""More than that no frame of ours can have, as each entry is counted with its overhead."""

_TIMEOUT_MS_MAX = 0xFFFF_FFFF
_CODE_MAX = 0xFFFF_FFFF
# What the fields of an entry can say.


_ROOM_BYTES_MIN = 8 * 1024
# With less room than this left, a frame takes no further piece of a large entry, and no further notice.


class PeerViolation(Exception):  # noqa: N818 — a fact about the peer, like those in `errors`
    """The peer broke the rules of this module; the stream can't go on."""


class Outgoing:
    """A payload on its way out, and the handle that ask() gives. `ticket` is the shell's own, None once abandoned."""

    __slots__ = (
        "deadline",
        "id",
        "is_dropped",
        "is_sent",
        "method",
        "offset",
        "payload",
        "ticket",
        "traceparent",
        "tracestate",
    )

    def __init__(
        self,
        payload: bytes,
        ticket: object = None,
        id: int = 0,  # noqa: A002 — as the proto field
        method: int = 0,
        deadline: float = 0.0,
        traceparent: str = "",
        tracestate: str = "",
    ) -> None:
        self.payload = payload
        self.ticket = ticket
        self.id = id
        self.method = method
        self.deadline = deadline
        self.traceparent = traceparent
        self.tracestate = tracestate
        self.offset = 0
        self.is_sent = False
        self.is_dropped = False

    def set_sent(self) -> None:
        """All of it is in frames."""
        self.is_sent = True
        self.payload = b""


class _Outbox(ABC):
    """The sending half: what waits, what is under way in pieces, and the credit for more."""

    def __init__(self) -> None:
        self.waiting_bytes = 0
        self._credit_bytes = WINDOW_SIZE_BYTES
        self._notices: deque[tuple[int, int, int, str]] = deque()
        self._waiting: deque[Outgoing] = deque()
        self._waiting_dropped = 0
        self._in_pieces: deque[Outgoing] = deque()

    @abstractmethod
    def _begin(self, frame: Frame, outgoing: Outgoing, payload: bytes, now: float) -> Entry:
        """Add the entry that opens `outgoing` to a frame."""

    @abstractmethod
    def _end(self, outgoing: Outgoing) -> None:
        """Hear that the last of it is in a frame."""

    def notify(self, id: int, kind: int, code: int = 0, text: str = "") -> None:  # noqa: A002
        """Send an entry without payload, before all others. What can't travel in a text becomes "?"."""
        self._notices.append((id, kind, code, text[:TEXT_LENGTH_MAX].encode(errors="replace").decode()))

    def put(self, outgoing: Outgoing) -> None:
        """Send a payload when its turn comes."""
        self.waiting_bytes += len(outgoing.payload)
        self._waiting.append(outgoing)

    def drop(self, outgoing: Outgoing) -> None:
        """Send no more of it; nothing happens when all was sent. Credit for what was not sent is free again."""
        if outgoing.is_sent or outgoing.is_dropped:
            return
        left = len(outgoing.payload) - outgoing.offset
        self.waiting_bytes -= left
        outgoing.is_dropped = True
        outgoing.payload = b""
        if outgoing in self._in_pieces:
            self._in_pieces.remove(outgoing)
            self._credit_bytes += left
            return
        self._waiting_dropped += 1
        if 2 * self._waiting_dropped > len(self._waiting):
            self._waiting = deque(waiting for waiting in self._waiting if not waiting.is_dropped)
            self._waiting_dropped = 0

    def grant(self, credit_bytes: int) -> None:
        """Take the peer's credit."""
        self._credit_bytes += credit_bytes
        if self._credit_bytes > WINDOW_SIZE_BYTES:
            raise PeerViolation(f"credit for {self._credit_bytes} bytes, where the window has {WINDOW_SIZE_BYTES}")

    def fill(self, frame: Frame, now: float) -> None:
        """Put into a frame what fits."""
        room = FRAME_SIZE_BYTES_MAX - _ENTRY_OVERHEAD_BYTES
        while self._notices and room >= _ROOM_BYTES_MIN:
            number, kind, code, text = self._notices.popleft()
            frame.entries.add(id=number, kind=kind, code=code, text=text)
            room -= _ENTRY_OVERHEAD_BYTES + 4 * len(text)
        if self._in_pieces:
            room = self._fill_piece(frame, room, now)
        room = self._fill_waiting(frame, room, now)
        while self._in_pieces and room >= _ROOM_BYTES_MIN:
            room = self._fill_piece(frame, room, now)

    def _fill_waiting(self, frame: Frame, room: int, now: float) -> int:
        """Put in small payloads as they came, and let large ones begin their turns."""
        waiting = self._waiting
        while waiting:
            outgoing = waiting[0]
            size = len(outgoing.payload)
            if outgoing.is_dropped:
                self._waiting_dropped -= 1
            elif size > self._credit_bytes:
                break
            elif size > PIECE_SIZE_BYTES_MAX:
                self._in_pieces.append(outgoing)
                self._credit_bytes -= size
            else:
                cost = size + _ENTRY_OVERHEAD_BYTES + len(outgoing.traceparent) + len(outgoing.tracestate)
                if cost > room:
                    break
                room -= cost
                self._begin(frame, outgoing, outgoing.payload, now)
                outgoing.set_sent()
                self._credit_bytes -= size
                self.waiting_bytes -= size
                self._end(outgoing)
            waiting.popleft()
        return room

    def _fill_piece(self, frame: Frame, room: int, now: float) -> int:
        """Put in the next piece of the large payload whose turn it is, and move the turn on."""
        outgoing = self._in_pieces.popleft()
        start, total = outgoing.offset, len(outgoing.payload)
        overhead = _ENTRY_OVERHEAD_BYTES + len(outgoing.traceparent) + len(outgoing.tracestate)
        size = min(PIECE_SIZE_BYTES_MAX, total - start, room - overhead)
        piece = outgoing.payload[start : start + size]
        if start == 0:
            self._begin(frame, outgoing, piece, now).total_size_bytes = total
        else:
            frame.entries.add(id=outgoing.id, kind=ENTRY_PIECE, payload=piece)
        outgoing.offset = start + size
        self.waiting_bytes -= size
        if outgoing.offset == total:
            outgoing.set_sent()
            self._end(outgoing)
        else:
            self._in_pieces.append(outgoing)
        return room - size - overhead


class _Arriving:
    """A payload of which pieces are still to come. `head` is what the side keeps of its first entry."""

    __slots__ = ("got_bytes", "head", "pieces", "total_bytes")

    def __init__(self, head: object, total_bytes: int, first: bytes) -> None:
        self.head = head
        self.total_bytes = total_bytes
        self.pieces = [first]
        self.got_bytes = len(first)


class _Inbox:
    """The receiving half: what the peer may still send, what it has begun, and the credit to give back."""

    def __init__(self) -> None:
        self.arriving: dict[int, _Arriving] = {}
        self._left_bytes = WINDOW_SIZE_BYTES
        self._owed_bytes = 0

    def open(self, entry: Entry, payload: bytes) -> int:
        """Take credit off for an entry that begins; gives the size of its whole payload."""
        total = entry.total_size_bytes
        size = total or len(payload)
        if len(payload) > PIECE_SIZE_BYTES_MAX:
            raise PeerViolation(f"a piece of {len(payload)} bytes, the bound is {PIECE_SIZE_BYTES_MAX}")
        if size > ENTRY_SIZE_BYTES_MAX:
            raise PeerViolation(f"an entry of {size} bytes, the bound is {ENTRY_SIZE_BYTES_MAX}")
        if total and not 0 < len(payload) < total:
            raise PeerViolation(f"a first piece of {len(payload)} bytes of {total}")
        if size > self._left_bytes:
            raise PeerViolation(f"an entry of {size} bytes, where there is credit for {self._left_bytes}")
        self._left_bytes -= size
        return size

    def add_piece(self, entry: Entry) -> tuple[object, bytes] | None:
        """Take the next piece; gives the head and the whole payload with the last one."""
        arriving = self.arriving.get(entry.id)
        if arriving is None:
            raise PeerViolation(f"a piece of entry {entry.id}, which has none to come")
        piece = entry.payload
        if not 0 < len(piece) <= PIECE_SIZE_BYTES_MAX:
            raise PeerViolation(f"a piece of {len(piece)} bytes, the bounds are 1 and {PIECE_SIZE_BYTES_MAX}")
        arriving.pieces.append(piece)
        arriving.got_bytes += len(piece)
        if arriving.got_bytes < arriving.total_bytes:
            return None
        if arriving.got_bytes > arriving.total_bytes:
            raise PeerViolation(f"{arriving.got_bytes} bytes of entry {entry.id}, which has {arriving.total_bytes}")
        del self.arriving[entry.id]
        return arriving.head, b"".join(arriving.pieces)

    def give_up(self, arriving: _Arriving) -> None:
        """Expect no more of a payload: what did not come costs no credit."""
        self._left_bytes += arriving.total_bytes - arriving.got_bytes
        self.release(arriving.got_bytes)

    def release(self, size_bytes: int) -> None:
        """Be done with that many bytes of payload."""
        self._owed_bytes += size_bytes

    @property
    def has_due_credit(self) -> bool:
        """Whether there is credit worth a frame of its own."""
        return self._owed_bytes >= CREDIT_SIZE_BYTES_MIN

    def take_credit(self) -> int:
        """Give the peer what it has coming."""
        owed, self._owed_bytes = self._owed_bytes, 0
        self._left_bytes += owed
        return owed


class _Side(_Outbox):
    """What asker and answerer have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox = _Inbox()

    @property
    def has_work(self) -> bool:
        """Whether frame() may have something to send."""
        return bool(self._notices or self._waiting or self._in_pieces or self.inbox.has_due_credit)

    def frame(self, now: float) -> Frame | None:
        """Make the next frame to send, None when there is nothing. `now` is the clock's monotonic time."""
        if not self.has_work:
            return None
        frame = Frame()
        self.fill(frame, now)
        if not frame.entries and not self.inbox.has_due_credit:
            return None
        credit_bytes = self.inbox.take_credit()
        if credit_bytes:
            frame.credit_bytes = credit_bytes
        return frame

    def _open_frame(self, frame: Frame) -> None:
        """Check what all frames have in common, and take the credit."""
        if len(frame.entries) > ENTRIES_PER_FRAME_MAX:
            raise PeerViolation(f"{len(frame.entries)} entries in a frame, the bound is {ENTRIES_PER_FRAME_MAX}")
        if frame.credit_bytes:
            self.grant(frame.credit_bytes)


class Ended(NamedTuple):
    """How a request ended: with a reply, or with a refusal where `payload` is None.

    `is_late`: with a reply after it was cancelled; `ticket` is what cancel() was given.
    """

    ticket: object
    payload: bytes | None
    code: int
    text: str
    is_late: bool = False


class Asker(_Side):
    """The side that asks. `target` is for errors."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target
        self._last_id = 0
        self._waiting_count = 0
        self._in_flight: dict[int, Outgoing] = {}
        self._late: LateReplies[int, object] = LateReplies()

    def ask(
        self, ticket: object, method: int, payload: bytes, deadline: float, traceparent: str = "", tracestate: str = ""
    ) -> Outgoing:
        """Put a request in line. Raises MessageTooLarge and CallsOverloaded, and then takes nothing."""
        if len(payload) > ENTRY_SIZE_BYTES_MAX:
            raise MessageTooLarge(f"call {method} to {self._target}", len(payload), ENTRY_SIZE_BYTES_MAX)
        if self._waiting_count + len(self._in_flight) >= IN_FLIGHT_MAX:
            raise CallsOverloaded(self._target, "calls in flight", IN_FLIGHT_MAX)
        if self.waiting_bytes + len(payload) > WAITING_SIZE_BYTES_MAX:
            raise CallsOverloaded(self._target, "bytes that wait to be sent", WAITING_SIZE_BYTES_MAX)
        if len(tracestate) > TRACESTATE_LENGTH_MAX:
            tracestate = ""
        outgoing = Outgoing(payload, ticket, 0, method, deadline, traceparent, tracestate)
        self._waiting_count += 1
        self.put(outgoing)
        return outgoing

    def cancel(self, outgoing: Outgoing, now: float, late_ticket: object = None) -> None:
        """Wait for its reply no more. Harmless when it has ended.

        With a `late_ticket`, a reply that comes all the same, soon enough, is given under that by receive().
        """
        if outgoing.ticket is None:
            return
        outgoing.ticket = None
        if outgoing.id == 0:
            self._waiting_count -= 1
            self.drop(outgoing)
        elif outgoing.id in self._in_flight:
            if outgoing.is_sent and late_ticket is not None:
                self._late.keep(outgoing.id, late_ticket, now)
            self.drop(outgoing)
            self.notify(outgoing.id, ENTRY_CANCEL)

    def receive(self, frame: Frame, now: float) -> list[Ended]:
        """Take a frame from the answerer; gives what ended by it. Raises PeerViolation."""
        self._open_frame(frame)
        ended: list[Ended] = []
        for entry in frame.entries:
            kind = entry.kind
            if kind == ENTRY_REPLY:
                self._begin_reply(entry, now, ended)
            elif kind == ENTRY_PIECE:
                whole = self.inbox.add_piece(entry)
                if whole is not None:
                    self._end_reply(self._in_flight.pop(entry.id), whole[1], now, ended)
            elif kind == ENTRY_REFUSAL:
                asked = self._answered(entry)
                if asked.ticket is not None:
                    ended.append(Ended(asked.ticket, None, entry.code, entry.text))
                else:
                    self._late.forget(asked.id)
            else:
                raise PeerViolation(f"an entry of kind {kind} from the answering side")
        return ended

    def lost(self) -> tuple[list[Outgoing], list[Outgoing]]:
        """Give the requests that were waited for when the stream was lost: never sent, and sent at least in part."""
        unsent = [item for item in (*self._in_pieces, *self._waiting) if item.id == 0 and item.ticket is not None]
        return unsent, [item for item in self._in_flight.values() if item.ticket is not None]

    def _begin(self, frame: Frame, outgoing: Outgoing, payload: bytes, now: float) -> Entry:
        """Give it its id: ids grow in the order in which requests leave."""
        self._last_id += 1
        outgoing.id = self._last_id
        self._waiting_count -= 1
        self._in_flight[outgoing.id] = outgoing
        timeout_ms = min(max(int((outgoing.deadline - now) * 1000), 1), _TIMEOUT_MS_MAX)
        entry = frame.entries.add(
            id=outgoing.id, kind=ENTRY_REQUEST, method=outgoing.method, timeout_ms=timeout_ms, payload=payload
        )
        if outgoing.traceparent:
            entry.traceparent = outgoing.traceparent
            entry.tracestate = outgoing.tracestate
        return entry

    def _end(self, outgoing: Outgoing) -> None:
        """Keep it in flight: its reply is still to come."""

    def _begin_reply(self, entry: Entry, now: float, ended: list[Ended]) -> None:
        payload = entry.payload
        size = self.inbox.open(entry, payload)
        if size == len(payload):
            self._end_reply(self._answered(entry), payload, now, ended)
            return
        asked = self._answered(entry)
        self._in_flight[entry.id] = asked
        self.inbox.arriving[entry.id] = _Arriving(None, size, payload)

    def _answered(self, entry: Entry) -> Outgoing:
        """Give the request that an entry answers, which is no longer in flight."""
        asked = self._in_flight.pop(entry.id, None)
        if asked is None or entry.id in self.inbox.arriving:
            raise PeerViolation(f"an answer to {entry.id}, which is not asked")
        if not (asked.is_sent or asked.is_dropped):
            raise PeerViolation(f"an answer to {entry.id} before all of it was sent")
        return asked

    def _end_reply(self, asked: Outgoing, payload: bytes, now: float, ended: list[Ended]) -> None:
        self.inbox.release(len(payload))
        if asked.ticket is not None:
            ended.append(Ended(asked.ticket, payload, 0, ""))
        elif (late_ticket := self._late.take(asked.id, now)) is not None:
            ended.append(Ended(late_ticket, payload, 0, "", is_late=True))


class Asked:
    """A request to be answered. `deadline` is of the answering side's clock; `ticket` is the shell's own."""

    __slots__ = (
        "deadline",
        "id",
        "is_answered",
        "is_kept",
        "method",
        "payload",
        "reply",
        "size_bytes",
        "ticket",
        "traceparent",
        "tracestate",
    )

    def __init__(self, entry: Entry, size_bytes: int, now: float) -> None:
        self.id = entry.id
        self.method = entry.method
        self.deadline = now + entry.timeout_ms / 1000
        self.traceparent = entry.traceparent
        self.tracestate = entry.tracestate
        self.size_bytes = size_bytes
        self.payload = b""
        self.is_answered = False
        self.is_kept = False
        self.reply: Outgoing | None = None
        self.ticket: object = None


class Answerer(_Side):
    """The side that answers."""

    def __init__(self) -> None:
        super().__init__()
        self._last_id = 0
        self._in_flight: dict[int, Asked] = {}

    @property
    def in_flight(self) -> Iterable[Asked]:
        """The requests that have not been answered to the last byte."""
        return self._in_flight.values()

    def receive(self, frame: Frame, now: float) -> tuple[list[Asked], list[Asked]]:
        """Take a frame from the asker; gives what is to be answered, and what nobody waits for any more.

        Both end with reply() or refuse(), whatever comes of them. Raises PeerViolation.
        """
        self._open_frame(frame)
        asked: list[Asked] = []
        cancelled: list[Asked] = []
        for entry in frame.entries:
            kind = entry.kind
            if kind == ENTRY_REQUEST:
                self._begin_request(entry, now, asked)
            elif kind == ENTRY_PIECE:
                whole = self.inbox.add_piece(entry)
                if whole is not None:
                    self._end_request(cast("Asked", whole[0]), whole[1], asked)
            elif kind == ENTRY_CANCEL:
                self._cancel(entry.id, cancelled)
            else:
                raise PeerViolation(f"an entry of kind {kind} from the asking side")
        return asked, cancelled

    def reply(self, asked: Asked, payload: bytes, *, is_kept: bool = False) -> None:
        """Answer a request; refuses it instead when the reply is too large, or too many bytes wait already.

        A kept reply is sent also when the request is cancelled before it is on its way.
        """
        if len(payload) > ENTRY_SIZE_BYTES_MAX:
            text = f"the reply has {len(payload)} bytes, the bound is {ENTRY_SIZE_BYTES_MAX}; ask for less at a time"
            self.refuse(asked, SYSTEM_ERROR, text)
        elif self.waiting_bytes + len(payload) > WAITING_SIZE_BYTES_MAX:
            self.refuse(asked, SYSTEM_BUSY, "carried out, but the reply was dropped: this caller reads too slowly")
        else:
            self._answer(asked)
            asked.is_kept = is_kept
            asked.reply = Outgoing(payload, asked, asked.id)
            self.put(asked.reply)

    def refuse(self, asked: Asked, code: int, text: str) -> None:
        """Refuse a request. A code that is none becomes SYSTEM_ERROR."""
        self._answer(asked)
        del self._in_flight[asked.id]
        self.notify(asked.id, ENTRY_REFUSAL, code if 0 <= code <= _CODE_MAX else SYSTEM_ERROR, text)

    def _begin(self, frame: Frame, outgoing: Outgoing, payload: bytes, now: float) -> Entry:
        return frame.entries.add(id=outgoing.id, kind=ENTRY_REPLY, payload=payload)

    def _end(self, outgoing: Outgoing) -> None:
        del self._in_flight[outgoing.id]

    def _begin_request(self, entry: Entry, now: float, asked: list[Asked]) -> None:
        number = entry.id
        if number <= self._last_id:
            raise PeerViolation(f"a request with id {number} after {self._last_id}")
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            raise PeerViolation(f"more than {IN_FLIGHT_MAX} requests in flight")
        self._last_id = number
        payload = entry.payload
        size = self.inbox.open(entry, payload)
        self._in_flight[number] = request = Asked(entry, size, now)
        if size == len(payload):
            self._end_request(request, payload, asked)
        else:
            self.inbox.arriving[number] = _Arriving(request, size, payload)

    def _end_request(self, request: Asked, payload: bytes, asked: list[Asked]) -> None:
        if self.waiting_bytes > WAITING_SIZE_BYTES_MAX // 2:
            self.refuse(request, SYSTEM_BUSY, "not carried out: too many replies wait; this caller reads too slowly")
        else:
            request.payload = payload
            asked.append(request)

    def _cancel(self, number: int, cancelled: list[Asked]) -> None:
        if number > self._last_id:
            raise PeerViolation(f"entry {number} is cancelled, which was never asked")
        request = self._in_flight.get(number)
        if request is None:
            return  # answered meanwhile
        arriving = self.inbox.arriving.pop(number, None)
        if arriving is not None:
            self.inbox.give_up(arriving)
            request.size_bytes = 0
            self.refuse(request, SYSTEM_BUSY, "cancelled before all of it came")
        elif not request.is_answered:
            cancelled.append(request)
        elif request.is_kept:
            return
        elif request.reply is not None and not request.reply.is_sent and request.reply.offset == 0:
            self.drop(request.reply)
            del self._in_flight[number]
            self.notify(number, ENTRY_REFUSAL, SYSTEM_BUSY, "cancelled before the reply was sent")

    def _answer(self, asked: Asked) -> None:
        if asked.is_answered:
            raise ValueError(f"request {asked.id} is answered already")
        asked.is_answered = True
        asked.payload = b""
        self.inbox.release(asked.size_bytes)
