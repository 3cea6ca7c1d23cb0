"""How much a push consumer may hold: messages received and not settled yet, by number and by bytes."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class FlowLimits:
    """What a consumer may have in hand, of all queues together. Receiving pauses while either limit is reached."""

    messages_max: int = 1024
    bytes_max: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse limits under which nothing would ever be received."""
        if self.messages_max < 1 or self.bytes_max < 1:
            raise ValueError("messages_max and bytes_max must be 1 or more")


class Load:
    """What is in hand.

    One batch may go beyond the limits, for it is asked for before its size is known: at most one for each assigned
    queue.
    """

    def __init__(self, limits: FlowLimits) -> None:
        self._limits = limits
        self._messages = 0
        self._bytes = 0

    @property
    def room(self) -> int:
        """How many messages may be asked for now; never negative."""
        if self._bytes >= self._limits.bytes_max:
            return 0
        return max(self._limits.messages_max - self._messages, 0)

    def add(self, size_bytes: int) -> None:
        """A message came."""
        self._messages += 1
        self._bytes += size_bytes

    def remove(self, size_bytes: int) -> None:
        """A message is settled or given up."""
        self._messages -= 1
        self._bytes -= size_bytes
