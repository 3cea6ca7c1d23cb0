"""A broker set as processes: etcd's members, a name server, two controllers, three brokers, each killed at will.

`Load` sends all the while to whoever the name server calls master, and keeps what was acknowledged.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

from tests.e2e.controllers import Controllers
from tests.e2e.process import ManagedProcess, fixed_ports, poll_until, start_service
from tests.e2e.wire_client import WireClient, pull_all, route_of, send_fields
from tests.etcd_cluster import EtcdCluster
from tests.machines import MachineOf, loopback

SET = "broker-a"
WAIT_S = 60.0
CONTROLLERS = ("one", "two")
PROXIES = ("proxy-1", "proxy-2")
"""What proxies are called where there are two."""
SEND_PAUSE_S = 0.005


class BrokerSetDeployment:
    """All of it. Processes keep their ports and directories over a restart, as machines do."""

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        broker_name: str = SET,
        brokers: int = 3,
        etcd: int = 3,
        settings: Mapping[str, str] | None = None,
        machine_of: MachineOf = loopback,
    ) -> None:
        self._machine_of = machine_of
        self._broker_name = broker_name
        self._directory = directory
        self._settings = dict(settings or {})
        self._stack = contextlib.ExitStack()
        self._processes: dict[str, ManagedProcess] = {}
        self._ports: dict[str, dict[str, str]] = {}
        self.broker_names = [f"b{number}" for number in range(1, brokers + 1)]
        self._etcd_size = etcd
        self.namesrv = ""
        self._namesrv_mesh = ""
        self.remoting: dict[str, str] = {}
        self.proxies: dict[str, Mapping[str, str]] = {}
        """Listeners of those that were started, by their names."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.etcd = stack.enter_context(EtcdCluster(self._etcd_size, machine_of=self._machine_of))
            self.controllers = stack.enter_context(Controllers(self.etcd, self._directory, machine_of=self._machine_of))
            for name in CONTROLLERS:
                self.controllers.start(name, etcd__endpoints=";".join(self.etcd.endpoints))
                self.controllers.wait_ready(name)
            self._stack = stack.pop_all()
        self.start_namesrv()
        for name in self.broker_names:
            self.start_broker(name)
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            process.kill()
        self._stack.close()

    def start_namesrv(self) -> ManagedProcess:
        """Start the name server."""
        process, listeners = self._start("namesrv", "namesrv", {})
        self.namesrv, self._namesrv_mesh = listeners["remoting"], listeners["mesh"]
        return process

    def start_broker(self, name: str) -> ManagedProcess:
        """Start one on its directory."""
        common = {
            "identity.broker_name": self._broker_name,
            "identity.namesrv_addr": self._namesrv_mesh,
            "replication.enabled": "true",
            "replication.controllers": ";".join(self.controllers.endpoints.values()),
            "store.path": str(self.directory(name)),
            "store.commit_log_file_size_bytes": str(16 << 20),
            **self._settings,
        }
        process, listeners = self._start("broker", name, common)
        self.remoting[name] = listeners["remoting"]
        return process

    def start_proxy(self, name: str = "proxy") -> Mapping[str, str]:
        """Start one that asks the name server; gives its listeners."""
        host = self._machine_of(name).host
        settings = {"identity.namesrv_addr": self._namesrv_mesh, "listeners.http.host": host}
        _, self.proxies[name] = self._start("proxy", name, settings)
        return self.proxies[name]

    def _start(self, service: str, name: str, settings: Mapping[str, str]) -> tuple[ManagedProcess, Mapping[str, str]]:
        config = self._directory / f"{name}.toml"
        config.write_text("")
        second = "grpc" if service == "proxy" else "mesh"
        free = {f"listeners.{listener}.port": "0" for listener in ("remoting", second, "http")}
        machine = self._machine_of(name)
        hosts = {f"listeners.{listener}.host": machine.host for listener in ("remoting", second)}
        process = start_service(
            service,
            config=config,
            settings={**free, **hosts, "log.level": "INFO", **settings, **self._ports.get(name, {})},
            log_directory=self._directory / "logs",
            name=name,
            before=machine.command,
        )
        self._processes[name] = process
        ready = process.wait_ready()
        self._ports[name] = fixed_ports(ready)
        return process, ready.listeners

    def directory(self, name: str) -> pathlib.Path:
        """Where a broker's store lies."""
        return self._directory / name

    def log_files(self, name: str) -> list[str]:
        """Of a broker, by their names."""
        return sorted(path.name for path in (self.directory(name) / "commitlog").iterdir())

    def process(self, name: str) -> ManagedProcess:
        """A broker's, or the name server's."""
        return self._processes[name]

    def status(self) -> dict[str, Any]:
        """What `apogeemq-controller status` tells of the set, with who is active."""
        told = self.controllers.status()
        described: dict[str, Any] = {
            "active": told["active"],
            "master_id": 0,
            "master_epoch": 0,
            "sync_state_set": [],
            "brokers": [],
        }
        for each in told["sets"]:
            if each["broker_name"] == self._broker_name:
                described |= each
        return described

    def name_of(self, broker_id: int) -> str:
        """Which of our brokers has this id."""
        return self.name_from(self.status(), broker_id)

    def name_from(self, status: dict[str, Any], broker_id: int) -> str:
        """The same by a status that was asked for before."""
        address = next(each["address"] for each in status["brokers"] if each["broker_id"] == broker_id)
        return next(name for name, remoting in self.remoting.items() if remoting == address)

    def master(self) -> str:
        """The name of the master."""
        status = self.status()
        return self.name_from(status, status["master_id"])

    def slaves(self) -> list[str]:
        """The names of all others."""
        master = self.master()
        return [name for name in self.broker_names if name != master]

    def active_controller(self) -> str:
        """The name of the controller that is active."""
        return self.controllers.name_of(self.status()["active"])

    def until(
        self, is_so: Callable[[dict[str, Any]], bool], what: str | Callable[[], str], timeout_s: float = WAIT_S
    ) -> dict[str, Any]:
        """Wait until the status is so."""
        seen: dict[str, Any] = {}

        def look() -> bool:
            seen.clear()
            seen.update(self.status())
            return is_so(seen)

        def failure() -> Exception:
            logs = "\n".join(str(each.failure("")) for each in self._processes.values())
            missing = what() if callable(what) else what
            return AssertionError(f"not within {timeout_s:g} s: {missing}; the status is {seen}\n{logs}")

        poll_until(look, timeout_s, failure)
        return seen

    def whole(self) -> dict[str, Any]:
        """Wait for a master, all brokers in the SyncStateSet, and the master in the name server's route.

        All at a time: a controller that was cut off may tell of an older master for a moment.
        """
        count = len(self.broker_names)
        routed = ""

        def is_whole(told: dict[str, Any]) -> bool:
            nonlocal routed
            routed = self.routed()
            master = told["master_id"]
            is_routed = bool(master) and routed == self.remoting[self.name_from(told, master)]
            return is_routed and len(told["sync_state_set"]) == count

        return self.until(is_whole, lambda: f"all are in the set, and its master in the route ({routed or 'nobody'})")

    def routed(self) -> str:
        """Where the name server sends those who send; empty where nowhere, or where it does not answer."""
        try:
            route = route_of(self.namesrv, "TBW102")
        except OSError:
            return ""
        if route is None:
            return ""
        return next((each.broker_addrs[0] for each in route.broker_datas if 0 in each.broker_addrs), "")

    def logs(self) -> str:
        """Of all brokers."""
        return "".join(self._processes[name].log for name in self.broker_names)


