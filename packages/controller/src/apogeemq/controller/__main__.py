"""`apogeemq-controller`: a controller as a process of its own (apogeemq.mesh.service_process says what it prints)."""

from __future__ import annotations

from collections.abc import Sequence

from apogeemq.controller.app import PROGRAM
from apogeemq.mesh.service_process import service_main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; return the exit code."""
    return service_main(PROGRAM, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
