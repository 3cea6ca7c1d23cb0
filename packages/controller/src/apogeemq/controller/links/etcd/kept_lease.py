"""A lease that this process keeps alive until it lets go, and that it stops believing in when it can't."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from apogeemq.controller.core.etcd import Lease
from apogeemq.controller.core.lease_beats import LeaseBeats
from apogeemq.controller.errors import EtcdError, LeaseGone

if TYPE_CHECKING:
    from apogeemq.controller.links.etcd.keep_alives import KeepAlives
    from apogeemq.mesh.clock import Clock

_log = logging.getLogger(__name__)


class KeptLease:
    """Beats for one lease from start() on. `lost` is set once it can no longer be believed in, for ever.

    `elapsed_ms` is a clock that goes on while the machine sleeps (CLOCK_BOOTTIME).
    """

    def __init__(self, lease: Lease, keep_alives: KeepAlives, clock: Clock, elapsed_ms: Callable[[], int]) -> None:
        self.lease_id = lease.lease_id
        self.lost = asyncio.Event()
        self._keep_alives = keep_alives
        self._clock = clock
        self._elapsed_ms = elapsed_ms
        self._beats = LeaseBeats(lease.ttl_s * 1000, lease.sent_ms)
        self._task: asyncio.Task[None] | None = None

    @property
    def left_ms(self) -> int:
        """How long it may still be believed in without another good beat; 0 when it is lost."""
        return 0 if self.lost.is_set() else max(0, self._beats.lost_ms - self._elapsed_ms())

    def start(self) -> None:
        """Begin to beat."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop beating; the lease is not revoked, and ends when its time is over."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while not self._beats.is_lost(now_ms := self._elapsed_ms()):
                if now_ms < self._beats.next_ms:
                    due_ms = min(self._beats.next_ms, self._beats.lost_ms)
                    await self._clock.sleep((due_ms - now_ms) / 1000)
                else:
                    await self._beat(now_ms)
            _log.warning("lease %x is lost: no beat was answered for its whole time to live", self.lease_id)
        except LeaseGone:
            _log.warning("lease %x is lost: etcd has ended it", self.lease_id)
        finally:
            self.lost.set()

    async def _beat(self, now_ms: int) -> None:
        timeout_ms = min(self._beats.answer_timeout_ms, self._beats.lost_ms - now_ms)
        try:
            ttl_s = await self._keep_alives.beat(self.lease_id, timeout_ms / 1000)
        except LeaseGone:
            raise
        except EtcdError as error:
            _log.info("a beat of lease %x failed: %s", self.lease_id, error)
            self._beats.failed(self._elapsed_ms())
        else:
            self._beats.answered(now_ms, ttl_s * 1000)
