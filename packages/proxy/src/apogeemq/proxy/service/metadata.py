"""What topics and groups are, asked of their brokers and kept for a while.

An answer is good for REFRESHED_AFTER_S; then the next request asks again. While no broker answers, an old one serves
until KEPT_FOR_S. Source of the periods: reference grpc_v2.md §5.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from apogeemq.mesh.clock import Clock
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import QUERY_GROUP, QUERY_TOPIC
from apogeemq.mesh.v1.routes_pb2 import TopicRoute
from apogeemq.proxy.core.settings import GroupPolicy
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.broker_calls import BrokerCalls

REFRESHED_AFTER_S = 20.0
KEPT_FOR_S = 300.0
ENTRIES_MAX = 10_000
BROKERS_ASKED_MAX = 3

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class KeptAnswers(Generic[K, V]):
    """Answers by key, at most ENTRIES_MAX; the one asked for longest ago goes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[K, tuple[V, float, float]] = OrderedDict()

    def fresh(self, key: K) -> V | None:
        """The kept answer where `get` would give it without asking, else None."""
        kept = self._kept.get(key)
        if kept is None or self._clock.monotonic() >= kept[1]:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The kept answer, or a new one. Raises what `ask` raises when there is no old one to fall back to."""
        fresh = self.fresh(key)
        if fresh is not None:
            return fresh
        now = self._clock.monotonic()
        value, _, kept_until = self._kept.get(key, (None, 0.0, 0.0))
        if value is not None and now < kept_until:
            # Whoever comes while we ask takes the old answer: one request refreshes, not all of them at once.
            self._kept[key] = (value, min(now + REFRESHED_AFTER_S, kept_until), kept_until)
            try:
                return self._keep(key, await ask())
            except ProxyError:
                return value
        return self._keep(key, await ask())

    def _keep(self, key: K, value: V) -> V:
        now = self._clock.monotonic()
        self._kept[key] = (value, now + REFRESHED_AFTER_S, now + KEPT_FOR_S)
        self._kept.move_to_end(key)
        if len(self._kept) > ENTRIES_MAX:
            self._kept.popitem(last=False)
        return value


class Metadata:
    """Topic types and group policies."""

    def __init__(self, calls: BrokerCalls, clock: Clock) -> None:
        self._calls = calls
        self._topic_types: KeptAnswers[str, str] = KeptAnswers(clock)
        self._policies: KeptAnswers[str, GroupPolicy] = KeptAnswers(clock)

    def kept_topic_type(self, topic: str) -> str | None:
        """What `topic_type` would say of a topic without asking a broker; None when it would ask."""
        return self._topic_types.fresh(topic)

    async def topic_type(self, route: TopicRoute, timeout_s: float) -> str:
        """The message.type of the route's topic, as one of its brokers has it; empty when it has none.

        Raises:
            ProxyError: no broker answered.
        """

        async def ask() -> str:
            request = mesh.QueryTopicRequest(topic=route.topic)
            asked = [queues.broker_name for queues in route.queues[:BROKERS_ASKED_MAX]]
            return (await self._calls.call_any(asked, QUERY_TOPIC, request, timeout_s=timeout_s)).message_type

        return await self._topic_types.get(route.topic, ask)

    def kept_group_policy(self, group: str) -> GroupPolicy | None:
        """What `group_policy` would say of a group without asking a broker; None when it would ask."""
        return self._policies.fresh(group)

    async def group_policy(self, group: str, broker_names: Sequence[str], timeout_s: float) -> GroupPolicy:
        """The group's policy, as one of these brokers has it; the default one for a group that is not there.

        Raises:
            ProxyError: no broker answered.
        """

        async def ask() -> GroupPolicy:
            request = mesh.QueryGroupRequest(consumer_group=group, create=True)
            asked = broker_names[:BROKERS_ASKED_MAX]
            reply = await self._calls.call_any(asked, QUERY_GROUP, request, timeout_s=timeout_s)
            if not reply.found:
                return GroupPolicy()
            return GroupPolicy(is_fifo=reply.consume_message_orderly, retry_max_times=max(reply.retry_max_times, 0))

        return await self._policies.get(group, ask)
