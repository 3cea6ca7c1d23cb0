"""One replica's stream, at its master's end.

```
 hello ─▶ Welcome ─▶ AskCrc: CrcSame, as often as it is asked ─▶ CopyFrom ─▶ states, whole ─▶ chunks, states, chunks …
```
Two tasks: one takes what the replica says, the other sends. Until the replica has acknowledged what was the log's end,
what is written joins the next chunk, if it is little: that is the batching, no timer. A chunk by itself costs both as
much as a hundred small messages in it. Nothing here holds up another replica.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from apogeemq.broker.core.replication.progress import Member
from apogeemq.broker.service.replicated_log import LogExpired, ReplicatedLog
from apogeemq.broker.service.waiting_states import State, WaitingStates
from apogeemq.mesh.clock import Clock, within
from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.network import MeshStream
from apogeemq.mesh.v1 import replication_pb2 as pb
from apogeemq.store.errors import OffsetOutOfRange

CHUNK_SIZE_BYTES_MAX = 256 << 10
UNACKNOWLEDGED_SIZE_BYTES_MAX = 8 << 20
"""So much may be sent and not acknowledged; or one record of the largest size, where that is more."""
LITTLE_SIZE_BYTES_MAX = 64 << 10
"""More than this waits for no acknowledgement before it is sent."""
CRC_SIZE_BYTES_MAX = 64 << 10
SIGN_OF_LIFE_MS = 500
TAKES_NOTHING_MS = 10_000
"""A replica that was sent something and takes nothing for so long is cut off; so is a silent one."""
PREPARING_MS = 60_000
"""The same before it copies: it may be cutting its log, which takes its time."""
LAST_WORD_S = 1.0
"""How long the end of a stream waits for the replica to take the refusal."""
STATE_PART_SIZE_BYTES_MAX = 256 << 10

ReplicaStream: TypeAlias = MeshStream[pb.MasterMessage, pb.ReplicaMessage]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """How far a replica is, for metrics and operators."""

    broker_id: int
    offset: int
    """It holds the log up to here; 0 until it copies."""
    lag_bytes: int
    silent_ms: int
    """Since it was last heard."""
    is_learner: bool
    peer: str


class Refusal(Exception):  # noqa: N818 — the last word of a stream
    """What the replica is told before its stream ends. `code` is one of ReplicationRefusal."""

    def __init__(self, code: pb.ReplicationRefusal, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Master(Protocol):
    """What a session knows of the broker that leads."""

    @property
    def epoch(self) -> int:
        """The epoch that it leads."""
        ...

    @property
    def confirm_offset(self) -> int:
        """The log is confirmed up to here."""
        ...

    def acknowledged(self, replica: Member, offset: int, *, is_learner: bool, has_tables: bool) -> None:
        """A replica holds the log up to here; `has_tables`: and has stored all tables since it began to copy."""
        ...

    def states(self) -> AsyncIterator[tuple[str, bytes]]:
        """All tables by their names, whole, as they are now."""
        ...


class ReplicaSession:
    """See the module. For `Leading`, which calls `wake` when something was written, and `tick` each 100 ms."""

    def __init__(
        self, stream: ReplicaStream, hello: pb.ReplicaMessage.Hello, *, master: Master, log: ReplicatedLog, clock: Clock
    ) -> None:
        self.replica = Member(hello.broker_id, hello.incarnation)
        self.is_learner = hello.is_learner
        self.offset = 0
        """Acknowledged, or where it began to copy."""
        self._stream = stream
        self._master = master
        self._log = log
        self._clock = clock
        self._window_bytes = max(UNACKNOWLEDGED_SIZE_BYTES_MAX, log.record_size_bytes_max + 2 * CHUNK_SIZE_BYTES_MAX)
        self._next_offset: int | None = None
        self._awaited_offset = 0
        """The log's end, where that was sent last: the replica acknowledges just this. 0 where more was there."""
        self._states = WaitingStates()
        self._pointers = WaitingStates()
        self._is_whole_due = False
        self._is_sending_states = False
        self._states_sent = self._states_stored = 0
        self._has_tables = False
        self._end: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self._has_work = asyncio.Event()
        self._heard_ms = self._sent_ms = self._taken_ms = self._now_ms()
        self._sending_since_ms: int | None = None

    @property
    def is_copying(self) -> bool:
        """Whether the replica asked for the log yet."""
        return self._next_offset is not None

    @property
    def has_all_states(self) -> bool:
        """Whether the replica has stored every change of a table so far."""
        is_sent = not self._is_whole_due and not self._is_sending_states and not self._states and not self._pointers
        return is_sent and self._states_stored == self._states_sent

    @property
    def unacknowledged_bytes(self) -> int:
        """Of the log, sent."""
        return max(0, (self._next_offset or 0) - self.offset)

    def status(self) -> ReplicaStatus:
        """For operators."""
        lag_bytes = max(0, self._log.end_offset - self.offset)
        silent_ms = self._now_ms() - self._heard_ms
        return ReplicaStatus(
            self.replica.broker_id, self.offset, lag_bytes, silent_ms, self.is_learner, self._stream.peer
        )

    async def run(self) -> None:
        """Serve the replica until it leaves or has to. Errors: MeshError when the stream broke."""
        tasks = [asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._feed())]
        waiting: set[asyncio.Future[Any]] = {*tasks, self._end}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self._end.done():
                raise self._end.result()
            for task in tasks:
                if task.done():
                    task.result()
        except Refusal as refusal:
            await _cancel(tasks)
            await self._say_last(refusal)
        finally:
            await _cancel(tasks)

    def end(self, code: pb.ReplicationRefusal, text: str) -> None:
        """Let the stream end, with this as the last word."""
        if not self._end.done():
            self._end.set_result(Refusal(code, text))

    def wake(self) -> None:
        """There may be something to send."""
        self._has_work.set()

    def put_state(self, state: State) -> None:
        """A table changed. One that has not begun to copy gets all tables when it does."""
        if self.is_copying:
            waiting = self._pointers if state.points else self._states
            if not waiting.put(state):
                self._is_whole_due = True
            self._has_work.set()

    def confirmed(self) -> None:
        """The set holds more of the log: pointers may be due."""
        if self._pointers:
            self._has_work.set()

    def tick(self, now_ms: int) -> None:
        """Time passed: a sign of life may be due, or the replica gone."""
        silent_ms_max = TAKES_NOTHING_MS if self.is_copying else PREPARING_MS
        if now_ms - self._heard_ms >= silent_ms_max:
            self._cut_off("said nothing", now_ms - self._heard_ms)
        elif self._sending_since_ms is not None and now_ms - self._sending_since_ms >= TAKES_NOTHING_MS:
            self._cut_off("took nothing", now_ms - self._sending_since_ms)
        elif self.is_copying and self.unacknowledged_bytes and now_ms - self._taken_ms >= TAKES_NOTHING_MS:
            self._cut_off(f"acknowledged nothing of {self.unacknowledged_bytes} bytes sent,", now_ms - self._taken_ms)
        if self._is_sign_due(now_ms) or self._pointers:
            self._has_work.set()

    def _cut_off(self, what: str, for_ms: int) -> None:
        text = f"broker {self.replica.broker_id} {what} for {for_ms} ms"
        _log.warning("replica at %s is cut off: %s", self._stream.peer, text)
        self.end(pb.REPLICATION_REFUSAL_TOO_SLOW, text)

    def _is_sign_due(self, now_ms: int) -> bool:
        return self.is_copying and self._sending_since_ms is None and now_ms - self._sent_ms >= SIGN_OF_LIFE_MS

    # -- what it says --------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while (message := await self._stream.receive()) is not None:
            self._heard_ms = self._now_ms()
            match message.WhichOneof("kind"):
                case "acknowledge":
                    self._take_acknowledgement(message.acknowledge)
                case "ask_crc":
                    await self._answer_crc(message.ask_crc)
                case "copy_from":
                    self._begin(message.copy_from.offset)
                case "hello":
                    raise Refusal(pb.REPLICATION_REFUSAL_INVALID, "a second hello on one stream")
                case _:
                    raise Refusal(pb.REPLICATION_REFUSAL_INVALID, "a message that this master does not know")

    def _take_acknowledgement(self, said: pb.ReplicaMessage.Acknowledge) -> None:
        if said.epoch != self._master.epoch:
            raise Refusal(
                pb.REPLICATION_REFUSAL_OTHER_EPOCH,
                f"an acknowledgement of epoch {said.epoch} on a stream of epoch {self._master.epoch}",
            )
        if self._next_offset is None or not 0 <= said.offset <= self._next_offset:
            raise Refusal(
                pb.REPLICATION_REFUSAL_INVALID,
                f"{said.offset} was acknowledged, the log was sent up to {self._next_offset or 0}",
            )
        if not self._states_stored <= said.states <= self._states_sent:
            raise Refusal(
                pb.REPLICATION_REFUSAL_INVALID,
                f"{said.states} states were acknowledged, after {self._states_stored} of {self._states_sent} sent",
            )
        self._states_stored = said.states
        if said.offset > self.offset:
            self._taken_ms = self._heard_ms
        self.offset = said.offset
        self._has_work.set()
        self._has_tables = self._has_tables or self.has_all_states
        self._master.acknowledged(self.replica, said.offset, is_learner=self.is_learner, has_tables=self._has_tables)

    async def _answer_crc(self, asked: pb.ReplicaMessage.AskCrc) -> None:
        if self.is_copying or not 0 <= asked.end - asked.start <= CRC_SIZE_BYTES_MAX:
            raise Refusal(
                pb.REPLICATION_REFUSAL_INVALID,
                f"a CRC of [{asked.start}, {asked.end}) was asked for; at most {CRC_SIZE_BYTES_MAX} bytes, and only "
                "before copying",
            )
        try:
            is_same = await self._log.crc_of(asked.start, asked.end) == asked.crc
        except OffsetOutOfRange as error:
            if asked.start < self._log.min_offset:  # it expired since Welcome: nobody can say whether it was the same
                raise Refusal(
                    pb.REPLICATION_REFUSAL_EXPIRED, str(LogExpired(asked.start, self._log.min_offset))
                ) from error
            is_same = False
        await self._send(pb.MasterMessage(crc_same=pb.MasterMessage.CrcSame(epoch=self._master.epoch, is_same=is_same)))

    def _begin(self, offset: int) -> None:
        if self.is_copying:
            raise Refusal(pb.REPLICATION_REFUSAL_INVALID, "the log was asked for twice on one stream")
        if offset > self._log.end_offset:
            raise Refusal(
                pb.REPLICATION_REFUSAL_INVALID, f"the log ends at {self._log.end_offset}, {offset} lies behind it"
            )
        if offset < self._log.min_offset:
            raise Refusal(pb.REPLICATION_REFUSAL_EXPIRED, str(LogExpired(offset, self._log.min_offset)))
        self._next_offset = self.offset = offset
        self._taken_ms = self._heard_ms
        self._is_whole_due = True
        self._has_work.set()

    # -- what it is sent -----------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        await self._send(self._welcome())
        while True:
            self._has_work.clear()
            try:
                has_sent = self._next_offset is not None and await self._send_next(self._next_offset)
            except LogExpired as error:
                raise Refusal(pb.REPLICATION_REFUSAL_EXPIRED, str(error)) from error
            if not has_sent:
                await self._has_work.wait()

    def _welcome(self) -> pb.MasterMessage:
        entries = [pb.EpochEntry(epoch=epoch, start_offset=offset) for epoch, offset in self._log.entries]
        welcome = pb.MasterMessage.Welcome(
            epoch=self._master.epoch,
            entries=entries,
            min_offset=self._log.min_offset,
            end_offset=self._log.end_offset,
        )
        return pb.MasterMessage(welcome=welcome)

    async def _send_next(self, offset: int) -> bool:
        """Send what is due; False when nothing was."""
        place = self._states.next_place
        pointers_place = self._pointers.next_place
        is_state_due = place is not None and place <= offset
        is_pointer_due = pointers_place is not None and pointers_place <= min(offset, self._master.confirm_offset)
        if not (self._is_whole_due or is_state_due or is_pointer_due):
            return await self._send_chunk(offset, place)
        self._is_sending_states = True
        try:
            if self._is_whole_due:
                self._is_whole_due = False
                await self._send_all_states()
            else:
                state = (self._states if is_state_due else self._pointers).take()
                await self._send_state(state.name, state.data, whole=state.whole)
        finally:
            self._is_sending_states = False
        return True

    async def _send_chunk(self, offset: int, stop: int | None) -> bool:
        entry, epoch_end = self._log.epoch_at(offset)
        size_bytes = min(
            CHUNK_SIZE_BYTES_MAX,
            CHUNK_SIZE_BYTES_MAX if stop is None else stop - offset,
            CHUNK_SIZE_BYTES_MAX if epoch_end is None else epoch_end - offset,
        )
        end_offset = self._log.end_offset
        is_due = offset < end_offset and self._has_room(offset) and not self._is_held(end_offset - offset)
        data = await self._log.read(offset, size_bytes) if is_due else b""
        if not data and not self._is_sign_due(self._now_ms()):
            return False
        if data and not self.unacknowledged_bytes:
            self._taken_ms = self._now_ms()
        self._next_offset = offset + len(data)
        if data:
            self._awaited_offset = self._next_offset if self._next_offset == end_offset else 0
        await self._send(
            pb.MasterMessage(
                chunk=pb.MasterMessage.Chunk(
                    epoch=self._master.epoch,
                    offset=offset,
                    data=data,
                    written_in=pb.EpochEntry(epoch=entry.epoch, start_offset=entry.start_offset),
                    confirm_offset=self._master.confirm_offset,
                    min_offset=self._log.min_offset,
                    end_offset=self._log.end_offset,
                )
            )
        )
        return True

    def _has_room(self, offset: int) -> bool:
        return offset - self.offset + CHUNK_SIZE_BYTES_MAX <= self._window_bytes

    def _is_held(self, size_bytes: int) -> bool:
        """Whether so much waits for the last acknowledgement, which brings more with it. See the module."""
        return self.offset < self._awaited_offset and size_bytes < LITTLE_SIZE_BYTES_MAX

    async def _send_all_states(self) -> None:
        """Changes that come meanwhile are sent behind: once more what a whole one has already does no harm.

        Pointers wait until the log is sent and confirmed up to their place: of a replica that is elected before it has
        got there, or whose log is cut there, they would say that messages are done with whose successors it lacks.
        """
        self._states.clear()
        self._pointers.clear()
        async for name, data in self._master.states():
            state = State(self._log.end_offset, name, data, whole=True)
            if state.points:
                self._pointers.put(state)
            else:
                await self._send_state(name, data, whole=True)

    async def _send_state(self, name: str, data: bytes, *, whole: bool) -> None:
        starts = range(0, max(len(data), 1), STATE_PART_SIZE_BYTES_MAX)
        for start in starts:
            part = data[start : start + STATE_PART_SIZE_BYTES_MAX]
            continues = start != starts[-1]
            self._states_sent += not continues  # before it is sent: the answer may be here first
            state = pb.MasterMessage.State(name=name, data=part, whole=whole, continues=continues)
            await self._send(pb.MasterMessage(state=state))

    async def _send(self, message: pb.MasterMessage) -> None:
        self._sending_since_ms = self._now_ms()
        try:
            await self._stream.send(message)
        finally:
            self._sending_since_ms = None
        self._sent_ms = self._now_ms()

    async def _say_last(self, refusal: Refusal) -> None:
        await refuse(self._stream, refusal, self._clock)

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)


async def refuse(stream: ReplicaStream, refusal: Refusal, clock: Clock) -> None:
    """Tell a replica why its stream ends, if it still listens."""
    message = pb.MasterMessage(refused=pb.MasterMessage.Refused(code=refusal.code, text=refusal.text))
    try:
        await within(clock, LAST_WORD_S, stream.send(message))
    except (MeshError, TimeoutError) as error:
        _log.info("replica at %s was not told why its stream ends (%s): %s", stream.peer, refusal, error)


async def _cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
