"""A broker with many topics, many connected clients, many waiting pulls: what each costs, beside what it is meant to.

Each case has a fresh all-in-one; the load is in a process of its own.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tools.bench import frames, single
from tools.bench.cases import fresh_topic, in_own_process, in_process_of_its_own
from tools.bench.crowd import Crowd
from tools.bench.probe import Probe
from tools.bench.requests import Load
from tools.bench.server_process import Server, cpu_seconds, memory_kib, started
from tools.bench.store_cases import Figure

TOPICS = 1_000
GROUPS = 200
SUBSCRIPTIONS = 3
IN_FLIGHT = 64

CLIENTS = 5_000
CLIENTS_PER_GROUP = 10
HEARTBEAT_INTERVAL_S = 30.0

WAITERS = 10_000
SUSPEND_MS = 60_000
LONE_MESSAGES = 50
SETTLE_S = 3.0
"""So long the server gets to have received and parked what was sent to it."""


@dataclasses.dataclass(frozen=True)
class CrowdRun:
    """How long and how often each case is measured."""

    rounds: int
    seconds: float


def measure(names: Sequence[str], run: CrowdRun) -> list[Figure]:
    """The cases of these names, one after the other."""
    figures = []
    for name in names:
        with started("all-in-one") as server:
            figures += in_process_of_its_own(functools.partial(CASES[name], server), run)
    return figures


# -- many topics and groups --------------------------------------------------------------------------------------------


def sends(server: Server, run: CrowdRun) -> list[Figure]:
    """Server CPU of sends to 1,000 topics in turn while 200 groups are connected, without and with two KEYS each; and
    of sends to one of those topics, for comparison.
    """
    topic = fresh_topic("spread")
    names = [f"{topic}_{number}" for number in range(TOPICS)]
    values: dict[tuple[int, int], list[float]] = {(1, 0): [], (TOPICS, 0): [], (TOPICS, 2): []}
    with Crowd(server.host, server.port, GROUPS) as crowd:
        _create_topics(crowd, names)
        crowd.ask({number: _heartbeat(number, number, names) for number in range(GROUPS)})
        for _ in range(run.rounds):
            for (topics, keys), measured in values.items():
                outcome = in_own_process(_spread(server, topic, topics, keys, run.seconds))
                assert outcome.server_cpu_us is not None
                assert not outcome.errors, outcome.errors
                measured.append(outcome.server_cpu_us)
    return [
        Figure(
            f"send 1 × {IN_FLIGHT}, to {topics:,} of {TOPICS:,} topics, {GROUPS} groups, {keys} KEYS",
            "µs CPU",
            tuple(measured),
            target=25,
        )
        for (topics, keys), measured in values.items()
    ]


def _spread(server: Server, topic: str, topics: int, keys: int, seconds: float) -> Load:
    return Load(
        kind="spread",
        host=server.host,
        port=server.port,
        topic=topic,
        connections=1,
        depth=IN_FLIGHT,
        seconds=seconds,
        server_pids=server.pids,
        topics=topics,
        keys=keys,
        label=f"sends to {topics:,} topics with {keys} KEYS",
    )


# -- many clients ------------------------------------------------------------------------------------------------------


def heartbeats(server: Server, run: CrowdRun) -> list[Figure]:
    """The share of a core that 5,000 consumers take who do nothing but send their heartbeats, and their memory."""
    topic = fresh_topic("beats")
    names = [f"{topic}_{number}" for number in range(TOPICS)]
    before_kib = memory_kib(server.pids, "RssAnon")
    with Crowd(server.host, server.port, CLIENTS) as crowd:
        connected_kib = memory_kib(server.pids, "RssAnon")
        beats = [_heartbeat(number, number // CLIENTS_PER_GROUP, names) for number in range(CLIENTS)]
        crowd.ask(dict(enumerate(beats)))
        crowd.drop_late()
        joined_kib = memory_kib(server.pids, "RssAnon")
        shares = [_share_of_core(server, crowd, beats, run.seconds) for _ in range(run.rounds)]
    return [
        Figure(f"{CLIENTS:,} clients with heartbeats", "% of a core", tuple(shares), target=10),
        Figure("memory of a connection", "KiB", ((connected_kib - before_kib) / CLIENTS,)),
        Figure("memory of a consumer on it", "KiB", ((joined_kib - connected_kib) / CLIENTS,)),
    ]


def _share_of_core(server: Server, crowd: Crowd, beats: Sequence[bytes], seconds: float) -> float:
    """Percent of one core while each client beats every 30 s, evenly spread."""
    began, cpu_s = time.monotonic(), cpu_seconds(server.pids)
    sent = answered = 0
    while (elapsed_s := time.monotonic() - began) < seconds:
        for _ in range(sent, int(elapsed_s * len(beats) / HEARTBEAT_INTERVAL_S)):
            crowd.send(sent % len(beats), beats[sent % len(beats)])
            sent += 1
        answered += sum(code == frames.SUCCESS for _, code in crowd.replies(0.005))
    share = (cpu_seconds(server.pids) - cpu_s) / (time.monotonic() - began) * 100
    answered += sum(code == frames.SUCCESS for code in crowd.collect(sent - answered).values())
    assert answered == sent, f"{answered} of {sent} heartbeats were answered with success"
    return share


def _heartbeat(number: int, group_number: int, topics: Sequence[str]) -> bytes:
    """Of the connection's client; members of one group subscribe to the same."""
    subscribed = [topics[(group_number + step) % len(topics)] for step in range(SUBSCRIPTIONS)]
    client_id = f"192.168.0.1@{10_000 + number}#{10**15 + number}"
    return frames.heartbeat_request(client_id, f"bench_group_{group_number}", subscribed, number)


