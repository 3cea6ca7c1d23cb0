"""Runs `apogeemq` with a slow disk under its commit log, and tells at the end how often that was synced.

    python slow_disk.py 0.02 up --data DIR ...

Every fdatasync of a commit log file takes so many seconds longer. On stdout, last: {"commit_log_syncs": 42}
"""

import itertools
import json
import os
import pathlib
import sys
import time
from typing import Protocol

from apogeemq.server.__main__ import main


class Descriptor(Protocol):
    """What fdatasync takes beside a number."""

    def fileno(self) -> int: ...


class SlowSync:
    """Stands in for os.fdatasync."""

    def __init__(self, delay_s: float) -> None:
        self.count = 0
        self._delay_s = delay_s
        self._counter = itertools.count(1)  # one step of it is safe among threads
        self._real = os.fdatasync

    def __call__(self, fd: int | Descriptor) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        if "commitlog" in pathlib.Path(f"/proc/self/fd/{number}").readlink().parts:
            self.count = next(self._counter)
            time.sleep(self._delay_s)
        self._real(number)


if __name__ == "__main__":
    slow_sync = SlowSync(float(sys.argv[1]))
    os.fdatasync = slow_sync
    exit_code = main(sys.argv[2:])
    sys.stdout.write(json.dumps({"commit_log_syncs": slow_sync.count}) + "\n")
    raise SystemExit(exit_code)
