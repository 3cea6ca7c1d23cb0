"""The client of an etcd cluster, as the controller uses it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING

from apogeemq.controller.core.etcd import Change, Found, Lease, Outcome, StoredKey, Transaction
from apogeemq.controller.errors import LeaseGone
from apogeemq.controller.etcd_api import v3_pb2 as pb
from apogeemq.controller.links.etcd.calls import Calls, Credentials
from apogeemq.controller.links.etcd.keep_alives import KeepAlives
from apogeemq.controller.links.etcd.kept_lease import KeptLease
from apogeemq.controller.links.etcd.members import Members
from apogeemq.controller.links.etcd.methods import LEASE_GRANT, LEASE_REVOKE, LEASE_TIME_TO_LIVE, RANGE, STATUS, TXN
from apogeemq.controller.links.etcd.values import outcome, stored_key, txn_request
from apogeemq.controller.links.etcd.watch import Watch

if TYPE_CHECKING:
    from apogeemq.mesh.clock import Clock
    from apogeemq.mesh.tls import ClientTls

PAGE_KEYS = 500
"""Keys in one answer of a read; a longer range is read in pages, all at the first one's revision."""


_ALARM = re.compile(r"\balarm:(\w+)")


def boottime_ms() -> int:
    """Milliseconds of the clock that leases are believed in by: it goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class EtcdClient:
    """Calls, leases and watches over the members at `endpoints` ("host:port" each).

    Every call has a time and ends within it. Errors are told in `apogeemq.controller.errors`.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        clock: Clock,
        tls: ClientTls | None = None,
        credentials: Credentials | None = None,
        elapsed_ms: Callable[[], int] = boottime_ms,
    ) -> None:
        self._clock = clock
        self._elapsed_ms = elapsed_ms
        self._calls = Calls(Members(endpoints, tls), clock, credentials)
        self._keep_alives = KeepAlives(self._calls)

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> Outcome:
        """Carry out a transaction. EtcdOutcomeUnknown says that it may or may not have been done."""
        return outcome(await self._calls.call(TXN, txn_request(transaction), timeout_s=timeout_s))

    async def read(self, key: bytes, range_end: bytes = b"", *, timeout_s: float) -> Found:
        """Read a key, or the keys of a range, as the cluster agrees on them now."""
        end_s = self._clock.monotonic() + timeout_s
        keys: list[StoredKey] = []
        revision = 0
        while True:
            request = pb.RangeRequest(key=key, range_end=range_end, limit=PAGE_KEYS, revision=revision)
            answer = await self._calls.call(RANGE, request, timeout_s=end_s - self._clock.monotonic())
            keys += map(stored_key, answer.kvs)
            revision = revision or answer.header.revision
            if not answer.more:
                return Found(revision, tuple(keys))
            key = keys[-1].key + b"\0"

    async def grant(self, ttl_s: int, *, timeout_s: float) -> Lease:
        """Get a lease; etcd may grant more than was asked for (its least is about 2 s)."""
        sent_ms = self._elapsed_ms()
        answer = await self._calls.call(LEASE_GRANT, pb.LeaseGrantRequest(TTL=ttl_s), timeout_s=timeout_s)
        return Lease(answer.ID, answer.TTL, sent_ms)

    def keep(self, lease: Lease) -> KeptLease:
        """Begin to keep a lease alive."""
        kept = KeptLease(lease, self._keep_alives, self._clock, self._elapsed_ms)
        kept.start()
        return kept

    async def beat(self, lease_id: int, *, timeout_s: float) -> int:
        """Keep a lease alive once; gives its time to live in seconds. Raises LeaseGone when it has ended."""
        return await self._keep_alives.beat(lease_id, timeout_s)

    async def seconds_left(self, lease_id: int, *, timeout_s: float) -> int:
        """How long a lease lives without another beat. Raises LeaseGone when it has ended."""
        request = pb.LeaseTimeToLiveRequest(ID=lease_id)
        answer = await self._calls.call(LEASE_TIME_TO_LIVE, request, timeout_s=timeout_s, lease_id=lease_id)
        if answer.TTL < 0:
            raise LeaseGone(lease_id)
        return answer.TTL

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        """End a lease and delete its keys. Raises LeaseGone when it has ended before."""
        request = pb.LeaseRevokeRequest(ID=lease_id)
        await self._calls.call(LEASE_REVOKE, request, timeout_s=timeout_s, lease_id=lease_id)

    async def alarms(self, *, timeout_s: float) -> frozenset[str]:
        """Names of the alarms that the cluster has raised ("NOSPACE", "CORRUPT"); any member knows them."""
        answer = await self._calls.call(STATUS, pb.StatusRequest(), timeout_s=timeout_s)
        return frozenset(_ALARM.findall(" ".join(answer.errors)))

    def watch(
        self, key: bytes, range_end: bytes = b"", *, start_revision: int
    ) -> AsyncGenerator[tuple[Change, ...], None]:
        """Changes of a range from `start_revision` on, told once and in order; see Watch.changes."""
        return Watch(self._calls, self._clock, key, range_end, start_revision).changes()

    async def close(self) -> None:
        """End all that is under way."""
        await asyncio.gather(self._keep_alives.close(), self._calls.members.close())
