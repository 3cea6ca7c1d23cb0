"""Services as processes of their own: two name servers that know nothing of each other, two brokers, each its file.

A lost broker stays in the first name server's routes for a minute, in the second's for 300 ms: so it is seen at once
whether a route went because somebody left, or because a grace ended.
"""

import pathlib
from collections.abc import Iterator

import pytest
from apogeemq.remoting_codec.bodies import ClusterInfo
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

from tests.e2e.process import ManagedProcess, Ready, fixed_ports, poll_until, start_service
from tests.e2e.wire_client import WireClient, pull_all, route_of, send_fields

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
TOPIC = "Shared"
DEADLINE_S = 20.0
BROKERS = {"broker-a", "broker-b"}
NAMESRVS = ["namesrv-1", "namesrv-2"]
LONG_GRACE = {"registration.grace_ms": "60000"}
SHORT_GRACE = {"registration.grace_ms": "300"}
ANY_PORT = {f"listeners.{name}.port": "0" for name in ("remoting", "mesh", "http")}
ON_LOOPBACK = {f"listeners.{name}.host": "127.0.0.1" for name in ("remoting", "mesh")}

NAMESRV_2 = """\
listenPort = 0
bindAddress = 127.0.0.1
listeners.mesh.host = 127.0.0.1
listeners.mesh.port = 0
listeners.http.port = 0
serverWorkerThreads = 8
"""

BROKER_A = """\
[identity]
cluster_name = "Toml"
broker_name = "broker-a"
namesrv_addr = "{namesrvs}"

[listeners.remoting]
host = "127.0.0.1"
port = 0
[listeners.mesh]
host = "127.0.0.1"
port = 0
[listeners.http]
port = 0

[topics]
default_topic_queue_nums = 3

[store]
path = "{data}"
"""

# As Apache's stock broker.conf, and what people add to it. The last four have no effect here and are no error.
BROKER_B = """\
brokerClusterName = Properties
brokerName = broker-b
brokerId = 0
namesrvAddr = {namesrvs}
brokerIP1 = 127.0.0.1
listenPort = 0
bindAddress = 127.0.0.1
listeners.mesh.host = 127.0.0.1
listeners.mesh.port = 0
listeners.http.port = 0
storePathRootDir = {data}
flushDiskType = ASYNC_FLUSH
defaultTopicQueueNums = 5
deleteWhen = 04
fileReservedTime = 48
brokerRole = ASYNC_MASTER
fetchNamesrvAddrByAddressServer = false
"""


class Cluster:
    """The four processes by name; what is started again has the ports that it had before."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._configs: dict[str, pathlib.Path] = {}
        self._ready: dict[str, Ready] = {}
        self._processes: dict[str, ManagedProcess] = {}

    def __getitem__(self, name: str) -> ManagedProcess:
        return self._processes[name]

    def address(self, name: str, listener: str = "remoting") -> str:
        return self._ready[name].listeners[listener]

    def begin(self) -> None:
        """Start all four."""
        self._configs["namesrv-1"] = DEPLOY / "namesrv.toml"
        self.start("namesrv-1", **ON_LOOPBACK, **ANY_PORT, **LONG_GRACE)
        self._configure("namesrv-2.properties", NAMESRV_2)
        self.start("namesrv-2", **SHORT_GRACE)
        namesrvs = ";".join(self.address(namesrv, "mesh") for namesrv in NAMESRVS)
        self._configure("broker-a.toml", BROKER_A.format(namesrvs=namesrvs, data=self._directory / "a"))
        self.start("broker-a")
        self._configure("broker-b.properties", BROKER_B.format(namesrvs=namesrvs, data=self._directory / "b"))
        self.start("broker-b")

    def start(self, name: str, **settings: str) -> None:
        """Start one, the first time or again."""
        if name in self._ready:
            settings |= fixed_ports(self._ready[name])
        process = start_service(
            name.partition("-")[0],
            config=self._configs[name],
            settings=settings,
            log_directory=self._directory / "logs",
            name=name,
        )
        self._processes[name] = process
        self._ready[name] = process.wait_ready()

    def stop(self) -> None:
        """An orderly end of all, brokers first."""
        for process in reversed(self._processes.values()):
            process.stop()

    def end(self) -> None:
        """Kill what still runs."""
        for process in self._processes.values():
            process.kill()

    def _configure(self, file_name: str, text: str) -> None:
        file = self._directory / file_name
        file.write_text(text)
        self._configs[file.stem] = file

    def brokers_of(self, namesrv: str) -> set[str]:
        """Names of the brokers that a name server routes TOPIC to."""
        route = route_of(self.address(namesrv), TOPIC)
        return set() if route is None else {data.broker_name for data in route.broker_datas}

    def wait_routes(self, namesrv: str, brokers: set[str]) -> None:
        """Wait until a name server routes TOPIC to just these brokers."""
        poll_until(
            lambda: self.brokers_of(namesrv) == brokers,
            DEADLINE_S,
            lambda: self[namesrv].failure(f"routes to {self.brokers_of(namesrv)}, not to {brokers}"),
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """All four, with TOPIC on both brokers. Each test leaves it as it found it."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.begin()
        for broker in BROKERS:
            with WireClient(cluster.address(broker)) as client:
                sent = client.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC, d="8"), broker.encode())
                assert sent.code == ResponseCode.SUCCESS
        for namesrv in NAMESRVS:
            cluster.wait_routes(namesrv, BROKERS)
        yield cluster
        cluster.stop()
    finally:
        cluster.end()


