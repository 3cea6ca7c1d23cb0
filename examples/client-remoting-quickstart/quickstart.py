"""Send a message, have it handled: `python quickstart.py [NAMESRV]`, the name server's address being 127.0.0.1:9876."""

# ruff: noqa: T201 — a first program prints what it does

import asyncio
import sys

from apogeemq.client_remoting import Message, Producer, PushConsumer, ReceivedMessage

TOPIC = "FirstTopic"


async def main(namesrv: str) -> None:
    """Both ends in one program, as a first try wants it."""
    is_handled = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        print(f"received: {message.body.decode()} (delivery {message.delivery_attempt})")
        is_handled.set()

    async with Producer(namesrv) as producer:
        receipt = await producer.send(Message(TOPIC, b"hello, queue"))
        print(f"sent: {receipt.topic} {receipt.message_id}")
        subscriptions = {TOPIC: "*"}
        async with PushConsumer(
            namesrv, group="FirstGroup", subscriptions=subscriptions, handler=handle, start="earliest"
        ):
            await asyncio.wait_for(is_handled.wait(), timeout=30)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9876"))
