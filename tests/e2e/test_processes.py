"""`apogeemq up --processes`: each service in a process of its own, started, watched and stopped as one."""

import os
import pathlib
import signal

import pytest
from apogeemq.remoting_codec.codes import ResponseCode

from tests.e2e.process import ManagedProcess, poll_until, start_all_in_one
from tests.e2e.wire_client import WireClient, pull_all, send_fields

SERVICES = ["namesrv", "broker", "proxy"]
TOPIC, GROUP = "Apart", "G_apart"
DEADLINE_S = 30.0


def start(tmp_path: pathlib.Path, settings: dict[str, str] | None = None) -> ManagedProcess:
    """Start all services on free ports."""
    return start_all_in_one(
        tmp_path / "data",
        log_directory=tmp_path / "logs",
        settings=settings or {},
        arguments=["--processes"],
        log_level="INFO",
    )


def children(pid: int) -> dict[str, int]:
    """The pids of a process's children, by the service each runs."""
    pids = [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    modules = [pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[2].decode() for child in pids]
    return dict(zip((module.removeprefix("apogeemq.") for module in modules), pids, strict=True))


def has_ended(pid: int) -> bool:
    return not pathlib.Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_service_has_a_process_and_a_signal_ends_all_in_order(
    tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    """The ready line tells every listener; messages go through; nothing is left behind, and the exit code is 0."""
    with start(tmp_path) as process:
        ready = process.wait_ready(DEADLINE_S)
        assert {"namesrv.remoting", "broker.remoting", "broker.mesh", "proxy.grpc"} <= set(ready.listeners)
        pids = children(process.pid)
        assert list(pids) == SERVICES
        with WireClient(ready.listeners["broker.remoting"]) as client:
            reply = client.request(310, send_fields(TOPIC, 0), b"through processes")
            assert reply.code == ResponseCode.SUCCESS
            client.heartbeat("c", GROUP, TOPIC)
            assert [record.body for record in pull_all(client, TOPIC, GROUP, 0)] == [b"through processes"]
        process.send_signal(number)
        assert process.wait_exit(DEADLINE_S) == 0
        assert all(has_ended(pid) for pid in pids.values())
        assert not (tmp_path / "data" / "broker" / "abort").exists()


def test_a_service_that_is_killed_ends_all_with_its_name(tmp_path: pathlib.Path) -> None:
    """Half a topology is none: the others are stopped in good order, and the exit code says that something failed."""
    with start(tmp_path) as process:
        process.wait_ready(DEADLINE_S)
        pids = children(process.pid)
        os.kill(pids["proxy"], signal.SIGKILL)
        assert process.wait_exit(DEADLINE_S) == 1
        assert f"proxy (process {pids['proxy']}) ended by itself with exit code -9" in process.log
        poll_until(
            lambda: all(has_ended(pid) for pid in pids.values()),
            DEADLINE_S,
            lambda: process.failure("left children behind"),
        )
        assert not (tmp_path / "data" / "broker" / "abort").exists()


def test_a_kill_of_all_leaves_nobody_behind(tmp_path: pathlib.Path) -> None:
    """Whoever starts the services may be killed without a word: they then stop in good order by themselves."""
    with start(tmp_path) as process:
        process.wait_ready(DEADLINE_S)
        pids = children(process.pid)
        process.kill()
        poll_until(
            lambda: all(has_ended(pid) for pid in pids.values()),
            DEADLINE_S,
            lambda: process.failure("left children behind"),
        )
        assert not (tmp_path / "data" / "broker" / "abort").exists()


def test_a_service_that_does_not_start_is_named(tmp_path: pathlib.Path) -> None:
    """Its own words stand in the log, and what had started before it is stopped again."""
    taken = tmp_path / "data" / "broker"
    taken.parent.mkdir()
    taken.write_text("no directory")
    with start(tmp_path) as process:
        assert process.wait_exit(DEADLINE_S) == 1
        assert "broker did not start: broker ended with exit code 1 before it served" in process.log
