"""What pops, transactions and timer messages cost a broker, each beside what it is meant to cost.

Each case has a fresh all-in-one; the load is in a process of its own.
"""

import dataclasses
import gc
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

from tests.interop.deployments import AllInOne, Deployment
from tools.bench import frames, kind_frames, load, single
from tools.bench.cases import fresh_topic, in_own_process, in_process_of_its_own, send_until_accepted
from tools.bench.requests import Load
from tools.bench.server_process import cpu_seconds, memory_kib, split_address
from tools.bench.store_cases import Figure

BROKER_NAME = "bench"
IN_FLIGHT = 64
BODY_BYTES = 1024
TIMED_BODY_BYTES = 100

HOUR_MS = 3_600_000
PROBES = 200
PROBE_INTERVAL_MS = 25
PROBE_LEAD_MS = 2_000
DUE_AT_ONCE = 100_000
DUE_LEAD_MS = 15_000
"""Until then they are all sent and taken in."""
DELIVERY_TIMEOUT_S = 120.0
SETTLE_S = 3.0


@dataclasses.dataclass(frozen=True)
class KindRun:
    """How often and how long each case is measured, with how many messages and pending timers."""

    rounds: int
    seconds: float
    messages: int
    timers: int


def measure(names: Sequence[str], run: KindRun) -> list[Figure]:
    """The cases of these names, one after the other."""
    figures = []
    for name in names:
        with (
            tempfile.TemporaryDirectory(prefix="apogeemq-bench-") as directory,
            AllInOne(pathlib.Path(directory), {"brokerName": BROKER_NAME}) as deployment,
        ):
            figures += CASES[name](deployment, run)
            deployment.stop()
    return figures


def pids_of(deployment: Deployment) -> tuple[int, ...]:
    """Of what serves."""
    return tuple(process.pid for process in deployment.processes.values())


# -- pops --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PopLoad:
    """Pop a backlog of so many messages to its end, 32 at a time, one pop after the other."""

    address: str
    pids: tuple[int, ...]
    topic: str
    messages: int
    acks_together: bool


def pops(deployment: Deployment, run: KindRun) -> list[Figure]:
    """Server CPU of popping and acknowledging a message: all of a pop by one request, and each by one."""
    figures = []
    for acks_together, target in ((True, 15.0), (False, None)):
        values = []
        for _ in range(run.rounds):
            backlog = _load(deployment, "batch", "pop", connections=1, depth=4, messages=run.messages)
            in_own_process(backlog)
            pop_load = PopLoad(
                deployment.broker, pids_of(deployment), backlog.topic, run.messages, acks_together=acks_together
            )
            values.append(in_process_of_its_own(_pop_all, pop_load))
        how = "acknowledged by one request" if acks_together else "acknowledged one by one"
        figures.append(Figure(f"pop of 32, {how}", "µs CPU", tuple(values), target))
    return figures


def _pop_all(pop_load: PopLoad) -> float:
    """µs of server CPU a message, popped and acknowledged."""
    gc.disable()
    topic, group = pop_load.topic, f"{pop_load.topic}_group"
    done, began_s = 0, cpu_seconds(pop_load.pids)
    with single.conversation(*split_address(pop_load.address)) as talk:
        while done < pop_load.messages:
            reply = talk.ask(kind_frames.pop_request(topic, group))
            assert reply.code == frames.SUCCESS, (reply.code, reply.remark, done)
            popped = kind_frames.Popped.of(reply)
            if pop_load.acks_together:
                acks = [kind_frames.batch_ack_request(topic, group, BROKER_NAME, popped)]
            else:
                acks = kind_frames.ack_requests(topic, group, BROKER_NAME, popped)
            assert all(ack.code == frames.SUCCESS for ack in talk.ask_all(acks))
            done += popped.count
    return (cpu_seconds(pop_load.pids) - began_s) / done * 1e6


# -- transactions ------------------------------------------------------------------------------------------------------


def transactions(deployment: Deployment, run: KindRun) -> list[Figure]:
    """Server CPU of a half message and its commit, 64 in flight; all that was committed has to be there."""
    values = []
    for _ in range(run.rounds):
        transacting = _load(deployment, "transaction", "transaction", connections=1, depth=IN_FLIGHT, messages=None)
        outcome = in_own_process(dataclasses.replace(transacting, seconds=run.seconds))
        assert not outcome.errors, outcome.errors
        assert outcome.server_cpu_us is not None
        with single.conversation(*split_address(deployment.broker)) as talk:
            _wait_for(talk, transacting.topic, outcome.messages)
        values.append(outcome.server_cpu_us)
    return [Figure("half message and commit, 1 × 64", "µs CPU", tuple(values), target=120)]


# -- timer messages ----------------------------------------------------------------------------------------------------


def timers(deployment: Deployment, run: KindRun) -> list[Figure]:
    """Lateness of single messages when idle; then how fast many that are due at once come; then, with a million
    pending, their memory, their lateness again, and the time that a start takes.
    """
    idle = _late_ms(deployment)
    rates = [_due_at_once(deployment) for _ in range(run.rounds)]
    before_kib = memory_kib(pids_of(deployment), "RssAnon")
    sending = _load(deployment, "timed", "pending", connections=1, depth=IN_FLIGHT, messages=run.timers)
    now_ms = time.time_ns() // 1_000_000
    _send_timed(sending, now_ms + HOUR_MS, now_ms + 24 * HOUR_MS)
    time.sleep(SETTLE_S)
    sent_kib = memory_kib(pids_of(deployment), "RssAnon")
    crowded = _late_ms(deployment)
    starts = [(_start_s(deployment, clean=True), _start_s(deployment, clean=False)) for _ in range(run.rounds)]
    started_kib = memory_kib(pids_of(deployment), "RssAnon")
    pending, memory = f"{run.timers:,} pending", "anonymous memory"
    return [
        *_lateness("idle", idle, target_ms=50),
        Figure(f"{DUE_AT_ONCE:,} due at once", "messages/s", tuple(rates), target=10_000, more_is_better=True),
        *_lateness(pending, crowded, target_ms=1_000),
        Figure(f"{pending}, {memory} before", "MiB", (before_kib / 1024,)),
        Figure(f"{pending}, {memory} when sent, after starts", "MiB", (sent_kib / 1024, started_kib / 1024), 100),
        Figure(f"{pending}, start to first send after a stop", "s", tuple(clean for clean, _ in starts), target=5),
        Figure(f"{pending}, start to first send after kill -9", "s", tuple(killed for _, killed in starts), target=5),
    ]


