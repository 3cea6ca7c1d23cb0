"""The push consumer: messages come by themselves, to a handler or to an `async for`.

Under it: a rebalance that decides which queues are this member's, a reader for each of them, workers that call the
handler, and a settler that tells the brokers what became of the messages. This module only puts them together, and
takes them apart in order.
"""

import asyncio
import os
import pathlib
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from apogeemq.client_api.errors import ClientClosed, NotSupported
from apogeemq.client_api.filters import Filter
from apogeemq.client_api.handling import Handler, PlainHandler, Retry, as_handler
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_api.middleware import Middleware, around_handler
from apogeemq.client_api.tracing import Tracing, find_tracer
from apogeemq.client_remoting.broadcasting import DroppingSettler, EveryQueue
from apogeemq.client_remoting.broker_requests import BrokerRequests, Profile, java_properties
from apogeemq.client_remoting.checking import start_checked
from apogeemq.client_remoting.claims import NoClaims
from apogeemq.client_remoting.consumer_group import consumer_heartbeat, group_name, read_subscriptions
from apogeemq.client_remoting.core.delay_levels import nearest_delay_level
from apogeemq.client_remoting.core.offsets import Start, check_start
from apogeemq.client_remoting.core.pull_schedule import FlowLimits
from apogeemq.client_remoting.core.subscription import ALL, Subscription
from apogeemq.client_remoting.core.suspension import orderly_retry
from apogeemq.client_remoting.delivery import ConcurrentDelivery, Delivery, HandlerCalls, ReadyMessages, Workers
from apogeemq.client_remoting.instance import ClientInstance, ClientSettings, Membership
from apogeemq.client_remoting.local_offsets import LocalOffsets
from apogeemq.client_remoting.locking import Locks
from apogeemq.client_remoting.messages import retry_topic
from apogeemq.client_remoting.offset_store import OffsetStore
from apogeemq.client_remoting.orderly import Lanes, OrderlyDelivery
from apogeemq.client_remoting.queue_reader import QueueReader
from apogeemq.client_remoting.reading import InHand, ReadQueues
from apogeemq.client_remoting.rebalance import Rebalance
from apogeemq.client_remoting.settling import OffsetCommitter, Settler, Settling
from apogeemq.client_remoting.version import VERSION
from apogeemq.remoting_codec.bodies import ConsumeType, HeartbeatData, MessageModel, MessageQueue, SubscriptionData

CONCURRENCY_DEFAULT: Final = 20
"""Handlers at once; Apache's consumeThreadMin."""


