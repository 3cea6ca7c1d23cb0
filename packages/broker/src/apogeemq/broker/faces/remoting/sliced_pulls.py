"""Pulls by SQL92: looked through in slices, so that no expression holds the loop, however little it matches.

    pull ──▶ line ──▶ one slice ──▶ something found, or all looked at: answered
               ▲          │
               └──────────┘ nothing yet: behind the others

Each turn of the loop gives the line one to two milliseconds, whoever stands in it. Messages that are not in memory any
more are looked through in a thread, by slices too: a thread that computes stops the loop as well.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from apogeemq.broker.errors import BrokerError
from apogeemq.broker.faces.remoting.disk_reads import DiskReads, write_reply
from apogeemq.broker.filter.message_filter import LOOKED_AT_MAX, slice_time
from apogeemq.broker.service.fetch import FetchService, Pull, Pulled
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.store.errors import StoreError

SLICE_S = 0.001
"""What one pull may take at a time."""

TURN_S = 0.001
"""What all of them may take of one turn of the loop; the last slice may begin within it."""


@dataclass(slots=True)
class SlicedPull:
    """A pull on its way: `pull` from where it is now on, `first_offset` where it began."""

    channel: Channel
    command: RemotingCommand
    pull: Pull
    first_offset: int
    answer: Callable[[Pulled], None]


class SlicedPulls:
    """The line. Needs a running event loop.

    Args:
        fetch: the service.
        disk_reads: for messages that are not in memory any more.
        refuse: makes the reply to a request that failed.
        monotonic: seconds.
    """

    def __init__(
        self,
        *,
        fetch: FetchService,
        disk_reads: DiskReads,
        refuse: Callable[[RemotingCommand, Exception], Reply],
        monotonic: Callable[[], float],
    ) -> None:
        self._fetch = fetch
        self._disk_reads = disk_reads
        self._refuse = refuse
        self._monotonic = monotonic
        self._line: deque[SlicedPull] = deque()

    def __len__(self) -> int:
        return len(self._line)

    def start(self, channel: Channel, command: RemotingCommand, pull: Pull, answer: Callable[[Pulled], None]) -> None:
        """Read for a checked pull; `answer` gets what was found, in a later turn. Errors are answered to the client."""
        self._join(SlicedPull(channel, command, pull, pull.queue_offset, answer))

    def _join(self, sliced: SlicedPull) -> None:
        if not self._line:
            asyncio.get_running_loop().call_soon(self._turn)
        self._line.append(sliced)

    def _turn(self) -> None:
        turn_end = self._monotonic() + TURN_S
        for _ in range(len(self._line)):
            sliced = self._line[0]
            self._slice(sliced)
            self._line.popleft()
            if self._monotonic() >= turn_end:
                break
        if self._line:
            asyncio.get_running_loop().call_soon(self._turn)

    def _slice(self, sliced: SlicedPull) -> None:
        if sliced.channel.closed:
            return
        try:
            self._take(sliced, self._fetch.read(sliced.pull, is_over=slice_time(self._monotonic, SLICE_S)))
        except (BrokerError, StoreError) as error:
            write_reply(sliced.channel, self._refuse(sliced.command, error))

    def _take(self, sliced: SlicedPull, pulled: Pulled) -> None:
        """Answer, go on behind the others, or read from the disk, by what a slice gave."""
        if pulled.is_cold:
            self._read_cold(sliced)
        elif _goes_on(sliced, pulled):
            sliced.pull = replace(sliced.pull, queue_offset=pulled.next_offset)
            self._join(sliced)
        else:
            sliced.answer(pulled)

    def _read_cold(self, sliced: SlicedPull) -> None:
        def taken(pulled: Pulled) -> Reply:
            self._take(sliced, pulled)
            return None

        pull, is_over = sliced.pull, slice_time(self._monotonic, SLICE_S)
        self._disk_reads.start(
            sliced.channel,
            sliced.command,
            lambda: self._fetch.read(pull, cold_allowed=True, is_over=is_over),
            taken,
        )


def _goes_on(sliced: SlicedPull, pulled: Pulled) -> bool:
    """Whether nothing was found yet and there is more to look at that this answer may look at."""
    next_offset = pulled.next_offset
    return (
        pulled.code is ResponseCode.PULL_RETRY_IMMEDIATELY
        and sliced.pull.queue_offset < next_offset < pulled.max_offset
        and next_offset - sliced.first_offset < LOOKED_AT_MAX
    )
