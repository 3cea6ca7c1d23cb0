"""What the service asks of etcd: a port, so that tests may stand in for the cluster."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from apogeemq.controller.core.etcd import Change, Found, Lease, Outcome, Transaction


class EtcdCalls(Protocol):
    """See links.etcd.client.EtcdClient, which is the real one."""

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> Outcome:
        """Carry out a transaction."""
        ...

    async def read(self, key: bytes, range_end: bytes = b"", *, timeout_s: float) -> Found:
        """Read a range of keys."""
        ...

    async def grant(self, ttl_s: int, *, timeout_s: float) -> Lease:
        """Make a lease."""
        ...

    async def beat(self, lease_id: int, *, timeout_s: float) -> int:
        """Keep a lease alive once; gives its time to live in seconds."""
        ...

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        """End a lease and delete its keys."""
        ...

    async def alarms(self, *, timeout_s: float) -> frozenset[str]:
        """Names of the alarms that etcd has raised."""
        ...

    def watch(
        self, key: bytes, range_end: bytes = b"", *, start_revision: int
    ) -> AsyncGenerator[tuple[Change, ...], None]:
        """Changes of a range from a revision on."""
        ...
