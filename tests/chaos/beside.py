"""Our broker set and Apache's under the same faults, with the same pulling clients: `./task chaos -- --beside-apache`.

```
a life of a set   whole ── fault ── whole again ── fault ── not whole within 60 s ── all started anew ── whole ── …
                                                                  │                        └ not whole: the life ends
                                                                  └ counted, with its pause       a new set goes on
```
Each life has a history of its own, judged when it ends. What was acknowledged and never came counts for the first fault
that ended after the acknowledgement.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from random import Random
from typing import Generic, Protocol, TypeVar

from tests.chaos import apache_set, kills, pulling, set_faults
from tests.chaos.apache_set import ApacheSetDeployment
from tests.chaos.checker import Checker, Fault, FaultKind
from tests.chaos.history import History, Kill, now_ms
from tests.chaos.master import Master, pause_s
from tests.chaos.popping import BROKER_NAME
from tests.config_files import topic_config, write_config_files
from tests.e2e.broker_set import CONTROLLERS, BrokerSetDeployment

LASTS_S = (2.0, 4.0)
BETWEEN_S = (0.5, 1.5)
START_S = 120.0
FINISH_S = 60.0
OURS, APACHE = "ours", "apache"
COUNTERPARTS = {
    **{name: name for name in apache_set.FAULTS if name in set_faults.FAULTS},
    "controllers' majority killed": "etcd majority killed",
}
"""A fault of Apache's set → the one of ours. Where we ask etcd for a majority, Apache asks the controllers."""
LEFT_OUT = sorted(set_faults.FAULTS.keys() - set(COUNTERPARTS.values()))
"""Faults of ours that an Apache set cannot have."""


class Deployment(Protocol):
    """What a run needs of a set, whoever made it."""

    def routed(self) -> str:
        """Where the name server sends those who send; empty where nowhere."""


DeploymentT = TypeVar("DeploymentT", bound=Deployment)


@dataclasses.dataclass(frozen=True)
class Side(Generic[DeploymentT]):
    """How to start a set in a new directory, wait until it is whole, start it anew, and what may happen to it.

    `whole` and `restart` raise AssertionError where that does not come about in time.
    """

    name: str
    make: Callable[[pathlib.Path], AbstractContextManager[DeploymentT]]
    whole: Callable[[DeploymentT], object]
    restart: Callable[[DeploymentT], None]
    faults: Mapping[str, Callable[[DeploymentT], AbstractContextManager[None]]]


@dataclasses.dataclass
class Round:
    """One fault. `lost` and what follows are known when its life was judged.

    Args:
        fault: its name, Apache's.
        pause_s: the longest time without an acknowledged send, until all was whole again.
        whole_s: from the fault's end until all was whole again; None where it was not within the time.
        lost: acknowledged, and never delivered.
        taken_back: delivered, and in the end gone, or another message in its place.
        other: all else that may not be.
    """

    fault: str
    pause_s: float
    whole_s: float | None
    lost: int = 0
    taken_back: int = 0
    other: int = 0


@dataclasses.dataclass
class Result:
    """Of one side. `unread` are messages whose set never became whole again, so that nobody can say."""

    side: str
    seed: int
    rounds: list[Round] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    lives: int = 0
    acknowledged: int = 0
    delivered: int = 0
    unread: int = 0
    load: float = 0.0
    wrong: list[str] = dataclasses.field(default_factory=list)

    def of(self, fault: str) -> list[Round]:
        """The rounds of one fault."""
        return [each for each in self.rounds if each.fault == fault]

    @property
    def faults(self) -> int:
        """How much was seen that may not be."""
        return sum(each.lost + each.taken_back + each.other for each in self.rounds)


def order(rounds: int, seed: int) -> list[str]:
    """Which faults come, one after the other: each before one comes again, the same for both sides."""
    random = Random(seed)
    names: list[str] = []
    while len(names) < rounds:
        names += random.sample(sorted(COUNTERPARTS), len(COUNTERPARTS))
    return names[:rounds]


