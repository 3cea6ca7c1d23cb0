"""A broker that is killed again and again under a mix of all kinds, and what its clients saw of it.

```
start ── lives 0.2 to 1.5 s ── kill -9 ── start ── … ── start ── workers send no more ── all is consumed ── stop
   └─ one time in five: killed on its way up, after 0 to 1 s
```
The process is an all-in-one, always under the same ports, with small files, so that they are rolled over as well.
"""

import dataclasses
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from tests.chaos import delayed, popping, transacting
from tests.chaos.checker import Checker, Fault
from tests.chaos.history import Delivery, Event, History, Kill, Outcome, Send, now_ms
from tests.chaos.worker import AnyWorker, Worker
from tests.config_files import topic_config, write_config_files
from tests.e2e.process import ManagedProcess, Ready, fixed_ports, start_all_in_one

WORKERS: Sequence[type[Worker]] = (
    popping.PopWorker,
    popping.OrderedPopWorker,
    delayed.DelayedWorker,
    transacting.TransactionWorker,
)
SETTINGS = {
    "broker.brokerName": popping.BROKER_NAME,
    "broker.mappedFileSizeCommitLog": str(1 << 20),
    "broker.mappedFileSizeConsumeQueue": "20000",
    "broker.messageDelayLevel": " ".join(f"{level}s" for level in delayed.LEVELS_S),
    "broker.transactionTimeOut": "500",
    "broker.transactionCheckInterval": "500",
}
LIFE_S = (0.2, 1.5)
START_SHARE = 0.2
START_S_MAX = 1.0
READY_TIMEOUT_S = 60.0
FAULTS_SHOWN = 20
FINISH_TIMEOUT_S = 60.0
LOOK_S = 0.3
HISTORY = "history.jsonl"
"""Of a run, in its directory: an event a line."""
QUIET_S = 1.0
"""So long nothing may come any more once all is there: what should never come has had its time."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run found."""

    seed: int
    kills: int
    seconds: float
    sent: Counter[str]
    delivered: Counter[str]
    repeated: int
    faults: Sequence[Fault]

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count:,} ({self.delivered[name]:,})" for name, count in self.sent.items())
        return (
            f"seed {self.seed}: {self.kills} kills in {self.seconds:.0f} s; acknowledged (delivered): {kinds}; "
            f"{self.repeated:,} came again with a reason; {len(self.faults)} faults"
        )


class MortalBroker:
    """One data directory and its ports, over many processes."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        topics = [
            topic_config(popping.TOPIC),
            topic_config(popping.FIFO_TOPIC, message_type="FIFO"),
            topic_config(delayed.TOPIC),
            topic_config(transacting.TOPIC),
        ]
        write_config_files(directory / "data" / "broker" / "config", topics)
        self._process = self._started({}, "free")
        self._ready = self._process.wait_ready(READY_TIMEOUT_S)

    @property
    def address(self) -> str:
        """Where it listens for Remoting clients, each time."""
        return self._ready.listeners["broker.remoting"]

    def kill(self, history: History) -> None:
        """With SIGKILL; it is gone afterwards."""
        kill = history.add(Kill())
        self._process.kill()
        kill.ended_ms = now_ms()

    def start(self) -> None:
        """Begin to start; `wait_ready` waits for its end."""
        self._process = self._started(fixed_ports(self._ready), None)

    def wait_ready(self) -> Ready:
        """It serves. ProcessError with its log when it does not, in good time."""
        return self._process.wait_ready(READY_TIMEOUT_S)

    def _started(self, ports: dict[str, str], choose: str | None) -> ManagedProcess:
        return start_all_in_one(
            self._directory / "data",
            log_directory=self._directory / "logs",
            settings=SETTINGS | ports,
            ports=choose,
        )

    def end(self) -> None:
        """Whatever it does: at the end of a run."""
        self._process.kill()


def run(directory: pathlib.Path, *, kills: int, seed: int, told: Callable[[str], None] = lambda _: None) -> Report:
    """Kill a broker so often under load, let it live, and judge what was seen.

    Writes the history to `directory`. Raises AssertionError when a worker fails, or when not all has come in the end.
    """
    random, history, began = Random(seed), History(), time.monotonic()
    broker = MortalBroker(directory)
    workers = [make(lambda: broker.address, history, Random(random.random())) for make in WORKERS]
    try:
        for worker in workers:
            worker.start()
        for number in range(kills):
            _let_live(broker, random)
            broker.kill(history)
            broker.start()
            told(f"kill {number + 1} of {kills}")
        broker.wait_ready()
        for worker in workers:
            worker.is_sending = False
        wait_for_the_rest(history, workers, FINISH_TIMEOUT_S)
    finally:
        for worker in workers:
            worker.end()
        history.write(directory / HISTORY)
        broker.end()
    fail_with(workers)
    return _report(history, seed, kills, time.monotonic() - began)


def _let_live(broker: MortalBroker, random: Random) -> None:
    if random.random() < START_SHARE:
        time.sleep(random.uniform(0, START_S_MAX))
        return
    broker.wait_ready()
    time.sleep(random.uniform(*LIFE_S))


def wait_for_the_rest(history: History, workers: Sequence[AnyWorker], timeout_s: float) -> None:
    """Until all has come, and then a little longer. What is missing after the deadline is judged as lost."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and Checker(history.events()).unfinished():
        fail_with(workers)
        time.sleep(LOOK_S)
    time.sleep(QUIET_S)


def fail_with(workers: Sequence[AnyWorker]) -> None:
    """Raise AssertionError where the thread of one of them failed."""
    for worker in workers:
        if worker.failure is not None:
            raise AssertionError(f"the client of kind {worker.name} failed") from worker.failure


def acknowledged_by_kind(events: Sequence[Event]) -> Counter[str]:
    """How many sends were acknowledged, by the name of their kind."""
    return Counter(
        event.kind.value for event in events if isinstance(event, Send) and event.outcome is Outcome.ACKNOWLEDGED
    )


def delivered_by_kind(events: Sequence[Event], checker: Checker) -> Counter[str]:
    """How many deliveries there were, by the name of their kind."""
    return Counter(
        checker.sends[event.key].kind.value
        for event in events
        if isinstance(event, Delivery) and event.key in checker.sends
    )


def _report(history: History, seed: int, kills: int, seconds: float) -> Report:
    events = history.events()
    checker = Checker(events)
    return Report(
        seed=seed,
        kills=kills,
        seconds=seconds,
        sent=acknowledged_by_kind(events),
        delivered=delivered_by_kind(events, checker),
        repeated=checker.repeated_count(),
        faults=checker.faults(),
    )
