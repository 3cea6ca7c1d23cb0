"""Reads one queue: pull, hand over, pull again, for as long as the queue is this member's.

One loop, one pull in flight, held by the broker while there is nothing to read. A failure of any kind means to wait a
moment (0.1 s, doubling up to 1 s) and to go on: a reader ends only when it is cancelled.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable
from typing import Final

from apogeemq.client_api.errors import ConnectionBroken
from apogeemq.client_api.handling import GiveUp
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting import link
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.core.pull_schedule import PULL_BATCH_SIZE, FlowLimits, backoff_s, may_pull
from apogeemq.client_remoting.core.subscription import Subscription
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.client_remoting.messages import received_message
from apogeemq.client_remoting.settling import Settling, broker_of
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.errors import BodyInvalid, CodecError, LocalProtocolError
from apogeemq.remoting_codec.record import Record, decode_records

logger = logging.getLogger(__name__)

HOLD_S: Final = 15.0
"""How long a broker may hold a pull (Apache: brokerSuspendMaxTimeMillis)."""
FULL_INTERVAL_S: Final = 0.02
"""How often a queue with no room is looked at; there is work for longer than that."""


class QueueReader:
    """Reads one queue.

    Args:
        instance: the client at its servers.
        group: the consumer group.
        namespace: what topics and group are in for the application; empty for none.
        subscription: which messages are wanted.
        queue: what to read.
        in_hand: what was read and is not settled.
        hand_over: takes the messages that were read.
        settler: rejects what cannot be read.
        limits, queue_count: for flow control; the second is how many queues share the limits.
    """

    def __init__(
        self,
        *,
        instance: ClientInstance,
        group: str,
        namespace: str,
        subscription: Subscription,
        queue: MessageQueue,
        in_hand: ProcessQueue[ReceivedMessage],
        hand_over: Callable[[Iterable[ReceivedMessage]], None],
        settler: Settling,
        limits: FlowLimits,
        queue_count: Callable[[], int],
    ) -> None:
        self._instance = instance
        self._group = group
        self._namespace = namespace
        self._subscription = subscription
        self._queue = queue
        self._in_hand = in_hand
        self._hand_over = hand_over
        self._settler = settler
        self._limits = limits
        self._queue_count = queue_count

    async def run(self) -> None:
        """Read until cancelled."""
        failures = 0
        while True:
            if not may_pull(self._in_hand, self._queue_count(), self._limits):
                await asyncio.sleep(FULL_INTERVAL_S)
                continue
            try:
                await self._take(await self._pull())
            except (ConnectionBroken, TimeoutError, link.Refusal, CodecError) as error:
                failures += 1
                level = logging.INFO if isinstance(error, ConnectionBroken | TimeoutError) else logging.WARNING
                logger.log(level, "cannot read %s from %d: %s", self._queue, self._in_hand.next_offset, error)
                self._instance.suspect_route(self._queue.topic)
                await asyncio.sleep(backoff_s(failures, self._instance.chance()))
            else:
                failures = 0

    async def _pull(self) -> link.Pulled:
        pull = link.PullRequest(
            group=self._group,
            queue=self._queue,
            queue_offset=self._in_hand.next_offset,
            expression=self._subscription.expression,
            expression_type=self._subscription.expression_type,
            count_max=PULL_BATCH_SIZE,
            hold_s=HOLD_S,
        )
        return await link.pull_message(broker_of(self._instance, self._queue), pull)

    async def _take(self, pulled: link.Pulled) -> None:
        """Take a pull's answer in."""
        if pulled.code == ResponseCode.PULL_OFFSET_MOVED:
            logger.warning(
                "%s has no offset %d (any more), going on at %d",
                self._queue,
                self._in_hand.next_offset,
                pulled.next_offset,
            )
            self._in_hand.reset(pulled.next_offset)
            return
        wanted: list[ReceivedMessage] = []
        unreadable: list[tuple[ReceivedMessage, str]] = []
        for record in decode_records(pulled.records):
            message, reason = self._read(record)
            if reason:
                unreadable.append((message, reason))
            elif self._subscription.wants(message.tag):
                wanted.append(message)
        messages = sorted([*wanted, *(message for message, _ in unreadable)], key=lambda message: message.queue_offset)
        self._in_hand.put(
            [(message.queue_offset, len(message.body), message) for message in messages], pulled.next_offset
        )
        self._hand_over(wanted)
        for message, reason in unreadable:
            await self._settler.settle(message, GiveUp(reason))

    def _read(self, record: Record) -> tuple[ReceivedMessage, str]:
        """A record as a message; with a reason when its body cannot be read, which then is as stored."""
        read = functools.partial(
            received_message, record, self._group, self._queue, self._in_hand, namespace=self._namespace
        )
        try:
            return read(), ""
        except (BodyInvalid, LocalProtocolError) as error:
            return read(as_stored=True), f"its body cannot be decompressed: {error}"
