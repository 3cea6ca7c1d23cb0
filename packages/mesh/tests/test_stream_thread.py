"""A stream with threads of its own, against a real server on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.network import MeshStream, Stream, StreamHandler
from apogeemq.mesh.stream_thread import StreamThread
from google.protobuf.wrappers_pb2 import StringValue

ECHO: Stream[StringValue, StringValue] = Stream("/test.Echo/Echo", StringValue, StringValue)
INTERVAL_S = 0.02


class Peer:
    """Echoes, and ends the stream at the word "end"."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.has_three = threading.Event()

    async def handle(self, stream: MeshStream[StringValue, StringValue]) -> None:
        while (message := await stream.receive()) is not None:
            self.came.append(message.value)
            if self.came.count("beat") == 3:
                self.has_three.set()
            if message.value == "end":
                return
            await stream.send(message)


class Opened:
    """A stream, and what it told."""

    def __init__(self, port: int, due: str | None = None) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.stream = StreamThread(
            f"127.0.0.1:{port}",
            ECHO,
            first=StringValue(value="hello"),
            due=lambda: None if due is None else StringValue(value=due),
            interval_s=INTERVAL_S,
            on_message=lambda message: self.heard.put_nowait(message.value),
            on_end=self.ended.set_result,
        )


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Peer, int]]:
    peer = Peer()
    listening = await GrpcNetwork().serve("127.0.0.1", 0, [StreamHandler(ECHO, peer.handle)])
    try:
        yield peer, listening.port
    finally:
        await listening.stop(0.0)


async def test_messages_go_and_come_in_order() -> None:
    """The first one first."""
    async with served() as (_, port):
        opened = Opened(port)
        for number in range(5):
            opened.stream.send(StringValue(value=str(number)))
        assert [await opened.heard.get() for _ in range(6)] == ["hello", "0", "1", "2", "3", "4"]
        await opened.stream.close()
        await opened.ended


async def test_it_beats_while_the_loop_stands_still() -> None:
    """What is due goes out by a thread: the loop is held until the peer, in a loop of its own, has three of them."""
    peer, ready, over = Peer(), threading.Event(), threading.Event()
    port = 0

    async def serve() -> None:
        nonlocal port
        listening = await GrpcNetwork().serve("127.0.0.1", 0, [StreamHandler(ECHO, peer.handle)])
        port = listening.port
        ready.set()
        await asyncio.to_thread(over.wait)
        await listening.stop(0.0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        ready.wait(10.0)
        opened = Opened(port, due="beat")
        assert peer.has_three.wait(10.0)
        await opened.stream.close()
    finally:
        over.set()
        thread.join()


async def test_the_end_is_told_once() -> None:
    """Empty where the peer finished in good order; sends after that do nothing."""
    async with served() as (_, port):
        opened = Opened(port)
        opened.stream.send(StringValue(value="end"))
        assert await opened.ended == ""
        opened.stream.send(StringValue(value="late"))
        await opened.stream.close()


async def test_nobody_there_is_an_end_too() -> None:
    """With the reason."""
    async with served() as (_, port):
        pass
    opened = Opened(port)
    assert "connect" in await opened.ended
    await opened.stream.close()
