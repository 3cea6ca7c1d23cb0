"""One controller's part in who is active: core/leadership.py with etcd around it.

Its lease is what shows whether etcd can be reached at all, also by a controller that is not active: `trouble` says
what is wrong, as etcd or the network told it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from apogeemq.controller.core import leadership
from apogeemq.controller.core.etcd import Transaction
from apogeemq.controller.errors import EtcdClosed, EtcdError, LeaseGone
from apogeemq.controller.service.etcd_calls import EtcdCalls
from apogeemq.controller.service.tasks import Tasks

BEAT_TIMEOUT_S_MAX = 1.0

_log = logging.getLogger(__name__)


class Campaign:
    """Campaigns from start() to stop().

    Args:
        key: the active controller's.
        name: this controller's mesh endpoint, which is written there.
        elapsed_ms: a clock that goes on while the machine sleeps; leases are believed in by it.
        on_active: called with the revision that made the key, when this controller becomes active.
        on_lost: called when it is active no longer.
        on_trouble: called when `trouble` changes.
    """

    def __init__(
        self,
        etcd: EtcdCalls,
        key: bytes,
        name: str,
        *,
        ttl_s: int,
        call_timeout_s: float,
        elapsed_ms: Callable[[], int],
        on_active: Callable[[int], None],
        on_lost: Callable[[], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self.name = name
        self._etcd = etcd
        self._machine = leadership.Leadership(key, name.encode(), ttl_ms=ttl_s * 1000)
        self._call_timeout_s = call_timeout_s
        self._beat_timeout_s = min(BEAT_TIMEOUT_S_MAX, ttl_s / 3)
        self._elapsed_ms = elapsed_ms
        self._on_active = on_active
        self._on_lost = on_lost
        self._on_trouble = on_trouble
        self._tasks = Tasks()
        self._trouble = "etcd was not asked yet"

    @property
    def is_active(self) -> bool:
        """Whether this controller believes to be the active one; what it rests on is compared in each transaction."""
        return self._machine.standing is leadership.Standing.ACTIVE

    @property
    def trouble(self) -> str:
        """Why etcd cannot be used; empty where it answers."""
        return self._trouble

    def tick(self) -> None:
        """Look at what is due."""
        self._step(leadership.Tick())

    def key_gone(self) -> None:
        """The watch saw the active controller's key go."""
        self._step(leadership.KeyGone())

    async def stop(self) -> None:
        """Resign: another controller takes over at once."""
        await self._tasks.stop()
        for effect in self._machine.step(leadership.Resign(), self._elapsed_ms()):
            match effect:
                case leadership.RevokeLease(lease_id):
                    await self._revoke(lease_id)
                case leadership.Lost():
                    self._on_lost()

    def _step(self, event: leadership.Event) -> None:
        for effect in self._machine.step(event, self._elapsed_ms()):
            match effect:
                case leadership.GrantLease(ttl_ms):
                    self._tasks.start(self._grant(ttl_ms))
                case leadership.Beat(lease_id):
                    self._tasks.start(self._beat(lease_id))
                case leadership.Campaign(lease_id, transaction):
                    self._tasks.start(self._campaign(lease_id, transaction))
                case leadership.RevokeLease(lease_id):
                    self._tasks.start(self._revoke(lease_id))
                case leadership.ActiveAs(create_revision):
                    _log.info("this controller is active, by the key of revision %d", create_revision)
                    self._on_active(create_revision)
                case leadership.Lost(reason):
                    _log.warning("this controller is active no longer: %s", reason)
                    self._on_lost()

    async def _grant(self, ttl_ms: int) -> None:
        try:
            lease = await self._etcd.grant(ttl_ms // 1000, timeout_s=self._call_timeout_s)
        except EtcdError as error:
            self._failed(error)
        else:
            self._answered()
            self._step(leadership.LeaseGranted(lease.lease_id, lease.ttl_s * 1000, lease.sent_ms))

    async def _beat(self, lease_id: int) -> None:
        sent_ms = self._elapsed_ms()
        try:
            ttl_s = await self._etcd.beat(lease_id, timeout_s=self._beat_timeout_s)
        except LeaseGone:
            ttl_s = 0
        except EtcdError as error:
            self._failed(error)
            return
        self._answered()
        self._step(leadership.BeatAnswered(lease_id, ttl_s * 1000, sent_ms))

    async def _campaign(self, lease_id: int, transaction: Transaction) -> None:
        try:
            outcome = await self._etcd.transact(transaction, timeout_s=self._call_timeout_s)
        except LeaseGone:
            outcome = None
        except EtcdError as error:
            self._failed(error)
            outcome = None
        else:
            self._answered()
        self._step(leadership.Campaigned(lease_id, outcome))

    async def _revoke(self, lease_id: int) -> None:
        try:
            await self._etcd.revoke(lease_id, timeout_s=self._call_timeout_s)
        except LeaseGone:
            pass  # that is what was wanted
        except EtcdError as error:
            _log.info("lease %x was not given back and ends by itself: %s", lease_id, error)

    def _answered(self) -> None:
        self._note("")

    def _failed(self, error: EtcdError) -> None:
        if not isinstance(error, EtcdClosed):
            self._note(str(error))

    def _note(self, trouble: str) -> None:
        if trouble == self._trouble:
            return
        if trouble:
            _log.error("etcd cannot be used: %s", trouble)
        elif self._trouble:
            _log.info("etcd answers")
        self._trouble = trouble
        self._on_trouble(trouble)