class Load:
    """Sends one message after the other, to the master that the name server names; keeps what was acknowledged."""

    def __init__(self, deployment: BrokerSetDeployment, topic: str) -> None:
        self.acknowledged: list[bytes] = []
        self.acknowledged_s: list[float] = []
        self.refused: dict[int, int] = {}
        self._deployment = deployment
        self._topic = topic
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_more(20)
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self._thread.join()

    def wait_for_more(self, count: int = 50) -> None:
        """Until so many more are acknowledged."""
        goal = len(self.acknowledged) + count
        poll_until(
            lambda: len(self.acknowledged) >= goal,
            WAIT_S,
            lambda: AssertionError(
                f"{len(self.acknowledged)} of {goal} acknowledged, refusals {self.refused}\n"
                f"{self._deployment.logs()[-20_000:]}"
            ),
        )

    def longest_pause_s(self, since_s: float) -> float:
        """Between two acknowledgements, from then on."""
        times = [since_s, *(each for each in self.acknowledged_s if each > since_s)]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def missing(self) -> set[bytes]:
        """What was acknowledged, and its queue does not have now."""
        with WireClient(self._deployment.routed()) as client:
            found = [record.body for record in pull_all(client, self._topic, "G_looks", 0)]
        return set(self.acknowledged) - set(found)

    def _run(self) -> None:
        number = 0
        while not self._ends.is_set():
            with contextlib.suppress(OSError):
                address = self._deployment.routed()
                if address:
                    with WireClient(address) as client:
                        client.socket.settimeout(2.0)
                        number = self._send(client, number)
            time.sleep(0.05)

    def _send(self, client: WireClient, number: int) -> int:
        """Until one is refused or the connection ends."""
        while not self._ends.is_set():
            number += 1
            body = b"%d" % number
            reply = client.request(RequestCode.SEND_MESSAGE_V2, send_fields(self._topic), body)
            if reply.code != ResponseCode.SUCCESS:
                self.refused[reply.code] = self.refused.get(reply.code, 0) + 1
                return number
            self.acknowledged.append(body)
            self.acknowledged_s.append(time.monotonic())
            time.sleep(SEND_PAUSE_S)
        return number
