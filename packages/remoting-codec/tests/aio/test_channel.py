"""A channel over a transport that records what it is told: batching, closing, deadlines, requests of our own."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from apogeemq.remoting_codec.aio.channel import Channel, ChannelClosed, ChannelLimits, Handler, Reply
from apogeemq.remoting_codec.aio.stats import TrafficStats
from apogeemq.remoting_codec.codes import ONEWAY_FLAG
from apogeemq.remoting_codec.command import RemotingCommand, response
from apogeemq.remoting_codec.connection import ConnectionLimits
from apogeemq.remoting_codec.errors import HeaderMissing, LocalProtocolError
from apogeemq.remoting_codec.framing import decode_frame, encode_frame

LIMITS = ChannelLimits(
    connection=ConnectionLimits(frame_size_bytes_max=4096, buffer_size_bytes_min=2048, pending_requests_max=2),
    idle_timeout_s=120,
    frame_timeout_s=60,
    write_buffer_high_bytes=1000,
    slow_reader_timeout_s=30,
    write_buffer_size_bytes_max=5000,
    close_timeout_s=10,
)


class RecordingTransport(asyncio.Transport):
    """Keeps what is written; `unsent` bytes stay in its buffer as a test decides."""

    def __init__(self, peername: tuple[str, int] | tuple[str, int, int, int] | None = ("192.0.2.7", 4711)) -> None:
        super().__init__({"peername": peername})
        self.calls: list[bytes] = []
        self.events: list[str] = []
        self.unsent = 0
        self.high_bytes: int | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.calls.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high_bytes = high

    def is_closing(self) -> bool:
        return "close" in self.events or "abort" in self.events

    def close(self) -> None:
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")

    def pause_reading(self) -> None:
        self.events.append("pause")

    def resume_reading(self) -> None:
        self.events.append("resume")


def echo(_channel: Channel, command: RemotingCommand) -> Reply:
    return encode_frame(response(command, 0, body=command.body))


def open_channel(
    handler: Handler = echo, transport: RecordingTransport | None = None
) -> tuple[Channel, RecordingTransport]:
    transport = transport or RecordingTransport()
    channel = Channel(handler, LIMITS, TrafficStats())
    channel.connection_made(transport)
    return channel, transport


def receive(channel: Channel, *commands: RemotingCommand | bytes) -> None:
    """All of them in one read."""
    data = b"".join(c if isinstance(c, bytes) else encode_frame(c) for c in commands)
    channel.get_buffer(-1)[: len(data)] = data
    channel.buffer_updated(len(data))


def sent(data: bytes) -> list[RemotingCommand]:
    """The commands in what was written."""
    commands = []
    while data:
        size = 4 + int.from_bytes(data[:4], "big")
        commands.append(decode_frame(data[4:size]))
        data = data[size:]
    return commands


def opaques(data: bytes) -> list[int]:
    return [command.opaque for command in sent(data)]


def request(opaque: int, flag: int = 0, body: bytes = b"") -> RemotingCommand:
    return RemotingCommand(10, flag, opaque, body=body)


# -- replies


async def test_replies_of_one_read_leave_in_one_write() -> None:
    """Ten requests in one read: one write, the replies in order."""
    channel, transport = open_channel()
    receive(channel, *[request(i) for i in range(10)])
    assert len(transport.calls) == 1
    assert opaques(transport.calls[0]) == list(range(10))


async def test_what_a_handler_writes_itself_keeps_its_place() -> None:
    """A push from within a handler goes out before the reply to the request that caused it, in the same write."""

    def push_first(channel: Channel, command: RemotingCommand) -> Reply:
        channel.write(encode_frame(request(command.opaque + 1000)))
        return echo(channel, command)

    channel, transport = open_channel(push_first)
    receive(channel, request(1), request(2))
    assert [opaques(call) for call in transport.calls] == [[1001, 1, 1002, 2]]


async def test_reply_in_pieces_small_and_large() -> None:
    """A reply may be head and views; small ones are joined, large ones handed over as they are."""
    records = memoryview(bytes(200_000))

    def pieces(_channel: Channel, command: RemotingCommand) -> Reply:
        size = int(command.body)
        frame = encode_frame(response(command, 0, body=bytes(records[:size])))
        return [frame[: len(frame) - size], records[:size]]

    channel, transport = open_channel(pieces)
    for size, writes in ((10, 1), (200_000, 2)):
        receive(channel, request(1, body=b"%d" % size))
        assert len(transport.calls) == writes
        assert len(sent(b"".join(transport.calls))[0].body) == size
        transport.calls.clear()


async def test_no_reply_now_and_one_later() -> None:
    """A handler may answer later, through the channel."""
    channel, transport = open_channel(lambda _channel, _command: None)
    receive(channel, request(1))
    assert transport.calls == []
    channel.write(encode_frame(response(request(1), 19)))
    assert opaques(transport.calls[0]) == [1]


async def test_oneway_request_gets_no_reply() -> None:
    """Whatever the handler returns or raises, a oneway request is never answered."""

    def fail_on_two(channel: Channel, command: RemotingCommand) -> Reply:
        if command.opaque == 2:
            raise ValueError("why")
        return echo(channel, command)

    channel, transport = open_channel(fail_on_two)
    receive(channel, request(1, ONEWAY_FLAG), request(2, ONEWAY_FLAG), request(3))
    assert opaques(transport.calls[0]) == [3]


async def test_failing_handler_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A handler's exception becomes a system error that names its type; the body stays out of log and answer."""

    def fail_on_one(channel: Channel, command: RemotingCommand) -> Reply:
        if command.opaque == 1:
            raise KeyError("detail for the log only")
        return echo(channel, command)

    channel, transport = open_channel(fail_on_one)
    receive(channel, request(1, body=b"hush-hush"), request(2))
    first, second = sent(transport.calls[0])
    assert (first.code, first.opaque, first.remark) == (1, 1, "internal error: KeyError")
    assert (second.code, second.opaque) == (0, 2)
    assert "hush-hush" not in caplog.text
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_request_with_a_wrong_field_is_answered_by_name(caplog: pytest.LogCaptureFixture) -> None:
    """What the peer got wrong in a header is told to the peer, without a stack trace here."""

    def decode_header(_channel: Channel, _command: RemotingCommand) -> Reply:
        raise HeaderMissing("topic")

    channel, transport = open_channel(decode_header)
    with caplog.at_level(logging.INFO):
        receive(channel, request(1))
    (answer,) = sent(transport.calls[0])
    assert (answer.code, answer.remark) == (1, "the field <topic> is missing")
    assert [record.exc_info for record in caplog.records] == [None]
    assert not channel.closed


