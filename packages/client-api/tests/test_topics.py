"""Typed topics turn payloads into messages and back; a body that cannot be read is named, never shown."""

import dataclasses
from typing import cast

import pytest
from apogeemq.client_api.errors import MessageInvalid, PayloadInvalid
from apogeemq.client_api.message import Message, ReceivedMessage
from apogeemq.client_api.topics import JSON, RAW, TEXT, JsonValue, Topic, json


@dataclasses.dataclass(frozen=True)
class Order:
    """A payload."""

    number: int
    item: str


def load_order(value: JsonValue) -> Order:
    fields = cast("dict[str, object]", value)
    return Order(cast("int", fields["number"]), cast("str", fields["item"]))


ORDERS = Topic("orders", json(dump=dataclasses.asdict, load=load_order))


def received(body: bytes) -> ReceivedMessage:
    return ReceivedMessage(
        message_id="ID",
        topic="orders",
        body=body,
        tag=None,
        keys=(),
        properties={},
        message_group=None,
        born_timestamp_ms=0,
        born_host="127.0.0.1:1",
        store_timestamp_ms=0,
        broker_name="b",
        queue_id=0,
        queue_offset=0,
        delivery_attempt=1,
        group="g",
    )


def test_a_payload_goes_out_and_comes_back() -> None:
    """With the message's other fields beside it."""
    message = ORDERS.message(Order(7, "Tüte"), tag="new", keys=("7",))
    assert message == Message("orders", '{"number":7,"item":"Tüte"}'.encode(), tag="new", keys=("7",))
    assert ORDERS.payload(received(message.body)) == Order(7, "Tüte")


def test_the_plain_codecs() -> None:
    """Bytes as they are, text in UTF-8, JSON values."""
    assert Topic("t", RAW).payload(received(b"\xff")) == b"\xff"
    assert Topic("t", TEXT).message("ü").body == b"\xc3\xbc"
    assert Topic("t", JSON).payload(received(b'[1,"a",null]')) == [1, "a", None]


@pytest.mark.parametrize("body", [b"secret", b'{"number":1}', b"\xff"])
def test_a_body_that_cannot_be_read(body: bytes) -> None:
    """The error has the message's id and the topic, and nothing of the body."""
    with pytest.raises(PayloadInvalid) as caught:
        ORDERS.payload(received(body))
    assert "ID" in str(caught.value)
    assert "orders" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_payload_that_cannot_be_written() -> None:
    """NaN is no JSON."""
    with pytest.raises(PayloadInvalid):
        Topic("t", JSON).message(float("nan"))


def test_an_impossible_name_is_refused_where_it_is_written() -> None:
    """And not at the first send."""
    with pytest.raises(MessageInvalid):
        Topic("no spaces", RAW)
