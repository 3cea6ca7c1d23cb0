"""How long official, unmodified clients wait when a set's master is killed: `python -m tests.trials.stock_failover`.

One etcd, a name server, two controllers, three brokers and a proxy as processes on this machine; official clients with
their defaults, but for one kind, those of a kind in one process, in two parts, the slow ones by themselves:

```
over the proxy   Java Remoting, Java gRPC, Python gRPC    ROUNDS kills; 3 producers a kind, over gRPC 3 consumers
straight         Java Remoting that asks each second      the same; 3 producers
straight         Java Remoting 5.3.3 and 4.9.8            ROUNDS / 4 kills; 10 producers a kind, 10 consumers of 5.3.3
```
A master is killed (-9); when all have gone on with the next one it is started again, and when all is whole comes the
next kill. A producer's pause is what lies between its last acknowledgement before and the first one after, a consumer's
the same of deliveries. Clients straight to the brokers ask for routes every 30 s from their start on, so they start 3 s
apart: whenever the kill comes, one asks in each 3 s after it. In the end every acknowledged message is looked for, at
the master and at the consumers.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import os
import pathlib
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.e2e.broker_set import BrokerSetDeployment
from tests.e2e.process import poll_until
from tests.e2e.set_clients import make_topic, read_back
from tests.interop import build, steady
from tests.interop.steady import Load, SteadyClients

ROUNDS = 12
ROUNDS_PER_SLOW = 4
START_EVERY_MS = 3_000
POLL_MS = 1_000
GO_ON_TIMEOUT_S = 90.0
FIRST_TIMEOUT_S = 60.0
ERROR_CHARACTERS = 160
NUMBER = re.compile(r"\d+")
"""What differs between errors that are the same."""

Begin = Callable[[str, str, pathlib.Path, Load], SteadyClients]
"""Starts clients given java, an address, a directory and what they do."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of client; `door` is whose address it is given: the name server's, or the proxy's "remoting" or "grpc"."""

    title: str
    name: str
    door: str
    begin: Begin


def remoting(version: str) -> Begin:
    """The Java Remoting client of that version."""
    return lambda java, address, directory, load: steady.java_remoting(java, version, address, directory, load)


JAVA_GRPC = Kind(
    "Java gRPC 5.2.0, over the proxy",
    "JavaGrpc",
    "grpc",
    steady.java_grpc,
)
PYTHON_GRPC = Kind(
    "Python gRPC, over the proxy",
    "PythonGrpc",
    "grpc",
    lambda _, address, directory, load: steady.python_grpc(address, directory, load),
)
PROXIED = Kind("Java Remoting 5.3.3, over the proxy", "Proxied", "remoting", remoting("5.3.3"))
STRAIGHT = Kind("Java Remoting 5.3.3, straight", "Straight5", "namesrv", remoting("5.3.3"))
STRAIGHT_4 = Kind("Java Remoting 4.9.8, straight", "Straight4", "namesrv", remoting("4.9.8"))
EACH_SECOND = Kind("Java Remoting 5.3.3, straight, asking each second", "Straight1s", "namesrv", remoting("5.3.3"))
"""With the one setting by which an application can shorten its wait, pollNameServerInterval."""
QUICK = (PROXIED, JAVA_GRPC, PYTHON_GRPC, EACH_SECOND)
FEED = dataclasses.replace(PYTHON_GRPC, name="Feed")
"""Sends what consumers straight at the brokers get: it is there again long before they are."""


@dataclasses.dataclass
class Seen:
    """What came of one kind's producers or consumers over all rounds; pauses in seconds."""

    title: str
    pauses_s: list[float]
    failed: int = 0
    errors: Mapping[str, int] = dataclasses.field(default_factory=dict)
    twice: int = 0

    def figures(self) -> dict[str, object]:
        """For a table."""
        ordered = sorted(self.pauses_s)
        p50, p99 = (ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.99))
        return {
            "kind": self.title,
            "samples": len(ordered),
            "p50_s": round(p50, 2),
            "p99_s": round(p99, 2),
            "least_s": round(ordered[0], 2),
            "most_s": round(ordered[-1], 2),
            "failed": self.failed,
            "errors": dict(self.errors),
            "twice": self.twice,
        }


