"""One epoch of this broker as master: what its replicas hold, what is confirmed, and their streams.

```
 append ─▶ written() ─▶ one turn of the event loop later: Progress, and every replica's session sends
 replica acknowledges ─▶ Progress ─▶ Confirm: readers see more, senders are told     (core/replication/progress.py)
```
The machine decides; here are the clock, the streams and the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from apogeemq.broker.core.replication import progress
from apogeemq.broker.service.replica_session import (
    Refusal,
    ReplicaSession,
    ReplicaStatus,
    ReplicaStream,
    refuse,
)
from apogeemq.broker.service.replicated_log import ReplicatedLog
from apogeemq.broker.service.waiting_states import State
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.v1 import replication_pb2 as pb

TICK_S = 0.1
REPLICAS_MAX = 64
"""Streams at a time; one more is refused."""
STATE_SIZE_BYTES_MAX = 64 << 20
"""Of one table; a replica refuses more."""

_log = logging.getLogger(__name__)


class LeadershipEnded(Exception):  # noqa: N818 — a fact
    """This broker stopped leading before what was waited for."""


async def _no_states() -> AsyncIterator[tuple[str, bytes]]:
    nothing: tuple[tuple[str, bytes], ...] = ()
    for each in nothing:
        yield each


class Leading:
    """See the module. The epoch's entry is on the disk already: `ReplicatedLog.begin_epoch`.

    Everything belongs to the event loop that it is made on.

    Args:
        own: this broker.
        known: the set as the controller said it last.
        min_in_sync: minInSyncReplicas, 1 and up.
        propose: asks the controller for another set; nothing waits for it.
        on_confirm: called with the confirm offset whenever it grew; readers see up to there already.
        states: all tables by name, whole, for a replica that begins to copy; asked for one after the other. Pointers
            into the log are sent in their place in it, the others before all.
        shows_flushed_only: replicas may let readers see only what is synced here: a power failure takes nothing of it
            back (ADR 0034).
        on_acknowledged: called when a replica holds more, and when one is gone.
    """

    def __init__(
        self,
        log: ReplicatedLog,
        *,
        epoch: int,
        own: progress.Member,
        known: progress.TakeSet,
        min_in_sync: int,
        clock: Clock,
        propose: Callable[[progress.Propose], None],
        on_confirm: Callable[[int], None],
        states: Callable[[], AsyncIterator[tuple[str, bytes]]] = _no_states,
        shows_flushed_only: bool = False,
        on_acknowledged: Callable[[], None] = lambda: None,
    ) -> None:
        self.epoch = epoch
        self.own = own
        self.states = states
        self._log = log
        self._clock = clock
        self._propose = propose
        self._on_confirm = on_confirm
        self._shows_flushed_only = shows_flushed_only
        self._on_acknowledged = on_acknowledged
        self._begin_offset = log.end_offset
        self.progress = progress.Progress(
            epoch,
            own,
            known,
            end_offset=log.end_offset,
            confirm_offset=log.confirm_offset,
            min_in_sync=min_in_sync,
            now_ms=self._now_ms(),
        )
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[int, ReplicaSession] = {}
        self._serving: set[asyncio.Future[None]] = set()
        self._is_wake_pending = False
        self._has_heard = asyncio.Event()
        self._has_confirmed = asyncio.Event()
        self._is_over = False
        self._settled: asyncio.Future[None] = self._loop.create_future()
        self._ticking: asyncio.Task[None] | None = None

    @property
    def confirm_offset(self) -> int:
        """The log is confirmed up to here, for replicas."""
        offset = self.progress.confirm_offset
        return min(offset, self._log.flushed_offset) if self._shows_flushed_only else offset

    @property
    def is_over(self) -> bool:
        """Whether it was stopped."""
        return self._is_over

    def start(self) -> None:
        """Confirm what can be, and begin to look at the time."""
        self._advance(progress.Tick())
        self._check_settled()
        self._ticking = asyncio.create_task(self._tick())

    def written(self) -> None:
        """The store got something. Cheap: what follows is done once for all that is appended in this turn."""
        if not self._is_wake_pending:
            self._is_wake_pending = True
            self._loop.call_soon(self._take_written)

    def take_set(self, known: progress.TakeSet) -> None:
        """The controller said what the set is."""
        self._advance(known)

    def state_changed(self, name: str, data: bytes, *, whole: bool) -> None:
        """A table changed: have replicas told after the log of this moment, and before anything written later.

        Say it after the change, so that `states()` has it. At most STATE_SIZE_BYTES_MAX. Errors: ValueError.
        """
        if len(data) > STATE_SIZE_BYTES_MAX:
            raise ValueError(f"state {name} of {len(data)} bytes is above the bound of {STATE_SIZE_BYTES_MAX} bytes")
        if self._sessions:
            state = State(self._log.end_offset, name, data, whole)
            for session in self._sessions.values():
                session.put_state(state)

    async def states_stored(self) -> None:
        """Wait until every member that copies has stored all changes of tables; who leaves is waited for no longer.

        Without end where a member hangs: the caller bounds the time.
        """
        while any(self._lacks_states(session) for session in self._sessions.values()):
            self._has_heard.clear()
            await self._has_heard.wait()

    def _lacks_states(self, session: ReplicaSession) -> bool:
        return session.replica.broker_id in self.progress.members and session.is_copying and not session.has_all_states

    async def settled(self) -> None:
        """Wait until all that the log held when the epoch began is confirmed. Errors: LeadershipEnded."""
        await asyncio.shield(self._settled)

    async def until_confirmed(self, offset: int) -> None:
        """Wait until the set holds the log up to here. Without end where it does not: the caller bounds the time.

        Errors: LeadershipEnded.
        """
        while self._log.confirm_offset < offset:
            if self._is_over:
                raise LeadershipEnded(f"this broker leads epoch {self.epoch} no longer")
            self._has_confirmed.clear()
            await self._has_confirmed.wait()

    async def serve(self, stream: ReplicaStream, hello: pb.ReplicaMessage.Hello) -> None:
        """Serve one replica, which said hello in this epoch, until its stream ends.

        Errors: MeshError when the stream broke.
        """
        if self._is_over:
            refusal = Refusal(pb.REPLICATION_REFUSAL_NOT_MASTER, f"epoch {self.epoch} is over here")
            await refuse(stream, refusal, self._clock)
            return
        before = self._sessions.get(hello.broker_id)
        if before is None and len(self._sessions) >= REPLICAS_MAX:
            refusal = Refusal(pb.REPLICATION_REFUSAL_TOO_MANY, f"{REPLICAS_MAX} replicas copy this log already")
            await refuse(stream, refusal, self._clock)
            return
        if before is not None:
            before.end(pb.REPLICATION_REFUSAL_REPLACED, f"broker {hello.broker_id} opened another stream")
        session = ReplicaSession(stream, hello, master=self, log=self._log, clock=self._clock)
        self._sessions[hello.broker_id] = session
        done: asyncio.Future[None] = self._loop.create_future()
        self._serving.add(done)
        _log.info("broker %d copies from here in epoch %d (%s)", hello.broker_id, self.epoch, stream.peer)
        try:
            await session.run()
        finally:
            if self._sessions.get(hello.broker_id) is session:
                del self._sessions[hello.broker_id]
            self._serving.discard(done)
            done.set_result(None)
            self._has_heard.set()
            self._on_acknowledged()

    def end(self) -> None:
        """Confirm nothing from this moment on; who waits for that hears of it. Idempotent."""
        self._is_over = True
        self._has_confirmed.set()
        if not self._settled.done():
            self._settled.set_exception(LeadershipEnded(f"this broker leads epoch {self.epoch} no longer"))
            self._settled.exception()  # looked at: nobody need have waited for it

    async def stop(self) -> None:
        """The same, and end the streams. Idempotent."""
        self.end()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait({self._ticking})
        for session in self._sessions.values():
            session.end(pb.REPLICATION_REFUSAL_NOT_MASTER, f"this broker leads epoch {self.epoch} no longer")
        if self._serving:
            await asyncio.wait(set(self._serving))

    def replicas(self) -> Sequence[ReplicaStatus]:
        """Those with a stream, by broker id."""
        return [self._sessions[broker_id].status() for broker_id in sorted(self._sessions)]

    def acknowledged(self, replica: progress.Member, offset: int, *, is_learner: bool, has_tables: bool) -> None:
        """For the sessions."""
        self._has_heard.set()
        self._advance(progress.Acknowledged(self.epoch, replica, offset, is_learner, has_tables))
        self._on_acknowledged()

    def _take_written(self) -> None:
        self._is_wake_pending = False
        self._advance(progress.Written(self._log.end_offset))
        for session in self._sessions.values():
            session.wake()

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            try:
                self._advance(progress.Tick())
                for session in list(self._sessions.values()):
                    session.tick(self._now_ms())
            except Exception:  # noqa: BLE001 — logged; without this loop a set would never change again
                _log.exception("epoch %d: looking at the time failed", self.epoch)

    def _advance(self, event: progress.Event) -> None:
        if self._is_over:
            return
        for effect in self.progress.step(event, self._now_ms()):
            match effect:
                case progress.Confirm(offset):
                    self._log.confirm(offset)
                    self._has_confirmed.set()
                    for session in self._sessions.values():
                        session.confirmed()
                    self._check_settled()
                    self._on_confirm(offset)
                case progress.Propose():
                    self._propose(effect)

    def _check_settled(self) -> None:
        if not self._settled.done() and self.progress.confirm_offset >= self._begin_offset:
            self._settled.set_result(None)

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)
