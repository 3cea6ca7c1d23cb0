"""`apogeemq up` with a topology: a file's, or what a short form stands for; processes end and come again."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
from typing import Any

import pytest
from apogeemq.client_grpc import Message, Producer, PushConsumer, ReceivedMessage
from apogeemq.remoting_codec.codes import ResponseCode

from tests.e2e.process import ManagedProcess, console_script, poll_until, start_all_in_one
from tests.e2e.test_processes import has_ended
from tests.e2e.wire_client import WireClient, pull_all, send_fields
from tests.etcd_cluster import programs

pytestmark = pytest.mark.verify  # test_processes.py tries the same starter in each test run

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL_FILES = {"broker.store.commit_log_file_size_bytes": str(16 << 20)}
TOPIC, GROUP = "Topologies", "G_topologies"
DEADLINE_S = 60.0

ONE_OF_EACH = """
restart = "always"
[namesrv.members.routes]
[broker_sets.shop.members.store]
"""


def start(tmp_path: pathlib.Path, *arguments: str, environ: dict[str, str] | None = None) -> ManagedProcess:
    """Start a topology on free ports."""
    return start_all_in_one(
        tmp_path / "data",
        log_directory=tmp_path / "logs",
        settings=SMALL_FILES,
        arguments=arguments,
        environ=environ,
    )


def with_etcd() -> dict[str, str]:
    """An environment in which `etcd` is on PATH."""
    return {"PATH": f"{programs()}{os.pathsep}{os.environ['PATH']}"}


def told(process: ManagedProcess, key: str, value: object) -> dict[str, Any]:
    """The line of JSON on stdout in which `key` is `value`, waited for."""

    def is_it(line: str) -> bool:
        return line.startswith("{") and json.loads(line).get(key) == value

    found: dict[str, Any] = json.loads(process.wait_line(is_it, DEADLINE_S, f"a line with {key}"))
    return found


def one_of_each(tmp_path: pathlib.Path) -> str:
    """A file with a name server and a broker."""
    file = tmp_path / "topology.toml"
    file.write_text(ONE_OF_EACH)
    return str(file)


def test_a_killed_process_is_started_again_where_it_was(tmp_path: pathlib.Path) -> None:
    """The log names it with its exit code, stdout the new pid; ports and messages are the same, the rest goes on."""
    with start(tmp_path, "--topology", one_of_each(tmp_path)) as process:
        ready = told(process, "ready", value=True)
        address, pids = ready["listeners"]["store.remoting"], ready["processes"]
        with WireClient(address) as client:
            assert client.request(310, send_fields(TOPIC, 0), b"before").code == ResponseCode.SUCCESS
        os.kill(pids["store"]["pid"], signal.SIGKILL)
        again = told(process, "restarted", "store")
        assert again["pid"] != pids["store"]["pid"]
        assert again["listeners"]["remoting"] == address
        assert f"store (process {pids['store']['pid']}) ended by itself with exit code -9" in process.log
        assert not has_ended(pids["routes"]["pid"])
        with WireClient(address) as client:
            client.heartbeat("c", GROUP, TOPIC)
            assert [record.body for record in pull_all(client, TOPIC, GROUP, 0)] == [b"before"]
        process.stop()
        assert has_ended(again["pid"])
        assert has_ended(pids["routes"]["pid"])


def test_several_brokers_share_a_cluster(tmp_path: pathlib.Path) -> None:
    """`--brokers 2`: two masters of two names, both at the one name server; data in a folder for each."""
    with start(tmp_path, "--brokers", "2") as process:
        ready = told(process, "ready", value=True)
        assert list(ready["processes"]) == ["namesrv", "broker", "broker-b", "proxy"]
        for name in ("broker", "broker-b"):
            with WireClient(ready["listeners"][f"{name}.remoting"]) as client:
                assert client.request(310, send_fields(TOPIC, 0), name.encode()).code == ResponseCode.SUCCESS
            assert (tmp_path / "data" / name / "commitlog").is_dir()
        process.stop()


async def test_the_deployed_topology_survives_its_master(tmp_path: pathlib.Path) -> None:
    """As docs/operations.md starts it: sent before and after a kill -9 of the master, received whole by a consumer."""
    document = (ROOT / "docs" / "operations.md").read_text()
    assert "apogeemq up --topology deploy/topology-ha.toml" in document
    file = ROOT / "deploy" / "topology-ha.toml"
    with start(tmp_path, "--topology", str(file), environ=with_etcd()) as process:
        ready = told(process, "ready", value=True)
        pids = {name: each["pid"] for name, each in ready["processes"].items()}
        assert len(pids) == 12
        received: list[bytes] = []

        async def handle(message: ReceivedMessage) -> None:
            received.append(message.body)

        proxy = ready["listeners"]["proxy-1.grpc"]
        async with (
            Producer(proxy) as producer,
            PushConsumer(proxy, group=GROUP, subscriptions={TOPIC: "*"}, handler=handle),
        ):
            await producer.send(Message(TOPIC, b"before"), timeout_s=DEADLINE_S)
            master, epoch = master_of(ready), status_of(ready)["master_epoch"]
            os.kill(pids[master], signal.SIGKILL)
            await producer.send(Message(TOPIC, b"after"), timeout_s=DEADLINE_S)
            assert status_of(ready)["master_epoch"] > epoch
            told(process, "restarted", master)
            poll_until(lambda: in_set(ready) == 3, DEADLINE_S, lambda: process.failure("the killed one did not join"))
            await wait_for_all(received, {b"before", b"after"})
        process.stop(DEADLINE_S)
        assert all(has_ended(pid) for pid in pids.values())


def test_a_kill_of_all_leaves_no_etcd_behind(tmp_path: pathlib.Path) -> None:
    """Also a program that is not ours ends with who started it; the next start finds the cluster as it was."""
    file = tmp_path / "etcd.toml"
    file.write_text("[etcd.members]\none = {}\ntwo = {}\nthree = {}\n[controller.members.first]\n")
    with start(tmp_path, "--topology", str(file), environ=with_etcd()) as process:
        ready = told(process, "ready", value=True)
        process.kill()
        poll_until(
            lambda: all(has_ended(each["pid"]) for each in ready["processes"].values()),
            DEADLINE_S,
            lambda: process.failure("left children behind"),
        )
    with start(tmp_path, "--topology", str(file), environ=with_etcd()) as process:
        again = process.wait_ready(DEADLINE_S)
        assert again.listeners["one.client"] == ready["listeners"]["one.client"]
        process.stop(DEADLINE_S)


def status_of(ready: dict[str, Any]) -> dict[str, Any]:
    """What the controllers tell of the one broker set."""
    controllers = ";".join(at for name, at in ready["listeners"].items() if name.startswith("controller-1.mesh"))
    command = [str(console_script("apogeemq")), "admin", "ha", "status", "-o", "json", "--controller", controllers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    described: dict[str, Any] = json.loads(done.stdout)["sets"][0]
    return described


def master_of(ready: dict[str, Any]) -> str:
    """The name of the process that is master."""
    status = status_of(ready)
    [address] = [each["address"] for each in status["brokers"] if each["broker_id"] == status["master_id"]]
    listeners: dict[str, str] = ready["listeners"]
    [name] = [name for name, at in listeners.items() if at == address]
    return name.removesuffix(".remoting")


def in_set(ready: dict[str, Any]) -> int:
    """How many brokers hold all that was acknowledged."""
    return len(status_of(ready)["sync_state_set"])


async def wait_for_all(received: list[bytes], wanted: set[bytes]) -> None:
    """Until all have been received."""
    async with asyncio.timeout(DEADLINE_S):
        while not wanted <= set(received):  # noqa: ASYNC110 — handlers append
            await asyncio.sleep(0.02)
