"""What the scenarios run against: ApogeeMQ in one process, its wheels in two, or Apache's own servers (a baseline).

Each has a name server, one broker called broker-a, its data in a directory of the test's, and ports that nobody else
has. The broker can be killed and started again under the same addresses and on the same data.
"""

import abc
import os
import pathlib
import socket
from collections.abc import Callable, Mapping
from typing import Self

from tests.e2e.process import ManagedProcess, Ready, fixed_ports, start_all_in_one, start_service
from tests.interop import build, wheels

BROKER_NAME = "broker-a"
APACHE_VERSION = "5.3.3"
APACHE_START_TIMEOUT_S = 60.0
ANY_PORT = {f"listeners.{listener}.port": "0" for listener in ("remoting", "mesh", "http")}


class Deployment(abc.ABC):
    """A cluster; `settings` are broker settings under the official names, such as autoCreateTopicEnable.

    As a context manager it is started on entering, and killed on leaving where it still runs. Whatever is started again
    gets the addresses and the data that it had before.
    """

    exit_code = 0
    """How its processes end on SIGTERM."""

    def __init__(self, directory: pathlib.Path, settings: Mapping[str, str]) -> None:
        self.data = directory / "data"
        self.log_directory = directory / "logs"
        self.settings = dict(settings)
        self.processes: dict[str, ManagedProcess] = {}
        """What was started, by name, in the order of starting."""
        self.data.mkdir(parents=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.kill()

    @property
    @abc.abstractmethod
    def namesrv(self) -> str:
        """Where clients ask for routes, "host:port"."""

    @property
    @abc.abstractmethod
    def broker(self) -> str:
        """The broker's Remoting address, "host:port"."""

    @abc.abstractmethod
    def start(self) -> None:
        """Returns when the cluster serves."""

    @abc.abstractmethod
    def start_broker(self) -> None:
        """Starts the process that the broker runs in; returns when it serves."""

    @abc.abstractmethod
    def kill_broker(self) -> None:
        """SIGKILL to the process that the broker runs in."""

    def stop(self) -> None:
        """An orderly end, the broker first; fails when a process does not end as it should."""
        for process in reversed(self.processes.values()):
            process.stop(expected_exit_code=self.exit_code)


class AllInOne(Deployment):
    """`apogeemq up`: a name server and a broker in one process, which a kill ends together."""

    _ready: Ready | None = None

    @property
    def namesrv(self) -> str:
        return self._address("namesrv.remoting")

    @property
    def broker(self) -> str:
        return self._address("broker.remoting")

    def start(self) -> None:
        settings = {f"broker.{key}": value for key, value in self.settings.items()}
        settings |= fixed_ports(self._ready) if self._ready else {}
        process = start_all_in_one(
            self.data, log_directory=self.log_directory, settings=settings, ports=None if self._ready else "free"
        )
        self.processes["up"] = process
        self._ready = process.wait_ready()

    def start_broker(self) -> None:
        self.start()

    def kill_broker(self) -> None:
        self.processes["up"].kill()

    def _address(self, listener: str) -> str:
        assert self._ready is not None, "not started yet"
        return self._ready.listeners[listener]


class Wheels(Deployment):
    """apogeemq-namesrv and apogeemq-broker from their wheels, each a process of its own."""

    def __init__(self, directory: pathlib.Path, settings: Mapping[str, str]) -> None:
        super().__init__(directory, settings)
        self._ready: dict[str, Ready] = {}

    @property
    def namesrv(self) -> str:
        return self._ready["namesrv"].listeners["remoting"]

    @property
    def broker(self) -> str:
        return self._ready["broker"].listeners["remoting"]

    def start(self) -> None:
        self._start_service("namesrv", {})
        self.start_broker()

    def start_broker(self) -> None:
        properties = {
            "brokerName": BROKER_NAME,
            # Services of the mesh find each other by their mesh endpoints; only clients use the Remoting one.
            "namesrvAddr": self._ready["namesrv"].listeners["mesh"],
            "storePathRootDir": str(self.data / "broker"),
        }
        self._start_service("broker", properties | self.settings)

    def kill_broker(self) -> None:
        self.processes["broker"].kill()

    def _start_service(self, service: str, properties: Mapping[str, str]) -> None:
        process = start_service(
            service,
            config=write_properties(self.data / f"{service}.properties", properties),
            settings=fixed_ports(self._ready[service]) if service in self._ready else ANY_PORT,
            log_directory=self.log_directory,
            environment=wheels.environment("apogeemq-namesrv", "apogeemq-broker"),
        )
        self.processes[service] = process
        self._ready[service] = process.wait_ready()


class Apache(Deployment):
    """Apache RocketMQ's name server and broker from Maven: the scenarios must hold there, or a scenario is wrong."""

    exit_code = 143  # a JVM ends with 128 + 15 after its shutdown hooks

    def __init__(self, directory: pathlib.Path, settings: Mapping[str, str]) -> None:
        super().__init__(directory, settings)
        self._class_path = build.apache_server(APACHE_VERSION)
        self._java = build.java_command()
        self._namesrv_port, self._broker_port, self._ha_port = free_ports()

    @property
    def namesrv(self) -> str:
        return f"127.0.0.1:{self._namesrv_port}"

    @property
    def broker(self) -> str:
        return f"127.0.0.1:{self._broker_port}"

    def start(self) -> None:
        properties = {"listenPort": str(self._namesrv_port), "bindAddress": "127.0.0.1"}
        self._start("namesrv", "org.apache.rocketmq.namesrv.NamesrvStartup", properties)
        self.start_broker()

    def start_broker(self) -> None:
        store = self.data / "broker"
        properties = {
            "brokerName": BROKER_NAME,
            "brokerClusterName": "DefaultCluster",
            "brokerId": "0",
            "namesrvAddr": self.namesrv,
            "brokerIP1": "127.0.0.1",
            "bindAddress": "127.0.0.1",
            "listenPort": str(self._broker_port),
            "haListenPort": str(self._ha_port),
            "storePathRootDir": str(store),
            "storePathCommitLog": str(store / "commitlog"),
            "mappedFileSizeCommitLog": str(128 * 1024 * 1024),
            "flushConsumerOffsetInterval": "1000",
            # On a busy machine it would turn sends away that waited longer than 200 ms, and drop oneway ones.
            "waitTimeMillsInSendQueue": "10000",
            "osPageCacheBusyTimeOutMills": "10000",
        }
        self._start("broker", "org.apache.rocketmq.broker.BrokerStartup", properties | self.settings)

    def kill_broker(self) -> None:
        self.processes["broker"].kill()

    def _start(self, name: str, main_class: str, properties: Mapping[str, str]) -> None:
        config = write_properties(self.data / f"{name}.properties", properties)
        options = [
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:MaxDirectMemorySize=512m",
            f"-Duser.home={self.data}",
            f"-Drmq.logback.configurationFile={build.HERE / 'apache' / 'logback.xml'}",
        ]
        process = ManagedProcess(
            name,
            [self._java, *options, "-cp", self._class_path, main_class, "-c", os.fspath(config)],
            log_directory=self.log_directory,
            environ={"ROCKETMQ_HOME": os.fspath(self.data)},
        )
        self.processes[name] = process
        process.wait_line(lambda line: "boot success" in line, APACHE_START_TIMEOUT_S, "that it booted")


DEPLOYMENTS: dict[str, Callable[[pathlib.Path, Mapping[str, str]], Deployment]] = {
    "all-in-one": AllInOne,
    "wheels": Wheels,
    "apache": Apache,
}
OURS = ("all-in-one", "wheels")


def write_properties(path: pathlib.Path, properties: Mapping[str, str]) -> pathlib.Path:
    """A configuration file in the form that RocketMQ users have: `key=value` lines."""
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    return path


def free_ports() -> tuple[int, int, int]:
    """Name server, broker and HA port for Apache, which can't choose itself; it also binds the broker's port - 2."""
    for _ in range(100):
        with socket.socket() as namesrv, socket.socket() as broker, socket.socket() as fast, socket.socket() as ha:
            for sock in (namesrv, broker, ha):
                sock.bind(("127.0.0.1", 0))
            port: int = broker.getsockname()[1]
            try:
                fast.bind(("127.0.0.1", port - 2))
            except OSError:
                continue
            return namesrv.getsockname()[1], port, ha.getsockname()[1]
    raise AssertionError("no two free ports with a distance of 2 in 100 tries")
