"""What replication adds to a send on the running product: `python -m tests.trials.replicated_sends [ROUNDS]`.

A master alone in its set, then the same with one replica: etcd, a name server, two controllers and the brokers as
processes on this machine, class *replicas*. The load is the bench's (`tools/bench`): so many connections with so many
sends in flight on each. CPU a message of the master in both cases, and of the replica.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import sys
import tempfile

from tests.e2e.broker_set import BrokerSetDeployment
from tools.bench import cases
from tools.bench.server_process import cpu_seconds, running

ROUNDS = 3
LOADS = (cases.Case("send", 1, 1), cases.Case("send", 16, 1), cases.Case("send", 8, 8), cases.Case("send", 8, 32))
SETTINGS = {"replication.min_in_sync_replicas": "1"}
TIMING = cases.Timing(seconds=5.0, warmup_s=2.0)


def measure(deployment: BrokerSetDeployment, case: cases.Case) -> tuple[float, ...]:
    """Messages a second, p50 and p99 in ms; CPU µs a message of the master, of the others together."""
    master = deployment.master()
    server = running(deployment.remoting[master], [deployment.process(master).pid])
    others = [deployment.process(name).pid for name in deployment.slaves()]
    before_s = cpu_seconds(others)
    outcome = cases.run_case(server, case, TIMING, label=case.name)
    others_s = cpu_seconds(others) - before_s
    assert not outcome.error_count, outcome.errors
    whole_s = outcome.elapsed_s + TIMING.warmup_s  # the others' time is of the warm-up too
    others_us = others_s / (outcome.messages * whole_s / outcome.elapsed_s) * 1e6
    return outcome.rate, outcome.p50_ms, outcome.p99_ms, outcome.server_cpu_us or 0.0, others_us


def measure_all(brokers: int, rounds: int) -> dict[str, list[tuple[float, ...]]]:
    """Every load, so many times, on a set of its own."""
    found: dict[str, list[tuple[float, ...]]] = {case.name: [] for case in LOADS}
    with (
        tempfile.TemporaryDirectory() as directory,
        BrokerSetDeployment(pathlib.Path(directory), brokers=brokers, etcd=1, settings=SETTINGS) as deployment,
    ):
        deployment.whole()
        for _ in range(rounds):
            for case in LOADS:
                found[case.name].append(measure(deployment, case))
    return found


def main(arguments: list[str]) -> int:
    """Print a table: medians."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    alone, both = measure_all(1, rounds), measure_all(2, rounds)
    print(f"{'':10} {'alone':>30}   {'with a replica':>30}")
    heads = ("msg/s", "p50 ms", "p99 ms", "µs")
    print(f"{'load':10}", *(f"{head:>8}" for head in (*heads, *heads, "more", "replica µs")))
    for name in alone:
        one, two = ([statistics.median(column) for column in zip(*rows[name], strict=True)] for rows in (alone, both))
        figures = (*one[:4], *two[:4], two[3] - one[3], two[4])
        print(f"{name:10}", *(f"{figure:8.1f}" for figure in figures), flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
