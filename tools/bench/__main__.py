"""Measures a broker from outside.

    ./task bench -- remoting                                 every case, against a fresh `apogeemq up`
    ./task bench -- remoting --case send-1x64 --seconds 10   one of them
    ./task bench -- remoting --target 127.0.0.1:10911 --pid 4711
    ./task bench -- remoting --server apache                 the same against Apache's broker
    ./task bench -- memory                                   a million messages stored and drained
    ./task bench -- start --runs 5                           from exec to the first accepted send
    ./task bench -- grpc                                     SendMessage through the proxy beside a bare echo
    ./task bench -- mesh                                     one call between two services, both sides together
    ./task bench -- clients                                  CPU of our own clients: sends, batches, handlers, async for
    ./task bench -- store                                    the store alone, beside its targets
    ./task bench -- backlog                                  draining 5,000,000 messages beside draining few
    ./task bench -- consume                                  push consuming from our broker and from Apache's, in turns
    ./task bench -- crowd                                    many topics, clients and waiting pulls
    ./task bench -- kinds                                    pops, transactions and timer messages

The case send-8x32 is 8 connections with 32 sends in flight on each; a batch has 32 messages, a pull asks for 32; bodies
are 1 KiB. "server µs/msg" is the CPU time, user and system, of the server's processes. "ceiling" is the same case
against a server that only answers: where the two come near each other, the generator was the limit.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from tests.interop.deployments import DEPLOYMENTS
from tools.bench import (
    backlog_cases,
    cases,
    client_cases,
    client_load,
    consume_cases,
    crowd_cases,
    grpc_cases,
    kind_cases,
    mesh_cases,
    report,
    server_process,
    store_cases,
)
from tools.bench.server_process import Server

LoadAverage = tuple[float, float, float]
"""Of 1, 5 and 15 minutes."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs one measurement and prints its result; 1 when a request in it failed: such figures count for nothing."""
    options = parse(words)
    loadavg_before = os.getloadavg()
    if options.measurement in WITHOUT_SERVER:
        return WITHOUT_SERVER[options.measurement](options, loadavg_before)
    with chosen_server(options) as server:
        result, text, errors = measure(options, server)
        surroundings = report.Surroundings.of(server.description, loadavg_before)
    if options.output == "json":
        print(report.as_json(options.measurement, result, surroundings))
    else:
        print(text, surroundings.text(), sep="\n")
    return 1 if errors else 0


def measure_grpc(options: argparse.Namespace, loadavg_before: LoadAverage) -> int:
    """The gRPC cases start their servers themselves, several beside each other."""
    results = grpc_cases.measure(options.in_flight or [1, 32], options.rounds, options.seconds, options.warmup)
    surroundings = report.Surroundings.of(
        "echo, all-in-one, proxy and broker apart; started for this run", loadavg_before
    )
    if options.output == "json":
        print(report.as_json("grpc", results, surroundings))
    else:
        print(grpc_cases.table(results), surroundings.text(), sep="\n")
    return 1 if any(outcome.error_count for result in results for outcome in result.outcomes) else 0


def measure_mesh(options: argparse.Namespace, loadavg_before: LoadAverage) -> int:
    """The mesh case starts its answering side itself."""
    results = mesh_cases.measure(options.in_flight or [32], options.rounds, options.seconds, options.warmup)
    surroundings = report.Surroundings.of("answerer started for this run", loadavg_before)
    if options.output == "json":
        print(report.as_json("mesh", results, surroundings))
    else:
        print(mesh_cases.table(results), surroundings.text(), sep="\n")
    return 1 if any(outcome.error_count for result in results for outcome in result.outcomes) else 0


def measure_clients(options: argparse.Namespace, loadavg_before: LoadAverage) -> int:
    """The clients' cases share one server, and raise what goes wrong."""
    clients, loops = options.client or list(client_cases.CLIENTS), options.loop or list(client_cases.LOOPS)
    outcomes = client_cases.measure(clients, loops, options.seconds, options.warmup)
    surroundings = report.Surroundings.of("all-in-one, started for this run", loadavg_before)
    if options.output == "json":
        print(report.as_json("clients", outcomes, surroundings))
    else:
        print(client_load.table(outcomes), surroundings.text(), sep="\n")
    return 0


