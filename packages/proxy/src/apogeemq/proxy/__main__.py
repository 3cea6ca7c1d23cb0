"""`apogeemq-proxy`: one proxy as a process of its own (see apogeemq.mesh.service_process for what it prints)."""

from __future__ import annotations

from collections.abc import Sequence

from apogeemq.mesh.service_process import service_main
from apogeemq.proxy.app import PROGRAM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; return the exit code."""
    return service_main(PROGRAM, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
