"""Whether etcd has raised an alarm: it answers then, keeps leases alive, and takes no changes.

Without looking, an active controller would learn of it from the first decision that is refused, and never that it is
over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from apogeemq.controller.errors import EtcdError
from apogeemq.controller.service.etcd_calls import EtcdCalls
from apogeemq.mesh.clock import Clock

LOOK_S = 2.0
"""Between two looks."""
ADVICE = {
    "NOSPACE": "its database is full and takes no changes: compact and defragment it, then disarm the alarm",
    "CORRUPT": "its members hold different data: restore the one that is wrong, then disarm the alarm",
}

_log = logging.getLogger(__name__)


class EtcdAlarms:
    """Looks from watch() until cancelled.

    Args:
        on_change: called when `trouble` changes.
    """

    def __init__(self, etcd: EtcdCalls, clock: Clock, *, timeout_s: float, on_change: Callable[[], None]) -> None:
        self.trouble = ""
        """Which alarms are raised and what to do; empty where none is."""
        self._etcd = etcd
        self._clock = clock
        self._timeout_s = timeout_s
        self._on_change = on_change

    async def watch(self) -> None:
        """Look again and again. An etcd that does not answer is told of by the campaign, whose lease is at stake."""
        while True:
            try:
                self._found(await self._etcd.alarms(timeout_s=self._timeout_s))
            except EtcdError as error:
                _log.debug("alarms of etcd cannot be seen: %s", error)
            await self._clock.sleep(LOOK_S)

    def _found(self, alarms: frozenset[str]) -> None:
        trouble = "; ".join(f"etcd has raised {each}: {ADVICE.get(each, 'see its log')}" for each in sorted(alarms))
        if trouble == self.trouble:
            return
        if trouble:
            _log.error("no decision can be kept: %s", trouble)
        else:
            _log.info("etcd has no alarm any more")
        self.trouble = trouble
        self._on_change()