class PushConsumer:
    """Receives messages over RocketMQ's Remoting protocol, as a member of a consumer group.

    Args:
        address: the name servers, `host:port;host:port`.
        group: the consumer group; its members divide the queues among themselves.
        subscriptions: topic → `*`, tags (`a || b`) or `Sql("a > 5")`. All members of a group must have the same ones.
        namespace: what topics and group are in, see `core.namespaces`; empty: none. Messages tell names without.
        handler: called for each message; a plain function runs in a thread. Without one, use `async for`.
        retry: what becomes of a message whose handler raised. Delays are those of the nearest delay level; with
            `orderly` they are kept in place, from 10 ms to 30 s, and without a policy a message is tried every second
            until it is handled.
        start: where a group without offsets begins: `latest`, `earliest`, a datetime with a zone, or ms since 1970.
        orderly: handle the messages of a queue one after the other in their order, under a lock; a message that fails
            blocks its queue until it is handled or given up. Needs a handler.
        broadcasting: a directory: get every message of every queue, whatever other members get, and keep how far this
            member is in `<directory>/<group>/offsets.json`. A message whose handler raised is logged and dropped. Each
            member needs a directory of its own.
        concurrency: handlers at once.
        middleware: what runs around each handler call, the outermost first.
        flow: bounds on what is fetched and not handled yet.
        tls: for name servers and brokers; None is plain TCP.
        start_timeout_s: how long the start may take.
        close_timeout_s: how long handlers may run on when the consumer closes.

    Raises ValueError, MessageInvalid and NotSupported for arguments that cannot work.
    """

    def __init__(
        self,
        address: str,
        *,
        group: str,
        subscriptions: Mapping[str, Filter],
        namespace: str = "",
        handler: Handler | PlainHandler | None = None,
        retry: Retry | None = None,
        start: Start = "latest",
        orderly: bool = False,
        broadcasting: str | os.PathLike[str] | None = None,
        concurrency: int = CONCURRENCY_DEFAULT,
        middleware: Sequence[Middleware] = (),
        flow: FlowLimits | None = None,
        tls: ssl.SSLContext | None = None,
        start_timeout_s: float = 5.0,
        close_timeout_s: float = 10.0,
    ) -> None:
        group = group_name(group, namespace)
        if not subscriptions:
            raise ValueError("subscriptions is empty: name at least one topic")
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; it must be 1 or more")
        self._group = group
        self._namespace = namespace
        self._subscriptions = read_subscriptions(subscriptions, namespace)
        self._is_broadcasting = broadcasting is not None
        if broadcasting is None:
            self._subscriptions[retry_topic(group)] = Subscription(retry_topic(group), ALL)
        self._start = check_start(start)
        self._limits = flow or FlowLimits()
        self._close_timeout_s = close_timeout_s
        self._sub_version_ms = time.time_ns() // 1_000_000
        if orderly and handler is None:
            raise NotSupported(
                "messages are given in order to a handler only", hint="Give a handler, or leave orderly out."
            )
        if orderly and broadcasting is not None:
            raise NotSupported(
                "messages that are broadcast are handled in any order", hint="Leave orderly or broadcasting out."
            )
        retry = orderly_retry(retry) if orderly else retry or Retry()
        membership = Membership(self._heartbeat, consumer_group=group)
        self._instance = ClientInstance(address, membership, ClientSettings(tls, start_timeout_s))
        tracing = Tracing(
            find_tracer("apogeemq.client_remoting", VERSION),
            client_id=self._instance.client_id,
            group=group,
            server=self._instance.name_server,
            namespace=namespace,
        )
        self._ready = ReadyMessages()
        self._settler: Settling
        self._offsets: OffsetStore
        if broadcasting is None:
            self._settler = Settler(
                instance=self._instance,
                group=group,
                reconsume_times_max=retry.max_attempts - 1,
                redeliver=self._put_back,
                tracing=tracing,
            )
            self._offsets = OffsetCommitter(self._instance, group)
        else:
            self._settler = DroppingSettler()
            self._offsets = LocalOffsets(pathlib.Path(broadcasting), group)
        calls = None
        if handler is not None:
            calls = HandlerCalls(around_handler(tuple(middleware), as_handler(handler)), tracing)
        self._has_handler = calls is not None
        self._delivery = self._make_delivery(calls, retry, concurrency, orderly=orderly)
        self._reading = ReadQueues(
            instance=self._instance,
            group=group,
            start=self._start,
            offsets=self._offsets,
            claims=self._delivery.claims,
            read=self._read,
        )
        profile = Profile(
            group=group,
            namespace=namespace,
            is_orderly=orderly,
            properties=java_properties(
                address,
                ConsumeType.CONSUME_PASSIVELY,
                started_ms=self._sub_version_ms,
                concurrency=concurrency,
                is_orderly=orderly,
            ),
            subscriptions=self._subscription_data,
        )
        self._instance.serve(BrokerRequests(self._instance, self._reading, calls, profile).handlers())
        self._balancing: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def client_id(self) -> str:
        """What the servers know this consumer by."""
        return self._instance.client_id

    async def __aenter__(self) -> Self:
        """Reach a name server, have SQL expressions checked, and begin to receive. Raises StartFailed."""
        await self._offsets.load()
        await start_checked(self._instance, self._group, self._subscriptions.values(), self._sub_version_ms)
        self._instance.route_listeners.append(lambda _topic: self._reading.wish.set())
        self._delivery.start(self._reading.forsake)
        divide = EveryQueue if self._is_broadcasting else Rebalance
        rebalance = divide(self._instance, self._group, self._subscriptions, self._reading)
        self._balancing = self._instance.run(rebalance.run(), "rebalance")
        self._instance.run(self._reading.keep_committing(), "offsets")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop fetching, let the handlers that run end, commit, unregister, close.

        Messages that were fetched and not begun go to another member, or come again.
        """
        if self._is_closed or self._balancing is None:
            return
        self._is_closed = True
        self._balancing.cancel()  # nothing is taken up any more
        await asyncio.gather(self._balancing, *self._reading.stop(), return_exceptions=True)
        await self._delivery.finish(self._close_timeout_s)
        await self._offsets.commit_all(self._reading.in_hand)
        await self._delivery.leave()
        await self._instance.close()

    def __aiter__(self) -> AsyncIterator[ReceivedMessage]:
        """Messages one by one; asking for the next acknowledges the one before, unless it was settled otherwise."""
        if self._has_handler:
            raise NotSupported(
                "this consumer has a handler, which gets the messages", hint="Leave the handler out to use `async for`."
            )
        return self._messages()

    async def ack(self, message: ReceivedMessage) -> None:
        """The message is dealt with."""
        self._settler.done(message)

    async def retry_later(self, message: ReceivedMessage, after_s: float) -> None:
        """Deliver the message again after the time of the nearest delay level.

        Raises SettleFailed, ConnectionBroken, ClientClosed.
        """
        await self._settler.send_back(message, nearest_delay_level(after_s))

    def _make_delivery(self, calls: HandlerCalls | None, retry: Retry, concurrency: int, *, orderly: bool) -> Delivery:
        """The way from readers to the handler."""
        settler = self._settler
        if orderly and calls is not None:
            locks = Locks(self._instance, self._group)
            lanes = Lanes(calls=calls, retry=retry, settler=settler, locks=locks, concurrency=concurrency)
            return OrderlyDelivery(self._instance, locks, lanes, self._offsets)
        workers = None
        if calls is not None:
            workers = Workers(ready=self._ready, calls=calls, retry=retry, settler=settler, concurrency=concurrency)
        return ConcurrentDelivery(self._ready, workers, NoClaims(self._offsets))

    def _put_back(self, messages: Iterable[ReceivedMessage]) -> None:
        self._delivery.put_back(messages)

    async def _messages(self) -> AsyncIterator[ReceivedMessage]:
        if self._balancing is None or self._is_closed:
            raise ClientClosed("the consumer is closed or was not started", hint="Use it with `async with`.")
        while (message := await self._ready.take()) is not None:
            yield message
            self._settler.done(message)

    def _read(self, queue: MessageQueue, subscription: Subscription, in_hand: InHand) -> Coroutine[None, None, None]:
        """The loop that reads a queue."""
        reader = QueueReader(
            instance=self._instance,
            group=self._group,
            namespace=self._namespace,
            subscription=subscription,
            queue=queue,
            in_hand=in_hand,
            hand_over=self._delivery.open(queue),
            settler=self._settler,
            limits=self._limits,
            queue_count=lambda: self._reading.queue_count,
        )
        return reader.run()

    def _subscription_data(self) -> list[SubscriptionData]:
        return [subscription.data(self._sub_version_ms) for subscription in self._subscriptions.values()]

    def _heartbeat(self, client_id: str) -> HeartbeatData:
        return consumer_heartbeat(
            client_id,
            self._group,
            ConsumeType.CONSUME_PASSIVELY,
            self._start,
            self._subscription_data(),
            MessageModel.BROADCASTING if self._is_broadcasting else MessageModel.CLUSTERING,
        )