@dataclasses.dataclass
class Stage:
    """Clients that work while a master is killed again and again. `directory` is for their logs."""

    deployment: BrokerSetDeployment
    proxy: Mapping[str, str]
    directory: pathlib.Path
    java: str

    @contextlib.contextmanager
    def started(self, loads: Sequence[tuple[Kind, Load]]) -> Iterator[dict[str, SteadyClients]]:
        """Clients by their kind's name, each of which has had a send acknowledged or got something."""
        addresses = {**self.proxy, "namesrv": self.deployment.namesrv}
        with contextlib.ExitStack() as stack:
            begun: dict[str, SteadyClients] = {}
            for kind, load in loads:
                make_topic(self.deployment, load.topic)
                clients = kind.begin(self.java, addresses[kind.door], self.directory, load)
                begun[kind.name] = stack.enter_context(clients)
            for clients in begun.values():
                clients.wait_started()
            self._wait_all_on(begun, 0, FIRST_TIMEOUT_S)
            yield begun

    def kill_master(self, all_clients: Mapping[str, SteadyClients]) -> tuple[int, int]:
        """One round; when the master was killed, and when all clients had gone on, in Unix ms."""
        before = self.deployment.whole()
        master = self.deployment.name_of(before["master_id"])
        self._wait_all_on(all_clients, now_ms(), GO_ON_TIMEOUT_S)
        killed_ms = now_ms()
        self.deployment.process(master).kill()
        self.deployment.until(lambda told: told["master_id"] not in {0, before["master_id"]}, "another is master")
        self._wait_all_on(all_clients, now_ms(), GO_ON_TIMEOUT_S)
        gone_on_ms = now_ms()
        self.deployment.start_broker(master)
        self.deployment.whole()
        return killed_ms, gone_on_ms

    def _wait_all_on(self, all_clients: Mapping[str, SteadyClients], since_ms: int, timeout_s: float) -> None:
        waited_for = dict(all_clients)

        def are_on() -> bool:
            for name in [name for name, clients in waited_for.items() if clients.are_all_on(since_ms)]:
                del waited_for[name]
            return not waited_for

        poll_until(
            are_on,
            timeout_s,
            lambda: next(iter(waited_for.values())).failure(f"{[*waited_for]} did not go on within {timeout_s:g} s"),
        )


def now_ms() -> int:
    """Unix time."""
    return time.time_ns() // 1_000_000


def longest_pause_s(times_ms: Sequence[int], killed_ms: int, gone_on_ms: int) -> float:
    """Of one client, beginning with what it had last before the kill. It has something on either side of it."""
    before_ms = max(each for each in times_ms if each <= killed_ms)
    after_ms = [each for each in times_ms if killed_ms < each <= gone_on_ms]
    return max(later - earlier for earlier, later in itertools.pairwise([before_ms, *after_ms])) / 1000


def pauses_s(of_clients: Mapping[str, Sequence[int]], rounds: Sequence[tuple[int, int]]) -> list[float]:
    """Of every client in every round."""
    return [longest_pause_s(times, *bounds) for times in of_clients.values() for bounds in rounds]


Copies = Mapping[str, int]
"""How often each message is in its topic, by its key."""


def copies_of(deployment: BrokerSetDeployment, clients: SteadyClients) -> Copies:
    """Look into the topic at the master; an AssertionError where an acknowledged message is not there any more."""
    clients.look()
    # What is acknowledged while the topic is read need not be found.
    acked = set(clients.acked)
    copies = Counter(body.decode() for body in read_back(deployment, clients.load.topic))
    lost = acked - set(copies)
    if lost:
        topic = clients.load.topic
        raise AssertionError(f"{topic}: {len(lost)} acknowledged messages are lost, among them {sorted(lost)[:5]}")
    return copies


def judge_producers(kind: Kind, clients: SteadyClients, copies: Copies, rounds: Sequence[tuple[int, int]]) -> Seen:
    """What producers saw."""
    errors = Counter(NUMBER.sub("#", failure.error)[:ERROR_CHARACTERS] for failure in clients.failures)
    twice = sum(count - 1 for count in copies.values())
    return Seen(kind.title, pauses_s(clients.acked_ms, rounds), len(clients.failures), errors, twice)


def judge_consumers(
    kind: Kind, clients: SteadyClients, fed_by: SteadyClients, copies: Copies, rounds: Sequence[tuple[int, int]]
) -> Seen:
    """What consumers saw, deliveries beyond the copies stored among it. They get, in time, whatever was acknowledged
    since the first kill; else an AssertionError.
    """
    wanted = {key for key, at_ms in fed_by.acked.items() if at_ms > rounds[0][0]}

    def missing() -> dict[str, int]:
        clients.look()
        lacks = {name: len(wanted.difference(keys)) for name, keys in clients.got.items()}
        return {name: count for name, count in lacks.items() if count}

    poll_until(
        lambda: not missing(),
        GO_ON_TIMEOUT_S,
        lambda: AssertionError(f"{kind.title}: acknowledged messages did not come: {missing()}"),
    )
    again = sum(
        max(count - copies.get(key, 1), 0) for keys in clients.got.values() for key, count in Counter(keys).items()
    )
    return Seen(kind.title, pauses_s(clients.got_ms, rounds), twice=again)


