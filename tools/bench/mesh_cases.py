"""What one call costs on the mesh, on both sides together: the asker here, the answerer in a process beside it."""

import asyncio
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

from apogeemq.mesh.call_streams import StreamCaller
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.runtime import run as run_loop
from apogeemq.mesh.runtime import settle_garbage_collector
from apogeemq.mesh.v1.broker_pb2 import SendMessageRequest
from apogeemq.mesh.v1.methods import BROKER_CHANNELS, SEND_MESSAGE

from tests.e2e.process import ManagedProcess
from tools.bench.cases import ROOT, in_process_of_its_own
from tools.bench.load import Outcome, Tally
from tools.bench.progress import Progress
from tools.bench.report import align

BODY_SIZE_BYTES = 1024
CALL_TIMEOUT_S = 10.0


@dataclasses.dataclass(frozen=True)
class MeshLoad:
    """Whom to ask, with how many calls in flight."""

    target: str
    in_flight: int
    seconds: float
    warmup_s: float
    server_pids: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class MeshResult:
    """The rounds with one number of calls in flight."""

    in_flight: int
    outcomes: list[Outcome]

    @property
    def both_sides_us(self) -> list[float]:
        """CPU time per message of asker and answerer together, user and system, one figure a round."""
        return [(one.generator_cpu_s + (one.server_cpu_s or 0.0)) / one.messages * 1e6 for one in self.outcomes]


def measure(in_flight: Sequence[int], rounds: int, seconds: float, warmup_s: float) -> list[MeshResult]:
    """Each number of calls in flight, `rounds` times in turn, against one answerer."""
    with tempfile.TemporaryDirectory(prefix="apogeemq-bench-") as directory:
        argv = [sys.executable, "-m", "tools.bench.mesh_answerer"]
        with ManagedProcess("answerer", argv, log_directory=pathlib.Path(directory), cwd=ROOT) as process:
            target = process.wait_ready().listeners["mesh"]
            outcomes: dict[int, list[Outcome]] = {depth: [] for depth in in_flight}
            for _ in range(rounds):
                for depth in in_flight:
                    load = MeshLoad(target, depth, seconds, warmup_s, (process.pid,))
                    outcomes[depth].append(in_process_of_its_own(run, load))
            process.stop()
    return [MeshResult(depth, own) for depth, own in outcomes.items()]


def run(load: MeshLoad) -> Outcome:
    """Run one load to its end."""
    return run_loop(lambda: _run(load))


async def _run(load: MeshLoad) -> Outcome:
    caller = StreamCaller(GrpcNetwork(), load.target, BROKER_CHANNELS, clock=SystemClock())
    try:
        return await _ask_for_a_while(caller, load)
    finally:
        await caller.close()


async def _ask_for_a_while(caller: StreamCaller, load: MeshLoad) -> Outcome:
    progress = Progress(f"mesh, {load.in_flight} in flight")
    tally = Tally(load.server_pids)
    is_ending = False

    async def lane() -> None:
        request = SendMessageRequest(topic="BENCH_mesh", producer_group="BENCH", body=bytes(BODY_SIZE_BYTES))
        while not is_ending:
            started_ns = time.perf_counter_ns()
            try:
                await caller.call(SEND_MESSAGE, request, timeout_s=CALL_TIMEOUT_S)
            except MeshError as error:
                tally.errors[type(error).__name__] += 1
                continue
            tally.messages += 1
            tally.latencies_ns.append(time.perf_counter_ns() - started_ns)
            progress.show(tally.messages)

    settle_garbage_collector()
    async with asyncio.TaskGroup() as lanes:
        for _ in range(load.in_flight):
            lanes.create_task(lane())
        await asyncio.sleep(load.warmup_s)
        tally = Tally(load.server_pids)
        await asyncio.sleep(load.seconds)
        outcome = tally.outcome()
        is_ending = True
    progress.end(outcome.messages, outcome.rate)
    return outcome


def table(results: Sequence[MeshResult]) -> str:
    """One line for each number in flight, medians over the rounds, and below it what went wrong."""
    rows: list[Sequence[str]] = [
        ("in flight", "both sides µs/msg", "of them", "answerer µs/msg", "msg/s", "p50 ms", "p99 ms")
    ]
    notes = []
    for result in results:
        rows.append(
            (
                str(result.in_flight),
                f"{statistics.median(result.both_sides_us):.1f}",
                " ".join(f"{figure:.1f}" for figure in result.both_sides_us),
                f"{statistics.median(outcome.server_cpu_us or 0.0 for outcome in result.outcomes):.1f}",
                f"{statistics.median(outcome.rate for outcome in result.outcomes):,.0f}",
                f"{statistics.median(outcome.p50_ms for outcome in result.outcomes):.2f}",
                f"{statistics.median(outcome.p99_ms for outcome in result.outcomes):.2f}",
            )
        )
        notes += [f"{count} × {error}" for outcome in result.outcomes for error, count in outcome.errors.items()]
    return "\n".join([*align(rows), *notes])
