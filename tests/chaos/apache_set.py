"""A broker set of Apache RocketMQ 5.3.3 in controller mode, as processes, and what may happen to it.

```
name server ── controllers n0 n1 n2 (DLedger) ── brokers b1 b2 b3 of one set, 256 MiB of heap each
```
It is set up so that it keeps what it acknowledges, and so that nothing waits longer than ours does: see KEEPS and
PERIODS.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.route import TopicRouteData

from tests.chaos import popping, pulling
from tests.config_files import topic_config, write_config_files
from tests.e2e.process import ManagedProcess, poll_until
from tests.e2e.wire_client import WireClient
from tests.interop.deployments import is_apache_booted, start_apache, write_properties

CONTROLLERS = ("n0", "n1", "n2")
BROKERS = ("b1", "b2", "b3")
HEAP_MIB = 256
STOPPED = 143
"""A JVM ends with 128 + 15 after its shutdown hooks."""
START_S = 60.0
STOP_S = 40.0
WHOLE_S = 60.0
ASK_S = 2.0
LEASE_S = 3

KEEPS = {
    "enableControllerMode": "true",
    "allAckInSyncStateSet": "true",
    "inSyncReplicas": "2",
    "minInSyncReplicas": "2",
    "flushDiskType": "ASYNC_FLUSH",
}
"""An acknowledgement means that all of the SyncStateSet have the message, and that these are two at least."""
PERIODS = {
    "controllerHeartBeatTimeoutMills": str(LEASE_S * 1000),
    "haMaxTimeSlaveNotCatchup": str(LEASE_S * 1000),
    "syncBrokerMetadataPeriod": "1000",
    "checkSyncStateSetPeriod": "1000",
    "syncControllerMetadataPeriod": "1000",
    "registerNameServerPeriod": "10000",
}
"""Shorter than Apache's defaults (10 s, 15 s, 5 s, 5 s, 10 s, 30 s), by the lease of 3 s that our sets have."""
CONTROLLER_PERIODS = {"scanNotActiveBrokerInterval": "1000", "scanInactiveMasterInterval": "1000"}
"""Likewise (5 s)."""
SMALL = {
    "mappedFileSizeCommitLog": str(16 << 20),
    "mappedFileSizeConsumeQueue": "600000",
    "mappedFileSizeTimerLog": str(8 << 20),
    "maxHashSlotNum": "50000",
    "maxIndexNum": "200000",
}
PATIENT = {
    # On a busy machine it would turn sends away that waited longer than 200 ms.
    "waitTimeMillsInSendQueue": "10000",
    "osPageCacheBusyTimeOutMills": "10000",
}


