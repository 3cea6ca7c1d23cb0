"""The link to the controllers: a stream to each of two of them, of which at most one is active.

```
 tick ─▶ open what is missing ─▶ hello ─▶ Standing: which one is active
              ▲                              │
              └── 0.5 s after an end         ├─ the active one: Register, AskElection, ChangeSet, Leave
                                             └─ both: a beat each second, from a thread of the stream; Knows
```
Where neither is active and both name another one, that one takes the place of the second. What was asked on a stream
that ended gets no answer: whoever asked asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Protocol

from apogeemq.broker.core.replication.progress import Propose
from apogeemq.broker.core.replication.role import Told
from apogeemq.broker.core.replication.set_view import Registration, ReplicaInSet, SetView
from apogeemq.broker.links.beats import BEAT_INTERVAL_S, Beats
from apogeemq.mesh.stream_thread import StreamThread
from apogeemq.mesh.tls import ClientTls
from apogeemq.mesh.v1 import controller_pb2 as pb
from apogeemq.mesh.v1.methods import CONTROLLER_JOIN

STREAMS_MAX = 2
OPEN_AGAIN_S = 0.5
NOT_LEADER = 2007
"""Apache's response code of a controller that is not the active one."""

_log = logging.getLogger(__name__)


class ControllerEvents(Protocol):
    """Whoever is told what the controllers say, in the event loop."""

    def registered(self, request_id: int, broker_id: int, lease_id: int, view: SetView) -> None:
        """A registration was accepted."""

    def accepted(self, request_id: int, view: SetView) -> None:
        """Anything else was."""

    def refused(self, request_id: int, code: int, text: str) -> None:
        """It was not; 0 is what the whole stream was refused with."""

    def told(self, view: SetView) -> None:
        """The set's state."""

    def register_again(self) -> None:
        """The lease has ended."""


class ControllerStream(Protocol):
    """An open stream."""

    def send(self, message: pb.JoinRequest, /) -> None:
        """Hand a message over; never waits."""

    async def close(self) -> None:
        """End it."""


OpenStream = Callable[
    [str, pb.JoinRequest, Callable[[], pb.JoinRequest | None], Callable[[pb.JoinReply], None], Callable[[str], None]],
    ControllerStream,
]
"""From target, the hello, what is due each second, where messages go, and who is told the end."""


def thread_streams(tls: ClientTls | None = None) -> OpenStream:
    """Streams over TCP, with threads of their own."""

    def open_stream(
        target: str,
        hello: pb.JoinRequest,
        due: Callable[[], pb.JoinRequest | None],
        on_message: Callable[[pb.JoinReply], None],
        on_end: Callable[[str], None],
    ) -> ControllerStream:
        return StreamThread(
            target,
            CONTROLLER_JOIN,
            first=hello,
            due=due,
            interval_s=BEAT_INTERVAL_S,
            on_message=on_message,
            on_end=on_end,
            tls=tls,
        )

    return open_stream


@dataclass(slots=True)
class _Session:
    """One target's stream, or the wait for the next one."""

    target: str
    number: int = 0
    stream: ControllerStream | None = None
    is_active: bool = False
    active: str = ""
    open_due_s: float = 0.0
    refusal: str = ""
    last_failure: str = ""


