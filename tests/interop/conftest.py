"""Which clients and which servers the interop scenarios run with.

pytest -m verify tests/interop                                   both client versions, both of our deployments
pytest -m verify tests/interop --deployment apache               the same scenarios against Apache's servers
pytest -m verify tests/interop --java-client 4.9.8 --deployment all-in-one -k long_poll
"""

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterator

import pytest

from tests.interop import build, java
from tests.interop.deployments import DEPLOYMENTS, OURS, Deployment

NewClient = Callable[[Deployment], java.JavaClient]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deployment", action="append", choices=list(DEPLOYMENTS), help="default: each of ours")
    parser.addoption("--java-client", action="append", choices=java.VERSIONS, help="default: each")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # The default covers a run of the whole tree: this file is then read too late for its options to exist.
    if "deployment_kind" in metafunc.fixturenames:
        kinds = metafunc.config.getoption("--deployment", default=None) or OURS
        metafunc.parametrize("deployment_kind", kinds, scope="module")
    if "java_version" in metafunc.fixturenames:
        versions = metafunc.config.getoption("--java-client", default=None) or java.VERSIONS
        metafunc.parametrize("java_version", versions, scope="module")


@pytest.fixture(scope="session")
def java_command() -> str:
    """Skips, with the reason, on a machine without Java; a Java that does not work fails the tests."""
    try:
        return build.java_command()
    except build.JavaMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def deployment(
    java_command: str, deployment_kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A cluster with default settings that the tests of a module share, each with topics and groups of its own."""
    with DEPLOYMENTS[deployment_kind](tmp_path_factory.mktemp(deployment_kind), {}) as started:
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


@pytest.fixture
def running() -> Iterator[contextlib.ExitStack]:
    """What a test enters here is ended with it, whatever happens."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic name that no other test of the run uses, within RocketMQ's letters."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", request.node.name)[:100]
