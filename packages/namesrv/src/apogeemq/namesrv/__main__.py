"""`apogeemq-namesrv`: a name server as a process of its own (apogeemq.mesh.service_process says what it prints)."""

from __future__ import annotations

from collections.abc import Sequence

from apogeemq.mesh.service_process import service_main
from apogeemq.namesrv.app import PROGRAM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; return the exit code."""
    return service_main(PROGRAM, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
