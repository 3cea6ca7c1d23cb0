"""Replication over real gRPC on loopback, between stores on real files."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from apogeemq.broker.core.replication import progress
from apogeemq.broker.faces.mesh.replication import ReplicationFace
from apogeemq.broker.service.following import Following, ReplicaIdentity
from apogeemq.broker.service.leading import Leading
from apogeemq.broker.service.replicated_log import ReplicatedLog
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.store.config import StoreConfig
from apogeemq.store.epoch_file import EpochFile
from apogeemq.store.files import RealDisk
from apogeemq.store.message_store import MessageStore

HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"
FILE_SIZE = 1 << 20
DEADLINE_S = 30.0


def open_log(directory: Path) -> ReplicatedLog:
    config = StoreConfig(store_host=HOST, commit_log_file_size_bytes=FILE_SIZE, reserve_ahead_bytes=FILE_SIZE)
    store = MessageStore.open(directory, config, now_ms=lambda: time.time_ns() // 1_000_000)
    return ReplicatedLog.open(store, EpochFile(RealDisk(), directory / "epochFileCheckpoint"))


def files_of(directory: Path, end: int) -> bytes:
    """The log as its files have it."""
    return b"".join(path.read_bytes() for path in sorted((directory / "commitlog").iterdir()))[:end]


async def until(is_so: Callable[[], bool]) -> None:
    """Give others their turns until it is so."""
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():  # noqa: ASYNC110 — offsets of two stores have no event to wait for
            await asyncio.sleep(0)


class Pipe:
    """A TCP port in front of another one, whose connections a test can break."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()

    def break_all(self) -> None:
        """As a network does: no good-bye."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def stop(self) -> None:
        self._server.close()
        self.break_all()
        if self._tasks:
            await asyncio.wait(self._tasks)


class Pair:
    """A master that leads epoch 1 and one replica that follows it through a pipe."""

    def __init__(self, directory: Path) -> None:
        self.directories = directory / "master", directory / "replica"

    async def start(self) -> None:
        self.master, self.replica = [await asyncio.to_thread(open_log, each) for each in self.directories]
        network, clock = GrpcNetwork(), SystemClock()
        await self.master.begin_epoch(1)
        self.leading = Leading(
            self.master,
            epoch=1,
            own=progress.Member(1, 1),
            known=progress.TakeSet(frozenset({1, 2}), 1),
            min_in_sync=1,
            clock=clock,
            propose=lambda _: None,
            on_confirm=lambda _: None,
        )
        face = ReplicationFace(
            cluster="c", broker_name="b", file_size_bytes=FILE_SIZE, leading=lambda: self.leading, clock=clock
        )
        self.listening = await network.serve("127.0.0.1", 0, [face.handler])
        self.pipe = Pipe(self.listening.port)
        await self.pipe.start()
        self.leading.start()
        self.following = Following(self.replica, identity=ReplicaIdentity("c", "b", 2, 1), network=network, clock=clock)

    async def stop(self) -> None:
        await self.following.stop()
        await self.leading.stop()
        await self.listening.stop(1.0)
        await self.pipe.stop()
        for log in (self.master, self.replica):
            await asyncio.to_thread(log.store.close)

    def send(self, body: bytes) -> None:
        self.master.store.append("TopicTest", 0, 0, 0, 1, HOST, 0, 0, body, b"", 0)
        self.leading.written()

    @property
    def is_confirmed(self) -> bool:
        return self.master.confirm_offset == self.master.end_offset


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    pair = Pair(tmp_path)
    await pair.start()
    yield pair
    await pair.stop()


async def test_files_come_out_the_same_though_the_connection_breaks(pair: Pair) -> None:
    """Caught up, killed in the middle, gone on: what the master confirmed lies on both disks, byte by byte."""
    for number in range(4000):
        pair.send(b"%04d" % number * 256)
    pair.following.follow(1, 1, f"127.0.0.1:{pair.pipe.port}")
    await until(lambda: pair.replica.end_offset > FILE_SIZE // 2)
    pair.pipe.break_all()
    for number in range(200):
        pair.send(b"later %d" % number)
        if number % 50 == 25:
            await until(lambda: pair.is_confirmed)
    pair.pipe.break_all()
    pair.send(b"the last")
    await until(lambda: pair.is_confirmed)
    assert pair.pipe.connections >= 3
    end = pair.master.end_offset
    assert pair.replica.end_offset == end
    ours, theirs = [await asyncio.to_thread(files_of, each, end) for each in pair.directories]
    assert ours == theirs
    assert pair.replica.entries == pair.master.entries
    await until(lambda: pair.replica.confirm_offset == end)
    assert pair.replica.store.max_offset("TopicTest", 0) == 4201
