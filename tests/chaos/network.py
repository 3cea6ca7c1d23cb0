"""A private network: each process of a set on a machine of its own, which may be cut off, filled up, started anew.

```
the run, with the clients   10.77.0.1   in namespaces of its own (`enter`), with a bridge
  ├── b1                    10.77.0.2   another network and other mounts: /proc's boot_id is a file of ours,
  ├── one                   10.77.0.3   and a broker's directory a file system of its own, with an end
  └── …
```
Every machine knows the hardware addresses of all others by heart. A cut gives it a wrong one: what it sends there
reaches nobody and nobody says so, as with a cable pulled out far away; one direction at a time.

Needs Linux, the right to make namespaces (root, or user namespaces), and `ip`, `ss`, `unshare`, `nsenter`; `why_not`
says what is missing. Nothing of it is seen outside, and it is gone with the run.
"""

import contextlib
import errno
import os
import pathlib
import shutil
import subprocess
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Self

from tests.e2e.process import ManagedProcess, poll_until
from tests.machines import Machine

ENTERED = "APOGEEMQ_CHAOS_NETWORK"
"""In the environment of a run that has a network of its own."""
CLIENTS = "clients"
"""What the run's own machine is called."""
BRIDGE, LINK = "bridge0", "eth0"
NOBODY = "02:00:00:00:ff:ff"
"""A hardware address that no machine has."""
BOOT_ID = "/proc/sys/kernel/random/boot_id"
DISK_BYTES = 768 << 20
COMMAND_TIMEOUT_S = 10.0
TAKES_MAX = 1_000
TRIAL = f"""
set -e
ip link add {BRIDGE} type bridge
ip link set {BRIDGE} up
ip link add v-trial type veth peer name {LINK} netns $$
ip link set v-trial master {BRIDGE}
ip addr add 10.77.0.1/24 dev {LINK}
ip link set {LINK} up
ip neigh replace 10.77.0.2 lladdr {NOBODY} nud permanent dev {LINK}
ss --kill --tcp state established
mount -t tmpfs trial /mnt
echo trial > /mnt/file
mount --bind /mnt/file {BOOT_ID}
"""


def why_not() -> str:
    """Why no private network can be had here; empty where it can."""
    missing = [name for name in ("unshare", "nsenter", "ip", "ss", "mount") if shutil.which(name) is None]
    if missing:
        return f"there is no program {' or '.join(missing)}"
    done = subprocess.run([*_unshare(), "sh", "-c", TRIAL], capture_output=True, text=True, check=False)
    return (done.stderr.strip() or f"a trial ended with {done.returncode}") if done.returncode else ""


def command(argv: Sequence[str]) -> list[str]:
    """What runs a command line in a network of its own."""
    return ["env", f"{ENTERED}=1", *_unshare(), *argv]


def is_entered() -> bool:
    """Whether this process was started by `command`."""
    return ENTERED in os.environ


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--net", "--mount", "--propagation", "private"]


