"""What probes and scrapes see of real processes: HTTP, Prometheus's text, the standard gRPC health service."""

import pathlib

import grpc
import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from tests.e2e.http_client import get, metric, readiness
from tests.e2e.process import ManagedProcess, Ready, free_port, poll_until, start_service
from tests.e2e.wire_client import TIMEOUT_S, WireClient, pull_all, send_fields

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def grpc_health(target: str, check: str = "") -> int:
    """What a gRPC client gets from grpc.health.v1.Health/Check."""
    with grpc.insecure_channel(target) as channel:
        request = health_pb2.HealthCheckRequest(service=check)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S).status)


@pytest.mark.parametrize("service", ["namesrv", "broker"])
def test_a_serving_process_is_alive_and_ready(server: Ready, service: str) -> None:
    """200 for both probes; the second one tells what was checked."""
    address = server.listeners[f"{service}.http"]
    assert get(address, "/healthz") == (200, "alive\n")
    status, checks = readiness(address)
    assert status == 200
    assert checks
    assert all(check["serving"] for check in checks.values())
    assert get(address, "/nothing")[0] == 404


@pytest.mark.parametrize(
    ("service", "check"),
    [("namesrv", ""), ("broker", ""), ("broker", "store"), ("broker", "namesrv"), ("broker", "remoting")],
)
def test_grpc_health_is_serving(server: Ready, service: str, check: str) -> None:
    """Each mesh listener answers the standard health service, for the process and for its single checks."""
    assert grpc_health(server.listeners[f"{service}.mesh"], check) == SERVING


def test_grpc_health_of_an_unknown_check(server: Ready) -> None:
    """NOT_FOUND, as the service's definition says."""
    with pytest.raises(grpc.RpcError) as refused:
        grpc_health(server.listeners["broker.mesh"], "nothing")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_metrics_count_messages_by_topic(server: Ready) -> None:
    """Prometheus's own parser reads the text; what was sent and pulled is in it under Java's names and labels."""
    http = server.listeners["broker.http"]
    labels = {"cluster": "DefaultCluster", "node_type": "broker", "topic": "Counted", "is_system": "false"}
    with WireClient(server.listeners["broker.remoting"]) as client:
        for _ in range(3):
            assert client.request(RequestCode.SEND_MESSAGE_V2, send_fields("Counted"), b"x").code == 0
        records = pull_all(client, "Counted", "G_counted")
        assert metric(http, "apogeemq_connections", listener="remoting") >= 1
    assert metric(http, "rocketmq_messages_in_total", **labels) == 3
    assert metric(http, "rocketmq_messages_out_total", **labels) == 3
    assert metric(http, "rocketmq_throughput_in_total", **labels) == sum(record.size_bytes for record in records)
    sends = {"request_code": "SEND_MESSAGE_V2", "response_code": "SUCCESS"}
    assert metric(http, "apogeemq_requests_total", **sends) >= 3


def test_metrics_of_the_name_server(server: Ready) -> None:
    """The name server has its own text, with what is registered."""
    http = server.listeners["namesrv.http"]
    assert metric(http, "rocketmq_namesrv_brokers", node_type="namesrv") == 1
    assert metric(http, "rocketmq_namesrv_topics") >= 1


NAMESRV = """\
bindAddress = 127.0.0.1
listenPort = 0
listeners.mesh.host = 127.0.0.1
listeners.http.port = 0
"""

BROKER = """\
bindAddress = 127.0.0.1
listenPort = 0
listeners.mesh.host = 127.0.0.1
listeners.mesh.port = {mesh}
listeners.http.port = {http}
storePathRootDir = {store}
namesrvAddr = 127.0.0.1:{namesrv}
"""


def start_namesrv(directory: pathlib.Path, mesh_port: int) -> ManagedProcess:
    config = directory / "namesrv.properties"
    config.write_text(NAMESRV)
    settings = {"listeners.mesh.port": str(mesh_port)}
    return start_service("namesrv", config=config, settings=settings, log_directory=directory)


def test_a_broker_is_ready_while_a_name_server_knows_it(tmp_path: pathlib.Path) -> None:
    """503 with the reason while none does, at the start and later; alive, and serving who finds it, all the time."""
    namesrv_port, http_port, mesh_port = free_port(), free_port(), free_port()
    http, mesh = f"127.0.0.1:{http_port}", f"127.0.0.1:{mesh_port}"
    config = tmp_path / "broker.properties"
    config.write_text(BROKER.format(store=tmp_path / "store", namesrv=namesrv_port, http=http_port, mesh=mesh_port))

    def namesrv_check() -> dict[str, object]:
        return readiness(http)[1]["namesrv"]

    with start_service("broker", config=config, settings={}, log_directory=tmp_path) as broker:

        def wait_for(status: int) -> None:
            poll_until(lambda: readiness(http)[0] == status, 20, lambda: broker.failure(f"/readyz is not {status}"))

        poll_until(lambda: answers(http), 20, lambda: broker.failure("no answer to probes"))
        wait_for(503)
        assert not namesrv_check()["serving"]
        assert get(http, "/healthz")[0] == 200
        with start_namesrv(tmp_path, namesrv_port) as namesrv:
            ready = broker.wait_ready()
            wait_for(200)
            assert namesrv_check() == {"serving": True, "reason": f"127.0.0.1:{namesrv_port}: registered"}
            assert grpc_health(mesh) == SERVING
            namesrv.kill()
        wait_for(503)
        assert namesrv_check() == {"serving": False, "reason": f"127.0.0.1:{namesrv_port}: not reached"}
        assert (grpc_health(mesh), grpc_health(mesh, "store")) == (NOT_SERVING, SERVING)
        assert get(http, "/healthz")[0] == 200
        with WireClient(ready.listeners["remoting"]) as client:
            sent = client.request(RequestCode.SEND_MESSAGE_V2, send_fields("Alone"), b"x")
            assert sent.code == ResponseCode.SUCCESS
        broker.stop()


def answers(http: str) -> bool:
    """Whether anybody listens for probes yet."""
    try:
        return get(http, "/healthz")[0] == 200
    except OSError:
        return False
