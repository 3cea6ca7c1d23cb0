"""Consumption in order: of each message group one message at a time, the others meanwhile.

```
 arrived ──▶ lane ──▶ its turn ──▶ handler ──▶ settled: acknowledged, or in the DLQ ──▶ the next one's turn
                        ▲             │
                        └─ back-off ◀─┘ failed: again here, until the policy gives it up
```
The server holds the group back while one of its messages is out, so a failed one stays in hand and is tried again from
here; the proxy renews its handle meanwhile, and does not see these attempts. What can't be settled comes again from the
server: then what waits behind it is given back too, and comes after it once more.
Source: apache/rocketmq-clients FifoConsumeService, ProcessQueueImpl; docs/adr/0023-order-in-the-grpc-client.md.
"""

import asyncio
import dataclasses
from collections.abc import Callable

from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_grpc.client import end_tasks
from apogeemq.client_grpc.clock import Clock
from apogeemq.client_grpc.core.lanes import Lanes


class InOrder:
    """The turns of one push consumer's messages.

    Args:
        clock: for the waits between attempts.
        offer: has a message handled now; never waits.
        give_back: has the server hand a message out again soon; never waits.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        offer: Callable[[ReceivedMessage], None],
        give_back: Callable[[ReceivedMessage], None],
    ) -> None:
        self._clock = clock
        self._offer = offer
        self._give_back = give_back
        self._lanes = Lanes()
        self._waiting: set[asyncio.Task[None]] = set()

    def arrived(self, message: ReceivedMessage) -> None:
        """A message came; messages of one group come in their order."""
        if self._lanes.enter(message):
            self._offer(message)

    def again(self, message: ReceivedMessage, after_s: float) -> None:
        """An attempt failed: the next one follows after so many seconds. There is at most one of each lane."""
        waiting = asyncio.create_task(self._wait(message, after_s), name=f"attempt {message.delivery_attempt + 1}")
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    def left(self, message: ReceivedMessage, *, is_done: bool) -> None:
        """A message is not in hand any more: it is done with, or comes again from the server."""
        if not is_done:
            for behind in self._lanes.clear(message):
                self._give_back(behind)
        elif (following := self._lanes.leave(message)) is not None:
            self._offer(following)

    async def close(self) -> None:
        """Wait for no further attempts; their messages are delivered again."""
        await end_tasks(set(self._waiting))

    async def _wait(self, message: ReceivedMessage, after_s: float) -> None:
        await self._clock.sleep(after_s)
        self._offer(dataclasses.replace(message, delivery_attempt=message.delivery_attempt + 1))
