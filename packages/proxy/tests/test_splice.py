"""Plain text and TLS on one gRPC port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import grpc.aio
import pytest
import trustme
import uvloop
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.network import Listening
from apogeemq.mesh.tls import ServerTls
from apogeemq.proxy.faces.grpc import splice
from apogeemq.proxy.faces.grpc.door import GrpcioDoor
from apogeemq.proxy.faces.grpc.port import DoorCall, DoorLimits, Handlers, TcpAddress
from apogeemq.proxy.faces.grpc.splice import serve_plain_and_tls

METHOD = "/some.Service/Method"
WAIT_S = 10.0

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost")
TLS = ServerTls(CERTIFICATE.cert_chain_pems[0].bytes(), CERTIFICATE.private_key_pem.bytes())


@asynccontextmanager
async def served(handlers: Handlers, connections_max: int = 100) -> AsyncIterator[Listening]:
    """Both on one port."""
    door = GrpcioDoor(DoorLimits(), clock=SystemClock())
    listening = await serve_plain_and_tls(
        door, TcpAddress("127.0.0.1", 0), handlers, tls=TLS, connections_max=connections_max
    )
    try:
        yield listening
    finally:
        await listening.stop(0.0)


def secure(listening: Listening) -> grpc.aio.Channel:
    """A client with TLS."""
    credentials = grpc.ssl_channel_credentials(AUTHORITY.cert_pem.bytes())
    return grpc.aio.secure_channel(f"localhost:{listening.port}", credentials)


def plain(listening: Listening) -> grpc.aio.Channel:
    """A client without."""
    return grpc.aio.insecure_channel(f"localhost:{listening.port}")


CHANNELS: list[Callable[[Listening], grpc.aio.Channel]] = [plain, secure]


def unary(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """A client's way to call the method."""
    return channel.unary_unary(METHOD)


async def echo(call: DoorCall, request: bytes) -> bytes:
    """A handler."""
    return request


async def test_both_kinds_of_clients_on_one_port() -> None:
    """A plain and a TLS client are served at the same time, with bodies of some megabytes."""
    body = b"x" * (3 << 20)
    async with served(Handlers(unary={METHOD: echo})) as listening, plain(listening) as one, secure(listening) as other:
        assert await unary(one)(body, timeout=WAIT_S) == body
        assert await unary(other)(body, timeout=WAIT_S) == body
        assert await unary(one)(b"x", timeout=WAIT_S) == b"x"


@pytest.mark.parametrize("connect", CHANNELS)
async def test_the_handler_sees_the_real_peer(connect: Callable[[Listening], grpc.aio.Channel]) -> None:
    """Not the unix socket, but where the client's connection comes from."""
    seen: list[str] = []

    async def look(call: DoorCall, request: bytes) -> bytes:
        seen.append(call.peer)
        return b""

    async with served(Handlers(unary={METHOD: look})) as listening, connect(listening) as channel:
        await unary(channel)(b"", timeout=WAIT_S)
    [peer] = seen
    host, _, port = peer.rpartition(":")
    assert host == "127.0.0.1"
    assert 0 < int(port) != listening.port


async def test_streams_pass() -> None:
    """A bidirectional call through both branches."""

    async def talk(call: DoorCall, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request.upper()

    async with served(Handlers(bidi={METHOD: talk})) as listening:
        for connect in CHANNELS:
            async with connect(listening) as channel, asyncio.timeout(WAIT_S):
                method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
                stream = method()
                await stream.write(b"a")
                assert await stream.read() == b"A"
                await stream.done_writing()
                assert await stream.read() is grpc.aio.EOF


async def test_a_client_that_is_lost_cancels_its_calls() -> None:
    """The door learns at once that the client's end closed."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hold(call: DoorCall, request: bytes) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async with served(Handlers(unary={METHOD: hold})) as listening, asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        await http2_call(writer)
        await begun.wait()
        writer.transport.abort()
        await cancelled.wait()
        assert reader.exception() is None


async def http2_call(writer: asyncio.StreamWriter) -> None:
    """Say just enough HTTP/2 to make one unary call of METHOD with an empty message."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": METHOD,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    writer.write(bytes(3) + b"\x04\x00" + bytes(4))  # SETTINGS
    writer.write(len(block).to_bytes(3, "big") + b"\x01\x04\x00\x00\x00\x01" + block)  # HEADERS, stream 1
    writer.write(b"\x00\x00\x05\x00\x01\x00\x00\x00\x01" + bytes(5))  # DATA, end of stream
    await writer.drain()


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closed without a word, in good order or not."""
    try:
        return await reader.read(1) == b""
    except ConnectionResetError:
        return True


async def test_connections_beyond_the_bound_are_closed() -> None:
    """There is room again when one has gone."""
    async with served(Handlers(unary={METHOD: echo}), connections_max=1) as listening, asyncio.timeout(WAIT_S):
        async with plain(listening) as channel:
            await unary(channel)(b"")
            reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
            assert await closed(reader)
            writer.close()
        async with plain(listening) as channel:
            assert await unary(channel)(b"x", wait_for_ready=True) == b"x"


async def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says nothing in time does not hold its place."""
    monkeypatch.setattr(splice, "FIRST_BYTE_S", 0.05)
    async with served(Handlers()) as listening, asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        assert await closed(reader)
        writer.close()


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"\x16garbage", b"\x00"])
async def test_nonsense_ends_with_its_connection(words: bytes) -> None:
    """Bytes of neither kind harm nobody else."""
    async with served(Handlers(unary={METHOD: echo})) as listening, asyncio.timeout(WAIT_S):
        _, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        writer.write(words)
        async with plain(listening) as channel:
            assert await unary(channel)(b"x") == b"x"
        writer.close()


async def test_a_taken_port_is_an_error() -> None:
    """And nothing is left behind it."""
    async with served(Handlers()) as listening:
        door = GrpcioDoor(DoorLimits(), clock=SystemClock())
        with pytest.raises(OSError, match="in use"):
            await serve_plain_and_tls(door, TcpAddress("127.0.0.1", listening.port), Handlers(), tls=TLS)


async def test_stop_removes_its_directory() -> None:
    """No socket stays in the file system, and a stop may come twice."""
    async with served(Handlers(unary={METHOD: echo})) as listening:
        assert isinstance(listening, splice._Splice)
        directory = listening._directory
        assert sorted(file.name for file in directory.iterdir()) == ["plain", "tls"]
        async with plain(listening) as channel:
            await unary(channel)(b"x", timeout=WAIT_S)
        assert sorted(file.name for file in directory.iterdir()) == ["plain", "tls"]
        await listening.stop(0.0)
        assert not directory.exists()


@pytest.mark.parametrize(
    "scenario",
    [
        test_both_kinds_of_clients_on_one_port,
        test_streams_pass,
        test_a_client_that_is_lost_cancels_its_calls,
        test_connections_beyond_the_bound_are_closed,
        test_stop_removes_its_directory,
    ],
)
def test_on_uvloop(scenario: Callable[[], Coroutine[object, object, None]]) -> None:
    """Services run on uvloop, whose transports are its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
