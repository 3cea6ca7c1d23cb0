"""What the scenarios run against: ApogeeMQ in one process or in several, or Apache's own servers (a baseline).

Each has a name server, one broker called broker-a, its data in a directory of the test's, and ports that nobody else
has; a proxy for gRPC clients too where it is asked for. Broker and proxy can be killed and started again under the same
addresses and on the same data.
"""

import abc
import json
import os
import pathlib
import socket
import types
from collections.abc import Mapping
from typing import Self

from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

from tests.e2e.process import (
    ManagedProcess,
    Ready,
    console_script,
    fixed_ports,
    free_port,
    poll_until,
    set_options,
    start_all_in_one,
    start_service,
)
from tests.e2e.wire_client import WireClient, route_of
from tests.interop import build, wheels

BROKER_NAME = "broker-a"
APACHE_VERSION = "5.3.3"
APACHE_START_TIMEOUT_S = 60.0
LISTENERS = {
    "namesrv": ("remoting", "mesh", "http"),
    "broker": ("remoting", "mesh", "http"),
    "proxy": ("remoting", "grpc", "http"),
}
ANY_PORT = {service: {f"listeners.{name}.port": "0" for name in names} for service, names in LISTENERS.items()}


class Deployment(abc.ABC):
    """A cluster; `settings` are broker settings under the official names, such as autoCreateTopicEnable.

    `with_proxy` asks for a proxy as well; the all-in-one always has one. `proxy_settings` are ours, such as
    listeners.grpc.tls.mode; Apache's proxy takes TLS and plain text as it is, and none of them.

    As a context manager it is started on entering, and killed on leaving where it still runs. Whatever is started again
    gets the addresses and the data that it had before.
    """

    exit_code = 0
    """How its processes end on SIGTERM."""

    def __init__(
        self,
        directory: pathlib.Path,
        settings: Mapping[str, str],
        *,
        with_proxy: bool = False,
        proxy_settings: Mapping[str, str] = types.MappingProxyType({}),
    ) -> None:
        self.with_proxy = with_proxy
        self.proxy_settings = dict(proxy_settings)
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

    @property
    @abc.abstractmethod
    def grpc(self) -> str:
        """The proxy's gRPC address, "host:port"."""

    def make_topic(self, topic: str) -> None:  # noqa: B027 — not to be implemented where the proxy does it
        """Makes a topic that gRPC clients may use, where asking for its route does not make it."""

    @abc.abstractmethod
    def start(self) -> None:
        """Returns when the cluster serves."""

    @abc.abstractmethod
    def start_broker(self) -> None:
        """Starts the process that the broker runs in; returns when it serves."""

    @abc.abstractmethod
    def kill_broker(self) -> None:
        """SIGKILL to the process that the broker runs in."""

    @abc.abstractmethod
    def start_proxy(self) -> None:
        """Starts the process that the proxy runs in; returns when it serves."""

    @abc.abstractmethod
    def kill_proxy(self) -> None:
        """SIGKILL to the process that the proxy runs in."""

    def stop(self) -> None:
        """An orderly end, what was started last first; fails when a process does not end as it should."""
        for process in reversed(self.processes.values()):
            process.stop(expected_exit_code=self.exit_code)


class AllInOne(Deployment):
    """`apogeemq up`: name server, broker and proxy in one process, which a kill ends together."""

    _ready: Ready | None = None

    @property
    def namesrv(self) -> str:
        return self._address("namesrv.remoting")

    @property
    def broker(self) -> str:
        return self._address("broker.remoting")

    @property
    def grpc(self) -> str:
        return self._address("proxy.grpc")

    def start(self) -> None:
        settings = {f"broker.{key}": value for key, value in self.settings.items()}
        settings |= {f"proxy.{key}": value for key, value in self.proxy_settings.items()}
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

    def start_proxy(self) -> None:
        self.start()

    def kill_proxy(self) -> None:
        self.processes["up"].kill()

    def _address(self, listener: str) -> str:
        assert self._ready is not None, "not started yet"
        return self._ready.listeners[listener]


