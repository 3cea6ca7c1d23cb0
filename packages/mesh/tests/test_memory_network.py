"""What only the network in memory has: weather, origins, and a run that a seed replays."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import DeadlineExceeded, PeerUnavailable, StreamLost
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.memory_stream import WINDOW_MESSAGES_MAX
from apogeemq.mesh.network import (
    LOST_STREAM_GRACE_S,
    CallContext,
    Handler,
    MeshStream,
    Stream,
    StreamHandler,
    Unary,
    UnaryHandler,
)
from apogeemq.mesh.tls import ClientTls, ServerTls
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

GREET = Unary("/apogeemq.test.Greeter/Greet", StringValue, StringValue)
COUNT = Stream("/apogeemq.test.Counter/Count", Int64Value, StringValue)
SERVER = "namesrv:9877"

CountStream: TypeAlias = MeshStream[StringValue, Int64Value]


async def greet(request: StringValue, context: CallContext) -> StringValue:
    return StringValue(value=f"hello {request.value} from {context.peer}")


async def count(stream: CountStream) -> None:
    while (number := await stream.receive()) is not None:
        await stream.send(StringValue(value=str(number.value)))


HANDLERS: list[Handler] = [UnaryHandler(GREET, greet), StreamHandler(COUNT, count)]


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def network(clock: ManualClock) -> MemoryNetwork:
    """A network on which somebody listens at SERVER."""
    network = MemoryNetwork(clock, SeededChance(1))
    await network.serve("namesrv", 9877, HANDLERS)
    return network


async def test_calls_have_an_origin(network: MemoryNetwork) -> None:
    """A handler can tell which host a call came from."""
    channel = network.at("broker-a").channel(SERVER)
    reply = await channel.unary(GREET, StringValue(value="ann"), timeout_s=1)
    assert reply.value == "hello ann from memory:broker-a"


async def test_delay_takes_time_both_ways(network: MemoryNetwork, clock: ManualClock) -> None:
    """With a delay of 1 s a unary call takes 2 s: there and back."""
    network.delay(SERVER, 1, 1)
    call = asyncio.ensure_future(network.channel(SERVER).unary(GREET, StringValue(), timeout_s=10))
    await clock.run_for(1.999)
    assert not call.done()
    await clock.run_for(0.001)
    assert call.done()


async def test_deadline_counts_the_way(network: MemoryNetwork, clock: ManualClock) -> None:
    """A delay longer than the deadline makes the call late."""
    network.delay(SERVER, 5, 5)
    call = asyncio.ensure_future(network.channel(SERVER).unary(GREET, StringValue(), timeout_s=2))
    await clock.run_for(2)
    with pytest.raises(DeadlineExceeded):
        await call


async def test_delays_keep_order_and_are_within_bounds(network: MemoryNetwork, clock: ManualClock) -> None:
    """However messages are delayed they arrive in order, none before its least delay, all by the largest."""
    network.delay(SERVER, 0.5, 1.5)
    stream = network.channel(SERVER).stream(COUNT)
    arrived: list[tuple[float, int]] = []

    async def receive() -> None:
        while (reply := await stream.receive()) is not None:
            arrived.append((clock.monotonic(), int(reply.value)))

    receiving = asyncio.ensure_future(receive())
    for number in range(20):
        await stream.send(Int64Value(value=number))
    await stream.finish()
    await clock.run_for(1.0)
    assert arrived == []
    await clock.run_for(2.0)
    await receiving
    assert [number for _, number in arrived] == list(range(20))
    times = [time for time, _ in arrived]
    assert times == sorted(times)
    assert len(set(times)) > 1


async def test_a_seed_replays_a_run() -> None:
    """The same seed gives the same arrival times, another seed others."""

    async def run(seed: int) -> list[float]:
        clock = ManualClock()
        network = MemoryNetwork(clock, SeededChance(seed))
        await network.serve("namesrv", 9877, HANDLERS)
        network.delay(SERVER, 0, 1)
        times = []
        for _ in range(5):
            call = asyncio.ensure_future(network.channel(SERVER).unary(GREET, StringValue(), timeout_s=10))
            call.add_done_callback(lambda _: times.append(clock.monotonic()))
            await clock.run_for(3)
        return times

    assert await run(7) == await run(7) != await run(8)


async def test_cut_for_one_origin_only(network: MemoryNetwork) -> None:
    """A partition between two hosts leaves a third one's calls alone, until it is healed."""
    cut_off, other = network.at("broker-a").channel(SERVER), network.at("broker-b").channel(SERVER)
    lost, kept = cut_off.stream(COUNT), other.stream(COUNT)
    network.cut(SERVER, origin="broker-a")
    with pytest.raises(StreamLost, match="the network was cut"):
        await lost.receive()
    with pytest.raises(PeerUnavailable, match="refused"):
        await cut_off.unary(GREET, StringValue(), timeout_s=1)
    await kept.send(Int64Value(value=1))
    assert await kept.receive() == StringValue(value="1")
    network.heal(SERVER, origin="broker-a")
    await cut_off.unary(GREET, StringValue(), timeout_s=1)


