"""What may happen to the clock and the disk of a service; as in `set_faults.py` it is over on leaving."""

import contextlib
import dataclasses
import mmap
import pathlib
import sys
from collections.abc import Callable, Iterator

from tests.chaos import instrumented
from tests.chaos.instrumented import COUNTS, ORDERS, SIZE_BYTES
from tests.e2e.broker_set import BrokerSetDeployment
from tests.machines import Machine, MachineOf

HOUR_S = 3_600.0
SYNC_S = 0.3
"""So much longer a sync takes on a slow disk."""
PROGRAM = pathlib.Path(instrumented.__file__)


class Strain:
    """Orders for instrumented processes.

    Args:
        directory: for a file of each process.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory

    def on(self, machine_of: MachineOf, names: frozenset[str]) -> MachineOf:
        """The same machines, where these processes are instrumented."""

        def instrumented_machine(name: str) -> Machine:
            machine = machine_of(name)
            if name not in names:
                return machine
            path = self._path(name)
            if not path.exists():
                path.write_bytes(bytes(SIZE_BYTES))
            return dataclasses.replace(machine, command=(*machine.command, sys.executable, str(PROGRAM), str(path)))

        return instrumented_machine

    @contextlib.contextmanager
    def clock(self, name: str, ahead_s: float) -> Iterator[None]:
        """Its wall clock jumps, and back again."""
        with self._ordered(name, (ahead_s, 0.0), 0):
            yield

    @contextlib.contextmanager
    def slow_disk(self, name: str) -> Iterator[None]:
        """Each of its syncs takes longer."""
        with self._ordered(name, (0.0, SYNC_S), 1):
            yield

    @contextlib.contextmanager
    def _ordered(self, name: str, orders: tuple[float, float], which: int) -> Iterator[None]:
        with self._path(name).open("r+b") as file, mmap.mmap(file.fileno(), SIZE_BYTES) as memory:
            before = COUNTS.unpack_from(memory, ORDERS.size)[which]
            ORDERS.pack_into(memory, 0, *orders)
            try:
                yield
            finally:
                ORDERS.pack_into(memory, 0, 0.0, 0.0)
            after = COUNTS.unpack_from(memory, ORDERS.size)[which]
            assert after > before, f"{name} has noticed nothing of {orders}"

    def _path(self, name: str) -> pathlib.Path:
        return self._directory / name


Chosen = Callable[[BrokerSetDeployment], str]
MakeStrain = Callable[[BrokerSetDeployment, Strain], contextlib.AbstractContextManager[None]]


def _master(deployment: BrokerSetDeployment) -> str:
    return deployment.master()


def _slave(deployment: BrokerSetDeployment) -> str:
    return deployment.slaves()[0]


def _controller(deployment: BrokerSetDeployment) -> str:
    return deployment.active_controller()


def _clock(chosen: Chosen, ahead_s: float) -> MakeStrain:
    return lambda deployment, strain: strain.clock(chosen(deployment), ahead_s)


def _slow_disk(chosen: Chosen) -> MakeStrain:
    return lambda deployment, strain: strain.slow_disk(chosen(deployment))


FAULTS: dict[str, MakeStrain] = {
    "controller's clock ahead": _clock(_controller, HOUR_S),
    "controller's clock behind": _clock(_controller, -HOUR_S),
    "slave's clock ahead": _clock(_slave, HOUR_S),
    "slave's clock behind": _clock(_slave, -HOUR_S),
    "master's disk slow": _slow_disk(_master),
    "slave's disk slow": _slow_disk(_slave),
}
"""No step of a master's clock: messages have their times by it, and come an hour early or late (docs/ha.md)."""
