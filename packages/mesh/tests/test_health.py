"""Checks of a process, and the gRPC health service made of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.health import Check, Health
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # type: ignore[import-untyped]
from grpc_health.v1.health_pb2_grpc import HealthStub  # type: ignore[import-untyped]


def test_no_checks_is_not_ready() -> None:
    """A process that has declared nothing is not ready."""
    assert not Health().ready


def test_ready_when_all_checks_serve() -> None:
    """One check that does not serve makes the process not ready, until it serves or is removed."""
    health = Health()
    health.set("store", False, "recovering")
    health.set("namesrv", True)
    assert not health.ready
    assert dict(health.checks) == {"store": Check(False, "recovering"), "namesrv": Check(True, "")}
    health.set("store", True)
    assert health.ready
    health.set("disk", False, "full")
    health.remove("disk")
    health.remove("disk")
    assert health.ready


def test_listeners_hear_of_changes_only() -> None:
    """A listener is called after each real change, until it is taken away."""
    health, calls = Health(), []
    remove = health.add_listener(lambda: calls.append(health.ready))
    health.set("store", True)
    health.set("store", True)
    health.set("store", False, "read-only")
    health.set("store", False, "disk full")
    health.remove("store")
    remove()
    health.set("store", True)
    assert calls == [True, False, False, False]


@pytest.fixture
async def health() -> Health:
    return Health()


@pytest.fixture
async def stub(health: Health) -> AsyncIterator[HealthStub]:
    """The official health client, connected to a server of ours that has no handlers of its own."""
    listening = await GrpcNetwork(health=health).serve("127.0.0.1", 0, [])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{listening.port}") as channel:
        yield HealthStub(channel)
    await listening.stop(0)


async def test_check_by_the_official_client(health: Health, stub: HealthStub) -> None:
    """The whole process and single checks can be asked for; an unknown name is NOT_FOUND."""
    assert (await stub.Check(HealthCheckRequest())).status == HealthCheckResponse.NOT_SERVING
    health.set("store", True)
    assert (await stub.Check(HealthCheckRequest())).status == HealthCheckResponse.SERVING
    assert (await stub.Check(HealthCheckRequest(service="store"))).status == HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(HealthCheckRequest(service="nonsense"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_by_the_official_client(health: Health, stub: HealthStub) -> None:
    """Watching tells the status at once and after each change, also for a name that does not exist yet."""
    watch = stub.Watch(HealthCheckRequest(service="store"))
    assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    health.set("store", False, "recovering")
    assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
    health.set("other", True)
    health.set("store", True)
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch.read()
