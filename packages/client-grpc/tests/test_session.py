"""The Telemetry stream to one access point, on a clock that is moved by hand."""

import asyncio
import logging

import pytest
from apogeemq.client_api.errors import ConnectionBroken, StartFailed
from apogeemq.client_grpc.session import (
    COMMAND_WAIT_S,
    COMMANDS_AT_ONCE_MAX,
    REOPEN_S,
    SETTINGS_TIMEOUT_S,
    Session,
)
from apogeemq.mesh.clock import ManualClock
from apogeemq.proto.v2 import definition_pb2 as d
from apogeemq.proto.v2 import service_pb2 as s

OK = d.Status(code=d.Code.OK)


class Stream:
    """One side of a stream, played by the test."""

    def __init__(self) -> None:
        self.written: list[s.TelemetryCommand] = []
        self.to_read: asyncio.Queue[s.TelemetryCommand | Exception | None] = asyncio.Queue()
        self.cancelled = False

    async def write(self, command: s.TelemetryCommand) -> None:
        self.written.append(command)

    async def read(self) -> s.TelemetryCommand | None:
        part = await self.to_read.get()
        if isinstance(part, Exception):
            raise part
        return part

    def cancel(self) -> None:
        self.cancelled = True


class World:
    """A session and everything around it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.streams: list[Stream] = []
        self.settings: list[d.Settings] = []
        self.answer: s.TelemetryCommand | Exception | None = None
        self.commands: list[s.TelemetryCommand] = []
        self.go_on: asyncio.Event | None = None  # what answers wait for
        self.session = Session(
            "proxy:8081",
            open_stream=self._open,
            describe=lambda: d.Settings(client_type=d.ClientType.PRODUCER),
            on_settings=self.settings.append,
            on_command=self._command,
            clock=self.clock,
            jitter=lambda: 0.5,
        )

    def _open(self) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    async def _command(self, command: s.TelemetryCommand) -> s.TelemetryCommand | None:
        self.commands.append(command)
        if self.go_on is not None:
            await self.go_on.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def started(self) -> Stream:
        """Start, and let the server answer."""
        starting = asyncio.create_task(self.session.start())
        await self.clock.run_for(0.1)
        self.streams[-1].to_read.put_nowait(settings(max_attempts=5))
        await starting
        return self.streams[-1]


def settings(max_attempts: int) -> s.TelemetryCommand:
    return s.TelemetryCommand(status=OK, settings=d.Settings(backoff_policy=d.RetryPolicy(max_attempts=max_attempts)))


async def test_settings_come_first_and_are_answered() -> None:
    """The stream opens with the client's settings; the session is ready when the server's have come."""
    world = World()
    stream = await world.started()
    assert [each.settings.client_type for each in stream.written] == [d.ClientType.PRODUCER]
    assert world.settings[0].backoff_policy.max_attempts == 5
    assert world.session.ready
    await world.session.close()
    assert stream.cancelled
    assert not world.session.ready


async def test_a_silent_server_fails_the_start_after_3_seconds() -> None:
    """The error says where and what to look at; nothing is left running."""
    world = World()
    starting = asyncio.create_task(world.session.start())
    await world.clock.run_for(SETTINGS_TIMEOUT_S - 0.01)
    assert not starting.done()
    await world.clock.run_for(0.02)
    with pytest.raises(StartFailed, match=r"proxy:8081 sent no settings within 3 s"):
        await starting
    assert world.streams[0].cancelled


async def test_a_start_that_fails_names_the_cause() -> None:
    """What the last stream broke with is told, and is the error's cause."""
    world = World()
    starting = asyncio.create_task(world.session.start())
    await world.clock.run_for(0.1)
    world.streams[0].to_read.put_nowait(ConnectionBroken("connection refused"))
    await world.clock.run_for(SETTINGS_TIMEOUT_S)
    with pytest.raises(StartFailed, match="connection refused") as failure:
        await starting
    assert isinstance(failure.value.__cause__, ConnectionBroken)


async def test_refused_settings_do_not_make_a_session() -> None:
    """A status other than OK is the reason of the failed start."""
    world = World()
    starting = asyncio.create_task(world.session.start())
    await world.clock.run_for(0.1)
    refused = d.Status(code=d.Code.ILLEGAL_TOPIC, message="topic: bad")
    world.streams[0].to_read.put_nowait(s.TelemetryCommand(status=refused, settings=d.Settings()))
    await world.clock.run_for(SETTINGS_TIMEOUT_S)
    with pytest.raises(StartFailed, match="ILLEGAL_TOPIC: topic: bad"):
        await starting


