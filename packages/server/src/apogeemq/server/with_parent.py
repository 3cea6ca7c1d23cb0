"""Become another program, which the system asks to end (SIGTERM) when the process that started it is gone.

    python -m apogeemq.server.with_parent PARENT_PID PROGRAM ARGUMENT …

For programs that know nothing of it by themselves; those of ours have `--stop-with-parent`. Linux alone can do it:
elsewhere the program outlives a parent that is killed.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of <sys/prctl.h>; kept over exec."""


def main() -> None:
    """Never returns; OSError where there is no such program."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the system was asked
            raise SystemExit(1)
    os.execv(argv[0], argv)  # noqa: S606 — to become it is the purpose


if __name__ == "__main__":
    main()
