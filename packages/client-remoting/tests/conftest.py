"""The scripted cluster for the tests of this folder."""

import pathlib
import sys
from collections.abc import AsyncIterator

import pytest

# The package's folder is no identifier, so what the tests share can't be imported by its full path.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))

from scripted_cluster import ScriptedCluster, running


@pytest.fixture
async def cluster() -> AsyncIterator[ScriptedCluster]:
    """Two brokers that serve the topic T."""
    async with running("T") as started:
        yield started