@pytest.mark.parametrize("namesrv", NAMESRVS)
def test_each_name_server_routes_to_all_brokers(cluster: Cluster, namesrv: str) -> None:
    """The route has each broker's address for id 0, and its queues as its own file says: 3 by TOML, 5 by properties."""
    route = route_of(cluster.address(namesrv), TOPIC)
    assert route is not None
    addresses = {data.broker_name: data.broker_addrs for data in route.broker_datas}
    assert addresses == {broker: {0: cluster.address(broker)} for broker in BROKERS}
    queues = {data.broker_name: data.write_queue_nums for data in route.queue_datas}
    assert queues == {"broker-a": 3, "broker-b": 5}


def test_clusters_are_those_of_the_files(cluster: Cluster) -> None:
    """Cluster and broker names come from the files, whichever form they have."""
    with WireClient(cluster.address("namesrv-1")) as client:
        body = client.request(RequestCode.GET_BROKER_CLUSTER_INFO).body
    assert ClusterInfo.decode(body).cluster_addr_table == {"Toml": ["broker-a"], "Properties": ["broker-b"]}


def test_properties_without_effect_are_told(cluster: Cluster) -> None:
    """An official broker.conf loads; the log names what is not heeded, with its line."""
    ignored = [line for line in cluster["broker-b"].log.splitlines() if "setting without effect here: " in line]
    names = ("fetchNamesrvAddrByAddressServer",)
    assert [line.partition("here: ")[2].partition(" ")[0] for line in ignored] == list(names)


def test_brokers_register_again_with_a_name_server_that_was_killed(cluster: Cluster) -> None:
    """While it is away the other one routes; once it is back it has all routes, though it keeps nothing on disk."""
    cluster["namesrv-1"].kill()
    assert cluster.brokers_of("namesrv-2") == BROKERS
    with WireClient(cluster.address("broker-a")) as client:
        assert client.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), b"meanwhile").code == 0
    cluster.start("namesrv-1", **LONG_GRACE)
    cluster.wait_routes("namesrv-1", BROKERS)


def test_a_broker_that_stops_in_order_leaves_the_routes_at_once(cluster: Cluster) -> None:
    """When its process has ended, no name server routes to it, whatever grace it gives to lost ones."""
    cluster["broker-b"].stop()
    assert cluster.brokers_of("namesrv-1") == {"broker-a"}
    assert cluster.brokers_of("namesrv-2") == {"broker-a"}
    cluster.start("broker-b")
    for namesrv in NAMESRVS:
        cluster.wait_routes(namesrv, BROKERS)


def test_a_broker_that_is_killed_leaves_the_routes_after_the_grace(cluster: Cluster) -> None:
    """Gone where the grace is short and still there where it is long; started again it is found, with its messages."""
    with WireClient(cluster.address("broker-a")) as client:
        before = pull_all(client, TOPIC, "G_shared")
    cluster["broker-a"].kill()
    cluster.wait_routes("namesrv-2", {"broker-b"})
    assert cluster.brokers_of("namesrv-1") == BROKERS
    cluster.start("broker-a")
    for namesrv in NAMESRVS:
        cluster.wait_routes(namesrv, BROKERS)
    with WireClient(cluster.address("broker-a")) as client:
        assert pull_all(client, TOPIC, "G_shared") == before


def test_a_broker_serves_with_no_name_server_left(cluster: Cluster) -> None:
    """Clients that know the broker go on; name servers that come back learn of the topics made since."""
    for namesrv in NAMESRVS:
        cluster[namesrv].kill()
    with WireClient(cluster.address("broker-a")) as client:
        assert client.request(RequestCode.SEND_MESSAGE_V2, send_fields("Alone"), b"x").code == ResponseCode.SUCCESS
    cluster.start("namesrv-1", **LONG_GRACE)
    cluster.start("namesrv-2", **SHORT_GRACE)
    for namesrv in NAMESRVS:
        cluster.wait_routes(namesrv, BROKERS)
        assert route_of(cluster.address(namesrv), "Alone") is not None
