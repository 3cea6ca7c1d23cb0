"""Reads that may wait for the disk: done in threads, a bounded number at a time, answered when they are done."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from apogeemq.broker.errors import BrokerError, SystemBusy
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.store.errors import StoreError

log = logging.getLogger(__name__)

T = TypeVar("T")


def write_reply(channel: Channel, reply: Reply) -> None:
    """Send a reply that comes later than its request's read."""
    if isinstance(reply, bytes | memoryview):
        channel.write(reply)
    elif reply is not None:
        channel.write(*reply)


class DiskReads:
    """Runs reads in threads and writes their answers.

    Args:
        running_max: how many may run or wait for a thread; one more is refused with SystemBusy.
        refuse: makes the reply to a request that failed.
    """

    def __init__(self, *, running_max: int, refuse: Callable[[RemotingCommand, Exception], Reply]) -> None:
        self.running_max = running_max
        self._refuse = refuse
        self._running: set[asyncio.Task[None]] = set()

    def start(
        self, channel: Channel, command: RemotingCommand, read: Callable[[], T], reply: Callable[[T], Reply]
    ) -> None:
        """Run `read` in a thread, then `reply` with its result on the event loop; what either raises is answered."""
        if len(self._running) >= self.running_max:
            raise SystemBusy(
                f"[OVERLOAD] {len(self._running)} reads of old messages wait for the disk, "
                f"the limit (limits.cold_reads_max) is {self.running_max}"
            )
        task = asyncio.get_running_loop().create_task(self._run(channel, command, read, reply))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """Let what runs come to its end."""
        if self._running:
            await asyncio.wait(self._running)

    async def _run(
        self, channel: Channel, command: RemotingCommand, read: Callable[[], T], reply: Callable[[T], Reply]
    ) -> None:
        try:
            answer = reply(await asyncio.to_thread(read))
        except (BrokerError, StoreError) as error:
            answer = self._refuse(command, error)
        except Exception as error:  # a bug of ours: the asker still gets an answer, the log the trace
            log.exception("%s: reading for %s failed", channel.peer, command)
            answer = self._refuse(command, error)
        write_reply(channel, answer)