class ControllersLink:
    """Keeps the streams, and asks the active controller.

    Args:
        targets: mesh endpoints of controllers, "host:port".
        cluster, broker_name, check_code, incarnation: the hello; see controller.proto.
        beats: what goes out each second.
        open_stream: opens one; `thread_streams` in a process.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        cluster: str,
        broker_name: str,
        check_code: str,
        incarnation: int,
        beats: Beats,
        events: ControllerEvents,
        open_stream: OpenStream,
    ) -> None:
        hello = pb.JoinRequest.Hello(
            cluster=cluster, broker_name=broker_name, check_code=check_code, incarnation=incarnation
        )
        self._hello = pb.JoinRequest(hello=hello)
        self._beats = beats
        self._events = events
        self._open_stream = open_stream
        self._targets = list(dict.fromkeys(targets))
        self._sessions = [_Session(target) for target in self._targets[:STREAMS_MAX]]
        self._request_ids = count(1)
        self._registrations: set[int] = set()
        self._ending: list[ControllerStream] = []

    @property
    def active(self) -> str:
        """The active controller, where a stream to it is open; else empty."""
        session = self._active_session()
        return session.target if session is not None else ""

    def describe(self) -> str:
        """Which streams are open, for people."""
        standings = {True: "active", False: "stand-by"}
        return ", ".join(
            f"{each.target}: {standings[each.is_active] if each.stream is not None else 'not reached'}"
            for each in self._sessions
        )

    async def tick(self, now_s: float) -> None:
        """Open what is missing; to be called several times a second."""
        ending, self._ending = self._ending, []
        for stream in ending:
            await stream.close()
        await self._look_for_active()
        for session in self._sessions:
            if session.stream is None and now_s >= session.open_due_s:
                self._open(session, now_s)

    async def close(self) -> None:
        """End all streams."""
        streams = [each.stream for each in self._sessions if each.stream is not None]
        self._sessions = []
        for stream in (*streams, *self._ending):
            await stream.close()

    def register(self, registration: Registration) -> int:
        """Ask for it, and give the request's id; 0 where no active controller is reached."""
        request_id = next(self._request_ids)
        each = registration
        register = pb.JoinRequest.Register(
            request_id=request_id,
            broker_id=each.broker_id,
            address=each.address,
            mesh_address=each.mesh_address,
            boot_id=each.boot_id,
            clean_stop=each.clean_stop,
            lost_unsynced=each.lost_unsynced,
            last_epoch=each.last_epoch,
            end_offset=each.end_offset,
            priority=each.priority,
            is_learner=each.is_learner,
            known_members=each.known_members,
            known_master_epoch=each.known_master_epoch,
            known_set_epoch=each.known_set_epoch,
        )
        if not self._ask(pb.JoinRequest(register=register)):
            return 0
        self._registrations = {request_id}
        return request_id

    def ask_election(self, over_epoch: int) -> None:
        """Ask for a master in place of the one of this epoch."""
        request_id = next(self._request_ids)
        ask = pb.JoinRequest.AskElection(request_id=request_id, over_epoch=over_epoch)
        self._ask(pb.JoinRequest(ask_election=ask))

    def propose(self, proposal: Propose) -> None:
        """Ask for another SyncStateSet."""
        members = [
            pb.JoinRequest.ChangeSet.Member(broker_id=each.broker_id, incarnation=each.incarnation)
            for each in proposal.members
        ]
        change = pb.JoinRequest.ChangeSet(
            request_id=next(self._request_ids),
            master_epoch=proposal.epoch,
            set_epoch=proposal.set_epoch,
            members=members,
        )
        self._ask(pb.JoinRequest(change_set=change))

    def leave(self) -> int:
        """Ask to be waited for by nobody, and give the request's id; 0 where no active controller is reached."""
        request_id = next(self._request_ids)
        asked = self._ask(pb.JoinRequest(leave=pb.JoinRequest.Leave(request_id=request_id)))
        return request_id if asked else 0

    def knows(self, master_epoch: int, set_epoch: int) -> None:
        """Tell all that this state came in."""
        knows = pb.JoinRequest(knows=pb.JoinRequest.Knows(master_epoch=master_epoch, set_epoch=set_epoch))
        for session in self._sessions:
            if session.stream is not None:
                session.stream.send(knows)

    def _active_session(self) -> _Session | None:
        return next((each for each in self._sessions if each.stream is not None and each.is_active), None)

    def _ask(self, message: pb.JoinRequest) -> bool:
        session = self._active_session()
        if session is None or session.stream is None:
            return False
        session.stream.send(message)
        return True

    async def _look_for_active(self) -> None:
        """Go to the active one where the others agree that it is none of them."""
        named = {each.active for each in self._sessions if each.stream is not None} - {""}
        if self._active_session() is not None or len(named) != 1:
            return
        target = named.pop()
        if any(each.target == target for each in self._sessions):
            return
        if len(self._sessions) == STREAMS_MAX:
            dropped = self._sessions.pop()
            if dropped.stream is not None:
                await dropped.stream.close()
        self._sessions.append(_Session(target))

    def _open(self, session: _Session, now_s: float) -> None:
        session.number += 1
        session.open_due_s = now_s + OPEN_AGAIN_S
        session.is_active, session.active = False, ""
        on_message = partial(self._received, session, session.number)
        on_end = partial(self._ended, session, session.number)
        session.stream = self._open_stream(session.target, self._hello, self._beats.make, on_message, on_end)

    def _ended(self, session: _Session, number: int, reason: str) -> None:
        if number != session.number or session.stream is None:
            return
        self._ending.append(session.stream)
        session.stream, session.is_active = None, False
        reason = reason or session.refusal or "it finished"
        level = logging.DEBUG if reason == session.last_failure else logging.WARNING
        _log.log(level, "the stream to controller %s ended: %s", session.target, reason)
        session.last_failure = reason

    def _received(self, session: _Session, number: int, reply: pb.JoinReply) -> None:
        if number != session.number or session not in self._sessions:
            return
        match reply.WhichOneof("kind"):
            case "standing":
                session.is_active, session.active = reply.standing.is_active, reply.standing.active
                session.refusal = session.last_failure = ""
            case "beaten":
                self._beats.beaten(reply.beaten.beat_id, reply.beaten.lease_ttl_ms)
            case "set_state":
                self._events.told(view_of(reply.set_state))
            case "register_again":
                self._events.register_again()
            case "answer":
                self._answered(reply.answer)
            case "refused":
                session.refusal = reply.refused.text
                self._events.refused(0, reply.refused.code, reply.refused.text)
            case _:
                _log.warning("controller %s sent a message that this broker does not know", session.target)

    def _answered(self, answer: pb.JoinReply.Answer) -> None:
        if answer.HasField("refused"):
            self._events.refused(answer.request_id, answer.refused.code, answer.refused.text)
        elif answer.request_id in self._registrations:
            self._registrations.clear()
            view = view_of(answer.set_state)
            self._events.registered(answer.request_id, answer.broker_id, answer.lease_id, view)
        elif answer.HasField("set_state") and not answer.lease_id:
            self._events.accepted(answer.request_id, view_of(answer.set_state))


def view_of(state: pb.SetState) -> SetView:
    """Read a set's state."""
    told = Told(state.master_id, state.master_epoch, frozenset(state.members), state.set_epoch)
    replicas = {
        each.broker_id: ReplicaInSet(each.address, each.mesh_address, each.incarnation, each.is_learner)
        for each in state.replicas
    }
    return SetView(told, replicas, state.possible_loss)
