"""The load itself: some connections, each with some requests in flight, driven by one thread on one epoll.

A slot is one request in flight. Its frame is encoded once and sent again whenever its reply has come, so that almost
all of the generator's time goes to system calls. It is meant to run in a process of its own (see
`cases`).
"""

import array
import collections
import dataclasses
import math
import resource
import select
import time
from collections.abc import Sequence

from tools.bench import frames
from tools.bench.lane import Lane, connected
from tools.bench.progress import Progress
from tools.bench.requests import Load, Requests, requests_of
from tools.bench.server_process import cpu_seconds

SILENCE_TIMEOUT_S = 10.0
POLL_TIMEOUT_S = 0.1


class SilenceError(Exception):
    """The run is worth nothing: the server went silent."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was seen in the measured time."""

    messages: int
    elapsed_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: dict[str, int]
    generator_cpu_s: float
    server_cpu_s: float | None

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.elapsed_s

    @property
    def server_cpu_us(self) -> float | None:
        """The server's CPU time per message, user and system; None when its process is not known."""
        if self.server_cpu_s is None or not self.messages:
            return None
        return self.server_cpu_s / self.messages * 1e6

    @property
    def error_count(self) -> int:
        """Replies with another code than success."""
        return sum(self.errors.values())

    @property
    def generator_share(self) -> float:
        """How much of one core the generator used, 0 to 1."""
        return self.generator_cpu_s / self.elapsed_s


class Tally:
    """What is counted in one stretch of time."""

    def __init__(self, server_pids: Sequence[int]) -> None:
        self._pids = server_pids
        self.messages = 0
        self.latencies_ns = array.array("Q")
        self.errors: collections.Counter[str] = collections.Counter()
        self.start_ns = time.perf_counter_ns()
        self._generator_cpu_s = own_cpu_seconds()
        self._server_cpu_s = cpu_seconds(server_pids) if server_pids else None

    def outcome(self) -> Outcome:
        """The stretch up to now."""
        latencies = sorted(self.latencies_ns)
        server_cpu_s = None if self._server_cpu_s is None else cpu_seconds(self._pids) - self._server_cpu_s
        return Outcome(
            messages=self.messages,
            elapsed_s=(time.perf_counter_ns() - self.start_ns) / 1e9,
            p50_ms=quantile(latencies, 0.50) / 1e6,
            p99_ms=quantile(latencies, 0.99) / 1e6,
            max_ms=quantile(latencies, 1.0) / 1e6,
            errors=dict(self.errors),
            generator_cpu_s=own_cpu_seconds() - self._generator_cpu_s,
            server_cpu_s=server_cpu_s,
        )


class Runner:
    """Sends and receives until it is told to stop."""

    def __init__(self, load: Load, lanes: Sequence[Lane], requests: Requests, epoll: select.epoll) -> None:
        self._requests = requests
        self._lanes = {lane.socket.fileno(): lane for lane in lanes}
        self._sent_ns = [0] * (load.connections * load.depth)
        self._in_flight = 0
        self._is_ending = False
        self._epoll = epoll
        self._last_reply_ns = time.perf_counter_ns()
        self.tally = Tally(load.server_pids)
        for fd in self._lanes:
            self._epoll.register(fd, select.EPOLLIN)

    def start(self) -> None:
        """Fills every slot."""
        for lane in self._lanes.values():
            self._send(lane, lane.slots)

    def run_until(self, end_ns: int | None, progress: Progress) -> None:
        """Goes on until that time, or without one until nothing is in flight any more."""
        while self._in_flight if end_ns is None else time.perf_counter_ns() < end_ns:
            for fd, mask in self._epoll.poll(POLL_TIMEOUT_S):
                lane = self._lanes[fd]
                if mask & select.EPOLLOUT:
                    self._flush(lane)
                if mask & ~select.EPOLLOUT:
                    self._serve(lane)
            self._check_silence()
            progress.show(self.tally.messages)

    def drain(self, progress: Progress) -> None:
        """Sends nothing more and waits for what is in flight, so that no request of this run meets the next one."""
        self._is_ending = True
        self.run_until(None, progress)

    def _serve(self, lane: Lane) -> None:
        found = lane.receive()
        if not found:
            return
        now_ns = self._last_reply_ns = time.perf_counter_ns()
        tally, requests, buffer = self.tally, self._requests, lane.buffer
        free = []
        for start, header_end in found:
            slot = frames.slot_of(buffer, start, header_end)
            if slot not in lane.slots:
                continue  # a request of the server's own, which a client without a group has no use for
            tally.latencies_ns.append(now_ns - self._sent_ns[slot])
            if frames.is_success(buffer, start, header_end):
                tally.messages += requests.messages_in(buffer, start)
            else:
                self._judge(buffer, start)
            free.append(slot)
        self._in_flight -= len(free)
        if not self._is_ending:
            self._send(lane, free)

    def _judge(self, buffer: bytearray, start: int) -> None:
        """A reply that does not plainly say success."""
        reply = frames.decode(buffer, start)
        if reply.code == frames.SUCCESS:
            self.tally.messages += self._requests.messages_in(buffer, start)
        elif not self._requests.accepts(reply):
            self.tally.errors[f"code {reply.code}: {reply.remark[:100]}"] += 1

    def _send(self, lane: Lane, slots: Sequence[int]) -> None:
        ready = [(slot, request) for slot in slots if (request := self._requests.next(slot)) is not None]
        if not ready:
            return
        self._in_flight += len(ready)
        now_ns = time.perf_counter_ns()
        for slot, _ in ready:
            self._sent_ns[slot] = now_ns
        lane.send([request for _, request in ready])
        if lane.is_blocked:
            self._epoll.modify(lane.socket, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, lane: Lane) -> None:
        lane.flush()
        if not lane.is_blocked:
            self._epoll.modify(lane.socket, select.EPOLLIN)

    def _check_silence(self) -> None:
        if self._in_flight and time.perf_counter_ns() - self._last_reply_ns > SILENCE_TIMEOUT_S * 1e9:
            raise SilenceError(f"no reply for {SILENCE_TIMEOUT_S} s with {self._in_flight} requests in flight")


def run(load: Load) -> Outcome:
    """Runs one load and returns what was seen after the warm-up. SilenceError or
    ConnectionEndedError when the server stops answering."""
    progress = Progress(load.label)
    with connected(load) as lanes, select.epoll() as epoll:
        runner = Runner(load, lanes, requests_of(load), epoll)
        runner.start()
        if load.messages is None:
            runner.run_until(time.perf_counter_ns() + int(load.warmup_s * 1e9), progress)
            runner.tally = Tally(load.server_pids)
            runner.run_until(runner.tally.start_ns + int(load.seconds * 1e9), progress)
            outcome = runner.tally.outcome()
            runner.drain(progress)
        else:
            runner.run_until(None, progress)
            outcome = runner.tally.outcome()
    progress.end(outcome.messages, outcome.rate)
    return outcome


def own_cpu_seconds() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def quantile(ordered: Sequence[int], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; nan of none."""
    if not ordered:
        return float("nan")
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])
