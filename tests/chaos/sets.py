"""A broker set under faults, one after the other, with all kinds of clients at work: `./task chaos`.

```
whole ── a fault begins ── 2 to 4 s, perhaps another master ── it ends ── whole again ── the next fault …
   └─ clients of each kind send and consume all the while; in the end all is consumed, and the history is judged
```
Etcd ×3, a name server, two controllers, three brokers and two proxies as processes on this machine, leases of 3 s. A
fault's pause is the longest time without an acknowledged send from its beginning until everything is whole again: of
the Remoting clients, which go straight to the master, and of the gRPC ones, which go over a proxy.

Where a private network can be made (`network.py`) each of them has a machine of its own there, and cuts, full disks and
losses of power are among the faults; elsewhere all are on loopback, and a line says why.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import NoReturn

import msgspec

from tests.chaos import (
    beside,
    delayed,
    kills,
    network,
    network_faults,
    over_grpc,
    popping,
    proxy_faults,
    set_faults,
    situations,
    strained_faults,
    transacting,
)
from tests.chaos.checker import Checker, Fault
from tests.chaos.history import GRPC_KINDS, History, Kill, Kind, now_ms
from tests.chaos.master import Master, pause_s
from tests.chaos.network import PrivateNetwork
from tests.chaos.set_faults import MakeFault
from tests.chaos.strained_faults import Strain
from tests.chaos.worker import AnyWorker
from tests.config_files import group_config, topic_config, write_config_files
from tests.e2e.broker_set import CONTROLLERS, PROXIES, BrokerSetDeployment
from tests.etcd_cluster import machine_name, programs
from tests.machines import loopback

LASTS_S = (2.0, 4.0)
BETWEEN_S = (0.5, 1.5)
FINISH_TIMEOUT_S = 90.0
BROKERS = ("b1", "b2", "b3")
ETCD_MEMBERS = 3
ROUNDS_MIN = 30
SITUATIONS = "--situations"
PRIVATE, LOOPBACK = "a private network", "loopback"
SETTINGS = {
    "messageDelayLevel": " ".join(f"{level}s" for level in delayed.LEVELS_S),
    "transactionTimeOut": "500",
    "transactionCheckInterval": "500",
    # By default the oldest files go from a full disk, consumed or not, as Apache's do: not the loss that is looked for.
    "cleanFileForciblyEnable": "false",
}
TOPICS = (
    topic_config(popping.TOPIC),
    topic_config(popping.FIFO_TOPIC, message_type="FIFO"),
    topic_config(delayed.TOPIC),
    topic_config(transacting.TOPIC),
    topic_config(over_grpc.GrpcWorker.topic),
    topic_config(over_grpc.GrpcOrderedWorker.topic, message_type="FIFO"),
    topic_config(over_grpc.GrpcDelayedWorker.topic, message_type="DELAY"),
    topic_config(over_grpc.GrpcTransactionWorker.topic, message_type="TRANSACTION"),
)
GROUPS = (group_config(over_grpc.GrpcOrderedWorker.group, consumeMessageOrderly=True),)
FAULTS = set_faults.FAULTS | proxy_faults.FAULTS
NETWORK_FAULTS = network_faults.FAULTS | proxy_faults.NETWORK_FAULTS
REMOTING_KINDS = frozenset(Kind) - GRPC_KINDS
WORKERS = (*kills.WORKERS, *over_grpc.WORKERS)


# -- a run -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Round:
    """One fault, and the longest time without an acknowledged send, of Remoting clients and of gRPC ones."""

    fault: str
    pause_s: float
    grpc_pause_s: float


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run found."""

    seed: int
    seconds: float
    rounds: Sequence[Round]
    acknowledged: Counter[str]
    delivered: Counter[str]
    again: int
    faults: Sequence[Fault]
    load: float
    machines: str

    def __str__(self) -> str:
        pauses = defaultdict(list)
        for each in self.rounds:
            pauses[each.fault].append((each.pause_s, each.grpc_pause_s))
        lines = [
            f"{'':30} {'':6} {'Remoting':>15} {'gRPC':>15}",
            f"{'fault':30} rounds   p50 s   max s   p50 s   max s without an acknowledged send",
        ]
        for name, found in sorted(pauses.items()):
            figures = (f"{statistics.median(each):7.2f} {max(each):7.2f}" for each in zip(*found, strict=True))
            lines.append(f"{name:30} {len(found):6} {' '.join(figures)}")
        kinds = ", ".join(f"{name} {count:,} ({self.delivered[name]:,})" for name, count in self.acknowledged.items())
        lasted = f"{len(self.rounds)} rounds in {self.seconds:.0f} s"
        lines += [
            f"seed {self.seed}: {lasted} on {self.machines}, load of the machine {self.load:.1f}",
            f"acknowledged (deliveries): {kinds}; {self.again:,} came again with a reason; {len(self.faults)} faults",
        ]
        return "\n".join(lines)

    def as_json(self) -> str:
        """The same for machines."""
        return json.dumps({**msgspec.to_builtins(self), "faults": [str(fault) for fault in self.faults]})


