"""Controllers as processes by name, on the etcd of a test, with leases of TTL_S."""

import contextlib
import json
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any, Self

from tests.e2e.http_client import readiness
from tests.e2e.process import ManagedProcess, console_script, poll_until, start_service
from tests.etcd_cluster import EtcdCluster
from tests.machines import MachineOf, loopback

TTL_S = 3
WAIT_S = 20.0
COMMAND_TIMEOUT_S = 30.0


class Controllers:
    """Controllers by name; each keeps its port over a restart, as a machine's does."""

    def __init__(self, etcd: EtcdCluster, directory: pathlib.Path, *, machine_of: MachineOf = loopback) -> None:
        self._etcd = etcd
        self._machine_of = machine_of
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._processes: dict[str, ManagedProcess] = {}
        self.endpoints: dict[str, str] = {}
        self.http: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, name: str, **settings: str) -> ManagedProcess:
        """Start one and wait until it listens."""
        config = self._directory / "controller.toml"
        config.write_text("")
        machine = self._machine_of(name)
        port = self.endpoints[name].rpartition(":")[2] if name in self.endpoints else "0"
        all_settings = {
            "listeners.mesh.host": machine.host,
            "listeners.mesh.port": port,
            "listeners.http.host": machine.host,
            "listeners.http.port": "0",
            "etcd.endpoints": ";".join(self._etcd.endpoints),
            "leases.controller_ttl_s": str(TTL_S),
            "leases.broker_ttl_s": str(TTL_S),
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        started = start_service(
            "controller",
            config=config,
            settings=all_settings,
            log_directory=self._directory / "logs",
            name=name,
            before=machine.command,
        )
        process = self._processes[name] = self._stack.enter_context(started)
        listeners = process.wait_ready().listeners
        self.endpoints[name], self.http[name] = listeners["mesh"], listeners["http"]
        return process

    def process(self, name: str) -> ManagedProcess:
        return self._processes[name]

    def name_of(self, endpoint: str) -> str:
        """Which controller it is; empty for none."""
        return next((name for name, each in self.endpoints.items() if each == endpoint), "")

    def wait_ready(self, name: str) -> None:
        """Until it sees what etcd holds."""
        http = self.http[name]
        poll_until(lambda: readiness(http)[0] == 200, WAIT_S, lambda: self.process(name).failure("is not ready"))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`apogeemq-controller …`, told of all controllers."""
        return self._ask("apogeemq-controller", *words)

    def admin_ha(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`apogeemq admin ha …`, likewise."""
        return self._ask("apogeemq", "admin", "ha", *words)

    def _ask(self, script: str, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [str(console_script(script)), *words, "--controller", ";".join(self.endpoints.values())]
        return subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)

    def status(self) -> Mapping[str, Any]:
        """What `apogeemq-controller status -o json` says."""
        done = self.command("status", "-o", "json")
        assert done.returncode == 0, done.stderr
        described: Mapping[str, Any] = json.loads(done.stdout)
        return described
