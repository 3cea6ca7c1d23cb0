"""What a member does before it begins to read a queue, and when the queue is another's.

A consumer that handles messages in any order claims nothing: at a change two members may read one queue for a moment.
One that handles them in order locks each queue first (`orderly.py`).
"""

from typing import Protocol

from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.offset_store import OffsetStore
from apogeemq.remoting_codec.bodies import MessageQueue


class Claims(Protocol):
    """The right to read queues."""

    async def claim(self, queue: MessageQueue) -> bool:
        """Whether this member may begin with a queue now."""
        ...

    def is_held(self, queue: MessageQueue) -> bool:
        """Whether no other member can have the queue now."""
        ...

    async def release(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage]) -> None:
        """The queue is another's: commit what is done, and begin nothing more of it."""
        ...

    def forsake(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage]) -> None:
        """Begin nothing more of the queue, and commit nothing: where to go on is decided elsewhere."""
        ...


class NoClaims:
    """Every queue may be read at once. Without an offset store nothing is committed when one is let go."""

    def __init__(self, offsets: OffsetStore | None) -> None:
        self._offsets = offsets

    async def claim(self, _queue: MessageQueue) -> bool:
        """It may."""
        return True

    def is_held(self, _queue: MessageQueue) -> bool:
        """Any other member can."""
        return False

    async def release(self, queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage]) -> None:
        """Commit; messages that are being handled are another member's business."""
        if self._offsets is not None:
            await self._offsets.commit(queue, in_hand)
        in_hand.is_dropped = True

    def forsake(self, _queue: MessageQueue, in_hand: ProcessQueue[ReceivedMessage]) -> None:
        """Drop what is in hand."""
        in_hand.is_dropped = True
