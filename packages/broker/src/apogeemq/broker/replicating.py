"""A broker of a set with controllers: wires its membership, the log that it copies or hands out, and what it serves.

```
 controllers ◀─ links/controllers ─▶ SetMember ─▶ Replicating (Part) ─┬─▶ Leading ──▶ Confirmation ─▶ Serving: a Broker
                     beats, a thread each                             └─▶ Following ─▶ the master's log
```
A master serves once all that its log held when its epoch began is confirmed: tables are rebuilt from what readers see,
and no reader may see less than one before. Docs: docs/ha.md; why a Broker lives for one epoch: ADR 0028.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
from apogeemq.broker.config import AcknowledgeAfter, BrokerConfig, FlushDiskType
from apogeemq.broker.core.replication.follower import Phase
from apogeemq.broker.core.replication.progress import Member, Propose, TakeSet
from apogeemq.broker.core.replication.role import Role, Told
from apogeemq.broker.core.replication.set_view import Registration, ReplicaInSet
from apogeemq.broker.faces.mesh.replication import ReplicationFace
from apogeemq.broker.links.beats import Beats
from apogeemq.broker.links.controllers import ControllersLink, OpenStream, thread_streams
from apogeemq.broker.member_file import MemberFile, SetMembership, began, remembering
from apogeemq.broker.metadata_files import metadata_files
from apogeemq.broker.replication_metrics import ReplicationState
from apogeemq.broker.service.confirmation import Confirmation
from apogeemq.broker.service.following import Following, ReplicaIdentity
from apogeemq.broker.service.leading import LeadershipEnded, Leading
from apogeemq.broker.service.log_reads import LogReads
from apogeemq.broker.service.metadata import MetadataSaver, NotConfirmed
from apogeemq.broker.service.replicated_log import ReplicatedLog
from apogeemq.broker.service.set_member import SetMember
from apogeemq.broker.service.table_copies import TableCopies
from apogeemq.broker.service.timer_intake import TimerIntake
from apogeemq.broker.serving import Serving
from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock, within
from apogeemq.mesh.network import Handler, Network
from apogeemq.store.epoch_file import EpochFile
from apogeemq.store.errors import StoreError
from apogeemq.store.files import Disk
from apogeemq.store.message_store import MessageStore

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
"""Another one at each start of the machine (Linux)."""

HAND_OVER_TIMEOUT_S = 0.5
"""How long a master that stops in order waits for its replicas to store the last tables."""

CONFIRM_TIMEOUT_S = 3.0
"""How long tables that point into the log wait until it is confirmed; then they are written the next time."""

_log = logging.getLogger(__name__)


class Replicating:
    """One start of one broker of a set. Make it by `open`, serve its `handlers` on the mesh, then `start`."""

    def __init__(
        self,
        config: BrokerConfig,
        log: ReplicatedLog,
        member_file: MemberFile,
        membership: SetMembership,
        *,
        was_clean: bool,
        boot_id: str,
        serving: Serving,
        endpoints: Mapping[str, str],
        network: Network,
        clock: Clock,
        disk: Disk,
        open_stream: OpenStream,
    ) -> None:
        self._config = config
        self._log = log
        self._member_file = member_file
        self._membership = membership
        self._was_clean = was_clean
        self._boot_id = boot_id
        self._serving = serving
        self._endpoints = endpoints
        self._clock = clock
        self._leading: Leading | None = None
        self._confirmation: Confirmation | None = None
        self._opening: asyncio.Task[None] | None = None
        self._saving = asyncio.Lock()
        self._savings: set[asyncio.Task[None]] = set()
        self._is_learner = config.replication.learner
        self._rolled_forward = (0, 0)
        """Up to where nothing is live, and where the log ended when that was found."""
        identity = config.identity
        self.beats = Beats(end_offset=lambda: log.end_offset, epoch=lambda: log.last_epoch, boot_time=boot_time)
        self.member = SetMember(
            membership.broker_id,
            last_epoch=lambda: log.last_epoch,
            registration=self._registration,
            part=self,
            lease=self.beats,
            clock=clock,
        )
        self.link = ControllersLink(
            config.replication.targets,
            cluster=identity.cluster_name,
            broker_name=identity.broker_name,
            check_code=membership.check_code,
            incarnation=membership.incarnation,
            beats=self.beats,
            events=self.member,
            open_stream=open_stream,
        )
        self._following: Following | None = None
        self._timers: asyncio.Task[None] | None = None
        self._copied: TableCopies | None = None
        self._disk = disk
        self._network = network
        face = ReplicationFace(
            cluster=identity.cluster_name,
            broker_name=identity.broker_name,
            file_size_bytes=log.file_size_bytes,
            leading=lambda: self._leading,
            clock=clock,
        )
        self.handlers: Sequence[Handler] = (face.handler,)

    @classmethod
    async def open(
        cls,
        config: BrokerConfig,
        store: MessageStore,
        *,
        serving: Serving,
        endpoints: Mapping[str, str],
        network: Network,
        clock: Clock,
        chance: Chance,
        disk: Disk,
        open_stream: OpenStream | None = None,
        boot_id: str | None = None,
    ) -> "Replicating":
        """Read what the directory knows of itself, and count this start.

        Errors: ConfigError for a directory of another set, EpochInvalid, OSError.
        """
        code = f"{chance.randrange(1 << 64):016x}{chance.randrange(1 << 64):016x}"

        def read() -> tuple[ReplicatedLog, MemberFile, SetMembership, bool]:
            root = Path(config.store.path)
            log = ReplicatedLog.open(store, EpochFile(disk, root / "epochFileCheckpoint"))
            file = MemberFile(disk, root)
            membership = began(
                file.load(),
                cluster=config.identity.cluster_name,
                broker_name=config.identity.broker_name,
                check_code=code,
                dropped_bytes=store.recovery.dropped_bytes,
            )
            was_clean = membership.clean_stop
            membership = msgspec.structs.replace(membership, clean_stop=False)
            file.save(membership)
            return log, file, membership, was_clean

        log, file, membership, was_clean = await asyncio.to_thread(read)
        return cls(
            config,
            log,
            file,
            membership,
            was_clean=was_clean,
            boot_id=await asyncio.to_thread(read_boot_id) if boot_id is None else boot_id,
            serving=serving,
            endpoints=endpoints,
            network=network,
            clock=clock,
            disk=disk,
            open_stream=open_stream or thread_streams(),
        )

    @property
    def leading(self) -> Leading | None:
        """The epoch that this broker leads."""
        return self._leading

    def start(self) -> None:
        """Join the set. The listeners are open."""
        self._log.store.add_roll_forward(self.may_expire)
        self._log.store.begin_expiry()
        self.member.start(self.link)

    def may_expire(self, offset: int) -> bool:
        """Whether nothing is live below an offset: for the store, in a thread of its own.

        A master looks, stores anew what is, and waits until that is confirmed: it may be a slave by then, whose log is
        cut. A slave lets go what its master has let go.
        """
        broker, following = self._serving.broker, self._following
        if broker is not None:
            if not broker.roll_forward.hook(offset):
                return False
            if self._rolled_forward[0] < offset:
                self._rolled_forward = offset, self._log.end_offset
            return self._log.confirm_offset >= self._rolled_forward[1]
        if following is None or self._leading is not None:
            return False
        return offset <= following.let_go_offset

    async def stop(self) -> None:
        """Leave the set, so that it goes on at once, and serve no more."""
        await self._hand_tables_over()
        await self.member.leave()
        await self.member.stop()
        await self._stop_following()
        await self._serving.read_no_more()
        await self._serving.left()
        await self.link.close()
        await asyncio.gather(*self._savings)

    async def _hand_tables_over(self) -> None:
        """Save what groups have read until now, and wait until replicas have it: else they read it again."""
        broker, leading = self._serving.broker, self._leading
        if broker is None or leading is None or not leading.replicas():
            return
        self.fence()
        try:
            await within(self._clock, HAND_OVER_TIMEOUT_S, _save_pointers(broker.saver))
        except (OSError, StoreError) as error:  # a time-out is an OSError
            _log.warning("the last offsets were not handed over, some messages will come again: %s", error)
        try:
            await within(self._clock, HAND_OVER_TIMEOUT_S, leading.states_stored())
        except TimeoutError:
            _log.warning(
                "a replica has not stored the last tables within %g s: some messages may come again, "
                "if it becomes master",
                HAND_OVER_TIMEOUT_S,
            )

    async def stopped_cleanly(self) -> None:
        """The store is closed, and everything synced."""
        await self._save(clean_stop=True)

    def health(self) -> tuple[bool, str]:
        """Whether this broker plays its part, and which."""
        trouble = self.member.trouble
        if trouble:
            return False, f"{trouble}; {self.link.describe()}"
        following = self._following
        if following is not None and following.phase is Phase.HALTED:
            return False, following.halted_reason
        if self.member.role is Role.LEADING:
            is_serving = self._serving.is_open
            epoch = self.member.master_epoch
            return is_serving, f"master of epoch {epoch}" if is_serving else f"epoch {epoch} begins"
        phase = following.phase if following is not None else Phase.IDLE
        return phase is Phase.COPYING, f"slave in epoch {self.member.master_epoch}: {phase.value}"

    def state(self) -> ReplicationState:
        """For metrics."""
        leading, following = self._leading, self._following
        return ReplicationState(
            is_master=self.member.role is Role.LEADING,
            is_copying=leading is None and following is not None and following.phase is Phase.COPYING,
            master_epoch=self.member.master_epoch,
            end_offset=self._log.end_offset,
            confirm_offset=self._log.confirm_offset,
            members=leading.progress.members if leading is not None else (),
            replicas=leading.replicas() if leading is not None else (),
        )

    def failed_task(self) -> str | None:
        """The name of a background task that ended, for the health check."""
        opening = self._opening
        if opening is not None and opening.done() and not opening.cancelled() and opening.exception() is not None:
            return opening.get_name()
        if self._timers is not None and self._timers.done() and not self._timers.cancelled():
            return self._timers.get_name()
        return self.member.failed_task()

    # Part, see service/set_member.py

    def joined(self, broker_id: int, *, is_learner: bool) -> None:
        """It has an id."""
        self._is_learner = is_learner
        if self._following is None:
            identity = ReplicaIdentity(
                cluster=self._config.identity.cluster_name,
                broker_name=self._config.identity.broker_name,
                broker_id=broker_id,
                incarnation=self._membership.incarnation,
                is_learner=is_learner,
            )
            self._following = Following(
                self._log,
                identity=identity,
                network=self._network,
                clock=self._clock,
                on_state=self._take_table,
                acks_flushed=self._config.store.flush_disk_type is FlushDiskType.SYNC_FLUSH,
            )
        else:
            self._following.set_learner(is_learner)
        self._later(self._save(broker_id=broker_id))

    def registration_accepted(self) -> None:
        """The controllers know what the last stop was like."""
        self._later(self._save(lost_unsynced=False))

    def told(self, told: Told) -> None:
        """A slave remembers each state; a master before it acts on it, see `begin_epoch` and `take_set`."""
        if told.master_id != self.member.broker_id:
            self._later(self._remember(told.master_epoch, told.set_epoch, told.members))

    async def begin_epoch(self, epoch: int) -> None:
        """Note durably that the epoch begins at the log's end, and first with which set."""
        told = self.member.view.told
        await self._remember(told.master_epoch, told.set_epoch, told.members)
        await self._stop_following()
        await self._log.begin_epoch(epoch)

    async def lead(self, epoch: int, known: TakeSet) -> None:
        """Begin to serve as master."""
        await self._end_epoch()
        leading = self._leading = self._leading_of(epoch, known)
        self._confirmation = self._confirmation_of(leading)
        leading.start()
        self._opening = asyncio.create_task(self._open(leading, self._confirmation, epoch), name="begin-epoch")
        self._opening.add_done_callback(self._opened)

    def _leading_of(self, epoch: int, known: TakeSet) -> Leading:
        return Leading(
            self._log,
            epoch=epoch,
            own=Member(self.member.broker_id, self._membership.incarnation),
            known=known,
            min_in_sync=self._config.replication.in_sync_min,
            clock=self._clock,
            propose=self._propose,
            on_confirm=self._confirmed,
            states=self._tables,
        )

    def _confirmation_of(self, leading: Leading) -> Confirmation:
        replication = self._config.replication
        return Confirmation(
            end_offset=lambda: self._log.end_offset,
            progress=leading.progress,
            written=leading.written,
            waits=replication.acknowledge_after is AcknowledgeAfter.REPLICAS,
            is_lease_good=lambda: self.beats.is_lease_good,
            waiting_max=self._config.limits.waiting_acknowledgements_max,
            timeout_s=replication.replica_timeout_ms / 1000,
        )

    def _route_epoch(self, epoch: int) -> int:
        """The master epoch that name servers are told."""
        return epoch

    async def take_set(self, known: TakeSet) -> None:
        """The set of the epoch that is led: remembered before anything is acknowledged by it."""
        leading = self._leading
        if leading is not None:
            await self._remember(leading.epoch, known.set_epoch, known.members)
            leading.take_set(known)

    def fence(self) -> None:
        """Acknowledge nothing more."""
        if self._confirmation is not None:
            self._confirmation.fence()

    async def stop_leading(self) -> None:
        """Serve no more as master."""
        await self._end_epoch()

    async def follow(self, master_id: int, epoch: int, master: ReplicaInSet | None) -> None:
        """Copy from this master."""
        await self._end_epoch()
        if master is None:
            _log.error("the controllers name master %d and not its address: nothing is copied", master_id)
            return
        if self._following is not None:
            self._copied = None
            if master.mesh_address:
                self._following.follow(master_id, epoch, master.mesh_address)
            await self._serving.read_along(
                self._log.store, self.member.broker_id, self._route_epoch(epoch), self._is_copying
            )
            if self._timers is None:
                intake = TimerIntake(self._log.store, LogReads(self._log.store, self._config.store.hot_window_bytes))
                self._timers = asyncio.create_task(intake.follow(self._clock), name="follow-timers")

    def _is_copying(self) -> bool:
        return self._following is not None and self._following.phase is Phase.COPYING

    async def _stop_following(self) -> None:
        timers, self._timers = self._timers, None
        if timers is not None:
            timers.cancel()
            await asyncio.gather(timers, return_exceptions=True)
        if self._following is not None:
            await self._following.stop()

    # The epoch that is led

    async def _open(self, leading: Leading, confirmation: Confirmation, epoch: int) -> None:
        await leading.settled()
        _log.info("epoch %d begins: all %d bytes of the log are confirmed", epoch, self._log.end_offset)
        await self._serving.prepare(
            self._log.store,
            confirmation=confirmation,
            on_table_change=partial(_tell_replicas, leading),
            until_confirmed=partial(self._until_confirmed, leading),
        )
        async for name, data in self._tables():  # loading made what every broker has, and cut back what was ahead
            leading.state_changed(name, data, whole=True)
        self._serving.open_doors()
        await self._serving.read_no_more()
        await self._serving.announce(master_epoch=self._route_epoch(epoch))

    async def _until_confirmed(self, leading: Leading, offset: int) -> None:
        """For tables that point into the log. Errors: NotConfirmed."""
        try:
            await within(self._clock, CONFIRM_TIMEOUT_S, leading.until_confirmed(offset))
        except (TimeoutError, LeadershipEnded) as error:
            confirmed = self._log.confirm_offset
            raise NotConfirmed(f"the log is confirmed up to {confirmed}, and not up to {offset}: {error}") from error

    def _opened(self, opening: asyncio.Task[None]) -> None:
        error = None if opening.cancelled() else opening.exception()
        if error is not None:
            self.member.give_up(error)

    async def _end_epoch(self) -> None:
        self.fence()
        self._rolled_forward = (0, 0)
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        leading, self._leading, self._confirmation = self._leading, None, None
        if leading is not None:
            leading.end()
        try:
            await self._serving.withdraw()
            await self._serving.answer_waiting()
            await self._serving.close()
        finally:
            if leading is not None:
                await leading.stop()

    async def _tables(self) -> AsyncIterator[tuple[str, bytes]]:
        """All tables by name: those in memory, or the files as long as there are none."""
        broker = self._serving.broker
        if broker is not None:
            async for name, data in broker.saver.wholes():
                yield name, data
        else:
            for name, data in await self._copies().wholes():
                yield name, data

    def _copies(self) -> TableCopies:
        """The tables' files, read anew: a Broker may have written them since."""
        return TableCopies(lambda: metadata_files(self._disk, Path(self._config.store.path)))

    async def _take_table(self, name: str, data: bytes, whole: bool) -> None:
        if self._copied is None:
            self._copied = self._copies()
        await self._copied.take(name, data, whole)
        self._serving.take_table(name, data)

    def _propose(self, proposal: Propose) -> None:
        _log.info("proposes the set %s", [each.broker_id for each in proposal.members])
        self._later(self._remember_and_propose(proposal))

    async def _remember_and_propose(self, proposal: Propose) -> None:
        """Whoever may be in the set by this proposal is known on the disk before the controllers hear of it."""
        wanted = {each.broker_id for each in proposal.members}
        leading = self._leading
        members = wanted if leading is None else wanted | leading.progress.members
        await self._remember(proposal.epoch, proposal.set_epoch, members)
        self.link.propose(proposal)

    def _confirmed(self, offset: int) -> None:
        if self._confirmation is not None:
            self._confirmation.confirmed(offset)

    # What the directory knows of itself

    def _registration(self, broker_id: int) -> Registration:
        return Registration(
            broker_id=broker_id,
            address=self._endpoints.get("remoting") or self._endpoints["mesh"],
            mesh_address=self._endpoints["mesh"],
            boot_id=self._boot_id,
            clean_stop=self._was_clean,
            lost_unsynced=self._membership.lost_unsynced,
            last_epoch=self._log.last_epoch,
            end_offset=self._log.end_offset,
            priority=self._config.replication.priority,
            is_learner=self._is_learner,
            known_members=self._membership.members,
            known_master_epoch=self._membership.master_epoch,
            known_set_epoch=self._membership.set_epoch,
        )

    def _later(self, saving: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(self._try(saving), name="save-membership")
        self._savings.add(task)
        task.add_done_callback(self._savings.discard)

    async def _try(self, saving: Coroutine[None, None, None]) -> None:
        """What is not written is not done either, or known to the controllers; proposals are made again."""
        try:
            await saving
        except OSError as error:
            _log.error("setMember.json could not be written: %s", error)

    async def _remember(self, master_epoch: int, set_epoch: int, members: Collection[int]) -> None:
        async with self._saving:
            await self._replace(remembering(self._membership, master_epoch, set_epoch, members))

    async def _save(self, **changes: object) -> None:
        async with self._saving:
            await self._replace(msgspec.structs.replace(self._membership, **changes))

    async def _replace(self, membership: SetMembership) -> None:
        if membership != self._membership:
            await asyncio.to_thread(self._member_file.save, membership)
            self._membership = membership


async def _save_pointers(saver: MetadataSaver) -> None:
    await saver.save_consumer_offsets()
    await saver.save_delay_progress()


def _tell_replicas(leading: Leading, name: str, data: bytes) -> None:
    leading.state_changed(name, data, whole=False)


def boot_time() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where the system has one."""
    clock_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock_id)


def read_boot_id() -> str:
    """Which start of the machine this is.

    Where no file tells it, each start of a broker counts as one of the machine: that is safe.
    """
    try:
        return BOOT_ID_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return f"process-{time.time_ns()}"