def quick_ones(stage: Stage, rounds: int, each: int = 3) -> tuple[list[Seen], list[Seen]]:
    """Clients that go on within seconds: what producers saw, and what consumers saw."""
    # A proxy serves no consumers over Remoting.
    readers = [kind for kind in QUICK if kind.door == "grpc"]
    loads = [(kind, Load(f"Stock_{kind.name}", kind.name, each, each if kind in readers else 0)) for kind in QUICK]
    loads = [(kind, dataclasses.replace(load, poll_ms=POLL_MS if kind is EACH_SECOND else 0)) for kind, load in loads]
    with stage.started(loads) as clients:
        bounds = [stage.kill_master(clients) for _ in range(rounds)]
        copies = {name: copies_of(stage.deployment, each_kind) for name, each_kind in clients.items()}
        return (
            [judge_producers(kind, clients[kind.name], copies[kind.name], bounds) for kind in QUICK],
            [
                judge_consumers(kind, clients[kind.name], clients[kind.name], copies[kind.name], bounds)
                for kind in readers
            ],
        )


def slow_ones(stage: Stage, rounds: int) -> tuple[list[Seen], list[Seen]]:
    """The same of clients that wait for their poll of routes."""
    many = Load("", "", 10, interval_ms=200, start_every_ms=START_EVERY_MS)
    feed = Load("Stock_Feed", FEED.name, 1, interval_ms=100)
    loads = [
        (STRAIGHT, dataclasses.replace(many, topic="Stock_5", prefix=STRAIGHT.name, consumers=10, feed=feed.topic)),
        (STRAIGHT_4, dataclasses.replace(many, topic="Stock_4", prefix=STRAIGHT_4.name)),
        (FEED, feed),
    ]
    with stage.started(loads) as clients:
        bounds = [stage.kill_master(clients) for _ in range(rounds)]
        copies = {name: copies_of(stage.deployment, each_kind) for name, each_kind in clients.items()}
        readers, fed_by = clients[STRAIGHT.name], clients[FEED.name]
        return (
            [judge_producers(kind, clients[kind.name], copies[kind.name], bounds) for kind in (STRAIGHT, STRAIGHT_4)],
            [judge_consumers(STRAIGHT, readers, fed_by, copies[FEED.name], bounds)],
        )


def tell(title: str, rows: Sequence[Seen], failed: str, twice: str) -> None:
    """Print a table."""
    print(title)
    for row in rows:
        each = row.figures()
        print(
            f"  {row.title:49} {each['samples']:3} samples: p50 {each['p50_s']:5.2f} s, p99 {each['p99_s']:5.2f} s, "
            f"range {each['least_s']:.2f} to {each['most_s']:.2f}; {failed.format(row.failed)}{twice} {row.twice}"
        )
        for error, count in row.errors.items():
            print(f"      {count} x {error}")


def main(words: list[str]) -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description="How long official clients wait when a set's master is killed.")
    parser.add_argument(
        "rounds", type=int, nargs="?", default=ROUNDS, help="kills that the quick ones see (default: %(default)s)"
    )
    parser.add_argument("--slow", type=int, help="kills that the slow ones see (default: a quarter)")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    options = parser.parse_args(words)
    slow = math.ceil(options.rounds / ROUNDS_PER_SLOW) if options.slow is None else options.slow
    producers: list[Seen] = []
    consumers: list[Seen] = []
    with tempfile.TemporaryDirectory() as made:
        directory = pathlib.Path(made)
        with BrokerSetDeployment(directory, etcd=1) as deployment:
            deployment.whole()
            stage = Stage(deployment, deployment.start_proxy(), directory / "clients", build.java_command())
            for measure, count in ((quick_ones, options.rounds), (slow_ones, slow)):
                if count:
                    sent, got = measure(stage, count)
                    producers += sent
                    consumers += got
    load = os.getloadavg()[0]
    if options.output == "json":
        told = {
            "producers": [each.figures() for each in producers],
            "consumers": [each.figures() for each in consumers],
        }
        print(json.dumps({**told, "load": load}))
        return 0
    tell("Producers, acknowledgement to acknowledgement", producers, "failed sends {}, ", "stored twice")
    tell("Consumers, delivery to delivery", consumers, "", "delivered again")
    print(f"load of the machine: {load:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
