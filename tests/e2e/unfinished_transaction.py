"""A producer that begins a transaction and never ends it: `unfinished_transaction.py CLIENT ADDRESS TOPIC BODY`.

CLIENT is grpc or remoting, ADDRESS its proxy's or name server's. It prints the half message's id once the message is
stored, and waits to be killed.
"""

import asyncio
import importlib
import sys

from apogeemq.client_api.message import Message, ReceivedMessage
from apogeemq.client_api.transactions import Resolution


async def check(_message: ReceivedMessage) -> Resolution:
    return Resolution.UNKNOWN


async def main(client: str, address: str, topic: str, body: str) -> None:
    async with importlib.import_module(f"apogeemq.client_{client}").Producer(address, checker=check) as producer:
        receipt = await producer.transaction(Message(topic, body.encode(), keys=(body,))).begin()
        print(receipt.message_id, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
