"""Unique keys for messages: the id that users see, made by the sender.

Layout and rules: remoting_codec.message_id. The part that never changes is written once; a key then costs one format.
"""

from collections.abc import Callable
from typing import Final

from apogeemq.remoting_codec.message_id import create_unique_key, month_start_of

_LONGEST_MONTH_MS: Final = 32 * 24 * 3600 * 1000
_TAIL_DIGITS: Final = 12


class UniqueKeys:
    """Makes keys for one client.

    Args:
        address: the client's, 4 or 16 bytes.
        process_id: cut to 16 bits.
        instance_hash: any 32 bits; tells apart two clients in one process.
        month_start: when the month of a time began, both in ms since 1970 (the machine's zone unless a test says so).
    """

    def __init__(
        self,
        *,
        address: bytes,
        process_id: int,
        instance_hash: int,
        month_start: Callable[[int], int] = month_start_of,
    ) -> None:
        key = create_unique_key(
            address=address, process_id=process_id, instance_hash=instance_hash, now_ms=0, month_start_ms=0, counter=0
        )
        self._prefix = key[:-_TAIL_DIGITS]
        self._month_start = month_start
        self._month_start_ms = self._month_end_ms = 0
        self._counter = 0

    def next(self, now_ms: int) -> str:
        """A key for a message made now. 65,536 a millisecond are different from each other."""
        if not self._month_start_ms <= now_ms < self._month_end_ms:
            self._month_start_ms = self._month_start(now_ms)
            self._month_end_ms = self._month_start(self._month_start_ms + _LONGEST_MONTH_MS)
        self._counter = counter = (self._counter + 1) & 0xFFFF
        return f"{self._prefix}{(now_ms - self._month_start_ms) & 0xFFFFFFFF:08X}{counter:04X}"
