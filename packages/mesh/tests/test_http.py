"""The HTTP listener: its routes, what it refuses, and its bounds. Requests are raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import h11
import pytest
from apogeemq.mesh import http
from apogeemq.mesh.health import Health
from apogeemq.mesh.http import HttpListener, HttpReply, observability_routes
from apogeemq.mesh.metrics import Registry
from prometheus_client.parser import text_string_to_metric_families

Ask: TypeAlias = Callable[[bytes], Awaitable[tuple[int, dict[bytes, bytes], bytes]]]


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def registry() -> Registry:
    return Registry()


async def fail() -> HttpReply:
    raise KeyError("a secret detail")


@pytest.fixture
async def port(health: Health, registry: Registry) -> AsyncIterator[int]:
    routes = observability_routes(health, registry) | {"/fails": fail}
    listener = HttpListener("127.0.0.1", 0, routes)
    _, port = await listener.start()
    yield port
    await listener.stop()


@pytest.fixture
def ask(port: int) -> Ask:
    """Send bytes on a connection of its own, and parse the answer with h11's client side."""

    async def ask(request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        client = h11.Connection(h11.CLIENT)
        method = "HEAD" if request.startswith(b"HEAD") else "GET"
        client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(answer)
        response = client.next_event()
        assert isinstance(response, h11.Response)
        body = b""
        while isinstance(event := client.next_event(), h11.Data):
            body += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)
        return response.status_code, dict(response.headers), body

    return ask


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


async def test_healthz_answers_while_the_process_lives(ask: Ask) -> None:
    """The liveness probe is 200 whatever the checks say."""
    status, headers, body = await ask(get("/healthz"))
    assert (status, body, headers[b"connection"]) == (200, b"alive\n", b"close")


async def test_readyz_tells_reasons(ask: Ask, health: Health) -> None:
    """The readiness probe is 503 while a check does not serve, 200 after, with all checks as JSON."""
    health.set("store", False, "recovering: 40 %")
    health.set("namesrv", True)
    status, headers, body = await ask(get("/readyz"))
    assert (status, headers[b"content-type"]) == (503, b"application/json")
    assert json.loads(body) == {
        "ready": False,
        "checks": {
            "store": {"serving": False, "reason": "recovering: 40 %"},
            "namesrv": {"serving": True, "reason": ""},
        },
    }
    health.set("store", True)
    assert (await ask(get("/readyz")))[0] == 200


async def test_metrics_are_readable_by_prometheus(ask: Ask, registry: Registry) -> None:
    """A scrape gives text that Prometheus's parser reads, under its content type."""
    registry.counter("a_total", "counts", ("topic",)).child(topic="Größe").value += 3
    status, headers, body = await ask(get("/metrics?name=x"))
    assert (status, headers[b"content-type"]) == (200, b"text/plain; version=0.0.4; charset=utf-8")
    (family,) = text_string_to_metric_families(body.decode())
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"topic": "Größe"}, 3)]


async def test_head_has_no_body(ask: Ask) -> None:
    """HEAD is answered like GET, with the same length but without the body."""
    status, headers, body = await ask(get("/healthz", "HEAD"))
    assert (status, headers[b"content-length"], body) == (200, b"6", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(ask: Ask, method: str) -> None:
    """Only GET and HEAD are allowed, and the answer says so."""
    status, headers, _ = await ask(get("/healthz", method))
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")


async def test_unknown_path(ask: Ask) -> None:
    """An unknown path is 404 and names those there are."""
    status, _, body = await ask(get("/nonsense"))
    assert (status, body) == (404, b"there is /fails, /healthz, /metrics, /readyz\n")


@pytest.mark.parametrize(
    "request_bytes", [b"nonsense\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\r\n"]
)
async def test_what_is_not_http_is_a_bad_request(ask: Ask, request_bytes: bytes) -> None:
    """Garbage, a request without host and a TLS greeting are 400."""
    assert (await ask(request_bytes))[0] == 400


async def test_headers_are_bounded(ask: Ask) -> None:
    """More than 16 KiB of request line and headers is 431."""
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * http.REQUEST_SIZE_BYTES_MAX
    assert (await ask(request))[0] == 431


async def test_failing_route(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """A route that fails is 500; the reason goes to the log and not to the client."""
    status, _, body = await ask(get("/fails"))
    assert status == 500
    assert b"secret" not in body
    assert "a secret detail" in caplog.text


async def test_request_in_pieces(port: int) -> None:
    """A request that arrives byte by byte is answered once it is complete."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for byte in get("/healthz"):
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await reader.read()).endswith(b"alive\n")
    writer.close()


async def test_client_that_leaves(port: int, ask: Ask) -> None:
    """A client that connects and goes away without a word disturbs nobody."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()
    assert (await ask(get("/healthz")))[0] == 200


async def test_slow_client_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not finish its request in time loses its connection."""
    monkeypatch.setattr(http, "EXCHANGE_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()


async def test_connections_are_bounded(port: int, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound a new connection is cut; when one ends there is room again."""
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 2)
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    for held_reader, held_writer in held:
        held_writer.write(get("/healthz"))
        assert (await held_reader.read()).endswith(b"alive\n")
        held_writer.close()
    assert (await ask(get("/healthz")))[0] == 200


async def test_stop_breaks_off_connections(health: Health, registry: Registry) -> None:
    """Stopping does not wait for clients; stopping twice, or before a start, is no error."""
    listener = HttpListener("127.0.0.1", 0, observability_routes(health, registry))
    await listener.stop()
    _, port = await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET")
    await writer.drain()
    await listener.stop()
    await listener.stop()
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection("127.0.0.1", port)
