"""Clients over the proxies, by our gRPC library: what an application sees, with its own retries and its way around.

```
 GrpcWorker ── Producer ───────┐                        a connection to the first proxy that answers, and to the next
            └─ SimpleConsumer ─┴─ proxy-1 │ proxy-2 ── master          one when that is gone
```
It sends again by itself, within 3 s, what it got no answer for: a message may be stored twice, under one key. What it
gives up stays UNKNOWN, but for what a proxy surely refused at the first attempt.
"""

import asyncio
import contextlib
import dataclasses
import heapq
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

from apogeemq.client_api.errors import ClientError, Refused, RouteNotFound, StartFailed
from apogeemq.client_grpc import Message, Producer, ReceivedMessage, Resolution, SendReceipt, SimpleConsumer
from apogeemq.client_grpc.core.messages import Receipt
from apogeemq.proto.v2.definition_pb2 import Code

from tests.chaos import delayed, popping, transacting
from tests.chaos.history import (
    Ack,
    Call,
    Change,
    Decision,
    Delivery,
    End,
    History,
    Kind,
    Outcome,
    Place,
    Pop,
    Recall,
    Send,
    now_ms,
)
from tests.chaos.worker import PAUSE_S, RECONNECT_S, AnyWorker

INVISIBLE_S = 10.0
"""The least that proxies take; what is not settled keeps its message group waiting for so long."""
AWAIT_S = 5.0
ACK_SHARE = 0.85
CHANGE_SHARE = 0.13
LOOK_S = 0.1
REFUSALS = frozenset(
    {Code.BAD_REQUEST, Code.FORBIDDEN, Code.INVALID_RECEIPT_HANDLE, Code.TOO_MANY_REQUESTS, Code.TOPIC_NOT_FOUND}
)
"""Of these a proxy and its broker have done nothing."""

AnswerT = TypeVar("AnswerT")


@dataclasses.dataclass(slots=True)
class InHand:
    """A received message that got another time, and will be acknowledged within it."""

    delivery: Delivery
    message: ReceivedMessage
    settle_at_ms: int


