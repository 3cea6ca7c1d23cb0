"""A network between processes: streams in order until they break, and directions that can be cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from tests.simulation.world import Process, World

STALLED_LOOK_MS = 50


class End(Protocol):
    """What a process does with one of its streams."""

    def received(self, message: object) -> None:
        """A message came."""
        ...

    def broken(self) -> None:
        """The stream ended."""
        ...


class Network:
    """Delays, losses, copies and cuts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cut: set[tuple[str, str]] = set()
        self.streams: list[Stream] = []
        self.loss = 0.0
        self.copies = 0.0
        self.delay_ms_max = 10

    def cut(self, source: str, target: str) -> None:
        """Let nothing pass in this direction."""
        self._cut.add((source, target))

    def heal(self) -> None:
        """Let everything pass."""
        self._cut.clear()

    def passes(self, source: str, target: str) -> bool:
        """Whether something sent now arrives."""
        return (source, target) not in self._cut

    def delay_ms(self) -> int:
        """How long the next message takes; now and then much longer, so that others overtake it."""
        chance = self._world.chance
        return chance.randrange(1, self.delay_ms_max + 1) * (20 if chance.random() < 0.02 else 1)

    def post(self, source: Process, target: Process, arrives: Callable[[], None]) -> None:
        """Send one message that may be lost, late or doubled, and arrive in any order."""
        for _ in range(2 if self._world.chance.random() < self.copies else 1):
            if self.passes(source.name, target.name) and self._world.chance.random() >= self.loss:
                self._world.after(self.delay_ms(), target.run(arrives))

    def open(self, source: Process, target: Process, source_end: End, target_end: End) -> Stream:
        """A stream; both ends are alive."""
        stream = Stream(self._world, self, (source, source_end), (target, target_end))
        self.streams = [each for each in self.streams if each.is_open]
        self.streams.append(stream)
        return stream

    def dies(self, process: Process) -> None:
        """Its peers notice, unless a cut keeps the news from them."""
        for stream in self.streams:
            if process in stream.processes:
                stream.close()


class Stream:
    """Messages arrive in order or not at all; while a direction is cut they wait."""

    def __init__(
        self, world: World, network: Network, source: tuple[Process, End], target: tuple[Process, End]
    ) -> None:
        self._world = world
        self._network = network
        self._sides = (source, target)
        self._lives = (source[0].life, target[0].life)
        self._waiting: tuple[deque[object], deque[object]] = (deque(), deque())
        self._told_broken = [False, False]
        self.is_open = True

    @property
    def processes(self) -> tuple[Process, Process]:
        """Both."""
        return self._sides[0][0], self._sides[1][0]

    def send(self, sender: Process, message: object) -> None:
        """From this one to the other."""
        to = 1 if self._sides[0][0] is sender else 0
        if self.is_open:
            self._waiting[to].append(message)
            self._world.after(self._network.delay_ms(), lambda: self._arrive(to))

    def close(self) -> None:
        """Break it; each end that lives and can be reached hears of it."""
        if not self.is_open:
            return
        self.is_open = False
        for to in (0, 1):
            self._world.after(self._network.delay_ms(), lambda to=to: self._tell_broken(to))  # type: ignore[misc]

    def _passes(self, to: int) -> bool:
        return self._network.passes(self._sides[1 - to][0].name, self._sides[to][0].name)

    def _arrive(self, to: int) -> None:
        if not self.is_open or not self._waiting[to]:
            return
        process, end = self._sides[to]
        if process.life != self._lives[to]:
            self.close()
        elif not self._passes(to):
            self._world.after(STALLED_LOOK_MS, lambda: self._arrive(to))
        else:
            message = self._waiting[to].popleft()
            process.run(lambda: self.is_open and end.received(message))()  # type: ignore[arg-type, func-returns-value]

    def _tell_broken(self, to: int) -> None:
        process, end = self._sides[to]
        if process.life == self._lives[to] and process.is_up:
            if self._passes(to):
                process.run(end.broken)()
            else:
                self._world.after(STALLED_LOOK_MS, lambda: self._tell_broken(to))