class Processes(Deployment):
    """apogeemq-namesrv, apogeemq-broker and apogeemq-proxy of the tests' environment, each a process of its own."""

    def __init__(
        self,
        directory: pathlib.Path,
        settings: Mapping[str, str],
        *,
        with_proxy: bool = False,
        proxy_settings: Mapping[str, str] = types.MappingProxyType({}),
    ) -> None:
        super().__init__(directory, settings, with_proxy=with_proxy, proxy_settings=proxy_settings)
        self._ready: dict[str, Ready] = {}

    @property
    def namesrv(self) -> str:
        return self._ready["namesrv"].listeners["remoting"]

    @property
    def broker(self) -> str:
        return self._ready["broker"].listeners["remoting"]

    @property
    def grpc(self) -> str:
        return self._ready["proxy"].listeners["grpc"]

    def environment(self) -> pathlib.Path | None:
        """The virtual environment with the commands; None for that of the tests."""
        return None

    def start(self) -> None:
        self._start_service("namesrv", {})
        self.start_broker()
        if self.with_proxy:
            self.start_proxy()

    def start_broker(self) -> None:
        properties = {
            "brokerName": BROKER_NAME,
            "namesrvAddr": self._namesrv_mesh,
            "storePathRootDir": str(self.data / "broker"),
        }
        self._start_service("broker", properties | self.settings)

    def kill_broker(self) -> None:
        self.processes["broker"].kill()

    def start_proxy(self) -> None:
        settings = {"identity.namesrv_addr": self._namesrv_mesh, "topics.auto_create": "true", **self.proxy_settings}
        command = os.fspath(console_script("apogeemq-proxy", self.environment()))
        argv = [command, *set_options(settings | self._ports("proxy"))]
        self._adopt("proxy", ManagedProcess("proxy", argv, log_directory=self.log_directory))

    def kill_proxy(self) -> None:
        self.processes["proxy"].kill()

    @property
    def _namesrv_mesh(self) -> str:
        # Services of the mesh find each other by their mesh endpoints; only clients use the Remoting one.
        return self._ready["namesrv"].listeners["mesh"]

    def _ports(self, service: str) -> dict[str, str]:
        """Those that it had before, else any."""
        if service in self._ready:
            return fixed_ports(self._ready[service])
        return ANY_PORT[service]

    def _start_service(self, service: str, properties: Mapping[str, str]) -> None:
        process = start_service(
            service,
            config=write_properties(self.data / f"{service}.properties", properties),
            settings=self._ports(service),
            log_directory=self.log_directory,
            environment=self.environment(),
        )
        self._adopt(service, process)

    def _adopt(self, service: str, process: ManagedProcess) -> None:
        self.processes[service] = process
        self._ready[service] = process.wait_ready()


class Wheels(Processes):
    """The same processes from freshly built wheels, in an environment that has nothing else of ours."""

    def environment(self) -> pathlib.Path:
        return wheels.environment("apogeemq-namesrv", "apogeemq-broker", "apogeemq-proxy")


