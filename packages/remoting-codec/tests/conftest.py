"""What the tests share: both event loops, certificates."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import TypeVar

import pytest
import trustme
import uvloop

T = TypeVar("T")
Run = Callable[[Coroutine[object, object, None]], None]

DEADLINE_S = 20.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario to its end on the loop under test; a scenario that hangs fails."""

    def run_scenario(scenario: Coroutine[object, object, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(DEADLINE_S):
                await scenario

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded())

    return run_scenario


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who signs the server's certificate."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """The server's side of TLS, for the name `localhost`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """The client's side of TLS: trusts the authority and checks the name."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
