"""A server for the tests of this folder: the all-in-one as a real process, on free ports."""

import pathlib
from collections.abc import Iterator

import pytest

from tests.e2e.process import ManagedProcess, Ready, start_all_in_one


@pytest.fixture(scope="module")
def server_data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where the server keeps its data."""
    return tmp_path_factory.mktemp("up") / "data"


@pytest.fixture(scope="module")
def server_process(server_data: pathlib.Path) -> Iterator[ManagedProcess]:
    """`apogeemq up` on an empty directory; must end with exit code 0 after the tests."""
    with start_all_in_one(server_data, log_directory=server_data.parent / "logs", settings={}) as process:
        process.wait_ready()
        yield process
        process.stop()


@pytest.fixture(scope="module")
def server(server_process: ManagedProcess) -> Ready:
    """Where the server listens."""
    return server_process.wait_ready()


@pytest.fixture
def mortal(tmp_path: pathlib.Path) -> Iterator[ManagedProcess]:
    """A server of one test's own, to be killed by it; where it listens, another can take its place."""
    with start_all_in_one(tmp_path / "data", log_directory=tmp_path / "first", settings={}) as process:
        yield process
