"""Calls in batches over streams: the same tests on the network in memory and on gRPC over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest
from apogeemq.mesh import call_frames
from apogeemq.mesh.call_answers import CALLER_KEY, call_handlers
from apogeemq.mesh.call_streams import PAUSE_S_MAX, StreamCaller
from apogeemq.mesh.calls import Call, Channel
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import Clock, ManualClock, SystemClock
from apogeemq.mesh.errors import (
    CallRefused,
    CallsOverloaded,
    ChannelClosed,
    DeadlineExceeded,
    MeshError,
    MessageTooLarge,
    PeerRefused,
    PeerUnavailable,
    RefusalCode,
    StreamLost,
)
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import CallTracing, Listening, MeshStream, Network, StreamHandler
from apogeemq.mesh.telemetry import MeshTracing
from apogeemq.mesh.v1.calls_pb2 import ENTRY_REPLY, ENTRY_REQUEST, Entry, Frame
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

from packages.mesh.tests.calls_service import (
    ACK,
    ACK_WAIT,
    CHANNELS,
    ECHO,
    FAIL,
    REFUSE,
    SEND_WAIT,
    TAKE,
    UNKNOWN,
    WAIT,
    WRONG,
    Service,
)

T = TypeVar("T")
SERVICE = "apogeemq.mesh.v1.BrokerService"
TIMEOUT_S = 30.0
TURNS_MAX = 1_000_000


class World:
    """A service that listens, and a caller of it. The network makes spans as well, where a stream is in a trace."""

    def __init__(self, network_of: Callable[[CallTracing], Network], clock: Clock) -> None:
        self.clock = clock
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.service = Service(self.tracer)
        self.network = network_of(MeshTracing(self.tracer))
        self.listening: Listening
        self.caller: StreamCaller

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.listening.port}"

    async def start(self, port: int = 0) -> None:
        handlers = call_handlers(CHANNELS, self.service.table, clock=self.clock)
        self.listening = await self.network.serve("127.0.0.1", port, handlers)

    def new_caller(self, target: str | None = None) -> StreamCaller:
        return StreamCaller(
            self.network,
            target or self.target,
            CHANNELS,
            clock=self.clock,
            tracer=self.tracer,
            chance=SeededChance(1),
            metadata={"who": "test"},
        )

    async def until(self, done: Callable[[], bool]) -> None:
        """Let other tasks run, and I/O happen, until something is so; fails after TURNS_MAX turns of the loop."""
        for _ in range(TURNS_MAX):
            if done():
                return
            await asyncio.sleep(0)
        pytest.fail("what was waited for did not happen")

    async def ack(self, value: str) -> str:
        return (await self.caller.call(ACK, StringValue(value=value), timeout_s=TIMEOUT_S)).value

    def wait(self, value: str, timeout_s: float = TIMEOUT_S) -> asyncio.Future[StringValue]:
        return asyncio.ensure_future(self.caller.call(WAIT, StringValue(value=value), timeout_s=timeout_s))


def in_memory() -> World:
    clock = ManualClock()
    return World(lambda tracing: MemoryNetwork(clock, SeededChance(1), tracing=tracing), clock)


@pytest.fixture(params=["grpc", "memory"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """The service and a caller, on either network."""
    if request.param == "grpc":
        world = World(lambda tracing: GrpcNetwork(tracing=tracing), SystemClock())
    else:
        world = in_memory()
    await world.start()
    world.caller = world.new_caller()
    yield world
    await world.caller.close()
    await world.listening.stop(0)


@pytest.fixture
async def memory() -> AsyncIterator[World]:
    """The same in memory only, for what needs weather or a clock moved by hand."""
    world = in_memory()
    await world.start()
    world.caller = world.new_caller()
    yield world
    await world.caller.close()
    await world.listening.stop(0)


def weather(world: World) -> MemoryNetwork:
    assert isinstance(world.network, MemoryNetwork)
    return world.network


def manual(world: World) -> ManualClock:
    assert isinstance(world.clock, ManualClock)
    return world.clock


async def error_of(work: Awaitable[object]) -> MeshError:
    with pytest.raises(MeshError) as raised:
        await work
    return raised.value


async def test_calls_and_replies(world: World) -> None:
    """Replies come back to their own askers, on each channel; the answers know the peer and one owner for all."""
    assert await asyncio.gather(*(world.ack(f"{number}") for number in range(50))) == [f"{n}" for n in range(50)]
    await world.caller.call(ECHO, BytesValue(value=b"body"), timeout_s=TIMEOUT_S)
    world.service.release.set()
    await world.wait("a")
    infos = [info for _, info in world.service.infos]
    assert len({info.owner for info in infos}) == 1
    assert all(info.peer for info in infos)
    assert all(info.trace is None for info in infos)
    assert 0 < infos[0].deadline - world.clock.monotonic() <= TIMEOUT_S


async def test_a_thousand_in_flight(world: World) -> None:
    """1,000 calls wait at the same time; all are answered when they may be, and nothing is left of them."""
    waits = [world.wait(f"{number}") for number in range(1000)]
    await world.until(lambda: len(world.service.started) == 1000)
    assert not any(wait.done() for wait in waits)
    world.service.release.set()
    assert [reply.value for reply in await asyncio.gather(*waits)] == [f"{number}" for number in range(1000)]


async def test_refusals(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal comes with code and text; a failure is logged there and tells nothing; an unknown call says so."""
    refused = await error_of(world.caller.call(REFUSE, StringValue(value="no topic T"), timeout_s=TIMEOUT_S))
    assert isinstance(refused, CallRefused)
    assert (refused.code, refused.text) == (17, "no topic T")
    with caplog.at_level(logging.ERROR):
        failed = await error_of(world.caller.call(FAIL, StringValue(), timeout_s=TIMEOUT_S))
    assert isinstance(failed, CallRefused)
    assert failed.code == 1
    assert "secret" not in failed.text
    assert "secret" in caplog.text
    unknown = await error_of(world.caller.call(UNKNOWN, StringValue(), timeout_s=TIMEOUT_S))
    assert isinstance(unknown, CallRefused)
    assert unknown.code == 3


