"""How much a push consumer may hold: messages received and not settled yet, by number and by bytes."""

import dataclasses


@dataclasses.dataclass(slots=True)
class Load:
    """What is held and what may be.

    Receiving pauses while either limit is reached. One batch may go beyond, for a batch is asked for before its size is
    known: per assigned queue at most one batch.
    """

    messages_max: int
    bytes_max: int
    messages: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        """Refuse limits under which nothing would ever be received."""
        if self.messages_max < 1 or self.bytes_max < 1:
            raise ValueError("cached_messages_max and cached_bytes_max must be 1 or more")

    @property
    def room(self) -> int:
        """How many messages may be asked for now."""
        return 0 if self.bytes >= self.bytes_max else max(self.messages_max - self.messages, 0)

    def add(self, size_bytes: int) -> None:
        """A message came."""
        self.messages += 1
        self.bytes += size_bytes

    def remove(self, size_bytes: int) -> None:
        """A message is settled or given up."""
        self.messages -= 1
        self.bytes -= size_bytes