def run(
    directory: pathlib.Path,
    *,
    rounds: int,
    seed: int,
    only: Sequence[str] = (),
    told: Callable[[str], None] = lambda _: None,
) -> Report:
    """Let so many faults happen under load, and judge what clients saw.

    Each kind of fault comes before one comes again, in an order that the seed chooses; `only` these kinds, where some
    are given. Faults of the network are among them in a process that has entered one. Writes the history to
    `directory`. Raises AssertionError when a worker fails, or the set does not become whole again.
    """
    random, history, began_s = Random(seed), History(), time.monotonic()
    seen: list[Round] = []
    with _deployed(directory / "set") as (deployment, faults):
        deployment.whole()
        with Master(deployment.routed) as master, over_grpc.event_loop() as loop:
            workers = [*_straight(master, history, random), *_over_proxies(deployment, loop, history, random)]
            try:
                for worker in workers:
                    worker.start()
                kinds = sorted(set(only or faults))
                for number, name in enumerate(itertools.islice(_in_turn(random, kinds), rounds)):
                    time.sleep(random.uniform(*BETWEEN_S))
                    seen.append(_round(history, name, _suffer(deployment, history, faults[name], random)))
                    kills.fail_with(workers)
                    told(
                        f"{number + 1} of {rounds}: {name}, {seen[-1].pause_s:.2f} s without a send, "
                        f"{seen[-1].grpc_pause_s:.2f} s over gRPC"
                    )
                for worker in workers:
                    worker.is_sending = False
                kills.wait_for_the_rest(history, workers, FINISH_TIMEOUT_S)
            finally:
                for worker in workers:
                    worker.end()
                history.write(directory / kills.HISTORY)
        defects = [name for name in CONTROLLERS if "Traceback" in deployment.controllers.process(name).log]
        defects += [name for name in PROXIES if "Traceback" in deployment.process(name).log]
        assert "Traceback" not in deployment.logs(), f"a broker told of a defect, see {directory}/set/logs"
        assert not defects, f"{defects} told of a defect, see {directory}/set/logs"
    kills.fail_with(workers)
    return _report(history, seed, seen, began_s)


def _straight(master: Master, history: History, random: Random) -> Iterator[AnyWorker]:
    """Remoting clients, one of each kind, which go to the master."""
    for make in kills.WORKERS:
        worker = make(lambda: master.address, history, Random(random.random()))
        worker.bears_silence = True
        yield worker


def _over_proxies(
    deployment: BrokerSetDeployment, loop: asyncio.AbstractEventLoop, history: History, random: Random
) -> Iterator[AnyWorker]:
    """gRPC clients, one of each kind, which know both proxies."""
    address = ";".join(deployment.proxies[name]["grpc"] for name in PROXIES)
    for make in over_grpc.WORKERS:
        yield make(address, loop, history, Random(random.random()))


def _round(history: History, name: str, kill: Kill) -> Round:
    return Round(name, pause_s(history, kill, REMOTING_KINDS), pause_s(history, kill, GRPC_KINDS))


@contextlib.contextmanager
def _deployed(data: pathlib.Path) -> Iterator[tuple[BrokerSetDeployment, dict[str, MakeFault]]]:
    """A set, and what may happen to it: on a private network where the process has entered one, else on loopback."""
    disks = {name: data / name for name in BROKERS}
    faults = dict(FAULTS)
    with contextlib.ExitStack() as stack:
        machine_of = loopback
        if network.is_entered():
            names = [*BROKERS, *CONTROLLERS, "namesrv", *map(machine_name, range(ETCD_MEMBERS)), *PROXIES]
            private = stack.enter_context(PrivateNetwork(names, data.parent, disks))
            machine_of = private.machine
            faults |= {name: _on(private, fault) for name, fault in NETWORK_FAULTS.items()}
        strain = Strain(data.parent / "strain")
        faults |= {name: _strained(strain, fault) for name, fault in strained_faults.FAULTS.items()}
        for path in disks.values():
            write_config_files(path / "config", TOPICS, GROUPS)
        deployment = BrokerSetDeployment(
            data,
            broker_name=popping.BROKER_NAME,
            brokers=len(BROKERS),
            etcd=ETCD_MEMBERS,
            settings=SETTINGS,
            machine_of=strain.on(machine_of, frozenset({*BROKERS, *CONTROLLERS})),
        )
        stack.enter_context(deployment)
        for name in PROXIES:
            deployment.start_proxy(name)
        yield deployment, faults


def _on(private: PrivateNetwork, fault: network_faults.MakeNetworkFault) -> MakeFault:
    return lambda deployment: fault(deployment, private)


def _strained(strain: Strain, fault: strained_faults.MakeStrain) -> MakeFault:
    return lambda deployment: fault(deployment, strain)


