"""Sending to one of a topic's queues, and again elsewhere when that makes sense.

When a send is tried again (by the producer's `SendRetry`, within its time-out):
- the broker refused it with a code that another broker may not share (nothing was stored): on another broker; on the
  same one only if the refusal is a passing one (overload, closing);
- the connection was lost before the answer: on any broker. The message may have been stored by then, so it may be
  stored twice. `retries=0` rules that out, at the price of errors that a retry would have hidden.
A broker that cannot be reached, has no master, or says that it is not master now costs no retry: nothing was stored;
others are tried, and then the same ones again, by a route that is asked for anew: the next master is near.
A time-out is final: it has used up the time.
A message with a group goes to the group's queue alone: it is tried again there, or not at all.
"""

import asyncio
import logging

from apogeemq.client_api.errors import ClientClosed, ClientError, ConnectionBroken, SendFailed, SendTimeout
from apogeemq.client_remoting import link
from apogeemq.client_remoting.connection import NotSent
from apogeemq.client_remoting.core.fault_latency import FaultLatency
from apogeemq.client_remoting.core.pull_schedule import backoff_s
from apogeemq.client_remoting.core.queue_choice import QueueChoice, queue_of_group
from apogeemq.client_remoting.core.refusals import PASSING, STORED, hint_for
from apogeemq.client_remoting.core.route_cache import TopicRoute
from apogeemq.client_remoting.core.send_retry import SendRetry
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.client_remoting.outgoing import Batch, Single
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.errors import RemoteProtocolError
from apogeemq.remoting_codec.headers import SendMessageResponseHeader
from apogeemq.remoting_codec.roles import is_not_master

logger = logging.getLogger(__name__)

UNREACHABLE_WAIT_S_MAX = 0.3
"""Longest pause while no broker can be reached: within the time of a send the next master of a set is there."""


