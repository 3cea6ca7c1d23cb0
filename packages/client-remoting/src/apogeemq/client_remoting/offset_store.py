"""Where a group's offsets are kept: at the brokers (`settling.py`), or at this client (`local_offsets.py`)."""

from collections.abc import Iterable
from typing import Protocol

from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.remoting_codec.bodies import MessageQueue


class OffsetStore(Protocol):
    """Up to where each queue is done."""

    async def load(self) -> None:
        """Get ready, before anything is asked. Raises StartFailed."""
        ...

    async def committed(self, queue: MessageQueue) -> int | None:
        """The offset kept for a queue; None when there is none. Raises what a call to a broker does."""
        ...

    async def commit(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage]) -> bool:
        """Keep one queue's offset, if it changed; gives whether it is kept."""
        ...

    async def commit_all(self, queues: Iterable[tuple[MessageQueue, ProcessQueue[ReceivedMessage]]]) -> bool:
        """Keep what changed; gives whether all of it is kept. What fails stays to be kept the next time."""
        ...

    async def set(self, queue: MessageQueue, offset: int) -> bool:
        """Set one queue's offset, whatever it is; gives whether it is kept."""
        ...