async def test_bytes_that_are_no_request(world: World) -> None:
    """A payload that is not what the call takes is refused, naming what it should be."""
    wrong = Call(ACK.number, "Ack", BytesValue, StringValue, Channel.CONTROL)
    refused = await error_of(world.caller.call(wrong, BytesValue(value=b"\xff\xff"), timeout_s=TIMEOUT_S))
    assert isinstance(refused, CallRefused)
    assert refused.code == 1
    assert "google.protobuf.StringValue" in refused.text


async def test_bytes_that_are_no_reply(world: World) -> None:
    """A reply that is not what the call gives fails that call alone."""
    wrong = Call(ECHO.number, "Echo", BytesValue, StringValue, Channel.SEND)
    refused = await error_of(world.caller.call(wrong, BytesValue(value=b"\xff\xff"), timeout_s=TIMEOUT_S))
    assert isinstance(refused, CallRefused)
    assert await world.ack("a") == "a"


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_answers_that_are_no_reply(world: World, when: str) -> None:
    """A function that gives something else than its reply has failed; the asker does not wait for ever."""
    refused = await error_of(world.caller.call(WRONG, StringValue(value=when), timeout_s=TIMEOUT_S))
    assert isinstance(refused, CallRefused)
    assert refused.code == 1


async def test_too_large_and_overloaded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls beyond our own bounds are refused here, and the stream stays as it was."""
    large = BytesValue(value=b"x" * (16 * 1024 * 1024))
    assert isinstance(await error_of(world.caller.call(ECHO, large, timeout_s=TIMEOUT_S)), MessageTooLarge)
    monkeypatch.setattr(call_frames, "IN_FLIGHT_MAX", 2)
    waits = [world.wait("a"), world.wait("b")]
    await asyncio.sleep(0)
    assert isinstance(await error_of(world.wait("c")), CallsOverloaded)
    world.service.release.set()
    await asyncio.gather(*waits)


@pytest.mark.parametrize("channel_of_its_own", [False, True])
async def test_small_acks_overtake_large_bodies(world: World, channel_of_its_own: bool) -> None:
    """Small calls are answered while 4 MiB bodies are under way, on a channel of their own and on the same one."""
    body = BytesValue(value=bytes(4 * 1024 * 1024))
    small = BytesValue(value=b"small")
    order: list[str] = []

    async def ask(name: str, work: Awaitable[object]) -> None:
        await work
        order.append(name)

    await world.caller.call(ECHO, small, timeout_s=TIMEOUT_S)
    await world.ack("first")
    large = [ask("large", world.caller.call(ECHO, body, timeout_s=TIMEOUT_S)) for _ in range(4)]
    if channel_of_its_own:
        last = ask("small", world.ack("small"))
    else:
        last = ask("small", world.caller.call(ECHO, small, timeout_s=TIMEOUT_S))
    await asyncio.gather(*large, last)
    assert order == ["small", "large", "large", "large", "large"]


async def test_slow_peers_hold_the_sender(world: World) -> None:
    """A peer that is not done with what it got gets no more than the window; the rest waits here, and is bounded."""
    body = BytesValue(value=bytes(8 * 1024 * 1024 - 100))
    sends = [asyncio.ensure_future(world.caller.call(SEND_WAIT, body, timeout_s=TIMEOUT_S)) for _ in range(6)]
    await world.until(lambda: len(world.service.started) == 4)
    assert await world.ack("others go on") == "others go on"
    assert len(world.service.started) == 4
    world.service.release.set()
    await asyncio.gather(*sends)
    assert len(world.service.started) == 6


async def test_cancelling(world: World) -> None:
    """Cancelling the task that asks cancels the answer on the other side, and no other."""
    waits = [world.wait("a"), world.wait("b")]
    await world.until(lambda: len(world.service.started) == 2)
    waits[0].cancel()
    await world.until(lambda: world.service.cancelled == ["a"])
    world.service.release.set()
    assert (await waits[1]).value == "b"
    with pytest.raises(asyncio.CancelledError):
        await waits[0]


async def test_deadlines_over_grpc_too(world: World) -> None:
    """An asker whose time is up is told so, and the answer is cancelled."""
    if isinstance(world.clock, ManualClock):
        wait = world.wait("a", timeout_s=1.0)
        await world.until(lambda: world.service.started == ["a"])
        await world.clock.run_for(1.1)
    else:
        wait = world.wait("a", timeout_s=0.2)
    error = await error_of(wait)
    assert isinstance(error, DeadlineExceeded)
    assert "did not answer Wait within" in str(error)
    await world.until(lambda: world.service.cancelled == ["a"])
    assert await world.ack("still works") == "still works"


async def test_answers_end_at_their_deadline_by_themselves(memory: World) -> None:
    """The answering side gives up at the deadline also when the asker's word does not come through."""
    memory.wait("a", timeout_s=5.0)
    await memory.until(lambda: memory.service.started == ["a"])
    weather(memory).delay(memory.target, 100.0, 100.0)
    await manual(memory).run_for(5.1)
    assert memory.service.cancelled == ["a"]


