"""Ids that this broker gives: offset message ids, and unique keys for messages whose producer gave none."""

import itertools
from collections.abc import Callable

from apogeemq.remoting_codec.message_id import create_unique_key, month_start_of

_MONTH_START_KEPT_MS = 60_000


class MessageIds:
    """Makes ids.

    Args:
        store_host: packed address and port under which clients reach this broker: they dial it to look a message up.
        process_id, instance_hash: parts of unique keys; two processes on one host must differ in one of them.
        now_ms: wall clock.
    """

    def __init__(self, *, store_host: bytes, process_id: int, instance_hash: int, now_ms: Callable[[], int]) -> None:
        self._store_host = store_host
        self._prefix = store_host.hex().upper()
        self._process_id = process_id
        self._instance_hash = instance_hash
        self._now_ms = now_ms
        self._counter = itertools.count()
        self._month_start_ms = 0
        self._month_start_until_ms = 0

    def offset_message_id(self, physical_offset: int) -> str:
        """The id that names this broker and the record's place: 32 hex digits (56 with an IPv6 host).

        Equal to the codec's `encode_offset_message_id`, without packing anything a second time: this is a hot path.
        """
        return f"{self._prefix}{physical_offset:016X}"

    def unique_key(self) -> str:
        """A new unique key in Java's layout: clients read the time from it (trap 12)."""
        now_ms = self._now_ms()
        if not self._month_start_ms <= now_ms < self._month_start_until_ms:
            self._month_start_ms = month_start_of(now_ms)
            self._month_start_until_ms = now_ms + _MONTH_START_KEPT_MS
        return create_unique_key(
            address=self._store_host[:-4],
            process_id=self._process_id,
            instance_hash=self._instance_hash,
            now_ms=now_ms,
            month_start_ms=self._month_start_ms,
            counter=next(self._counter),
        )
