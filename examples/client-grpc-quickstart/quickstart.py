"""Send a message, have it handled: `python quickstart.py [PROXY]`, the proxy's gRPC address being 127.0.0.1:8081."""

# ruff: noqa: T201 — a first program prints what it does

import asyncio
import sys

from apogeemq.client_grpc import Message, Producer, PushConsumer, ReceivedMessage

TOPIC = "FirstTopic"


async def main(proxy: str) -> None:
    """Both ends in one program, as a first try wants it."""
    is_handled = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        print(f"received: {message.body.decode()} (delivery {message.delivery_attempt})")
        is_handled.set()

    async with Producer(proxy) as producer:
        receipt = await producer.send(Message(TOPIC, b"hello, queue"))
        print(f"sent: {receipt.topic} {receipt.message_id}")
        async with PushConsumer(proxy, group="FirstGroup", subscriptions={TOPIC: "*"}, handler=handle):
            await asyncio.wait_for(is_handled.wait(), timeout=30)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8081"))
