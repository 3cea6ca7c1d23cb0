"""What a client says of itself, and what it takes from a server's settings."""

from apogeemq.client_api.filters import Sql
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.settings import Described, consumer_settings, producer_settings
from apogeemq.proto.v2 import definition_pb2
from google.protobuf.duration_pb2 import Duration


def described(client_type: definition_pb2.ClientType) -> Described:
    return Described(client_type, Endpoints.parse("127.0.0.1:8081"), 3.0, "0.1.0", "Linux", "host")


def test_a_producer_names_its_topics() -> None:
    """Type, access point, request time-out, user agent, and what it publishes to."""
    sent = described(definition_pb2.ClientType.PRODUCER).publishing(["A", "B"])
    assert sent.WhichOneof("pub_sub") == "publishing"
    assert [topic.name for topic in sent.publishing.topics] == ["A", "B"]
    assert (sent.client_type, sent.request_timeout.seconds) == (definition_pb2.ClientType.PRODUCER, 3)
    assert sent.access_point.addresses[0].port == 8081
    assert (sent.user_agent.language, sent.user_agent.hostname) == (definition_pb2.Language.PYTHON, "host")


def test_a_producer_without_topics_is_a_producer_all_the_same() -> None:
    """Settings with neither publishing nor subscription end the stream: the empty one has to be there."""
    assert described(definition_pb2.ClientType.PRODUCER).publishing([]).WhichOneof("pub_sub") == "publishing"


def test_a_consumer_names_group_and_filters() -> None:
    """One entry a topic, with its tags."""
    sent = described(definition_pb2.ClientType.PUSH_CONSUMER).subscribing("G", {"A": "*", "B": "x || y"})
    assert sent.subscription.group.name == "G"
    assert {each.topic.name: each.expression.expression for each in sent.subscription.subscriptions} == {
        "A": "*",
        "B": "x || y",
    }
    assert {each.expression.type for each in sent.subscription.subscriptions} == {definition_pb2.FilterType.TAG}


def test_sql_is_told_as_sql() -> None:
    """The expression as it was written."""
    sent = described(definition_pb2.ClientType.PUSH_CONSUMER).subscribing("G", {"A": Sql("a > 5")})
    (entry,) = sent.subscription.subscriptions
    assert (entry.expression.type, entry.expression.expression) == (definition_pb2.FilterType.SQL, "a > 5")


def test_a_consumer_follows_the_server() -> None:
    """Order, batch size and polling time are the server's to say."""
    sent = definition_pb2.Settings(
        subscription=definition_pb2.Subscription(
            fifo=True, receive_batch_size=8, long_polling_timeout=Duration(seconds=7)
        )
    )
    settings = consumer_settings(sent)
    assert (settings.fifo, settings.receive_batch_size, settings.long_polling_timeout_s) == (True, 8, 7.0)


def test_settings_without_anything_are_the_defaults() -> None:
    """A server that sends no metric block, no limits, nothing: the client works on (rocketmq-clients#1168)."""
    consumer = consumer_settings(definition_pb2.Settings())
    assert (consumer.fifo, consumer.receive_batch_size, consumer.long_polling_timeout_s) == (False, 32, 20.0)
    assert consumer.retry.max_attempts == 17
    assert producer_settings(definition_pb2.Settings()).retry.max_attempts == 3
