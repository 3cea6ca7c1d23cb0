"""A broker as a member of its set: it registers, hears who is master, and plays its part.

```
 controllers ──told──▶ RoleOfBroker ──effects──▶ Part: begin_epoch, lead, take_set, stop_leading, follow
      ▲                     │                      one after the other, in this order
      └── Register, Knows, AskElection ◀───────────┘ fence: at once
```
What takes time is done by one task, effect after effect, so that a broker never leads and follows at once. Sends are
refused from the moment that another epoch is heard of, whatever that task is at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from apogeemq.broker.core.replication import role as roles
from apogeemq.broker.core.replication.progress import Propose, TakeSet
from apogeemq.broker.core.replication.role import RoleOfBroker
from apogeemq.broker.core.replication.set_view import Registration, ReplicaInSet, SetView
from apogeemq.mesh.clock import Clock, within

TICK_S = 0.1
REGISTER_AGAIN_S = 1.0
"""Until a registration without answer, or with a refusal, is tried again."""
LEAVE_TIMEOUT_S = 3.0
"""How long a stop waits for the set to have another master."""

_log = logging.getLogger(__name__)


class Controllers(Protocol):
    """The link to the controllers, see links/controllers.py."""

    @property
    def active(self) -> str:
        """The active one; empty while none is reached."""

    async def tick(self, now_s: float) -> None:
        """Open streams that are missing."""

    def register(self, registration: Registration) -> int:
        """Ask for it; 0 where no active controller is reached."""

    def ask_election(self, over_epoch: int) -> None:
        """Ask for another master."""

    def propose(self, proposal: Propose) -> None:
        """Ask for another SyncStateSet."""

    def leave(self) -> int:
        """Ask to be waited for by nobody."""

    def knows(self, master_epoch: int, set_epoch: int) -> None:
        """A state came in."""


class Lease(Protocol):
    """The beats, see links/beats.py."""

    def tick(self) -> None:
        """The event loop is alive."""

    def take_lease(self, broker_id: int, lease_id: int) -> None:
        """Beat for it."""

    def drop_lease(self) -> None:
        """Beat no more."""


class Part(Protocol):
    """What a broker does as master or as slave."""

    def joined(self, broker_id: int, *, is_learner: bool) -> None:
        """It has an id; before all else, and again when it becomes a learner or stops being one."""

    def told(self, told: roles.Told) -> None:
        """A newer state of the set came in, whatever it means for this broker."""

    def registration_accepted(self) -> None:
        """What the registration said of the last stop is known now, and need not be said again."""

    async def begin_epoch(self, epoch: int) -> None:
        """Note durably that the epoch begins at the log's end."""

    async def lead(self, epoch: int, known: TakeSet) -> None:
        """Begin to serve as master; returns before clients are let in."""

    async def take_set(self, known: TakeSet) -> None:
        """The set of the epoch that is led is another one."""

    def fence(self) -> None:
        """Acknowledge nothing more, at once."""

    async def stop_leading(self) -> None:
        """Serve no more as master."""

    async def follow(self, master_id: int, epoch: int, master: ReplicaInSet | None) -> None:
        """Copy from this master; it is None where the controllers do not name its address."""


