"""What every network must do: each test runs over gRPC on loopback and over the network in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeAlias

import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import (
    ChannelClosed,
    DeadlineExceeded,
    MessageTooLarge,
    PeerRefused,
    PeerUnavailable,
    RefusalCode,
    StreamLost,
)
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import (
    MESSAGE_SIZE_BYTES_MAX,
    CallContext,
    ClientStream,
    Handler,
    Listening,
    MeshChannel,
    MeshStream,
    Network,
    Stream,
    StreamHandler,
    Unary,
    UnaryHandler,
)
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

GREET = Unary("/apogeemq.test.Greeter/Greet", StringValue, StringValue)
COUNT = Stream("/apogeemq.test.Counter/Count", Int64Value, StringValue)
LOAD = Unary("/apogeemq.test.Loader/Load", BytesValue, BytesValue)

CountStream: TypeAlias = MeshStream[StringValue, Int64Value]
NEVER_S = 30.0  # a deadline that no passing test reaches


class Relay:
    """A TCP relay between channel and server that can be torn apart, so that both sides see a lost connection."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.ensure_future(self._pump(source, sink))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()


class World:
    """A network with a server on it, and the power to break the connection between channel and server."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._channels: list[MeshChannel] = []
        self._listenings: list[Listening] = []

    async def serve(self, *handlers: Handler) -> Listening:
        listening = await self.network.serve("127.0.0.1", 0, handlers)
        self._listenings.append(listening)
        return listening

    def channel(self, target: str) -> MeshChannel:
        channel = self.network.channel(target)
        self._channels.append(channel)
        return channel

    async def connect(self, *handlers: Handler) -> MeshChannel:
        """Serve, and make a channel there."""
        listening = await self.serve(*handlers)
        return self.channel(f"{listening.host}:{listening.port}")

    async def connect_breakable(self, *handlers: Handler) -> MeshChannel:
        """Serve, and make a channel there that cut() breaks."""
        raise NotImplementedError

    def cut(self) -> None:
        """Break the connection of connect_breakable()."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Let time pass where it does not pass by itself."""

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        for listening in self._listenings:
            await listening.stop(0)


class GrpcWorld(World):
    def __init__(self) -> None:
        super().__init__(GrpcNetwork())
        self._relays: list[Relay] = []

    async def connect_breakable(self, *handlers: Handler) -> MeshChannel:
        relay = Relay((await self.serve(*handlers)).port)
        self._relays.append(relay)
        return self.channel(f"127.0.0.1:{await relay.start()}")

    def cut(self) -> None:
        for relay in self._relays:
            relay.cut()

    async def close(self) -> None:
        await super().close()
        self.cut()


class MemoryWorld(World):
    def __init__(self) -> None:
        self._clock = ManualClock()
        self._memory = MemoryNetwork(self._clock, SeededChance(1))
        self._target = ""
        super().__init__(self._memory)

    async def connect_breakable(self, *handlers: Handler) -> MeshChannel:
        channel = await self.connect(*handlers)
        self._target = channel.target
        return channel

    def cut(self) -> None:
        self._memory.cut(self._target)

    async def pass_time(self, seconds: float) -> None:
        await self._clock.run_for(seconds)


