"""Middleware runs around sends and handlers, the first of the list outermost."""

from dataclasses import replace

from apogeemq.client_api.handling import Handler
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt
from apogeemq.client_api.middleware import Middleware, Send, around_handler, around_send

RECEIPT = SendReceipt("ID", "t", "b", 0, 0)


class Noting(Middleware):
    """Notes when it runs, and marks the message."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    async def on_send(self, message: Message, proceed: Send) -> SendReceipt:
        self.notes.append(f"{self.name} before")
        receipt = await proceed(replace(message, body=message.body + self.name.encode()))
        self.notes.append(f"{self.name} after")
        return receipt


class Swallowing(Middleware):
    """Ends the matter itself."""

    async def on_process(self, message: ReceivedMessage, proceed: Handler) -> None:
        return None


async def test_the_first_is_the_outermost() -> None:
    """Each sees what the one outside it passed on."""
    notes: list[str] = []
    sent: list[bytes] = []

    async def send(message: Message) -> SendReceipt:
        sent.append(message.body)
        return RECEIPT

    receipt = await around_send([Noting("a", notes), Noting("b", notes)], send)(Message("t", b"-"))
    assert (receipt, sent) == (RECEIPT, [b"-ab"])
    assert notes == ["a before", "b before", "b after", "a after"]


async def test_one_may_end_the_matter() -> None:
    """A handler behind it is not called."""
    handled: list[ReceivedMessage] = []

    async def handle(message: ReceivedMessage) -> None:
        handled.append(message)

    message = ReceivedMessage(
        message_id="ID",
        topic="t",
        body=b"x",
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
    await around_handler([Noting("passes", []), Swallowing()], handle)(message)
    assert handled == []
    await around_handler([Noting("passes", [])], handle)(message)
    assert handled == [message]
