"""What lies between the hosts of a MemoryNetwork: the weather, and the calls under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import PeerUnavailable


@dataclass(slots=True)
class Weather:
    """What happens to calls from one origin (or any) to one target."""

    delay_s_min: float = 0.0
    delay_s_max: float = 0.0
    refuses: bool = False


class Call:
    """A call or stream under way. `on_lost` is called with a reason when the network breaks it."""

    def __init__(self, wires: Wires, origin: str, target: str, on_lost: Callable[[str], None]) -> None:
        self.origin = origin
        self.target = target
        self._wires = wires
        self._on_lost = on_lost
        wires.calls.add(self)

    @property
    def clock(self) -> Clock:
        """The clock that travel times pass on."""
        return self._wires.clock

    def travel_time_s(self) -> float:
        """Draw how long the next message takes."""
        return self._wires.travel_time_s(self.origin, self.target)

    def lose(self, reason: str) -> None:
        """Break it."""
        self.end()
        self._on_lost(reason)

    def end(self) -> None:
        """Forget it: it is over, and the network can't break it any more. Idempotent."""
        self._wires.calls.discard(self)


class Wires:
    """Weather by (origin, target); origin None stands for every origin."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self.clock = clock
        self.calls: set[Call] = set()
        self._chance = chance
        self._weather: dict[tuple[str | None, str], Weather] = {}

    def weather(self, origin: str | None, target: str) -> Weather:
        """Return the weather there, to be changed."""
        return self._weather.setdefault((origin, target), Weather())

    def clear_up(self, origin: str | None, target: str) -> None:
        """Drop the weather to `target`; origin None drops it for all origins."""
        for key in [key for key in self._weather if key[1] == target and origin in (None, key[0])]:
            del self._weather[key]

    def break_calls(self, origin: str | None, target: str, reason: str) -> None:
        """Lose the calls under way to `target`; origin None means from anywhere."""
        for call in [call for call in self.calls if call.target == target and origin in (None, call.origin)]:
            call.lose(reason)

    def travel_time_s(self, origin: str, target: str) -> float:
        """Draw how long one message takes between the two, in either direction."""
        return sum(
            weather.delay_s_min + self._chance.random() * (weather.delay_s_max - weather.delay_s_min)
            for weather in self._weathers(origin, target)
            if weather.delay_s_max > 0
        )

    def check_open(self, origin: str, target: str) -> None:
        """Raise PeerUnavailable when new calls are refused between the two."""
        if any(weather.refuses for weather in self._weathers(origin, target)):
            raise PeerUnavailable(target, "connection refused")

    def _weathers(self, origin: str, target: str) -> Iterator[Weather]:
        for key in ((origin, target), (None, target)):
            if key in self._weather:
                yield self._weather[key]
