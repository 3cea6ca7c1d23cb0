"""Calls to brokers on behalf of a client: bounded by its deadline, their failures in the API's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apogeemq.mesh.calls import Call
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import MeshError, PeerUnavailable, StreamLost
from apogeemq.mesh.network import Req, Resp
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.core.status import error_of
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.ports import Brokers

ANSWER_MARGIN_S = 0.1
"""What is kept of a client's deadline for the way back."""


class BrokerCalls:
    """One broker's answer, or a ProxyError."""

    def __init__(self, brokers: Brokers, clock: Clock, limits: Limits) -> None:
        self.brokers = brokers
        self._clock = clock
        self._limits = limits
        self._lost: set[str] = set()
        self.on_back: Callable[[str], None] = lambda broker_name: None
        """Told which broker answers again after it was lost: it may be a new process, which knows nobody any more."""

    def timeout_s(self, deadline: float) -> float:
        """How long one call may take: the usual bound, less when the deadline (monotonic seconds) is near.

        Raises:
            ProxyError REQUEST_TIMEOUT: nothing is left of it.
        """
        left_s = deadline - self._clock.monotonic() - ANSWER_MARGIN_S
        if left_s <= 0:
            raise ProxyError(Code.REQUEST_TIMEOUT, "grpc-timeout: too little time is left to ask a broker")
        return min(left_s, self._limits.broker_timeout_s)

    async def call(
        self,
        broker_name: str,
        call: Call[Req, Resp],
        request: Req,
        *,
        timeout_s: float,
        on_late: Callable[[Resp], None] | None = None,
    ) -> Resp:
        """Ask the broker's master. `on_late` gets a reply that comes after this has ended without one (mesh.calls).

        Raises:
            ProxyError: BAD_REQUEST for an unknown broker, else what became of the call (core/status.py).
        """
        try:
            answer = await self.brokers.caller(broker_name).call(call, request, timeout_s=timeout_s, on_late=on_late)
        except MeshError as error:
            if isinstance(error, PeerUnavailable | StreamLost):
                self._lost.add(broker_name)
            raise error_of(error) from error
        if broker_name in self._lost:
            self._lost.discard(broker_name)
            self.on_back(broker_name)
        return answer

    async def call_any(
        self, broker_names: Sequence[str], call: Call[Req, Resp], request: Req, *, timeout_s: float
    ) -> Resp:
        """Ask one broker after another until one answers; `broker_names` is not empty, `timeout_s` is for all of them.

        Raises:
            ProxyError: of the last one, when none did.
        """
        deadline = self._clock.monotonic() + timeout_s
        for broker_name in broker_names[:-1]:
            left_s = deadline - self._clock.monotonic()
            try:
                return await self.call(broker_name, call, request, timeout_s=max(left_s / 2, 0.001))
            except ProxyError:
                continue
        left_s = deadline - self._clock.monotonic()
        return await self.call(broker_names[-1], call, request, timeout_s=max(left_s, 0.001))
