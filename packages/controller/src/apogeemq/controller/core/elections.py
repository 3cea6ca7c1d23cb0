"""The last elections of a broker set, with their reasons, for operators: what this controller saw, and nothing more.

Nothing is decided by it, and it is on no disk: after a controller was started anew it begins empty. Which request made
an election knows the controller that carried it out; another one sees the new epoch in etcd.
Times are milliseconds of a clock that never goes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from apogeemq.controller.core.broker_set import NEW_SET, NO_MASTER, SyncState
from apogeemq.controller.core.requests import BY_OPERATOR, AskElection, Leave, RecoverSet, Request

ELECTIONS_MAX = 16
"""Of one set; older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class Election:
    """A broker became master, by the state that etcd holds since."""

    master_epoch: int
    master_id: int
    previous_id: int
    """Master before; NO_MASTER where nobody was."""
    members: tuple[int, ...]
    reason: str
    at_ms: int
    """When this controller saw it."""


class Elections:
    """Of one set."""

    def __init__(self) -> None:
        self._state: SyncState | None = None
        self._previous_id = NO_MASTER
        self._seen: deque[Election] = deque(maxlen=ELECTIONS_MAX)

    @property
    def newest_first(self) -> tuple[Election, ...]:
        """At most ELECTIONS_MAX."""
        return tuple(reversed(self._seen))

    def changed(self, state: SyncState, request: Request | None, alive: Collection[int], now_ms: int) -> None:
        """Take in what etcd holds now; `request` is what this controller carried out by that, None where it did not.

        The first state that a controller reads is no election that it saw, unless it made it.
        """
        before, self._state = self._state, state
        if before is not None and before.master_id != NO_MASTER:
            self._previous_id = before.master_id
        if state == NEW_SET:
            self._previous_id = NO_MASTER
        is_new = state.master_epoch > (before.master_epoch if before is not None else 0)
        if state.master_id == NO_MASTER or not is_new or (before is None and request is None):
            return
        reason = _reason(before, state, request, self._previous_id, alive)
        self._seen.append(
            Election(state.master_epoch, state.master_id, self._previous_id, state.members, reason, now_ms)
        )


def _reason(
    before: SyncState | None, state: SyncState, request: Request | None, previous_id: int, alive: Collection[int]
) -> str:
    reason = _cause(before, state, request, previous_id, alive)
    if before is not None and before.members and state.master_id not in before.members:
        reason += f"; it is from outside the SyncStateSet {list(before.members)}"
    if state.loss_epoch == state.master_epoch:
        reason += "; it MAY LACK what was acknowledged before"
    return reason


def _cause(
    before: SyncState | None, state: SyncState, request: Request | None, previous_id: int, alive: Collection[int]
) -> str:
    match request:
        case AskElection(asker_id=asker_id, designated_id=designated_id) if asker_id == BY_OPERATOR:
            # The decisions look by themselves in the name of a broker: only an operator has no id.
            return f"an operator chose broker {designated_id}" if designated_id else "an operator asked for an election"
        case RecoverSet():
            return "an operator let the set begin again with this broker (recover)"
        case Leave(broker_id=leaver_id):
            return f"master {leaver_id} stopped in good order"
    if before is None or not before.members:  # nobody ever reported an epoch where the first one is given
        return "the set began" if state.master_epoch == 1 else "etcd had forgotten the set, and its members were there"
    if before.master_id == NO_MASTER:
        return f"master {previous_id} lost its place in the set" if previous_id else "the set had no master"
    if before.master_id not in alive:
        return f"master {before.master_id} was gone"
    if isinstance(request, AskElection) and request.asker_id == before.master_id:
        return f"master {before.master_id} was started anew"
    return "another controller decided it"