@pytest.fixture(params=[GrpcWorld, MemoryWorld], ids=["grpc", "memory"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world: World = request.param()
    yield world
    await world.close()


async def greet(request: StringValue, context: CallContext) -> StringValue:
    return StringValue(value=f"hello {request.value}")


async def wait_for_ever(request: StringValue, context: CallContext) -> StringValue:
    await asyncio.Event().wait()
    return StringValue()


async def count(stream: CountStream) -> None:
    """Answer each number with its text until the opener finishes."""
    while (number := await stream.receive()) is not None:
        await stream.send(StringValue(value=str(number.value)))


class Watched:
    """A stream handler that records how it ended."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.started = asyncio.Event()
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def __call__(self, stream: CountStream) -> None:
        self.started.set()
        try:
            while (number := await stream.receive()) is not None:
                self.received.append(number.value)
                await stream.send(StringValue(value=str(number.value)))
        except BaseException as error:
            self.ended.set_result(error)
            raise
        self.ended.set_result(None)


async def echo_once(stream: ClientStream[Int64Value, StringValue], number: int) -> str:
    await stream.send(Int64Value(value=number))
    reply = await stream.receive()
    assert reply is not None
    return reply.value


async def test_unary_call_returns_the_handlers_reply(world: World) -> None:
    """A unary call carries the request there and the reply back."""
    channel = await world.connect(UnaryHandler(GREET, greet))
    assert await channel.unary(GREET, StringValue(value="ann"), timeout_s=NEVER_S) == StringValue(value="hello ann")


async def test_a_server_serves_many_methods(world: World) -> None:
    """Methods are told apart by path, whatever their message types."""

    async def describe(request: Struct, context: CallContext) -> Int64Value:
        return Int64Value(value=len(request.fields))

    size = Unary("/apogeemq.test.Greeter/Size", Struct, Int64Value)
    channel = await world.connect(UnaryHandler(GREET, greet), UnaryHandler(size, describe), StreamHandler(COUNT, count))
    request = Struct()
    request.update({"a": 1, "b": "two"})
    assert (await channel.unary(size, request, timeout_s=NEVER_S)).value == 2
    assert await echo_once(channel.stream(COUNT), 7) == "7"


async def test_two_handlers_for_one_path_are_refused(world: World) -> None:
    """Serving one path twice is our own mistake, found before anything listens."""
    with pytest.raises(ValueError, match=r"two handlers for /apogeemq.test.Greeter/Greet"):
        await world.network.serve("127.0.0.1", 0, [UnaryHandler(GREET, greet), UnaryHandler(GREET, greet)])


async def test_handler_sees_caller(world: World) -> None:
    """A unary handler gets the metadata, the time left, and a peer to name in logs."""
    seen: list[CallContext] = []

    async def look(request: StringValue, context: CallContext) -> StringValue:
        seen.append(context)
        return StringValue()

    channel = await world.connect(UnaryHandler(GREET, look))
    await channel.unary(GREET, StringValue(), timeout_s=NEVER_S, metadata={"cluster-id": "c 1"})
    (context,) = seen
    assert context.metadata == {"cluster-id": "c 1"}
    assert context.timeout_s == pytest.approx(NEVER_S, abs=NEVER_S / 2)
    assert context.peer


@pytest.mark.parametrize(
    "metadata", [{"Upper": "x"}, {"grpc-x": "x"}, {"x-bin": "x"}, {"x": "line\nbreak"}, {"x": "ü"}, {"": "x"}]
)
async def test_metadata_that_cannot_travel_is_refused(world: World, metadata: dict[str, str]) -> None:
    """Keys and values outside the small alphabet are our own mistake."""
    channel = await world.connect(UnaryHandler(GREET, greet))
    with pytest.raises(ValueError, match="metadata"):
        await channel.unary(GREET, StringValue(), timeout_s=NEVER_S, metadata=metadata)


async def test_deadline(world: World) -> None:
    """A call that is not answered in time fails as such, and its handler is cancelled."""
    cancelled = asyncio.Event()

    async def hang(request: StringValue, context: CallContext) -> StringValue:
        try:
            return await wait_for_ever(request, context)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    channel = await world.connect(UnaryHandler(GREET, hang))
    call = asyncio.ensure_future(channel.unary(GREET, StringValue(), timeout_s=0.2))
    await world.pass_time(0.2)
    with pytest.raises(DeadlineExceeded, match=r"did not answer /apogeemq.test.Greeter/Greet within 0.2 s"):
        await call
    await cancelled.wait()


async def test_cancelled_caller_cancels_the_handler(world: World) -> None:
    """Cancelling the task that waits for a reply ends the work on the other side too."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(request: StringValue, context: CallContext) -> StringValue:
        started.set()
        try:
            return await wait_for_ever(request, context)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    channel = await world.connect(UnaryHandler(GREET, hang))
    call = asyncio.ensure_future(channel.unary(GREET, StringValue(), timeout_s=NEVER_S))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await cancelled.wait()


@pytest.mark.parametrize("code", list(RefusalCode))
async def test_refusal_keeps_code_and_message(world: World, code: RefusalCode) -> None:
    """What a handler refuses with is what the caller gets."""

    async def refuse(request: StringValue, context: CallContext) -> StringValue:
        raise PeerRefused(code, "broker-a: epoch 3 is older than 5 – no")

    channel = await world.connect(UnaryHandler(GREET, refuse))
    with pytest.raises(PeerRefused) as caught:
        await channel.unary(GREET, StringValue(), timeout_s=NEVER_S)
    assert (caught.value.code, caught.value.message) == (code, "broker-a: epoch 3 is older than 5 – no")


async def test_failing_handler_tells_the_log_and_not_the_peer(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is logged with its traceback; the caller learns only that the handler failed."""

    async def fail(request: StringValue, context: CallContext) -> StringValue:
        raise KeyError("secret detail")

    channel = await world.connect(UnaryHandler(GREET, fail))
    with pytest.raises(PeerRefused) as caught:
        await channel.unary(GREET, StringValue(), timeout_s=NEVER_S)
    assert caught.value.code is RefusalCode.INTERNAL
    assert "secret" not in caught.value.message
    assert "secret detail" in caplog.text


async def test_unknown_method_is_unimplemented(world: World) -> None:
    """A path that nobody serves is refused, for calls and for streams."""
    channel = await world.connect(UnaryHandler(LOAD, lambda request, context: asyncio.sleep(0, request)))
    with pytest.raises(PeerRefused) as unary:
        await channel.unary(GREET, StringValue(), timeout_s=NEVER_S)
    with pytest.raises(PeerRefused) as stream:
        await channel.stream(COUNT).receive()
    assert unary.value.code is stream.value.code is RefusalCode.UNIMPLEMENTED


async def test_nobody_listens(world: World) -> None:
    """A call or stream to a port where nobody listens finds the peer unavailable."""
    listening = await world.serve()
    await listening.stop(0)
    channel = world.channel(f"127.0.0.1:{listening.port}")
    with pytest.raises(PeerUnavailable):
        await channel.unary(GREET, StringValue(), timeout_s=NEVER_S)
    stream = channel.stream(COUNT)
    with pytest.raises(PeerUnavailable):
        await stream.receive()
    with pytest.raises(PeerUnavailable):
        await stream.send(Int64Value())


async def test_taken_port_cannot_be_bound(world: World) -> None:
    """Two servers never share a port."""
    listening = await world.serve()
    with pytest.raises(OSError, match=str(listening.port)):
        await world.network.serve("127.0.0.1", listening.port, [])


async def test_messages_up_to_the_bound_travel(world: World) -> None:
    """A message of exactly the bound travels both ways; 16 MiB is as much as a Remoting frame holds."""

    async def load(request: BytesValue, context: CallContext) -> BytesValue:
        return request

    channel = await world.connect(UnaryHandler(LOAD, load))
    # tag (1 byte) + length (4 bytes) + payload
    request = BytesValue(value=bytes(MESSAGE_SIZE_BYTES_MAX - 5))
    assert request.ByteSize() == MESSAGE_SIZE_BYTES_MAX == 16 * 1024 * 1024
    assert await channel.unary(LOAD, request, timeout_s=NEVER_S) == request


async def test_request_above_the_bound_is_not_sent(world: World) -> None:
    """A larger request fails with both sizes named, and the channel stays usable."""
    channel = await world.connect(UnaryHandler(LOAD, lambda request, context: asyncio.sleep(0, request)))
    with pytest.raises(MessageTooLarge, match=r"16777217 bytes on /apogeemq.test.Loader/Load .* bound of 16777216"):
        await channel.unary(LOAD, BytesValue(value=bytes(MESSAGE_SIZE_BYTES_MAX - 4)), timeout_s=NEVER_S)
    small = BytesValue(value=b"small")
    assert await channel.unary(LOAD, small, timeout_s=NEVER_S) == small


async def test_reply_above_the_bound_is_a_refusal(world: World) -> None:
    """A reply that is too large reaches the caller as RESOURCE_EXHAUSTED."""

    async def load(request: BytesValue, context: CallContext) -> BytesValue:
        return BytesValue(value=bytes(MESSAGE_SIZE_BYTES_MAX))

    channel = await world.connect(UnaryHandler(LOAD, load))
    with pytest.raises(PeerRefused, match="RESOURCE_EXHAUSTED: the reply is too large"):
        await channel.unary(LOAD, BytesValue(), timeout_s=NEVER_S)


async def test_stream_message_above_the_bound_leaves_the_stream_usable(world: World) -> None:
    """Only the too large message fails; what follows travels."""
    load = Stream("/apogeemq.test.Loader/Stream", BytesValue, BytesValue)

    async def echo(stream: MeshStream[BytesValue, BytesValue]) -> None:
        while (message := await stream.receive()) is not None:
            await stream.send(message)

    stream = (await world.connect(StreamHandler(load, echo))).stream(load)
    with pytest.raises(MessageTooLarge):
        await stream.send(BytesValue(value=bytes(MESSAGE_SIZE_BYTES_MAX)))
    await stream.send(BytesValue(value=b"fits"))
    assert await stream.receive() == BytesValue(value=b"fits")


async def test_bytes_of_another_message_type_are_refused(world: World) -> None:
    """A request that does not decode is the caller's mistake, and says which type was expected."""
    other = Unary(GREET.path, BytesValue, StringValue)
    channel = await world.connect(UnaryHandler(GREET, greet))
    with pytest.raises(PeerRefused, match=r"INVALID_ARGUMENT: .*StringValue"):
        await channel.unary(other, BytesValue(value=b"\xff\xfe"), timeout_s=NEVER_S)


async def test_stream_keeps_order(world: World) -> None:
    """Thousands of messages each way arrive in the order sent, while both sides send at once."""
    stream = (await world.connect(StreamHandler(COUNT, count))).stream(COUNT)

    async def send_all() -> None:
        for number in range(2000):
            await stream.send(Int64Value(value=number))
        await stream.finish()

    sending = asyncio.ensure_future(send_all())
    replies = [reply.value async for reply in drained(stream)]
    await sending
    assert replies == [str(number) for number in range(2000)]


async def drained(stream: ClientStream[Int64Value, StringValue]) -> AsyncIterator[StringValue]:
    while (reply := await stream.receive()) is not None:
        yield reply


async def test_half_close(world: World) -> None:
    """After finish() the handler sees the end, can still send, and the opener still receives."""

    async def total(stream: CountStream) -> None:
        numbers = []
        while (number := await stream.receive()) is not None:
            numbers.append(number.value)
        assert await stream.receive() is None
        await stream.send(StringValue(value=f"sum {sum(numbers)}"))

    stream = (await world.connect(StreamHandler(COUNT, total))).stream(COUNT)
    for number in (1, 2, 3):
        await stream.send(Int64Value(value=number))
    await stream.finish()
    await stream.finish()
    assert await stream.receive() == StringValue(value="sum 6")
    assert await stream.receive() is None
    assert await stream.receive() is None
    with pytest.raises(ChannelClosed, match="the sending side"):
        await stream.send(Int64Value())


async def test_handler_that_returns_finishes_the_stream(world: World) -> None:
    """What the handler sent before it returned arrives, then the end; later sends find nobody."""

    async def two(stream: CountStream) -> None:
        await stream.send(StringValue(value="one"))
        await stream.send(StringValue(value="two"))

    stream = (await world.connect(StreamHandler(COUNT, two))).stream(COUNT)
    assert [reply.value async for reply in drained(stream)] == ["one", "two"]
    with pytest.raises(StreamLost, match="the peer has ended it"):
        await stream.send(Int64Value())
    assert await stream.receive() is None


async def test_handler_that_refuses_a_stream(world: World) -> None:
    """What was sent before a refusal arrives, then the refusal; later sends find nobody."""

    async def refuse(stream: CountStream) -> None:
        await stream.send(StringValue(value="so far so good"))
        raise PeerRefused(RefusalCode.FAILED_PRECONDITION, "not the master")

    stream = (await world.connect(StreamHandler(COUNT, refuse))).stream(COUNT)
    assert await stream.receive() == StringValue(value="so far so good")
    for _ in range(2):
        with pytest.raises(PeerRefused, match="FAILED_PRECONDITION: not the master"):
            await stream.receive()
    with pytest.raises(StreamLost, match="the peer has ended it"):
        await stream.send(Int64Value())


async def test_refusal_is_not_lost_on_a_busy_sender(world: World) -> None:
    """An opener that sends and sends while the handler refuses still receives what came before, and the refusal."""
    load = Stream("/apogeemq.test.Loader/Stream", BytesValue, BytesValue)

    async def refuse(stream: MeshStream[BytesValue, BytesValue]) -> None:
        await stream.send(BytesValue(value=b"before"))
        raise PeerRefused(RefusalCode.ABORTED, "enough")

    stream = (await world.connect(StreamHandler(load, refuse))).stream(load)

    async def send_and_send() -> None:
        while True:
            await stream.send(BytesValue(value=bytes(100_000)))

    with pytest.raises(StreamLost, match="the peer has ended it"):
        await send_and_send()
    await stream.finish()
    assert await stream.receive() == BytesValue(value=b"before")
    with pytest.raises(PeerRefused, match="ABORTED: enough"):
        await stream.receive()


async def test_stream_handler_that_fails(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a stream handler is an INTERNAL refusal, also StreamLost from a stream it uses itself."""

    async def fail(stream: CountStream) -> None:
        raise StreamLost("another-peer:1", "not this one")

    stream = (await world.connect(StreamHandler(COUNT, fail))).stream(COUNT)
    with pytest.raises(PeerRefused, match="INTERNAL"):
        await stream.receive()
    assert "another-peer:1" in caplog.text


async def test_cancel_by_the_opener(world: World) -> None:
    """cancel() loses the stream for the handler and closes it for the opener."""
    watched = Watched()
    stream = (await world.connect(StreamHandler(COUNT, watched))).stream(COUNT)
    assert await echo_once(stream, 1) == "1"
    stream.cancel()
    assert isinstance(await watched.ended, StreamLost)
    with pytest.raises(ChannelClosed):
        await stream.receive()
    with pytest.raises(ChannelClosed):
        await stream.send(Int64Value())


async def test_cancel_by_the_handler(world: World) -> None:
    """A handler can drop its stream: the opener sees it lost."""

    async def drop(stream: CountStream) -> None:
        await stream.receive()
        stream.cancel()
        await stream.send(StringValue(value="too late"))

    stream = (await world.connect(StreamHandler(COUNT, drop))).stream(COUNT)
    await stream.send(Int64Value())
    with pytest.raises(StreamLost, match="cancelled by the peer"):
        await stream.receive()


async def test_cancel_wakes_a_waiting_receive(world: World) -> None:
    """A task that waits in receive() while another cancels the stream is told so."""
    watched = Watched()
    stream = (await world.connect(StreamHandler(COUNT, watched))).stream(COUNT)
    receiving = asyncio.ensure_future(stream.receive())
    await watched.started.wait()
    stream.cancel()
    with pytest.raises(ChannelClosed):
        await receiving


async def test_giving_up_a_receive_loses_nothing(world: World) -> None:
    """A receive() that is cancelled leaves the stream whole and the message to the next receive()."""
    release = asyncio.Event()

    async def late(stream: CountStream) -> None:
        await stream.receive()
        await release.wait()
        await stream.send(StringValue(value="late"))

    stream = (await world.connect(StreamHandler(COUNT, late))).stream(COUNT)
    await stream.send(Int64Value())
    for _ in range(3):
        receiving = asyncio.ensure_future(stream.receive())
        await asyncio.sleep(0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
    release.set()
    assert await stream.receive() == StringValue(value="late")


async def test_two_receivers_at_once_are_a_mistake(world: World) -> None:
    """A second receive() while one waits is refused, and the first is not disturbed."""
    stream = (await world.connect(StreamHandler(COUNT, count))).stream(COUNT)
    receiving = asyncio.ensure_future(stream.receive())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task is receiving"):
        await stream.receive()
    await stream.send(Int64Value(value=5))
    assert await receiving == StringValue(value="5")


async def test_many_senders_take_turns(world: World) -> None:
    """Any number of tasks may send on one stream; nothing is lost or doubled."""
    stream = (await world.connect(StreamHandler(COUNT, count))).stream(COUNT)
    senders = [asyncio.ensure_future(stream.send(Int64Value(value=number))) for number in range(50)]
    replies = [await stream.receive() for _ in senders]
    await asyncio.gather(*senders)
    assert sorted(int(reply.value) for reply in replies if reply) == list(range(50))


async def test_sender_waits_for_a_peer_that_does_not_read(world: World) -> None:
    """Back-pressure: with nobody reading, send() blocks long before megabytes have piled up, and goes on when read."""
    load = Stream("/apogeemq.test.Loader/Stream", BytesValue, BytesValue)
    read_on, sizes = asyncio.Event(), []

    async def slow(stream: MeshStream[BytesValue, BytesValue]) -> None:
        await read_on.wait()
        while (message := await stream.receive()) is not None:
            sizes.append(len(message.value))

    stream = (await world.connect(StreamHandler(load, slow))).stream(load)
    sent = 0

    async def send_all() -> None:
        nonlocal sent
        for _ in range(100):
            await stream.send(BytesValue(value=bytes(1_000_000)))
            sent += 1
        await stream.finish()

    sending = asyncio.ensure_future(send_all())
    done, _ = await asyncio.wait({sending}, timeout=0.3)
    assert not done
    assert sent < 100
    read_on.set()
    await sending
    assert await stream.receive() is None
    assert sizes == [1_000_000] * 100


async def test_lost_connection(world: World) -> None:
    """When the connection breaks, both sides of a stream see StreamLost and a unary call fails as unavailable."""
    watched = Watched()
    started = asyncio.Event()

    async def hang(request: StringValue, context: CallContext) -> StringValue:
        started.set()
        return await wait_for_ever(request, context)

    channel = await world.connect_breakable(StreamHandler(COUNT, watched), UnaryHandler(GREET, hang))
    stream = channel.stream(COUNT)
    assert await echo_once(stream, 1) == "1"
    receiving = asyncio.ensure_future(stream.receive())
    calling = asyncio.ensure_future(channel.unary(GREET, StringValue(), timeout_s=NEVER_S))
    await started.wait()
    world.cut()
    with pytest.raises(StreamLost):
        await receiving
    with pytest.raises(StreamLost):
        await stream.send(Int64Value())
    with pytest.raises(PeerUnavailable):
        await calling
    assert isinstance(await watched.ended, StreamLost)
    with pytest.raises(PeerUnavailable):
        await channel.unary(GREET, StringValue(), timeout_s=NEVER_S)


async def test_server_stopped(world: World) -> None:
    """Stopping a server without grace loses its streams; when stop() returns their handlers have ended."""
    watched = Watched()
    listening = await world.serve(StreamHandler(COUNT, watched))
    stream = world.channel(f"127.0.0.1:{listening.port}").stream(COUNT)
    assert await echo_once(stream, 1) == "1"
    await listening.stop(0)
    assert isinstance(await watched.ended, (StreamLost, asyncio.CancelledError))
    with pytest.raises(StreamLost):
        await stream.receive()
    await listening.stop(0)


async def test_stop_lets_running_calls_end(world: World) -> None:
    """During the grace a running call ends normally, while new ones are refused."""
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(request: StringValue, context: CallContext) -> StringValue:
        started.set()
        await release.wait()
        return StringValue(value="done")

    listening = await world.serve(UnaryHandler(GREET, slow))
    target = f"127.0.0.1:{listening.port}"
    calling = asyncio.ensure_future(world.channel(target).unary(GREET, StringValue(), timeout_s=NEVER_S))
    await started.wait()
    stopping = asyncio.ensure_future(listening.stop(NEVER_S))
    await asyncio.sleep(0)
    with pytest.raises(PeerUnavailable):
        await world.channel(target).unary(GREET, StringValue(), timeout_s=NEVER_S)
    release.set()
    assert await calling == StringValue(value="done")
    await stopping


async def test_channel_connects_again(world: World) -> None:
    """A channel outlives its server: the next call after a restart on the same port goes through."""
    first = await world.serve(UnaryHandler(GREET, greet))
    channel = world.channel(f"127.0.0.1:{first.port}")
    await channel.unary(GREET, StringValue(), timeout_s=NEVER_S)
    await first.stop(0)
    second = await world.network.serve("127.0.0.1", first.port, [UnaryHandler(GREET, greet)])
    reply = None
    while reply is None:
        try:
            reply = await channel.unary(GREET, StringValue(value="again"), timeout_s=NEVER_S)
        except PeerUnavailable:
            await asyncio.sleep(0)
    assert reply.value == "hello again"
    await second.stop(0)


async def test_closed_channel(world: World) -> None:
    """Closing a channel ends what runs on it, and refuses what comes after."""
    watched = Watched()
    started = asyncio.Event()

    async def hang(request: StringValue, context: CallContext) -> StringValue:
        started.set()
        return await wait_for_ever(request, context)

    channel = await world.connect(StreamHandler(COUNT, watched), UnaryHandler(GREET, hang))
    stream = channel.stream(COUNT)
    assert await echo_once(stream, 1) == "1"
    calling = asyncio.ensure_future(channel.unary(GREET, StringValue(), timeout_s=NEVER_S))
    await started.wait()
    await channel.close()
    await channel.close()
    with pytest.raises(ChannelClosed):
        await calling
    with pytest.raises(ChannelClosed):
        await stream.receive()
    assert isinstance(await watched.ended, StreamLost)
    with pytest.raises(ChannelClosed):
        await channel.unary(GREET, StringValue(), timeout_s=NEVER_S)
    with pytest.raises(ChannelClosed):
        channel.stream(COUNT)


async def test_hundred_streams_at_once(world: World) -> None:
    """A hundred streams over one channel do not mix."""
    channel = await world.connect(StreamHandler(COUNT, count))

    async def one(number: int) -> Sequence[str]:
        stream = channel.stream(COUNT)
        replies = [await echo_once(stream, number * 1000 + step) for step in range(5)]
        await stream.finish()
        assert await stream.receive() is None
        return replies

    results = await asyncio.gather(*(one(number) for number in range(100)))
    assert list(results) == [[str(number * 1000 + step) for step in range(5)] for number in range(100)]


async def test_stream_metadata_is_seen_from_both_sides(world: World) -> None:
    """What the opener sends along is readable on its stream and on the handler's."""
    seen = []

    async def look(stream: CountStream) -> None:
        seen.append((stream.metadata, bool(stream.peer)))

    channel = await world.connect(StreamHandler(COUNT, look))
    stream = channel.stream(COUNT, metadata={"class": "fetch"})
    assert await stream.receive() is None
    assert seen == [({"class": "fetch"}, True)]
    assert (stream.metadata, stream.peer) == ({"class": "fetch"}, channel.target)
