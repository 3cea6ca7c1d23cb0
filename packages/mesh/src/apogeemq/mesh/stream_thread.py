"""A stream with threads of its own: it goes on while the event loop of the process is busy.

```
 event loop ──send()──▶ queue ─┐
                               ├─ requests thread ──▶ peer ──▶ replies thread ── call_soon_threadsafe ──▶ on_message
 due() each interval ──────────┘                                                                          on_end
```
For beats: a loop that stands still for a second must not count as a dead process (architecture §4.6). What a beat says
is read by the thread that sends it, so `due` must be safe there; None sends nothing this time.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from apogeemq.mesh.grpc_network import RpcError, sync_channel
from apogeemq.mesh.network import Stream

if TYPE_CHECKING:
    from apogeemq.mesh.tls import ClientTls
    from google.protobuf.message import Message

OutT = TypeVar("OutT", bound="Message")
InT = TypeVar("InT", bound="Message")

WAITING_MAX = 256
"""Messages that wait to be sent; one more ends the stream: its peer does not read."""
END_TIMEOUT_S = 5.0
"""How long `close` waits for the threads."""

_log = logging.getLogger(__name__)


class StreamThread(Generic[OutT, InT]):
    """One stream, opened at once. Belongs to the event loop that is running when it is made.

    Args:
        target: "host:port".
        first: what is sent before all else.
        due: gives the message that is sent every `interval_s`, in the thread; None for none this time.
        on_message: called in the event loop with each message of the peer, in their order.
        on_end: called in the event loop exactly once, with the reason; empty where the peer finished in good order.
    """

    def __init__(
        self,
        target: str,
        method: Stream[OutT, InT],
        *,
        first: OutT,
        due: Callable[[], OutT | None],
        interval_s: float,
        on_message: Callable[[InT], None],
        on_end: Callable[[str], None],
        tls: ClientTls | None = None,
    ) -> None:
        self.target = target
        self._first = first
        self._due = due
        self._interval_s = interval_s
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.Queue[OutT | None] = queue.Queue(WAITING_MAX)
        self._is_over = threading.Event()
        self._channel = sync_channel(target, tls=tls)
        call = self._channel.stream_stream(
            method.path,
            request_serializer=method.request_type.SerializeToString,
            response_deserializer=method.response_type.FromString,
        )
        self._call = call(self._requests())
        self._thread = threading.Thread(target=self._read, name=f"stream-{target}", daemon=True)
        self._thread.start()

    def send(self, message: OutT) -> None:
        """Hand a message over; never waits. On a stream that is over nothing happens: `on_end` says so."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            _log.warning("%s does not read: %d messages wait, the stream is given up", self.target, WAITING_MAX)
            self._call.cancel()

    async def close(self) -> None:
        """End it at once, and wait for its threads, but for END_TIMEOUT_S at most. `on_end` is called before or after.

        What was handed over and not sent is dropped.
        """
        self._is_over.set()
        self._call.cancel()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        self._thread.join(END_TIMEOUT_S)
        self._channel.close()

    def _requests(self) -> Iterator[OutT]:
        """What is to be sent; grpc takes the next one when the last is on its way."""
        yield self._first
        due_s = time.monotonic() + self._interval_s
        while not self._is_over.is_set():
            try:
                message = self._waiting.get(timeout=max(0.0, due_s - time.monotonic()))
            except queue.Empty:
                due_s = time.monotonic() + self._interval_s
                message = self._due()
            if message is not None:
                yield message

    def _read(self) -> None:
        reason = ""
        try:
            for message in self._call:
                self._tell(partial(self._on_message, message))
        except RpcError as error:
            reason = str(self._call.details() or error)
        finally:
            self._is_over.set()
            self._tell(partial(self._on_end, reason))

    def _tell(self, told: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(told)
        except RuntimeError:  # the loop is closed: the process is about to end, and nobody is there to be told
            self._call.cancel()
