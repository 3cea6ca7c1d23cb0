"""Reads that may wait for the disk: requests that are answered when their read is done."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from apogeemq.broker.errors import BrokerError
from apogeemq.broker.service.cold_reads import ColdReads
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
        cold_reads: where they run; one beyond its bound is refused with SystemBusy.
        refuse: makes the reply to a request that failed.
    """

    def __init__(self, cold_reads: ColdReads, refuse: Callable[[RemotingCommand, Exception], Reply]) -> None:
        self._cold_reads = cold_reads
        self._refuse = refuse

    def start(
        self, channel: Channel, command: RemotingCommand, read: Callable[[], T], reply: Callable[[T], Reply]
    ) -> None:
        """Run `read` in a thread, then `reply` with its result on the event loop; what either raises is answered."""
        reading = self._cold_reads.start(read)
        reading.add_done_callback(lambda done: write_reply(channel, self._answer(channel, command, done, reply)))

    def _answer(
        self, channel: Channel, command: RemotingCommand, done: "asyncio.Task[T]", reply: Callable[[T], Reply]
    ) -> Reply:
        try:
            return reply(done.result())
        except (BrokerError, StoreError) as error:
            return self._refuse(command, error)
        except Exception as error:  # a bug of ours: the asker still gets an answer, the log the trace
            log.exception("%s: reading for %s failed", channel.peer, command)
            return self._refuse(command, error)
