"""Which brokers are alive: each has an etcd lease, which every controller prolongs when it beats.

```
 lease    granted ──beat, beat, beat──▶ expired            in etcd; any controller's beats count
 stream   open ─────────▶ broken ──500 ms──▶ silent        to this controller
 alive  = lease not expired, and a stream that is not silent, or none since this controller became active
```

A broker beats to two controllers, so that the death of one expires nobody. A controller that becomes active acts on no
expiry and no silence for one TTL, in which the brokers come to it (architecture §6.2). All this only detects: an
election is safe whoever is alive (§6.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

STREAM_GRACE_MS = 500
REGISTER_AGAIN_MS = 1_000
"""How long a stream may be without a lease."""


@dataclass(frozen=True, slots=True)
class BecameActive:
    """This controller decides from now on; each broker that etcd knows of gets a full TTL."""

    ttl_ms: int
    broker_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A broker's stream arrived here."""

    broker_id: int


@dataclass(frozen=True, slots=True)
class StreamBroken:
    """It ended, however."""

    broker_id: int


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """etcd has a lease of this broker."""

    broker_id: int


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """etcd let it expire."""

    broker_id: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event: TypeAlias = BecameActive | StreamOpened | StreamBroken | LeaseSeen | LeaseEnded | Tick


@dataclass(frozen=True, slots=True)
class Came:
    """A broker counts as alive."""

    broker_id: int


@dataclass(frozen=True, slots=True)
class Gone:
    """A broker counts as dead: elections pass it over, and its mastership is vacant."""

    broker_id: int


@dataclass(frozen=True, slots=True)
class RegisterAgain:
    """A broker has a stream and no lease: it expired, or belongs to another of its registrations."""

    broker_id: int


Effect: TypeAlias = Came | Gone | RegisterAgain


class Liveness:
    """The brokers of one set, as one controller sees them: a stand-by judges as well, so that it knows the living."""

    def __init__(self) -> None:
        self._leases: set[int] = set()
        self._streams: set[int] = set()
        self._silent_at_ms: dict[int, int] = {}
        self._register_due_ms: dict[int, int] = {}
        self._alive: set[int] = set()
        self._acts_from_ms = 0

    @property
    def alive(self) -> frozenset[int]:
        """Broker ids that count as alive."""
        return frozenset(self._alive)

    @property
    def connected(self) -> frozenset[int]:
        """Those whose stream is open here."""
        return frozenset(self._streams)

    @property
    def is_quiet(self) -> bool:
        """Whether a Tick changes nothing, whenever it comes: stream and lease have all who live, and nobody else."""
        return self._streams == self._leases == self._alive and not self._register_due_ms

    def step(self, event: Event, now_ms: int) -> tuple[Effect, ...]:
        """What changed for elections."""
        match event:
            case BecameActive():
                self._acts_from_ms = now_ms + event.ttl_ms
                self._alive.update(event.broker_ids)
            case StreamOpened():
                self._streams.add(event.broker_id)
                self._silent_at_ms.pop(event.broker_id, None)
            case StreamBroken():
                self._streams.discard(event.broker_id)
                self._silent_at_ms[event.broker_id] = now_ms + STREAM_GRACE_MS
            case LeaseSeen():
                self._leases.add(event.broker_id)
            case LeaseEnded():
                self._leases.discard(event.broker_id)
            case Tick():
                pass
        return self._judge(now_ms)

    def _judge(self, now_ms: int) -> tuple[Effect, ...]:
        came = sorted((self._streams & self._leases) - self._alive)
        self._alive.update(came)
        gone = [each for each in sorted(self._alive) if now_ms >= self._acts_from_ms and self._is_gone(each, now_ms)]
        self._alive.difference_update(gone)
        return (*map(Came, came), *map(Gone, gone), *self._without_lease(now_ms))

    def _without_lease(self, now_ms: int) -> tuple[RegisterAgain, ...]:
        """Two registrations of one broker make two leases, and the key may hang on the one that nobody prolongs."""
        without = self._streams - self._leases
        self._register_due_ms = {
            each: self._register_due_ms.get(each, now_ms + REGISTER_AGAIN_MS) for each in sorted(without)
        }
        due = [each for each, due_ms in self._register_due_ms.items() if due_ms <= now_ms]
        self._register_due_ms.update(dict.fromkeys(due, now_ms + REGISTER_AGAIN_MS))
        return tuple(map(RegisterAgain, due))

    def _is_gone(self, broker_id: int, now_ms: int) -> bool:
        """No lease, or no stream: one that broke has its grace, one that never came to a new active one had its TTL."""
        if broker_id in self._streams:
            return broker_id not in self._leases
        return broker_id not in self._leases or now_ms >= self._silent_at_ms.get(broker_id, 0)
