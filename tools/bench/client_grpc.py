"""What apogeemq-client-grpc costs its own process: sends one by one and in batches, handlers, and `async for`.

CPU time is the measuring process's own, user and system, over what was sent or received in the measured time: the
server runs elsewhere. Consuming is measured on a backlog, so that waiting for messages is not in it.
"""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence

from apogeemq.client_grpc import Message, Producer, PushConsumer, ReceivedMessage

BODY = b"x" * 1024
BATCH_MESSAGES = 32
SEND_TIMEOUT_S = 30.0
CONSUME_TIMEOUT_S = 120.0
BACKLOG_MESSAGES = 20_000


@dataclasses.dataclass(frozen=True)
class ClientLoad:
    """One case: `kind` is send, batch, handler or iterate; `in_flight` counts calls of the first two."""

    kind: str
    in_flight: int
    target: str
    topic: str
    seconds: float
    warmup_s: float
    backlog_messages: int = BACKLOG_MESSAGES

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.kind}-{self.in_flight}" if self.kind in {"send", "batch"} else self.kind


@dataclasses.dataclass(frozen=True)
class ClientOutcome:
    """What was seen in the measured time."""

    case: str
    messages: int
    elapsed_s: float
    client_cpu_s: float

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.elapsed_s

    @property
    def client_cpu_us(self) -> float:
        """The client's CPU time per message."""
        return self.client_cpu_s / max(self.messages, 1) * 1e6


CASES = (("send", 1), ("send", 64), ("batch", 4), ("handler", 0), ("iterate", 0))


def run(load: ClientLoad) -> ClientOutcome:
    """Run one case in this process, which should be its own."""
    return asyncio.run(_KINDS[load.kind](load))


async def _send(load: ClientLoad) -> ClientOutcome:
    async with Producer(load.target, topics=[load.topic]) as producer:
        message = Message(load.topic, BODY)

        async def send_one() -> int:
            await producer.send(message, timeout_s=SEND_TIMEOUT_S)
            return 1

        return await _in_flight(load, send_one)


async def _send_batches(load: ClientLoad) -> ClientOutcome:
    async with Producer(load.target, topics=[load.topic]) as producer:
        messages = [Message(load.topic, BODY)] * BATCH_MESSAGES

        async def send_batch() -> int:
            return len(await producer.send_batch(messages, timeout_s=SEND_TIMEOUT_S))

        return await _in_flight(load, send_batch)


async def _in_flight(load: ClientLoad, work: Callable[[], Awaitable[int]]) -> ClientOutcome:
    """Keep so many calls under way, and count what ends between the warm-up and the end."""
    counted = 0
    is_over = False

    async def go_on() -> None:
        nonlocal counted
        while not is_over:
            counted += await work()

    tasks = [asyncio.create_task(go_on()) for _ in range(load.in_flight)]
    await asyncio.sleep(load.warmup_s)
    counted, began_s, cpu_s = 0, time.monotonic(), time.process_time()
    await asyncio.sleep(load.seconds)
    outcome = ClientOutcome(load.name, counted, time.monotonic() - began_s, time.process_time() - cpu_s)
    is_over = True
    await asyncio.gather(*tasks)
    return outcome


async def _handle(load: ClientLoad) -> ClientOutcome:
    await _store_backlog(load)
    numbers = itertools.count(1)
    all_there = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        if next(numbers) == load.backlog_messages:
            all_there.set()

    began_s, cpu_s = time.monotonic(), time.process_time()
    async with PushConsumer(load.target, group=load.topic, subscriptions={load.topic: "*"}, handler=handle):
        await asyncio.wait_for(all_there.wait(), CONSUME_TIMEOUT_S)
    return _consumed(load, began_s, cpu_s)


async def _iterate(load: ClientLoad) -> ClientOutcome:
    await _store_backlog(load)
    seen = 0
    began_s, cpu_s = time.monotonic(), time.process_time()
    async with PushConsumer(load.target, group=load.topic, subscriptions={load.topic: "*"}) as consumer:
        async with asyncio.timeout(CONSUME_TIMEOUT_S):
            async for message in consumer:
                seen += 1
                if seen == load.backlog_messages:
                    await consumer.ack(message)
                    break
    return _consumed(load, began_s, cpu_s)


async def _store_backlog(load: ClientLoad) -> None:
    async with Producer(load.target, topics=[load.topic]) as producer:
        for start in range(0, load.backlog_messages, BATCH_MESSAGES):
            count = min(BATCH_MESSAGES, load.backlog_messages - start)
            await producer.send_batch([Message(load.topic, BODY)] * count, timeout_s=SEND_TIMEOUT_S)


def _consumed(load: ClientLoad, began_s: float, cpu_s: float) -> ClientOutcome:
    """Start and close of the consumer are in it, as they are for an application."""
    return ClientOutcome(load.name, load.backlog_messages, time.monotonic() - began_s, time.process_time() - cpu_s)


_KINDS = {"send": _send, "batch": _send_batches, "handler": _handle, "iterate": _iterate}


def table(outcomes: Sequence[ClientOutcome]) -> str:
    """One line a case, and what iterating keeps of the handlers' rate."""
    lines = [f"{'case':<10} {'msg/s':>10} {'client µs/msg':>14}"]
    lines += [f"{each.case:<10} {each.rate:>10,.0f} {each.client_cpu_us:>14,.0f}" for each in outcomes]
    rates = {each.case: each.rate for each in outcomes}
    if rates.keys() >= {"handler", "iterate"}:
        lines.append(f"async for runs at {rates['iterate'] / rates['handler']:.2f} of the handlers' rate")
    return "\n".join(lines)
