"""`apogeemq-controller`: a controller as a process of its own (apogeemq.mesh.service_process says what it prints).

With one of the words of commands.COMMANDS first, it asks controllers that run instead.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apogeemq.controller.commands import COMMANDS, command_main
from apogeemq.mesh.service_process import service_main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal, or carry out a command; return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and words[0] in COMMANDS:
        return command_main(words)
    from apogeemq.controller.app import PROGRAM

    return service_main(PROGRAM, words)


if __name__ == "__main__":
    raise SystemExit(main())
