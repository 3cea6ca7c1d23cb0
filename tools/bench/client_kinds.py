"""What a client costs its own process: sends one by one and in batches, handlers, and `async for`; any of our clients.

The server runs elsewhere. Consuming is measured on a backlog, so that waiting for messages is not in it; start and
close of the consumer are, as they are for an application.
"""

import asyncio
from collections.abc import Callable

import uvloop
from apogeemq import client_grpc, client_remoting
from apogeemq.client_api.consumer import PushConsumer
from apogeemq.client_api.handling import Handler
from apogeemq.client_api.message import Message, ReceivedMessage
from apogeemq.client_api.producer import Producer

from tools.bench.client_load import (
    BATCH_MESSAGES,
    BODY,
    CONSUME_TIMEOUT_S,
    SEND_TIMEOUT_S,
    ClientLoad,
    ClientOutcome,
    Stopwatch,
    keep_in_flight,
)

PRODUCERS: dict[str, Callable[[str], Producer]] = {
    "remoting": client_remoting.Producer,
    "grpc": client_grpc.Producer,
}


def run(load: ClientLoad) -> ClientOutcome:
    """Run one case in this process, which should be its own."""
    start = uvloop.run if load.loop == "uvloop" else asyncio.run
    return start(_KINDS[load.kind](load))


def _consumer(load: ClientLoad, handler: Handler | None = None) -> PushConsumer:
    subscriptions = {load.topic: "*"}
    if load.client == "remoting":
        return client_remoting.PushConsumer(
            load.target, group=load.topic, subscriptions=subscriptions, handler=handler, start="earliest"
        )
    return client_grpc.PushConsumer(load.target, group=load.topic, subscriptions=subscriptions, handler=handler)


async def _send(load: ClientLoad) -> ClientOutcome:
    async with PRODUCERS[load.client](load.target) as producer:

        async def send_one() -> int:
            await producer.send(Message(load.topic, BODY), timeout_s=SEND_TIMEOUT_S)
            return 1

        return await keep_in_flight(load, send_one)


async def _send_batches(load: ClientLoad) -> ClientOutcome:
    async with PRODUCERS[load.client](load.target) as producer:

        async def send_batch() -> int:
            batch = [Message(load.topic, BODY) for _ in range(BATCH_MESSAGES)]
            return len(await producer.send_batch(batch, timeout_s=SEND_TIMEOUT_S))

        return await keep_in_flight(load, send_batch)


async def _handle(load: ClientLoad) -> ClientOutcome:
    stored = await _store_backlog(load)
    handled = 0
    all_there = asyncio.Event()

    async def handle(_message: ReceivedMessage) -> None:
        nonlocal handled
        handled += 1
        if handled == stored:
            all_there.set()

    stopwatch = Stopwatch(load)
    async with _consumer(load, handle):
        await asyncio.wait_for(all_there.wait(), CONSUME_TIMEOUT_S)
    return stopwatch.outcome(handled)


async def _iterate(load: ClientLoad) -> ClientOutcome:
    stored = await _store_backlog(load)
    seen = 0
    stopwatch = Stopwatch(load)
    async with _consumer(load) as consumer, asyncio.timeout(CONSUME_TIMEOUT_S):
        async for message in consumer:
            seen += 1
            if seen == stored:
                await consumer.ack(message)
                break
    return stopwatch.outcome(seen)


async def _store_backlog(load: ClientLoad) -> int:
    """Store the messages to be consumed; gives their number."""
    stored = 0
    async with PRODUCERS[load.client](load.target) as producer:
        while stored < load.backlog_messages:
            batch = [Message(load.topic, BODY) for _ in range(BATCH_MESSAGES)]
            stored += len(await producer.send_batch(batch, timeout_s=SEND_TIMEOUT_S))
    return stored


_KINDS = {"send": _send, "batch": _send_batches, "handler": _handle, "iterate": _iterate}
