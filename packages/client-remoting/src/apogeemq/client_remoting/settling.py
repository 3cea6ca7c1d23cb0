"""Telling brokers what became of messages: failed ones go back for a retry or to the DLQ, done ones by their offset.

Nothing is sent for a message that was handled: the queue's commit offset follows, every few seconds and at the end. So
after a crash the messages of those seconds come again; a clean close repeats none.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from apogeemq.client_api.errors import ClientClosed, ConnectionBroken, SettleFailed
from apogeemq.client_api.handling import Again, Done, GiveUp, Settlement
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_api.tracing import Tracing
from apogeemq.client_remoting import link
from apogeemq.client_remoting.connection import Connection, NotSent
from apogeemq.client_remoting.core.delay_levels import DLQ_LEVEL, nearest_delay_level
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.core.pull_schedule import backoff_s
from apogeemq.client_remoting.core.refusals import hint_for
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.client_remoting.messages import Receipt, receipt_of
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.errors import RemoteProtocolError
from apogeemq.remoting_codec.headers import ConsumerSendMsgBackRequestHeader

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 3.0
LOCAL_RETRY_S = 5.0
"""A message that the broker would not take back is delivered again by this client, not before this."""


class Settling(Protocol):
    """Carries out what was decided about messages."""

    def done(self, message: ReceivedMessage) -> None:
        """The message is dealt with; the next commit may tell."""
        ...

    async def settle(self, message: ReceivedMessage, settlement: Settlement) -> None:
        """Carry out a decision."""
        ...

    async def send_back(self, message: ReceivedMessage, delay_level: int, reason: str = "") -> None:
        """Give a message back to its broker, once; `reason` is why it is given up, for who looks at the DLQ.

        Raises SettleFailed, ConnectionBroken, ClientClosed, NotSupported.
        """
        ...


class Settler:
    """Carries out what was decided about messages.

    Args:
        instance: the client at its servers.
        group: the consumer group.
        reconsume_times_max: retries in all, told to the broker with each message that goes back.
        redeliver: puts a message back into this client's own line.
        tracing: makes the spans.
    """

    def __init__(
        self,
        *,
        instance: ClientInstance,
        group: str,
        reconsume_times_max: int,
        redeliver: Callable[[Iterable[ReceivedMessage]], None],
        tracing: Tracing,
    ) -> None:
        self._instance = instance
        self._group = group
        self._reconsume_times_max = reconsume_times_max
        self._redeliver = redeliver
        self._tracing = tracing

    def done(self, message: ReceivedMessage) -> None:
        """The message is dealt with; the next commit may tell."""
        receipt_of(message).in_hand.settle(message.queue_offset)

    async def settle(self, message: ReceivedMessage, settlement: Settlement) -> None:
        """Carry out a decision, however long the broker is away: whoever waits here handles nothing else meanwhile."""
        match settlement:
            case Done():
                self.done(message)
            case Again(after_s):
                await self._send_back_patiently(message, nearest_delay_level(after_s), after_s)
            case GiveUp(reason):
                logger.warning(
                    "message %s from %s goes to the DLQ of %s: %s",
                    message.message_id,
                    message.topic,
                    self._group,
                    reason,
                )
                await self._send_back_patiently(message, DLQ_LEVEL, LOCAL_RETRY_S, reason)

    async def send_back(self, message: ReceivedMessage, delay_level: int, reason: str = "") -> None:
        """Give a message back to its broker, once. Raises SettleFailed, ConnectionBroken, ClientClosed.

        `reason` is why it is given up, for who looks at the DLQ.
        """
        try:
            await self._call_send_back(message, delay_level, reason)
        except link.Refusal as error:
            raise SettleFailed(
                f"the broker did not take back message {message.message_id}",
                code=error.code,
                code_name=error.code_name,
                remark=error.remark,
                broker=message.broker_name,
                attempts=1,
                hint=hint_for(error.code),
            ) from error
        except TimeoutError as error:
            raise ConnectionBroken(
                f"no answer to giving back message {message.message_id}",
                broker=message.broker_name,
                attempts=1,
                elapsed_s=CALL_TIMEOUT_S,
                hint="The broker may have taken it; it will be delivered again in any case.",
            ) from error

    async def _send_back_patiently(
        self, message: ReceivedMessage, delay_level: int, after_s: float, reason: str = ""
    ) -> None:
        receipt = receipt_of(message)
        failures = 0
        while receipt.is_current(message.queue_offset):
            try:
                await self._call_send_back(message, delay_level, reason)
            except (ConnectionBroken, TimeoutError) as error:
                failures += 1
                logger.info("message %s cannot be given back yet: %s", message.message_id, error)
                await asyncio.sleep(backoff_s(failures, self._instance.chance()))
            except ClientClosed:
                return  # not settled: it comes again
            except (link.Refusal, RemoteProtocolError) as error:
                logger.warning(
                    "the broker does not take back message %s: %s; this client delivers it again itself",
                    message.message_id,
                    error,
                )
                again = replace(message, delivery_attempt=message.delivery_attempt + 1)
                delay_s = max(after_s, LOCAL_RETRY_S)
                asyncio.get_running_loop().call_later(delay_s, self._redeliver, [again])
                return
            else:
                return

    async def _call_send_back(self, message: ReceivedMessage, delay_level: int, reason: str) -> None:
        """One CONSUMER_SEND_MSG_BACK; the message is done with here when it succeeds."""
        receipt = receipt_of(message)
        header = ConsumerSendMsgBackRequestHeader(
            offset=receipt.physical_offset,
            group=self._group,
            delay_level=delay_level,
            origin_msg_id=message.message_id,
            origin_topic=receipt.topic,
            max_reconsume_times=self._reconsume_times_max,
        )
        with self._tracing.settle("reject" if delay_level == DLQ_LEVEL else "retry", message):
            await link.send_message_back(self._broker(receipt), header, CALL_TIMEOUT_S, reason=reason)
        self.done(message)

    def _broker(self, receipt: Receipt) -> Connection:
        return broker_of(self._instance, receipt.queue)


class OffsetCommitter:
    """Commits the offsets of the queues in hand to their brokers."""

    def __init__(self, instance: ClientInstance, group: str) -> None:
        self._instance = instance
        self._group = group

    async def load(self) -> None:
        """Nothing is needed."""

    async def committed(self, queue: MessageQueue) -> int | None:
        """What the group has committed; None when it has not."""
        return await link.query_consumer_offset(broker_of(self._instance, queue), self._group, queue, CALL_TIMEOUT_S)

    async def commit_all(self, queues: Iterable[tuple[MessageQueue, ProcessQueue[ReceivedMessage]]]) -> bool:
        """Commit what changed; gives whether brokers have all of it. What fails stays to be committed the next time."""
        return all(await asyncio.gather(*(self.commit(queue, in_hand) for queue, in_hand in queues)))

    async def commit(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage]) -> bool:
        """Commit one queue's offset, if it changed; gives whether the broker has it."""
        offset = in_hand.uncommitted
        if offset is None:
            return True
        is_set = await self.set(queue, offset)
        if is_set:
            in_hand.committed(offset)
        return is_set

    async def set(self, queue: MessageQueue, offset: int) -> bool:
        """Set one queue's offset, whatever it is; gives whether the broker has it."""
        try:
            broker = broker_of(self._instance, queue)
            await link.update_consumer_offset(broker, self._group, queue, offset, CALL_TIMEOUT_S)
        except link.UNANSWERED as error:
            logger.info("offset %d of %s is not committed yet: %s", offset, queue, error)
            return False
        return True


def broker_of(instance: ClientInstance, queue: MessageQueue) -> Connection:
    """The connection to a queue's broker: the master, or a slave while there is none. Raises NotSent."""
    route = instance.routes.get(queue.topic)
    address = None if route is None else route.any_address(queue.broker_name)
    if address is None:
        raise NotSent(f"broker {queue.broker_name} is in no route now", broker=queue.broker_name)
    return instance.broker(address)
