"""What the proxy's services need of the world: brokers to call, and who serves which topic.

The links fulfil them (links/brokers.py, links/routes.py); tests hand in brokers and routes of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from apogeemq.mesh.calls import Caller
from apogeemq.mesh.v1.routes_pb2 import TopicRoute


class Brokers(Protocol):
    """Ways to the masters of the cluster."""

    def caller(self, broker_name: str) -> Caller:
        """Calls to the master of this broker name. The same object as long as the master stays where it is.

        Never waits: a broker that is known and can't be reached shows in the call (PeerUnavailable).

        Raises:
            ProxyError BAD_REQUEST: no kept route and no cluster answer names such a broker.
        """
        ...


class Routes(Protocol):
    """Who serves a topic, from the name servers; answers are kept and watched, so asking again costs nothing."""

    async def route(self, topic: str, *, timeout_s: float, create: bool = False) -> TopicRoute:
        """The topic's route: at least one entry in `queues`, entries in order of broker name.

        `create`: where the settings allow it (topics.auto_create), an unknown topic is made at a broker first, and
        the answer waits until its route is known. The answer is shared: whoever gets it may not change it.

        Raises:
            ProxyError TOPIC_NOT_FOUND: no broker serves it, and it was not made.
            ProxyError PROXY_TIMEOUT: no name server answered within `timeout_s`.
        """
        ...

    def kept(self, topic: str) -> TopicRoute | None:
        """The topic's route where `route` would give it at once, else None. Never waits; shared, as that of `route`."""
        ...

    def brokers_of(self, topic: str) -> Sequence[str]:
        """The broker names of the kept route, in order; empty when none is kept. Never waits."""
        ...

    def forget(self, topic: str) -> None:
        """Ask anew for this topic next time: a broker said that it does not serve it."""
        ...

    def doubt(self, topic: str) -> None:
        """Ask anew for this topic next time, unless a watch would have told of a change: its master is away."""
        ...
