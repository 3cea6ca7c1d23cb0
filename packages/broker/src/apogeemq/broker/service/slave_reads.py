"""Which broker of its set a consumer is to pull from next (suggestWhichBrokerId).

A consumer that is far behind reads from the disk what the master would rather keep out of its memory: with
slaveReadEnable it is sent to the broker id that its group names for that (whichBrokerWhenConsumeSlowly, 1 unless set),
and back to the group's brokerId (0 unless set) once it is near. An id that is in no route makes clients take any other.

Source: reference broker_behaviour.md §5.
"""

import os
import struct
from collections.abc import Callable
from typing import Final

from apogeemq.broker.config import BrokerConfig
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.service.fetch import Pull, Pulled
from apogeemq.store.message_store import MessageStore

_PHYSICAL_OFFSET: Final = struct.Struct(">28xq")
"""A stored record as far as its physical offset."""


class SlaveReads:
    """The master's advice.

    Args:
        end_offset: gives where the log ends.
        behind_bytes: from more than this on a consumer is far behind.
    """

    def __init__(self, groups: SubscriptionGroupTable, *, end_offset: Callable[[], int], behind_bytes: int) -> None:
        self._groups = groups
        self._end_offset = end_offset
        self._behind_bytes = behind_bytes

    def suggest(self, pull: Pull, pulled: Pulled) -> int:
        """The broker id."""
        group = self._groups.get(pull.group)
        if group is None:
            return 0
        return group.which_broker_when_consume_slowly if self._is_far_behind(pulled) else group.broker_id

    def _is_far_behind(self, pulled: Pulled) -> bool:
        """By the first record of the answer; who got nothing is not."""
        if not pulled.buffers:
            return False
        (physical_offset,) = _PHYSICAL_OFFSET.unpack_from(pulled.buffers[0])
        return bool(self._end_offset() - physical_offset > self._behind_bytes)


def memory_bytes() -> int:
    """Of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def suggestion(
    config: BrokerConfig, store: MessageStore, groups: SubscriptionGroupTable
) -> Callable[[Pull, Pulled], int]:
    """What tells consumers which broker of the set to pull from next: the master, unless slaveReadEnable."""
    replication = config.replication
    if not replication.slave_read_enable:
        return lambda pull, pulled: 0
    behind_bytes = memory_bytes() * replication.access_message_in_memory_max_ratio // 100
    return SlaveReads(groups, end_offset=lambda: store.written_offset, behind_bytes=behind_bytes).suggest
