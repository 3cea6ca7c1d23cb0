"""The official Python gRPC client against the all-in-one and against three processes, for every change.

tests/interop/test_official_grpc.py has the longer runs, the Java client, and Apache's servers as a baseline.
"""

import contextlib
import pathlib
import re
from collections.abc import Iterator

import pytest

from tests.interop import grpc_scenarios
from tests.interop.deployments import AllInOne, Deployment, Processes
from tests.interop.grpc_clients import GrpcClient, python_client

COUNT_ALL_IN_ONE = 1_500
COUNT_PROCESSES = 500


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("official-python")


@pytest.fixture(scope="module")
def all_in_one(directory: pathlib.Path) -> Iterator[Deployment]:
    with AllInOne(directory / "all-in-one", {}) as cluster:
        yield cluster
        cluster.stop()


@pytest.fixture(scope="module")
def processes(directory: pathlib.Path) -> Iterator[Deployment]:
    with Processes(directory / "processes", {}, with_proxy=True) as cluster:
        yield cluster
        cluster.stop()


@pytest.fixture(scope="module")
def client(all_in_one: Deployment, directory: pathlib.Path) -> GrpcClient:
    return python_client(all_in_one.grpc, directory)


@pytest.fixture(scope="module")
def neglected(client: GrpcClient) -> Iterator[grpc_scenarios.Neglected]:
    """Begun with the first test, so that the invisible time passes while the others run."""
    with contextlib.ExitStack() as running:
        yield grpc_scenarios.Neglected(client, running, "Neglected")


@pytest.fixture
def running() -> Iterator[contextlib.ExitStack]:
    """What a test enters here is ended with it, whatever happens."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic name that no other test uses."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", request.node.name)[:100]


@pytest.mark.usefixtures("neglected")
def test_every_message_is_received_and_acknowledged_once(
    client: GrpcClient, running: contextlib.ExitStack, topic: str
) -> None:
    """By a simple and by a push consumer: none lost, none twice, each as it was sent."""
    print(grpc_scenarios.many_messages(client, running, topic, COUNT_ALL_IN_ONE))


def test_tags_choose_messages(client: GrpcClient, running: contextlib.ExitStack, topic: str) -> None:
    """A subscription `TagA || TagC` gets those and nothing of TagB."""
    grpc_scenarios.tags_choose(client, running, topic)


def test_a_refused_message_comes_again(client: GrpcClient, running: contextlib.ExitStack, topic: str) -> None:
    """A push consumer gets it once more, with its attempt counted."""
    grpc_scenarios.refused_once(client, running, topic)


def test_messages_cross_between_the_protocols(
    all_in_one: Deployment, client: GrpcClient, running: contextlib.ExitStack
) -> None:
    """Remoting in and gRPC out, and back."""
    grpc_scenarios.from_remoting(all_in_one, client, running, "FromRemoting")
    grpc_scenarios.to_remoting(all_in_one, client, "ToRemoting")


def test_a_neglected_message_comes_again_after_its_invisible_time(neglected: grpc_scenarios.Neglected) -> None:
    """Those that were acknowledged do not."""
    neglected.judge()


@pytest.mark.verify
def test_three_processes_hand_out_every_message_once(
    processes: Deployment, directory: pathlib.Path, running: contextlib.ExitStack, topic: str
) -> None:
    """The same, with the mesh between proxy and broker."""
    client = python_client(processes.grpc, directory)
    print(grpc_scenarios.many_messages(client, running, topic, COUNT_PROCESSES))


@pytest.mark.verify
def test_nothing_acknowledged_is_lost_by_kills(
    processes: Deployment, directory: pathlib.Path, running: contextlib.ExitStack, topic: str
) -> None:
    """SIGKILL under load to the proxy, then to the broker: clients come back within 5 s of each restart."""
    client = python_client(processes.grpc, directory)
    load = grpc_scenarios.Load(processes, client, running, topic, with_push=False)
    for kill, start in (
        (processes.kill_proxy, processes.start_proxy),
        (processes.kill_broker, processes.start_broker),
    ):
        print(f"ms from the restart to the first success: {dict(load.survive(kill, start))}")
    load.end()
