"""Which controller is active: a step machine over etcd's lease and one key.

```
        start               LeaseGranted               won
 IDLE ─────────▶ GRANTING ───────────────▶ CAMPAIGNING ─────▶ ACTIVE
   ▲  GrantLease    │ refused                │ lost: WAITING     │ TTL since the last good beat was sent, or the lease
   └────────────────┴──────── Tick ◀─────────┴───────────────────┘ is gone: Lost
```

Campaigning is "create the key if it is absent", under the controller's own lease. Being active is a belief: what
it rests on is that each of its transactions compares the key's create revision (`ActiveAs.create_revision`), so that a
controller that lost the key without knowing changes nothing (architecture §6.1, §6.3).

Times are milliseconds of a clock that never goes back. Effects are to be run in their order.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from apogeemq.controller.core.etcd import Outcome, Put, Read, Transaction, is_absent

BEAT_INTERVAL_MS_MAX = 1_000
RETRY_AFTER_MS = 500
"""Between two tries to get a lease or the key."""


class Standing(enum.Enum):
    """Where a controller stands."""

    IDLE = "idle"
    GRANTING = "granting"
    CAMPAIGNING = "campaigning"
    WAITING = "waiting"
    ACTIVE = "active"
    RESIGNED = "resigned"
    """For ever: what comes late must not make it campaign again."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """etcd made a lease, asked for at `sent_ms`, and granted this TTL."""

    lease_id: int
    ttl_ms: int
    sent_ms: int


@dataclass(frozen=True, slots=True)
class BeatAnswered:
    """etcd prolonged the lease; the beat went out at `sent_ms`. A TTL of 0 says that the lease is gone."""

    lease_id: int
    ttl_ms: int
    sent_ms: int


@dataclass(frozen=True, slots=True)
class Campaigned:
    """The campaign's transaction ended; None where nobody knows how."""

    lease_id: int
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class KeyGone:
    """A watch saw the key of the active controller go."""


@dataclass(frozen=True, slots=True)
class Resign:
    """This controller stops: hand over."""


