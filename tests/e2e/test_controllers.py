"""Controllers as processes, on a real etcd: leadership moves in time, and brokers do not notice.

The brokers are raw clients of the controllers' API (tests/raw_broker.py): what is tried is what a broker can rely on.
"""

import asyncio
import contextlib
import json
import pathlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from apogeemq.mesh.grpc_network import GrpcNetwork

from tests.e2e.controllers import TTL_S, WAIT_S, Controllers
from tests.e2e.etcd_witness import witness
from tests.e2e.http_client import readiness
from tests.e2e.process import poll_until
from tests.etcd_cluster import EtcdCluster
from tests.raw_broker import Join, RawBroker

pytestmark = pytest.mark.verify

CLUSTER = "DefaultCluster"


@pytest.fixture
def etcd() -> Iterator[EtcdCluster]:
    """One member."""
    with EtcdCluster() as cluster:
        yield cluster


@pytest.fixture
def three() -> Iterator[EtcdCluster]:
    """Three members, whose leader dies."""
    with EtcdCluster(3) as cluster:
        yield cluster


@pytest.fixture
def controllers(etcd: EtcdCluster, tmp_path: pathlib.Path) -> Iterator[Controllers]:
    """None of them runs yet; those that a test leaves running are killed."""
    with Controllers(etcd, tmp_path) as made:
        yield made


class TwoStreams:
    """A raw broker with a stream to each controller: it registers by the active one, and beats to both."""

    def __init__(self, controllers: Controllers, code: str) -> None:
        self._controllers = controllers
        self._code = code
        self._network = GrpcNetwork()
        self.streams: dict[str, RawBroker] = {}

    async def open(self, name: str) -> RawBroker:
        """Open the stream to a controller, and wait until it says who is active."""
        stream = RawBroker(self._network, self._controllers.endpoints[name], cluster=CLUSTER, code=self._code)
        await stream.__aenter__()
        self.streams[name] = stream
        return stream

    async def register(self, active: str) -> int:
        """Register there; the other streams beat with the same lease."""
        first = self.streams[active]
        answer = await first.register(address=f"{self._code}:10911")
        assert not answer.HasField("refused"), answer
        for stream in self.streams.values():
            if stream is not first:
                self.beat_like(first, stream)
        return answer.broker_id

    def beat_like(self, first: RawBroker, stream: RawBroker) -> None:
        """Let a stream beat for the lease of another."""
        stream.broker_id, stream.lease_id, stream.epoch = first.broker_id, first.lease_id, first.epoch
        stream.start_beating()

    async def close(self) -> None:
        for stream in self.streams.values():
            await stream.crash()


async def until(is_so: Callable[[], bool], timeout_s: float = WAIT_S) -> float:
    """Wait until it is so; gives the seconds that it took."""
    begun_s = time.monotonic()
    async with asyncio.timeout(timeout_s):
        for _ in iter(int, 1):
            if is_so():
                break
            await asyncio.sleep(0.02)
    return time.monotonic() - begun_s


@contextlib.asynccontextmanager
async def two_brokers(controllers: Controllers) -> AsyncIterator[tuple[list[TwoStreams], str]]:
    """Controllers "one" and "two", and brokers 1 and 2 that are registered; with the name of the active controller."""
    for name in ("one", "two"):
        controllers.start(name)
        controllers.wait_ready(name)
    brokers = [TwoStreams(controllers, code) for code in ("first", "second")]
    try:
        for broker in brokers:
            for name in ("one", "two"):
                await broker.open(name)
        watcher = brokers[0].streams["one"]
        await watcher.until(lambda: watcher.standing.active)
        active = controllers.name_of(watcher.standing.active)
        assert [await broker.register(active) for broker in brokers] == [1, 2]
        yield brokers, active
    finally:
        for broker in brokers:
            await broker.close()


