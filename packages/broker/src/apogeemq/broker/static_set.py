"""A broker set without controllers: brokerRole says who is master for ever (docs/ha.md, "Static roles"; ADR 0034).

The parts of a set with controllers, with one decider fewer: the master's SyncStateSet is itself alone, its slaves are
learners. Streams are of one epoch for ever; the log's own epochs count the master's starts, so that a slave whose log
went on where the master lost the end of its own finds where they part.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from apogeemq.broker.config import BrokerRole
from apogeemq.broker.core.replication import role as roles
from apogeemq.broker.core.replication.progress import Member, Propose, TakeSet
from apogeemq.broker.core.replication.set_view import Registration, ReplicaInSet
from apogeemq.broker.links.static_master import StaticMaster
from apogeemq.broker.replicating import Replicating
from apogeemq.broker.service.confirmation import Confirmation
from apogeemq.broker.service.leading import Leading
from apogeemq.broker.service.set_member import Controllers, Lease, Part, SetMember
from apogeemq.broker.service.slave_copies import SlaveCopies
from apogeemq.mesh.clock import Clock

MASTER_ID = 0
STREAM_EPOCH = 1
"""Of every stream from a static master."""
LOOK_S = 1.0
"""How often a slave asks where its master is."""

_log = logging.getLogger(__name__)


class StaticMember(SetMember):
    """The member whose part the settings decide.

    Args:
        find_master: asks the name servers for the master's mesh address; empty where none knows it.
    """

    def __init__(
        self,
        broker_id: int,
        *,
        last_epoch: Callable[[], int],
        part: Part,
        lease: Lease,
        clock: Clock,
        find_master: StaticMaster,
    ) -> None:
        super().__init__(
            broker_id, last_epoch=last_epoch, registration=_no_registration, part=part, lease=lease, clock=clock
        )
        self.trouble = ""
        self._find_master = find_master

    @property
    def role(self) -> roles.Role:
        """As set."""
        return roles.Role.LEADING if self.broker_id == MASTER_ID else roles.Role.FOLLOWING

    @property
    def master_epoch(self) -> int:
        """The newest of the log."""
        return self._last_epoch()

    def start(self, link: Controllers) -> None:
        """Begin to play the part; no controller is asked."""
        self._part.joined(self.broker_id, is_learner=self.broker_id != MASTER_ID)
        playing = self._lead() if self.broker_id == MASTER_ID else self._look()
        self._tasks = [asyncio.create_task(playing, name="static-part")]

    def failed_task(self) -> str | None:
        """The name of a task that failed, for the health check; leading is begun once, and its task then ends."""
        failed = (each for each in self._tasks if each.done() and not each.cancelled() and each.exception())
        return next((each.get_name() for each in failed), None)

    async def leave(self) -> None:
        """Acknowledge nothing more."""
        self._part.fence()

    async def stop(self) -> None:
        """End the tasks, and the part that is played."""
        await super().stop()
        await self._find_master.close()

    async def _lead(self) -> None:
        try:
            await self._part.begin_epoch(STREAM_EPOCH)
            await self._part.lead(STREAM_EPOCH, TakeSet(frozenset({MASTER_ID}), 0))
        except Exception as error:
            self.give_up(error)
            raise

    async def _look(self) -> None:
        """Read along from the first moment, with the address of a master that nobody knows yet; then by its address."""
        known: str | None = None
        while True:
            address = await self._find_master.mesh_address()
            if known is None or (address and address != known):
                known = address
                await self._part.follow(MASTER_ID, STREAM_EPOCH, ReplicaInSet("", address, 0, is_learner=False))
            await self._clock.sleep(LOOK_S)


class StaticSet(Replicating):
    """One start of one broker of such a set; `open` as a Replicating."""

    _slave_copies: SlaveCopies | None = None

    def start(self) -> None:
        """Play the part that brokerRole names. The listeners are open."""
        identity = self._config.identity
        self.member = StaticMember(
            identity.broker_id,
            last_epoch=lambda: self._log.last_epoch,
            part=self,
            lease=self.beats,
            clock=self._clock,
            find_master=StaticMaster(
                self._serving.targets(),
                network=self._network,
                clock=self._clock,
                cluster=identity.cluster_name,
                broker_name=identity.broker_name,
            ),
        )
        super().start()

    async def begin_epoch(self, epoch: int) -> None:
        """Begin a new epoch of the log, whatever the stream's; remembered beside the log, which may lose its end."""
        del epoch
        own = max(self._log.last_epoch, self._membership.master_epoch) + 1
        await self._remember(own, 0, {MASTER_ID})
        await self._log.begin_epoch(own)

    def _leading_of(self, epoch: int, known: TakeSet) -> Leading:
        return Leading(
            self._log,
            epoch=epoch,
            own=Member(MASTER_ID, self._membership.incarnation),
            known=known,
            min_in_sync=1,
            clock=self._clock,
            propose=_propose_nothing,
            on_confirm=self._confirmed,
            states=self._tables,
            shows_flushed_only=True,
            on_acknowledged=self._slave_acknowledged,
        )

    def _confirmation_of(self, leading: Leading) -> Confirmation:
        replication = self._config.replication
        self._slave_copies = SlaveCopies(
            end_offset=lambda: self._log.end_offset,
            progress=leading.progress,
            written=leading.written,
            waits=self._config.identity.broker_role is BrokerRole.SYNC_MASTER,
            waiting_max=self._config.limits.waiting_acknowledgements_max,
            timeout_s=replication.replica_timeout_ms / 1000,
            slaves=lambda: copying_offsets(leading),
            needed=max(1, replication.in_sync_replicas - 1),
            gap_bytes_max=replication.ha_max_gap_not_in_sync_bytes,
        )
        return self._slave_copies

    def _slave_acknowledged(self) -> None:
        if self._slave_copies is not None:
            self._slave_copies.copied()

    def _route_epoch(self, epoch: int) -> int:
        """None: name servers compare only what controllers gave."""
        del epoch
        return 0


def copying_offsets(leading: Leading) -> Sequence[int]:
    """How far each slave is that has a stream."""
    return [each.offset for each in leading.replicas()]


def _propose_nothing(proposal: Propose) -> None:
    """Slaves are learners: who could come into the set is nobody."""
    _log.error("a master without controllers wants the set %s", proposal)


def _no_registration(broker_id: int) -> Registration:
    raise RuntimeError(f"broker {broker_id} has no controllers to register with")
