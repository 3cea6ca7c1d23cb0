"""Questions to the name servers: to the one that answered last, and to the next one when it does not."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import ChannelClosed, MeshError
from apogeemq.mesh.network import ClientStream, MeshChannel, Network, Req, Resp, Unary
from apogeemq.mesh.v1.methods import WATCH_ROUTES
from apogeemq.mesh.v1.routes_pb2 import WatchReply, WatchRequest
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.errors import ProxyError

_log = logging.getLogger(__name__)


class NameServers:
    """One channel to each name server. close() it.

    targets      mesh endpoints, "host:port"; at least one
    attempt_s    how long one of them may take to answer
    """

    def __init__(self, targets: Sequence[str], *, network: Network, clock: Clock, attempt_s: float) -> None:
        self._channels: list[MeshChannel] = [network.channel(target) for target in dict.fromkeys(targets)]
        if not self._channels:
            raise ValueError("there must be at least one name server")
        self._clock = clock
        self._attempt_s = attempt_s
        self._current = 0
        self._last_failure = ""

    @property
    def current(self) -> str:
        """Which one is asked first."""
        return self._channels[self._current].target

    async def ask(self, method: Unary[Req, Resp], request: Req, *, timeout_s: float) -> Resp:
        """Ask one after another until one answers.

        Raises ProxyError PROXY_TIMEOUT when none did within `timeout_s`, with what the last one said.
        """
        deadline = self._clock.monotonic() + timeout_s
        failure = f"no time was left of {timeout_s:g} s"
        for _ in self._channels:
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0:
                break
            channel = self._channels[self._current]
            try:
                reply = await channel.unary(method, request, timeout_s=min(left_s, self._attempt_s))
            except ChannelClosed:
                failure = "the proxy stops"
                break
            except MeshError as error:
                failure = str(error)
                self.give_up_on(channel.target, failure)
            else:
                self._last_failure = ""
                return reply
        raise ProxyError(Code.PROXY_TIMEOUT, f"no name server answered: {failure}; try again")

    def watch(self) -> ClientStream[WatchRequest, WatchReply]:
        """Open a watch at the current one. Raises ChannelClosed."""
        return self._channels[self._current].stream(WATCH_ROUTES)

    def give_up_on(self, target: str, reason: str) -> None:
        """Ask the next one first from now on, unless somebody else has changed that already."""
        if target != self.current:
            return
        self._current = (self._current + 1) % len(self._channels)
        level = logging.DEBUG if reason == self._last_failure else logging.WARNING
        _log.log(level, "name server %s failed: %s; %s is asked first now", target, reason, self.current)
        self._last_failure = reason

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        for channel in self._channels:
            await channel.close()
