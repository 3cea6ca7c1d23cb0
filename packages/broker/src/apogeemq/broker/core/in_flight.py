"""What waits for something outside the loop, and lies in memory meanwhile: bounded, per client and in all.

`check` is asked before anything is stored or sent on; what waits then is in flight from `enter` to `leave`. It belongs
to a client: a connection here, or nobody (None) where a proxy asked, which has bounds of its own for its clients.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from apogeemq.broker.errors import SystemBusy

ENTRY_SIZE_BYTES = 1024
"""What one that waits takes beside its body: its command, who is to be answered, its place in a line."""


class Limit(NamedTuple):
    """A bound, with the name of its setting."""

    name: str
    value: int


@dataclass(slots=True)
class Share:
    """What one client has in flight."""

    count: int = 0
    size_bytes: int = 0


class InFlight:
    """One kind of what is in flight. A limit in bytes never refuses the only one, however large it is.

    Args:
        what: names the kind in refusals, in the plural, with what it waits for.
        count, size_bytes: bounds of all together.
        client_count, client_size_bytes: bounds of one client.
    """

    def __init__(
        self, what: str, *, count: Limit, size_bytes: Limit, client_count: Limit, client_size_bytes: Limit
    ) -> None:
        self.count = 0
        self.size_bytes = 0
        self._what = what
        self._count_max = count
        self._size_bytes_max = size_bytes
        self._client_count_max = client_count
        self._client_size_bytes_max = client_size_bytes
        self._shares: dict[Hashable, Share] = {}

    def check(self, client: Hashable | None, size_bytes: int, count: int = 1) -> None:
        """Raise SystemBusy, naming the limit, where so much more would be too much."""
        size_bytes += count * ENTRY_SIZE_BYTES
        if self.count + count > self._count_max.value or self.size_bytes + size_bytes > self._size_bytes_max.value:
            _check(self._what, "in all", self, count, size_bytes, self._count_max, self._size_bytes_max)
        share = self._shares.get(client)
        if share is not None and (
            share.count + count > self._client_count_max.value
            or share.size_bytes + size_bytes > self._client_size_bytes_max.value
        ):
            limits = self._client_count_max, self._client_size_bytes_max
            _check(self._what, "of this client", share, count, size_bytes, *limits)

    def enter(self, client: Hashable | None, size_bytes: int, count: int = 1) -> None:
        """Some more are in flight."""
        size_bytes += count * ENTRY_SIZE_BYTES
        self.count += count
        self.size_bytes += size_bytes
        if client is not None:
            share = self._shares.get(client)
            if share is None:
                share = self._shares[client] = Share()
            share.count += count
            share.size_bytes += size_bytes

    def leave(self, client: Hashable | None, size_bytes: int, count: int = 1) -> None:
        """They are not any more; the same numbers as at `enter`."""
        size_bytes += count * ENTRY_SIZE_BYTES
        self.count -= count
        self.size_bytes -= size_bytes
        if client is not None:
            share = self._shares[client]
            share.count -= count
            share.size_bytes -= size_bytes
            if not share.count:
                del self._shares[client]


def _check(
    what: str,
    whose: str,
    now: InFlight | Share,
    count: int,
    size_bytes: int,
    count_max: Limit,
    size_bytes_max: Limit,
) -> None:
    """Refuse by the first of the two limits that is passed. The only one passes, whatever its size."""
    if now.count + count > count_max.value:
        limit, there, more = count_max, f"{now.count}", count
    elif now.count:
        limit, there, more = size_bytes_max, f"{now.size_bytes} bytes", size_bytes
    else:
        return
    raise SystemBusy(
        f"[OVERLOAD] {what}: {there} {whose}, {more} more would be too many, the limit ({limit.name}) is {limit.value}",
        limit=limit.name,
    )
