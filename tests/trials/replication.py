"""What replication costs: `python -m tests.trials.replication [ROUNDS]`.

A master and a replica as processes of their own on this machine, real gRPC on loopback, real files, uvloop; messages
are appended straight to the master's store, so that no client's door is in the figures. Three parts:

    catch-up    the master holds the log already; MiB/s until the replica holds it too, CPU of both per MiB
    steady      messages at a fixed rate; CPU of both per message, the master's less that of the same load alone, and
                how long after its append the last byte of each slice of 2 ms was confirmed: the replica's lag
    one by one  from append to confirmation, one message at a time

and the longest that either event loop stood still meanwhile. Class *replicas*, acknowledged from the page cache.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import uvloop
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

ROUNDS = 3
HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"
FILE_SIZE = 256 << 20
CATCH_UP_BYTES = 384 << 20
STEADY_PER_S = (1_000, 5_000, 10_000, 20_000)
STEADY_S = 4.0
SLICE_S = 0.002
ONE_BY_ONE = 1_000
DEADLINE_S = 120.0


class Stalls:
    """How long the loop stood still, at the most, since it was last asked."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            self.longest_s = max(self.longest_s, time.monotonic() - before - 0.001)

    def take_ms(self) -> float:
        longest_s, self.longest_s = self.longest_s, 0.0
        return longest_s * 1000


