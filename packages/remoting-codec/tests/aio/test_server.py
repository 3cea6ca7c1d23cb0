"""The server on real sockets, on both event loops: serving, TLS and plain on one port, bounds, stopping."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
from apogeemq.remoting_codec.aio import (
    Channel,
    ChannelLimits,
    Handler,
    RemotingClient,
    RemotingServer,
    Reply,
    ServerLimits,
    TlsMode,
)
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, RequestCode
from apogeemq.remoting_codec.command import RemotingCommand, response
from apogeemq.remoting_codec.connection import ConnectionLimits
from apogeemq.remoting_codec.framing import decode_frame, encode_frame, encode_response_head

Run = Callable[[Coroutine[object, object, None]], None]


def echo(_channel: Channel, command: RemotingCommand) -> Reply:
    return encode_frame(response(command, 0, body=command.body))


@asynccontextmanager
async def serving(
    handler: Handler = echo,
    *,
    limits: ServerLimits | None = None,
    tls: ssl.SSLContext | None = None,
    tls_mode: TlsMode = "permissive",
    on_open: Callable[[Channel], None] | None = None,
    on_close: Callable[[Channel], None] | None = None,
) -> AsyncIterator[tuple[RemotingServer, int]]:
    """A started server and its port."""
    server = RemotingServer(handler, limits=limits, tls=tls, tls_mode=tls_mode, on_open=on_open, on_close=on_close)
    _, port = await server.start("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        await server.stop(1.0)


async def read_commands(reader: asyncio.StreamReader, count: int) -> list[RemotingCommand]:
    commands = []
    for _ in range(count):
        size = int.from_bytes(await reader.readexactly(4), "big")
        commands.append(decode_frame(await reader.readexactly(size)))
    return commands


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something is so; the scenario's deadline bounds it."""
    while not condition():  # noqa: ASYNC110 — the condition is the server's state, and has no event of its own
        await asyncio.sleep(0)


def request(opaque: int, flag: int = 0, body: bytes = b"") -> RemotingCommand:
    return RemotingCommand(RequestCode.HEART_BEAT, flag, opaque, body=body)


# -- serving


def test_client_and_server_talk(run: Run) -> None:
    """A request gets its response; the listener tells where it listens."""

    async def scenario() -> None:
        server = RemotingServer(echo)
        host, port = await server.start("127.0.0.1", 0)
        assert host == "127.0.0.1"
        async with await RemotingClient().connect(host, port) as client:
            answer = await client.request(request(0, body=b"hello"))
            assert (answer.code, answer.body) == (0, b"hello")
        await server.stop(1.0)

    run(scenario())


def test_pipelined_requests_are_answered_in_order(run: Run) -> None:
    """Five hundred requests written at once come back as five hundred responses in order."""

    async def scenario() -> None:
        async with serving() as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"".join(encode_frame(request(i, body=b"x" * 1024)) for i in range(500)))
            answers = await read_commands(reader, 500)
            assert [answer.opaque for answer in answers] == list(range(500))
            assert server.stats.frames_in == 500
            assert server.stats.bytes_out > 500 * 1024
            writer.close()

    run(scenario())


def test_large_frames_pass_in_both_directions(run: Run) -> None:
    """A body of 8 MiB arrives whole, and so does the answer in pieces that are views."""

    async def scenario() -> None:
        def in_pieces(_channel: Channel, command: RemotingCommand) -> Reply:
            view = memoryview(command.body)
            half = len(view) // 2
            return [encode_response_head(command.opaque, 0, None, None, len(view)), view[:half], view[half:]]

        body = bytes(range(256)) * (8 * 1024 * 4)
        async with serving(in_pieces) as (_, port), await RemotingClient().connect("127.0.0.1", port) as client:
            answer = await client.request(request(0, body=body), timeout_s=15.0)
            assert answer.body == body

    run(scenario())


def test_server_sends_requests_to_a_client(run: Run) -> None:
    """A server asks over the client's connection; the client's handler answers."""

    async def scenario() -> None:
        def client_handler(_channel: Channel, command: RemotingCommand) -> Reply:
            return encode_frame(response(command, 0, body=b"from the client"))

        opened: asyncio.Queue[Channel] = asyncio.Queue()
        async with (
            serving(on_open=opened.put_nowait) as (_, port),
            await RemotingClient(client_handler).connect("127.0.0.1", port),
        ):
            channel = await opened.get()
            answer = await channel.request(RemotingCommand(RequestCode.GET_CONSUMER_RUNNING_INFO), 5.0)
            assert answer.body == b"from the client"

    run(scenario())