def measure_store(options: argparse.Namespace, loadavg_before: LoadAverage) -> int:
    """The store's cases need no server, and raise what goes wrong."""
    run = store_cases.StoreRun(options.directory, options.rounds)
    figures = store_cases.measure(options.case or list(store_cases.CASES), run)
    return print_figures(options, figures, "the store alone, class page cache", loadavg_before)


def measure_crowd(options: argparse.Namespace, loadavg_before: LoadAverage) -> int:
    """Each of these cases starts a server of its own, and raises what goes wrong."""
    run = crowd_cases.CrowdRun(options.rounds, options.seconds)
    figures = crowd_cases.measure(options.case or list(crowd_cases.CASES), run)
    return print_figures(options, figures, "all-in-one, started for each case", loadavg_before)


def measure_kinds(options: argparse.Namespace, loadavg_before: LoadAverage) -> int:
    """Each of these cases starts a server of its own, and raises what goes wrong."""
    run = kind_cases.KindRun(options.rounds, options.seconds, options.messages, options.timers)
    figures = kind_cases.measure(options.case or list(kind_cases.CASES), run)
    return print_figures(options, figures, "all-in-one, started for each case", loadavg_before)


def measure_backlog(options: argparse.Namespace, loadavg_before: LoadAverage) -> int:
    """It starts its server on a store that it filled."""
    figures = backlog_cases.measure(backlog_cases.BacklogRun(options.messages, options.rounds, options.seconds))
    return print_figures(options, figures, "all-in-one, started for this run", loadavg_before)


def measure_consume(options: argparse.Namespace, loadavg_before: LoadAverage) -> int:
    """It starts both brokers."""
    figures = consume_cases.measure(consume_cases.ConsumeRun(options.rounds, options.messages))
    return print_figures(options, figures, "all-in-one and Apache's broker, started for this run", loadavg_before)


def print_figures(
    options: argparse.Namespace, figures: Sequence[store_cases.Figure], server: str, loadavg_before: LoadAverage
) -> int:
    """Figures beside their targets. 0: what goes wrong in them is raised."""
    surroundings = report.Surroundings.of(server, loadavg_before)
    if options.output == "json":
        print(report.as_json(options.measurement, figures, surroundings))
    else:
        print(store_cases.table(figures), surroundings.text(), sep="\n")
    return 0


WITHOUT_SERVER = {
    "grpc": measure_grpc,
    "mesh": measure_mesh,
    "clients": measure_clients,
    "store": measure_store,
    "crowd": measure_crowd,
    "kinds": measure_kinds,
    "backlog": measure_backlog,
    "consume": measure_consume,
}
"""The measurements that start what they need themselves."""


def measure(options: argparse.Namespace, server: Server) -> tuple[object, str, int]:
    """The result, the same as text, and how many requests failed."""
    if options.measurement == "start":
        start = cases.measure_start(options.server, options.runs)
        return start, report.start_text(start), 0
    if options.measurement == "memory":
        memory = cases.measure_memory(server, options.messages)
        missing = memory.stored.messages - memory.drained.messages
        return memory, report.memory_text(memory), missing or memory.stored.error_count + memory.drained.error_count
    timing = cases.Timing(options.seconds, options.warmup)
    chosen = [cases.CASES_BY_NAME[name] for name in options.case or cases.CASES_BY_NAME]
    results = cases.run_cases(server, chosen, timing, with_ceiling=not options.no_ceiling)
    return results, report.cases_table(results), sum(result.outcome.error_count for result in results)