Event: TypeAlias = Tick | LeaseGranted | BeatAnswered | Campaigned | KeyGone | Resign


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Ask etcd for a lease of this TTL."""

    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Beat:
    """Prolong the lease, and say when the beat was sent."""

    lease_id: int


@dataclass(frozen=True, slots=True)
class Campaign:
    """Run the transaction; never blindly again."""

    lease_id: int
    transaction: Transaction


@dataclass(frozen=True, slots=True)
class ActiveAs:
    """This controller is active; its decisions compare the key with this revision."""

    create_revision: int


@dataclass(frozen=True, slots=True)
class Lost:
    """This controller is active no longer: drop what is under way."""

    reason: str


@dataclass(frozen=True, slots=True)
class RevokeLease:
    """Give the lease back, and the key with it."""

    lease_id: int


Effect: TypeAlias = GrantLease | Beat | Campaign | ActiveAs | Lost | RevokeLease


class Leadership:
    """One controller's part in it.

    Args:
        key: of the active controller.
        value: what to write there: who this controller is.
        ttl_ms: of the lease to ask for; etcd may grant more.
    """

    def __init__(self, key: bytes, value: bytes, *, ttl_ms: int) -> None:
        self.standing = Standing.IDLE
        self._key = key
        self._value = value
        self._asked_ttl_ms = ttl_ms
        self._lease_id = 0
        self._valid_until_ms = 0
        self._beat_due_ms = 0
        self._retry_due_ms = 0
        self._ttl_ms = ttl_ms

    def step(self, event: Event, now_ms: int) -> tuple[Effect, ...]:
        """What to do now."""
        if self.standing is Standing.RESIGNED:
            return (RevokeLease(event.lease_id),) if isinstance(event, LeaseGranted) else ()
        match event:
            case LeaseGranted():
                return self._granted(event, now_ms)
            case BeatAnswered():
                return self._answered(event, now_ms)
            case Campaigned():
                return self._campaigned(event, now_ms)
            case KeyGone():
                return self._key_gone(now_ms)
            case Resign():
                effects = self._give_up()
                self.standing = Standing.RESIGNED
                return effects
            case Tick():
                return self._tick(now_ms)

    def _tick(self, now_ms: int) -> tuple[Effect, ...]:
        if self._lease_id and now_ms >= self._valid_until_ms:
            return self._lose("its lease was not prolonged within its TTL", now_ms)
        if self._lease_id and now_ms >= self._beat_due_ms:
            self._beat_due_ms = now_ms + min(BEAT_INTERVAL_MS_MAX, self._ttl_ms // 3)
            return (Beat(self._lease_id), *self._try_again(now_ms))
        return self._try_again(now_ms)

    def _try_again(self, now_ms: int) -> tuple[Effect, ...]:
        if now_ms < self._retry_due_ms or self.standing is Standing.ACTIVE:
            return ()
        self._retry_due_ms = now_ms + RETRY_AFTER_MS
        if self._lease_id:
            return self._campaign()
        self.standing = Standing.GRANTING
        return (GrantLease(self._asked_ttl_ms),)

    def _granted(self, event: LeaseGranted, now_ms: int) -> tuple[Effect, ...]:
        """A second lease (its answer overtook the patience with the first) is given back."""
        if self._lease_id or event.sent_ms + event.ttl_ms <= now_ms:
            return (RevokeLease(event.lease_id),)
        self._lease_id = event.lease_id
        self._ttl_ms = event.ttl_ms
        self._valid_until_ms = event.sent_ms + event.ttl_ms
        self._beat_due_ms = event.sent_ms + min(BEAT_INTERVAL_MS_MAX, event.ttl_ms // 3)
        return self._campaign()

    def _campaign(self) -> tuple[Effect, ...]:
        """The key as it is comes back from a campaign that fails: it may be this controller's own (§6.13)."""
        self.standing = Standing.CAMPAIGNING
        mine = Put(self._key, self._value, self._lease_id)
        transaction = Transaction((is_absent(self._key),), (mine, Read(self._key)), (Read(self._key),))
        return (Campaign(self._lease_id, transaction),)

    def _campaigned(self, event: Campaigned, now_ms: int) -> tuple[Effect, ...]:
        if event.lease_id != self._lease_id or self.standing is not Standing.CAMPAIGNING:
            return ()
        self.standing = Standing.WAITING
        if event.outcome is None or not event.outcome.found[-1]:
            return ()
        held = event.outcome.found[-1][0]
        if held.lease_id != self._lease_id:
            return ()
        self.standing = Standing.ACTIVE
        return (ActiveAs(held.create_revision),)

    def _answered(self, event: BeatAnswered, now_ms: int) -> tuple[Effect, ...]:
        if event.lease_id != self._lease_id:
            return ()
        if event.ttl_ms <= 0:
            return self._lose("etcd let its lease expire", now_ms)
        self._ttl_ms = event.ttl_ms
        self._valid_until_ms = max(self._valid_until_ms, event.sent_ms + event.ttl_ms)
        return ()

    def _key_gone(self, now_ms: int) -> tuple[Effect, ...]:
        if self.standing is Standing.ACTIVE:
            return self._lose("its key was deleted", now_ms)
        self._retry_due_ms = now_ms
        return self._try_again(now_ms)

    def _give_up(self) -> tuple[Effect, ...]:
        lease_id, was_active = self._lease_id, self.standing is Standing.ACTIVE
        self._lease_id = 0
        self.standing = Standing.IDLE
        effects: tuple[Effect, ...] = (Lost("it resigned"),) if was_active else ()
        return (*effects, RevokeLease(lease_id)) if lease_id else effects

    def _lose(self, reason: str, now_ms: int) -> tuple[Effect, ...]:
        """The lease is given up whole: a new one makes clear whose key it is."""
        effects = self._give_up()
        self._retry_due_ms = now_ms + RETRY_AFTER_MS
        return tuple(Lost(reason) if isinstance(effect, Lost) else effect for effect in effects)