def _lateness(when: str, late_ms: Sequence[float], target_ms: float) -> list[Figure]:
    ordered = sorted(round(each * 1000) for each in late_ms)
    assert ordered[0] >= 0, f"{-ordered[0]} µs early"
    p50_ms, p99_ms = (load.quantile(ordered, share) / 1000 for share in (0.5, 0.99))
    return [
        Figure(f"{when}, late by, p50", "ms", (p50_ms,)),
        Figure(f"{when}, late by, p99", "ms", (p99_ms,), target=target_ms),
    ]


def _late_ms(deployment: Deployment) -> list[float]:
    return in_process_of_its_own(_late_probes, deployment.broker)


def _late_probes(address: str) -> list[float]:
    """How late each of some timer messages reached a client whose pull waited, in ms: one every 25 ms."""
    topic = fresh_topic("late")
    with single.conversation(*split_address(address), timeout_s=DELIVERY_TIMEOUT_S) as talk:
        assert talk.ask(frames.send_template(topic, 0, 0, b"0").frame).code == frames.SUCCESS
        first_ms = time.time_ns() // 1_000_000 + PROBE_LEAD_MS
        for number in range(PROBES):
            due_ms = first_ms + number * PROBE_INTERVAL_MS
            timed = frames.send_template(topic, 0, 0, b"%d" % due_ms, more={"TIMER_DELIVER_MS": str(due_ms)})
            reply = talk.ask(timed.frame)
            assert reply.code == frames.SUCCESS, (reply.code, reply.remark)
        late_ms: list[float] = []
        while len(late_ms) < PROBES:
            pull = frames.pull_request(topic, "bench_late", 0, 1 + len(late_ms), 32, 0, suspend_ms=15_000)
            reply = talk.ask(pull)
            now_ms = time.time_ns() / 1e6
            assert reply.code == frames.SUCCESS, (reply.code, reply.remark)
            late_ms += [now_ms - int(body) for body in kind_frames.bodies(reply.body)]
    return late_ms


def _due_at_once(deployment: Deployment) -> float:
    """Messages a second, from when they are due until the last of them is in its queue."""
    due_ms = time.time_ns() // 1_000_000 + DUE_LEAD_MS
    sending = _load(deployment, "timed", "due", connections=1, depth=IN_FLIGHT, messages=DUE_AT_ONCE)
    _send_timed(sending, due_ms, due_ms)
    with single.conversation(*split_address(deployment.broker)) as talk:
        left_s = due_ms / 1e3 - time.time()
        assert left_s > 0, "sending took longer than the messages had to wait"
        assert sum(_max_offsets(talk, sending.topic)) == 0
        time.sleep(left_s)
        _wait_for(talk, sending.topic, DUE_AT_ONCE)
    return DUE_AT_ONCE / (time.time() - due_ms / 1e3)


def _send_timed(sending: Load, due_from_ms: int, due_to_ms: int) -> None:
    outcome = in_own_process(
        dataclasses.replace(sending, body_bytes=TIMED_BODY_BYTES, due_from_ms=due_from_ms, due_to_ms=due_to_ms)
    )
    assert not outcome.errors, list(outcome.errors.items())[:3]


def _start_s(deployment: Deployment, *, clean: bool) -> float:
    """From exec to the first accepted send, after an orderly stop or a kill."""
    if clean:
        deployment.stop()
    else:
        deployment.kill_broker()
    began = time.perf_counter()
    deployment.start_broker()
    send_until_accepted(*split_address(deployment.broker))
    return time.perf_counter() - began


# -- their parts -------------------------------------------------------------------------------------------------------


def _load(deployment: Deployment, kind: str, name: str, *, connections: int, depth: int, messages: int | None) -> Load:
    host, port = split_address(deployment.broker)
    return Load(
        kind=kind,
        host=host,
        port=port,
        topic=fresh_topic(name),
        connections=connections,
        depth=depth,
        body_bytes=BODY_BYTES,
        messages=messages,
        server_pids=pids_of(deployment),
        label=name,
    )


def _max_offsets(talk: single.Conversation, topic: str) -> Iterable[int]:
    for queue_id in range(frames.TOPIC_QUEUES):
        reply = talk.ask(kind_frames.max_offset_request(topic, queue_id))
        assert reply.code == frames.SUCCESS, (reply.code, reply.remark)
        yield int(reply.ext_fields["offset"])


def _wait_for(talk: single.Conversation, topic: str, messages: int) -> None:
    """Until so many are in the topic's queues."""
    deadline = time.monotonic() + DELIVERY_TIMEOUT_S
    while (there := sum(_max_offsets(talk, topic))) < messages:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{there} of {messages} messages in {topic} after {DELIVERY_TIMEOUT_S} s")
        time.sleep(0.005)


CASES: dict[str, Callable[[Deployment, KindRun], list[Figure]]] = {
    "pop": pops,
    "transaction": transactions,
    "timers": timers,
}
