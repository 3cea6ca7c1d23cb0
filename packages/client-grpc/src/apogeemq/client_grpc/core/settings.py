"""Settings: what a client says of itself on a Telemetry stream, and what the server tells it there."""

import dataclasses
from collections.abc import Mapping, Sequence

from apogeemq.client_api.filters import Filter, Sql
from apogeemq.client_api.handling import Retry
from apogeemq.client_grpc.core import durations
from apogeemq.client_grpc.core.backoff import CONSUMER_RETRY, PRODUCER_RETRY, retry_policy
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.proto.v2 import definition_pb2

RECEIVE_BATCH_SIZE = 32
LONG_POLLING_TIMEOUT_S = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Described:
    """Who a client is: the part of its settings that does not depend on what it does."""

    client_type: definition_pb2.ClientType
    access_point: Endpoints
    request_timeout_s: float
    version: str
    platform: str
    hostname: str

    def publishing(self, topics: Sequence[str]) -> definition_pb2.Settings:
        """A producer's settings; it may learn more topics later and say so again."""
        settings = self._settings()
        settings.publishing.topics.extend(definition_pb2.Resource(name=topic) for topic in topics)
        settings.publishing.validate_message_type = True
        return settings

    def subscribing(self, group: str, filters: Mapping[str, Filter]) -> definition_pb2.Settings:
        """A consumer's settings: its group and topic → tags or SQL."""
        settings = self._settings()
        settings.subscription.group.name = group
        settings.subscription.subscriptions.extend(
            definition_pb2.SubscriptionEntry(
                topic=definition_pb2.Resource(name=topic), expression=filter_expression(wanted)
            )
            for topic, wanted in filters.items()
        )
        return settings

    def _settings(self) -> definition_pb2.Settings:
        return definition_pb2.Settings(
            client_type=self.client_type,
            access_point=self.access_point.to_proto(),
            request_timeout=durations.duration(self.request_timeout_s),
            user_agent=definition_pb2.UA(
                language=definition_pb2.Language.PYTHON,
                version=self.version,
                platform=self.platform,
                hostname=self.hostname,
            ),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ProducerSettings:
    """What a server tells a producer."""

    retry: Retry = PRODUCER_RETRY


@dataclasses.dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """What a server tells a consumer. `fifo`: the group wants the messages of one message group one after the other."""

    retry: Retry = CONSUMER_RETRY
    fifo: bool = False
    receive_batch_size: int = RECEIVE_BATCH_SIZE
    long_polling_timeout_s: float = LONG_POLLING_TIMEOUT_S


def producer_settings(sent: definition_pb2.Settings) -> ProducerSettings:
    """Read a server's settings for a producer; a field that is not there keeps its default."""
    return ProducerSettings(retry=retry_policy(sent.backoff_policy, PRODUCER_RETRY))


def consumer_settings(sent: definition_pb2.Settings) -> ConsumerSettings:
    """Read a server's settings for a consumer; a field that is not there keeps its default."""
    subscription = sent.subscription
    polling_s = durations.seconds(subscription.long_polling_timeout)
    return ConsumerSettings(
        retry=retry_policy(sent.backoff_policy, CONSUMER_RETRY),
        fifo=subscription.fifo,
        receive_batch_size=subscription.receive_batch_size
        if subscription.receive_batch_size > 0
        else RECEIVE_BATCH_SIZE,
        long_polling_timeout_s=polling_s if polling_s > 0 else LONG_POLLING_TIMEOUT_S,
    )


def filter_expression(wanted: Filter) -> definition_pb2.FilterExpression:
    """Tags, "*" or "a || b", or SQL, as the API carries them."""
    kind = definition_pb2.FilterType.SQL if isinstance(wanted, Sql) else definition_pb2.FilterType.TAG
    return definition_pb2.FilterExpression(type=kind, expression=str(wanted))
