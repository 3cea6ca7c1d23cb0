"""What the tests of replication share: brokers of one set, on stores in memory, on a network in memory.

Time is a clock moved by hand; what otherwise runs in threads runs at once, so that a test decides what comes when.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from apogeemq.broker.core.replication import follower, progress
from apogeemq.broker.faces.mesh.replication import ReplicationFace
from apogeemq.broker.service.following import Following, ReplicaIdentity
from apogeemq.broker.service.leading import Leading
from apogeemq.broker.service.replicated_log import FullCopyNeeded, ReplicatedLog
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import Listening
from apogeemq.store.config import StoreConfig
from apogeemq.store.epoch_file import EpochFile
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore

HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"
CLUSTER = "c1"
NAME = "broker-a"
DIRECTORY = Path("/store")
FILE_SIZE = 64 << 10


class AtOnce(ThreadPoolExecutor):
    """Runs what is submitted before submit() returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 — it is the future's
            future.set_exception(error)
        return future


class SetBroker:
    """One broker of the set: its disk outlives it, `start` and `stop` are its process."""

    def __init__(self, world: SetWorld, broker_id: int, **settings: Any) -> None:
        self.world = world
        self.broker_id = broker_id
        self.address = f"host-{broker_id}:10921"
        self.disk = MemoryDisk()
        self.settings = settings
        self.incarnation = 0
        self.is_learner = False
        self.acks_flushed = False
        self.proposals: list[progress.Propose] = []
        self.confirmed: list[int] = []
        self.states: list[tuple[str, bytes, bool, int]] = []
        """What came, with the log's end at that moment."""
        self.state_failure: Exception | None = None
        self.may_store = asyncio.Event()
        self.may_store.set()
        self.tables: dict[str, bytes] = {}
        self.full_copies: list[FullCopyNeeded] = []
        self.leading: Leading | None = None
        self.log: ReplicatedLog
        self.following: Following
        self.store: MessageStore
        self._listening: Listening | None = None

    async def start(self) -> SetBroker:
        self.incarnation += 1
        config = {
            "commit_log_file_size_bytes": FILE_SIZE,
            "reserve_ahead_bytes": 4096,
            "message_size_bytes_max": 16 << 10,
            **self.settings,
        }
        self.store = MessageStore.open(
            DIRECTORY,
            StoreConfig(store_host=HOST, consume_queue_file_units=64, **config),
            now_ms=self.world.clock.now_ms,
            disk=self.disk,
            background=False,
        )
        self.log = ReplicatedLog.open(self.store, EpochFile(self.disk, DIRECTORY / "epochFileCheckpoint"))
        self.following = Following(
            self.log,
            identity=ReplicaIdentity(CLUSTER, NAME, self.broker_id, self.incarnation, self.is_learner),
            network=self.world.network.at(f"host-{self.broker_id}"),
            clock=self.world.clock,
            on_state=self._take_state,
            on_full_copy_needed=self.full_copies.append,
            acks_flushed=self.acks_flushed,
        )
        face = ReplicationFace(
            cluster=CLUSTER,
            broker_name=NAME,
            file_size_bytes=self.log.file_size_bytes,
            leading=lambda: self.leading,
            clock=self.world.clock,
        )
        host, port = self.address.split(":")
        self._listening = await self.world.network.serve(host, int(port), [face.handler])
        self.world.running.append(self)
        return self

    async def stop(self) -> None:
        """In order: everything is synced."""
        await self.following.stop()
        await self.stop_leading()
        if self._listening is not None:
            await self._listening.stop(0)
        self.world.running.remove(self)
        self.store.close()

    async def lead(self, epoch: int, members: Iterable[int], *, min_in_sync: int = 1) -> Leading:
        await self.following.stop()
        await self.stop_leading()
        await self.log.begin_epoch(epoch)
        self.leading = Leading(
            self.log,
            epoch=epoch,
            own=progress.Member(self.broker_id, self.incarnation),
            known=progress.TakeSet(frozenset(members), epoch * 10),
            min_in_sync=min_in_sync,
            clock=self.world.clock,
            propose=self.proposals.append,
            on_confirm=self.confirmed.append,
            states=self._all_tables,
        )
        self.leading.start()
        return self.leading

    async def _all_tables(self) -> AsyncIterator[tuple[str, bytes]]:
        for name, data in list(self.tables.items()):
            yield name, data

    async def stop_leading(self) -> None:
        leading, self.leading = self.leading, None
        if leading is not None:
            await leading.stop()

    def follow(self, master: SetBroker, epoch: int) -> None:
        self.following.follow(master.broker_id, epoch, master.address)

    def send(self, body: bytes = b"body", topic: str = "TopicTest", queue_id: int = 0) -> AppendResult:
        result = self.store.append(topic, queue_id, 0, 0, 1, HOST, 0, 0, body, b"", 0)
        if self.leading is not None:
            self.leading.written()
        return result

    def held(self) -> bytes:
        """All of its log."""
        data, at = b"", self.log.min_offset
        while at < self.log.end_offset:
            chunk = self.store.replication.read_chunk(at, 1 << 20, wait=True)
            data += chunk.data
            at += len(chunk.data)
        return data

    def change(self, name: str, data: bytes, *, whole: bool = True) -> None:
        """A table of the master changed."""
        if whole:
            self.tables[name] = data
        assert self.leading is not None
        self.leading.state_changed(name, data, whole=whole)

    @property
    def phase(self) -> follower.Phase:
        return self.following.phase

    async def _take_state(self, name: str, data: bytes, whole: bool) -> None:
        await asyncio.sleep(0)
        await self.may_store.wait()
        if self.state_failure is not None:
            raise self.state_failure
        self.states.append((name, data, whole, self.log.end_offset))


class SetWorld:
    """Brokers, clock and network."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.network = MemoryNetwork(self.clock, SeededChance(1))
        self.running: list[SetBroker] = []
        asyncio.get_running_loop().set_default_executor(AtOnce())

    async def broker(self, broker_id: int, **settings: Any) -> SetBroker:
        return await SetBroker(self, broker_id, **settings).start()

    async def run(self, seconds: float = 0.05) -> None:
        """Let things happen."""
        await self.clock.run_for(seconds)

    def corrupt(self, broker: SetBroker, offset: int) -> None:
        """Break the magic number of the record that begins there, on a broker's disk."""
        start = offset - offset % FILE_SIZE
        inode = broker.disk.files[DIRECTORY / "commitlog" / f"{start:020d}"]
        inode.data[offset - start + 4 : offset - start + 8] = b"\0\0\0\1"

    async def close(self) -> None:
        for broker in list(self.running):
            await broker.stop()
