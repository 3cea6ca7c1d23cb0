"""PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361): answered at once, held until a message comes, or read in a thread.

A pull that finds nothing is held when it asks for that (only code 19, only with the suspend bit, only once: trap 15).
When it comes out it is read again, with its offset commit not repeated. Pulls by SQL92 stand in a line of their own
(sliced_pulls.py).
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from apogeemq.broker.core.long_polling import LongPollingTable, Waiting
from apogeemq.broker.core.wake_rounds import WakeRounds
from apogeemq.broker.errors import BrokerError, FlowControl
from apogeemq.broker.faces.remoting.disk_reads import DiskReads, write_reply
from apogeemq.broker.faces.remoting.sliced_pulls import SlicedPulls
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.faces.remoting.turns import Turns
from apogeemq.broker.service.fetch import PULL_SUSPEND, FetchService, Pull, Pulled
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame, encode_response_head
from apogeemq.remoting_codec.headers.pull import PullMessageRequestHeader
from apogeemq.store.errors import StoreError

ANSWERED_AT_A_TIME: Final = 16
"""Held pulls that are answered before the clock is looked at: some 12 µs each, without what the kernel takes."""

HELD_SIZE_BYTES = 2048
"""What a held pull takes of memory beside the texts of its request."""

_HELD_LIMITS = {
    "waiting_max": ("limits.held_pulls_max", "pulls wait"),
    "waiting_per_queue_max": ("limits.held_pulls_per_queue_max", "pulls wait for this queue"),
    "waiting_per_owner_max": ("limits.held_pulls_per_client_max", "pulls of this client wait"),
    "size_bytes_max": ("limits.held_pulls_bytes_max", "bytes are taken by pulls that wait"),
}
"""Bound of the table → its setting, and what is counted."""


@dataclass(slots=True, frozen=True, eq=False)
class HeldPull:
    """A pull that waits, with what is needed to answer it."""

    channel: Channel
    command: RemotingCommand
    pull: Pull


REFERRED_HOLD_S_MAX = 1.0
"""How long a slave holds a pull that it then refers to the master: a client whose route has none asks no oftener."""


@dataclass(slots=True, frozen=True)
class SlaveRules:
    """What Apache's slave makes of a pull that finds nothing: PULL_RETRY_IMMEDIATELY while the master is there and
    consumers are not sent here (slaveReadEnable), and never a correction of the offset, since it may be behind.
    """

    is_master_there: Callable[[], bool]
    is_read_from: bool = False

    @property
    def refers(self) -> bool:
        """Whether who finds nothing is sent to the master."""
        return not self.is_read_from and self.is_master_there()

    def code(self, found: ResponseCode) -> ResponseCode:
        """What is answered."""
        if found is ResponseCode.PULL_OFFSET_MOVED:
            return ResponseCode.PULL_RETRY_IMMEDIATELY
        if found is ResponseCode.PULL_NOT_FOUND and self.refers:
            return ResponseCode.PULL_RETRY_IMMEDIATELY
        return found


class PullRequests:
    """Handlers of the pulling family, and the shell of the long polling table.

    Args:
        fetch: the service.
        table: who waits.
        sliced: reads for those who want what an SQL92 expression says.
        stats: counts answers.
        disk_reads: for messages that are not in memory any more.
        refuse: makes the reply to a request that failed.
        monotonic: seconds.
        hold_s_max: the longest wait, whatever a client asks for.
        short_hold_s: how long a pull is held while long polling is off (shortPollingTimeMills).
        long_polling: whether clients' own times count (longPollingEnable).
        slave: rules of a slave; None at a master.
        suggest: gives the broker id that a client is to pull from next (suggestWhichBrokerId).
    """

    def __init__(
        self,
        *,
        fetch: FetchService,
        table: LongPollingTable[HeldPull],
        sliced: SlicedPulls,
        stats: RequestStats,
        disk_reads: DiskReads,
        refuse: Callable[[RemotingCommand, Exception], Reply],
        monotonic: Callable[[], float],
        hold_s_max: float,
        short_hold_s: float,
        long_polling: bool,
        slave: SlaveRules | None = None,
        suggest: Callable[[Pull, Pulled], int] = lambda pull, pulled: 0,
    ) -> None:
        self._fetch = fetch
        self._table = table
        self._sliced = sliced
        self._stats = stats
        self._disk_reads = disk_reads
        self._refuse = refuse
        self._monotonic = monotonic
        self._hold_s_max = hold_s_max
        self._short_hold_s = short_hold_s
        self._long_polling = long_polling
        self._slave = slave
        self._suggest = suggest
        self._wake_rounds = WakeRounds(table, at_a_time=ANSWERED_AT_A_TIME)
        self._waking = Turns(self._wake_some, monotonic)
        self._expiring = Turns(self._expire_some, monotonic)

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {RequestCode.PULL_MESSAGE: self.pull_message, RequestCode.LITE_PULL_MESSAGE: self.pull_message}

    def pull_message(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Read a queue, or wait for it."""
        header = PullMessageRequestHeader.decode(command.ext_fields)
        pull = self._fetch.check(header, channel.peer)
        self._fetch.commit_offset(header)
        if pull.wanted.predicate is not None:
            self._sliced.start(
                channel,
                command,
                pull,
                lambda pulled: write_reply(channel, self._hold_or_reply(channel, command, header, pull, pulled)),
            )
            return None
        pulled = self._fetch.read(pull)
        if pulled.is_cold:
            self._read_cold(HeldPull(channel, command, pull))
            return None
        return self._hold_or_reply(channel, command, header, pull, pulled)

    def message_arrived(self, topic: str, queue_id: int, tags_code: int) -> None:
        """A message can be read: wake who waits for it, once the sends that were read with it are all stored.

        So a pull gets all messages of one network read in one answer, and the send path pays for one look-up.
        """
        if not self._table.has_waiting(topic, queue_id):
            return
        self._wake_rounds.arrived(topic, queue_id, tags_code)
        self._waking.begin_soon()

    async def log_went_on(self, max_offset: Callable[[str, int], int]) -> None:
        """Wake who waits for what is there now: for a slave, which is not told of each message."""
        for topic, queue_id in self._table.queues():
            end = max_offset(topic, queue_id)
            found = self._table.take(topic, queue_id, lambda held, end=end: held.pull.queue_offset < end)  # type: ignore[misc]
            for number, waiting in enumerate(found, start=1):
                self._answer_held(waiting)
                if number % ANSWERED_AT_A_TIME == 0:
                    await asyncio.sleep(0)

    def offsets_reset(self, topic: str, group: str, queue_ids: Iterable[int]) -> None:
        """A group's offsets were reset: its held pulls are answered with that now, not when their time is over."""
        for queue_id in queue_ids:
            for waiting in self._table.take(topic, queue_id, lambda held: held.pull.group == group):
                self._answer_held(waiting)

    def expire(self) -> None:
        """Answer the held pulls whose time is over."""
        self._expiring.begin()

    def channel_closed(self, channel: Channel) -> None:
        """Forget what a closed connection holds."""
        self._table.drop_owner(channel)

    def stop(self) -> None:
        """Answer all held pulls."""
        for waiting in self._table.drain():
            self._answer_held(waiting)

    def _hold_or_reply(
        self, channel: Channel, command: RemotingCommand, header: PullMessageRequestHeader, pull: Pull, pulled: Pulled
    ) -> Reply:
        if (
            self._may_wait(pulled.code)
            and header.sys_flag & PULL_SUSPEND
            and self._hold(channel, command, pull, header.suspend_timeout_millis / 1000)
        ):
            return None
        return self._reply(command, pull, pulled)

    def _may_wait(self, code: ResponseCode) -> bool:
        """Whether there may be an answer later; a slave may have yet to copy what the pull is for."""
        if self._slave is not None and code is ResponseCode.PULL_OFFSET_MOVED:
            return True
        return code is ResponseCode.PULL_NOT_FOUND

    def _hold(self, channel: Channel, command: RemotingCommand, pull: Pull, timeout_s: float) -> bool:
        """Hold a pull, unless it does not want that. Raises FlowControl where there is no room.

        An answer that there is nothing would be understood, too; but the client would pull again at once, all the time.
        """
        hold_s = min(timeout_s, self._hold_s_max) if self._long_polling else self._short_hold_s
        if self._slave is not None and self._slave.refers:
            hold_s = min(hold_s, REFERRED_HOLD_S_MAX)
        if hold_s <= 0 or command.is_oneway:
            return False
        reached = self._table.add(
            Waiting(
                topic=pull.topic.name,
                queue_id=pull.queue_id,
                deadline=self._monotonic() + hold_s,
                tag_codes=pull.wanted.tag_codes,
                owner=channel,
                what=HeldPull(channel, command, pull),
                size_bytes=HELD_SIZE_BYTES + sum(map(len, (command.ext_fields or {}).values())),
            )
        )
        if reached is not None:
            setting, what = _HELD_LIMITS[reached.name]
            raise FlowControl(f"{reached.now} {what}, the limit ({setting}) is {reached.value}", limit=setting)
        return True

    def _wake_some(self) -> bool:
        for waiting in self._wake_rounds.next():
            self._answer_held(waiting)
        return bool(self._wake_rounds)

    def _expire_some(self) -> bool:
        expired = self._table.expire(self._monotonic(), ANSWERED_AT_A_TIME)
        for waiting in expired:
            self._answer_held(waiting)
        return len(expired) == ANSWERED_AT_A_TIME

    def _answer_held(self, waiting: Waiting[HeldPull]) -> None:
        held = waiting.what
        if held.channel.closed:
            return
        if held.pull.wanted.predicate is not None:
            self._sliced.start(
                held.channel,
                held.command,
                held.pull,
                lambda pulled: write_reply(held.channel, self._reply(held.command, held.pull, pulled)),
            )
            return
        try:
            pulled = self._fetch.read(held.pull)
            if pulled.is_cold:
                self._read_cold(held)
                return
            reply = self._reply(held.command, held.pull, pulled)
        except (BrokerError, StoreError) as error:
            reply = self._refuse(held.command, error)
        write_reply(held.channel, reply)

    def _read_cold(self, held: HeldPull) -> None:
        self._disk_reads.start(
            held.channel,
            held.command,
            lambda: self._fetch.read(held.pull, cold_allowed=True),
            lambda pulled: self._reply(held.command, held.pull, pulled),
        )

    def _reply(self, command: RemotingCommand, pull: Pull, pulled: Pulled) -> Reply:
        code, next_offset = pulled.code, pulled.next_offset
        if self._slave is not None:
            code = self._slave.code(pulled.code)
            next_offset = next_offset if pulled.code is not ResponseCode.PULL_OFFSET_MOVED else pull.queue_offset
        self._stats.count(command.code, code)
        if command.is_oneway:
            return None
        ext_fields = {
            "suggestWhichBrokerId": str(self._suggest(pull, pulled)),
            "groupSysFlag": "0",
            "nextBeginOffset": str(next_offset),
            "maxOffset": str(pulled.max_offset),
            "minOffset": str(pulled.min_offset),
            "topicSysFlag": str(pull.topic.config.topic_sys_flag),
        }
        if pulled.code is not ResponseCode.SUCCESS:
            return encode_response_frame(command.opaque, code, ext_fields, pulled.remark)
        self._fetch.count_handed_out(pull, pulled)
        head = encode_response_head(command.opaque, pulled.code, ext_fields, pulled.remark, pulled.size_bytes)
        return [head, *pulled.buffers]
