"""Who has to be heard of by when, and who has expired."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """One deadline per key, in milliseconds of a clock that never goes back.

    Setting a deadline is what happens on every beat, so it is one dict store; finding the expired looks at every key,
    which happens a few times a second over at most some thousand brokers.
    """

    def __init__(self) -> None:
        self._due_ms: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._due_ms)

    def __iter__(self) -> Iterator[K]:
        return iter(self._due_ms)

    def __contains__(self, key: K) -> bool:
        return key in self._due_ms

    def set(self, key: K, due_ms: int) -> None:
        """Give a key a deadline, or another one."""
        self._due_ms[key] = due_ms

    def forget(self, key: K) -> None:
        """Drop a key's deadline, if it has one."""
        self._due_ms.pop(key, None)

    def take_expired(self, now_ms: int) -> K | None:
        """Return and forget the key with the earliest deadline that is not after ``now_ms``; None when there is none.

        One at a time, so that whoever acts on it can let others run before the next.
        """
        if not self._due_ms:
            return None
        key = min(self._due_ms, key=self._due_ms.__getitem__)
        if self._due_ms[key] > now_ms:
            return None
        del self._due_ms[key]
        return key
