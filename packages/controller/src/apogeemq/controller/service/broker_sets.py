"""All broker sets of a cluster, as one controller sees them: the campaign, the watch and time, spread over the sets.

The watch begins with a read of all keys at one revision, and goes on from the next. Where etcd has compacted away what
would come, or refuses the watch, everything is read anew: keys that were known and are not there have gone meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from types import MappingProxyType

from apogeemq.controller.core.broker_set import SetKeys, active_key, cluster_prefix, place_of
from apogeemq.controller.core.election import Refusal
from apogeemq.controller.core.etcd import Change, Found, StoredKey, end_of_prefix
from apogeemq.controller.core.requests import Refused
from apogeemq.controller.core.set_rules import SetRules
from apogeemq.controller.errors import Compacted, EtcdError
from apogeemq.controller.service.campaign import Campaign
from apogeemq.controller.service.set_runner import Ports, SetRunner

TICK_S = 0.1
"""How often what is due is looked at."""
WATCH_AGAIN_S = 1.0
"""Between two tries to read and watch, after etcd refused one."""

_log = logging.getLogger(__name__)


class BrokerSets:
    """The sets by name, and who is the active controller.

    Args:
        on_standing: called when another controller is active, or this one, or none.
        on_watch: called with why the keys cannot be seen; empty once they are.
    """

    def __init__(
        self,
        cluster: str,
        rules: SetRules,
        ports: Ports,
        *,
        sets_max: int,
        on_standing: Callable[[], None],
        on_watch: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._rules = rules
        self._ports = ports
        self._sets_max = sets_max
        self._on_standing = on_standing
        self._on_watch = on_watch
        self._sets: dict[str, SetRunner] = {}
        self._seen: dict[bytes, int] = {}
        self._active_key = active_key(cluster)
        self._active_name = ""
        self._active_revision = 0
        self._campaign: Campaign | None = None

    @property
    def by_name(self) -> Mapping[str, SetRunner]:
        """The sets that are known; a live view."""
        return MappingProxyType(self._sets)

    @property
    def is_active(self) -> bool:
        """Whether this controller decides."""
        return self._campaign is not None and self._campaign.is_active

    @property
    def active_name(self) -> str:
        """Mesh endpoint of the active controller; empty while there is none.

        Of itself a controller knows by its campaign, which the watch comes behind of.
        """
        if self._campaign is None:
            return self._active_name
        if self._campaign.is_active:
            return self._campaign.name
        return "" if self._active_name == self._campaign.name else self._active_name

    def of(self, broker_name: str) -> SetRunner | Refused:
        """Find a set, or begin one; refused where there are as many as may be."""
        runner = self._sets.get(broker_name)
        if runner is not None:
            return runner
        if len(self._sets) >= self._sets_max:
            text = f"this controller knows {self._sets_max} broker sets already (limits.broker_sets_max)"
            return Refused(Refusal.INVALID_REQUEST, text)
        return self._begun(broker_name)

    def campaigned_by(self, campaign: Campaign) -> None:
        """Say who knows whether this controller is active."""
        self._campaign = campaign

    def became_active(self, create_revision: int) -> None:
        """This controller decides from now on."""
        self._active_revision = create_revision
        for runner in self._sets.values():
            runner.begin(create_revision)
        self._on_standing()

    def lost(self) -> None:
        """It does not any more."""
        self._active_revision = 0
        for runner in self._sets.values():
            runner.end()
        self._on_standing()

    async def keep_time(self) -> None:
        """Look at what is due, until cancelled."""
        while True:
            if self._campaign is not None:
                self._campaign.tick()
            for name, runner in list(self._sets.items()):
                runner.tick()
                if runner.is_empty:
                    del self._sets[name]
                    await runner.stop()
            await self._ports.clock.sleep(TICK_S)

    async def watch(self) -> None:
        """See what etcd holds, until cancelled."""
        prefix = cluster_prefix(self._cluster)
        end = end_of_prefix(prefix)
        while True:
            try:
                found = await self._ports.etcd.read(prefix, end, timeout_s=self._ports.call_timeout_s)
                self._loaded(found)
                self._on_watch("")
                async with aclosing(self._ports.etcd.watch(prefix, end, start_revision=found.revision + 1)) as changes:
                    async for batch in changes:
                        self._changed(batch)
            except Compacted as error:
                _log.warning("the watch has to begin again: %s", error)
            except EtcdError as error:
                _log.warning("the keys of cluster %s cannot be seen: %s", self._cluster, error)
                self._on_watch(str(error))
                await self._ports.clock.sleep(WATCH_AGAIN_S)

    async def stop(self) -> None:
        """End all calls that are under way."""
        for runner in self._sets.values():
            await runner.stop()

    def _begun(self, broker_name: str) -> SetRunner:
        runner = SetRunner(SetKeys(self._cluster, broker_name), self._rules, self._ports)
        self._sets[broker_name] = runner
        if self._active_revision:
            runner.begin(self._active_revision)
        return runner

    def _loaded(self, found: Found) -> None:
        there = {stored.key for stored in found.keys}
        for key in [each for each in self._seen if each not in there]:
            self._gone(key, found.revision)
        for stored in found.keys:
            self._saw(stored)

    def _changed(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.value is None:
                self._gone(change.key, change.mod_revision)
            else:
                stored = StoredKey(
                    change.key, change.value, change.create_revision, change.mod_revision, 1, change.lease_id
                )
                self._saw(stored)

    def _saw(self, stored: StoredKey) -> None:
        self._seen[stored.key] = stored.mod_revision
        if stored.key == self._active_key:
            self._take_active_name(stored.value.decode(errors="replace"))
            return
        place = place_of(self._cluster, stored.key)
        if place is None:
            _log.warning("%s is no key of a controller, and is passed over", stored.key.decode(errors="replace"))
            return
        runner = self._sets.get(place.broker_name) or self._begun(place.broker_name)
        if place.live_id:
            runner.lease_seen(place.live_id)
        else:
            runner.saw(stored)

    def _gone(self, key: bytes, mod_revision: int) -> None:
        self._seen.pop(key, None)
        if key == self._active_key:
            self._take_active_name("")
            if self._campaign is not None:
                self._campaign.key_gone()
            return
        place = place_of(self._cluster, key)
        runner = self._sets.get(place.broker_name) if place is not None else None
        if place is None or runner is None:
            return
        if place.live_id:
            runner.lease_ended(place.live_id)
        else:
            runner.gone(key, mod_revision)

    def _take_active_name(self, name: str) -> None:
        if name != self._active_name:
            self._active_name = name
            self._on_standing()