async def test_calls_that_wait_to_be_sent_have_deadlines(memory: World) -> None:
    """A call that never left ends at its deadline like any other."""
    body = BytesValue(value=bytes(16 * 1024 * 1024 - 100))
    sends = [asyncio.ensure_future(memory.caller.call(SEND_WAIT, body, timeout_s=9.0)) for _ in range(3)]
    late = asyncio.ensure_future(memory.caller.call(ECHO, BytesValue(), timeout_s=1.0))
    await manual(memory).run_for(2.0)
    assert isinstance(await error_of(late), DeadlineExceeded)
    memory.service.release.set()
    await asyncio.gather(*sends)


class TestLateReplies:
    """Replies to askers that have given up."""

    async def take(
        self, world: World, value: str, timeout_s: float = TIMEOUT_S, late: list[StringValue] | None = None
    ) -> str:
        on_late = None if late is None else late.append
        request = StringValue(value=value)
        return (await world.caller.call(TAKE, request, timeout_s=timeout_s, on_late=on_late)).value

    @pytest.mark.parametrize(("end", "timeout_s"), [("cancelled", 9.0), ("out of time", 3.0)])
    async def test_one_that_passes_the_cancellation(self, memory: World, end: str, timeout_s: float) -> None:
        """The asker goes as it would; the reply that was under way is handed over when it comes, once."""
        await self.take(memory, "connected")
        late: list[StringValue] = []
        weather(memory).delay(memory.target, 2.0, 2.0)
        asking = asyncio.ensure_future(self.take(memory, "a", timeout_s, late))
        await manual(memory).run_for(3.1)
        assert memory.service.taken == ["connected", "a"]
        asking.cancel()
        with pytest.raises(asyncio.CancelledError if end == "cancelled" else DeadlineExceeded):
            await asking
        assert late == []
        await manual(memory).run_for(9.0)
        assert late == [StringValue(value="a")]
        weather(memory).heal(memory.target)
        assert await self.take(memory, "b") == "b"

    async def test_nobody_else_is_told(self, memory: World) -> None:
        """A reply in time, a refusal and a cancelled answer are none; neither is what is lost with its stream."""
        late: list[StringValue] = []
        assert await self.take(memory, "in time", late=late) == "in time"
        waiting = memory.caller.call(WAIT, StringValue(value="a"), timeout_s=TIMEOUT_S, on_late=late.append)
        cancelled = asyncio.ensure_future(waiting)
        await memory.until(lambda: memory.service.started == ["a"])
        cancelled.cancel()
        await memory.until(lambda: memory.service.cancelled == ["a"])
        weather(memory).delay(memory.target, 2.0, 2.0)
        asking = asyncio.ensure_future(self.take(memory, "lost", late=late))
        await manual(memory).run_for(3.0)
        asking.cancel()
        await manual(memory).run_for(0.1)
        weather(memory).cut(memory.target)
        await manual(memory).run_for(9.0)
        assert memory.service.taken == ["in time", "lost"]
        assert late == []

    async def test_bytes_that_are_no_reply(self, memory: World, caplog: pytest.LogCaptureFixture) -> None:
        """A late reply that can't be read is logged and handed to nobody."""
        wrong = Call(ECHO.number, "Echo", BytesValue, StringValue, Channel.SEND)
        await memory.caller.call(ECHO, BytesValue(), timeout_s=TIMEOUT_S)
        weather(memory).delay(memory.target, 2.0, 2.0)
        late: list[StringValue] = []
        ask = memory.caller.call(wrong, BytesValue(value=b"\xff\xff"), timeout_s=3.0, on_late=late.append)
        asking = asyncio.ensure_future(ask)
        await manual(memory).run_for(9.0)
        assert isinstance(asking.exception(), DeadlineExceeded)
        assert late == []
        assert "is no google.protobuf.StringValue" in caplog.text

    async def test_a_hook_that_fails(self, memory: World, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged, and the stream goes on."""

        def fail(reply: StringValue) -> None:
            raise KeyError(reply.value)

        await self.take(memory, "connected")
        weather(memory).delay(memory.target, 2.0, 2.0)
        ask = memory.caller.call(TAKE, StringValue(value="a"), timeout_s=3.0, on_late=fail)
        asking = asyncio.ensure_future(ask)
        await manual(memory).run_for(9.0)
        assert isinstance(asking.exception(), DeadlineExceeded)
        assert "a late reply could not be dealt with" in caplog.text
        weather(memory).heal(memory.target)
        assert await self.take(memory, "b") == "b"

    async def test_outside_of_any_trace(self, memory: World) -> None:
        """Whatever was current where it was asked, nothing is where the late reply is handed over."""
        await self.take(memory, "connected")
        seen: list[SpanContext] = []
        weather(memory).delay(memory.target, 2.0, 2.0)
        with memory.tracer.start_as_current_span("root"):
            asking = asyncio.ensure_future(
                memory.caller.call(
                    TAKE,
                    StringValue(),
                    timeout_s=3.0,
                    on_late=lambda reply: seen.append(trace.get_current_span().get_span_context()),
                )
            )
        await manual(memory).run_for(9.0)
        assert isinstance(asking.exception(), DeadlineExceeded)
        assert [context.is_valid for context in seen] == [False]

    async def test_a_cancellation_at_any_turn(self, world: World) -> None:
        """In whichever turn of the loop the asker is cancelled: what was handed out it gets, or gets late; once."""
        got: list[str] = []
        late: list[StringValue] = []
        await self.take(world, "connected")
        for turns in range(60):
            asking = asyncio.ensure_future(self.take(world, f"{turns}", late=late))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got.append(await asking)
            await self.take(world, "the next on the same stream: the one before has ended")
            handed_out = [value for value in world.service.taken if value.isdecimal()]
            assert sorted(handed_out) == sorted(got + [reply.value for reply in late])
        if isinstance(world.clock, ManualClock):  # over sockets it takes as many turns as it takes
            assert got != []
            assert late != []


class TestLoss:
    """Streams that break with calls on them."""

    async def test_what_was_sent_is_unknown(self, memory: World) -> None:
        """A call that was sent fails with StreamLost; its answer is cancelled there."""
        wait = memory.wait("a")
        await memory.until(lambda: memory.service.started == ["a"])
        weather(memory).cut(memory.target)
        error = await error_of(wait)
        assert isinstance(error, StreamLost)
        assert "the network was cut" in str(error)
        await memory.until(lambda: memory.service.cancelled == ["a"])

    async def test_what_was_not_sent_is_safe(self, memory: World) -> None:
        """A call that waited for its turn when the stream was lost was never sent, and says so."""
        body = BytesValue(value=bytes(16 * 1024 * 1024 - 100))
        sends = [asyncio.ensure_future(memory.caller.call(SEND_WAIT, body, timeout_s=9.0)) for _ in range(3)]
        await memory.until(lambda: len(memory.service.started) == 2)
        weather(memory).cut(memory.target)
        errors = [await error_of(send) for send in sends]
        assert [type(error) for error in errors] == [StreamLost, StreamLost, PeerUnavailable]

    async def test_nobody_there(self, world: World) -> None:
        """Without a listener a call fails as never sent; further ones fail at once during the pause."""
        caller = world.new_caller("127.0.0.1:1")
        for _ in range(2):
            error = await error_of(caller.call(ACK, StringValue(), timeout_s=TIMEOUT_S))
            assert isinstance(error, PeerUnavailable)
        assert "the next attempt is in" in str(error)
        await caller.close()

    async def test_reconnects(self, memory: World) -> None:
        """After a loss the next call makes a new stream; after a failure, when the pause is over."""
        await memory.ack("a")
        weather(memory).cut(memory.target)
        await asyncio.sleep(0)
        weather(memory).heal(memory.target)
        await manual(memory).run_for(0)
        assert await memory.ack("b") == "b"
        weather(memory).cut(memory.target)
        for _ in range(8):
            await manual(memory).run_for(PAUSE_S_MAX)
            assert isinstance(await error_of(memory.ack("c")), PeerUnavailable)
        weather(memory).heal(memory.target)
        await manual(memory).run_for(PAUSE_S_MAX)
        assert await memory.ack("d") == "d"

    async def test_listener_comes_back(self, world: World) -> None:
        """A service that is started again on its port is used again, over either network."""
        await world.ack("a")
        port = world.listening.port
        await world.listening.stop(0)
        await world.start(port)
        while True:
            try:
                assert await world.ack("b") == "b"
                break
            except (PeerUnavailable, StreamLost):
                if isinstance(world.clock, ManualClock):
                    await world.clock.run_for(0.1)
                await asyncio.sleep(0)

    async def test_idempotent_calls_are_asked_again(self, memory: World) -> None:
        """An idempotent call survives losses and failed attempts until it is answered; it may be answered twice."""
        wait = asyncio.ensure_future(memory.caller.call(ACK_WAIT, StringValue(value="a"), timeout_s=20.0))
        await memory.until(lambda: memory.service.started == ["a"])
        weather(memory).cut(memory.target)
        await manual(memory).run_for(3.0)
        assert not wait.done()
        weather(memory).heal(memory.target)
        await manual(memory).run_for(PAUSE_S_MAX)
        assert memory.service.started == ["a", "a"]
        memory.service.release.set()
        assert (await wait).value == "a"

    async def test_idempotent_calls_end_at_their_deadline(self, memory: World) -> None:
        """Asking again ends with the deadline, and with the asker's cancellation."""
        first = asyncio.ensure_future(memory.caller.call(ACK_WAIT, StringValue(value="a"), timeout_s=5.0))
        second = asyncio.ensure_future(memory.caller.call(ACK_WAIT, StringValue(value="b"), timeout_s=5.0))
        await memory.until(lambda: len(memory.service.started) == 2)
        weather(memory).cut(memory.target)
        await manual(memory).run_for(1.0)
        second.cancel()
        await manual(memory).run_for(4.1)
        assert isinstance(await error_of(first), DeadlineExceeded)
        weather(memory).heal(memory.target)
        await manual(memory).run_for(PAUSE_S_MAX * 2)
        assert memory.service.started == ["a", "b"]

    async def test_others_are_not_asked_again(self, memory: World) -> None:
        """A call that is not idempotent is never sent twice."""
        wait = memory.wait("a")
        await memory.until(lambda: memory.service.started == ["a"])
        weather(memory).cut(memory.target)
        await error_of(wait)
        weather(memory).heal(memory.target)
        await manual(memory).run_for(PAUSE_S_MAX)
        memory.service.release.set()
        await memory.wait("b")
        assert memory.service.started == ["a", "b"]


class TestOwner:
    """Who hangs on a caller's streams."""

    async def test_gone_once_when_all_streams_are(self, world: World) -> None:
        """The table is told once, when the last of the caller's streams is gone."""
        await world.ack("a")
        await world.caller.call(ECHO, BytesValue(), timeout_s=TIMEOUT_S)
        (owner,) = {info.owner for _, info in world.service.infos}
        assert world.service.gone == []
        await world.caller.close()
        await world.until(lambda: world.service.gone != [])
        assert world.service.gone == [owner]

    async def test_callers_are_owners_of_their_own(self, world: World) -> None:
        """Two callers are two owners; one that goes takes nothing of the other with it."""
        other = world.new_caller()
        await other.call(ACK, StringValue(), timeout_s=TIMEOUT_S)
        await world.ack("a")
        first, second = (info.owner for _, info in world.service.infos)
        assert first != second
        await other.close()
        await world.until(lambda: world.service.gone != [])
        assert world.service.gone == [first]

    async def test_answers_have_ended_before(self, world: World) -> None:
        """What a lost caller waited for is cancelled before the table hears that it is gone."""
        wait = world.wait("a")
        await world.until(lambda: world.service.started == ["a"])
        await world.caller.close()
        await world.until(lambda: world.service.gone != [])
        assert world.service.cancelled_before_gone == ["a"]
        assert isinstance(await error_of(wait), ChannelClosed)


async def test_close(world: World) -> None:
    """Closing fails what waits, and later calls; closing again does nothing."""
    wait = world.wait("a")
    await world.until(lambda: world.service.started == ["a"])
    await world.caller.close()
    await world.caller.close()
    assert isinstance(await error_of(wait), ChannelClosed)
    assert isinstance(await error_of(world.ack("b")), ChannelClosed)


async def test_a_frame_of_many_calls_lets_others_work(memory: World) -> None:
    """While thousands of small calls of one frame are answered, other tasks get their turns."""
    turns: list[int] = []
    answered = memory.service.infos

    async def other() -> None:
        while True:
            turns.append(len(answered))
            await asyncio.sleep(0)

    channel = memory.network.channel(memory.target)
    stream = channel.stream(CHANNELS[Channel.CONTROL])
    working = asyncio.ensure_future(other())
    entries = [Entry(id=number, kind=ENTRY_REQUEST, method=ACK.number) for number in range(1, 1001)]
    await stream.send(Frame(entries=entries))
    await memory.until(lambda: len(answered) == 1000)
    working.cancel()
    assert max(later - before for before, later in itertools.pairwise(turns)) < 100
    await channel.close()


async def test_askers_that_break_the_rules(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A stream against the rules is refused with the reason; other streams do not notice."""
    channel = world.network.channel(world.target)
    stream = channel.stream(CHANNELS[Channel.CONTROL], metadata={CALLER_KEY: "mallory"})
    await stream.send(Frame(entries=[Entry(id=7, kind=ENTRY_REPLY)]))
    with caplog.at_level(logging.WARNING):
        refused = await error_of(stream.receive())
    assert isinstance(refused, PeerRefused)
    assert refused.code is RefusalCode.INVALID_ARGUMENT
    assert "kind 2 from the asking side" in refused.message
    assert "broke the rules" in caplog.text
    assert await world.ack("a") == "a"
    await channel.close()


async def test_answerers_that_break_the_rules(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A stream whose other side breaks the rules is lost, as for its calls; the next attempt comes after a pause."""

    async def babble(stream: MeshStream[Frame, Frame]) -> None:
        while await stream.receive() is not None:
            await stream.send(Frame(entries=[Entry(id=77, kind=ENTRY_REPLY)]))

    handlers = [StreamHandler(stream, babble) for stream in CHANNELS.values()]
    babbling = await world.network.serve("127.0.0.1", 0, handlers)
    caller = world.new_caller(f"127.0.0.1:{babbling.port}")
    with caplog.at_level(logging.WARNING):
        error = await error_of(caller.call(WAIT, StringValue(), timeout_s=TIMEOUT_S))
    assert isinstance(error, StreamLost)
    assert "answer to 77, which is not asked" in str(error)
    assert isinstance(await error_of(caller.call(WAIT, StringValue(), timeout_s=TIMEOUT_S)), PeerUnavailable)
    await caller.close()
    await babbling.stop(0)


@pytest.mark.parametrize("side", [call_frames.Asker, call_frames.Answerer])
async def test_a_writer_that_fails_ends_its_stream(
    world: World, side: type, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours while a frame is made ends the stream, so that nobody waits for it until the deadline."""

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(side, "frame", fail)
    with caplog.at_level(logging.ERROR):
        error = await error_of(world.caller.call(WAIT, StringValue(), timeout_s=TIMEOUT_S))
    assert isinstance(error, (StreamLost, PeerUnavailable))
    assert "frames can't be written" in caplog.text


class TestTraces:
    """Spans around single calls, whatever else is in their frame."""

    async def test_two_traces_in_one_frame(self, world: World) -> None:
        """Calls of two traces that share a frame have a client and a server span each, under their own parents."""
        await world.ack("connected, so that the next calls share a frame")
        roots: dict[str, SpanContext] = {}

        async def ask(name: str, call: Callable[[str], Awaitable[object]]) -> None:
            with world.tracer.start_as_current_span(name) as root:
                roots[name] = root.get_span_context()
                await call(name)

        world.service.release.set()
        await asyncio.gather(
            ask("one", world.ack), ask("two", world.ack), world.ack("untraced"), ask("three", world.wait)
        )
        spans = {span.context.span_id: span for span in world.exporter.get_finished_spans() if span.context}
        for name, call in (("one", "Ack"), ("two", "Ack"), ("three", "Wait")):
            server = spans[world.service.spans[name].span_id]
            client = spans[_parent(server)]
            assert (server.name, client.name) == (f"{SERVICE}/{call}",) * 2
            assert (server.kind, client.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
            assert _parent(client) == roots[name].span_id
            assert world.service.spans[name].trace_id == roots[name].trace_id
        assert not world.service.spans["untraced"].is_valid
        assert len(spans) == 9
        told = {info.trace.span_id for _, info in world.service.infos if info.trace is not None}
        assert told == {world.service.spans[name].span_id for name in roots}

    async def test_a_stream_belongs_to_no_trace(self, world: World) -> None:
        """The call that happens to open the stream leaves its trace on nothing but itself."""
        with world.tracer.start_as_current_span("opens"):
            await world.ack("a")
        await world.ack("b")
        assert world.service.spans["a"].is_valid
        assert not world.service.spans["b"].is_valid
        await world.caller.close()
        await world.until(lambda: world.service.gone != [])
        names = sorted(span.name for span in world.exporter.get_finished_spans())
        assert names == [f"{SERVICE}/Ack", f"{SERVICE}/Ack", "opens"]

    async def test_a_stream_opened_inside_a_trace(self, world: World) -> None:
        """Calls without a trace stay so on a stream that its opener has put into one."""
        channel = world.network.channel(world.target)
        with world.tracer.start_as_current_span("opens"):
            stream = channel.stream(CHANNELS[Channel.CONTROL], metadata={CALLER_KEY: "other"})
        payload = StringValue(value="a").SerializeToString()
        await stream.send(Frame(entries=[Entry(id=1, kind=ENTRY_REQUEST, method=ACK.number, payload=payload)]))
        assert await stream.receive() is not None
        assert not world.service.spans["a"].is_valid
        await channel.close()

    async def test_unsampled_contexts_travel(self, world: World) -> None:
        """An unsampled trace makes no span, and its context and state reach the answer."""
        context = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(0), trace_state=TraceState([("v", "x")]))
        with trace.use_span(NonRecordingSpan(context)):
            await world.ack("a")
        seen = world.service.spans["a"]
        assert (seen.trace_id, seen.span_id, seen.trace_flags, seen.trace_state) == (7, 8, 0, context.trace_state)
        assert world.exporter.get_finished_spans() == ()
        assert world.service.infos[0][1].trace is None

    async def test_refusals_and_failures_in_spans(self, world: World) -> None:
        """A refused call has its code in both spans, a failed one the error's type at the service."""
        with world.tracer.start_as_current_span("root"):
            await error_of(world.caller.call(REFUSE, StringValue(), timeout_s=TIMEOUT_S))
            await error_of(world.caller.call(FAIL, StringValue(), timeout_s=TIMEOUT_S))
        found = {
            (span.name.rpartition("/")[2], span.kind): (span.attributes or {}).get("error.type")
            for span in world.exporter.get_finished_spans()
        }
        assert found == {
            ("Refuse", SpanKind.CLIENT): "17",
            ("Refuse", SpanKind.SERVER): "17",
            ("Fail", SpanKind.CLIENT): "1",
            ("Fail", SpanKind.SERVER): "KeyError",
            ("root", SpanKind.INTERNAL): None,
        }


def _parent(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id