def test_reply_can_come_later(run: Run) -> None:
    """A handler that returns nothing answers through the channel when it is ready."""

    async def scenario() -> None:
        def later(channel: Channel, command: RemotingCommand) -> Reply:
            frame = encode_frame(response(command, 19))
            asyncio.get_running_loop().call_soon(channel.write, frame)
            return None

        async with serving(later) as (_, port), await RemotingClient().connect("127.0.0.1", port) as client:
            assert (await client.request(request(0))).code == 19

    run(scenario())


def test_peer_is_known(run: Run) -> None:
    """Handlers see the peer's address as text and as a record's host field."""

    async def scenario() -> None:
        opened: asyncio.Queue[Channel] = asyncio.Queue()
        async with serving(on_open=opened.put_nowait) as (_, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            own_port: int = writer.get_extra_info("sockname")[1]
            channel = await opened.get()
            assert channel.peer == f"127.0.0.1:{own_port}"
            assert channel.peer_host == bytes([127, 0, 0, 1]) + own_port.to_bytes(4, "big")
            writer.close()

    run(scenario())


# -- peers that misbehave


def test_broken_frame_closes_only_its_connection(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The good request before it is answered, the connection ends, the neighbour notices nothing."""

    async def scenario() -> None:
        async with serving() as (server, port), await RemotingClient().connect("127.0.0.1", port) as neighbour:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(encode_frame(request(1)) + b"\xff" * 16)
            assert [answer.opaque for answer in await read_commands(reader, 1)] == [1]
            assert await reader.read() == b""
            assert (await neighbour.request(request(0))).code == 0
            assert server.stats.protocol_errors == 1
            writer.close()

    run(scenario())
    assert caplog.text.count("broke the protocol") == 1


def test_failing_handler_keeps_the_connection(run: Run) -> None:
    """A handler's exception is an answer, not the end; a oneway request gets none."""

    async def scenario() -> None:
        def fail(_channel: Channel, _command: RemotingCommand) -> Reply:
            raise LookupError("nothing for the peer")

        async with serving(fail) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(encode_frame(request(1, ONEWAY_FLAG)) + encode_frame(request(2)))
            (answer,) = await read_commands(reader, 1)
            assert (answer.opaque, answer.code, answer.remark) == (2, 1, "internal error: LookupError")
            assert server.stats.handler_errors == 2
            writer.close()

    run(scenario())


def test_too_many_connections_are_refused(run: Run) -> None:
    """The connection above the bound is closed at once; when one goes, another may come."""

    async def scenario() -> None:
        closed: asyncio.Queue[Channel] = asyncio.Queue()
        limits = ServerLimits(connections_max=2)
        async with serving(limits=limits, on_close=closed.put_nowait) as (server, port):
            first = await RemotingClient().connect("127.0.0.1", port)
            second = await RemotingClient().connect("127.0.0.1", port)
            await first.request(request(0))
            await second.request(request(0))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
            assert (server.stats.connections_accepted, server.stats.connections_refused) == (2, 1)
            assert server.stats.connections_open == 2
            await first.close()
            await closed.get()
            async with await RemotingClient().connect("127.0.0.1", port) as third:
                await third.request(request(0))
            await second.close()

    run(scenario())


def test_a_connection_counts_once_while_it_opens(run: Run) -> None:
    """Up to the bound all are taken, also those that come just when others become channels."""

    async def scenario() -> None:
        count = 8
        sockets: list[socket.socket] = []
        address: list[tuple[str, int]] = []

        def connect_another(_channel: Channel) -> None:
            if len(sockets) < count:
                sockets.append(socket.create_connection(address[0]))

        async with serving(limits=ServerLimits(connections_max=count), on_open=connect_another) as (server, port):
            address.append(("127.0.0.1", port))
            sockets.append(socket.create_connection(address[0]))
            await until(lambda: server.stats.connections_open + server.stats.connections_refused == count)
            assert server.stats.connections_refused == 0
            for connection in sockets:
                connection.close()

    run(scenario())


def test_a_busy_peer_does_not_hold_the_loop(run: Run) -> None:
    """Of all that lies ready, one buffer is handled at a turn: others are served in between.

    (uvloop by itself takes up to 32 buffers before it looks at another connection.)
    """

    async def scenario() -> None:
        handled: list[int] = []

        def note(_channel: Channel, command: RemotingCommand) -> Reply:
            handled.append(command.opaque)
            return None

        opened: asyncio.Queue[Channel] = asyncio.Queue()
        async with serving(note, on_open=opened.put_nowait) as (server, port):
            assert server._listener is not None
            server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
            busy, other = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
            for _ in range(2):
                await opened.get()
            frame = encode_frame(request(1, body=bytes(1000)))
            busy.sendall(frame * 400)
            other.sendall(encode_frame(request(2)))
            await until(lambda: len(handled) == 401)
            assert handled.index(2) * len(frame) <= 2 * ConnectionLimits().buffer_size_bytes_min
            busy.close()
            other.close()

    run(scenario())


SMALL_BUFFERS = ServerLimits(
    channel=ChannelLimits(write_buffer_high_bytes=64 * 1024, write_buffer_size_bytes_max=16 * 1024 * 1024)
)


def test_slow_reader_is_cut(run: Run) -> None:
    """A peer that does not take its answer is cut at the deadline; its neighbour is not."""

    async def scenario() -> None:
        def much(_channel: Channel, command: RemotingCommand) -> Reply:
            return encode_frame(response(command, 0, body=bytes(len(command.body) * 8 * 1024 * 1024)))

        opened: asyncio.Queue[Channel] = asyncio.Queue()
        closed: asyncio.Queue[Channel] = asyncio.Queue()
        async with (
            serving(much, limits=SMALL_BUFFERS, on_open=opened.put_nowait, on_close=closed.put_nowait) as (
                server,
                port,
            ),
            await RemotingClient().connect("127.0.0.1", port) as neighbour,
        ):
            await opened.get()
            slow = socket.create_connection(("127.0.0.1", port))
            with slow:
                channel = await opened.get()
                slow.sendall(encode_frame(request(1, body=b"x")))
                await until(lambda: not channel.writable)
                now = asyncio.get_running_loop().time()
                server.check(now)
                server.check(now + 29)
                assert not channel.closed
                server.check(now + 31)
                assert await closed.get() is channel
                assert "slow reader" in (channel.close_reason or "")
                assert server.stats.connections_cut == 1
            assert (await neighbour.request(request(0))).code == 0

    run(scenario())


def test_too_much_unsent_is_cut_at_once(run: Run) -> None:
    """Pushes to a peer that does not read end at the hard bound, not at a deadline."""

    async def scenario() -> None:
        opened: asyncio.Queue[Channel] = asyncio.Queue()
        closed: asyncio.Queue[Channel] = asyncio.Queue()
        async with serving(limits=SMALL_BUFFERS, on_open=opened.put_nowait, on_close=closed.put_nowait) as (_, port):
            with socket.create_connection(("127.0.0.1", port)):
                channel = await opened.get()
                frame = encode_frame(request(1, body=bytes(1024 * 1024)))
                pushed = 0
                while not channel.closed and pushed < 100:
                    channel.write(frame)
                    pushed += 1
                    await asyncio.sleep(0)
                assert await closed.get() is channel
                assert 16 <= pushed < 40
                assert "unsent" in (channel.close_reason or "")

    run(scenario())


def test_idle_connection_is_closed(run: Run) -> None:
    """After the idle time without a byte in either direction the connection ends."""

    async def scenario() -> None:
        opened: asyncio.Queue[Channel] = asyncio.Queue()
        async with serving(on_open=opened.put_nowait) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            channel = await opened.get()
            now = asyncio.get_running_loop().time()
            server.check(now)
            server.check(now + 119)
            assert not channel.closed
            server.check(now + 121)
            assert await reader.read() == b""
            assert (channel.close_reason, server.stats.connections_cut) == ("idle", 1)
            writer.close()

    run(scenario())


def test_checks_run_by_themselves(run: Run) -> None:
    """A started server looks at its channels at every interval."""

    async def scenario() -> None:
        closed: asyncio.Queue[Channel] = asyncio.Queue()
        limits = ServerLimits(channel=ChannelLimits(idle_timeout_s=0.01), check_interval_s=0.01)
        async with serving(limits=limits, on_close=closed.put_nowait) as (_, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            assert (await closed.get()).close_reason == "idle"
            writer.close()

    run(scenario())


# -- TLS and plain on one port

ANSWERED, REFUSED = "answered", "refused"


async def outcome(port: int, tls: ssl.SSLContext | None) -> str:
    """What becomes of one request sent with or without TLS."""
    client = RemotingClient()
    try:
        await client.connect("127.0.0.1", port, tls=tls, server_hostname="localhost", timeout_s=10.0)
        answer = await client.request(request(0, body=b"x" * 100_000), timeout_s=10.0)
    except OSError:
        return REFUSED
    else:
        return ANSWERED if answer.body == b"x" * 100_000 else "garbled"
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("tls_mode", "plain", "encrypted"),
    [("disabled", ANSWERED, REFUSED), ("permissive", ANSWERED, ANSWERED), ("enforcing", REFUSED, ANSWERED)],
)
def test_tls_modes(
    run: Run, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, tls_mode: TlsMode, plain: str, encrypted: str
) -> None:
    """Who may come in with and without TLS; refusing one does not disturb the next."""

    async def scenario() -> None:
        async with serving(tls=server_tls, tls_mode=tls_mode) as (server, port):
            for _ in range(2):
                assert await outcome(port, None) == plain
                assert await outcome(port, client_tls) == encrypted
            if tls_mode == "enforcing":
                assert server.stats.connections_refused == 2

    run(scenario())


def test_permissive_without_certificate_is_plain(run: Run) -> None:
    """Without a TLS context the default mode serves plain connections, and nothing is peeked."""

    async def scenario() -> None:
        async with serving(tls=None) as (_, port):
            assert await outcome(port, None) == ANSWERED

    run(scenario())


def test_enforcing_needs_a_certificate() -> None:
    """A server that could never let anyone in is refused where it is made."""
    with pytest.raises(ValueError, match="enforcing"):
        RemotingServer(echo, tls_mode="enforcing")


def test_bytes_that_are_peeked_are_not_lost(run: Run, server_tls: ssl.SSLContext) -> None:
    """A frame that arrives byte by byte on a port with TLS is read whole."""

    async def scenario() -> None:
        async with serving(tls=server_tls) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            frame = encode_frame(request(7))
            writer.write(frame[:1])
            await until(lambda: server.stats.bytes_in == 1)
            writer.write(frame[1:])
            assert [answer.opaque for answer in await read_commands(reader, 1)] == [7]
            writer.close()

    run(scenario())


def test_silent_connection_is_refused(run: Run, server_tls: ssl.SSLContext) -> None:
    """On a port with TLS a connection that says nothing in time, or leaves without a word, never becomes a channel."""

    async def scenario() -> None:
        limits = ServerLimits(first_byte_timeout_s=0.02)
        async with serving(limits=limits, tls=server_tls) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await until(lambda: server.stats.connections_refused == 2)
            assert server.stats.connections_open == 0

    run(scenario())


def test_handshake_that_stalls_is_refused(run: Run, server_tls: ssl.SSLContext) -> None:
    """A connection that begins TLS and goes no further is closed at the handshake's deadline."""

    async def scenario() -> None:
        limits = ServerLimits(handshake_timeout_s=0.02)
        async with serving(limits=limits, tls=server_tls) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\x16")
            assert await reader.read() == b""
            await until(lambda: server.stats.connections_refused == 1)
            writer.close()

    run(scenario())


# -- starting and stopping


def test_stop_closes_channels_and_frees_the_port(run: Run) -> None:
    """Clients see the end, listeners are told, and the port can be bound again."""

    async def scenario() -> None:
        closed: list[Channel] = []
        server = RemotingServer(echo, on_close=closed.append)
        host, port = await server.start("127.0.0.1", 0)
        client = await RemotingClient().connect(host, port)
        await client.request(request(0))
        gone = asyncio.Event()
        client.channel.add_close_listener(lambda _: gone.set())
        await server.stop(1.0)
        await gone.wait()
        assert [channel.close_reason for channel in closed] == ["the server stops"]
        assert server.stats.connections_open == 0
        await server.stop(1.0)  # a second time does nothing
        again = RemotingServer(echo)
        assert await again.start(host, port) == (host, port)
        await again.stop(1.0)
        await client.close()

    run(scenario())


def test_stop_cuts_who_does_not_read(run: Run) -> None:
    """A peer that leaves its answer unread does not keep the server from stopping."""

    async def scenario() -> None:
        def much(_channel: Channel, command: RemotingCommand) -> Reply:
            return encode_frame(response(command, 0, body=bytes(15 * 1024 * 1024)))

        opened: asyncio.Queue[Channel] = asyncio.Queue()
        server = RemotingServer(much, on_open=opened.put_nowait)
        host, port = await server.start("127.0.0.1", 0)
        with socket.create_connection((host, port)) as slow:
            channel = await opened.get()
            slow.sendall(encode_frame(request(1)))
            await until(lambda: not channel.writable)
            await server.stop(0.01)
        assert (server.stats.connections_open, server.stats.connections_cut) == (0, 1)

    run(scenario())


def test_stop_ends_connections_that_are_not_open_yet(run: Run, server_tls: ssl.SSLContext) -> None:
    """A connection still being peeked is closed, too."""

    async def scenario() -> None:
        async with serving(tls=server_tls) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: server.stats.connections_accepted == 1)
            await server.stop(1.0)
            assert await reader.read() == b""
            writer.close()

    run(scenario())


def test_stop_ends_handshakes(run: Run, server_tls: ssl.SSLContext) -> None:
    """A TLS handshake that goes no further does not keep the server from stopping."""

    async def scenario() -> None:
        async with serving(tls=server_tls) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\x16\x03")
            await until(lambda: server.stats.connections_accepted == 1)
            for _ in range(20):  # past the peek, into the handshake
                await asyncio.sleep(0)
            await server.stop(0.01)
            assert await reader.read() == b""
            writer.close()

    run(scenario())


def test_address_in_use_is_an_error(run: Run) -> None:
    """A port that another listener has is refused at start, with nothing left behind."""

    async def scenario() -> None:
        async with serving() as (_, port):
            other = RemotingServer(echo)
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: ") as caught:
                await other.start("127.0.0.1", port)
            assert caught.value.errno == errno.EADDRINUSE
            await other.stop(1.0)

    run(scenario())


def test_bound_server_refuses_until_it_listens(run: Run) -> None:
    """`bind` tells the port, connecting to it is refused; `listen` lets connections in."""

    async def scenario() -> None:
        server = RemotingServer(echo)
        with pytest.raises(RuntimeError, match="not bound"):
            server.listen()
        host, port = await server.bind("127.0.0.1", 0)
        with pytest.raises(ConnectionRefusedError):
            await RemotingClient().connect(host, port)
        server.listen()
        async with await RemotingClient().connect(host, port) as client:
            assert (await client.request(request(0))).code == 0
        await server.stop(1.0)

    run(scenario())


def test_an_address_that_another_listens_on_first_is_named(run: Run) -> None:
    """Two may bind one address as long as nobody listens there; the second to listen is told which address it was."""

    async def scenario() -> None:
        first, second = RemotingServer(echo), RemotingServer(echo)
        host, port = await first.bind("127.0.0.1", 0)
        await second.bind(host, port)
        first.listen()
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: ") as caught:
            second.listen()
        assert caught.value.errno == errno.EADDRINUSE
        await second.stop(1.0)
        await first.stop(1.0)

    run(scenario())


def test_bound_server_can_stop_without_listening(run: Run) -> None:
    """A start that fails half way frees the port."""

    async def scenario() -> None:
        server = RemotingServer(echo)
        host, port = await server.bind("127.0.0.1", 0)
        await server.stop(1.0)
        again = RemotingServer(echo)
        assert await again.start(host, port) == (host, port)
        await again.stop(1.0)

    run(scenario())


def test_a_server_starts_once(run: Run) -> None:
    """Starting a started server is the caller's mistake."""

    async def scenario() -> None:
        async with serving() as (server, _):
            with pytest.raises(RuntimeError, match="started already"):
                await server.start("127.0.0.1", 0)

    run(scenario())


def test_listening_on_a_name(run: Run) -> None:
    """The host may be a name."""

    async def scenario() -> None:
        server = RemotingServer(echo)
        host, port = await server.start("localhost", 0)
        async with await RemotingClient().connect(host, port) as client:
            assert (await client.request(request(0))).code == 0
        await server.stop(1.0)

    run(scenario())


async def test_accepting_goes_on_after_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When a connection cannot be accepted (no descriptors left), the server says so and tries again."""
    loop = asyncio.get_running_loop()
    accept = loop.sock_accept
    failures = [OSError(errno.EMFILE, "too many open files")] * 2

    async def fail_first(listener: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", fail_first)
    with caplog.at_level(logging.ERROR):
        limits = ServerLimits(accept_pause_s=0)
        async with serving(limits=limits) as (_, port), await RemotingClient().connect("127.0.0.1", port) as client:
            assert (await client.request(request(0))).code == 0
    assert caplog.text.count("cannot accept connections") == 2
