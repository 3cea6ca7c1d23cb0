"""What is asked of a client library, and what was seen: the same for every one of them."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Sequence

from tools.bench.report import align
from tools.bench.server_process import cpu_seconds

BODY = b"x" * 1024
BATCH_MESSAGES = 32
BACKLOG_MESSAGES = 20_000
SEND_TIMEOUT_S = 30.0
CONSUME_TIMEOUT_S = 120.0

CASES = (("send", 1), ("send", 64), ("batch", 4), ("handler", 0), ("iterate", 0))
"""Kind and calls in flight; the last two read a backlog, with a handler and by `async for`."""


@dataclasses.dataclass(frozen=True)
class ClientLoad:
    """One case: `target` is what the client is given as its servers' address.

    Consumers read `backlog_messages`. The CPU of `server_pids` is counted beside the client's own.
    """

    client: str
    kind: str
    in_flight: int
    target: str
    topic: str
    seconds: float
    warmup_s: float
    loop: str = "asyncio"
    backlog_messages: int = BACKLOG_MESSAGES
    server_pids: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.kind}-{self.in_flight}" if self.in_flight else self.kind


@dataclasses.dataclass(frozen=True)
class ClientOutcome:
    """What was seen in the measured time; CPU is user and system: the client process's own, and its server's."""

    client: str
    loop: str
    case: str
    messages: int
    elapsed_s: float
    client_cpu_s: float
    server_cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.elapsed_s

    @property
    def client_cpu_us(self) -> float:
        """The client's CPU time per message."""
        return self.client_cpu_s / max(self.messages, 1) * 1e6

    @property
    def server_cpu_us(self) -> float:
        """The server's CPU time per message; 0 where its processes were not named."""
        return self.server_cpu_s / max(self.messages, 1) * 1e6


class Stopwatch:
    """Elapsed and CPU time from its making on."""

    def __init__(self, load: ClientLoad) -> None:
        self._load = load
        self._began_s = time.monotonic()
        self._cpu_s = time.process_time()
        self._server_cpu_s = cpu_seconds(load.server_pids)

    def outcome(self, messages: int) -> ClientOutcome:
        """What was seen until now."""
        load = self._load
        elapsed_s, cpu_s = time.monotonic() - self._began_s, time.process_time() - self._cpu_s
        server_cpu_s = cpu_seconds(load.server_pids) - self._server_cpu_s
        return ClientOutcome(load.client, load.loop, load.name, messages, elapsed_s, cpu_s, server_cpu_s)


async def keep_in_flight(load: ClientLoad, work: Callable[[], Awaitable[int]]) -> ClientOutcome:
    """Keep so many calls under way, and count what ends between the warm-up and the end."""
    counted = 0
    is_over = False

    async def go_on() -> None:
        nonlocal counted
        while not is_over:
            done = await work()  # apart: `counted += await …` would add to what it was before the wait
            counted += done

    tasks = [asyncio.create_task(go_on()) for _ in range(load.in_flight)]
    await asyncio.sleep(load.warmup_s)
    counted, stopwatch = 0, Stopwatch(load)
    await asyncio.sleep(load.seconds)
    outcome = stopwatch.outcome(counted)
    is_over = True
    await asyncio.gather(*tasks)
    return outcome


def table(outcomes: Sequence[ClientOutcome]) -> str:
    """One line a case, and what iterating keeps of the handlers' rate."""
    rows = [("client", "loop", "case", "msg/s", "client µs/msg")]
    rows += [(one.client, one.loop, one.case, f"{one.rate:,.0f}", f"{one.client_cpu_us:.1f}") for one in outcomes]
    return "\n".join([*align(rows), *_ratios(outcomes)])


def _ratios(outcomes: Sequence[ClientOutcome]) -> list[str]:
    rates = {(one.client, one.loop, one.case): one.rate for one in outcomes}
    return [
        f"{client} on {loop}: async for runs at {rate / rates[client, loop, 'handler']:.2f} of the handlers' rate"
        for (client, loop, case), rate in rates.items()
        if case == "iterate" and (client, loop, "handler") in rates
    ]