class PrivateNetwork:
    """The machines of a run. Use it as a context manager, in a process that has entered.

    Args:
        names: of the machines.
        directory: for the files behind them.
        disks: which machines have a disk of their own, of DISK_BYTES, and where it lies.
    """

    def __init__(self, names: Collection[str], directory: pathlib.Path, disks: Mapping[str, pathlib.Path]) -> None:
        self._directory = directory / "machines"
        self._disks = dict(disks)
        self._numbers = {name: number for number, name in enumerate([CLIENTS, *names], start=1)}
        self._holders: dict[str, ManagedProcess] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        assert is_entered(), "only a run in namespaces of its own may make machines"
        self._directory.mkdir(parents=True)
        for path in self._disks.values():
            path.mkdir(parents=True, exist_ok=True)
            _run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "disk", str(path)])
        with contextlib.ExitStack() as stack:
            self._set_up_clients()
            for name in self.names:
                self._holders[name] = stack.enter_context(self._held(name))
                self._set_up(name)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        for path in self._disks.values():
            _run(["umount", "--lazy", str(path)])

    @property
    def names(self) -> list[str]:
        """Of all machines but the clients'."""
        return [name for name in self._numbers if name != CLIENTS]

    def machine(self, name: str) -> Machine:
        """For the processes of a deployment."""
        return Machine(self._address(name), tuple(self._on(name, wd=True)))

    # -- what happens to a network -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def silenced(self, sources: Collection[str], targets: Collection[str]) -> Iterator[None]:
        """Nothing that `sources` send reaches `targets`; what comes the other way does."""
        pairs = {source: [target for target in targets if target != source] for source in sources}
        for source, silent in pairs.items():
            self._know(source, dict.fromkeys(silent, NOBODY))
        try:
            yield
        finally:
            for source, silent in pairs.items():
                self._know(source, {target: self._hardware(target) for target in silent})

    @contextlib.contextmanager
    def parted(self, some: Collection[str], others: Collection[str]) -> Iterator[None]:
        """Nothing goes between `some` and `others`."""
        with self.silenced(some, others), self.silenced(others, some):
            yield

    def others(self, names: Collection[str], *, clients: bool = True) -> list[str]:
        """All machines but these; with the clients' or without."""
        return [name for name in self._numbers if name not in names and (clients or name != CLIENTS)]

    def cut_streams(self, name: str) -> None:
        """End every connection of a machine, on both ends."""
        _run([*self._on(name), "ss", "--kill", "--tcp", "state", "established"])

    # -- what happens to a machine -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def full(self, name: str) -> Iterator[None]:
        """A machine's disk has no byte left."""
        path = self._disks[name] / "filler"
        try:
            with path.open("wb") as filler:
                _take_all(filler.fileno())
            yield
        finally:
            path.unlink()

    def boot(self, name: str) -> None:
        """Its next processes see another start of the machine."""
        self._boot_id_file(name).write_text(f"{uuid.uuid4()}\n")

    # -- set-up --------------------------------------------------------------------------------------------------------

    def _held(self, name: str) -> ManagedProcess:
        """A process whose namespaces are the machine; it ends with the run, for then its stdin does."""
        argv = ["unshare", "--net", "--mount", "cat"]
        holder = ManagedProcess(f"machine-{name}", argv, log_directory=self._directory)
        ours = _mounts("self")

        def is_there() -> bool:
            with contextlib.suppress(FileNotFoundError):
                return _mounts(holder.pid) != ours
            return False

        poll_until(is_there, COMMAND_TIMEOUT_S, lambda: holder.failure("has no namespaces"))
        return holder

    def _set_up_clients(self) -> None:
        _ip(
            [],
            "link set lo up",
            f"link add {BRIDGE} type bridge",
            f"link set {BRIDGE} address {self._hardware(CLIENTS)}",
            f"addr add {self._address(CLIENTS)}/24 dev {BRIDGE}",
            f"link set {BRIDGE} up",
        )
        self._know(CLIENTS, {name: self._hardware(name) for name in self.names})

    def _set_up(self, name: str) -> None:
        port = f"v{self._numbers[name]}"
        pid = self._holders[name].pid
        _ip(
            [],
            f"link add {port} type veth peer name {LINK} netns {pid}",
            f"link set {port} master {BRIDGE}",
            f"link set {port} up",
        )
        _ip(
            self._on(name),
            "link set lo up",
            f"link set {LINK} address {self._hardware(name)}",
            f"addr add {self._address(name)}/24 dev {LINK}",
            f"link set {LINK} up",
        )
        self._know(name, {other: self._hardware(other) for other in self._numbers if other != name})
        self.boot(name)
        _run([*self._on(name), "mount", "--bind", str(self._boot_id_file(name)), BOOT_ID])

    def _know(self, name: str, hardware: Mapping[str, str]) -> None:
        """Tell a machine the hardware addresses of others."""
        device = BRIDGE if name == CLIENTS else LINK
        lines = [
            f"neigh replace {self._address(other)} lladdr {address} nud permanent dev {device}"
            for other, address in hardware.items()
        ]
        _ip(self._on(name), *lines)

    def _on(self, name: str, *, wd: bool = False) -> list[str]:
        """What comes before a command that is to run on a machine."""
        if name == CLIENTS:
            return []
        namespaces = f"/proc/{self._holders[name].pid}/ns"
        where = [f"--wd={pathlib.Path.cwd()}"] if wd else []
        return ["nsenter", f"--net={namespaces}/net", f"--mount={namespaces}/mnt", *where, "--"]

    def _address(self, name: str) -> str:
        return f"10.77.0.{self._numbers[name]}"

    def _hardware(self, name: str) -> str:
        return f"02:00:00:00:00:{self._numbers[name]:02x}"

    def _boot_id_file(self, name: str) -> pathlib.Path:
        return self._directory / f"{name}.boot_id"


def _take_all(descriptor: int) -> None:
    """Let a file have all that is free on its disk, while others take some of it as well."""
    size_bytes = 0
    for _ in range(TAKES_MAX):
        status = os.fstatvfs(descriptor)
        free_bytes = status.f_bavail * status.f_frsize
        if free_bytes == 0:
            return
        try:
            os.posix_fallocate(descriptor, size_bytes, free_bytes)
            size_bytes += free_bytes
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    raise AssertionError(f"a disk still has {free_bytes} bytes after {TAKES_MAX} times that a file took all")


def _mounts(pid: int | str) -> pathlib.Path:
    """Names the namespace of its mounts, which a process makes after that of its network."""
    return pathlib.Path(f"/proc/{pid}/ns/mnt").readlink()


def _ip(where: Sequence[str], *lines: str) -> None:
    _run([*where, "ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


def _run(argv: Sequence[str], given: str = "") -> None:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}\n{given}"