class ApacheSetDeployment:
    """All of it. Processes keep their ports and directories over a restart, as machines do.

    Args:
        directory: must not hold a set's data yet.
        defaults: leaves PERIODS and CONTROLLER_PERIODS as Apache has them.
    """

    def __init__(self, directory: pathlib.Path, *, defaults: bool = False) -> None:
        self._directory = directory
        self._defaults = defaults
        self._processes: dict[str, ManagedProcess] = {}
        self._ports = dict(zip(("namesrv", *CONTROLLERS, *BROKERS), free_ports(7), strict=True))

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self._kill_all)
            for name in BROKERS:
                write_config_files(self._directory / name / "config", [topic_config(pulling.TOPIC)])
            self.start_all()
            stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._kill_all()

    # -- processes -----------------------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Everything, the brokers when the others listen."""
        self.start_namesrv()
        for name in CONTROLLERS:
            self.start_controller(name)
        for name in ("namesrv", *CONTROLLERS):
            self._processes[name].wait_line(is_apache_booted, START_S, "that it booted")
        for name in BROKERS:
            self.start_broker(name)

    def restart(self) -> None:
        """Everything anew, with SIGKILL, on the same data."""
        self._kill_all()
        self.start_all()

    def start_namesrv(self) -> None:
        """Start the name server; does not wait until it listens."""
        properties = {"listenPort": str(self._ports["namesrv"]), "bindAddress": "127.0.0.1"}
        self._start("namesrv", "org.apache.rocketmq.namesrv.NamesrvStartup", properties)

    def start_controller(self, name: str) -> None:
        """Start one; does not wait until it listens."""
        properties = {
            "controllerType": "DLedger",
            "controllerDLegerGroup": "controllers",
            "controllerDLegerPeers": ";".join(f"{each}-127.0.0.1:{self._ports[each]}" for each in CONTROLLERS),
            "controllerDLegerSelfId": name,
            "controllerStorePath": str(self._directory / name),
            "mappedFileSize": str(16 << 20),
            "enableElectUncleanMaster": "false",
            "notifyBrokerRoleChanged": "true",
            **({} if self._defaults else CONTROLLER_PERIODS),
        }
        self._start(name, "org.apache.rocketmq.controller.ControllerStartup", properties)

    def start_broker(self, name: str) -> None:
        """Start one on its directory; does not wait until it listens."""
        port, store = self._ports[name], self._directory / name
        properties = {
            "brokerClusterName": "DefaultCluster",
            "brokerName": popping.BROKER_NAME,
            "namesrvAddr": self.namesrv,
            "controllerAddr": ";".join(self._address(each) for each in CONTROLLERS),
            "brokerIP1": "127.0.0.1",
            "brokerIP2": "127.0.0.1",
            "bindAddress": "127.0.0.1",
            "listenPort": str(port),
            "haListenPort": str(port + 1),
            "storePathRootDir": str(store),
            "storePathCommitLog": str(store / "commitlog"),
            "storePathEpochFile": str(store / "epochFileCheckpoint"),
            **KEEPS,
            **({} if self._defaults else PERIODS),
            **SMALL,
            **PATIENT,
        }
        self._start(name, "org.apache.rocketmq.broker.BrokerStartup", properties)

    def _start(self, name: str, main_class: str, properties: Mapping[str, str]) -> None:
        home = self._directory / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        config = write_properties(home / "server.properties", properties)
        self._processes[name] = start_apache(
            name,
            main_class,
            ["-c", os.fspath(config)],
            home=home,
            log_directory=self._directory / "logs",
            heap_mib=HEAP_MIB,
        )

    def _kill_all(self) -> None:
        for process in self._processes.values():
            process.kill()

    def process(self, name: str) -> ManagedProcess:
        """A broker's, a controller's, or the name server's."""
        return self._processes[name]

    # -- what is so now ------------------------------------------------------------------------------------------------

    @property
    def namesrv(self) -> str:
        """Where clients ask for routes."""
        return self._address("namesrv")

    def routed(self) -> str:
        """Where the name server sends those who send; empty where nowhere, or where it does not answer."""
        try:
            with asking(self.namesrv) as client:
                reply = client.request(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": pulling.TOPIC})
        except OSError:
            return ""
        if reply.code != ResponseCode.SUCCESS:
            return ""
        datas = TopicRouteData.decode(reply.body).broker_datas
        return next((each.broker_addrs[0] for each in datas if 0 in each.broker_addrs), "")

    def leader(self) -> str:
        """The controller that says of itself that it leads; empty while none does."""
        for name in CONTROLLERS:
            with contextlib.suppress(OSError), asking(self._address(name)) as client:
                reply = client.request(RequestCode.CONTROLLER_GET_METADATA_INFO)
                if (reply.ext_fields or {}).get("isLeader") == "true":
                    return name
        return ""

    def replicas(self) -> Mapping[str, Any]:
        """What the leading controller tells of the set: masterAddress, inSyncReplicas …; empty where none does."""
        leader = self.leader()
        if not leader:
            return {}
        try:
            with asking(self._address(leader)) as client:
                wanted = json.dumps([popping.BROKER_NAME]).encode()
                reply = client.request(RequestCode.CONTROLLER_GET_SYNC_STATE_DATA, {}, wanted)
        except OSError:
            return {}
        if reply.code != ResponseCode.SUCCESS or not reply.body:
            return {}
        told: Mapping[str, Any] = json.loads(reply.body)["replicasInfoTable"].get(popping.BROKER_NAME, {})
        return told

    def master(self) -> str:
        """The name of the master."""
        address = self.routed()
        return next(name for name in BROKERS if self._address(name) == address)

    def whole(self, timeout_s: float = WHOLE_S) -> None:
        """Wait for a master, all brokers in the SyncStateSet, and the master in the name server's route.

        Raises AssertionError when that is not so in time.
        """
        seen: list[str] = []

        def look() -> bool:
            told, routed = self.replicas(), self.routed()
            # Controllers keep a killed broker in the set until its master tells otherwise: it must live as well.
            in_sync = [each for each in told.get("inSyncReplicas", []) if each.get("alive")]
            seen[:] = [f"{told}, and the route leads to {routed or 'nobody'}"]
            return len(in_sync) == len(BROKERS) and bool(routed) and told.get("masterAddress") == routed

        poll_until(look, timeout_s, lambda: AssertionError(f"not whole within {timeout_s:g} s: {seen}"))

    def _address(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"


@contextlib.contextmanager
def asking(address: str) -> Iterator[WireClient]:
    """A connection that waits ASK_S for each answer; a frozen process gives none."""
    with WireClient(address) as client:
        client.socket.settimeout(ASK_S)
        yield client


def free_ports(count: int) -> list[int]:
    """So many ports that nobody has, the one below and the one above each of them neither.

    They lie below those that systems give to connections, so that nobody takes one while its process is dead.
    """
    found: list[int] = []
    for candidate in random.sample(range(20_001, 32_000, 3), 1000):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in (candidate - 1, candidate, candidate + 1, candidate - 2):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            found.append(candidate)
        if len(found) == count:
            return found
    raise AssertionError(f"no {count} groups of free ports among 1000")


# -- faults ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def master_stopped(deployment: ApacheSetDeployment) -> Iterator[None]:
    """SIGTERM to the master."""
    name = deployment.master()
    deployment.process(name).stop(STOP_S, expected_exit_code=STOPPED)
    yield
    deployment.start_broker(name)


@contextlib.contextmanager
def controller_killed(deployment: ApacheSetDeployment) -> Iterator[None]:
    """SIGKILL to the leading controller."""
    with _controllers_killed(deployment, 1):
        yield


@contextlib.contextmanager
def controllers_majority_killed(deployment: ApacheSetDeployment) -> Iterator[None]:
    """SIGKILL to the leading controller and another: nothing of the set can change."""
    with _controllers_killed(deployment, 2):
        yield


@contextlib.contextmanager
def controller_and_master_killed(deployment: ApacheSetDeployment) -> Iterator[None]:
    """Both at once: nobody is elected before another controller leads."""
    names = [deployment.master()]
    with controller_killed(deployment), _killed(deployment, names):
        yield


@contextlib.contextmanager
def namesrv_killed(deployment: ApacheSetDeployment) -> Iterator[None]:
    """SIGKILL to the name server."""
    deployment.process("namesrv").kill()
    yield
    deployment.start_namesrv()


@contextlib.contextmanager
def master_frozen(deployment: ApacheSetDeployment) -> Iterator[None]:
    """SIGSTOP to the master, for longer than its lease; it comes back as if nothing had been."""
    with _frozen(deployment, deployment.master()):
        time.sleep(LEASE_S)
        yield


@contextlib.contextmanager
def slave_frozen(deployment: ApacheSetDeployment) -> Iterator[None]:
    """SIGSTOP to a slave."""
    with _frozen(deployment, _slaves(deployment)[0]):
        yield


def _slaves(deployment: ApacheSetDeployment) -> list[str]:
    master = deployment.master()
    return [name for name in BROKERS if name != master]


@contextlib.contextmanager
def _killed(deployment: ApacheSetDeployment, names: Sequence[str]) -> Iterator[None]:
    for name in names:
        deployment.process(name).kill()
    yield
    for name in names:
        deployment.start_broker(name)


@contextlib.contextmanager
def _controllers_killed(deployment: ApacheSetDeployment, count: int) -> Iterator[None]:
    leader = deployment.leader()
    names = sorted(CONTROLLERS, key=lambda name: name != leader)[:count]
    for name in names:
        deployment.process(name).kill()
    yield
    for name in names:
        deployment.start_controller(name)


@contextlib.contextmanager
def _frozen(deployment: ApacheSetDeployment, name: str) -> Iterator[None]:
    deployment.process(name).send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        deployment.process(name).send_signal(signal.SIGCONT)


FAULTS: dict[str, Callable[[ApacheSetDeployment], contextlib.AbstractContextManager[None]]] = {
    "master killed": lambda deployment: _killed(deployment, [deployment.master()]),
    "master frozen": master_frozen,
    "master stopped": master_stopped,
    "slave killed": lambda deployment: _killed(deployment, _slaves(deployment)[:1]),
    "slave frozen": slave_frozen,
    "master and slave killed": lambda deployment: _killed(deployment, [deployment.master(), _slaves(deployment)[0]]),
    "all brokers killed": lambda deployment: _killed(deployment, BROKERS),
    "controller killed": controller_killed,
    "controller and master killed": controller_and_master_killed,
    "controllers' majority killed": controllers_majority_killed,
    "name server killed": namesrv_killed,
}
