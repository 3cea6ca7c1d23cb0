"""How far the timer has come: what Java calls timercheck, with a few words of ours behind Java's."""

import struct
from pathlib import Path
from zlib import crc32

import msgspec
from apogeemq.store.files import Disk, Segment

FILE_SIZE_BYTES = 4096
_JAVA = struct.Struct(">7q")
_OURS = struct.Struct(">3qI")


class TimerCheckpoint(msgspec.Struct):
    """Everything in it may be behind the truth, never ahead; zeros mean "unknown"."""

    read_time_ms: int = 0
    """Every slot before this one is done with. Java goes on here; we go by what each unit says."""
    flushed_position: int = 0
    """The timer log is synced up to here."""
    queue_offset: int = 0
    """rmq_sys_wheel_timer was read up to this queue offset, and what it said is synced."""
    master_queue_offset: int = 0
    """The same of the master, at Java's."""
    state_version: int = 0
    version_timestamp_ms: int = 0
    version_counter: int = 0
    imported_end: int = 0
    """Units before this position were there when the directory last came over from Java."""
    imported_read_time_ms: int = 0
    """Of those units, the ones in slots before this time were done with then."""
    copies_offset: int = 0
    """Timers whose copies lie below this physical offset are settled, and synced so."""


class TimerCheckpointFile:
    """The file `config/timercheck`: 4 KiB, of which 84 bytes are used.

    ```
    at 0  read time ms i64 │ 8 flushed position i64 │ 16 queue offset i64 │ 24 master queue offset i64
      32  data version: state i64 │ 40 timestamp ms i64 │ 48 counter i64            these are Java's
      56  imported end i64 │ 64 imported read time ms i64 │ 72 copies offset i64
      80  check u32                                                                 these are ours │ zeros
    ```
    Big-endian. The check is the CRC-32 of the 80 bytes before it: Java leaves it alone when it writes its own, so one
    that is wrong says that a Java broker was the last to write. All of it lies in one sector, so a power loss leaves
    the old values or the new ones. The file is made with the first save.
    Source: Apache store/timer/TimerCheckpoint 5.3.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._segment: Segment | None = None
        self._is_name_durable = False

    def load(self) -> tuple[TimerCheckpoint, bool]:
        """What the file says, zeros when there is none, and whether it was we who wrote it."""
        if self._disk.size_of(self._path) is None:
            return TimerCheckpoint(), False
        data = self._open().pread(0, _JAVA.size + _OURS.size)
        *ours, check = _OURS.unpack_from(data, _JAVA.size)
        values = [max(0, value) for value in _JAVA.unpack_from(data)]
        if check == crc32(data[: _JAVA.size + _OURS.size - 4]):
            return TimerCheckpoint(*values, *ours), True
        return TimerCheckpoint(*values), False

    def save(self, checkpoint: TimerCheckpoint) -> None:
        """Durable at return. Errors: OSError."""
        values = msgspec.structs.astuple(checkpoint)
        data = struct.pack(f">{len(values)}q", *values)
        segment = self._open()
        segment.write(0, data + crc32(data).to_bytes(4))
        segment.sync()
        if not self._is_name_durable:  # a process that died may have made the file without that
            self._disk.sync_dir(self._path.parent)
            self._disk.sync_dir(self._path.parent.parent)
            self._is_name_durable = True

    def close(self) -> None:
        """Give the file back."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _open(self) -> Segment:
        if self._segment is None:
            self._segment = self._disk.open_segment(self._path, FILE_SIZE_BYTES, create=True)
        return self._segment