async def test_broken_frame_closes_after_the_good_ones_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    """Good requests before a broken frame are answered, then the channel closes, with one line in the log."""
    channel, transport = open_channel()
    receive(channel, request(1), request(2), b"\xff" * 8)
    assert opaques(transport.calls[0]) == [1, 2]
    assert transport.events == ["close"]
    assert "192.0.2.7:4711 broke the protocol" in caplog.text
    receive(channel, request(3))  # what still comes is not looked at
    assert len(transport.calls) == 1


async def test_handler_that_closes_ends_the_read() -> None:
    """After a handler closed the channel nothing more of that read is handled; earlier replies still leave."""

    def close_on_two(channel: Channel, command: RemotingCommand) -> Reply:
        if command.opaque == 2:
            channel.close("enough")
        return echo(channel, command)

    channel, transport = open_channel(close_on_two)
    receive(channel, request(1), request(2), request(3))
    assert [opaques(call) for call in transport.calls] == [[1]]
    assert (channel.closed, channel.close_reason) == (True, "enough")


async def test_traffic_is_counted() -> None:
    """Frames and bytes in both directions, errors by kind."""
    stats = TrafficStats()
    channel = Channel(echo, LIMITS, stats)
    transport = RecordingTransport()
    channel.connection_made(transport)
    receive(channel, request(1), request(2))
    received = 2 * len(encode_frame(request(1)))
    assert (stats.frames_in, stats.bytes_in, stats.bytes_out) == (2, received, len(transport.calls[0]))
    receive(channel, b"\xff" * 8)
    assert (stats.protocol_errors, stats.requests_refused, stats.handler_errors) == (1, 0, 0)


# -- closing


async def test_nothing_is_written_after_closing() -> None:
    """A push to a channel that is gone is dropped; our own requests fail with the reason."""
    channel, transport = open_channel()
    channel.close("why")
    channel.write(b"late")
    assert transport.calls == []
    with pytest.raises(ChannelClosed, match="why"):
        channel.send_oneway(request(1))
    with pytest.raises(ChannelClosed, match="why"):
        await channel.request(request(1), 1.0)
    with pytest.raises(ChannelClosed, match="why"):
        await channel.drain()


async def test_close_listeners_hear_of_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """Every listener is called when the connection is gone, a failing one does not keep the others from it."""
    channel, _ = open_channel()
    heard: list[str] = []

    def fail(_channel: Channel) -> None:
        raise ValueError("a listener's bug")

    channel.add_close_listener(lambda c: heard.append(f"first {c.close_reason}"))
    channel.add_close_listener(fail)
    channel.add_close_listener(lambda _: heard.append("second"))
    channel.close("why")
    assert heard == []
    channel.connection_lost(None)
    channel.add_close_listener(lambda _: heard.append("too late"))
    assert heard == ["first why", "second", "too late"]
    assert "a listener's bug" in caplog.text


