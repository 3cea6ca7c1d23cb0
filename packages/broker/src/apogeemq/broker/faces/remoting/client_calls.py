"""Requests of the broker's own to connected clients, and answers that wait for theirs.

    asker ──request──▶ broker ──request, own opaque──▶ client
    asker ◀──answer─── broker ◀──────response───────── client

Bounds: so many calls and so many bytes at a time, in all and per asker; each call is over after `timeout_s`. A client
that does not read what it was sent is not called at all: the request would only lie in memory. Whoever asked may be
gone by then; the answer is dropped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable

from apogeemq.broker.core.in_flight import InFlight
from apogeemq.broker.errors import BrokerError
from apogeemq.broker.faces.remoting.disk_reads import write_reply
from apogeemq.remoting_codec.aio.channel import Channel, ChannelClosed, Reply
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.store.errors import StoreError

log = logging.getLogger(__name__)


class ClientCallFailed(Exception):  # noqa: N818 — named like the broker's errors
    """A client was not reached or did not answer; the text says why."""


class ClientCallTimeout(ClientCallFailed):
    """A client did not answer in time."""


class ClientCalls:
    """Calls clients.

    Args:
        in_flight: bounds the calls that wait for their client; one more is refused with SystemBusy.
        timeout_s: how long a client may take.
        refuse: makes the reply to a request that failed.
    """

    def __init__(
        self, *, in_flight: InFlight, timeout_s: float, refuse: Callable[[RemotingCommand, Exception], Reply]
    ) -> None:
        self._in_flight = in_flight
        self._timeout_s = timeout_s
        self._refuse = refuse
        self._tasks: set[asyncio.Task[None]] = set()

    def check_room(self, asker: Channel, command: RemotingCommand, calls: int = 1) -> None:
        """Raise SystemBusy where so many more calls would be too many."""
        self._in_flight.check(asker, len(command.body), calls)

    def answer_later(
        self, asker: Channel, command: RemotingCommand, answer: Callable[[], Awaitable[Reply]], *, calls: int = 1
    ) -> None:
        """Answer a request with what `answer` gives or raises; it may `call` clients so many times.

        Raises SystemBusy when those are too many.
        """
        self.check_room(asker, command, calls)
        self._in_flight.enter(asker, len(command.body), calls)
        task = asyncio.get_running_loop().create_task(self._answer(asker, command, answer, calls))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def call(self, client: Hashable, request: RemotingCommand) -> RemotingCommand:
        """A client's response. Raises ClientCallTimeout or ClientCallFailed.

        `client` is what stands for its connection: a client that came through a proxy has none here.
        """
        if not isinstance(client, Channel):
            raise ClientCallFailed("it is connected through a proxy, not to this broker")
        if not client.writable:
            raise ClientCallFailed(f"{client.peer} does not read what it was sent")
        try:
            return await client.request(request, self._timeout_s)
        except TimeoutError as error:
            raise ClientCallTimeout(f"no response from {client.peer} within {self._timeout_s:g} s") from error
        except (ChannelClosed, CodecError) as error:
            raise ClientCallFailed(str(error)) from error

    async def stop(self) -> None:
        """Give up what still waits; nobody is answered any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(
        self, asker: Channel, command: RemotingCommand, answer: Callable[[], Awaitable[Reply]], calls: int
    ) -> None:
        try:
            reply = await answer()
        except (BrokerError, StoreError, CodecError) as error:
            reply = self._refuse(command, error)
        except Exception as error:  # a bug of ours: the asker still gets an answer, the log the trace
            log.exception("%s: the answer to %s failed", asker.peer, command)
            reply = self._refuse(command, error)
        finally:
            self._in_flight.leave(
                asker, len(command.body), calls
            )  # before the answer goes out: whoever has it may ask again at once
        if not command.is_oneway:
            write_reply(asker, reply)
