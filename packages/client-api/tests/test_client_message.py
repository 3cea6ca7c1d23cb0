"""Messages are refused where they are made, by the name of the argument at fault."""

import typing

import pytest
from apogeemq.client_api.errors import ClientError, MessageInvalid
from apogeemq.client_api.message import RESERVED_PROPERTY_KEYS, Message, is_user_property
from apogeemq.remoting_codec import message as codec


def test_a_message_keeps_what_it_was_given() -> None:
    """All fields come out as they went in."""
    message = Message("orders", b"x", tag="new", keys=("7", "eight"), properties={"colour": "red"}, message_group="g")
    assert (message.topic, message.body, message.tag, message.keys) == ("orders", b"x", "new", ("7", "eight"))
    assert (message.properties, message.message_group) == ({"colour": "red"}, "g")
    assert message.delivery_timestamp_ms is None


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("topic", {"topic": ""}),
        ("topic", {"topic": "with space"}),
        ("topic", {"topic": "t" * 128}),
        ("body", {"body": "text"}),
        ("body", {"body": b""}),
        ("tag", {"tag": " "}),
        ("tag", {"tag": "a|b"}),
        ("tag", {"tag": " a"}),
        ("tag", {"tag": "a\x01"}),
        ("keys", {"keys": "one"}),
        ("keys", {"keys": ("two words",)}),
        ("keys", {"keys": ("",)}),
        ("properties", {"properties": {"": "v"}}),
        ("properties", {"properties": {"k": ""}}),
        ("properties", {"properties": {"k": "a\x02b"}}),
        ("properties", {"properties": {"UNIQ_KEY": "v"}}),
        ("properties", {"properties": {"__RMQ.TRANSIENT.X": "v"}}),
        ("message_group", {"message_group": ""}),
        ("message_group", {"message_group": "g", "delivery_timestamp_ms": 1}),
        ("message_group", {"message_group": "g", "delay_ms": 1}),
        ("message_group", {"message_group": "g", "delay_level": 1}),
        ("delivery_timestamp_ms", {"delivery_timestamp_ms": -1}),
        ("delivery_timestamp_ms", {"delivery_timestamp_ms": 1, "delay_ms": 1}),
        ("delay_ms", {"delay_ms": -1}),
        ("delay_ms", {"delay_ms": 1 << 63}),
        ("delay_ms", {"delay_ms": 0.5}),
        ("delay_ms", {"delay_ms": 1, "delay_level": 1}),
        ("delay_level", {"delay_level": 0}),
        ("delay_level", {"delay_level": True}),
    ],
)
def test_what_no_server_takes_is_refused_by_name(field: str, arguments: dict[str, typing.Any]) -> None:
    """MessageInvalid is a ValueError too, and names the argument."""
    with pytest.raises(MessageInvalid) as caught:
        Message(**{"topic": "t", "body": b"x", **arguments})
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, ClientError)


def test_a_message_tells_what_delays_it() -> None:
    """The argument's name, for whoever has to refuse it; an ordinary message has none."""
    delayed = {
        "delivery_timestamp_ms": Message("t", b"x", delivery_timestamp_ms=0),
        "delay_ms": Message("t", b"x", delay_ms=0),
        "delay_level": Message("t", b"x", delay_level=18),
    }
    for name, message in delayed.items():
        assert (message.is_delayed, message.delay_field) == (True, name)
    assert (Message("t", b"x").is_delayed, Message("t", b"x").delay_field) == (False, None)


def test_the_longest_topic_is_allowed() -> None:
    """127 characters, as brokers allow."""
    assert Message("t" * 127, b"x").topic == "t" * 127


def test_the_reserved_keys_are_rocketmqs() -> None:
    """The copy here has every key of the codec's list, and two that have a field of their own or come from brokers."""
    more = {codec.PROPERTY_CLUSTER, codec.PROPERTY_SHARDING_KEY}
    assert codec.RESERVED_PROPERTY_KEYS | more == RESERVED_PROPERTY_KEYS


def test_trace_context_counts_as_the_users() -> None:
    """So that it survives delivery and can be read by the consumer."""
    assert is_user_property("traceparent")
    assert is_user_property("TRACE_CONTEXT")
    assert not is_user_property("TAGS")
