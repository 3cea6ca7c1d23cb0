"""The gRPC door, by a raw grpc.aio client on loopback. Every door passes these: DOORS has the ways to make one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
import trustme
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.errors import RefusalCode
from apogeemq.mesh.network import Listening
from apogeemq.mesh.tls import ServerTls
from apogeemq.proxy.faces.grpc.door import GrpcioDoor
from apogeemq.proxy.faces.grpc.port import (
    Door,
    DoorCall,
    DoorLimits,
    DoorRefused,
    Handlers,
    LocalAddress,
    TcpAddress,
)

MakeDoor = Callable[[DoorLimits], Door]

DOORS: list[MakeDoor] = [lambda limits: GrpcioDoor(limits, clock=SystemClock())]

METHOD = "/some.Service/Method"
WAIT_S = 10.0


@pytest.fixture(params=DOORS, ids=["grpcio"])
def make_door(request: pytest.FixtureRequest) -> MakeDoor:
    """How to make the door under test."""
    made: MakeDoor = request.param
    return made


@asynccontextmanager
async def served(
    make_door: MakeDoor, handlers: Handlers, limits: DoorLimits | None = None, *, grace_s: float = 0.0
) -> AsyncIterator[tuple[Listening, grpc.aio.Channel]]:
    """A door that listens, and a client's channel to it."""
    listening = await make_door(limits or DoorLimits()).serve(TcpAddress("127.0.0.1", 0), handlers)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{listening.port}") as channel:
            yield listening, channel
    finally:
        await listening.stop(grace_s)


def unary(channel: grpc.aio.Channel, path: str = METHOD) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """A client's way to call a unary method."""
    return channel.unary_unary(path)


def server_stream(channel: grpc.aio.Channel, path: str = METHOD) -> grpc.aio.UnaryStreamMultiCallable[bytes, bytes]:
    """A client's way to call a method that answers with a stream."""
    return channel.unary_stream(path)


def bidi(channel: grpc.aio.Channel, path: str = METHOD) -> grpc.aio.StreamStreamMultiCallable[bytes, bytes]:
    """A client's way to call a method with streams both ways."""
    return channel.stream_stream(path)


async def refusal(call: grpc.aio.Call) -> tuple[grpc.StatusCode, str]:
    """How a call ended."""
    async with asyncio.timeout(WAIT_S):
        return await call.code(), await call.details()


async def echo(call: DoorCall, request: bytes) -> bytes:
    """A handler."""
    return request


async def test_a_unary_call_gets_its_bytes(make_door: MakeDoor) -> None:
    """The handler gets the request's bytes, and the client the reply's: also none, and some megabytes."""
    async with served(make_door, Handlers(unary={METHOD: echo})) as (_, channel):
        for body in (b"", b"\x00\xff", b"x" * (3 << 20)):
            assert await unary(channel)(body) == body


async def test_the_handler_learns_who_calls(make_door: MakeDoor) -> None:
    """Path, metadata (keys in lower case, without binary ones), the peer's address, the deadline."""
    seen: list[DoorCall] = []

    async def look(call: DoorCall, request: bytes) -> bytes:
        seen.append(call)
        return b""

    before = SystemClock().monotonic()
    async with served(make_door, Handlers(unary={METHOD: look})) as (_, channel):
        await unary(channel)(b"", metadata=[("x-mq-client-id", "me"), ("secret-bin", b"\x01")], timeout=100.0)
        await unary(channel)(b"")
    with_deadline, without = seen
    assert with_deadline.method == METHOD
    assert with_deadline.metadata["x-mq-client-id"] == "me"
    assert "secret-bin" not in with_deadline.metadata
    host, _, port = with_deadline.peer.rpartition(":")
    assert (host, port.isdecimal()) == ("127.0.0.1", True)
    assert with_deadline.deadline is not None
    # grpc writes a timeout of 100 s in whole seconds, rounded up.
    assert before + 90 < with_deadline.deadline <= SystemClock().monotonic() + 102
    assert without.deadline is None


async def test_an_unknown_method_is_unimplemented(make_door: MakeDoor) -> None:
    """Whatever nobody serves is answered UNIMPLEMENTED; the connection goes on."""
    async with served(make_door, Handlers(unary={METHOD: echo})) as (_, channel):
        code, _ = await refusal(unary(channel, "/some.Service/Other")(b""))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert await unary(channel)(b"x") == b"x"


