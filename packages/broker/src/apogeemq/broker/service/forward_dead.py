"""A consumer gives a popped message up: it goes to the dead letters of its group, and is acknowledged.

As Apache's proxy does it with two requests: a send-back with delay level -1, then an acknowledgement, whose result is
no matter. So a handle whose time is over is good for it as well; the message then is a dead letter, and comes again.
Here the acknowledgement follows the dead letter in one log: no crash keeps the one without the other's having been
written first. Differences, on purpose: a message that was acknowledged before makes no second dead letter, so that a
consumer may repeat what it got no answer to; and what is forwarded is named by its place in the queue, never by the
physical offset that its handle tells. Source: reference grpc_v2.md §7 (Apache ProducerProcessor).
"""

from dataclasses import dataclass
from typing import NamedTuple

from apogeemq.broker.core.pop import HandleResult, PopHandle, pop_retry_topic
from apogeemq.broker.core.topics import Topic
from apogeemq.broker.service.log_reads import LogReads, decoded
from apogeemq.broker.service.pop import PopService
from apogeemq.broker.service.send_back import SendBackService
from apogeemq.remoting_codec.codes import VERSION
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.store.message_store import MessageStore

DELAY_LEVEL_OF_DEAD_LETTERS = -1

GIVEN_UP = "forwarded by its consumer, which gave no reason"
"""The reason of who says none."""


class Forwarded(NamedTuple):
    """What became of it; `stored`: end of the dead letter in the log and its topic, None when none was stored."""

    result: HandleResult
    stored: tuple[int, Topic] | None


@dataclass(slots=True)
class _GivenUp:
    """A SendBackRequest for the dead letters."""

    offset: int
    group: str
    delay_level: int = DELAY_LEVEL_OF_DEAD_LETTERS
    max_reconsume_times: int | None = 0


class ForwardDead:
    """Forwards popped messages to dead letters.

    Args:
        store: as elsewhere.
        pops: who has what in hand.
        send_back: checks the group and stores dead letters.
        reads: reads messages back.
    """

    def __init__(self, *, store: MessageStore, pops: PopService, send_back: SendBackService, reads: LogReads) -> None:
        self._store = store
        self._pops = pops
        self._send_back = send_back
        self._reads = reads

    async def forward(self, group: str, topic: str, handle: PopHandle, reason: str) -> Forwarded:
        """Store the dead letter of a message, and acknowledge it.

        `topic` is the one that was popped. A group that retries nothing has no dead letters either: then it is only
        acknowledged. Raises BrokerError (unknown group, no permission), StoreError; then nothing was stored.
        """
        real_topic = pop_retry_topic(group, topic, handle.retry_mark)
        unit = self._store.queue_unit(real_topic, handle.queue_id, handle.queue_offset)
        if unit is None:
            return Forwarded(HandleResult.NO_MESSAGE, None)
        retry = self._send_back.check(_GivenUp(unit[0], group), VERSION)
        if self._pops.was_acknowledged(group, topic, handle):
            return Forwarded(HandleResult.OK, None)
        stored = None
        if retry is not None:
            try:
                record = decoded(await self._reads.record_at(unit[0]))
            except RecordInvalid:
                return Forwarded(HandleResult.NO_MESSAGE, None)
            if self._pops.was_acknowledged(group, topic, handle):
                return Forwarded(HandleResult.OK, None)  # while the disk was waited for, perhaps by a repeated call
            stored = self._send_back.store(retry, record, reason or GIVEN_UP)
        self._pops.ack(group, topic, [handle])
        return Forwarded(HandleResult.OK, stored)
