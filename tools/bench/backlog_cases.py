"""Draining a long backlog beside a short one: the same pulls, of one broker, in turns.

The messages are appended to the broker's store while the broker is down, since sending millions would take longer than
draining them. The long backlog is older: most of it is no longer in what the broker has mapped.
"""

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Sequence

from apogeemq.store.config import StoreConfig
from apogeemq.store.message_store import MessageStore

from tests.interop.deployments import AllInOne
from tools.bench import frames, single
from tools.bench.cases import in_own_process, in_process_of_its_own
from tools.bench.load import Outcome
from tools.bench.requests import Load
from tools.bench.server_process import split_address
from tools.bench.store_cases import HOST, PLAIN, TAGS_CODE, Figure

BODY = b"x" * 100
SHORT_MESSAGES = 100_000
WARMUP_S = 0.5


@dataclasses.dataclass(frozen=True)
class BacklogRun:
    """How many messages the long backlog has, how long the short one is read from its start again and again."""

    messages: int
    rounds: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Backlog:
    """To be appended to a store."""

    directory: pathlib.Path
    topic: str
    messages: int


def measure(run: BacklogRun) -> list[Figure]:
    """CPU per message of the long backlog, of the short one, and what the one costs in terms of the other."""
    with tempfile.TemporaryDirectory(prefix="apogeemq-bench-") as directory:
        deployment = AllInOne(pathlib.Path(directory), {})
        with deployment:
            for topic in ("LONG", "SHORT"):
                template = frames.send_template(topic, queue_id=0, slot=0, body=BODY)
                reply = single.exchange(*split_address(deployment.broker), template.frame)
                assert reply.code == frames.SUCCESS, reply
            deployment.stop()
            for topic, messages in (("LONG", run.messages), ("SHORT", SHORT_MESSAGES)):
                in_process_of_its_own(append, Backlog(deployment.data / "broker", topic, messages))
            deployment.start_broker()
            rounds = [(_drain(deployment, "SHORT", run), _drain(deployment, "LONG", run)) for _ in range(run.rounds)]
            deployment.stop()
    return figures_of(rounds)


def append(backlog: Backlog) -> None:
    """Put messages into the topic's queues in turn. They have no keys; with the index on, the broker knows that."""
    config = StoreConfig(store_host=HOST, index_enabled=True)
    with MessageStore.open(backlog.directory, config, now_ms=lambda: time.time_ns() // 1_000_000) as store:
        for number in range(backlog.messages):
            queue_id = number % frames.TOPIC_QUEUES
            store.append(backlog.topic, queue_id, 0, 0, 1, HOST, 0, 0, BODY, PLAIN, TAGS_CODE)


def _drain(deployment: AllInOne, topic: str, run: BacklogRun) -> Outcome:
    """The long one once from start to end, the short one for some seconds."""
    host, port = split_address(deployment.broker)
    load = Load(
        kind="pull",
        host=host,
        port=port,
        topic=topic,
        connections=frames.TOPIC_QUEUES,
        depth=1,
        seconds=run.seconds,
        warmup_s=WARMUP_S,
        messages=run.messages if topic == "LONG" else None,
        server_pids=tuple(process.pid for process in deployment.processes.values()),
        label=f"{topic.lower()} backlog",
    )
    outcome = in_own_process(load)
    assert not outcome.errors, outcome.errors
    assert topic == "SHORT" or outcome.messages >= run.messages, outcome
    return outcome


def figures_of(rounds: Sequence[tuple[Outcome, Outcome]]) -> list[Figure]:
    """Of short and long drains in turn; ratios are of neighbours."""
    short, long = zip(*rounds, strict=True)
    costs = [(one.server_cpu_us or 0.0, other.server_cpu_us or 0.0) for one, other in rounds]
    return [
        Figure("short backlog", "µs CPU", tuple(one for one, _ in costs)),
        Figure("long backlog", "µs CPU", tuple(other for _, other in costs)),
        Figure("long : short, CPU", "", tuple(other / one for one, other in costs), target=1.2),
        Figure("short backlog", "messages/s", tuple(each.rate for each in short), more_is_better=True),
        Figure("long backlog", "messages/s", tuple(each.rate for each in long), more_is_better=True),
        Figure(
            "long : short, rate",
            "",
            tuple(other.rate / one.rate for one, other in rounds),
            target=0.8,
            more_is_better=True,
        ),
    ]
