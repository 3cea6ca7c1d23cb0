"""What every service's command does: its arguments, its ready line, its exit codes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from typing import Annotated

import msgspec
import pytest
from apogeemq.mesh import telemetry
from apogeemq.mesh.config import setting
from apogeemq.mesh.errors import ConfigError
from apogeemq.mesh.lifecycle import Lifecycle
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.service_process import (
    LogConfig,
    MakeWorld,
    ServiceProgram,
    World,
    serve_until_signal,
    service_main,
)
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

pytestmark = pytest.mark.usefixtures("root_logger")


class EchoConfig(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, setting("brokerName")] = "echo-a"
    secret_key: Annotated[str, setting(secret=True)] = ""
    refuse: bool = False
    log: LogConfig = LogConfig()


class EchoApp:
    """A service that does nothing; its name decides whether it starts."""

    def __init__(self, config: EchoConfig, world: World) -> None:
        if config.refuse:
            raise ConfigError("refuse", "is true")
        self._config = config
        self._world = world

    @property
    def endpoints(self) -> Mapping[str, str]:
        return {"remoting": f"{self._config.name}:10911"}

    def join(self, lifecycle: Lifecycle) -> None:
        lifecycle.add("remoting", start=self._start)

    async def _start(self) -> None:
        if self._config.name == "broken":
            raise OSError("the port is in use")


def program() -> ServiceProgram[EchoConfig]:
    return ServiceProgram(
        name="echo",
        package="apogeemq-mesh",  # any installed distribution: the version is read from it
        description="Does nothing.",
        config_type=EchoConfig,
        log_of=lambda config: config.log,
        ignored=("mappedFileSizeCommitLog",),
        make_app=EchoApp,
        metric_labels=lambda config: {"node_id": config.name},
    )


def test_print_config(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """--print-config lists all settings with their origins and masked secrets, and starts nothing."""
    monkeypatch.setenv("APOGEEMQ_ECHO_LOG_LEVEL", "ERROR")
    assert service_main(program(), ["--print-config", "--set", "brokerName=b", "--set", "secret_key=hunter2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "name = b  (flag --set brokerName)",
        "secret_key = ******  (flag --set secret_key)",
        "refuse = false  (default)",
        "log.level = ERROR  (environment APOGEEMQ_ECHO_LOG_LEVEL)",
        "log.json = false  (default)",
    ]


@pytest.mark.parametrize(
    ("argument", "message"), [("brokerNmae=b", "did you mean brokerName?"), ("refuse=true", "refuse is true")]
)
def test_wrong_settings_exit_with_2(capsys: pytest.CaptureFixture[str], argument: str, message: str) -> None:
    """Settings that do not load, or that the service refuses, give one line on stderr and exit code 2."""
    assert service_main(program(), ["--set", argument]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("apogeemq-mesh: ")
    assert message in captured.err


def test_failed_start_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    """A component that does not start is named on stderr; no ready line is printed."""
    assert service_main(program(), ["--set", "brokerName=broken"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "apogeemq-mesh: remoting did not start: the port is in use" in captured.err


async def test_services_of_one_process_have_tracers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each world's tracer makes spans that bear that service's name; all go to the one exporter."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(telemetry, "exporting_processors", lambda: [SimpleSpanProcessor(exporter)])

    def assemble(make_world: MakeWorld, lifecycle: Lifecycle) -> Registry:
        for service in ("proxy", "broker"):
            world = make_world({"node_type": service})
            world.tracer.start_span("work").end()
        return world.registry

    await serve_until_signal("apogeemq-mesh", assemble, lambda: signal.raise_signal(signal.SIGTERM))
    names = [span.resource.attributes["service.name"] for span in exporter.get_finished_spans()]
    assert names == ["apogeemq-proxy", "apogeemq-broker"]


async def test_ready_line_and_signal() -> None:
    """A service that runs prints one line of JSON on stdout, and ends with 0 at SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--set",
        "brokerName=b",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    rest, log = await process.communicate()
    assert json.loads(line) == {"ready": True, "service": "echo", "listeners": {"remoting": "b:10911"}}
    assert (rest, process.returncode) == (b"", 0)
    assert b"SIGTERM: stopping" in log


if __name__ == "__main__":
    sys.exit(service_main(program()))