async def test_refuse_leaves_running_streams_alone(network: MemoryNetwork) -> None:
    """refuse() stops new calls only; heal() without an origin undoes what was set for single ones too."""
    channel = network.at("broker-a").channel(SERVER)
    stream = channel.stream(COUNT)
    network.refuse(SERVER, origin="broker-a")
    with pytest.raises(PeerUnavailable, match="refused"):
        await channel.unary(GREET, StringValue(), timeout_s=1)
    await stream.send(Int64Value(value=1))
    assert await stream.receive() == StringValue(value="1")
    network.heal(SERVER)
    await channel.unary(GREET, StringValue(), timeout_s=1)


async def test_handler_that_does_not_notice_the_loss_is_cancelled(network: MemoryNetwork, clock: ManualClock) -> None:
    """A handler that neither sends nor receives is cancelled some seconds after its peer was lost."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def deaf(stream: CountStream) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await network.serve("namesrv", 1, [StreamHandler(COUNT, deaf)])
    stream = network.channel("namesrv:1").stream(COUNT)
    await started.wait()
    stream.cancel()
    await clock.run_for(LOST_STREAM_GRACE_S - 0.001)
    assert not ended.is_set()
    await clock.run_for(0.001)
    assert ended.is_set()


async def test_both_sides_never_share_a_message(network: MemoryNetwork) -> None:
    """A message changed after it was sent arrives as it was."""
    stream = network.channel(SERVER).stream(COUNT)
    message = Int64Value(value=1)
    await stream.send(message)
    message.value = 2
    assert await stream.receive() == StringValue(value="1")


async def test_window(network: MemoryNetwork) -> None:
    """A sender may be WINDOW_MESSAGES_MAX messages ahead of a peer that does not read, and goes on when it does."""
    release = asyncio.Event()

    async def slow(stream: CountStream) -> None:
        await release.wait()
        await count(stream)

    await network.serve("namesrv", 1, [StreamHandler(COUNT, slow)])
    stream = network.channel("namesrv:1").stream(COUNT)
    for number in range(WINDOW_MESSAGES_MAX):
        await stream.send(Int64Value(value=number))
    one_more = asyncio.ensure_future(stream.send(Int64Value()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not one_more.done()
    release.set()
    await one_more


async def test_stop_waits_for_the_grace_and_then_cancels(network: MemoryNetwork, clock: ManualClock) -> None:
    """A call that does not end within the grace is taken from its caller."""

    async def hang(request: StringValue, context: CallContext) -> StringValue:
        await asyncio.Event().wait()
        return StringValue()

    listening = await network.serve("namesrv", 1, [UnaryHandler(GREET, hang)])
    call = asyncio.ensure_future(network.channel("namesrv:1").unary(GREET, StringValue(), timeout_s=60))
    await clock.run_for(0)
    stopping = asyncio.ensure_future(listening.stop(10))
    await clock.run_for(9.999)
    assert not stopping.done()
    await clock.run_for(0.001)
    await stopping
    with pytest.raises(PeerUnavailable, match="the server stopped"):
        await call


async def test_free_ports_differ(network: MemoryNetwork) -> None:
    """Port 0 takes a port that nobody has on that host."""
    ports = {(await network.serve("namesrv", 0, [])).port for _ in range(3)}
    assert len(ports) == 3


SERVER_TLS = ServerTls(b"certificate", b"key")
MUTUAL_TLS = ServerTls(b"certificate", b"key", client_ca=b"ca")


@pytest.mark.parametrize(
    ("server", "client", "reason"),
    [
        (SERVER_TLS, None, "one side speaks TLS"),
        (None, ClientTls(), "one side speaks TLS"),
        (MUTUAL_TLS, ClientTls(), "demands a client certificate"),
        (SERVER_TLS, ClientTls(), None),
        (MUTUAL_TLS, ClientTls(certificate_chain=b"mine", private_key=b"key"), None),
    ],
)
async def test_tls_must_fit(
    network: MemoryNetwork, server: ServerTls | None, client: ClientTls | None, reason: str | None
) -> None:
    """Where a real handshake would fail for want of TLS or of a certificate, the peer is unavailable."""
    await network.serve("namesrv", 1, HANDLERS, tls=server)
    call = network.channel("namesrv:1", tls=client).unary(GREET, StringValue(), timeout_s=1)
    if reason is None:
        await call
    else:
        with pytest.raises(PeerUnavailable, match=reason):
            await call
