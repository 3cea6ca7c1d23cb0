"""Whether a process can do its work: named checks, each serving or not, with a reason.

Read by the HTTP listener's /readyz and by the gRPC health service, written by whoever knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Check(NamedTuple):
    """One thing the process needs. `reason` says why it is not serving, or how it does."""

    serving: bool
    reason: str


class Health:
    """The checks of one process; it is ready when it has some and all are serving.

    A component declares its check as not serving before it starts, so that nobody takes the process for ready too soon.
    """

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def checks(self) -> Mapping[str, Check]:
        """All checks by name; a live, read-only view."""
        return MappingProxyType(self._checks)

    @property
    def ready(self) -> bool:
        """Whether there are checks and all serve."""
        return bool(self._checks) and all(check.serving for check in self._checks.values())

    def set(self, name: str, serving: bool, reason: str = "") -> None:
        """Declare or change a check; listeners are called when that changes something."""
        check = Check(serving, reason)
        if self._checks.get(name) != check:
            self._checks[name] = check
            self._changed()

    def remove(self, name: str) -> None:
        """Forget a check; no error when there is none of that name."""
        if self._checks.pop(name, None) is not None:
            self._changed()

    def add_listener(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called after every change; returns how to take it away again."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _changed(self) -> None:
        for listener in list(self._listeners):
            listener()
