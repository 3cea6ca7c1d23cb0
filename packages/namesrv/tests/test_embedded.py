"""A controller in the name server's process (enableControllerInNamesrv)."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.config import ListenerConfig
from apogeemq.mesh.errors import ConfigError
from apogeemq.mesh.health import Health
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.service_process import World
from apogeemq.namesrv import app as app_module
from apogeemq.namesrv.app import PROGRAM, NamesrvApp
from apogeemq.namesrv.config import ControllerInsideConfig, ListenersConfig, NamesrvConfig
from opentelemetry.trace import NoOpTracer

LISTENERS = ListenersConfig(
    remoting=ListenerConfig(host="127.0.0.1"),
    mesh=ListenerConfig(host="namesrv", port=9877),
    http=ListenerConfig(enabled=False),
)


class Inside:
    """A controller that notes what it was given, and when it ran."""

    def __init__(self) -> None:
        self.given: tuple[Path | None, World] | None = None
        self.events: list[str] = []

    @property
    def endpoints(self) -> Mapping[str, str]:
        return {"mesh": "127.0.0.1:1"}

    def join(self, lifecycle: Lifecycle) -> None:
        lifecycle.add("inside", start=self._start, stop=self._stop)

    def factory(
        self, file: Path | None, environ: Mapping[str, str], settings: Mapping[str, str], world: World
    ) -> "Inside":
        self.given = (file, world)
        return self

    async def _start(self) -> None:
        self.events.append("start")

    async def _stop(self) -> None:
        self.events.append("stop")


def world() -> World:
    clock = ManualClock()

    def beside(metric_labels: Mapping[str, str]) -> World:
        return World(clock, SeededChance(2), network, Health(), Registry(metric_labels), NoOpTracer(), beside)

    network = MemoryNetwork(clock, SeededChance(1))
    return World(clock, SeededChance(1), network, Health(), Registry(), NoOpTracer(), beside)


async def test_a_controller_starts_and_stops_with_the_name_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Found by its entry point, with its settings file and a world of its own; its listeners bear its name."""
    inside = Inside()
    asked: list[tuple[str, str]] = []

    def find(service: str, *, asked_by: str) -> Callable[..., Inside]:
        asked.append((service, asked_by))
        return inside.factory

    monkeypatch.setattr(app_module, "find_embeddable", find)
    file = tmp_path / "controller.toml"
    file.write_text("")
    own = world()
    config = NamesrvConfig(controller=ControllerInsideConfig(enabled=True, config_path=str(file)), listeners=LISTENERS)
    app = PROGRAM.make_app(config, own)
    assert isinstance(app, NamesrvApp)
    await app.start()
    assert app.endpoints["controller.mesh"] == "127.0.0.1:1"
    assert inside.events == ["start"]
    await app.stop()
    assert inside.events == ["start", "stop"]
    assert asked == [("controller", "enableControllerInNamesrv")]
    assert inside.given is not None
    assert inside.given[0] == file
    assert inside.given[1].health is not own.health
    assert inside.given[1].registry is not own.registry


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"controller.config_path": "x"}, "only enabled = true uses"),
        ({"enableControllerInNamesrv": "true", "controller.config_path": "/does/not/exist"}, "there is no file"),
    ],
)
def test_a_settings_file_that_nobody_would_read_is_refused(settings: dict[str, str], text: str) -> None:
    """One that is not there, too."""
    with pytest.raises(ConfigError, match=text):
        PROGRAM.load_config(flags=settings)
