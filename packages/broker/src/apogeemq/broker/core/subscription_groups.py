"""The consumer groups of this broker and their settings. Source: reference broker_behaviour.md §1 (groups)."""

from collections.abc import Callable, Iterable, Iterator

from apogeemq.broker.core.names import PREDEFINED_GROUPS, illegal_group_reason
from apogeemq.broker.errors import InvalidParameter, SubscriptionGroupNotExist, SystemBusy
from apogeemq.remoting_codec.bodies import DataVersion, SubscriptionGroupConfig

GROUPS_MAX = 100_000


class SubscriptionGroupTable:
    """Groups by name; unknown ones are made on first use when `auto_create` (autoCreateSubscriptionGroup) says so."""

    def __init__(self, *, now_ms: Callable[[], int], auto_create: bool, groups_max: int = GROUPS_MAX) -> None:
        self._now_ms = now_ms
        self.auto_create = auto_create
        self.groups_max = groups_max
        self.data_version = DataVersion(counter=0, state_version=0, timestamp=now_ms())
        self.version = 0
        self.saved_version = 0
        self.changed: set[str] = set()
        """Names of groups that were made or changed and not written since: the file's writer takes them out."""
        self.forbidden: dict[str, dict[str, int]] = {}
        """Group to topic to bits of what is forbidden, as a Java broker wrote it: kept in the file, not obeyed yet."""
        self._groups: dict[str, SubscriptionGroupConfig] = {}
        self._listeners: list[Callable[[list[SubscriptionGroupConfig]], None]] = []

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[SubscriptionGroupConfig]:
        return iter(list(self._groups.values()))

    def on_change(self, listener: Callable[[list[SubscriptionGroupConfig]], None]) -> None:
        """Call `listener` with the groups that were made or changed, after every change."""
        self._listeners.append(listener)

    def load(
        self,
        configs: Iterable[SubscriptionGroupConfig],
        data_version: DataVersion | None,
        forbidden: dict[str, dict[str, int]] | None = None,
    ) -> None:
        """Take over what the file holds; nobody is told. Without `forbidden` that stays as it is."""
        for config in configs:
            self._groups[config.group_name] = config
        if forbidden is not None:
            self.forbidden = forbidden
        if data_version is not None:
            self.data_version = data_version

    def saved(self, version: int) -> None:
        """The file holds everything up to `version`."""
        self.saved_version = max(self.saved_version, version)

    def get(self, name: str) -> SubscriptionGroupConfig | None:
        """The group of this name, or None; makes nothing."""
        return self._groups.get(name)

    def find_or_create(self, name: str) -> SubscriptionGroupConfig:
        """The group of this name, made now when it is unknown and may be made.

        Raises:
            SubscriptionGroupNotExist: unknown, and creation by use is off.
            InvalidParameter: the name is not legal.
            SystemBusy: there are `groups_max` groups already.
        """
        group = self._groups.get(name)
        if group is None:
            group = self.plan(name)
            self.put(group)
        return group

    def plan(self, name: str) -> SubscriptionGroupConfig:
        """The settings that a group would get which is made by use. It is not in the table: `put` does that, once the
        request that names it has passed all checks. Raises as `find_or_create`.
        """
        if not self.auto_create:
            raise SubscriptionGroupNotExist(
                f"subscription group [{name[:300]}] does not exist, "
                "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
            )
        reason = illegal_group_reason(name)
        if reason is not None:
            raise InvalidParameter(reason)
        if len(self._groups) >= self.groups_max:
            raise SystemBusy(
                f"this broker already has {len(self._groups)} consumer groups, its limit (limits.groups_max) is "
                f"{self.groups_max}: delete groups or raise the limit",
                limit="limits.groups_max",
            )
        return SubscriptionGroupConfig(group_name=name)

    def put(self, group: SubscriptionGroupConfig) -> None:
        """Make a group."""
        self._put_all([group])

    def ensure_predefined(self) -> None:
        """Make the groups that every broker has at start, where they are missing."""
        missing = [SubscriptionGroupConfig(group_name=name) for name in PREDEFINED_GROUPS if name not in self._groups]
        if missing:
            self._put_all(missing)

    def _put_all(self, groups: list[SubscriptionGroupConfig]) -> None:
        for group in groups:
            self._groups[group.group_name] = group
            self.changed.add(group.group_name)
        self.version += 1
        self.data_version = self.data_version.next(self._now_ms())
        for listener in self._listeners:
            listener(groups)
