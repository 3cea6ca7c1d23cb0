"""Two stores, one copying the other's log, on disks that lose power at any moment; and they change roles.

Held at all times:
- up to where they agree, the log files of both are equal byte by byte, and so are the queues' units and what is found
  by key: what a list of what was appended says;
- what is synced on both (confirmed) is never lost, whatever happens, and readers see exactly that;
- behind the end of a log there are only zeros: nothing that was cut off can come back;
- opening never takes what a crash or a cut leaves for damage.
"""

from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec
import pytest
from apogeemq.remoting_codec.record import decode_records
from apogeemq.store.consume_queue import UNIT
from apogeemq.store.faulty_disk import FaultyDisk, PowerLoss
from apogeemq.store.message_store import MessageStore
from apogeemq.store.replication_view import ChunkStatus
from hypothesis import given, settings
from hypothesis import strategies as st

from packages.store.tests import small_store
from packages.store.tests.small_store import HOST, QUEUES

CONFIG = msgspec.structs.replace(
    small_store.CONFIG, index_enabled=True, index_slots=4, index_entries_max=20, index_tail_size_bytes_max=100
)
KEYS = ["k0", "k1"]


class Appended(NamedTuple):
    """One message as the twin remembers it."""

    queue: tuple[str, int]
    body: bytes
    physical_offset: int
    size_bytes: int
    key: str

    @property
    def end(self) -> int:
        """One past its last byte."""
        return self.physical_offset + self.size_bytes


class Node:
    """A store, its disk, and the list of what is in it."""

    def __init__(self, seed: int, now_ms: list[int]) -> None:
        self.disk = FaultyDisk(Random(seed))
        self.now_ms = now_ms
        self.messages: list[Appended] = []
        self.store = self.open()

    def open(self) -> MessageStore:
        """As a process does, again when the power goes meanwhile."""
        while True:
            try:
                store = MessageStore.open(
                    Path("/store"), CONFIG, now_ms=lambda: self.now_ms[0], disk=self.disk, background=False
                )
            except PowerLoss:
                self.disk.restart()
            else:
                self.disk.kill_process()  # takes back a power loss yet to come; nobody dies
                return store

    def reopen(self, confirmed: int, *, power_was_lost: bool) -> None:
        """Die and come back."""
        if power_was_lost:
            self.disk.restart()
        else:
            self.disk.kill_process()
        self.store = self.open()
        self.forget_behind(self.end)
        self.store.confirm_offset = confirmed

    def forget_behind(self, end: int) -> None:
        """The twin's part of a cut."""
        self.messages = [message for message in self.messages if message.end <= end]

    @property
    def end(self) -> int:
        """The end of the log."""
        return self.store.written_offset

    def log(self) -> bytes:
        """All files of the log as they lie there, with what is behind its end."""
        paths = sorted(path for path in self.disk.files if path.parent.name == "commitlog")
        return b"".join(bytes(self.disk.files[path].data) for path in paths)

    def units(self, queue: tuple[str, int]) -> list[tuple[int, int]]:
        """Physical offsets and sizes in a queue, confirmed or not."""
        found = self.store._table.get(queue)
        data = b"" if found is None else self.store._queues.read(found, 0, 1 << 20, wait=True)
        return [(physical_offset, size) for physical_offset, size, _ in UNIT.iter_unpack(data or b"")]

    def found(self, topic: str, key: str) -> list[bytes]:
        """The bodies of what readers find by a key, newest first."""
        answer = self.store.query_keys(topic, key, 64, 0, 1 << 60)
        return [record.body for data in answer.records for record in decode_records(data)]

    def visible(self, queue: tuple[str, int]) -> list[bytes]:
        """The bodies that readers get."""
        bodies, at = [], 0
        while (result := self.store.read(*queue, at, 32, 1 << 20, None, cold_allowed=True)).count:
            bodies += [record.body for record in decode_records(b"".join(result.buffers))]
            at = result.next_offset
        return bodies