@pytest.mark.parametrize("end", [None, ConnectionBroken("reset")], ids=["ended", "broken"])
async def test_a_lost_stream_is_opened_again(end: Exception | None) -> None:
    """After 1 s and some jitter, with the settings again; until the server answers them, the session is not ready."""
    world = World()
    stream = await world.started()
    stream.to_read.put_nowait(end)
    await world.clock.run_for(REOPEN_S * 1.25 - 0.01)
    assert not world.session.ready
    assert len(world.streams) == 1
    await world.clock.run_for(0.02)
    assert [each.WhichOneof("command") for each in world.streams[1].written] == ["settings"]
    assert not world.session.ready
    world.streams[1].to_read.put_nowait(settings(max_attempts=6))
    await world.session.wait_ready(3.0)
    assert world.settings[-1].backoff_policy.max_attempts == 6
    await world.session.close()


async def test_who_waits_for_a_lost_session_gets_an_error_in_time() -> None:
    """And not one second later than asked for."""
    world = World()
    stream = await world.started()
    stream.to_read.put_nowait(ConnectionBroken("reset"))
    await world.clock.run_for(0.1)
    waiting = asyncio.create_task(world.session.wait_ready(3.0))
    await world.clock.run_for(3.0)
    with pytest.raises(ConnectionBroken, match=r"no session with the proxy at proxy:8081: reset"):
        await waiting
    await world.session.close()


async def test_a_command_is_answered_on_the_stream() -> None:
    """Whatever the answer is, it goes back where the command came from."""
    world = World()
    stream = await world.started()
    world.answer = s.TelemetryCommand(thread_stack_trace=s.ThreadStackTrace(nonce="n"))
    stream.to_read.put_nowait(
        s.TelemetryCommand(print_thread_stack_trace_command=s.PrintThreadStackTraceCommand(nonce="n"))
    )
    await world.clock.run_for(0.1)
    assert stream.written[-1].thread_stack_trace.nonce == "n"
    await world.session.close()


async def test_a_command_that_fails_leaves_the_stream_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; settings are still read."""
    world = World()
    stream = await world.started()
    world.answer = RuntimeError("surprise")
    with caplog.at_level(logging.ERROR):
        stream.to_read.put_nowait(
            s.TelemetryCommand(print_thread_stack_trace_command=s.PrintThreadStackTraceCommand(nonce="n"))
        )
        stream.to_read.put_nowait(settings(max_attempts=9))
        await world.clock.run_for(0.1)
    assert "could not be answered" in caplog.text
    assert world.settings[-1].backoff_policy.max_attempts == 9
    await world.session.close()


async def test_a_busy_client_reads_on_when_it_can(caplog: pytest.LogCaptureFixture) -> None:
    """Commands beyond those that it works on wait for one to end, though not for ever: then one is dropped."""
    world = World()
    stream = await world.started()
    world.go_on = asyncio.Event()
    for number in range(COMMANDS_AT_ONCE_MAX + 2):
        probe = s.PrintThreadStackTraceCommand(nonce=str(number))
        stream.to_read.put_nowait(s.TelemetryCommand(print_thread_stack_trace_command=probe))
    await world.clock.run_for(COMMAND_WAIT_S - 0.1)
    assert (len(world.commands), stream.to_read.qsize()) == (COMMANDS_AT_ONCE_MAX, 1)
    await world.clock.run_for(0.2)
    assert "one is dropped" in caplog.text
    world.go_on.set()
    await world.clock.run_for(0.1)
    asked = [command.print_thread_stack_trace_command.nonce for command in world.commands]
    assert asked == [*map(str, range(COMMANDS_AT_ONCE_MAX)), str(COMMANDS_AT_ONCE_MAX + 1)]
    await world.session.close()


async def test_settings_are_sent_again_when_they_change() -> None:
    """On the open stream; while there is none they wait for the next one, which opens with them."""
    world = World()
    stream = await world.started()
    await world.session.introduce()
    assert len(stream.written) == 2
    stream.to_read.put_nowait(None)
    await world.clock.run_for(0.1)
    await world.session.introduce()
    assert len(stream.written) == 2
    await world.session.close()