async def test_second_close_changes_nothing() -> None:
    """The first reason counts, and the transport is closed once."""
    channel, transport = open_channel()
    channel.close("first")
    channel.close("second")
    assert (channel.close_reason, transport.events) == ("first", ["close"])


async def test_reason_of_a_lost_connection() -> None:
    """Who closed is in the reason: the peer, or the world."""
    for error, reason in [(None, "closed by the peer"), (ConnectionResetError("reset"), "reset")]:
        channel, _ = open_channel()
        channel.connection_lost(error)
        assert reason in (channel.close_reason or "")


async def test_end_of_stream_closes() -> None:
    """A peer that sends no more is given what was written and closed."""
    channel, transport = open_channel()
    assert channel.eof_received() is False
    assert transport.events == ["close"]


# -- bounds and deadlines; times are handed in


async def test_slow_reader_is_not_read_and_then_cut() -> None:
    """While a peer does not read we do not read it either; past the deadline it is overdue."""
    channel, transport = open_channel()
    assert transport.high_bytes == 1000
    now = 1000.0
    channel.pause_writing()
    transport.unsent = 1500
    assert not channel.writable
    assert channel.overdue(now) is None
    assert channel.overdue(now + 29.9) is None
    assert channel.overdue(now + 30) == "slow reader, 1500 bytes unsent"
    channel.resume_writing()
    assert transport.events == ["pause", "resume"]
    assert channel.overdue(now + 31) is None


async def test_slow_reader_that_catches_up_starts_anew() -> None:
    """The deadline counts one uninterrupted time of not reading."""
    channel, _ = open_channel()
    now = 1000.0
    channel.pause_writing()
    assert channel.overdue(now) is None
    channel.resume_writing()
    assert channel.overdue(now + 20) is None
    channel.pause_writing()
    assert channel.overdue(now + 40) is None
    assert channel.overdue(now + 69) is None
    assert channel.overdue(now + 70) is not None


async def test_too_much_unsent_is_cut_at_once() -> None:
    """Pushes to a peer that does not read end at the hard bound."""
    channel, transport = open_channel()
    channel.pause_writing()
    transport.unsent = 5000
    channel.write(b"x")
    assert not channel.closed
    transport.unsent = 5001
    channel.write(b"x")
    assert channel.closed
    assert transport.events == ["pause", "abort"]


async def test_idle_channel_is_overdue() -> None:
    """Neither a read nor a write for the idle time ends a channel; either of them renews it."""
    channel, _ = open_channel()
    now = 1000.0
    assert channel.overdue(now) is None
    assert channel.overdue(now + 119) is None
    assert channel.overdue(now + 120) == "idle"
    receive(channel, request(1, ONEWAY_FLAG))
    assert channel.overdue(now + 121) is None
    channel.write(b"x")
    assert channel.overdue(now + 240) is None
    assert channel.overdue(now + 359) is None
    assert channel.overdue(now + 360) == "idle"


async def test_frame_that_never_completes_is_overdue() -> None:
    """Bytes that drip in keep a channel from being idle, but one frame has one deadline."""
    channel, _ = open_channel()
    now = 1000.0
    frame = encode_frame(request(1))
    for seconds in range(60):
        receive(channel, frame[seconds : seconds + 1])
        assert channel.overdue(now + seconds) is None
    assert channel.overdue(now + 60) == "a frame was begun and not completed"
    receive(channel, frame[60:], frame[:5])
    assert channel.overdue(now + 61) is None  # that one is complete, the next has its own deadline


async def test_closing_has_a_deadline() -> None:
    """A closed channel whose last bytes nobody takes is overdue after the close timeout."""
    channel, transport = open_channel()
    channel.close("why")
    assert channel.overdue(100.0) is None
    assert channel.overdue(109.9) is None
    assert channel.overdue(110.0) is not None
    channel.abort("it did not finish closing")
    assert transport.events == ["close", "abort"]
    assert channel.close_reason == "why"


async def test_drain_waits_for_the_peer() -> None:
    """`drain` returns once the peer has caught up."""
    channel, _ = open_channel()
    channel.pause_writing()
    waiting = asyncio.create_task(channel.drain())
    await asyncio.sleep(0)
    assert not waiting.done()
    channel.resume_writing()
    await waiting


# -- requests of our own


async def sent_requests(transport: RecordingTransport, count: int) -> list[RemotingCommand]:
    """What was written, once `count` tasks had their turn."""
    for _ in range(count + 1):
        await asyncio.sleep(0)
    return [command for call in transport.calls for command in sent(call)]