class Pair:
    """Master and replica, and what both are known to have: up to `common` they agree, `confirmed` is synced on both."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.now_ms = [1_700_000_000_000]
        self.master = Node(seed, self.now_ms)
        self.replica = Node(seed + 1, self.now_ms)
        self.common = self.confirmed = 0
        self.next_body = 0
        self.is_new_connection = True
        for node in (self.master, self.replica):
            node.store.confirm_offset = 0

    def append(self) -> None:
        """A message or a batch on the master."""
        queue, key = self.chance.choice(QUEUES), self.chance.choice(KEYS)
        properties = b"KEYS\x01%s\x02" % key.encode()
        bodies = [self.new_body() for _ in range(self.chance.choice([1, 1, 1, 3]))]
        store = self.master.store
        if len(bodies) == 1:
            results = [store.append(*queue, 0, 0, 1, HOST, 0, 0, bodies[0], properties, 0)]
        else:
            results = store.append_batch(*queue, 0, 1, HOST, [(0, body, properties, 0) for body in bodies])
        for body, result in zip(bodies, results, strict=True):
            self.master.messages.append(Appended(queue, body, result.physical_offset, result.size_bytes, key))

    def new_body(self) -> bytes:
        """Unique."""
        self.next_body += 1
        return b"%d/" % self.next_body + b"z" * self.chance.choice([0, 30, self.chance.randint(0, 900)])

    def copy(self) -> None:
        """A chunk of any size from where the replica is, after it got rid of what the master does not have."""
        if self.is_new_connection or self.replica.end > self.common:
            self.cut()
        view = self.replica.store.replication
        chunk = self.master.store.replication.read_chunk(
            view.offsets().received_offset, self.chance.choice([1, 7, 100, 1000, 5000]), wait=True
        )
        if chunk.status is ChunkStatus.NOTHING_YET:
            return
        assert chunk.status is ChunkStatus.FOUND
        view.append_chunk(chunk.offset, chunk.data)
        assert view.offsets().received_offset == chunk.offset + len(chunk.data)
        self.common = self.replica.end
        self.replica.messages = [message for message in self.master.messages if message.end <= self.common]

    def cut(self) -> None:
        """The replica goes back to what it shares with the master."""
        self.is_new_connection = False
        before, cut, store = self.replica.end, self.common, self.replica.store
        flushed = store.flushed_offset
        lose = self.chance.random() < 0.5
        if lose:
            self.replica.disk.lose_power_after(self.chance.randint(0, 14))
        try:
            store.replication.truncate(cut)
        except PowerLoss:
            power_was_lost = self.chance.random() < 0.7
            self.replica.reopen(self.confirmed, power_was_lost=power_was_lost)
            end = self.replica.end
            if power_was_lost:
                assert min(flushed, cut) <= end <= before
                self.common = min(self.common, end)
            else:
                assert end in (before, cut)
            if end > self.common:
                self.cut()
            return
        self.replica.disk.kill_process()  # takes back a power loss yet to come
        assert store.replication.offsets().received_offset == self.replica.end == cut
        self.replica.forget_behind(cut)

    def flush(self, node: Node) -> None:
        """A round of a node's threads; then both know a little more to be safe."""
        self.now_ms[0] += self.chance.choice([1, 600, 61_000])
        node.store.flush_once()
        safe = min(self.common, self.master.store.flushed_offset, self.replica.store.flushed_offset)
        self.confirmed = max(self.confirmed, safe)
        for store in (self.master.store, self.replica.store):
            store.confirm_offset = self.confirmed

    def crash(self, node: Node) -> None:
        """kill -9 or a power loss, at once or in the middle of a flush."""
        power_was_lost = self.chance.random() < 0.6
        if power_was_lost and self.chance.random() < 0.5:
            node.disk.lose_power_after(self.chance.randint(0, 5))
            with suppress(PowerLoss):
                self.flush(node)
        node.reopen(self.confirmed, power_was_lost=power_was_lost)
        self.common = min(self.common, node.end)
        self.is_new_connection = True

    def close(self, node: Node) -> None:
        """A stop in good order."""
        node.store.close()
        node.reopen(self.confirmed, power_was_lost=False)
        assert node.store.recovery.clean
        self.is_new_connection = True

    def change_roles(self) -> None:
        """The replica becomes master as it is; what it has of a half record is dropped by its first append."""
        if self.replica.end > self.common:
            self.cut()
        self.master, self.replica = self.replica, self.master
        self.is_new_connection = True

    def check(self) -> None:
        """See the head of this file."""
        master_log, replica_log = self.master.log(), self.replica.log()
        assert master_log[: self.common] == replica_log[: self.common]
        for node, log in ((self.master, master_log), (self.replica, replica_log)):
            assert node.end >= self.confirmed
            assert not log[node.end :].strip(b"\0")
            for queue in QUEUES:
                messages = [message for message in node.messages if message.queue == queue]
                assert node.units(queue) == [(message.physical_offset, message.size_bytes) for message in messages]
                assert node.visible(queue) == [message.body for message in messages if message.end <= self.confirmed]

    def check_keys(self) -> None:
        """By key, newest first. Costs more than all the rest: not for each step."""
        for node in (self.master, self.replica):
            confirmed = [message for message in reversed(node.messages) if message.end <= self.confirmed]
            for topic, key in (("TopicA", "k0"), ("%RETRY%group", "k1")):
                wanted = [message.body for message in confirmed if (message.queue[0], message.key) == (topic, key)]
                assert node.found(topic, key) == wanted[:64]

    def step(self) -> None:
        """Anything."""
        node = self.chance.choice([self.master, self.replica])
        action = self.chance.choices(
            [self.append, self.copy, lambda: self.flush(node), lambda: self.crash(node), lambda: self.close(node),
             self.change_roles],
            [40, 40, 20, 6, 2, 4],
        )[0]  # fmt: skip
        action()


def walk(seed: int, steps: int) -> None:
    """Some steps, then everything is copied: both logs are the same to the last byte."""
    pair = Pair(seed)
    for _ in range(steps):
        pair.step()
        pair.check()
        if pair.chance.random() < 0.1:
            pair.check_keys()
    while pair.is_new_connection or pair.replica.end > pair.common or pair.replica.end < pair.master.end:
        pair.copy()
    assert pair.replica.end == pair.common == pair.master.end
    pair.check()
    pair.check_keys()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 60))
def test_two_stores(seed: int, steps: int) -> None:
    """Short walks that hypothesis chooses and shortens."""
    walk(seed, steps)


@pytest.mark.parametrize("first_seed", range(0, 30, 10))
def test_seeded_walks(first_seed: int) -> None:
    """Longer ones, always the same."""
    for seed in range(first_seed, first_seed + 10):
        walk(seed, 120)
