"""Runs a service whose wall clock and disk obey a file.

    python instrumented.py FILE COMMAND …

```
FILE   0  seconds that the wall clock is ahead        f64, written by the run
       8  seconds that each sync of a file takes longer  f64, written by the run
      16  looks at the wall clock while it was wrong     u64, written by the service
      24  syncs that took longer                         u64, written by the service
```
In one kernel all processes share the wall clock and most of what makes a disk slow, so both are changed where the
service asks: `time.time`, `time.time_ns`, `os.fsync`, `os.fdatasync`. The monotonic clock stays as it is, as it does
when somebody sets a machine's clock.
"""

import mmap
import os
import pathlib
import runpy
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

ORDERS, COUNTS = struct.Struct("<dd"), struct.Struct("<QQ")
SIZE_BYTES = ORDERS.size + COUNTS.size


class Descriptor(Protocol):
    """What a sync takes beside a number."""

    def fileno(self) -> int: ...


class Instruments:
    """What stands in for the wall clock, and in front of syncs."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._counts = [0, 0]
        self._time_ns = time.time_ns

    def time_ns(self) -> int:
        """For time.time_ns."""
        ahead_s = ORDERS.unpack_from(self._memory)[0]
        if ahead_s:
            self._count(0)
        return self._time_ns() + int(ahead_s * 1e9)

    def time(self) -> float:
        """For time.time."""
        return self.time_ns() / 1e9

    def wait_for_disk(self) -> None:
        """Before each sync."""
        longer_s = ORDERS.unpack_from(self._memory)[1]
        if longer_s:
            self._count(1)
            time.sleep(longer_s)

    def _count(self, which: int) -> None:
        with self._lock:
            self._counts[which] += 1
            COUNTS.pack_into(self._memory, ORDERS.size, *self._counts)


class SlowSync:
    """Stands in for os.fsync or os.fdatasync."""

    def __init__(self, instruments: Instruments, real: Callable[[int | Descriptor], None]) -> None:
        self._instruments = instruments
        self._real = real

    def __call__(self, fd: int | Descriptor) -> None:
        self._instruments.wait_for_disk()
        self._real(fd)


def main(arguments: list[str]) -> None:
    """Become the command, which is a Python script."""
    path, script, *rest = arguments
    with pathlib.Path(path).open("r+b") as file:
        instruments = Instruments(mmap.mmap(file.fileno(), SIZE_BYTES))
    time.time, time.time_ns = instruments.time, instruments.time_ns
    os.fsync, os.fdatasync = SlowSync(instruments, os.fsync), SlowSync(instruments, os.fdatasync)
    sys.argv = [script, *rest]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
