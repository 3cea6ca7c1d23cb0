"""The server that only answers, for tests of generators."""

import pathlib
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.process import ManagedProcess

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def null_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedProcess]:
    """One for the tests of a module."""
    argv = [sys.executable, "-m", "tools.bench.null_server"]
    with ManagedProcess("null", argv, log_directory=tmp_path_factory.mktemp("null"), cwd=ROOT) as process:
        process.wait_ready()
        yield process
        process.stop()