@contextlib.contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One for all, in a thread: gRPC's poller serves all event loops of a process, and fails with those that close."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="grpc")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class GrpcWorker(AnyWorker):
    """Sends normal messages, one after the other, and receives them; subclasses have other kinds.

    Args:
        address: the proxies' addresses, separated by ";".
        loop: runs the clients; see `event_loop`.
        history: gets everything.
        random: makes its choices.
    """

    kind = Kind.GRPC
    name = kind.value
    topic, group = "ChaosGrpc", "chaos_grpc"

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop, history: History, random: Random) -> None:
        super().__init__(history, random)
        self._address = address
        self._loop = loop
        self._waiting: set[str] = set()
        """Keys of those that were sent and have not come yet."""
        self._later: list[InHand] = []

    def _go_on(self) -> None:
        asyncio.run_coroutine_threadsafe(self._work(), self._loop).result()

    async def _work(self) -> None:
        """One producer and one consumer for as long as they live, which is to the end once they have started."""
        producer = Producer(self._address, checker=self._check)
        consumer = SimpleConsumer(self._address, group=self.group, subscriptions={self.topic: "*"})
        try:
            await producer.__aenter__()
            await consumer.__aenter__()
            await self._until_over(
                self._again_and_again(lambda: self._send_some(producer)),
                self._again_and_again(lambda: self._receive(consumer)),
                self._again_and_again(lambda: self._ack_later(consumer)),
            )
        except (StartFailed, RouteNotFound):
            return  # no proxy answers yet, or it finds no name server
        finally:
            await consumer.__aexit__(None, None, None)
            await producer.__aexit__(None, None, None)

    async def _until_over(self, *works: Awaitable[None]) -> None:
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            while not self._is_over.is_set():
                done, _ = await asyncio.wait(tasks, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await work()
            await asyncio.sleep(PAUSE_S)

    async def ask(self, call: Call, answer: Awaitable[AnswerT]) -> AnswerT | None:
        """Make a call that is in the history from now on, and note how it ended; None where it was not accepted."""
        self.history.add(call)
        try:
            given = await answer
        except ClientError as error:
            if _is_refusal(error):
                self.history.end(call, Outcome.REFUSED)
            return None
        self.history.end(call, Outcome.ACKNOWLEDGED)
        return given

    # -- sending -------------------------------------------------------------------------------------------------------

    async def _send_some(self, producer: Producer) -> None:
        if self.is_sending and len(self._waiting) < popping.WAITING_MAX:
            await self._send(producer)

    async def _send(self, producer: Producer) -> None:
        send = Send(key=self.next_key(), kind=self.kind)
        await self._sent(send, producer.send(Message(self.topic, send.key.encode())))

    async def _sent(self, send: Send, answer: Awaitable[SendReceipt]) -> SendReceipt | None:
        self._waiting.add(send.key)  # before it may come
        receipt = await self.ask(send, answer)
        if receipt is None or send.decision is Decision.ROLLBACK:
            self._waiting.discard(send.key)
        return receipt

    async def _check(self, message: ReceivedMessage) -> Resolution:
        """Only transactions are asked about."""
        raise AssertionError(f"asked about {message}, which is no transaction")

    # -- receiving -----------------------------------------------------------------------------------------------------

    async def _receive(self, consumer: SimpleConsumer) -> None:
        pop = Pop(kind=self.kind, invisible_ms=0)
        most = self.random.randint(1, 16)
        messages = await self.ask(pop, consumer.receive(most, invisible_s=INVISIBLE_S, await_s=AWAIT_S))
        if messages is None:
            await asyncio.sleep(RECONNECT_S)
            return
        deliveries = [self._delivered(message) for message in messages]
        for delivery, message in zip(deliveries, messages, strict=True):
            await self._treat(consumer, delivery, message)

    def _delivered(self, message: ReceivedMessage) -> Delivery:
        _, popped, invisible, _, mark, _, queue_id, queue_offset, *_ = _handle(message).split(" ")
        delivery = Delivery(
            key=message.body.decode(),
            place=Place(popping.real_topic(self.topic, self.group, mark), int(queue_id), int(queue_offset)),
            stored_ms=message.store_timestamp_ms,
            failures=message.delivery_attempt - 1,
            popped_ms=int(popped),
            visible_ms=int(popped) + int(invisible),
        )
        self._waiting.discard(delivery.key)
        return self.history.add(delivery)

    async def _treat(self, consumer: SimpleConsumer, delivery: Delivery, message: ReceivedMessage) -> None:
        dice = self.random.random() if self.is_sending else 0.0
        if dice < ACK_SHARE:
            await self.ask(Ack(of=delivery.number), consumer.ack(message))
        elif dice < ACK_SHARE + CHANGE_SHARE:
            await self._change(consumer, delivery, message)

    async def _change(self, consumer: SimpleConsumer, delivery: Delivery, message: ReceivedMessage) -> None:
        """It gets another time, and most are acknowledged within it."""
        new_ms = self.random.randint(*popping.CHANGED_MS)
        change = Change(of=delivery.number, visible_ms=now_ms() + new_ms)
        changed = await self.ask(change, consumer.change_invisible(message, new_ms / 1000))
        if changed is None:
            return
        if self.kind is not Kind.GRPC_ORDERED:  # of an ordered one the answer has the old handle's times
            _, popped, invisible, *_ = _handle(changed).split(" ")
            change.visible_ms = int(popped) + int(invisible)
        self._later.append(InHand(delivery, changed, now_ms() + new_ms // 2))

    async def _ack_later(self, consumer: SimpleConsumer) -> None:
        due = [one for one in self._later if one.settle_at_ms <= now_ms()]
        self._later = [one for one in self._later if one.settle_at_ms > now_ms()]
        for one in due:
            await self.ask(Ack(of=one.delivery.number), consumer.ack(one.message))


class GrpcOrderedWorker(GrpcWorker):
    """Sends and receives message groups. A group whose last send has no answer gets no more: where that message lies
    among the next ones nobody promises, for a proxy may still have it.
    """

    kind = Kind.GRPC_ORDERED
    name = kind.value
    topic, group = "ChaosGrpcFifo", "chaos_grpc_fifo"

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop, history: History, random: Random) -> None:
        super().__init__(address, loop, history, random)
        self._given_up: Counter[int] = Counter()

    async def _send(self, producer: Producer) -> None:
        number = self.random.randrange(popping.MESSAGE_GROUPS)
        group = f"{self.name}-{number}.{self._given_up[number]}"
        send = Send(key=self.next_key(), kind=self.kind, order_group=group)
        await self._sent(send, producer.send(Message(self.topic, send.key.encode(), message_group=group)))
        if send.outcome is Outcome.UNKNOWN:
            self._given_up[number] += 1


class GrpcDelayedWorker(GrpcWorker):
    """Sends messages that are due at a millisecond, and takes some of them back, by choice close to that."""

    kind = Kind.GRPC_DELAYED
    name = kind.value
    topic, group = "ChaosGrpcDelay", "chaos_grpc_delay"

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop, history: History, random: Random) -> None:
        super().__init__(address, loop, history, random)
        self._recalls: list[tuple[int, str, str]] = []
        """(when, key, handle) of what is to be taken back."""

    async def _send(self, producer: Producer) -> None:
        wait_ms = self.random.randint(20, delayed.TIMER_MS_MAX)
        send = Send(key=self.next_key(), kind=self.kind, due_ms=now_ms() + wait_ms)
        message = Message(self.topic, send.key.encode(), delivery_timestamp_ms=send.due_ms)
        receipt = await self._sent(send, producer.send(message))
        if receipt is not None and receipt.recall_handle and self.random.random() < delayed.RECALL_SHARE:
            lead_ms = delayed.CLOSE_MS if self.random.random() < delayed.CLOSE_SHARE else wait_ms
            when_ms = send.due_ms - self.random.randint(0, lead_ms)
            heapq.heappush(self._recalls, (when_ms, send.key, receipt.recall_handle))

    async def _send_some(self, producer: Producer) -> None:
        await super()._send_some(producer)
        while self._recalls and self._recalls[0][0] <= now_ms():
            _, key, handle = heapq.heappop(self._recalls)
            await self.ask(Recall(key=key), producer.recall(self.topic, handle))
            self._waiting.discard(key)


class GrpcTransactionWorker(GrpcWorker):
    """Decides when it sends, and stays with that: at once, or when it is asked, or only after some time."""

    kind = Kind.GRPC_TRANSACTION
    name = kind.value
    topic, group = "ChaosGrpcTransaction", "chaos_grpc_transaction"

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop, history: History, random: Random) -> None:
        super().__init__(address, loop, history, random)
        self._decisions: dict[str, Decision] = {}

    async def _send(self, producer: Producer) -> None:
        decision = Decision.COMMIT if self.random.random() < transacting.COMMIT_SHARE else Decision.ROLLBACK
        send = Send(key=self.next_key(), kind=self.kind, decision=decision)
        self._decisions[send.key] = decision
        transaction = producer.transaction(Message(self.topic, send.key.encode()))
        receipt = await self._sent(send, transaction.begin())
        if receipt is not None and self.random.random() < transacting.AT_ONCE_SHARE:
            end = transaction.commit() if decision is Decision.COMMIT else transaction.rollback()
            await self.ask(End(key=send.key, decision=decision), end)

    async def _check(self, message: ReceivedMessage) -> Resolution:
        key = message.body.decode()
        if self.is_sending and self.random.random() < transacting.UNSURE_SHARE:
            return Resolution.UNKNOWN
        decision = self._decisions[key]
        self.history.add(
            End(key=key, decision=decision)
        )  # the library tells it to the proxy, and nobody how that ended
        return Resolution[decision.name]


WORKERS: Sequence[type[GrpcWorker]] = (GrpcWorker, GrpcOrderedWorker, GrpcDelayedWorker, GrpcTransactionWorker)


def _handle(message: ReceivedMessage) -> str:
    assert isinstance(message.receipt, Receipt), message
    return message.receipt.handle


def _is_refusal(error: ClientError) -> bool:
    """Whether nothing was done for sure: of several attempts an earlier one may have succeeded without an answer."""
    if isinstance(error, RouteNotFound):
        return error.attempts == 0
    return isinstance(error, Refused) and error.attempts <= 1 and error.code in REFUSALS