class Sender:
    """Sends for one producer.

    Args:
        instance: the client at its servers.
        retry: what is tried again.
    """

    def __init__(self, instance: ClientInstance, retry: SendRetry) -> None:
        self._instance = instance
        self._retry = retry
        self._faults = FaultLatency()
        self._choice = QueueChoice(self._faults, int(instance.chance() * 1_000_000))
        self.is_open = False
        """Whether the producer has started and was not closed."""
        self._route_changed = asyncio.Event()
        instance.route_listeners.append(self._on_route)

    def check_open(self) -> None:
        """Raises ClientClosed."""
        if not self.is_open:
            raise ClientClosed("the producer is closed or was not started", hint="Use it with `async with`.")

    async def send(self, what: Single | Batch, timeout_s: float) -> tuple[SendMessageResponseHeader, MessageQueue]:
        """Send to one queue after the other until one takes it.

        Raises RouteNotFound, SendTimeout, SendFailed, ConnectionBroken, ClientClosed.
        """
        self.check_open()
        loop = asyncio.get_running_loop()
        started = now = loop.time()
        deadline = started + timeout_s
        tried: frozenset[str] = frozenset()
        attempts = unreachable = 0
        while True:
            route = self._instance.routes.get(what.topic)
            if route is None:
                route = await self._instance.route_to_send(what.topic, deadline - now)
            queue = self._choose(what, route, tried, now)
            try:
                header = await self._send_once(what, route, queue, deadline - now)
            except TimeoutError as error:
                self._faults.failed(queue.broker_name, loop.time())
                raise SendTimeout(
                    f"no answer to a send to topic {what.topic} within {timeout_s:g} s",
                    broker=queue.broker_name,
                    attempts=attempts + 1,
                    elapsed_s=loop.time() - started,
                    hint="The message may have been stored: sending it again may store it twice.",
                ) from error
            except NotSent as error:
                self._failed(what.topic, queue, loop.time())
                tried = tried | {queue.broker_name}
                unreachable += 1
                if loop.time() >= deadline:
                    raise _given_up(error, what.topic, queue, attempts, loop.time() - started) from error
                if what.message_group is not None or len(tried) >= len({one.broker_name for one in route.write_queues}):
                    tried = frozenset()
                    wait_s = min(backoff_s(unreachable, self._instance.chance()), UNREACHABLE_WAIT_S_MAX)
                    await self._pause(min(wait_s, max(deadline - loop.time(), 0)))
            except ConnectionBroken as error:
                self._failed(what.topic, queue, loop.time())
                attempts += 1
                may_retry = self._retry.after_lost_connection and attempts <= self._retry.retries
                if not may_retry or loop.time() >= deadline:
                    raise _given_up(error, what.topic, queue, attempts, loop.time() - started) from error
                tried = tried | {queue.broker_name}
            except link.Refusal as error:
                attempts += 1
                tried = tried | {queue.broker_name}
                may_retry = attempts <= self._retry.retries and loop.time() < deadline
                if not may_retry or not self._is_worth_it(error, what, route, tried):
                    raise refused(error, what.topic, queue, attempts, loop.time() - started) from error
                self._refused(error, what.topic, queue, loop.time())
                if error.code in PASSING:
                    wait_s = self._retry.wait_s(attempts, self._instance.chance())
                    await asyncio.sleep(min(wait_s, max(deadline - loop.time(), 0)))
            except RemoteProtocolError as error:
                raise SendFailed(
                    f"the broker's answer to a send to topic {what.topic} cannot be read",
                    code=ResponseCode.SYSTEM_ERROR,
                    remark=str(error),
                    broker=queue.broker_name,
                    attempts=attempts + 1,
                    elapsed_s=loop.time() - started,
                ) from error
            else:
                end = loop.time()
                self._faults.sent(queue.broker_name, end - now, end)
                return header, queue
            now = loop.time()

    def _on_route(self, _topic: str) -> None:
        """A route is another one: who waits for a master looks again."""
        self._faults.keep_only(self._instance.routes.broker_names())
        self._route_changed.set()
        self._route_changed = asyncio.Event()

    async def _pause(self, wait_s: float) -> None:
        """Wait, at most until a route changes."""
        changed = self._route_changed
        try:
            async with asyncio.timeout(wait_s):
                await changed.wait()
        except TimeoutError:
            return

    async def _send_once(
        self, what: Single | Batch, route: TopicRoute, queue: MessageQueue, timeout_s: float
    ) -> SendMessageResponseHeader:
        """One attempt at one queue."""
        address = route.master(queue.broker_name)
        if address is None:
            raise NotSent(f"broker {queue.broker_name} has no master now", broker=queue.broker_name)
        broker = self._instance.broker(address)
        ext_fields = what.ext_fields(queue)
        try:
            if what.is_batch:
                return await link.send_batch_message(broker, ext_fields, what.body, timeout_s)
            return await link.send_message(broker, ext_fields, what.body, timeout_s)
        except link.Refusal as refusal:
            if is_not_master(refusal.code, refusal.remark):
                text = f"broker {queue.broker_name} at {address} is {refusal.remark}"
                raise NotSent(text, broker=queue.broker_name) from refusal
            raise

    def _choose(self, what: Single | Batch, route: TopicRoute, tried: frozenset[str], now: float) -> MessageQueue:
        if not route.write_queues:
            raise SendFailed(
                f"no queue of topic {what.topic} can be written now",
                code=ResponseCode.NO_PERMISSION,
                code_name=ResponseCode.NO_PERMISSION.name,
                hint="The topic's perm forbids it, or its brokers have left.",
            )
        if what.message_group is not None:
            return queue_of_group(route.write_queues, what.message_group)
        return self._choice.choose(route.write_queues, tried, now)

    def _is_worth_it(
        self, refusal: link.Refusal, what: Single | Batch, route: TopicRoute, tried: frozenset[str]
    ) -> bool:
        """Whether another broker, or the same one a moment later, may take what was refused."""
        if refusal.code not in self._retry.refusals:
            return False
        if refusal.code in PASSING or what.message_group is not None:
            return refusal.code in PASSING
        return any(queue.broker_name not in tried for queue in route.write_queues)

    def _failed(self, topic: str, queue: MessageQueue, now: float) -> None:
        """A broker did not answer: prefer others, and see whether the route has changed."""
        self._faults.failed(queue.broker_name, now)
        self._instance.suspect_route(topic)

    def _refused(self, refusal: link.Refusal, topic: str, queue: MessageQueue, now: float) -> None:
        if refusal.code in PASSING:
            self._faults.failed(queue.broker_name, now)
        self._instance.suspect_route(topic)
        logger.info("broker %s refused a send to %s, trying again: %s", queue.broker_name, topic, refusal)


def _given_up(error: ConnectionBroken, topic: str, queue: MessageQueue, attempts: int, elapsed_s: float) -> ClientError:
    return ConnectionBroken(
        f"cannot send to topic {topic}: {error.text}",
        broker=queue.broker_name,
        attempts=attempts,
        elapsed_s=elapsed_s,
        hint=error.hint or "The message may have been stored: sending it again may store it twice.",
    )


def refused(refusal: link.Refusal, topic: str, queue: MessageQueue, attempts: int, elapsed_s: float) -> SendFailed:
    """The error for a refusal that is final."""
    what = "stored a message, but not as safely as it is set to," if refusal.code in STORED else "refused a message"
    return SendFailed(
        f"the broker {what} for topic {topic}",
        code=refusal.code,
        code_name=refusal.code_name,
        remark=refusal.remark,
        broker=queue.broker_name,
        attempts=attempts,
        elapsed_s=elapsed_s,
        hint=hint_for(refusal.code),
    )