async def test_a_refusal_reaches_the_client(make_door: MakeDoor) -> None:
    """DoorRefused ends a call of each kind with its code and text; what came before it on a stream arrives."""

    async def no(call: DoorCall, request: bytes) -> bytes:
        raise DoorRefused(RefusalCode.INVALID_ARGUMENT, "no, since …")

    async def then_no(call: DoorCall, request: bytes) -> AsyncIterator[bytes]:
        yield b"1"
        raise DoorRefused(RefusalCode.NOT_FOUND, "no more")

    async def talk_no(call: DoorCall, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
            raise DoorRefused(RefusalCode.RESOURCE_EXHAUSTED, "too much")

    handlers = Handlers(unary={"/a/A": no}, server_streams={"/a/B": then_no}, bidi={"/a/C": talk_no})
    async with served(make_door, handlers) as (_, channel):
        assert await refusal(unary(channel, "/a/A")(b"")) == (grpc.StatusCode.INVALID_ARGUMENT, "no, since …")
        stream = server_stream(channel, "/a/B")(b"")
        assert await stream.read() == b"1"
        assert await refusal(stream) == (grpc.StatusCode.NOT_FOUND, "no more")
        talk = bidi(channel, "/a/C")()
        await talk.write(b"x")
        assert await talk.read() == b"x"
        assert await refusal(talk) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")


async def test_a_failure_is_internal_without_its_text(make_door: MakeDoor, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody expected is logged; the client gets INTERNAL and none of the text."""

    async def fail(call: DoorCall, request: bytes) -> bytes:
        raise KeyError("the secret")

    async with served(make_door, Handlers(unary={METHOD: fail})) as (_, channel):
        code, details = await refusal(unary(channel)(b""))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in details
    assert "the secret" in caplog.text


async def test_streams_flow_both_ways(make_door: MakeDoor) -> None:
    """A bidirectional call answers while it is asked, and ends after the client has half-closed."""

    async def talk(call: DoorCall, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request.upper()
        yield b"bye"

    async with served(make_door, Handlers(bidi={METHOD: talk})) as (_, channel):
        stream = bidi(channel)()
        for word in (b"a", b"b"):
            await stream.write(word)
            assert await stream.read() == word.upper()
        await stream.done_writing()
        assert await stream.read() == b"bye"
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_may_be_any_iterator(make_door: MakeDoor) -> None:
    """Replies need not come from a generator."""

    class Twice:
        def __init__(self) -> None:
            self._left = 2

        def __aiter__(self) -> Twice:
            return self

        async def __anext__(self) -> bytes:
            if not self._left:
                raise StopAsyncIteration
            self._left -= 1
            return b"x"

    async with served(make_door, Handlers(server_streams={METHOD: lambda call, request: Twice()})) as (_, channel):
        assert [reply async for reply in server_stream(channel)(b"")] == [b"x", b"x"]


class Held:
    """Handlers that wait until they are cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def wait(self) -> None:
        """Wait for ever; note when that is cut short."""
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def unary(self, call: DoorCall, request: bytes) -> bytes:
        """A handler."""
        await self.wait()
        return b""

    async def stream(self, call: DoorCall, request: bytes) -> AsyncIterator[bytes]:
        """A handler."""
        await self.wait()
        yield b""

    async def bidi(self, call: DoorCall, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A handler."""
        await self.wait()
        yield b""

    @property
    def handlers(self) -> Handlers:
        """Each kind under a path of its own."""
        return Handlers(unary={"/h/u": self.unary}, server_streams={"/h/s": self.stream}, bidi={"/h/b": self.bidi})

    def begin(self, channel: grpc.aio.Channel, kind: str, timeout: float | None = None) -> grpc.aio.Call:
        """Call one of them."""
        if kind == "u":
            return unary(channel, "/h/u")(b"", timeout=timeout)
        if kind == "s":
            return server_stream(channel, "/h/s")(b"", timeout=timeout)
        return bidi(channel, "/h/b")(timeout=timeout)


@pytest.mark.parametrize("kind", ["u", "s", "b"])
async def test_a_client_that_cancels_cancels_the_handler(make_door: MakeDoor, kind: str) -> None:
    """Nothing goes on for a client that does not wait any more."""
    held = Held()
    async with served(make_door, held.handlers) as (_, channel), asyncio.timeout(WAIT_S):
        call = held.begin(channel, kind)
        await held.begun.wait()
        call.cancel()
        await held.cancelled.wait()


@pytest.mark.parametrize("kind", ["u", "s", "b"])
async def test_a_deadline_cancels_the_handler(make_door: MakeDoor, kind: str) -> None:
    """Neither does anything for one whose deadline has passed."""
    held = Held()
    async with served(make_door, held.handlers) as (_, channel), asyncio.timeout(WAIT_S):
        call = held.begin(channel, kind, timeout=0.3)
        await held.cancelled.wait()
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("kind", ["u", "s", "b"])
async def test_a_lost_client_cancels_the_handler(make_door: MakeDoor, kind: str) -> None:
    """Nor for one whose connection broke."""
    held = Held()
    async with served(make_door, held.handlers) as (listening, _), asyncio.timeout(WAIT_S):
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{listening.port}", [("grpc.use_local_subchannel_pool", 1)])
        held.begin(channel, kind)
        await held.begun.wait()
        await channel.close()
        await held.cancelled.wait()


async def test_stop_ends_what_runs(make_door: MakeDoor) -> None:
    """After the grace running handlers are cancelled, and stop() returns only once they have ended."""
    held = Held()
    async with served(make_door, held.handlers) as (listening, channel), asyncio.timeout(WAIT_S):
        held.begin(channel, "u")
        await held.begun.wait()
        await listening.stop(0.0)
        assert held.cancelled.is_set()


async def test_a_request_above_the_bound_is_refused(make_door: MakeDoor) -> None:
    """The handler never sees it, and the connection goes on."""
    limits = DoorLimits(request_size_bytes_max=1000)
    async with served(make_door, Handlers(unary={METHOD: echo}), limits) as (_, channel):
        code, _ = await refusal(unary(channel)(bytes(1001)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(await unary(channel)(bytes(1000))) == 1000


async def test_a_request_that_unfolds_above_the_bound_is_refused(make_door: MakeDoor) -> None:
    """What counts is the size after decompression: a small message may be a large one in disguise."""
    seen: list[int] = []

    async def look(call: DoorCall, request: bytes) -> bytes:
        seen.append(len(request))
        return b""

    limits = DoorLimits(request_size_bytes_max=100_000)
    async with served(make_door, Handlers(unary={METHOD: look}), limits) as (_, channel):
        bomb = unary(channel)(bytes(10 << 20), compression=grpc.Compression.Gzip)
        code, _ = await refusal(bomb)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await unary(channel)(bytes(1000), compression=grpc.Compression.Gzip)
    assert seen == [1000]


async def test_calls_beyond_the_bound_are_refused(make_door: MakeDoor) -> None:
    """At calls_max a further call is RESOURCE_EXHAUSTED; there is room again when one has ended."""
    held = Held()
    async with (
        served(make_door, held.handlers, DoorLimits(calls_max=1)) as (_, channel),
        asyncio.timeout(WAIT_S),
    ):
        first = held.begin(channel, "u")
        await held.begun.wait()
        code, _ = await refusal(held.begin(channel, "u"))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        held.begun.clear()
        first.cancel()
        while not held.begun.is_set():
            second = held.begin(channel, "u")
            await asyncio.wait([asyncio.ensure_future(held.begun.wait())], timeout=0.05)
            second.cancel()


async def test_a_burst_of_calls_costs_nobody_a_call(make_door: MakeDoor) -> None:
    """Calls that come faster than the loop takes them wait for it: grpc by itself throws some away from 1,000 on."""
    async with served(make_door, Handlers(unary={METHOD: echo})) as (listening, _), AsyncExitStack() as opened:
        target = f"127.0.0.1:{listening.port}"
        channels = [
            await opened.enter_async_context(
                grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(4)
        ]
        calls = [unary(channel)(b"x") for _ in range(900) for channel in channels]
        assert await asyncio.gather(*calls) == [b"x"] * len(calls)


async def test_metadata_above_the_bound_is_refused(make_door: MakeDoor) -> None:
    """It never reaches the handler."""
    limits = DoorLimits(metadata_size_bytes_max=2000)
    async with served(make_door, Handlers(unary={METHOD: echo}), limits) as (_, channel):
        code, _ = await refusal(unary(channel)(b"", metadata=[("x", "y" * 4000)]))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await unary(channel)(b"x") == b"x"


async def test_a_client_that_does_not_read_makes_the_handler_wait(make_door: MakeDoor) -> None:
    """Replies are made only as fast as they are read, but for what the connection itself may hold."""
    made = 0

    async def pour(call: DoorCall, request: bytes) -> AsyncIterator[bytes]:
        nonlocal made
        while made < 200:
            made += 1
            yield bytes(1 << 20)

    async with served(make_door, Handlers(server_streams={METHOD: pour})) as (_, channel), asyncio.timeout(WAIT_S):
        stream = server_stream(channel)(b"")
        await stream.read()
        await settled(lambda: made)
        assert made < 100
        stream.cancel()


async def test_a_handler_that_does_not_read_makes_the_client_wait(make_door: MakeDoor) -> None:
    """A flood of messages on a stream stays in the client, but for what the connection itself may hold."""
    held = Held()
    written = 0

    async def flood(stream: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        nonlocal written
        for _ in range(200):
            await stream.write(bytes(1 << 20))
            written += 1

    async with served(make_door, held.handlers) as (_, channel), asyncio.timeout(WAIT_S):
        stream = bidi(channel, "/h/b")()
        flooding = asyncio.ensure_future(flood(stream))
        await settled(lambda: written)
        assert written < 100
        stream.cancel()
        await asyncio.wait([flooding])


async def settled(read: Callable[[], int]) -> None:
    """Wait until a number stays the same for a while, and is not 0: that somebody waits shows in nothing else."""
    last, same = -1, 0
    while same < 5:
        await asyncio.sleep(0.05)
        now = read()
        same = same + 1 if now == last and now else 0
        last = now


async def test_tls_only(make_door: MakeDoor) -> None:
    """With a certificate the door speaks TLS, and nothing else."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    tls = ServerTls(certificate.cert_chain_pems[0].bytes(), certificate.private_key_pem.bytes())
    listening = await make_door(DoorLimits()).serve(TcpAddress("127.0.0.1", 0), Handlers(unary={METHOD: echo}), tls=tls)
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    target = f"localhost:{listening.port}"
    try:
        async with grpc.aio.secure_channel(target, credentials) as secure:
            assert await unary(secure)(b"x", timeout=WAIT_S) == b"x"
        async with grpc.aio.insecure_channel(target) as plain:
            code, _ = await refusal(unary(plain)(b"x", timeout=WAIT_S))
            assert code is grpc.StatusCode.UNAVAILABLE
    finally:
        await listening.stop(0.0)


async def test_a_local_connection_is_known_by_its_local_end(make_door: MakeDoor, tmp_path: Path) -> None:
    """Behind a unix socket the peer is what `peer_of` says of the path that the client's end is bound to."""
    seen: list[str] = []

    async def look(call: DoorCall, request: bytes) -> bytes:
        seen.append(call.peer)
        return b""

    path = str(tmp_path / "door")
    listening = await make_door(DoorLimits()).serve(
        LocalAddress(path, lambda local: f"behind {local!r}"), Handlers(unary={METHOD: look})
    )
    try:
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            await unary(channel)(b"")
    finally:
        await listening.stop(0.0)
    assert seen == ["behind ''"]


async def test_a_taken_port_is_an_error(make_door: MakeDoor) -> None:
    """Two doors on one port would share the calls silently."""
    async with served(make_door, Handlers()) as (listening, _):
        with pytest.raises(OSError, match=str(listening.port)):
            await make_door(DoorLimits()).serve(TcpAddress("127.0.0.1", listening.port), Handlers())


async def test_two_handlers_for_one_path_are_an_error(make_door: MakeDoor) -> None:
    """Nobody could tell which one is meant."""
    held = Held()
    with pytest.raises(ValueError, match="/a/A"):
        await make_door(DoorLimits()).serve(
            TcpAddress("127.0.0.1", 0), Handlers(unary={"/a/A": echo}, bidi={"/a/A": held.bidi})
        )


PING_FRAME, GOAWAY_FRAME = 6, 7


async def ping_often(make_door: MakeDoor, interval_s_min: float) -> list[int]:
    """Ping twenty times on a connection without calls; the types of the frames that come back, up to an answer each."""
    limits = DoorLimits(client_ping_interval_s_min=interval_s_min)
    async with served(make_door, Handlers(), limits) as (listening, _), asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4))
        seen: list[int] = []
        for number in range(20):
            writer.write(b"\x00\x00\x08\x06\x00" + bytes(4) + number.to_bytes(8, "big"))
            await asyncio.sleep(0.01)  # the door measures time between pings
            while seen.count(PING_FRAME) <= number and GOAWAY_FRAME not in seen:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] != PING_FRAME or payload == number.to_bytes(8, "big"):
                    seen.append(head[3])
            if GOAWAY_FRAME in seen:
                break
        writer.transport.abort()
        return seen


async def test_pings_are_answered(make_door: MakeDoor) -> None:
    """A client that keeps the interval may ping a connection without calls for as long as it likes.

    grpc drops options that it does not know without a word, so the name of this one is tried here.
    """
    seen = await ping_often(make_door, 0.001)
    assert GOAWAY_FRAME not in seen
    assert seen.count(PING_FRAME) == 20


async def test_a_flood_of_pings_ends_the_connection(make_door: MakeDoor) -> None:
    """One that pings much oftener is told to go away."""
    assert GOAWAY_FRAME in await ping_often(make_door, 3600.0)
