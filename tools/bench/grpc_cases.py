"""What a SendMessage costs: at a bare echo behind the same door, at the all-in-one, and at a proxy beside its broker.

The three take turns, so that each ratio is one of the same minutes: the machine's slow phases last longer than a turn.
"""

import contextlib
import dataclasses
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

from tests.e2e.process import ManagedProcess
from tests.interop.deployments import DEPLOYMENTS
from tools.bench.cases import ROOT, fresh_topic, in_process_of_its_own
from tools.bench.grpc_load import GrpcLoad, run
from tools.bench.load import Outcome
from tools.bench.report import align

ECHO = "echo"
DEPLOYED = {"local": "all-in-one", "mesh": "processes"}
"""Case → deployment: the proxy asks the broker in its process, or over the mesh."""


@dataclasses.dataclass(frozen=True)
class GrpcServer:
    """Where calls go, and the processes whose CPU time counts. The name server's does not: it has no part in a send."""

    target: str
    pids: tuple[int, ...]
    is_proxy: bool


@dataclasses.dataclass(frozen=True)
class GrpcResult:
    """The rounds of one case."""

    case: str
    in_flight: int
    outcomes: list[Outcome]
    ratio_to_echo: float | None

    @property
    def server_cpu_us(self) -> float:
        """Median over the rounds."""
        return statistics.median(outcome.server_cpu_us or 0.0 for outcome in self.outcomes)


def measure(in_flight: Sequence[int], rounds: int, seconds: float, warmup_s: float) -> list[GrpcResult]:
    """Every case with each number of calls in flight, `rounds` times in turn."""
    with contextlib.ExitStack() as stack:
        servers = {ECHO: stack.enter_context(_echo())}
        for case, deployment in DEPLOYED.items():
            servers[case] = stack.enter_context(_deployed(deployment))
        results = []
        for depth in in_flight:
            outcomes: dict[str, list[Outcome]] = {case: [] for case in servers}
            for _ in range(rounds):
                for case, server in servers.items():
                    load = _load(case, server, depth, seconds, warmup_s)
                    outcomes[case].append(in_process_of_its_own(run, load))
            results += _results(outcomes, depth)
        return results


def _load(case: str, server: GrpcServer, in_flight: int, seconds: float, warmup_s: float) -> GrpcLoad:
    return GrpcLoad(
        target=server.target,
        topic=fresh_topic("grpc"),
        in_flight=in_flight,
        seconds=seconds,
        warmup_s=warmup_s,
        server_pids=server.pids,
        label=f"SendMessage, {case}, {in_flight} in flight",
        is_proxy=server.is_proxy,
    )


def _results(outcomes: dict[str, list[Outcome]], in_flight: int) -> list[GrpcResult]:
    """Ratios are those of neighbours in one round, and their median."""
    results = []
    for case, own in outcomes.items():
        ratios = [
            (one.server_cpu_us or 0.0) / echo.server_cpu_us
            for one, echo in zip(own, outcomes[ECHO], strict=True)
            if echo.server_cpu_us
        ]
        results.append(GrpcResult(case, in_flight, own, None if case == ECHO else statistics.median(ratios)))
    return results


@contextlib.contextmanager
def _echo() -> Iterator[GrpcServer]:
    with tempfile.TemporaryDirectory(prefix="apogeemq-bench-") as directory:
        argv = [sys.executable, "-m", "tools.bench.grpc_echo"]
        with ManagedProcess("echo", argv, log_directory=pathlib.Path(directory), cwd=ROOT) as process:
            yield GrpcServer(process.wait_ready().listeners["grpc"], (process.pid,), is_proxy=False)
            process.stop()


@contextlib.contextmanager
def _deployed(name: str) -> Iterator[GrpcServer]:
    with (
        tempfile.TemporaryDirectory(prefix="apogeemq-bench-") as directory,
        DEPLOYMENTS[name](pathlib.Path(directory), {}, with_proxy=True) as deployment,
    ):
        pids = tuple(process.pid for own, process in deployment.processes.items() if own != "namesrv")
        yield GrpcServer(deployment.grpc, pids, is_proxy=True)
        deployment.stop()


def table(results: Sequence[GrpcResult]) -> str:
    """One line a case and depth, medians over the rounds, and below it what went wrong."""
    rows: list[Sequence[str]] = [
        ("case", "in flight", "server µs/msg", "of them", "× echo", "msg/s", "p50 ms", "p99 ms")
    ]
    notes = []
    for result in results:
        every = [f"{outcome.server_cpu_us or 0.0:.0f}" for outcome in result.outcomes]
        rows.append(
            (
                result.case,
                str(result.in_flight),
                f"{result.server_cpu_us:.0f}",
                " ".join(every),
                "-" if result.ratio_to_echo is None else f"{result.ratio_to_echo:.2f}",
                f"{_median(result, lambda outcome: outcome.rate):,.0f}",
                f"{_median(result, lambda outcome: outcome.p50_ms):.2f}",
                f"{_median(result, lambda outcome: outcome.p99_ms):.2f}",
            )
        )
        notes += [f"{result.case}: {count} × {error}" for one in result.outcomes for error, count in one.errors.items()]
    return "\n".join([*align(rows), *notes])


def _median(result: GrpcResult, value: Callable[[Outcome], float]) -> float:
    return statistics.median(value(outcome) for outcome in result.outcomes)