def chosen_server(options: argparse.Namespace) -> contextlib.AbstractContextManager[Server]:
    """The server to measure, started now unless there is a target; `start` starts its own."""
    if options.measurement == "start":
        return contextlib.nullcontext(Server("", 0, (), description=options.server))
    if options.target is None:
        return server_process.started(options.server)
    return contextlib.nullcontext(server_process.running(options.target, options.pid))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measurements = parser.add_subparsers(dest="measurement", required=True)
    remoting = measurements.add_parser("remoting", help="rate, latency and CPU per message of sends, batches and pulls")
    memory = measurements.add_parser("memory", help="the server's memory while it stores and hands out many messages")
    start = measurements.add_parser("start", help="time to the first accepted send, memory when idle")
    grpc = measurements.add_parser(
        "grpc", help="CPU of one SendMessage: a bare echo, one process, proxy and broker apart"
    )
    mesh = measurements.add_parser("mesh", help="CPU of one call between two services, both sides together")
    clients = measurements.add_parser("clients", help="CPU of our own clients per message sent or received")
    store = measurements.add_parser("store", help="the store alone: appends, reads, opening, recovery, memory")
    backlog = measurements.add_parser("backlog", help="draining a long backlog beside a short one")
    backlog.add_argument("--messages", type=int, default=5_000_000, help="in the long backlog")
    backlog.add_argument("--rounds", type=int, default=2, help="how often both are drained")
    backlog.add_argument("--seconds", type=float, default=5.0, help="so long the short one is read again and again")
    consume = measurements.add_parser("consume", help="push consuming from our broker and from Apache's, in turns")
    consume.add_argument("--messages", type=int, default=50_000, help="in each turn's backlog")
    consume.add_argument("--rounds", type=int, default=3, help="turns of each")
    for measurement in (backlog, consume):
        measurement.add_argument("-o", "--output", choices=["table", "json"], default="table")
    kinds = measurements.add_parser("kinds", help="what pops, transactions and timer messages cost")
    kinds.add_argument("--case", action="append", choices=list(kind_cases.CASES), help="default: every one")
    kinds.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    kinds.add_argument("--seconds", type=float, default=5.0, help="of transactions, each round")
    kinds.add_argument("--messages", type=int, default=100_000, help="in the backlog of each round of pops")
    kinds.add_argument("--timers", type=int, default=1_000_000, help="that are pending")
    kinds.add_argument("-o", "--output", choices=["table", "json"], default="table")
    crowd = measurements.add_parser("crowd", help="what many topics, clients and waiting pulls cost")
    crowd.add_argument("--case", action="append", choices=list(crowd_cases.CASES), help="default: every one")
    crowd.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    crowd.add_argument("--seconds", type=float, default=5.0, help="of sends and heartbeats, each round")
    crowd.add_argument("-o", "--output", choices=["table", "json"], default="table")
    store.add_argument("--case", action="append", choices=list(store_cases.CASES), help="default: every one")
    store.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    store.add_argument("--directory", help="where stores are made, for another file system (default: the system's)")
    store.add_argument("-o", "--output", choices=["table", "json"], default="table")
    clients.add_argument("--client", action="append", choices=list(client_cases.CLIENTS), help="default: every one")
    clients.add_argument("--loop", action="append", choices=client_cases.LOOPS, help="default: both")
    clients.add_argument("--seconds", type=float, default=4.0, help="measured time of each case of sends")
    clients.add_argument("--warmup", type=float, default=1.0, metavar="SECONDS", help="before it")
    clients.add_argument("-o", "--output", choices=["table", "json"], default="table")
    for measurement, depths in ((grpc, "1, 32"), (mesh, "32")):
        measurement.add_argument(
            "--in-flight", type=int, action="append", help=f"calls at a time; may be repeated (default: {depths})"
        )
        measurement.add_argument("--rounds", type=int, default=5, help="the cases take turns so often")
        measurement.add_argument("--seconds", type=float, default=4.0, help="measured time of each turn")
        measurement.add_argument("--warmup", type=float, default=1.0, metavar="SECONDS", help="before it")
        measurement.add_argument("-o", "--output", choices=["table", "json"], default="table")
    for measurement in (remoting, memory, start):
        measurement.add_argument("--server", choices=list(DEPLOYMENTS), default="all-in-one", help="what to start")
        measurement.add_argument("-o", "--output", choices=["table", "json"], default="table")
    for measurement in (remoting, memory):
        measurement.add_argument("--target", metavar="HOST:PORT", help="a broker that runs already; nothing is started")
        measurement.add_argument("--pid", type=int, action="append", default=[], help="a process of the target")
    remoting.add_argument("--case", action="append", choices=list(cases.CASES_BY_NAME), help="default: every one")
    remoting.add_argument("--seconds", type=float, default=5.0, help="measured time of each case")
    remoting.add_argument("--warmup", type=float, default=2.0, metavar="SECONDS", help="before it")
    remoting.add_argument("--no-ceiling", action="store_true", help="leave out the generator's own ceiling")
    memory.add_argument("--messages", type=int, default=1_000_000)
    start.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(words)
    if options.measurement == "memory" and options.target and not options.pid:
        parser.error("memory needs the --pid of a --target")
    return options


if __name__ == "__main__":
    sys.exit(main())
