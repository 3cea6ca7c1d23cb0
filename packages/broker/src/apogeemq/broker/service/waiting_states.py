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
        if state.whole and state.points:
            self._states = [each for each in self._states if each.name != state.name]
            at = len(self._states)
        elif state.whole:
            at = next((index for index, each in enumerate(self._states) if each.name == state.name), at)
            if at < len(self._states):
                state = State(self._states[at].place, state.name, state.data, whole=True)
                self._states = [each for each in self._states if each.name != state.name]
        self._states.insert(at, state)
        bounded = [len(each.data) for each in self._states if not (each.whole and each.points)]
        is_full = len(bounded) > STATES_MAX or sum(bounded) > STATES_SIZE_BYTES_MAX
        if is_full and len(bounded) > 1:
            self.clear()
            return False
        return True

    def take(self) -> State:
        """The next one, which waits no longer."""
        return self._states.pop(0)

    def clear(self) -> None:
        """Forget all."""
        self._states.clear()
