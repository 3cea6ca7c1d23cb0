"""A producer in the eyes of its connections: what it publishes to, and what the server told it."""

from collections.abc import Sequence

from apogeemq.client_grpc.commands import answer_common
from apogeemq.client_grpc.core.settings import Described, ProducerSettings, producer_settings
from apogeemq.proto.v2 import definition_pb2, service_pb2


class ProducerRole:
    """The role of one producer. `topics` are those that it publishes to, as far as they are known."""

    client_type = definition_pb2.ClientType.PRODUCER
    group = None

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = list(dict.fromkeys(topics))
        self.received = ProducerSettings()

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

    async def answer(self, command: service_pb2.TelemetryCommand) -> service_pb2.TelemetryCommand | None:
        """Nothing that a server asks a producer concerns messages."""
        return answer_common(command)
