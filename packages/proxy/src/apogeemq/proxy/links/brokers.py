"""Ways to brokers: one caller to each master, over the mesh or into this process.

Where brokers are comes from routes and from the list of the cluster's brokers (links/routes.py tells both). A broker
that has left that list keeps its caller for a while: whoever holds messages of it may still acknowledge them, and a
name server that was just restarted does not know all brokers yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from apogeemq.mesh.call_streams import StreamCaller
from apogeemq.mesh.calls import Caller, CallTable
from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.local_caller import LocalCaller
from apogeemq.mesh.network import Network
from apogeemq.mesh.v1.methods import BROKER_CHANNELS
from apogeemq.mesh.v1.routes_pb2 import BrokerAddress
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.errors import MasterAway, ProxyError
from opentelemetry.trace import Tracer

MASTER_ID = 0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """One broker name. `mesh_address` is empty for a broker of Apache's; `gone_since` in seconds of the clock."""

    mesh_address: str
    gone_since: float | None = None
    caller: StreamCaller | None = None


class BrokerLinks:
    """Implements ports.Brokers. close() it.

    local_brokers  brokers of this process: name → what gives their calls, asked at the first use
    brokers_max    brokers known at a time; further ones are left out, with a word in the log
    gone_s         how long a broker outlives its last mention
    """

    def __init__(
        self,
        *,
        network: Network,
        clock: Clock,
        chance: Chance,
        tracer: Tracer | None,
        local_brokers: Mapping[str, Callable[[], CallTable]],
        brokers_max: int,
        gone_s: float,
    ) -> None:
        self._network = network
        self._clock = clock
        self._chance = chance
        self._tracer = tracer
        self._local_brokers = dict(local_brokers)
        self._local_callers: dict[str, LocalCaller] = {}
        self._brokers_max = brokers_max
        self._gone_s = gone_s
        self._known: dict[str, _Known] = {}
        self._without_master: dict[str, None] = {}
        """Sets that were never seen with one."""
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        """All brokers that can be asked for, in order."""
        return sorted({*self._known, *self._local_brokers})

    def caller(self, broker_name: str) -> Caller:
        """See ports.Brokers.caller."""
        if broker_name in self._local_brokers:
            return self._local_caller(broker_name)
        known = self._known.get(broker_name)
        if known is None and broker_name in self._without_master:
            raise MasterAway(Code.PROXY_TIMEOUT, f"broker set {broker_name} has no master now; try again")
        if known is None:
            raise ProxyError(
                Code.BAD_REQUEST,
                f"there is no broker {broker_name}: no name server has named it. Ask for the topic's route again",
            )
        if not known.mesh_address:
            raise ProxyError(
                Code.NOT_IMPLEMENTED,
                f"broker {broker_name} has no mesh listener, as Apache's have none; "
                "brokerTransport=remoting, which would reach it, is not served yet",
            )
        if known.caller is None:
            known.caller = StreamCaller(
                self._network,
                known.mesh_address,
                BROKER_CHANNELS,
                clock=self._clock,
                tracer=self._tracer,
                chance=self._chance,
            )
        return known.caller

    def learn(self, broker_name: str, addresses: Iterable[BrokerAddress]) -> None:
        """A name server says where the brokers of this name are. One without a master has none to ask."""
        master = next((address for address in addresses if address.broker_id == MASTER_ID), None)
        known = self._known.get(broker_name)
        if master is None:
            if known is None:
                self._without_master[broker_name] = None
                if len(self._without_master) > self._brokers_max:
                    del self._without_master[next(iter(self._without_master))]
            return
        self._without_master.pop(broker_name, None)
        if known is None:
            if len(self._known) >= self._brokers_max:
                _log.error("broker %s is left out: routes.brokers_max is %d", broker_name, self._brokers_max)
                return
            self._known[broker_name] = _Known(master.mesh_address)
            return
        known.gone_since = None
        if known.mesh_address != master.mesh_address:
            _log.info("broker %s moved from %s to %s", broker_name, known.mesh_address, master.mesh_address)
            self._close(known)
            known.mesh_address = master.mesh_address

    def keep_only(self, broker_names: Collection[str]) -> None:
        """The cluster has these brokers and no others: forget those that have been away for long enough."""
        now = self._clock.monotonic()
        for name, known in list(self._known.items()):
            if name in broker_names:
                known.gone_since = None
            elif known.gone_since is None:
                known.gone_since = now
            elif now - known.gone_since >= self._gone_s:
                _log.info("broker %s has been away for %g s and is forgotten", name, self._gone_s)
                self._close(known)
                del self._known[name]

    async def close(self) -> None:
        """Close all callers. Idempotent."""
        known, self._known = self._known, {}
        local, self._local_callers = self._local_callers, {}
        for each in known.values():
            self._close(each)
        for caller in local.values():
            await caller.close()
        if self._closing:
            await asyncio.wait(set(self._closing))

    def _local_caller(self, broker_name: str) -> LocalCaller:
        caller = self._local_callers.get(broker_name)
        if caller is None:
            table = self._local_brokers[broker_name]()
            caller = LocalCaller(broker_name, table, clock=self._clock, tracer=self._tracer)
            self._local_callers[broker_name] = caller
        return caller

    def _close(self, known: _Known) -> None:
        """Close a broker's caller in the background: who is told of it never waits."""
        caller, known.caller = known.caller, None
        if caller is not None:
            task = asyncio.ensure_future(caller.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
