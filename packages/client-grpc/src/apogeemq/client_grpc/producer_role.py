"""A producer in the eyes of its connections: what it publishes to, and what the server told it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from apogeemq.client_grpc.commands import answer_common
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.settings import Described, ProducerSettings, producer_settings
from apogeemq.proto.v2 import definition_pb2, service_pb2

TelemetryCommand = service_pb2.TelemetryCommand
Check: TypeAlias = Callable[[service_pb2.RecoverOrphanedTransactionCommand, Endpoints], Awaitable[None]]


class ProducerRole:
    """The role of one producer.

    Args:
        topics: what it publishes to, as far as that is known. The server asks about transactions of these.
        check: answers such a question of the proxy there.
    """

    client_type = definition_pb2.ClientType.PRODUCER
    group = None

    def __init__(self, topics: Sequence[str], check: Check) -> None:
        self.topics = list(dict.fromkeys(topics))
        self.received = ProducerSettings()
        self._check = check

    def learn(self, topic: str) -> bool:
        """Count a topic among those published to; True when it is new."""
        if topic in self.topics:
            return False
        self.topics.append(topic)
        return True

    def settings(self, described: Described) -> definition_pb2.Settings:
        """The topics as they are now."""
        return described.publishing(self.topics)

    def take_settings(self, settings: definition_pb2.Settings) -> None:
        """Follow the server from now on."""
        self.received = producer_settings(settings)

    async def answer(self, command: TelemetryCommand, endpoints: Endpoints) -> TelemetryCommand | None:
        """Have an orphaned transaction checked; the rest is the same for every client."""
        if command.WhichOneof("command") == "recover_orphaned_transaction_command":
            await self._check(command.recover_orphaned_transaction_command, endpoints)
            return None
        return answer_common(command)