async def test_leadership_moves_and_brokers_do_not_notice(controllers: Controllers) -> None:
    """After kill -9 and after SIGSTOP within TTL + 1 s, to one that knows all; the master stays the same throughout."""
    async with two_brokers(controllers) as (brokers, active):
        standby = "two" if active == "one" else "one"
        master = brokers[0].streams[active]
        await master.elect()
        await master.until(lambda: master.state.master_id == 1)
        assert not (await master.propose({1: 1, 2: 1})).HasField("refused")
        third = RawBroker(GrpcNetwork(), controllers.endpoints[active], cluster=CLUSTER, code="claims")
        async with third:
            assert (await third.register(broker_id=2)).refused.code == 2014

        # Killed: the stand-by is active within TTL + 1 s, and has the brokers' streams already.
        controllers.process(active).kill()
        heard = brokers[0].streams[standby]
        assert await until(lambda: heard.standing.is_active, TTL_S + 5) < TTL_S + 1
        await asyncio.sleep(2 * TTL_S)  # the leases, and the grace of the new active one, would be over by now
        described = await asyncio.to_thread(controllers.status)
        assert described["active"] == controllers.endpoints[standby]
        [broker_set] = described["sets"]
        assert (broker_set["master_id"], broker_set["master_epoch"], broker_set["sync_state_set"]) == (1, 1, [1, 2])
        assert [(each["broker_id"], each["alive"]) for each in broker_set["brokers"]] == [(1, True), (2, True)]
        assert not (await heard.propose({1: 1})).HasField("refused")

        # Frozen: the same, to the one that was started again; what was frozen finds that it is a stand-by.
        controllers.start(active)
        controllers.wait_ready(active)
        for broker in brokers:
            again = await broker.open(active)
            broker.beat_like(broker.streams[standby], again)
        heard = brokers[0].streams[active]
        await heard.until(lambda: heard.state.set_epoch == 3)
        frozen = controllers.process(standby)
        frozen.send_signal(signal.SIGSTOP)
        try:
            assert await until(lambda: heard.standing.is_active, TTL_S + 5) < TTL_S + 1
        finally:
            frozen.send_signal(signal.SIGCONT)
        left = brokers[0].streams[standby]
        await left.until(lambda: left.standing.active == controllers.endpoints[active])
        assert (await left.propose({1: 1, 2: 1})).refused.code == 2007

        # A clean stop of the master hands over, and a clean stop of the active controller is no waiting either.
        answer = await heard.ask(Join(leave=Join.Leave()))
        assert (answer.set_state.master_id, answer.set_state.master_epoch) == (1, 1), "it is the only member"
        begun_s = time.monotonic()
        controllers.process(active).stop()
        assert await until(lambda: left.standing.is_active, TTL_S) < TTL_S
        assert time.monotonic() - begun_s < TTL_S
        assert "Traceback" not in controllers.process(active).log + controllers.process(standby).log


