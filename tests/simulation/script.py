"""Stories in text: a command, then the trace that it leaves; to be replayed, and read in review.

```
# apache/rocketmq#7017: what the story is about
start c1 c2 b1 b2 b3        a command, at the line's begin
        13 ms  c1   starts     what the world noted meanwhile, indented; `--rewrite` writes it anew
expect master b1 epoch 1    a fact that must hold here; the invariants of checkers.py hold throughout
```

| command | meaning |
|---|---|
| `quietly …` | any command, without its trace: for beginnings that another script shows |
| `seed 7` | chance, from here on; the first command, if it is there |
| `topics` | brokers with topics: 0 has the messages 1 to 3, 1 has 4 to 7, …; the first command, too |
| `start b1 c1 …` | starts processes; a new broker has its id before the next starts; b4 is a learner |
| `run 5s`, `run 200ms` | time passes |
| `send 3`, `send 3 to b1` | messages, numbered from 1, to whoever leads; nothing is waited for |
| `kill b1 …`, `power b1 …` | the process dies; its machine loses power, and what was not synced |
| `stop b1`, `leave b1` | stops with everything synced; the same, having handed over first |
| `freeze b1`, `thaw b1` | stands still; goes on |
| `cut b1 c1 from b2 b3` | nothing passes between the two sides, in both directions; `etcd` is a name, too |
| `mute b1 to c1 c2` | nothing passes in this direction |
| `heal` | everything passes, etcd answers |
| `elect`, `elect b2` | an operator asks for another master; for this one |
| `learner b3 on`, `learner b3 off` | an operator switches it |
| `unclean on`, `unclean off` | another setting for every controller, which are started anew |
| `recover b2` | an operator begins anew with this one, where etcd knows less than the brokers |
| `empty b3` | an operator clears the directory of a broker that halted |
| `wipe etcd`, `lose etcd` | its keys go; it answers nobody |
| `claim b2 as b9` | another broker, b9, says that it has the id of b2 |

| fact | meaning |
|---|---|
| `expect master b2 epoch 2` | so says etcd |
| `expect leading b1 b2`, `expect leading nobody` | these, and no others, believe that they are master |
| `expect set b1 b2` | the SyncStateSet in etcd |
| `expect confirmed b1 6` | this many records are below its confirm offset |
| `expect log b1 1-3 7` | the messages of its whole log, in order; `nothing` for an empty one |
| `expect shows b1 1-3` | the messages that readers see |
| `expect topics b1 0 1` | it knows these, and no others |
| `expect epochs b1 1@0 2@6` | its epoch file: epoch @ record with which it begins |
| `expect acknowledged 1-3` | these, and no others, were acknowledged |
| `expect consumed 1-3` | the group got at least these |
| `expect lost 2` | messages that were acknowledged are gone, as an epoch's possible loss says |
| `expect halted b1`, `expect halted nobody` | these wait for a person |
| `expect told op TEXT` | somebody was told so, since the last `expect told` |
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

from apogeemq.controller.core.requests import RecoverSet, SetLearner

from tests.simulation.broker_node import BrokerNode, Machines
from tests.simulation.cluster import Cluster, Settings
from tests.simulation.controller_node import ControllerNode
from tests.simulation.records import RECORD_SIZE_BYTES, records_of
from tests.simulation.topic_broker import TopicBrokerNode
from tests.simulation.world import Process

SCRIPTS = Path(__file__).parent / "scripts"
FIRST_ID_MS_MAX = 1_000
LOOK_MS = 50
SEND_APART_MS = 10
INDENT = "    "
QUIETLY = "quietly "
OUTAGE_MS = 3_600_000


class ScriptError(AssertionError):
    """A fact of a story does not hold, or a command makes no sense."""


class Stage:
    """The cluster of one story."""

    def __init__(self, seed: int = 0, broker: type[BrokerNode] = BrokerNode) -> None:
        self._cluster = Cluster(seed, Settings(broker=broker, learners=1))
        self._world = self._cluster.world
        self._cluster.begin_reading()
        self._cluster.operator.begin_life()
        self._processes: dict[str, Process] = {
            each.name: each for each in (*self._cluster.brokers, *self._cluster.controllers)
        }
        self._message_count = 0
        self._told_from = 0

    def play(self, line: str) -> list[str]:
        """One command; gives the trace of it. Errors: ScriptError; InvariantBrokenError."""
        shown, acknowledged = len(self._world.trace), len(self._cluster.checkers.acknowledged_ids)
        word, *names = line.removeprefix(QUIETLY).split()
        command = self._commands().get(word)
        if command is None:
            raise ScriptError(f"no such command: {word}")
        command(names)
        told = self._cluster.checkers.acknowledged_ids[acknowledged:]
        news = [f"acknowledged: {_shorten(told)}"] if told else []
        return _counted(self._world.trace[shown:]) + news

    def _commands(self) -> dict[str, Callable[[list[str]], None]]:
        return {
            "start": self._start,
            "run": lambda words: self._pass(_duration_ms(words[0])),
            "send": self._send,
            "kill": self._stop,
            "power": lambda names: self._stop(names, power=True),
            "stop": lambda names: self._stop(names, clean=True),
            "leave": lambda names: self._broker(names[0]).leave(),
            "freeze": self._freeze,
            "thaw": self._thaw,
            "cut": self._cut,
            "mute": self._mute,
            "heal": lambda _: self._heal(),
            "elect": lambda names: self._cluster.operator.elect(self._broker(names[0]) if names else None),
            "learner": self._learner,
            "unclean": lambda words: self._cluster.operator.allow_unclean(is_allowed=_is_on(words[0])),
            "recover": lambda names: self._recover(self._broker(names[0])),
            "empty": self._empty,
            "wipe": lambda _: self._wipe(),
            "lose": lambda _: self._cluster.etcd.outage(OUTAGE_MS),
            "claim": self._claim,
            "expect": self._expect,
        }

    # Commands

    def _pass(self, duration_ms: int) -> None:
        self._world.run_until(self._world.now_ms + duration_ms)

    def _start(self, names: list[str]) -> None:
        for name in names:
            process = self._process(name)
            process.start()
            if isinstance(process, BrokerNode):
                self._await_id(process)

    def _await_id(self, broker: BrokerNode) -> None:
        """Ids are given in the order in which brokers come: so they follow the order of the command."""
        until_ms = self._world.now_ms + FIRST_ID_MS_MAX
        while not broker.broker_id and self._world.now_ms < until_ms:
            self._pass(LOOK_MS)

    def _send(self, words: list[str]) -> None:
        to = [self._broker(name) for name in words[2:]]
        told: dict[tuple[BrokerNode, str], list[int]] = {}
        for _ in range(int(words[0])):
            for broker in to or [each for each in self._brokers() if each.is_leading]:
                self._message_count += 1
                took = broker.is_up and broker.send(self._message_count)
                told.setdefault((broker, "takes" if took else "refuses"), []).append(self._message_count)
            self._pass(SEND_APART_MS)
        for (broker, does), ids in told.items():
            broker.note(f"{does} {_shorten(ids)}")

    def _stop(self, names: list[str], *, power: bool = False, clean: bool = False) -> None:
        for name in names:
            process = self._process(name)
            if isinstance(process, BrokerNode):
                process.stop(power=power, clean=clean)
            elif isinstance(process, ControllerNode):
                process.stop()

    def _freeze(self, names: list[str]) -> None:
        for name in names:
            self._process(name).note("freezes")
            self._process(name).freeze()

    def _thaw(self, names: list[str]) -> None:
        for name in names:
            self._process(name).note("goes on")
            self._process(name).thaw()

    def _cut(self, words: list[str]) -> None:
        here, there = _sides(words, "from")
        for one in here:
            for other in there:
                self._cluster.network.cut(one, other)
                self._cluster.network.cut(other, one)

    def _mute(self, words: list[str]) -> None:
        here, there = _sides(words, "to")
        for one in here:
            for other in there:
                self._cluster.network.cut(one, other)

    def _heal(self) -> None:
        self._cluster.network.heal()
        if not self._cluster.etcd.is_up:
            self._cluster.etcd.outage(0)

    def _learner(self, words: list[str]) -> None:
        broker = self._broker(words[0])
        self._cluster.operator.ask(SetLearner(0, broker.broker_id, _is_on(words[1])))

    def _recover(self, broker: BrokerNode) -> None:
        self._cluster.checkers.was_unclean = True
        self._cluster.operator.ask(RecoverSet(0, broker.broker_id))

    def _empty(self, names: list[str]) -> None:
        for name in names:
            broker = self._broker(name)
            broker.note("is emptied by an operator")
            broker.stop(power=True)
            broker.disk.clear()
            broker.start()

    def _wipe(self) -> None:
        self._cluster.etcd.forget()

    def _claim(self, words: list[str]) -> None:
        """The stranger has no part in the checks of what members hold: it is none."""
        known, name = self._broker(words[0]), words[2]
        stranger = BrokerNode(
            self._world, name, self._cluster.network, self._cluster.checkers, Machines(), is_learner=False
        )
        stranger.broker_id, stranger.peers, stranger.controllers = known.broker_id, {}, self._cluster.controllers
        self._processes[name] = stranger
        stranger.start()

    # Facts

    def _expect(self, words: list[str]) -> None:
        checkers = self._cluster.checkers
        match words:
            case ["master", name, "epoch", epoch]:
                is_so = [self._name_of(checkers.state.master_id), str(checkers.state.master_epoch)]
                _equal(words, is_so, [name, epoch])
            case ["leading", *names]:
                _equal(words, [each.name for each in self._brokers() if each.is_leading], _names(names))
            case ["set", *names]:
                _equal(words, [self._name_of(each) for each in checkers.state.members], names)
            case ["confirmed", name, count]:
                _equal(words, self._broker(name).disk.confirm_offset // RECORD_SIZE_BYTES, int(count))
            case ["log", name, *ids]:
                _equal(words, _shorten(_ids(self._broker(name).log)), " ".join(_names(ids)))
            case ["shows", name, *ids]:
                _equal(words, _shorten(_ids(self._broker(name).readable())), " ".join(_names(ids)))
            case ["epochs", name, *entries]:
                held = self._broker(name).disk.entries
                _equal(words, [f"{each.epoch}@{each.start_offset // RECORD_SIZE_BYTES}" for each in held], entries)
            case ["topics", name, *topics]:
                known = getattr(self._broker(name), "topics", frozenset[int]())
                _equal(words, [str(each) for each in sorted(known)], _names(topics))
            case ["acknowledged", *ids]:
                _equal(words, _shorten(sorted(checkers.acknowledged_ids)), " ".join(_names(ids)))
            case ["consumed", *ids]:
                _equal(words, sorted(_range_ids(ids) - checkers.consumed_ids), [])
            case ["lost", count]:
                _equal(words, checkers.lost_count, int(count))
            case ["halted", *names]:
                _equal(words, [each.name for each in self._brokers() if each.is_halted], _names(names))
            case ["told", name, *text]:
                self._expect_told(name, " ".join(text))
            case _:
                raise ScriptError(f"no such fact: {' '.join(words)}")

    def _expect_told(self, name: str, text: str) -> None:
        news = self._world.trace[self._told_from :]
        if not any(f" {name} " in line and text in line for line in news):
            raise ScriptError(f"{name} was not told: {text}")
        self._told_from = len(self._world.trace)

    # Names

    def _process(self, name: str) -> Process:
        if name not in self._processes:
            raise ScriptError(f"nobody is called {name}")
        return self._processes[name]

    def _broker(self, name: str) -> BrokerNode:
        process = self._process(name)
        if not isinstance(process, BrokerNode):
            raise ScriptError(f"{name} is no broker")
        return process

    def _brokers(self) -> list[BrokerNode]:
        return [each for each in self._processes.values() if isinstance(each, BrokerNode)]

    def _name_of(self, broker_id: int) -> str:
        return next((each.name for each in self._cluster.brokers if each.broker_id == broker_id != 0), "nobody")


def replay(text: str) -> str:
    """The script with the trace that it leaves now. Errors: ScriptError; InvariantBrokenError: with the line."""
    stage, written = Stage(), list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(INDENT):
            continue
        written.append(line)
        if not line or line.startswith("#"):
            continue
        if line.startswith("seed "):
            stage = Stage(int(line.split()[1]))
            continue
        if line == "topics":
            stage = Stage(broker=TopicBrokerNode)
            continue
        try:
            trace = stage.play(line)
        except AssertionError as error:
            error.add_note("\n".join([*written[-40:], f"line {number}: {line}"]))
            raise
        if not line.startswith(QUIETLY):
            written += [INDENT + each for each in trace]
    return "\n".join(written) + "\n"


def difference(name: str) -> str:
    """What a stored script's replay gives otherwise; empty when it gives the same."""
    text = path_of(name).read_text()
    lines = difflib.unified_diff(text.splitlines(), replay(text).splitlines(), "expected", "now", lineterm="")
    return "\n".join(lines)