async def test_response_reaches_its_request() -> None:
    """Two requests at once, answered in the other order."""
    channel, transport = open_channel()
    tasks = [asyncio.create_task(channel.request(RemotingCommand(code), 5.0)) for code in (39, 40)]
    first, second = await sent_requests(transport, 2)
    assert (first.code, second.code) == (39, 40)
    assert first.opaque != second.opaque
    receive(channel, response(second, 2), response(first, 1))
    assert [(await task).code for task in tasks] == [1, 2]


async def test_body_of_a_request_is_sent() -> None:
    """A request with a body arrives whole."""
    channel, transport = open_channel()
    channel.send_oneway(RemotingCommand(39, body=b"half message"))
    (command,) = sent(transport.calls[0])
    assert (command.body, command.is_oneway) == (b"half message", True)


async def test_request_times_out_and_a_late_response_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its deadline a request fails; the others wait on; the late response disturbs nobody."""
    channel, transport = open_channel()
    short = asyncio.create_task(channel.request(RemotingCommand(39), 5.0))
    long = asyncio.create_task(channel.request(RemotingCommand(40), 50.0))
    first, second = await sent_requests(transport, 2)
    channel._expire_requests(asyncio.get_running_loop().time() + 5.0)
    with pytest.raises(TimeoutError, match=r"192\.0\.2\.7:4711"):
        await short
    receive(channel, response(first, 0), response(second, 0))
    assert (await long).opaque == second.opaque


async def test_earliest_deadline_sets_the_timer() -> None:
    """The one timer follows the earliest deadline, whatever the order of the requests."""
    channel, transport = open_channel()
    loop = asyncio.get_running_loop()
    before = loop.time()
    tasks = [asyncio.create_task(channel.request(RemotingCommand(39), timeout_s)) for timeout_s in (50.0, 5.0)]
    await sent_requests(transport, 2)
    assert channel._timer is not None
    assert 5.0 <= channel._timer.when() - before < 50.0
    channel._expire_requests(channel._timer.when())
    assert channel._timer.when() - before >= 50.0
    channel.connection_lost(None)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ChannelClosed, TimeoutError]


async def test_lost_connection_fails_what_waits() -> None:
    """Whoever waits for a response hears at once that none will come."""
    channel, transport = open_channel()
    waiting = asyncio.create_task(channel.request(RemotingCommand(39), 50.0))
    await sent_requests(transport, 1)
    channel.connection_lost(ConnectionResetError("reset"))
    with pytest.raises(ChannelClosed, match="reset"):
        await waiting


async def test_requests_in_flight_are_bounded() -> None:
    """More requests than the bound are refused here, before anything is sent."""
    channel, transport = open_channel()
    tasks = [asyncio.create_task(channel.request(RemotingCommand(39), 50.0)) for _ in range(2)]
    await sent_requests(transport, 2)
    with pytest.raises(LocalProtocolError):
        await channel.request(RemotingCommand(39), 50.0)
    channel.connection_lost(None)
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_cancelled_request_frees_its_place() -> None:
    """A caller that gives up leaves nothing behind, and a response that comes nevertheless is dropped."""
    channel, transport = open_channel()
    waiting = asyncio.create_task(channel.request(RemotingCommand(39), 50.0))
    (command,) = await sent_requests(transport, 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    receive(channel, response(command, 0))
    assert not channel.closed


# -- the peer


@pytest.mark.parametrize(
    ("peername", "peer", "peer_host"),
    [
        (("192.0.2.7", 4711), "192.0.2.7:4711", "c0000207 00001267"),
        (("2001:db8::1", 65535, 0, 0), "[2001:db8::1]:65535", "20010db8000000000000000000000001 0000ffff"),
        (("::ffff:192.0.2.7", 4711, 0, 0), "192.0.2.7:4711", "c0000207 00001267"),
        (("fe80::1%eth0", 1, 0, 2), "[fe80::1]:1", "fe800000000000000000000000000001 00000001"),
        (None, "unknown", ""),
    ],
)
async def test_peer_as_text_and_as_host_bytes(
    peername: tuple[str, int] | tuple[str, int, int, int] | None, peer: str, peer_host: str
) -> None:
    """The host bytes have the layout of a record's born host; IPv4 inside IPv6 counts as IPv4."""
    channel, _ = open_channel(transport=RecordingTransport(peername))
    assert (channel.peer, channel.peer_host) == (peer, bytes.fromhex(peer_host))


async def test_channel_is_announced_once_open() -> None:
    """`on_open` gets the channel with its peer known."""
    opened: list[str] = []
    note: Callable[[Channel], None] = lambda channel: opened.append(channel.peer)  # noqa: E731 — needs its type
    Channel(echo, LIMITS, TrafficStats(), note).connection_made(RecordingTransport())
    assert opened == ["192.0.2.7:4711"]
