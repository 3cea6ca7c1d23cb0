"""Records of the simulated log: of one size, so that a trace can be read by counting.

message id u64 | queue offset u32 | master epoch u32 | CRC-32 of those u32 | unchecked 12     32 bytes
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

RECORD_SIZE_BYTES = 32
_FIELDS = struct.Struct(">QIII")


class Record(NamedTuple):
    """One message in its queue; there is one queue."""

    message_id: int
    queue_offset: int
    epoch: int


def encode_record(record: Record) -> bytes:
    """Its bytes."""
    return _FIELDS.pack(*record, zlib.crc32(repr(record).encode())) + b"%012d" % record.message_id


def decode_record(data: bytes) -> Record:
    """From its bytes."""
    return Record(*_FIELDS.unpack_from(data)[:3])


def is_whole(data: bytes) -> bool:
    """Whether its checksum says that all of it was written."""
    return encode_record(decode_record(data))[: _FIELDS.size] == data[: _FIELDS.size]


def records_of(log: bytes) -> list[Record]:
    """All records of a log."""
    return [decode_record(log[at : at + RECORD_SIZE_BYTES]) for at in range(0, len(log), RECORD_SIZE_BYTES)]