def run(
    side: Side[DeploymentT],
    directory: pathlib.Path,
    *,
    rounds: int,
    seed: int,
    told: Callable[[str], None] = lambda _: None,
) -> Result:
    """Let so many faults happen to one side under load, over as many lives of a set as it takes.

    Writes a history for each life below `directory`. Raises AssertionError when a new set does not become whole, or a
    worker fails.
    """
    result, began_s, random = Result(side.name, seed), time.monotonic(), Random(seed)
    waiting = order(rounds, seed)
    while waiting:
        result.lives += 1
        data = directory / f"{side.name}-{result.lives}"
        data.mkdir(parents=True)
        _live(side, data, waiting, result, random, told)
    result.seconds, result.load = time.monotonic() - began_s, os.getloadavg()[0]
    return result


def _live(
    side: Side[DeploymentT],
    data: pathlib.Path,
    waiting: list[str],
    result: Result,
    random: Random,
    told: Callable[[str], None],
) -> None:
    """One life of a set: takes from `waiting` what happened in it."""
    history, seen = History(), list[tuple[Round, Kill]]()
    is_whole = True
    with side.make(data) as deployment, Master(deployment.routed) as master:
        worker = pulling.PullingWorker(lambda: master.address, history, Random(random.random()))
        worker.bears_silence = True
        worker.start()
        try:
            while waiting and is_whole:
                time.sleep(random.uniform(*BETWEEN_S))
                one, kill = _suffer(side, deployment, history, waiting.pop(0), random.uniform(*LASTS_S))
                seen.append((one, kill))
                result.rounds.append(one)
                kills.fail_with([worker])
                whole = f"whole after {one.whole_s:.1f} s" if one.whole_s is not None else "NOT WHOLE"
                told(f"{side.name} {len(result.rounds)}: {one.fault}, {one.pause_s:.2f} s without a send, {whole}")
                if one.whole_s is None:
                    is_whole = _is_restarted(side, deployment)
            worker.is_sending = False
            if is_whole:
                kills.wait_for_the_rest(history, [worker], FINISH_S)
        finally:
            worker.end()
        kills.fail_with([worker])
        if is_whole:
            pulling.read_again(lambda: master.address, history, FINISH_S)
    history.write(data / kills.HISTORY)
    _judge(history, seen, result, is_whole=is_whole)


def _suffer(
    side: Side[DeploymentT], deployment: DeploymentT, history: History, fault: str, lasts_s: float
) -> tuple[Round, Kill]:
    """One fault, until all is whole again or the time for that is over."""
    kill = history.add(Kill(moves=True))
    whole_s: float | None = None
    try:
        with side.faults[fault](deployment):
            time.sleep(lasts_s)
        began_s = time.monotonic()
        side.whole(deployment)
        whole_s = time.monotonic() - began_s
    except AssertionError:  # not whole, or a process did not start or end: what it left behind is started anew
        pass
    kill.ended_ms = now_ms()
    return Round(fault, pause_s(history, kill), whole_s), kill


def _is_restarted(side: Side[DeploymentT], deployment: DeploymentT) -> bool:
    try:
        side.restart(deployment)
        side.whole(deployment)
    except AssertionError:
        return False
    return True


def _judge(history: History, seen: Sequence[tuple[Round, Kill]], result: Result, *, is_whole: bool) -> None:
    """Add what a life showed to its rounds and to the result."""
    events = history.events()
    checker = Checker(events)
    result.acknowledged += kills.acknowledged_by_kind(events).total()
    result.delivered += kills.delivered_by_kind(events, checker).total()
    for fault in checker.faults():
        if fault.kind is FaultKind.LOST and not is_whole:
            result.unread += 1
            continue
        one = _round_of(fault, checker, seen)
        if fault.kind is FaultKind.LOST:
            one.lost += 1
        elif fault.kind in {FaultKind.TAKEN_BACK, FaultKind.REWRITTEN}:
            one.taken_back += 1
        else:
            one.other += 1
        if len(result.wrong) < kills.FAULTS_SHOWN:
            result.wrong.append(f"{one.fault}: {fault}")


