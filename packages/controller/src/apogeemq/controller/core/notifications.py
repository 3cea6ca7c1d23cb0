"""Telling every broker of a set what was decided, until it says that it knows (architecture §6.6).

```
 Changed(state) ──▶ Tell each whose stream is open ── no Knows within RETELL_MS ──▶ Tell again, the newest state only
```

A broker that comes later is told when its stream opens. The order of two states is (master epoch, set epoch): a late
notification is passed over by who knows better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from apogeemq.controller.core.broker_set import NEW_SET, SyncState

RETELL_MS = 1_000


@dataclass(frozen=True, slots=True)
class Changed:
    """etcd holds this state."""

    state: SyncState


@dataclass(frozen=True, slots=True)
class Again:
    """What is told beside the state has changed: all have to hear of it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A broker's stream opened here."""

    broker_id: int


@dataclass(frozen=True, slots=True)
class Closed:
    """It ended."""

    broker_id: int


@dataclass(frozen=True, slots=True)
class Knows:
    """A broker took in the state of these epochs."""

    broker_id: int
    master_epoch: int
    set_epoch: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event: TypeAlias = Changed | Again | Opened | Closed | Knows | Tick


@dataclass(frozen=True, slots=True)
class Tell:
    """Send the state to a broker."""

    broker_id: int
    state: SyncState


class Notifications:
    """Who of a set has been told what."""

    def __init__(self) -> None:
        self._state = NEW_SET
        self._due_ms: dict[int, int | None] = {}

    @property
    def is_quiet(self) -> bool:
        """Whether a Tick changes nothing, whenever it comes: everybody knows the state."""
        return all(due_ms is None for due_ms in self._due_ms.values())

    def step(self, event: Event, now_ms: int) -> tuple[Tell, ...]:
        """Whom to tell now."""
        match event:
            case Changed():
                if _order(event.state) <= _order(self._state):
                    return ()
                self._state = event.state
                self._due_ms = dict.fromkeys(self._due_ms, now_ms)
            case Again():
                self._due_ms = dict.fromkeys(self._due_ms, now_ms)
            case Opened():
                self._due_ms[event.broker_id] = now_ms
            case Closed():
                self._due_ms.pop(event.broker_id, None)
            case Knows():
                if event.broker_id in self._due_ms and (event.master_epoch, event.set_epoch) >= _order(self._state):
                    self._due_ms[event.broker_id] = None
            case Tick():
                pass
        return self._tell(now_ms)

    def _tell(self, now_ms: int) -> tuple[Tell, ...]:
        if self._state == NEW_SET:
            return ()
        due = [broker_id for broker_id, due_ms in self._due_ms.items() if due_ms is not None and due_ms <= now_ms]
        self._due_ms.update(dict.fromkeys(due, now_ms + RETELL_MS))
        return tuple(Tell(broker_id, self._state) for broker_id in due)


def _order(state: SyncState) -> tuple[int, int]:
    return state.master_epoch, state.set_epoch