# -- many waiting pulls ------------------------------------------------------------------------------------------------


def waiters(server: Server, run: CrowdRun) -> list[Figure]:
    """10,000 pulls that wait, each on a connection of its own: all on one queue, then each on a queue of its own."""
    topic = fresh_topic("waiters")
    with Crowd(server.host, server.port, WAITERS) as crowd:
        apart = [f"{topic}_{number}" for number in range(WAITERS // frames.TOPIC_QUEUES)]
        _create_topics(crowd, [topic, *apart])
        together = [_wake_all(server, crowd, topic, offset) for offset in range(1, 1 + run.rounds)]
        parked = {number: _queue_of_its_own(apart, number) for number in range(WAITERS)}
        _park(crowd, parked)
        alone = [_wake_one(server, crowd, number, parked[number]) for number in range(LONE_MESSAGES)]
    return [
        Figure(f"one of {WAITERS:,} waiters answered after", "ms", tuple(alone), target=5),
        Figure(
            f"{WAITERS:,} waiters on one queue answered after",
            "ms",
            tuple(all_ms for all_ms, _ in together),
            target=500,
        ),
        Figure("another client's request meanwhile, at most", "ms", tuple(held for _, held in together), target=10),
    ]


class Queue(NamedTuple):
    """What a pull waits for: the queue and its end."""

    topic: str
    queue_id: int
    offset: int


def _queue_of_its_own(topics: Sequence[str], number: int) -> Queue:
    """The number-th queue; the first of each topic has the message that made the topic."""
    topic_number, queue_id = divmod(number, frames.TOPIC_QUEUES)
    return Queue(topics[topic_number], queue_id, 1 if queue_id == 0 else 0)


def _park(crowd: Crowd, queues: Mapping[int, Queue]) -> None:
    """Has each connection wait for a message in its queue."""
    for number, (topic, queue_id, offset) in queues.items():
        crowd.send(number, frames.pull_request(topic, "bench_waiters", queue_id, offset, 32, number, SUSPEND_MS))
    time.sleep(SETTLE_S)


def _wake_all(server: Server, crowd: Crowd, topic: str, offset: int) -> tuple[float, float]:
    """Milliseconds from one message to the last waiter's answer, and the longest answer to a probe meanwhile."""
    _park(crowd, dict.fromkeys(range(len(crowd)), Queue(topic, 0, offset)))
    with Probe(server.host, server.port) as probe:
        began = time.monotonic()
        single.exchange(server.host, server.port, _message(topic, 0))
        codes = crowd.collect(len(crowd))
        elapsed_s = time.monotonic() - began
    assert set(codes.values()) == {frames.SUCCESS}
    return elapsed_s * 1e3, max(probe.waits_ms)


def _wake_one(server: Server, crowd: Crowd, number: int, queue: Queue) -> float:
    """Milliseconds from before the send to after its waiter's answer."""
    request = _message(queue.topic, queue.queue_id)
    began = time.monotonic()
    single.exchange(server.host, server.port, request)
    assert crowd.collect(1) == {number: frames.SUCCESS}
    return (time.monotonic() - began) * 1e3


# -- their parts -------------------------------------------------------------------------------------------------------


def _create_topics(crowd: Crowd, topics: Sequence[str]) -> None:
    """By a message to queue 0 of each."""
    for at in range(0, len(topics), len(crowd)):
        some = topics[at : at + len(crowd)]
        crowd.ask({number: _message(topic, 0, slot=number) for number, topic in enumerate(some)})


def _message(topic: str, queue_id: int, slot: int = 0) -> frames.Buffer:
    return frames.send_template(topic, queue_id, slot, body=b"x" * 1024).frame


CASES: dict[str, Callable[[Server, CrowdRun], list[Figure]]] = {
    "sends": sends,
    "heartbeats": heartbeats,
    "waiters": waiters,
}