class Apache(Deployment):
    """Apache RocketMQ's own servers from Maven: the scenarios must hold there, or a scenario is wrong."""

    exit_code = 143  # a JVM ends with 128 + 15 after its shutdown hooks

    def __init__(
        self,
        directory: pathlib.Path,
        settings: Mapping[str, str],
        *,
        with_proxy: bool = False,
        proxy_settings: Mapping[str, str] = types.MappingProxyType({}),
    ) -> None:
        super().__init__(directory, settings, with_proxy=with_proxy, proxy_settings=proxy_settings)
        self._namesrv_port, self._broker_port, self._ha_port = free_ports()
        self._grpc_port, self._proxy_remoting_port = free_port(), free_port()

    @property
    def namesrv(self) -> str:
        return f"127.0.0.1:{self._namesrv_port}"

    @property
    def broker(self) -> str:
        return f"127.0.0.1:{self._broker_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self._grpc_port}"

    def make_topic(self, topic: str) -> None:
        fields = {
            "topic": topic,
            "defaultTopic": "TBW102",
            "readQueueNums": "8",
            "writeQueueNums": "8",
            "perm": "6",
            "topicFilterType": "SINGLE_TAG",
            "topicSysFlag": "0",
            "order": "false",
            "attributes": "+message.type=NORMAL",
        }
        with WireClient(self.broker) as client:
            reply = client.request(RequestCode.UPDATE_AND_CREATE_TOPIC, fields)
        assert reply.code == ResponseCode.SUCCESS, reply

    def start(self) -> None:
        properties = {"listenPort": str(self._namesrv_port), "bindAddress": "127.0.0.1"}
        config = write_properties(self.data / "namesrv.properties", properties)
        self._start("namesrv", "org.apache.rocketmq.namesrv.NamesrvStartup", ["-c", os.fspath(config)])
        self.start_broker()
        # Its port is open a moment before the name server knows it: a first client would find no route of any topic,
        # and a proxy would give up.
        poll_until(
            lambda: route_of(self.namesrv, "DefaultCluster") is not None,
            APACHE_START_TIMEOUT_S,
            lambda: self.processes["broker"].failure("is not registered"),
        )
        if self.with_proxy:
            self.start_proxy()

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
            "traceTopicEnable": "true",  # ours has that topic always
            # On a busy machine it would turn sends away that waited longer than 200 ms, and drop oneway ones.
            "waitTimeMillsInSendQueue": "10000",
            "osPageCacheBusyTimeOutMills": "10000",
        }
        config = write_properties(self.data / "broker.properties", properties | self.settings)
        self._start("broker", "org.apache.rocketmq.broker.BrokerStartup", ["-c", os.fspath(config)])

    def kill_broker(self) -> None:
        self.processes["broker"].kill()

    def start_proxy(self) -> None:
        config = self.data / "proxy.json"
        settings = {
            "rocketMQClusterName": "DefaultCluster",
            "grpcServerPort": self._grpc_port,
            "remotingListenPort": self._proxy_remoting_port,
            "enableGrpcEpoll": False,
        }
        config.write_text(json.dumps(settings))
        arguments = ["-pm", "cluster", "-n", self.namesrv, "-pc", os.fspath(config)]
        self._start("proxy", "org.apache.rocketmq.proxy.ProxyStartup", arguments)

    def kill_proxy(self) -> None:
        self.processes["proxy"].kill()

    def _start(self, name: str, main_class: str, arguments: list[str]) -> None:
        process = start_apache(name, main_class, arguments, home=self.data, log_directory=self.log_directory)
        self.processes[name] = process
        process.wait_line(is_apache_booted, APACHE_START_TIMEOUT_S, "that it booted")


def start_apache(
    name: str,
    main_class: str,
    arguments: list[str],
    *,
    home: pathlib.Path,
    log_directory: pathlib.Path,
    heap_mib: int = 512,
) -> ManagedProcess:
    """A process of Apache's servers; what it writes beside its store goes below `home`."""
    options = [
        f"-Xmx{heap_mib}m",
        "-XX:+UseSerialGC",
        "-XX:MaxDirectMemorySize=512m",
        f"-Duser.home={home}",
        f"-Drmq.logback.configurationFile={build.HERE / 'apache' / 'logback.xml'}",
    ]
    return ManagedProcess(
        name,
        [build.java_command(), *options, "-cp", build.apache_server(APACHE_VERSION), main_class, *arguments],
        log_directory=log_directory,
        environ={"ROCKETMQ_HOME": os.fspath(home)},
    )


def is_apache_booted(line: str) -> bool:
    """What name server, broker and proxy print in this order when they serve."""
    return "boot success" in line or "rocketmq-proxy startup successfully" in line


DEPLOYMENTS: dict[str, type[Deployment]] = {
    "all-in-one": AllInOne,
    "processes": Processes,
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