async def test_another_client_of_etcd_finds_what_the_format_promises(
    controllers: Controllers, etcd: EtcdCluster
) -> None:
    """Keys, members of the values and leases, of docs/formats/controller.md, as the etcd3 package reads them."""
    controllers.start("one")
    controllers.wait_ready("one")
    target = controllers.endpoints["one"]
    network = GrpcNetwork()
    async with (
        RawBroker(network, target, cluster=CLUSTER, code="code-1", incarnation=3) as master,
        RawBroker(network, target, cluster=CLUSTER, code="code-2") as slave,
    ):
        await master.until(lambda: master.standing.is_active)
        assert not (await master.register(address="one:10911", boot_id="boot-1", priority=7)).HasField("refused")
        assert not (await slave.register(address="two:10911", boot_id="boot-2")).HasField("refused")
        await master.elect()
        await master.until(lambda: master.state.master_id == 1)
        assert not (await master.propose({1: 3, 2: 1})).HasField("refused")
        root = f"/apogeemq/{CLUSTER}/controller/"
        found = await asyncio.to_thread(witness, etcd.endpoints[0], root)
        state, one = f"{root}sets/broker-a/state", f"{root}sets/broker-a/replicas/0000000001"
        two, live = f"{root}sets/broker-a/replicas/0000000002", f"{root}live/broker-a/000000000"
        values = {each["key"]: each["value"] for each in found["keys"]}
        lease_of = {each["key"]: each["lease"] for each in found["keys"]}
        assert sorted(values) == sorted([f"{root}active", state, one, two, f"{live}1", f"{live}2"])
        assert (values[f"{root}active"], values[f"{live}1"], values[f"{live}2"]) == (target, "", "")
        assert json.loads(values[state]) == {
            "master_id": 1,
            "master_epoch": 1,
            "members": [1, 2],
            "set_epoch": 2,
            "possible_loss": False,
            "loss_epoch": 0,
        }
        promised = {
            "broker_id": 1,
            "check_code": "code-1",
            "address": "one:10911",
            "mesh_address": "one:10911",
            "incarnation": 3,
            "boot_id": "boot-1",
            "last_epoch": 0,
            "priority": 7,
            "is_learner": False,
        }
        assert promised.items() <= json.loads(values[one]).items()
        # Three leases: the controller's, and that of each broker as its registration told it, each with its one key.
        assert {key: lease_of[key] for key in (state, one, two)} == dict.fromkeys((state, one, two), 0)
        assert (lease_of[f"{live}1"], lease_of[f"{live}2"]) == (master.lease_id, slave.lease_id)
        hung = {key: lease for key, lease in lease_of.items() if lease}
        assert found["leases"] == {
            str(lease): {"granted_s": TTL_S, "is_alive": True, "keys": [key]} for key, lease in hung.items()
        }
        assert len(found["leases"]) == 3

        # One that leaves takes its lease with it, by a SyncState that was written before.
        await master.ask(Join(leave=Join.Leave()))
        left = await asyncio.to_thread(witness, etcd.endpoints[0], root)
        values = {each["key"]: each["value"] for each in left["keys"]}
        assert f"{live}1" not in values
        assert json.loads(values[state])["master_id"] == 2
        assert json.loads(values[state])["members"] == [2]
        assert str(master.lease_id) not in left["leases"]


@pytest.mark.parametrize("failure", ["kill", "freeze"])
async def test_the_leader_of_etcd_dies_and_brokers_do_not_notice(
    three: EtcdCluster, tmp_path: pathlib.Path, failure: str
) -> None:
    """Killed or frozen: status goes on all the time, no broker is gone, and decisions are made again soon."""
    with Controllers(three, tmp_path) as controllers:
        async with two_brokers(controllers) as (brokers, active):
            master = brokers[0].streams[active]
            await master.elect()
            await master.until(lambda: master.state.master_id == 1)
            assert not (await master.propose({1: 1, 2: 1})).HasField("refused")

            leader = three.leader()
            getattr(three, failure)(leader)
            begun_s = time.monotonic()
            members = [1, 2]
            while members != [1]:  # until a decision was made; within the time of two campaigns
                assert time.monotonic() - begun_s < 4 * TTL_S + 1
                described = await asyncio.to_thread(controllers.status)
                for broker_set in described["sets"]:
                    members = broker_set["sync_state_set"]
                    assert (broker_set["master_id"], broker_set["master_epoch"]) == (1, 1)
                    assert [each["alive"] for each in broker_set["brokers"]] == [True, True]
                if name := controllers.name_of(described["active"]):
                    speaker = brokers[0].streams[name]
                    await speaker.until(lambda speaker=speaker: speaker.state.set_epoch >= 2)  # type: ignore[misc]
                    await speaker.propose({1: 1})
            described = await asyncio.to_thread(controllers.status)
            assert described["sets"][0]["master_epoch"] == 1
            assert sum(stream.register_again for each in brokers for stream in each.streams.values()) == 0
            if failure == "freeze":
                three.thaw(leader)
            else:
                three.start(leader)
            three.leader()
            for name in ("one", "two"):
                controllers.wait_ready(name)
            assert "Traceback" not in controllers.process("one").log + controllers.process("two").log


