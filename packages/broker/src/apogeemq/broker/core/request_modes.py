"""By pull or by pop: how each group gets each topic's messages, as an administrator said it.

Source: Apache broker/loadbalance/MessageRequestModeManager; config/messageRequestMode.json.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from apogeemq.broker.errors import SystemBusy
from apogeemq.remoting_codec.client_bodies import SetMessageRequestModeRequestBody

REQUEST_MODES_MAX = 100_000
"""The file must stay one that can be read again (64 MiB; an entry has some 400 bytes)."""

ModeKey: TypeAlias = tuple[str, str]
"""Topic and group."""


class RequestModeTable:
    """Modes by topic and group; whoever has none gets the broker's default."""

    def __init__(self, *, modes_max: int = REQUEST_MODES_MAX) -> None:
        self.modes_max = modes_max
        self.version = 0
        self.saved_version = 0
        self.changed: set[ModeKey] = set()
        """What was set and not written since: the file's writer takes it out."""
        self._modes: dict[ModeKey, SetMessageRequestModeRequestBody] = {}
        self._listeners: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[SetMessageRequestModeRequestBody]:
        return iter(list(self._modes.values()))

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change."""
        self._listeners.append(listener)

    def saved(self, version: int) -> None:
        """Everything up to this version is on the disk."""
        self.saved_version = max(self.saved_version, version)

    def load(self, modes: Iterable[SetMessageRequestModeRequestBody]) -> None:
        """Take over what the file holds; nobody is told."""
        for mode in modes:
            self._modes[mode.topic, mode.consumer_group] = mode

    def get(self, topic: str, group: str) -> SetMessageRequestModeRequestBody | None:
        """What was set for this topic and group, or None."""
        return self._modes.get((topic, group))

    def put(self, mode: SetMessageRequestModeRequestBody) -> None:
        """Set a mode. Raises SystemBusy when there are `modes_max` already."""
        key = mode.topic, mode.consumer_group
        if key not in self._modes and len(self._modes) >= self.modes_max:
            raise SystemBusy(f"this broker already has {len(self._modes)} message request modes, its limit")
        self._modes[key] = mode
        self.changed.add(key)
        self.version += 1
        for listener in self._listeners:
            listener()
