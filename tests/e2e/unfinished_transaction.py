"""A producer that begins a transaction and never ends it: `unfinished_transaction.py PROXY TOPIC BODY`.

It prints the half message's id once the message is stored, and waits to be killed.
"""

import asyncio
import sys

from apogeemq.client_grpc import Message, Producer, ReceivedMessage, Resolution


async def check(_message: ReceivedMessage) -> Resolution:
    return Resolution.UNKNOWN


async def main(proxy: str, topic: str, body: str) -> None:
    async with Producer(proxy, checker=check) as producer:
        receipt = await producer.transaction(Message(topic, body.encode(), keys=(body,))).begin()
        print(receipt.message_id, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
