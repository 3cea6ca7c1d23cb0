"""A server for the tests of this folder: the all-in-one as a real process, on free ports."""

import pathlib
from collections.abc import Iterator

import pytest

from tests.e2e.process import ManagedProcess, Ready, start_all_in_one


@pytest.fixture(scope="module")
def server_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedProcess]:
    """`apogeemq up` on an empty directory; must end with exit code 0 after the tests."""
    directory: pathlib.Path = tmp_path_factory.mktemp("up")
    with start_all_in_one(directory / "data", log_directory=directory / "logs", settings={}) as process:
        process.wait_ready()
        yield process
        process.stop()


@pytest.fixture(scope="module")
def server(server_process: ManagedProcess) -> Ready:
    """Where the server listens."""
    return server_process.wait_ready()
