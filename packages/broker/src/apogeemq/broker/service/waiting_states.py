"""Changes of a broker's tables that a replica has not been sent yet, each at its place in the log."""

from __future__ import annotations

from dataclasses import dataclass

from apogeemq.broker.service.table_copies import POINTERS

STATES_MAX = 1024
"""Changes that wait for one replica; beyond that it gets all tables whole instead."""
STATES_SIZE_BYTES_MAX = 8 << 20
"""The same for their bytes; a single larger one may wait alone."""


@dataclass(frozen=True, slots=True)
class State:
    """`data` of the table `name`; `whole` replaces all that the replica has under this name.

    `place`: the log's end when it changed. It is sent before any byte from there on.
    """

    place: int
    name: str
    data: bytes
    whole: bool

    @property
    def points(self) -> bool:
        """Whether it says how far something is in the log: never sent before its place, and harmless when late."""
        return self.name in POINTERS


class WaitingStates:
    """In the order of their places. One replica's; bounded by forgetting them all, see `put`.

    A whole table of pointers counts for no bound: there is one of each name at most.
    """

    def __init__(self) -> None:
        self._states: list[State] = []
        self._count = self._size_bytes = 0
        """Of those that count for the bounds: a change is one more, however many wait."""

    def __len__(self) -> int:
        return len(self._states)

    @property
    def next_place(self) -> int | None:
        """The log may be sent up to here, then the next state is due; None while none waits."""
        return self._states[0].place if self._states else None

    def put(self, state: State) -> bool:
        """Add a state behind the others; False when there are too many: all are forgotten then, and the replica has to
        be sent all tables whole before anything else.

        A whole one replaces those of its name that wait, and takes the place of the first of them: who holds the bytes
        behind that place must have the table as it was then, or newer. One of pointers stays in its own place: a
        replica that is elected must not believe that something is done which it has not in its log.
        """
        at = len(self._states)
        if state.whole:
            first = next((index for index, each in enumerate(self._states) if each.name == state.name), None)
            if first is not None and not state.points:
                at, state = first, State(self._states[first].place, state.name, state.data, whole=True)
            before = [each for each in self._states[:at] if each.name != state.name]
            after = [each for each in self._states[at:] if each.name != state.name]
            self._states = [*before, state, *after]
            bounded = [len(each.data) for each in self._states if _is_bounded(each)]
            self._count, self._size_bytes = len(bounded), sum(bounded)
        else:
            self._states.append(state)
            self._count += 1
            self._size_bytes += len(state.data)
        if self._count > 1 and (self._count > STATES_MAX or self._size_bytes > STATES_SIZE_BYTES_MAX):
            self.clear()
            return False
        return True

    def take(self) -> State:
        """The next one, which waits no longer."""
        state = self._states.pop(0)
        if _is_bounded(state):
            self._count -= 1
            self._size_bytes -= len(state.data)
        return state

    def clear(self) -> None:
        """Forget all."""
        self._states.clear()
        self._count = self._size_bytes = 0


def _is_bounded(state: State) -> bool:
    return not (state.whole and state.points)
