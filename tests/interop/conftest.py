"""Which clients and which servers the interop scenarios run with.

pytest -m verify tests/interop                                   every client version all-in-one, the newest with wheels
pytest -m verify tests/interop --deployment apache               the same scenarios against Apache's servers
pytest -m verify tests/interop --java-client 4.9.8 --deployment all-in-one -k long_poll
pytest -m verify tests/interop/test_official_grpc.py --grpc-client java --deployment apache
"""

import contextlib
import itertools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.interop import build, grpc_clients, java, java_codec
from tests.interop.deployments import DEPLOYMENTS, OURS, Deployment
from tests.interop.operator_client import Operator

NewClient = Callable[[Deployment], java.JavaClient]
NewGrpcClient = Callable[[Deployment], grpc_clients.GrpcClient]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deployment", action="append", choices=list(DEPLOYMENTS), help="default: all-in-one and wheels")
    parser.addoption("--java-client", action="append", choices=java.VERSIONS, help="default: each")
    parser.addoption("--grpc-client", action="append", choices=grpc_clients.LANGUAGES, help="default: each")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # The default covers a run of the whole tree: this file is then read too late for its options to exist.
    asked_kinds = metafunc.config.getoption("--deployment", default=None)
    asked_versions = metafunc.config.getoption("--java-client", default=None)
    kinds = asked_kinds or (OURS[:1] if "one_deployment" in metafunc.fixturenames else OURS)
    if "only_ours" in metafunc.fixturenames:
        kinds = [kind for kind in kinds if kind != "apache"]
    versions = asked_versions or java.VERSIONS
    if "since_5" in metafunc.fixturenames:
        versions = [version for version in versions if version.startswith("5.")]
    if "not_5_3_3" in metafunc.fixturenames:
        versions = [version for version in versions if version != "5.3.3"]
    if "only_newest" in metafunc.fixturenames:
        versions = versions[:1]
    has_kind, has_version = ("deployment_kind" in metafunc.fixturenames, "java_version" in metafunc.fixturenames)
    if has_kind and has_version:
        pairs = list(itertools.product(kinds, versions))
        if not asked_kinds and not asked_versions:
            pairs = [pair for pair in pairs if pair[0] == "all-in-one" or pair[1] == versions[0]]
        metafunc.parametrize(("deployment_kind", "java_version"), pairs, scope="module")
    elif has_kind:
        metafunc.parametrize("deployment_kind", kinds, scope="module")
    elif has_version:
        metafunc.parametrize("java_version", versions, scope="module")
    if "grpc_language" in metafunc.fixturenames:
        languages = metafunc.config.getoption("--grpc-client", default=None) or grpc_clients.LANGUAGES
        metafunc.parametrize("grpc_language", languages, scope="module")


@pytest.fixture(scope="session")
def java_command() -> str:
    """Skips, with the reason, on a machine without Java; a Java that does not work fails the tests."""
    try:
        return build.java_command()
    except build.JavaMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def deployment(
    request: pytest.FixtureRequest, java_command: str, deployment_kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A cluster that the tests of a module share, each with topics and groups of its own.

    Its broker has the module's SETTINGS, where there are some.
    """
    settings: Mapping[str, str] = getattr(request.module, "SETTINGS", {})
    with DEPLOYMENTS[deployment_kind](tmp_path_factory.mktemp(deployment_kind), settings) as started:
        yield started


@pytest.fixture
def operator(deployment: Deployment) -> Iterator[Operator]:
    """A connection to the shared broker."""
    with Operator(deployment.broker) as connected:
        yield connected


@pytest.fixture(scope="module")
def grpc_deployment(
    java_command: str, deployment_kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """The same with a proxy."""
    with DEPLOYMENTS[deployment_kind](tmp_path_factory.mktemp(deployment_kind), {}, with_proxy=True) as started:
        yield started


@pytest.fixture
def new_client(java_command: str, java_version: str, tmp_path: pathlib.Path) -> NewClient:
    """Makes the official client in one version for a cluster."""
    driver = build.java_driver(java_version)
    return lambda cluster: java.JavaClient(java_command, driver, cluster.namesrv, tmp_path)


@pytest.fixture
def client(deployment: Deployment, new_client: NewClient) -> java.JavaClient:
    """The official client in one version, pointed at the shared cluster."""
    return new_client(deployment)


@pytest.fixture(params=java_codec.VERSIONS)
def apache_codec(request: pytest.FixtureRequest, java_command: str, tmp_path: pathlib.Path) -> java_codec.JavaCodec:
    """Apache's own codec, request signing and SQL92 filter in one version."""
    version: str = request.param
    return java_codec.JavaCodec(version, java_command, build.java_codec_driver(version), tmp_path)


@pytest.fixture
def new_grpc_client(java_command: str, grpc_language: str, tmp_path: pathlib.Path) -> NewGrpcClient:
    """Makes an official gRPC client for a cluster."""
    if grpc_language == "java":
        return lambda cluster: grpc_clients.java_client(java_command, cluster.grpc, tmp_path)
    return lambda cluster: grpc_clients.python_client(cluster.grpc, tmp_path)


@pytest.fixture
def grpc_client(grpc_deployment: Deployment, new_grpc_client: NewGrpcClient) -> grpc_clients.GrpcClient:
    """An official gRPC client, pointed at the shared cluster."""
    return new_grpc_client(grpc_deployment)


@pytest.fixture
def only_ours() -> None:
    """What a test uses that is about something that Apache's servers do not have: it is not run against them."""


@pytest.fixture
def since_5() -> None:
    """What a test uses that is about something that clients of 4.9 cannot do: it is not run with them."""


@pytest.fixture
def not_5_3_3() -> None:
    """What a test uses that the client of 5.3.3 cannot do, whatever the broker; the test says what."""


@pytest.fixture
def one_deployment() -> None:
    """What a test uses that judges answers, which do not depend on how the processes are wired: one is enough."""


@pytest.fixture
def only_newest() -> None:
    """What a test uses that takes long and is about the servers more than about a client's version."""


@pytest.fixture
def running() -> Iterator[contextlib.ExitStack]:
    """What a test enters here is ended with it, whatever happens."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def group(topic: str) -> str:
    """A group that no other test of the run uses, for producers or consumers."""
    return "group_" + topic


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic name that no other test of the run uses, within RocketMQ's letters."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", request.node.name)[:100]
