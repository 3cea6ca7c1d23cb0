"""Which clients publish to which topic: who may be asked about a topic's transactions.

A gRPC producer has no group of its own; as with Apache's proxy its producer groups are named like the topics that its
settings list. So whatever process publishes to a topic may decide its transactions.
Source: reference grpc_v2.md §4, §8.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Generic, TypeVar

from apogeemq.proto.v2.definition_pb2 import Resource, Settings
from apogeemq.proxy.core.names import full_name

C = TypeVar("C")


class ProducerTable(Generic[C]):
    """Clients by id under each topic, with the topic as that client calls it."""

    def __init__(self) -> None:
        self._by_topic: dict[str, dict[str, tuple[C, Resource]]] = {}

    @property
    def topics(self) -> Collection[str]:
        """All that somebody publishes to, as brokers know them."""
        return self._by_topic.keys()

    def of(self, topic: str) -> Mapping[str, tuple[C, Resource]]:
        """Who publishes to a topic."""
        return self._by_topic.get(topic, {})

    def put(self, client_id: str, client: C, settings: Settings) -> None:
        """A client's settings are these."""
        for resource in settings.publishing.topics:
            self._by_topic.setdefault(full_name(resource), {})[client_id] = (client, resource)

    def remove(self, client_id: str, settings: Settings) -> None:
        """A client's settings are these no more."""
        for resource in settings.publishing.topics:
            topic = full_name(resource)
            clients = self._by_topic.get(topic)
            if clients is not None:
                clients.pop(client_id, None)
                if not clients:
                    del self._by_topic[topic]
