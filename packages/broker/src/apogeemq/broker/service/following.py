"""This broker as a replica: the follower's machine, on the real log, over one stream to the master at a time.

One task does everything that changes the log, one thing after another: an order to follow somebody, the passing of
time, the master's messages. So nothing is ever appended while the log is being cut, nor after `stop` has returned.

Acknowledged is what is appended, in whole records, and how many states are stored; several chunks and states that wait
are one acknowledgement.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from apogeemq.broker.core.replication import follower
from apogeemq.broker.service.leading import STATE_SIZE_BYTES_MAX
from apogeemq.broker.service.master_link import MasterLink
from apogeemq.broker.service.replicated_log import FullCopyNeeded, ReplicatedLog
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.network import Network
from apogeemq.mesh.tls import ClientTls
from apogeemq.mesh.v1 import replication_pb2 as pb
from apogeemq.store.epoch_file import EpochEntry
from apogeemq.store.errors import ChunkMisplaced, EpochInvalid, LogDiverged, RecordCorrupt, StoreError

TICK_S = 0.1
ACKNOWLEDGE_SIZE_BYTES = 1 << 20
"""While chunks wait to be appended, an acknowledgement goes out after so many bytes."""
BAD_CHUNKS_MAX = 3
"""So often a master may send at one offset what can't be its log's continuation; then a person has to look."""

OnState: TypeAlias = Callable[[str, bytes, bool], Awaitable[None] | None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaIdentity:
    """Who says hello. `incarnation` counts the starts of this broker."""

    cluster: str
    broker_name: str
    broker_id: int
    incarnation: int
    is_learner: bool = False


class _StreamUnfit(Exception):  # noqa: N818 — ends this stream; the next attempt begins anew
    """The master said what makes no sense, or refused."""


def _no_state(_name: str, _data: bytes, _whole: bool) -> None:
    return None


class Following:
    """See the module. Idle until `follow`; may follow again after `stop`.

    Everything belongs to the event loop. While it follows, nobody else appends to the log.

    Args:
        network: where the master's mesh address is dialled, with `tls`.
        on_state: called with (name, data, whole) for each table and each change, in its place between the chunks;
            waited for where it is a coroutine. What it raises ends the stream, and the next one brings all tables.
        on_full_copy_needed: called once this replica has stopped because only a person may drop its log;
            `halted_reason` says it too.
        acks_flushed: acknowledge only what is synced (SYNC_FLUSH on replicas).
    """

    def __init__(
        self,
        log: ReplicatedLog,
        *,
        identity: ReplicaIdentity,
        network: Network,
        clock: Clock,
        on_state: OnState = _no_state,
        on_full_copy_needed: Callable[[FullCopyNeeded], None] | None = None,
        acks_flushed: bool = False,
        tls: ClientTls | None = None,
    ) -> None:
        self.let_go_offset = 0
        """The master let go of its log below this, and all that it stored anew before that is confirmed here; 0 while
        nothing is copied. Read from any thread."""
        self._let_go_next: tuple[int, int] | None = None
        self.halted_reason = ""
        """Why it copies no more; "" while it does or may."""
        self._log = log
        self._identity = identity
        self._is_learner = identity.is_learner
        self._network = network
        self._clock = clock
        self._on_state = on_state
        self._on_full_copy_needed = on_full_copy_needed
        self._acks_flushed = acks_flushed
        self._tls = tls
        self._machine = follower.Follower()
        self._loop = asyncio.get_running_loop()
        self._order: follower.Follow | None = None
        self._is_ordered = False
        self._address = ""
        self._link: MasterLink | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._has_work = asyncio.Event()
        self._is_tick_due = False
        self._is_stopping = False
        self._running: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._held: follower.Acknowledge | None = None
        self._is_held_due = False
        self._told_offset = 0
        self._is_flush_asked = False
        self._state_parts: list[bytes] = []
        self._states_taken = self._told_states = 0
        self._bad_chunks = 0
        self._bad_offset = -1
        self._last_failure = ""

    @property
    def phase(self) -> follower.Phase:
        """How far this replica is."""
        return follower.Phase.HALTED if self.halted_reason else self._machine.phase

    @property
    def master_id(self) -> int:
        """Whom it follows, or followed last; 0 = nobody yet."""
        return 0 if self._order is None else self._order.master_id

    @property
    def is_learner(self) -> bool:
        """Whether it only copies."""
        return self._is_learner

    def follow(self, master_id: int, epoch: int, mesh_address: str) -> None:
        """Copy from this master from now on; the stream to any other ends at once. An older epoch is passed over."""
        if self._order is not None and epoch < self._order.epoch:
            return
        self._order, self._address = follower.Follow(master_id, epoch), mesh_address
        self._connect_anew()
        if self._running is None:
            self._running = asyncio.create_task(self._run())
            self._ticking = asyncio.create_task(self._tick())

    def set_learner(self, is_learner: bool) -> None:
        """Say so in a new hello: the master must not count this replica otherwise meanwhile."""
        if is_learner != self._is_learner:
            self._is_learner = is_learner
            if self._running is not None:
                self._connect_anew()

    async def stop(self) -> None:
        """Follow nobody; nothing is appended or cut any more when it returns. Idempotent."""
        self._is_stopping = True
        self._keep_all()
        self._close_link()
        self._has_work.set()
        running, self._running = self._running, None
        if running is not None:
            await asyncio.wait({running})
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait({self._ticking})
            self._ticking = None
        if self._links:
            await asyncio.wait(set(self._links))
        self._machine.step(follower.Stop(), self._now_ms())
        self._is_stopping = self._is_ordered = False

    def _connect_anew(self) -> None:
        """The old stream must not acknowledge anything from this moment on."""
        self._keep_all()
        self._close_link()
        self._is_ordered = True
        self._has_work.set()

    # -- the one task --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._is_stopping:
            await self._has_work.wait()
            self._has_work.clear()
            try:
                await self._work()
            except FullCopyNeeded as error:
                self._halt(str(error))
                if self._on_full_copy_needed is not None:
                    self._on_full_copy_needed(error)
            except (ChunkMisplaced, RecordCorrupt, LogDiverged, EpochInvalid) as error:
                await self._take_bad_chunk(error)
            except (StoreError, OSError, _StreamUnfit) as error:
                await self._give_up_stream(str(error))
            except Exception as error:  # noqa: BLE001 — logged; without this loop the broker would run and not copy
                _log.exception("following broker %d failed", self.master_id)
                await self._give_up_stream(repr(error))
            else:
                continue
            self._has_work.set()

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self._is_tick_due = True
            self._has_work.set()

    async def _work(self) -> None:
        """Do all there is to do, the most urgent first."""
        while not self._is_stopping:
            link = self._link
            if self._is_ordered and self._order is not None:
                self._is_ordered = False
                self.halted_reason = ""
                await self._step(self._order)
            elif self._is_tick_due:
                self._is_tick_due = False
                await self._step(follower.Tick())
                self._tell_held(always=True)
            elif self.halted_reason:
                return
            elif link is not None and len(link):
                await self._take(link.take())
            elif link is not None and link.ended is not None:
                await self._give_up_stream(link.ended)
            else:
                self._tell_held()
                return

    async def _step(self, event: follower.Event) -> None:
        if self.halted_reason:
            return
        for effect in self._machine.step(event, self._now_ms()):
            await self._play(effect)

    async def _play(self, effect: follower.Effect) -> None:
        match effect:
            case follower.Connect(_, epoch):
                self._connect(epoch)
            case follower.Compare(start, end):
                crc = await self._log.crc_of(start, end)
                self._say(pb.ReplicaMessage(ask_crc=pb.ReplicaMessage.AskCrc(start=start, end=end, crc=crc)))
            case follower.Cut(offset):
                _log.warning("the log is cut at %d, it ended at %d: its end is not the master's", offset, self._end())
                await self._log.cut(offset)
            case follower.StartOver(offset):
                await self._log.start_over(offset)
            case follower.Copy(offset):
                await self._log.drop_half_record()
                self._told_offset = -1
                self._say(pb.ReplicaMessage(copy_from=pb.ReplicaMessage.CopyFrom(offset=offset)))
                _log.info("copying from broker %d at %d in epoch %d", self.master_id, offset, self._epoch())
                self._last_failure = ""
            case follower.SaveEpoch(entry):
                await self._log.add_entry(entry)
            case follower.Append(offset, data):
                await self._log.append(offset, data)
            case follower.SetConfirm(offset):
                self._log.confirm(min(offset, self._end()))
            case follower.Acknowledge():
                self._hold(effect)
            case follower.Halt(confirm_offset, common_offset):
                self._halt(self._why_halted(confirm_offset, common_offset))

    def _end(self) -> int:
        return self._log.end_offset

    def _master(self) -> tuple[int, str]:
        return self.master_id, self._address

    def _epoch(self) -> int:
        return 0 if self._order is None else self._order.epoch

    # -- the stream ----------------------------------------------------------------------------------------------------

    def _connect(self, epoch: int) -> None:
        if self._link is not None and self._link.ended is None:
            _log.warning("broker %d at %s said nothing for too long, or sent a chunk out of its place", *self._master())
        self._close_link()
        hello = pb.ReplicaMessage.Hello(
            cluster=self._identity.cluster,
            broker_name=self._identity.broker_name,
            broker_id=self._identity.broker_id,
            incarnation=self._identity.incarnation,
            epoch=epoch,
            is_learner=self._is_learner,
            commit_log_file_size_bytes=self._log.file_size_bytes,
        )
        link = MasterLink(self._network, self._address, hello, tls=self._tls, on_change=self._has_work.set)
        self._links.add(link.running)
        link.running.add_done_callback(self._links.discard)
        self._link = link

    def _close_link(self) -> None:
        self._held = None
        self._is_held_due = False
        self._state_parts.clear()
        self._states_taken = self._told_states = 0
        if self._link is not None:
            self._link.close()
            self._link = None

    def _say(self, message: pb.ReplicaMessage) -> None:
        if self._link is not None:
            self._link.send(message)

    async def _give_up_stream(self, reason: str) -> None:
        """Connect anew after a while; logged once, not at every attempt that fails the same way."""
        if self._is_stopping or self._is_ordered:
            return
        level = logging.DEBUG if reason == self._last_failure else logging.WARNING
        _log.log(level, "not copying from broker %d at %s: %s", self.master_id, self._address, reason)
        self._last_failure = reason
        self._close_link()
        await self._step(follower.Broken())

    async def _take_bad_chunk(self, error: StoreError) -> None:
        """What came is not this log's continuation. A new stream compares again, and may find out where they part."""
        self._bad_chunks = self._bad_chunks + 1 if self._bad_offset == self._end() else 1
        self._bad_offset = self._end()
        if self._bad_chunks < BAD_CHUNKS_MAX:
            await self._give_up_stream(str(error))
            return
        self._halt(
            f"what broker {self.master_id} sends at {self._bad_offset} can't continue this log, {self._bad_chunks} "
            f"times over: {error}. Check both logs (`apogeemq-store check`); if the master's is the right one, stop "
            "this broker, move its store directory away and start it again: it then copies everything"
        )

    # -- what the master says ------------------------------------------------------------------------------------------

    async def _take(self, message: pb.MasterMessage) -> None:
        match message.WhichOneof("kind"):
            case "chunk":
                await self._take_chunk(message.chunk)
            case "state":
                await self._take_state(message.state)
            case "welcome":
                await self._take_welcome(message.welcome)
            case "crc_same":
                await self._step(follower.Compared(message.crc_same.epoch, message.crc_same.is_same))
            case "refused":
                code = pb.ReplicationRefusal.Name(message.refused.code).removeprefix("REPLICATION_REFUSAL_")
                raise _StreamUnfit(f"it refused, {code}: {message.refused.text}")
            case _:
                raise _StreamUnfit("it sent a message that this replica does not know")

    async def _take_welcome(self, welcome: pb.MasterMessage.Welcome) -> None:
        entries = tuple(EpochEntry(each.epoch, each.start_offset) for each in welcome.entries)
        if not 0 <= welcome.min_offset <= welcome.end_offset or not _ascend(entries):
            raise _StreamUnfit(f"its welcome makes no sense: {welcome}")
        log = self._log.view()
        await self._step(follower.Met(welcome.epoch, entries, welcome.min_offset, welcome.end_offset, log))

    def _let_go(self, min_offset: int, end_offset: int) -> None:
        """What was live below the beginning of the master's log was stored anew before the end that goes with it."""
        if self._let_go_next is None and min_offset > self.let_go_offset:
            self._let_go_next = min_offset, end_offset
        if self._let_go_next is not None and self._log.confirm_offset >= self._let_go_next[1]:
            self.let_go_offset, self._let_go_next = self._let_go_next[0], None

    def _keep_all(self) -> None:
        """Another stream, perhaps of another master, has to say so again."""
        self.let_go_offset, self._let_go_next = 0, None

    async def _take_chunk(self, chunk: pb.MasterMessage.Chunk) -> None:
        if self._state_parts:
            raise _StreamUnfit("it broke off in the middle of a state")
        written_in = EpochEntry(chunk.written_in.epoch, chunk.written_in.start_offset)
        data = chunk.data
        await self._step(follower.Chunk(chunk.epoch, chunk.offset, data, written_in, chunk.confirm_offset))
        self._let_go(chunk.min_offset, chunk.end_offset)

    async def _take_state(self, state: pb.MasterMessage.State) -> None:
        """Before anything behind it is appended: an acknowledgement of that says that the state is kept too."""
        if self._machine.phase is not follower.Phase.COPYING:
            raise _StreamUnfit("it sent a state before it was asked for its log")
        self._state_parts.append(state.data)
        if sum(map(len, self._state_parts)) > STATE_SIZE_BYTES_MAX:
            raise _StreamUnfit(f"state {state.name} is above the bound of {STATE_SIZE_BYTES_MAX} bytes")
        if state.continues:
            return
        data = b"".join(self._state_parts)
        self._state_parts.clear()
        told = self._on_state(state.name, data, state.whole)
        if inspect.isawaitable(told):
            await told
        self._states_taken += 1
        self._is_held_due = True

    # -- acknowledging -------------------------------------------------------------------------------------------------

    def _hold(self, effect: follower.Acknowledge) -> None:
        self._held = effect
        self._is_held_due = True
        if effect.offset - self._told_offset >= ACKNOWLEDGE_SIZE_BYTES:
            self._tell_held()

    def _tell_held(self, *, always: bool = False) -> None:
        """Acknowledge what is held and stored, if it is more than was told or `always`; whole records only, and synced
        ones."""
        if self._link is None or self._held is None or not self._is_held_due:
            return
        self._is_held_due = False
        offset = min(self._held.offset, self._end())
        if self._acks_flushed and self._log.flushed_offset < offset:
            self._ask_flush(offset)
            offset = self._log.flushed_offset
        if always or offset != self._told_offset or self._states_taken != self._told_states:
            self._told_offset, self._told_states = offset, self._states_taken
            self._link.acknowledge(self._held.epoch, offset, self._states_taken)

    def _ask_flush(self, offset: int) -> None:
        if not self._is_flush_asked:
            self._is_flush_asked = True
            self._log.notify_flushed(offset, self._flushed_in_thread)

    def _flushed_in_thread(self, _error: Exception | None) -> None:
        self._loop.call_soon_threadsafe(self._flushed)

    def _flushed(self) -> None:
        """Or failed: then the store refuses what comes, and that is told."""
        self._is_flush_asked = False
        self._is_held_due = True
        self._has_work.set()

    # -- halting -------------------------------------------------------------------------------------------------------

    def _halt(self, reason: str) -> None:
        self.halted_reason = reason
        self._close_link()
        _log.error("this replica copies no more from broker %d: %s", self.master_id, reason)

    def _why_halted(self, confirm_offset: int, common_offset: int) -> str:
        common = f"up to {common_offset}" if common_offset > 0 else "in nothing"
        return (
            f"its log is confirmed up to {confirm_offset} and ends at {self._end()}, and agrees with the master's log "
            f"of epoch {self._epoch()} {common}: one of the two lost confirmed records. A person has to decide. If "
            "the master's log is the right one, stop this broker, move its store directory away and start it again; if "
            "this broker's is, have it elected with `apogeemq-controller elect-master`. See docs/ha.md"
        )

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)


def _ascend(entries: tuple[EpochEntry, ...]) -> bool:
    return all(
        one.epoch < other.epoch and 0 <= one.start_offset <= other.start_offset
        for one, other in zip((EpochEntry(0, 0), *entries), entries, strict=False)
    )