def open_log(directory: pathlib.Path) -> ReplicatedLog:
    config = StoreConfig(store_host=HOST, commit_log_file_size_bytes=FILE_SIZE)
    store = MessageStore.open(directory, config, now_ms=lambda: time.time_ns() // 1_000_000)
    return ReplicatedLog.open(store, EpochFile(RealDisk(), directory / "epochFileCheckpoint"))


class Master:
    """The master's process; what its methods return is a line of JSON to the parent."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._log = open_log(directory)
        self._stalls = Stalls()
        self._confirmed = asyncio.Event()
        self._slices: deque[tuple[int, float]] = deque()
        self._lags_s: list[float] = []

    async def start(self) -> dict[str, float]:
        await self._log.begin_epoch(1)
        self._leading = Leading(
            self._log,
            epoch=1,
            own=progress.Member(1, 1),
            known=progress.TakeSet(frozenset({1, 2}), 1),
            min_in_sync=1,
            clock=SystemClock(),
            propose=lambda _: None,
            on_confirm=self._take_confirmed,
        )
        face = ReplicationFace(
            cluster="c",
            broker_name="b",
            file_size_bytes=FILE_SIZE,
            leading=lambda: self._leading,
            clock=SystemClock(),
        )
        self._listening = await GrpcNetwork().serve("127.0.0.1", 0, [face.handler])
        self._leading.start()
        return {"port": self._listening.port}

    def _take_confirmed(self, offset: int) -> None:
        self._confirmed.set()
        while self._slices and self._slices[0][0] <= offset:
            self._lags_s.append(time.monotonic() - self._slices.popleft()[1])

    def _append(self, body: bytes) -> None:
        self._log.store.append("TopicTest", 0, 0, 0, 1, HOST, 0, 0, body, b"", 0)

    async def fill(self, body_bytes: int, size_bytes: int) -> dict[str, float]:
        body, end = b"x" * body_bytes, self._log.end_offset + size_bytes
        while self._log.end_offset < end:
            for _ in range(500):
                self._append(body)
            await asyncio.sleep(0)
        self._leading.written()
        await asyncio.sleep(0.01)
        self._stalls.take_ms()
        return {"size_bytes": size_bytes}

    async def wait(self) -> dict[str, float]:
        begun = time.monotonic()
        while self._log.confirm_offset < self._log.end_offset:
            self._confirmed.clear()
            await asyncio.wait_for(self._confirmed.wait(), DEADLINE_S)
        return {"waited_s": time.monotonic() - begun, "stall_ms": self._stalls.take_ms()}

    async def steady(self, per_s: int) -> dict[str, float]:
        body, sent, begun = b"x" * 1024, 0, time.monotonic()
        while (passed := time.monotonic() - begun) < STEADY_S:
            due = int(passed * per_s)
            while sent < due:
                self._append(body)
                self._leading.written()
                sent += 1
            self._slices.append((self._log.end_offset, time.monotonic()))
            await asyncio.sleep(SLICE_S)
        lags_s = sorted(self._lags_s) or [0.0]
        return {
            "messages": sent,
            "stall_ms": self._stalls.take_ms(),
            "lag_p50_ms": lags_s[len(lags_s) // 2] * 1000,
            "lag_p99_ms": lags_s[len(lags_s) * 99 // 100] * 1000,
        }

    async def one_by_one(self) -> dict[str, float]:
        body, took = b"x" * 1024, []
        for _ in range(ONE_BY_ONE):
            begun = time.perf_counter()
            self._append(body)
            self._leading.written()
            await self.wait()
            took.append(time.perf_counter() - begun)
        took.sort()
        return {"p50_ms": took[len(took) // 2] * 1000, "p99_ms": took[len(took) * 99 // 100] * 1000}


class Replica:
    """The replica's process."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._stalls = Stalls()
        self._following = Following(
            open_log(directory),
            identity=ReplicaIdentity("c", "b", 2, 1),
            network=GrpcNetwork(),
            clock=SystemClock(),
        )

    async def start(self) -> dict[str, float]:
        return {}

    async def follow(self, port: int) -> dict[str, float]:
        self._stalls.take_ms()
        self._following.follow(1, 1, f"127.0.0.1:{port}")
        return {}

    async def look(self) -> dict[str, float]:
        return {"stall_ms": self._stalls.take_ms()}


async def serve(role: str, directory: pathlib.Path) -> None:
    """Obey lines of JSON from the parent."""
    process: Any = (Master if role == "master" else Replica)(directory)
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, *arguments = json.loads(line)
        print(json.dumps(await getattr(process, name)(*arguments)), flush=True)
    os._exit(0)  # nothing of its directory is looked at again


class Child:
    """One of the two processes, as the parent sees it."""

    def __init__(self, role: str, directory: pathlib.Path) -> None:
        arguments = [sys.executable, "-m", "tests.trials.replication", role, str(directory)]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if role == "replica":
            self.ask("start")

    def ask(self, *request: object) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def catch_up(directory: pathlib.Path, body_bytes: int, size_bytes: int) -> tuple[float, ...]:
    """MiB/s, CPU ms per MiB of master and replica, longest stalls in ms."""
    master, replica = Child("master", directory / "master"), Child("replica", directory / "replica")
    port = master.ask("start")["port"]
    master.ask("fill", body_bytes, size_bytes)
    before = master.cpu_s(), replica.cpu_s()
    replica.ask("follow", port)
    told = master.ask("wait")
    mib = size_bytes / (1 << 20)
    spent = [(now - then) * 1000 / mib for now, then in zip((master.cpu_s(), replica.cpu_s()), before, strict=True)]
    stall_ms = replica.ask("look")["stall_ms"]
    for child in (master, replica):
        child.end()
    return mib / told["waited_s"], *spent, told["stall_ms"], stall_ms


def steady(directory: pathlib.Path, per_s: int, *, with_replica: bool) -> tuple[float, ...]:
    """CPU µs per message of master and replica; lag in ms, p50 and p99; messages a second."""
    master, replica = Child("master", directory / "master"), Child("replica", directory / "replica")
    port = master.ask("start")["port"]
    if with_replica:
        replica.ask("follow", port)
        master.ask("fill", 1024, 1 << 20)
        master.ask("wait")
    before = master.cpu_s(), replica.cpu_s()
    told = master.ask("steady", per_s)
    after = master.cpu_s(), replica.cpu_s()
    for child in (master, replica):
        child.end()
    spent = [(now - then) * 1e6 / told["messages"] for now, then in zip(after, before, strict=True)]
    return *spent, told["lag_p50_ms"], told["lag_p99_ms"], told["messages"] / STEADY_S


def one_by_one(directory: pathlib.Path) -> tuple[float, float]:
    """p50 and p99 in ms."""
    master, replica = Child("master", directory / "master"), Child("replica", directory / "replica")
    replica.ask("follow", master.ask("start")["port"])
    master.ask("fill", 1024, 1 << 20)
    master.ask("wait")
    told = master.ask("one_by_one")
    for child in (master, replica):
        child.end()
    return told["p50_ms"], told["p99_ms"]


def tell(name: str, units: tuple[str, ...], rows: Sequence[tuple[float, ...]]) -> None:
    """Median and range of each column."""
    columns = zip(*rows, strict=True)
    parts = [f"{statistics.median(c):.4g} ({min(c):.4g}-{max(c):.4g}) {u}" for c, u in zip(columns, units, strict=True)]
    print(f"{name:24} {', '.join(parts)}", flush=True)


def fresh(measure: Any, *arguments: object, **keywords: object) -> tuple[float, ...]:
    """One measurement in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        result: tuple[float, ...] = measure(pathlib.Path(directory), *arguments, **keywords)
        return result


def main(arguments: list[str]) -> int:
    """Print a table; or be one of its processes."""
    if len(arguments) == 2:
        uvloop.run(serve(arguments[0], pathlib.Path(arguments[1])))
        return 0
    rounds = range(int(arguments[0]) if arguments else ROUNDS)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    for body_bytes, size_bytes in ((1024, CATCH_UP_BYTES), (16, CATCH_UP_BYTES // 8)):
        units = ("MiB/s", "ms/MiB master", "ms/MiB replica", "ms stall master", "ms stall replica")
        tell(f"catch-up, body {body_bytes}", units, [fresh(catch_up, body_bytes, size_bytes) for _ in rounds])
    for per_s in STEADY_PER_S:
        pairs = [(fresh(steady, per_s, with_replica=True), fresh(steady, per_s, with_replica=False)[0]) for _ in rounds]
        rows = [(both[0], alone, both[0] - alone, *both[1:]) for both, alone in pairs]
        heads = ("µs master", "µs alone", "µs more", "µs replica", "ms lag p50", "ms lag p99", "a second")
        tell(f"steady, {per_s} a second", heads, rows)
    tell("one by one", ("ms p50", "ms p99"), [fresh(one_by_one) for _ in rounds])
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