class SetMember:
    """One start of one broker.

    Args:
        broker_id: 0 where it has none yet.
        last_epoch: newest of the epoch file.
        registration: makes what to register with; asked each time, given the broker id.
        part: what plays it.
        lease: the beats.
    """

    def __init__(
        self,
        broker_id: int,
        *,
        last_epoch: Callable[[], int],
        registration: Callable[[int], Registration],
        part: Part,
        lease: Lease,
        clock: Clock,
    ) -> None:
        self.broker_id = broker_id
        self.is_registered = False
        self.view = SetView(roles.Told(roles.NO_MASTER, 0, frozenset(), -1))
        self.trouble = "no active controller has answered yet"
        self._last_epoch = last_epoch
        self._registration = registration
        self._part = part
        self._lease = lease
        self._clock = clock
        self._link: Controllers | None = None
        self._role: RoleOfBroker | None = None
        self._is_learner = False
        self._is_leaving = False
        """It stops, or can't play its part: it takes no lease any more."""
        self._left = asyncio.Event()
        self._leave_id = 0
        self._register_due_s = 0.0
        self._register_id = 0
        self._effects: asyncio.Queue[roles.Effect] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def role(self) -> roles.Role | None:
        """Where it stands; None before its first registration."""
        return self._role.role if self._role is not None else None

    @property
    def master_epoch(self) -> int:
        """The newest that it knows of."""
        return self._role.epoch if self._role is not None else self._last_epoch()

    def failed_task(self) -> str | None:
        """The name of a task that ended though it should not have, for the health check."""
        return next((each.get_name() for each in self._tasks if each.done() and not each.cancelled()), None)

    def start(self, link: Controllers) -> None:
        """Begin."""
        self._link = link
        self._tasks = [
            asyncio.create_task(self._keep_time(link), name="set-member"),
            asyncio.create_task(self._play(), name="set-member-part"),
        ]

    def give_up(self, error: BaseException) -> None:
        """This broker cannot play its part: it beats no more, so that another one is elected in its place."""
        _log.error("this broker gives up its lease until it is started again", exc_info=error)
        self.trouble = f"it can't play its part: {error}"
        self._is_leaving = True
        self._part.fence()
        self._lease.drop_lease()

    async def leave(self) -> None:
        """Before a clean stop: let the set go on without this broker, and wait for that LEAVE_TIMEOUT_S at most."""
        self._is_leaving = True
        self._part.fence()
        if self._link is None or not self.is_registered:
            return
        self._leave_id = self._link.leave()
        if not self._leave_id:
            _log.warning("no active controller is reached: the set learns of this stop by the end of the lease")
            return
        try:
            await within(self._clock, LEAVE_TIMEOUT_S, self._left.wait())
        except TimeoutError:
            _log.warning("the controller has not answered within %g s that the set goes on", LEAVE_TIMEOUT_S)

    async def stop(self) -> None:
        """End the tasks, and the part that is played."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._lease.drop_lease()
        self._part.fence()
        await self._part.stop_leading()

    # What the controllers say (links.controllers.ControllerEvents)

    def registered(self, request_id: int, broker_id: int, lease_id: int, view: SetView) -> None:
        """A registration was accepted."""
        if self._is_leaving:
            return
        if self.broker_id not in {0, broker_id}:
            _log.warning("this is broker %d: the late answer for broker %d is passed over", self.broker_id, broker_id)
            return
        self.is_registered, self.trouble = True, ""
        self.broker_id = broker_id
        self._learner(view, is_first=self._role is None)
        self._lease.take_lease(broker_id, lease_id)
        self._part.registration_accepted()
        if self._role is None:
            self._role = RoleOfBroker(broker_id, self._last_epoch())
            _log.info("this is broker %d of its set", broker_id)
        self.told(view)

    def accepted(self, request_id: int, view: SetView) -> None:
        """Anything else was accepted."""
        if self._leave_id and request_id == self._leave_id:
            self._left.set()
            self.is_registered = False
            self._lease.drop_lease()
            return
        self.told(view)

    def refused(self, request_id: int, code: int, text: str) -> None:
        """It was not."""
        if self._leave_id and request_id == self._leave_id:
            _log.warning("the set was not left in order: %s", text)
            self._left.set()
        elif request_id in {0, self._register_id}:
            if text != self.trouble:
                _log.error("this broker is refused (%d): %s", code, text)
            self.trouble = text
        else:
            _log.info("refused (%d): %s", code, text)

    def told(self, view: SetView) -> None:
        """The set's state."""
        if self._role is None or self._is_leaving:
            return
        if (view.told.master_epoch, view.told.set_epoch) >= (self.view.told.master_epoch, self.view.told.set_epoch):
            self.view = view
            self._learner(view)
            self._part.told(view.told)
        self._step(view.told)

    def register_again(self) -> None:
        """The lease has ended."""
        if self.is_registered and not self._is_leaving:
            _log.info("the lease has ended: registering again")
            self.is_registered = False
            self._lease.drop_lease()
            self._register_due_s = 0.0

    # The role

    def _learner(self, view: SetView, *, is_first: bool = False) -> None:
        own = view.replicas.get(self.broker_id)
        is_learner = own.is_learner if own is not None else self._is_learner
        if is_first or is_learner != self._is_learner:
            self._is_learner = is_learner
            self._part.joined(self.broker_id, is_learner=is_learner)

    def _step(self, event: roles.Event) -> None:
        if self._role is None:
            return
        for effect in self._role.step(event, int(self._clock.monotonic() * 1000)):
            match effect:
                case roles.Knows(master_epoch, set_epoch):
                    if self._link is not None:
                        self._link.knows(master_epoch, set_epoch)
                case roles.AskElection(over_epoch):
                    if self._link is not None:
                        self._link.ask_election(over_epoch)
                case roles.StopLeading():
                    self._part.fence()
                    self._effects.put_nowait(effect)
                case _:
                    self._effects.put_nowait(effect)

    async def _play(self) -> None:
        """Do what takes time, one after the other."""
        try:
            while True:
                await self._do(await self._effects.get())
        except Exception as error:
            self.give_up(error)
            raise

    async def _do(self, effect: roles.Effect) -> None:
        match effect:
            case roles.SaveEpoch(epoch):
                await self._part.begin_epoch(epoch)
                self._step(roles.EpochSaved(epoch))
            case roles.Lead(epoch, members, set_epoch):
                _log.info("leads epoch %d with set %s", epoch, sorted(members))
                await self._part.lead(epoch, TakeSet(members, set_epoch))
            case roles.TakeSet(members, set_epoch):
                _log.info("the set is %s now", sorted(members))
                await self._part.take_set(TakeSet(members, set_epoch))
            case roles.StopLeading():
                _log.info("leads no longer")
                await self._part.stop_leading()
            case roles.Follow(master_id, epoch):
                _log.info("follows broker %d in epoch %d", master_id, epoch)
                await self._part.follow(master_id, epoch, self.view.replicas.get(master_id))

    async def _keep_time(self, link: Controllers) -> None:
        while True:
            self._lease.tick()
            now_s = self._clock.monotonic()
            await link.tick(now_s)
            if not self.is_registered and not self._is_leaving and now_s >= self._register_due_s:
                self._register(link, now_s)
            self._step(roles.Tick())
            await self._clock.sleep(TICK_S)

    def _register(self, link: Controllers, now_s: float) -> None:
        if link.active:
            self._register_due_s = now_s + REGISTER_AGAIN_S
            self._register_id = link.register(self._registration(self.broker_id))
