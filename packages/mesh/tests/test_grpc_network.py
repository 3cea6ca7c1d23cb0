"""What only the network over TCP has: connections, options, and what is seen of a peer."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator

import pytest
from apogeemq.mesh import grpc_network
from apogeemq.mesh.errors import PeerRefused, RefusalCode, StreamLost
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.grpc_server import peer_address
from apogeemq.mesh.network import CallContext, MeshChannel, MeshStream, Stream, StreamHandler, Unary, UnaryHandler
from google.protobuf.wrappers_pb2 import StringValue

GREET = Unary("/apogeemq.test.Greeter/Greet", StringValue, StringValue)
NEVER_S = 30.0


async def tell_peer(request: StringValue, context: CallContext) -> StringValue:
    """Answer with where the call came from."""
    return StringValue(value=context.peer)


@pytest.fixture
async def channels() -> AsyncIterator[list[MeshChannel]]:
    """Channels to be closed after the test."""
    channels: list[MeshChannel] = []
    yield channels
    for channel in channels:
        await channel.close()


async def ask(channel: MeshChannel) -> str:
    return (await channel.unary(GREET, StringValue(), timeout_s=NEVER_S)).value


async def test_each_channel_has_a_connection_of_its_own(channels: list[MeshChannel]) -> None:
    """Two channels to one target are two TCP connections; one channel keeps its connection."""
    network = GrpcNetwork()
    listening = await network.serve("127.0.0.1", 0, [UnaryHandler(GREET, tell_peer)])
    channels += [network.channel(f"127.0.0.1:{listening.port}") for _ in range(2)]
    first, second = await ask(channels[0]), await ask(channels[1])
    assert first != second
    assert await ask(channels[0]) == first
    await listening.stop(0)


@pytest.mark.parametrize(
    ("grpc_peer", "address"),
    [
        ("ipv4:127.0.0.1:5000", "127.0.0.1:5000"),
        ("ipv6:%5B::1%5D:5000", "[::1]:5000"),
        ("ipv6:[fe80::1]:5000", "[fe80::1]:5000"),
    ],
)
def test_peer_is_an_address(grpc_peer: str, address: str) -> None:
    """A peer is shown as host:port, an IPv6 one in brackets, whichever way grpc writes it."""
    assert peer_address(grpc_peer) == address


async def test_http_proxy_is_not_used(channels: list[MeshChannel], monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is for the web, not for the mesh."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    network = GrpcNetwork()
    listening = await network.serve("127.0.0.1", 0, [UnaryHandler(GREET, tell_peer)])
    channels.append(network.channel(f"127.0.0.1:{listening.port}"))
    assert await ask(channels[0])
    await listening.stop(0)


async def test_concurrent_calls_are_bounded(channels: list[MeshChannel], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with too many calls at once refuses the next, and takes it when one has ended."""
    monkeypatch.setattr(grpc_network, "CONCURRENT_CALLS_MAX", 2)
    release = asyncio.Event()
    waiting = asyncio.Semaphore(0)

    async def hold(request: StringValue, context: CallContext) -> StringValue:
        waiting.release()
        await release.wait()
        return StringValue(value="held")

    network = GrpcNetwork()
    listening = await network.serve("127.0.0.1", 0, [UnaryHandler(GREET, hold)])
    channels.append(network.channel(f"127.0.0.1:{listening.port}"))
    held = [asyncio.ensure_future(ask(channels[0])) for _ in range(2)]
    for _ in held:
        await waiting.acquire()
    with pytest.raises(PeerRefused) as caught:
        await ask(channels[0])
    assert caught.value.code is RefusalCode.RESOURCE_EXHAUSTED
    release.set()
    assert await asyncio.gather(*held) == ["held", "held"]
    assert await ask(channels[0]) == "held"
    await listening.stop(0)


FROZEN_PEER_PROGRAM = """
import asyncio
import gc
import signal
import sys
from google.protobuf.wrappers_pb2 import StringValue
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.network import Stream, StreamHandler

async def echo(stream):
    while (message := await stream.receive()) is not None:
        await stream.send(message)

async def main():
    chat = Stream("/apogeemq.test.Chat/Chat", StringValue, StringValue)
    listening = await GrpcNetwork().serve("127.0.0.1", 0, [StreamHandler(chat, echo)])
    print(listening.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.verify
async def test_frozen_peer_is_noticed(channels: list[MeshChannel]) -> None:
    """A peer that is stopped without a word (SIGSTOP, a pulled cable) is lost within the 10 + 5 s of the keepalive."""
    chat = Stream("/apogeemq.test.Chat/Chat", StringValue, StringValue)
    peer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FROZEN_PEER_PROGRAM, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert peer.stdout is not None
        port = int(await peer.stdout.readline())
        channels.append(GrpcNetwork().channel(f"127.0.0.1:{port}"))
        stream = channels[0].stream(chat)
        await stream.send(StringValue(value="hello"))
        assert await stream.receive() == StringValue(value="hello")
        peer.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(NEVER_S):
            with pytest.raises(StreamLost):
                await stream.receive()
    finally:
        peer.kill()
        await peer.wait()


async def test_a_read_that_is_under_way_when_its_handler_ends_fails_for_nobody(
    channels: list[MeshChannel], caplog: pytest.LogCaptureFixture
) -> None:
    """A service that ends its streams as it stops leaves no "exception was never retrieved" in its log."""

    async def end_while_reading(stream: MeshStream[StringValue, StringValue]) -> None:
        reading = asyncio.ensure_future(stream.receive())
        await stream.send(StringValue(value="here"))
        reading.cancel()
        await asyncio.wait({reading})

    network = GrpcNetwork()
    method = Stream("/apogeemq.test.Greeter/Meet", StringValue, StringValue)
    listening = await network.serve("127.0.0.1", 0, [StreamHandler(method, end_while_reading)])
    channels.append(network.channel(f"127.0.0.1:{listening.port}"))
    stream = channels[0].stream(method)
    assert await stream.receive() == StringValue(value="here")
    assert await stream.receive() is None
    await listening.stop(0)
    gc.collect()
    assert "never retrieved" not in caplog.text