async def test_a_set_that_etcd_forgot_is_recovered_by_command(controllers: Controllers, etcd: EtcdCluster) -> None:
    """A member alone is refused, with the command; that flags the epoch, and the broker is told that it is master."""
    controllers.start("one")
    controllers.wait_ready("one")
    network, target = GrpcNetwork(), controllers.endpoints["one"]
    async with (
        RawBroker(network, target, cluster=CLUSTER, code="first") as first,
        RawBroker(network, target, cluster=CLUSTER, code="second") as second,
    ):
        await first.until(lambda: first.standing.is_active)
        await first.register(address="one:10911")
        await second.register(address="two:10911")
        await first.elect()
        await first.until(lambda: first.state.master_id == 1)
        assert not (await first.propose({1: 1, 2: 1})).HasField("refused")
        await second.until(lambda: list(second.state.members) == [1, 2])
        known = second.state
    etcd.control("del", "--prefix", f"/apogeemq/{CLUSTER}/")
    async with RawBroker(network, target, cluster=CLUSTER, code="second", incarnation=2) as again:
        # The key by which the controller is active went too: it has to find that out, and become active again.
        async with asyncio.timeout(WAIT_S):
            for _ in iter(int, 1):
                if (await again.register(broker_id=2, address="two:10911", last_epoch=1, known=known)).broker_id == 2:
                    break
                await asyncio.sleep(0.2)
        refused = (await again.elect(over_epoch=1)).refused
        assert refused.code == 2012
        assert "recover BROKER_NAME --from BROKER_ID" in refused.text
        wrong = await asyncio.to_thread(controllers.command, "recover", "broker-a", "--from", "1")
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert "refused with 2008: broker 1 is not registered, [2] are: start it first" in wrong.stderr
        done = await asyncio.to_thread(controllers.command, "recover", "broker-a", "--from", "2")
        assert (done.returncode, done.stdout) == (0, "done: broker 2 is master of epoch 2, set [2]\n"), done.stderr
        await again.until(lambda: again.state.master_epoch == 2)
        assert (again.state.master_id, list(again.state.members), again.state.loss_epoch) == (2, [2], 2)
        switched = await asyncio.to_thread(controllers.command, "set-learner", "broker-a", "2", "--on")
        assert (switched.returncode, switched.stderr.strip()) == (
            1,
            "apogeemq-controller: refused with 2013: it is master: elect another one first",
        )
        kept = await asyncio.to_thread(controllers.command, "set-learner", "broker-a", "2", "--off")
        assert (kept.returncode, kept.stdout) == (0, "done: broker 2 is master of epoch 2, set [2]\n")
        table = await asyncio.to_thread(controllers.command, "status")
        assert "broker-a: what was acknowledged before epoch 2 MAY BE LOST" in table.stdout


def test_commands_say_what_is_wrong(controllers: Controllers, etcd: EtcdCluster) -> None:
    """Wrong credentials: alive, not ready, and every way of asking tells why; nobody is active, so nobody decides."""
    for words in ("user add root:secret", "user grant-role root root", "auth enable"):
        etcd.control(*words.split())
    controllers.start("one", etcd__user="root", etcd__password="not-the-secret")
    process = controllers.process("one")
    poll_until(
        lambda: "authentication failed" in controllers.status()["etcd_trouble"],
        WAIT_S,
        lambda: process.failure("does not tell of the wrong password"),
    )
    code, checks = readiness(controllers.http["one"])
    assert code == 503
    assert all("authentication failed" in str(each["reason"]) for each in checks.values())
    table = controllers.command("status")
    assert table.stdout.splitlines()[0].startswith("cluster DefaultCluster, active controller none")
    assert "ETCD CANNOT BE USED: etcd refused with" in table.stdout
    refused = controllers.command("elect-master", "--broker-name", "broker-a")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "refused with 2007: another controller is active: none yet" in refused.stderr
    assert "not-the-secret" not in process.log
    process.stop()
