"""The other half of a transaction: its end, and the brokers' questions about those that nobody ended.

```
 Producer                                                     broker
    │ SEND_MESSAGE_V2 (310), TRAN_MSG, sysFlag 4 ───────────▶ │ half message
    │ ◀─────────── queue offset, offset message id ────────── │
    │ END_TRANSACTION (37), 8 commit or 12 roll back ───────▶ │
    ┆                             … or nobody ends it:        ┆
    │ ◀── CHECK_TRANSACTION_STATE (39), the half message ──── │ to any producer of the group that is connected
    │ END_TRANSACTION (37), oneway, fromTransactionCheck ───▶ │
```
The end goes to the broker that has the half message, and to no other. Its answer is waited for, where Java's client
takes none: whoever commits wants to know. A question is answered oneway on the connection that it came by, as Java's
client does; one that gets no answer is asked again. So that it can be asked at all, a producer with a checker stays
connected to the masters of its topics. Source: reference remoting.md, broker_behaviour.md §4.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from apogeemq.client_api.errors import ConnectionBroken, EndTransactionFailed, RouteNotFound, SendTimeout
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_api.tracing import Tracing
from apogeemq.client_api.transactions import CHECK_TIMEOUT_S, Checks, Resolution
from apogeemq.client_remoting import link
from apogeemq.client_remoting.core.namespaces import with_namespace
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.core.refusals import hint_for
from apogeemq.client_remoting.instance import ClientInstance
from apogeemq.client_remoting.messages import received_message
from apogeemq.client_remoting.outgoing import Origin
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.codes import MessageSysFlag
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.headers import SendMessageResponseHeader
from apogeemq.remoting_codec.headers.transaction import (
    CheckTransactionStateRequestHeader,
    EndTransactionRequestHeader,
)
from apogeemq.remoting_codec.message import PROPERTY_PGROUP, PROPERTY_TRAN_MSG, decode_properties
from apogeemq.remoting_codec.message_id import decode_offset_message_id
from apogeemq.remoting_codec.record import decode_record

logger = logging.getLogger(__name__)

HALF_SYS_FLAG: Final = int(MessageSysFlag.TRANSACTION_PREPARED_TYPE)
CHECKS_MAX: Final = 64
"""Questions that are worked on at a time; what comes beyond them is asked again by its broker."""
KNOWN_INTERVAL_S: Final = 1.0
"""How often a producer with a checker looks whether it is connected where it may be asked."""
_ROUTE_TIMEOUT_S: Final = 3.0

_FLAGS: Final = {
    Resolution.COMMIT: int(MessageSysFlag.TRANSACTION_COMMIT_TYPE),
    Resolution.ROLLBACK: int(MessageSysFlag.TRANSACTION_ROLLBACK_TYPE),
    Resolution.UNKNOWN: int(MessageSysFlag.TRANSACTION_NOT_TYPE),
}


def half_properties(group: str) -> str:
    """The properties that make a message a half message of a producer group, as text."""
    return f"{PROPERTY_TRAN_MSG}\x01true\x02{PROPERTY_PGROUP}\x01{group}\x02"


@dataclasses.dataclass(frozen=True, slots=True)
class HalfMessage:
    """A half message that is stored: what it takes to end it, and what its trace context is read from.

    `topic` is the user's name of it, `queue` the servers'. The offsets are those of the half message itself.
    """

    topic: str
    queue: MessageQueue
    message_id: str
    queue_offset: int
    physical_offset: int
    properties: Mapping[str, str]

    @classmethod
    def sent(
        cls,
        topic: str,
        queue: MessageQueue,
        message_id: str,
        answer: SendMessageResponseHeader,
        properties: Mapping[str, str],
    ) -> "HalfMessage":
        """The one that a broker gave this answer for. Raises RemoteProtocolError when that names no place in a log."""
        _, physical_offset = decode_offset_message_id(answer.msg_id)
        return cls(topic, queue, message_id, answer.queue_offset, physical_offset, properties)


class Transactions:
    """Ends the transactions of one producer, and answers for those that were left open.

    Args:
        instance: the client at its servers.
        origin: group and namespace.
        tracing: the producer's spans.
        checks: asks the application's checker.
        topics: those about which it may be asked from the start, as the user calls them.
    """

    def __init__(
        self, instance: ClientInstance, origin: Origin, tracing: Tracing, checks: Checks, topics: Sequence[str]
    ) -> None:
        self._instance = instance
        self._origin = origin
        self._tracing = tracing
        self._checks = checks
        self._topics = dict.fromkeys(with_namespace(topic, origin.namespace) for topic in topics)
        self._asked_count = 0

    # -- ends

    async def end(self, half: HalfMessage, resolution: Resolution, *, timeout_s: float) -> None:
        """Commit or roll back; UNKNOWN leaves it pending. May be told the same again.

        Raises EndTransactionFailed, SendTimeout, ConnectionBroken, ClientClosed.
        """
        if resolution is Resolution.UNKNOWN:
            return
        name = resolution.name.lower()
        what = f"the {name} of message {half.message_id} of topic {half.topic}"
        loop = asyncio.get_running_loop()
        started = loop.time()
        with self._tracing.end(name, half.topic, half.message_id, half.properties):
            try:
                await link.end_transaction(
                    self._instance.master(half.queue), self._end_of(half, resolution, is_asked=False), timeout_s
                )
            except TimeoutError as error:
                raise SendTimeout(
                    f"no answer to {what} within {timeout_s:g} s",
                    broker=half.queue.broker_name,
                    attempts=1,
                    elapsed_s=loop.time() - started,
                    hint="Try again, or leave it to the checker.",
                ) from error
            except link.Refusal as error:
                raise EndTransactionFailed(
                    f"{what} was refused",
                    code=error.code,
                    code_name=error.code_name,
                    remark=error.remark,
                    broker=half.queue.broker_name,
                    attempts=1,
                    elapsed_s=loop.time() - started,
                    hint=hint_for(error.code),
                ) from error

    def began(self, topic: str) -> None:
        """There is a half message in a topic, under the servers' name of it: its brokers may ask from now on."""
        self._topics[topic] = None

    def _end_of(self, half: HalfMessage, resolution: Resolution, *, is_asked: bool) -> EndTransactionRequestHeader:
        return EndTransactionRequestHeader(
            topic=half.queue.topic,
            producer_group=self._origin.group,
            tran_state_table_offset=half.queue_offset,
            commit_log_offset=half.physical_offset,
            commit_or_rollback=_FLAGS[resolution],
            from_transaction_check=is_asked,
            msg_id=half.message_id,
            transaction_id=half.message_id,
            bname=half.queue.broker_name,
        )

    # -- questions

    async def stay_known(self) -> None:
        """Be connected to the masters of the topics, for as long as the client lives: brokers ask whom they know."""
        while True:
            await self.be_known()
            await asyncio.sleep(KNOWN_INTERVAL_S)

    async def be_known(self) -> None:
        """Connect where a connection is missing; a broker that cannot be reached is tried the next time."""
        addresses: set[str] = set()
        for topic in list(self._topics):
            try:
                route = await self._instance.route(topic, _ROUTE_TIMEOUT_S)
            except (RouteNotFound, ConnectionBroken) as error:
                logger.info("the brokers of topic %s can't ask about transactions now: %s", topic, error)
                continue
            addresses.update(address for name in route.addresses if (address := route.master(name)) is not None)
        await self._instance.join(sorted(addresses))

    def asked(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Take a CHECK_TRANSACTION_STATE (39), which has no answer of its own."""
        if self._asked_count >= CHECKS_MAX:
            logger.warning("%d transactions are asked about at once: the next waits to be asked again", CHECKS_MAX)
            return None
        try:
            half, message, group = self._read(command)
        except CodecError as error:
            logger.warning("a broker's question about a transaction cannot be read: %s", error)
            return None
        if group != self._origin.group:
            logger.warning("a broker asks group %s about a transaction of group %s", self._origin.group, group)
            return None
        self._asked_count += 1
        self._instance.run(self._answer(channel, half, message), "transaction check")
        return None

    def _read(self, command: RemotingCommand) -> tuple[HalfMessage, ReceivedMessage, str]:
        """The half message in a question, the same for the checker, and the group that it is of."""
        header = CheckTransactionStateRequestHeader.decode(command.ext_fields)
        record = decode_record(command.body)
        queue = MessageQueue(record.topic, header.bname or "", record.queue_id)
        nowhere = ProcessQueue[ReceivedMessage](record.queue_offset, is_committed=True)
        nowhere.is_dropped = True
        message = received_message(record, self._origin.group, queue, nowhere, namespace=self._origin.namespace)
        half = HalfMessage(
            message.topic,
            queue,
            message.message_id,
            header.tran_state_table_offset,
            header.commit_log_offset,
            message.properties,
        )
        return half, message, decode_properties(record.properties).get(PROPERTY_PGROUP, self._origin.group)

    async def _answer(self, channel: Channel, half: HalfMessage, message: ReceivedMessage) -> None:
        """Ask the checker, and tell the broker that wanted to know; it asks again where it is told nothing."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                resolution = await self._checks.resolve(message)
        except TimeoutError:
            logger.error("the checker took more than %g s for message %s", CHECK_TIMEOUT_S, half.message_id)  # noqa: TRY400 — the checker's own, no trace of ours
            resolution = Resolution.UNKNOWN
        finally:
            self._asked_count -= 1
        if channel.closed:
            logger.info("the broker that asked about message %s is gone, and will ask again", half.message_id)
            return
        frame = link.end_transaction_frame(self._end_of(half, resolution, is_asked=True))
        if resolution is Resolution.UNKNOWN:
            channel.write(frame)
            return
        with self._tracing.end(resolution.name.lower(), half.topic, half.message_id, half.properties):
            channel.write(frame)
