"""Where the processes of a test run: all on loopback, or each on a machine of its own (`tests/chaos/network.py`)."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a process has to know of its machine.

    Attributes:
        host: the address that its listeners have.
        command: what comes before its own command line.
    """

    host: str = "127.0.0.1"
    command: tuple[str, ...] = ()


MachineOf = Callable[[str], Machine]
"""The machine of a process, by the process's name: "b1", "one", "namesrv", "etcd-0"."""


def loopback(name: str) -> Machine:
    """One machine for all, whatever their names."""
    return Machine()
