"""The client on real sockets, on both event loops: many requests at once, deadlines, losing the server."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine

import pytest
from apogeemq.remoting_codec.aio import (
    Channel,
    ChannelClosed,
    ChannelLimits,
    RemotingClient,
    RemotingServer,
    Reply,
)
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.command import RemotingCommand, response
from apogeemq.remoting_codec.framing import encode_frame

Run = Callable[[Coroutine[object, object, None]], None]

REQUEST = RemotingCommand(RequestCode.GET_ROUTEINFO_BY_TOPIC, ext_fields={"topic": "T"})


def never(_channel: Channel, _command: RemotingCommand) -> Reply:
    return None


def test_many_requests_at_once_find_their_responses(run: Run) -> None:
    """A hundred requests in flight, answered in reverse order, each get their own response."""

    async def scenario() -> None:
        waiting: list[RemotingCommand] = []

        def reverse(channel: Channel, command: RemotingCommand) -> Reply:
            waiting.append(command)
            if len(waiting) == 100:
                for waited in reversed(waiting):
                    channel.write(encode_frame(response(waited, 0, body=waited.body)))
            return None

        server = RemotingServer(reverse)
        host, port = await server.start("127.0.0.1", 0)
        async with await RemotingClient().connect(host, port) as client:
            bodies = [b"%d" % i for i in range(100)]
            commands = [RemotingCommand(REQUEST.code, body=body) for body in bodies]
            answers = await asyncio.gather(*[client.request(command, 10.0) for command in commands])
            assert [answer.body for answer in answers] == bodies
        await server.stop(1.0)

    run(scenario())


def test_request_without_response_times_out(run: Run) -> None:
    """The deadline ends the wait, the connection stays."""

    async def scenario() -> None:
        server = RemotingServer(never)
        host, port = await server.start("127.0.0.1", 0)
        async with await RemotingClient().connect(host, port) as client:
            with pytest.raises(TimeoutError):
                await client.request(REQUEST, timeout_s=0.02)
            assert client.connected
        await server.stop(1.0)

    run(scenario())


def test_lost_server_fails_what_waits(run: Run) -> None:
    """When the connection breaks, waiting requests fail and later ones are refused."""

    async def scenario() -> None:
        received = asyncio.Event()

        def note(_channel: Channel, _command: RemotingCommand) -> Reply:
            received.set()
            return None

        server = RemotingServer(note)
        host, port = await server.start("127.0.0.1", 0)
        client = await RemotingClient().connect(host, port)
        waiting = asyncio.create_task(client.request(REQUEST, 10.0))
        await received.wait()
        await server.stop(1.0)
        with pytest.raises(ChannelClosed):
            await waiting
        assert not client.connected
        with pytest.raises(ChannelClosed):
            await client.request(REQUEST)
        with pytest.raises(ChannelClosed):
            await client.oneway(REQUEST)
        await client.close()

    run(scenario())


def test_client_connects_again_after_a_loss(run: Run) -> None:
    """The same client may be connected anew once its connection is gone, not before."""

    async def scenario() -> None:
        server = RemotingServer(lambda _channel, command: encode_frame(response(command, 0)))
        host, port = await server.start("127.0.0.1", 0)
        client = await RemotingClient().connect(host, port)
        with pytest.raises(RuntimeError, match="connected already"):
            await client.connect(host, port)
        await client.close()
        await client.close()  # a second time does nothing
        await client.connect(host, port)
        assert (await client.request(REQUEST)).code == 0
        await client.close()
        await server.stop(1.0)

    run(scenario())


def test_oneway_request_arrives(run: Run) -> None:
    """A oneway request has the oneway bit and waits for nothing."""

    async def scenario() -> None:
        received: asyncio.Queue[RemotingCommand] = asyncio.Queue()

        def note(_channel: Channel, command: RemotingCommand) -> Reply:
            received.put_nowait(command)
            return encode_frame(response(command, 0))

        server = RemotingServer(note)
        host, port = await server.start("127.0.0.1", 0)
        async with await RemotingClient().connect(host, port) as client:
            await client.oneway(REQUEST)
            command = await received.get()
            assert (command.is_oneway, command.ext_fields) == (True, {"topic": "T"})
        await server.stop(1.0)

    run(scenario())


def test_request_that_nobody_serves_is_answered(run: Run) -> None:
    """A client without a handler answers the server's requests as not supported, in Apache's words."""

    async def scenario() -> None:
        opened: asyncio.Queue[Channel] = asyncio.Queue()
        server = RemotingServer(never, on_open=opened.put_nowait)
        host, port = await server.start("127.0.0.1", 0)
        async with await RemotingClient().connect(host, port):
            answer = await (await opened.get()).request(RemotingCommand(9999), 5.0)
            assert (answer.code, answer.remark) == (3, " request type 9999 not supported")
        await server.stop(1.0)

    run(scenario())


def test_server_that_does_not_read_holds_the_client_back(run: Run) -> None:
    """With too much unsent, requests and oneways wait for room, at most until their deadline."""

    async def scenario() -> None:
        async def leave_unread(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)

        writers: list[asyncio.StreamWriter] = []
        silent = await asyncio.start_server(leave_unread, "127.0.0.1", 0, limit=1024)
        port = silent.sockets[0].getsockname()[1]
        client = await RemotingClient(limits=ChannelLimits(write_buffer_high_bytes=1024)).connect("127.0.0.1", port)
        large = RemotingCommand(REQUEST.code, body=bytes(15 * 1024 * 1024))
        await client.oneway(large)
        assert not client.channel.writable
        with pytest.raises(TimeoutError):
            await client.request(REQUEST, timeout_s=0.02)
        with pytest.raises(TimeoutError):
            await client.oneway(REQUEST, timeout_s=0.02)
        client.channel.abort("the test is over")
        await client.close()
        for writer in writers:
            writer.close()
        silent.close()

    run(scenario())


def test_nobody_listens(run: Run) -> None:
    """A refused connection is the operating system's error, and the client stays unconnected."""

    async def scenario() -> None:
        server = RemotingServer(never)
        host, port = await server.start("127.0.0.1", 0)
        await server.stop(1.0)
        client = RemotingClient()
        with pytest.raises(ConnectionRefusedError):
            await client.connect(host, port)
        assert not client.connected
        with pytest.raises(ChannelClosed, match="never connected"):
            await client.request(REQUEST)
        await client.close()

    run(scenario())


def test_certificate_is_checked(run: Run, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """A server with another name than asked for is not talked to."""

    async def scenario() -> None:
        server = RemotingServer(never, tls=server_tls)
        host, port = await server.start("127.0.0.1", 0)
        with pytest.raises(ssl.SSLCertVerificationError):
            await RemotingClient().connect(host, port, tls=client_tls, server_hostname="elsewhere.example")
        await server.stop(1.0)

    run(scenario())
