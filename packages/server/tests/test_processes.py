"""What a topology's processes are told, and what is told of them. How they run is tried in tests/e2e."""

import json
from pathlib import Path

import pytest
from apogeemq.mesh.errors import LifecycleError
from apogeemq.server.child_process import ChildProcess, Command, says_ready_line
from apogeemq.server.planned import Plan, plan, settings_of_topology
from apogeemq.server.processes import (
    ChildLog,
    RunningTopology,
    child_environment,
    say_restarted,
    say_what_runs,
    start_all,
)
from apogeemq.server.topology import ha_topology, plain_topology

LOG = ChildLog("ERROR", json=False)


def planned(data: Path, *, ha: bool = False) -> Plan:
    """A plan on fixed ports."""
    topology = ha_topology() if ha else plain_topology()
    settings = settings_of_topology({"broker.flushDiskType": "SYNC_FLUSH"}, topology)
    return plan(topology, data=data, free_ports=False, environ={}, settings=settings)


def shell(name: str, script: str) -> ChildProcess:
    """A process that runs a script."""
    return ChildProcess(name, "broker", lambda: Command(("/bin/sh", "-c", script), {}), says_ready_line)


def test_a_service_gets_its_settings_and_nobody_elses(tmp_path: Path) -> None:
    """By its environment: settings over what is told, the topology's addresses over both, kept ports over all."""
    [broker] = planned(tmp_path).of_kind("broker")
    environ = {"PATH": "/bin", "NAMESRV_ADDR": "x:1", "APOGEEMQ_BROKER_LOG_LEVEL": "DEBUG", "APOGEEMQ_PROXY_X": "y"}
    made = child_environment(
        broker.program,
        broker.loaded,
        environ,
        told={"LOG_LEVEL": "ERROR", "STORE_FLUSH_DISK_TYPE": "ASYNC_FLUSH"},
        given={"identity.namesrv_addr": "127.0.0.1:9877"},
        over={"LISTENERS_MESH_PORT": "5"},
    )
    own = {name.removeprefix("APOGEEMQ_BROKER_"): value for name, value in made.items() if "BROKER_" in name}
    assert own["LOG_LEVEL"] == "ERROR"
    assert own["STORE_FLUSH_DISK_TYPE"] == "SYNC_FLUSH"
    assert own["IDENTITY_NAMESRV_ADDR"] == "127.0.0.1:9877"
    assert own["LISTENERS_MESH_PORT"] == "5"
    assert own["LISTENERS_REMOTING_HOST"] == "127.0.0.1"
    assert {name: value for name, value in made.items() if "BROKER_" not in name} == {
        "PATH": "/bin",
        "APOGEEMQ_PROXY_X": "y",
    }


def test_children_are_those_of_the_plan_in_its_order(tmp_path: Path) -> None:
    """Members of etcd first, each with ports that it keeps."""
    running = RunningTopology(planned(tmp_path, ha=True), {}, LOG, Path("/bin/etcd"))
    assert list(running.children) == ha_topology().names
    assert (tmp_path / "etcd-3" / "ports.json").read_text() == "[2579, 2580]\n"


def test_machines_are_told_of_every_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its service and pid, after the text for people; listeners by the process's name."""
    child = shell("broker-a-1", "")
    child.listeners = {"remoting": "127.0.0.1:10911"}
    say_what_runs(planned(tmp_path, ha=True), [child], ["look out"])
    say_restarted(child)
    printed = capsys.readouterr().out.splitlines()
    assert "NOTE: look out" in printed
    assert [json.loads(line) for line in printed[-2:]] == [
        {
            "ready": True,
            "service": "apogeemq",
            "listeners": {"broker-a-1.remoting": "127.0.0.1:10911"},
            "processes": {"broker-a-1": {"service": "broker", "pid": 0}},
        },
        {"restarted": "broker-a-1", "service": "broker", "pid": 0, "listeners": {"remoting": "127.0.0.1:10911"}},
    ]


async def test_one_that_does_not_start_takes_its_stage_along() -> None:
    """It is named; the others of the stage, which serve or are about to, have ended then."""
    ready = """echo '{"service": "x", "listeners": {}}'"""
    good = shell("good", f"trap 'exit 0' TERM; {ready}; while read line; do :; done")
    stage = [good, shell("slow", "exec cat"), shell("bad", "exit 7")]
    with pytest.raises(LifecycleError, match="bad ended with exit code 7 before it served"):
        await start_all(stage)
    assert [await each.ended() for each in stage if each.pid][-1] == 7
