"""A process of traced clients for test_trace_tree: `traced_clients.py ROLE PROTOCOL ADDRESS TOPIC COUNT`.

Its spans go where the OTEL_* variables say, under the service name that is its role. It prints what it did, as JSON.

    send     COUNT messages at the same time
    receive  COUNT messages by a simple consumer, each acknowledged (gRPC only)
    process  COUNT messages by a push consumer's handler
    transact COUNT transactions, and one that is left to the checker, which commits it too (gRPC only)
"""

import asyncio
import json
import sys

from apogeemq import client_grpc, client_remoting
from apogeemq.client_api.message import Message, ReceivedMessage
from apogeemq.client_api.transactions import Resolution
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

TIMEOUT_S = 30.0


async def send(protocol: str, address: str, topic: str, count: int) -> list[str]:
    producer = client_remoting.Producer(address) if protocol == "remoting" else client_grpc.Producer(address)
    async with producer:
        messages = [Message(topic, b"traced %d" % number) for number in range(count)]
        receipts = await asyncio.gather(*(producer.send(message, timeout_s=TIMEOUT_S) for message in messages))
    return [receipt.message_id for receipt in receipts]


async def receive(protocol: str, address: str, topic: str, count: int) -> list[str]:
    received: list[str] = []
    async with client_grpc.SimpleConsumer(address, group=f"S_{topic}", subscriptions={topic: "*"}) as consumer:
        while len(received) < count:
            for message in await consumer.receive(count, invisible_s=60.0, await_s=TIMEOUT_S):
                await consumer.ack(message)
                received.append(message.message_id)
    return received


async def process(protocol: str, address: str, topic: str, count: int) -> list[str]:
    processed: list[str] = []
    all_there = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        processed.append(message.message_id)
        if len(processed) == count:
            all_there.set()

    consumer: client_remoting.PushConsumer | client_grpc.PushConsumer
    group, subscriptions = f"P_{topic}", {topic: "*"}
    if protocol == "remoting":
        consumer = client_remoting.PushConsumer(
            address, group=group, subscriptions=subscriptions, handler=handle, start="earliest"
        )
    else:
        consumer = client_grpc.PushConsumer(address, group=group, subscriptions=subscriptions, handler=handle)
    async with consumer:
        await asyncio.wait_for(all_there.wait(), TIMEOUT_S)
    return processed


async def transact(protocol: str, address: str, topic: str, count: int) -> list[str]:
    """Ends once all of them were received."""

    async def commit(message: ReceivedMessage) -> Resolution:
        return Resolution.COMMIT

    async with client_grpc.Producer(address, checker=commit) as producer:
        for number in range(count):
            async with producer.transaction(Message(topic, b"traced %d" % number)):
                pass
        await producer.transaction(Message(topic, b"traced, and left open")).begin()
        return await receive(protocol, address, topic, count + 1)


def main() -> None:
    role, protocol, address, topic, count = sys.argv[1:]
    provider = TracerProvider(resource=Resource({"service.name": role}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    roles = {"send": send, "receive": receive, "process": process, "transact": transact}
    ids = asyncio.run(asyncio.wait_for(roles[role](protocol, address, topic, int(count)), 2 * TIMEOUT_S))
    provider.shutdown()
    print(json.dumps(ids))


if __name__ == "__main__":
    main()