def path_of(name: str) -> Path:
    """Where the script of this name is."""
    return SCRIPTS / f"{name}.txt"


def names() -> list[str]:
    """Of all scripts."""
    return sorted(path.stem for path in SCRIPTS.glob("*.txt"))


def _equal(words: list[str], is_so: object, expected: object) -> None:
    if is_so != expected:
        raise ScriptError(f"expect {' '.join(words)}: it is {is_so}")


def _names(words: list[str]) -> list[str]:
    return [] if words in (["nobody"], ["nothing"]) else words


def _ids(log: bytes) -> list[int]:
    return [record.message_id for record in records_of(log)]


def _counted(trace: list[str]) -> list[str]:
    """Each thing that was noted, at the time of its first; how often, where it was more than once."""
    counts: dict[str, int] = {}
    first: dict[str, str] = {}
    for line in trace:
        text = line.split(" ms  ", 1)[1].rstrip()
        counts[text] = counts.get(text, 0) + 1
        first.setdefault(text, line.rstrip())
    return [line + (f" ({counts[text]} times)" if counts[text] > 1 else "") for text, line in first.items()]


def _shorten(ids: Iterable[int]) -> str:
    """1 2 3 5 → "1-3 5"."""
    runs: list[list[int]] = []
    for each in ids:
        if runs and each == runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _range_ids(words: list[str]) -> set[int]:
    ids: set[int] = set()
    for word in words:
        first, _, last = word.partition("-")
        ids |= set(range(int(first), int(last or first) + 1))
    return ids


def _sides(words: list[str], between: str) -> tuple[list[str], list[str]]:
    if between not in words:
        raise ScriptError(f"who {between} whom?")
    at = words.index(between)
    return words[:at], words[at + 1 :]


def _duration_ms(word: str) -> int:
    return int(word.removesuffix("ms")) if word.endswith("ms") else int(word.removesuffix("s")) * 1_000


def _is_on(word: str) -> bool:
    if word not in {"on", "off"}:
        raise ScriptError(f"on or off, not {word}")
    return word == "on"
