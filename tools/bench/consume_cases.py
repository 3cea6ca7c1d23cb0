"""Push consuming by the same program from our broker and from Apache's, in turns; both run all the time.

The program is our Remoting client's push consumer with a handler that only counts. Its own CPU bounds the rate of both,
so the broker's CPU per message says more than the rate.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence

from tests.interop.deployments import DEPLOYMENTS, Deployment
from tools.bench.cases import fresh_topic, in_process_of_its_own
from tools.bench.client_kinds import run as run_client
from tools.bench.client_load import ClientLoad, ClientOutcome
from tools.bench.store_cases import Figure

SERVERS = ("all-in-one", "apache")


@dataclasses.dataclass(frozen=True)
class ConsumeRun:
    """How often each broker has its turn, and with how many messages."""

    rounds: int
    messages: int


def measure(run: ConsumeRun) -> list[Figure]:
    """After one turn each that is not counted: it warms up Java's compiler."""
    rounds = []
    with contextlib.ExitStack() as stack:
        deployments = []
        for name in SERVERS:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="apogeemq-bench-"))
            deployments.append(stack.enter_context(DEPLOYMENTS[name](pathlib.Path(directory), {})))
        for _ in range(run.rounds + 1):
            ours, apaches = (_consume(deployment, run) for deployment in deployments)
            rounds.append((ours, apaches))
        for deployment in deployments:
            deployment.stop()
    return figures_of(rounds[1:])


def _consume(deployment: Deployment, run: ConsumeRun) -> ClientOutcome:
    load = ClientLoad(
        client="remoting",
        kind="handler",
        in_flight=0,
        target=deployment.namesrv,
        topic=fresh_topic("consume"),
        seconds=0,
        warmup_s=0,
        loop="uvloop",
        backlog_messages=run.messages,
        server_pids=tuple(process.pid for process in deployment.processes.values()),
    )
    return in_process_of_its_own(run_client, load)


def figures_of(rounds: Sequence[tuple[ClientOutcome, ClientOutcome]]) -> list[Figure]:
    """Ratios are of neighbours: ours to Apache's."""
    ours, apaches = zip(*rounds, strict=True)
    return [
        Figure("push consume, ApogeeMQ", "messages/s", tuple(each.rate for each in ours), more_is_better=True),
        Figure("push consume, Apache", "messages/s", tuple(each.rate for each in apaches), more_is_better=True),
        Figure("rate, ours : Apache's", "", tuple(a.rate / b.rate for a, b in rounds), target=1.0, more_is_better=True),
        Figure("broker, ApogeeMQ", "µs CPU", tuple(each.server_cpu_us for each in ours)),
        Figure("broker, Apache", "µs CPU", tuple(each.server_cpu_us for each in apaches)),
        Figure("client beside ApogeeMQ", "µs CPU", tuple(each.client_cpu_us for each in ours)),
        Figure("client beside Apache", "µs CPU", tuple(each.client_cpu_us for each in apaches)),
    ]
