"""The scripted proxy for the tests of this folder."""

import pathlib
import sys
from collections.abc import AsyncIterator

import pytest

# The package's folder is no identifier, so what the tests share can't be imported by its full path.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))

from scripted_proxy import ScriptedProxy


@pytest.fixture
async def proxy() -> AsyncIterator[ScriptedProxy]:
    """One broker behind it."""
    async with ScriptedProxy() as running:
        yield running