def _round_of(fault: Fault, checker: Checker, seen: Sequence[tuple[Round, Kill]]) -> Round:
    """The first fault that ended after the message was sent; the last one where all ended before."""
    send = checker.sends.get(fault.key)
    at_ms = max(send.at_ms, send.ended_ms) if send is not None else 0
    return next((one for one, kill in seen if kill.ended_ms >= at_ms), seen[-1][0])


# -- both sides --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def our_set(directory: pathlib.Path) -> Iterator[BrokerSetDeployment]:
    """Of ours, whole."""
    for number in (1, 2, 3):
        write_config_files(directory / f"b{number}" / "config", [topic_config(pulling.TOPIC)])
    with BrokerSetDeployment(directory, broker_name=BROKER_NAME) as deployment:
        deployment.whole()
        yield deployment


def our_whole(deployment: BrokerSetDeployment) -> None:
    """Controllers see what etcd holds, and all brokers are in the set."""
    for name in CONTROLLERS:
        deployment.controllers.wait_ready(name)
    deployment.whole()


def our_restart(deployment: BrokerSetDeployment) -> None:
    """All brokers and controllers anew; etcd's members are started by the fault that killed them."""
    for name in CONTROLLERS:
        deployment.controllers.process(name).kill()
        deployment.controllers.start(name)
    with set_faults.all_killed(deployment):
        pass


@contextlib.contextmanager
def apache_whole_set(directory: pathlib.Path, *, defaults: bool = False) -> Iterator[ApacheSetDeployment]:
    """Of Apache's, whole. Slow to start is no fault of it: a new one has START_S."""
    with ApacheSetDeployment(directory, defaults=defaults) as deployment:
        deployment.whole(START_S)
        yield deployment


OUR_SIDE = Side(
    OURS, our_set, our_whole, our_restart, {name: set_faults.FAULTS[ours] for name, ours in COUNTERPARTS.items()}
)
APACHE_SIDE = Side(APACHE, apache_whole_set, ApacheSetDeployment.whole, ApacheSetDeployment.restart, apache_set.FAULTS)


# -- the report --------------------------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """Faults in lines; for each side the rounds, pauses, what was lost, and how often it was not whole again."""
    columns = "rounds   p50     max   lost  back other not whole"
    lines = [f"{'fault':30}" + "".join(f" | {each.side + ': ' + columns:55}" for each in results)]
    lines += [
        f"{fault:30}" + "".join(f" | {_cells(each.of(fault), each.side):55}" for each in results)
        for fault in sorted(COUNTERPARTS)
    ]
    lines += [
        f"{each.side}: seed {each.seed}, {len(each.rounds)} rounds over {each.lives} sets in {each.seconds:.0f} s, "
        f"load of the machine {each.load:.1f}; acknowledged {each.acknowledged:,}, deliveries {each.delivered:,}, "
        f"not to be read at the end of a set {each.unread:,}"
        for each in results
    ]
    lines.append(
        "pauses in s without an acknowledged send; back: shown to a consumer and taken back; "
        f"not whole: within {apache_set.WHOLE_S:g} s of the fault's end"
    )
    lines.append(f"left out, as Apache's sets have nothing like it: {', '.join(LEFT_OUT)}")
    return "\n".join(lines)


def _cells(rounds: Sequence[Round], side: str) -> str:
    blank = " " * (len(side) + 2)
    if not rounds:
        return f"{blank}     -"
    pauses = [each.pause_s for each in rounds]
    sums: Counter[str] = Counter()
    for each in rounds:
        sums["lost"] += each.lost
        sums["back"] += each.taken_back
        sums["other"] += each.other
        sums["not whole"] += each.whole_s is None
    return (
        f"{blank}{len(rounds):6} {statistics.median(pauses):5.2f} {max(pauses):7.2f} "
        f"{sums['lost']:6} {sums['back']:5} {sums['other']:5} {sums['not whole']:9}"
    )


def as_json(results: Sequence[Result]) -> str:
    """The same for machines, each round by itself."""
    described = {each.side: dataclasses.asdict(each) for each in results}
    return json.dumps({**described, "left_out": LEFT_OUT, "whole_within_s": apache_set.WHOLE_S})
