"""One unit of the timer log: what a pending timer is on the disk, in Java's layout, with our millisecond in it."""

import struct
from typing import NamedTuple
from zlib import crc32

UNIT = struct.Struct(">iqiqiqiiII")
"""Unit size, previous position, magic, write time, delayed ms, physical offset, size, topic hash, check, key hash."""
UNIT_SIZE_BYTES = UNIT.size
MAGIC_POSITION = 12
"""Where in a unit its magic lies: four bytes, never across two sectors, since units lie at multiples of four."""

MAGIC_DEFAULT = 1
MAGIC_ROLL = 2
MAGIC_DELETE = 4
MAGIC_SETTLED = 8 | MAGIC_DELETE
"""Ours: nothing is left to be done. For Java it marks a deletion, and one whose record names no key deletes nothing."""
MAGIC_MAX = 15

_CHECKED = slice(16, 44)
_CHECK_BIT = 0x80000000
_DELAYED_MS_MAX = 0x7FFFFFFF


class TimerEntry(NamedTuple):
    """A pending timer."""

    deliver_ms: int
    """It must not be delivered before."""
    position: int
    """Of its unit in the timer log."""
    physical_offset: int
    """Of its record, in rmq_sys_wheel_timer."""
    size_bytes: int
    """Of its record."""
    topic_hash: int
    """Java's String.hashCode of the real topic."""
    is_rolled: bool
    """Java meant to look at it again at `deliver_ms`; the time of delivery is its record's TIMER_OUT_MS."""
    is_deletion: bool
    """Java's mark that recalls the message whose unique key is its record's TIMER_DEL_UNIQKEY."""


class TimerUnit(NamedTuple):
    """The fields of a unit, 52 bytes, big-endian.

    ```
     0 unit size i32 = 52 │ 4 previous position i64 │ 12 magic i32 │ 16 write time ms i64 │ 24 delayed ms i32
    28 physical offset i64 │ 36 size i32 │ 40 topic hash i32 │ 44 check u32 │ 48 key hash u32
    ```
    Previous position: of an earlier unit of the same slot of the wheel, -1 when there is none. Magic: 1 deliver,
    2 roll, 4 delete, in any combination; 12 settled. The last eight bytes are Java's "reserved", which it writes as 0
    and never reads. Ours are a check, CRC-32 of bytes 16 to 44 begun with the key hash, its top bit set; and a hash of
    the message's unique key.

    Write time + delayed ms is the unit's time; it belongs to the slot `time // precision`. Java hands a slot out when
    it is over, so a time stands for "not before the end of its slot". Ours is the millisecond before delivery, which
    puts it into the slot where Java would have put it (an exact multiple goes one slot earlier), and is exact for us.
    Source: Apache store/timer/TimerLog, TimerMessageStore.doEnqueue 5.3; broker_behaviour.md §3.
    """

    size: int
    previous_position: int
    magic: int
    write_time_ms: int
    delayed_ms: int
    physical_offset: int
    size_bytes: int
    topic_hash: int
    check: int
    key_hash: int

    @property
    def time_ms(self) -> int:
        """What decides on its slot."""
        return self.write_time_ms + self.delayed_ms

    @property
    def is_ours(self) -> bool:
        """We wrote it: it has a check, and its millisecond is exact."""
        return bool(self.check)

    def is_plausible(self) -> bool:
        """Whether these are the fields of a unit at all; for Java's nothing better can be said."""
        return (
            self.size == UNIT_SIZE_BYTES
            and 0 < self.magic <= MAGIC_MAX
            and self.physical_offset >= 0
            and self.size_bytes > 0
            and self.write_time_ms + self.delayed_ms >= 0
        )

    def deliver_ms(self, precision_ms: int) -> int:
        """The first millisecond at which it may be delivered."""
        time_ms = self.write_time_ms + self.delayed_ms
        return time_ms + 1 if self.check else time_ms - time_ms % precision_ms + precision_ms

    def entry(self, position: int, precision_ms: int) -> TimerEntry:
        """What the owner of the timer is told of it."""
        return TimerEntry(
            self.deliver_ms(precision_ms),
            position,
            self.physical_offset,
            self.size_bytes,
            self.topic_hash,
            bool(self.magic & MAGIC_ROLL),
            self.magic & (MAGIC_DELETE | MAGIC_ROLL) == MAGIC_DELETE,
        )


def encode_unit(
    deliver_ms: int,
    physical_offset: int,
    size_bytes: int,
    topic_hash: int,
    key_hash: int,
    *,
    store_timestamp_ms: int,
    previous_position: int,
) -> bytes:
    """A unit of ours.

    Errors: struct.error when a field does not fit.
    """
    time_ms = deliver_ms - 1
    # Far outside what Java's field holds only the sum counts: the write time is there to be looked at.
    delayed_ms = max(-_DELAYED_MS_MAX, min(time_ms - store_timestamp_ms, _DELAYED_MS_MAX))
    unit = UNIT.pack(
        UNIT_SIZE_BYTES,
        previous_position,
        MAGIC_DEFAULT,
        time_ms - delayed_ms,
        delayed_ms,
        physical_offset,
        size_bytes,
        topic_hash,
        0,
        key_hash,
    )
    check = crc32(unit[_CHECKED], key_hash) | _CHECK_BIT
    return unit[:44] + check.to_bytes(4) + unit[48:]


def decode_unit(data: bytes, at: int = 0) -> TimerUnit:
    """The unit that lies `at` bytes into `data`, whatever it says."""
    return TimerUnit._make(UNIT.unpack_from(data, at))


def is_whole(data: bytes, at: int, unit: TimerUnit) -> bool:
    """Whether a unit of ours is what was written: a power loss can leave a part of it."""
    return unit.check == crc32(data[at + _CHECKED.start : at + _CHECKED.stop], unit.key_hash) | _CHECK_BIT


def key_hash_of(unique_key: bytes) -> int:
    """What a unit keeps of the message's unique key."""
    return crc32(unique_key)
