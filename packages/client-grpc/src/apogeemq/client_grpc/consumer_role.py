"""A consumer in the eyes of its connections: group, subscriptions, and what the server told it."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from apogeemq.client_api.filters import Filter, Sql
from apogeemq.client_api.message import check_topic
from apogeemq.client_grpc.commands import answer_common
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.settings import ConsumerSettings, Described, consumer_settings
from apogeemq.proto.v2 import definition_pb2, service_pb2

TelemetryCommand = service_pb2.TelemetryCommand

_GROUP: Final = re.compile(r"[%|a-zA-Z0-9_-]{1,120}")


class ConsumerRole:
    """Shared by both consumers. `verify` tries a message that the server sends on the handler, where there is one."""

    def __init__(
        self,
        client_type: definition_pb2.ClientType,
        group: str,
        filters: Mapping[str, Filter],
        verify: Callable[[service_pb2.VerifyMessageCommand], Awaitable[TelemetryCommand]] | None = None,
    ) -> None:
        if _GROUP.fullmatch(group) is None:
            raise ValueError(f"group {group[:64]!r} is not 1 to 120 of a-z A-Z 0-9 _ - % |")
        for topic, wanted in filters.items():
            check_filter(topic, wanted)
        self._client_type = client_type
        self._group = group
        self._verify = verify
        self.filters = dict(filters)
        self.received = ConsumerSettings()

    @property
    def client_type(self) -> definition_pb2.ClientType:
        """Push or simple."""
        return self._client_type

    @property
    def group(self) -> str:
        """The consumer group."""
        return self._group

    def settings(self, described: Described) -> definition_pb2.Settings:
        """Group and subscriptions as they are now."""
        return described.subscribing(self._group, self.filters)

    def take_settings(self, settings: definition_pb2.Settings) -> None:
        """Follow the server from now on."""
        self.received = consumer_settings(settings)

    async def answer(self, command: TelemetryCommand, endpoints: Endpoints) -> TelemetryCommand | None:
        """Verify a message with the handler; the rest is the same for every client."""
        if command.WhichOneof("command") == "verify_message_command" and self._verify is not None:
            return await self._verify(command.verify_message_command)
        return answer_common(command)


def check_filter(topic: str, wanted: Filter) -> None:
    """Refuse a subscription that no server takes. Raises MessageInvalid for the topic, ValueError for the filter."""
    check_topic(topic)
    if isinstance(wanted, Sql):
        return
    if not wanted.strip() or any(not tag.strip() for tag in wanted.split("||")):
        raise ValueError(f"the filter {wanted!r} for topic {topic} has an empty tag: write '*', 'a' or 'a || b'")
