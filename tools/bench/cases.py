"""What is measured: the Remoting cases, the memory under a million messages, the time to the first accepted send."""

import concurrent.futures
import dataclasses
import gc
import multiprocessing
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.e2e.process import ManagedProcess
from tests.interop.deployments import DEPLOYMENTS
from tools.bench import frames, single
from tools.bench.load import Outcome, run
from tools.bench.requests import Load
from tools.bench.server_process import MemorySampler, Server, memory_kib, split_address

AnyLoad = TypeVar("AnyLoad")
AnyOutcome = TypeVar("AnyOutcome")

BACKLOG_MESSAGES = 64_000
FIRST_SEND_TIMEOUT_S = 60.0
IDLE_S = 10.0
CEILING_SECONDS = 2.0
ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Case:
    """Connections × requests in flight on each, of one kind."""

    kind: str
    connections: int
    depth: int

    @property
    def name(self) -> str:
        """As `--case` takes it."""
        return f"{self.kind}-{self.connections}x{self.depth}"


CASES = (
    Case("send", 1, 1),
    Case("send", 1, 64),
    Case("send", 16, 1),
    Case("send", 8, 32),
    Case("batch", 1, 4),
    Case("pull", 1, 1),
    Case("pull", 4, 1),
)
CASES_BY_NAME = {case.name: case for case in CASES}


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long each case is measured, and how long it runs before that."""

    seconds: float
    warmup_s: float


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """One line of the table; `ceiling` is the same case against the null server: what the generator could do."""

    case: Case
    outcome: Outcome
    ceiling: Outcome | None


def run_cases(server: Server, cases: Sequence[Case], timing: Timing, *, with_ceiling: bool) -> list[CaseResult]:
    """Each case on a topic of its own, one after the other."""
    return [
        CaseResult(
            case=case,
            outcome=run_case(server, case, timing, label=case.name),
            ceiling=run_ceiling(case) if with_ceiling else None,
        )
        for case in cases
    ]


def run_case(server: Server, case: Case, timing: Timing, label: str) -> Outcome:
    """One case against one server, the load in a process of its own."""
    load = Load(
        kind=case.kind,
        host=server.host,
        port=server.port,
        topic=fresh_topic(case.name),
        connections=case.connections,
        depth=case.depth,
        seconds=timing.seconds,
        warmup_s=timing.warmup_s,
        server_pids=server.pids,
        label=label,
    )
    if case.kind == "pull":
        in_own_process(backlog(load, BACKLOG_MESSAGES))
    return in_own_process(load)


def run_ceiling(case: Case) -> Outcome:
    """The same case against a server that does nothing but answer."""
    with tempfile.TemporaryDirectory(prefix="apogeemq-bench-") as directory:
        argv = [sys.executable, "-m", "tools.bench.null_server"]
        with ManagedProcess("null", argv, log_directory=pathlib.Path(directory), cwd=ROOT) as process:
            host, port = split_address(process.wait_ready().listeners["remoting"])
            null = Server(host, port, (process.pid,), description="null")
            outcome = run_case(null, case, Timing(CEILING_SECONDS, warmup_s=0.5), label=f"{case.name} (null server)")
            process.stop()
            return outcome


def backlog(load: Load, messages: int) -> Load:
    """A load that stores that many messages in the same topic."""
    return dataclasses.replace(
        load, kind="batch", connections=1, depth=4, messages=messages, label=f"{load.label} (backlog)"
    )


def in_own_process(load: Load) -> Outcome:
    """Runs a Remoting load in a fresh process."""
    return in_process_of_its_own(run_without_gc, load)


def in_process_of_its_own(run_load: Callable[[AnyLoad], AnyOutcome], load: AnyLoad) -> AnyOutcome:
    """Runs a load in a fresh process, so that neither this one's threads nor its memory are in the figures."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(run_load, load).result()


def run_without_gc(load: Load) -> Outcome:
    """Runs a load in this process, which is its own and short: its few objects live to the end anyway."""
    gc.disable()
    return run(load)


def fresh_topic(name: str) -> str:
    """A topic that no earlier run has used."""
    return f"BENCH_{name}_{time.time_ns() // 1_000_000}"


@dataclasses.dataclass(frozen=True)
class MemoryResult:
    """RssAnon of the server while it stores and hands out messages, in KiB."""

    stored: Outcome
    drained: Outcome
    before_kib: int
    stored_kib: int
    drained_kib: int
    min_kib: int
    max_kib: int


def measure_memory(server: Server, messages: int) -> MemoryResult:
    """Stores `messages` of 1 KiB with 8 × 32 in flight, then pulls all of them, 32 at a time from each queue."""
    load = Load(
        kind="send",
        host=server.host,
        port=server.port,
        topic=fresh_topic("memory"),
        connections=8,
        depth=32,
        messages=messages,
        server_pids=server.pids,
        label="store",
    )
    before_kib = memory_kib(server.pids, "RssAnon")
    with MemorySampler(server.pids) as sampler:
        stored = in_own_process(load)
        stored_kib = memory_kib(server.pids, "RssAnon")
        drained = in_own_process(
            dataclasses.replace(load, kind="pull", connections=frames.TOPIC_QUEUES, depth=1, label="drain")
        )
        drained_kib = memory_kib(server.pids, "RssAnon")
    samples = [before_kib, stored_kib, drained_kib, *sampler.samples_kib]
    return MemoryResult(stored, drained, before_kib, stored_kib, drained_kib, min(samples), max(samples))


@dataclasses.dataclass(frozen=True)
class StartResult:
    """Seconds from exec to the ready line and to the first accepted send, per run; the last server's idle memory."""

    ready_s: list[float]
    first_send_s: list[float]
    idle_rss_kib: int
    idle_rss_anon_kib: int


def measure_start(kind: str, runs: int) -> StartResult:
    """Starts a fresh server `runs` times, after one time that is not counted (it fills the page cache)."""
    ready_s: list[float] = []
    first_send_s: list[float] = []
    memory: list[int] = []
    for number in range(runs + 1):
        with tempfile.TemporaryDirectory(prefix="apogeemq-bench-") as directory:
            deployment = DEPLOYMENTS[kind](pathlib.Path(directory), {})
            started = time.perf_counter()
            with deployment:
                ready = time.perf_counter()
                send_until_accepted(*split_address(deployment.broker))
                first_send = time.perf_counter()
                if number > 0:
                    ready_s.append(ready - started)
                    first_send_s.append(first_send - started)
                if number == runs:
                    time.sleep(IDLE_S)
                    pids = [process.pid for process in deployment.processes.values()]
                    memory = [memory_kib(pids, field) for field in ("VmRSS", "RssAnon")]
                deployment.stop()
    return StartResult(ready_s, first_send_s, *memory)


def send_until_accepted(host: str, port: int) -> None:
    """Sends one message again and again until the broker takes it."""
    template = frames.send_template(fresh_topic("start"), queue_id=0, slot=0, body=b"x" * 1024)
    deadline = time.perf_counter() + FIRST_SEND_TIMEOUT_S
    while True:
        try:
            if single.exchange(host, port, template.frame).code == frames.SUCCESS:
                return
        except OSError:
            pass  # not listening yet, or not answering yet: the deadline decides
        if time.perf_counter() > deadline:
            raise TimeoutError(f"no send accepted within {FIRST_SEND_TIMEOUT_S} s")
        time.sleep(0.005)