def _in_turn(random: Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        yield from random.sample(kinds, len(kinds))


def _suffer(deployment: BrokerSetDeployment, history: History, fault: MakeFault, random: Random) -> Kill:
    """One fault, from its beginning until all is whole again."""
    kill = history.add(Kill(moves=True))
    with fault(deployment):
        time.sleep(random.uniform(*LASTS_S))
    for name in CONTROLLERS:
        deployment.controllers.wait_ready(name)
    deployment.whole()
    kill.ended_ms = now_ms()
    return kill


def _report(history: History, seed: int, rounds: Sequence[Round], began_s: float) -> Report:
    events = history.events()
    checker = Checker(events)
    return Report(
        seed=seed,
        seconds=time.monotonic() - began_s,
        rounds=rounds,
        acknowledged=kills.acknowledged_by_kind(events),
        delivered=kills.delivered_by_kind(events, checker),
        again=checker.repeated_count(),
        faults=checker.faults(),
        load=os.getloadavg()[0],
        machines=PRIVATE if network.is_entered() else LOOPBACK,
    )


def main(arguments: Sequence[str]) -> int:
    """Run and print the report; 1 where something of ours is wrong."""
    if SITUATIONS in arguments:
        return situations.main([each for each in arguments if each != SITUATIONS])
    options = _options(arguments)
    is_private = network.is_entered()
    if options.network != "loopback" and not is_private:
        why = network.why_not()
        if not why:
            _enter(arguments)
        if options.network == "private":
            _refuse(f"--network private: no private network can be made here: {why}")
        _tell(f"on loopback, without faults of the network: no private network can be made here: {why}")
    known = [*FAULTS, *strained_faults.FAULTS, *(NETWORK_FAULTS if is_private else ())]
    if unknown := set(options.only) - set(known):
        where = PRIVATE if is_private else LOOPBACK
        _refuse(f"--only {', '.join(sorted(unknown))}: on {where} there is {', '.join(known)}")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="chaos-"))
    if options.beside_apache or options.deployment == beside.APACHE:
        return _compare(directory, options)
    report = run(
        directory,
        rounds=options.rounds or max(ROUNDS_MIN, len(options.only or known)),
        seed=options.seed,
        only=options.only,
        told=_tell,
    )
    print(report.as_json() if options.output == "json" else report)
    for fault in report.faults[: kills.FAULTS_SHOWN]:
        print(fault, file=sys.stderr)
    if report.faults:
        print(f"history and logs: {directory}", file=sys.stderr)
    return 1 if report.faults else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./task chaos --", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="how many faults (default: 30; beside Apache each twice)")
    parser.add_argument("--seed", type=int, default=1, help="chooses faults and clients' choices (default: 1)")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument(
        "--network",
        choices=("auto", "private", "loopback"),
        default="auto",
        help="where the set lives: on a private network (Linux, as root), or on loopback without faults of the network "
        "(default: the first, where it can be made)",
    )
    parser.add_argument("--only", action="append", default=[], help="a kind of fault, by its name; several times")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--deployment",
        choices=(beside.OURS, beside.APACHE),
        default=beside.OURS,
        help="whose set: ours, or Apache RocketMQ 5.3.3 in controller mode with pulling clients (default: %(default)s)",
    )
    which.add_argument(SITUATIONS, action="store_true", help="the seven published situations instead (see its --help)")
    which.add_argument("--beside-apache", action="store_true", help="both, with pulling clients, in one table")
    options = parser.parse_args(arguments)
    if options.beside_apache or options.deployment == beside.APACHE:
        if options.network == "private" or options.only:
            parser.error("Apache's set is on loopback, under the faults that both know: no --network private or --only")
        options.network = "loopback"
    return options


def _enter(arguments: Sequence[str]) -> NoReturn:
    """Become the same run in a network of its own."""
    programs()  # what has to be fetched is fetched before: a private network has no way out
    argv = network.command([sys.executable, "-m", "tests.chaos.sets", *arguments])
    os.execvp(argv[0], argv)


def _refuse(why: str) -> NoReturn:
    _tell(f"./task chaos: {why}")
    raise SystemExit(2)


def _compare(directory: pathlib.Path, options: argparse.Namespace) -> int:
    """Apache's set, and ours before it where both were asked for; 1 where something of ours is wrong."""
    rounds = options.rounds or 2 * len(beside.COUNTERPARTS)
    results = []
    if options.beside_apache:
        results.append(beside.run(beside.OUR_SIDE, directory, rounds=rounds, seed=options.seed, told=_tell))
    results.append(beside.run(beside.APACHE_SIDE, directory, rounds=rounds, seed=options.seed, told=_tell))
    print(beside.as_json(results) if options.output == "json" else beside.table(results))
    for line in itertools.chain.from_iterable(each.wrong for each in results):
        print(line, file=sys.stderr)
    print(f"histories and logs: {directory}", file=sys.stderr)
    return 1 if any(each.faults for each in results if each.side == beside.OURS) else 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
