"""Name server, two controllers, three etcd members, three brokers, as processes: any of them is killed or frozen.

Throughout somebody sends. What was acknowledged is read back in the end, from whoever is master then.
"""

import pathlib
import signal
import time
from collections.abc import Iterator

import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.record import Record

from tests.e2e.broker_set import CONTROLLERS, BrokerSetDeployment, Load
from tests.e2e.controllers import TTL_S
from tests.e2e.process import poll_until
from tests.e2e.wire_client import WireClient, pull_all, send_fields

pytestmark = pytest.mark.verify

FILE_SIZE, BODY_SIZE = 1 << 20, 32 << 10


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerSetDeployment]:
    """One for all tests: each leaves it whole."""
    with BrokerSetDeployment(tmp_path_factory.mktemp("set")) as made:
        made.whole()
        yield made


def test_three_brokers_become_a_set(deployment: BrokerSetDeployment) -> None:
    """Ids from 1, one master of epoch 1, all in the SyncStateSet; the name server knows the master as 0."""
    status = deployment.whole()
    assert sorted(each["broker_id"] for each in status["brokers"]) == [1, 2, 3]
    assert status["sync_state_set"] == [1, 2, 3]
    assert all(each["alive"] for each in status["brokers"])
    with Load(deployment, "Begin") as load:
        load.wait_for_more(100)
    assert load.missing() == set()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_the_master_goes(deployment: BrokerSetDeployment, how: str) -> None:
    """Another member follows in a higher epoch; the old master comes back as a slave. Nothing acknowledged is lost."""
    before = deployment.whole()
    master = deployment.name_of(before["master_id"])
    with Load(deployment, f"Master_{how}") as load:
        if how == "kill":
            deployment.process(master).kill()
        else:
            deployment.process(master).send_signal(signal.SIGSTOP)
        after = deployment.until(
            lambda told: told["master_id"] not in {0, before["master_id"]}, "another broker is master"
        )
        assert after["master_epoch"] > before["master_epoch"]
        assert after["elections"][0]["reason"] == f"master {before['master_id']} was gone"
        load.wait_for_more()
        if how == "kill":
            deployment.start_broker(master)
        else:
            deployment.process(master).send_signal(signal.SIGCONT)
        status = deployment.whole()
        assert status["master_id"] != before["master_id"]
        load.wait_for_more()
    assert load.missing() == set()
    assert not status["possible_loss"]


def test_a_clean_stop_hands_over(deployment: BrokerSetDeployment) -> None:
    """The next master is there at once, and not after a lease."""
    before = deployment.whole()
    master = deployment.name_of(before["master_id"])
    with Load(deployment, "Handover") as load:
        deployment.process(master).stop()
        after = deployment.until(lambda told: told["master_id"] not in {0, before["master_id"]}, "another is master")
        assert before["master_id"] not in after["sync_state_set"]
        assert after["elections"][0]["reason"] == f"master {before['master_id']} stopped in good order"
        load.wait_for_more()
        deployment.start_broker(master)
        deployment.whole()
    assert load.missing() == set()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_slave_goes(deployment: BrokerSetDeployment, how: str) -> None:
    """It leaves the SyncStateSet, sends go on with the others, and it comes back; the master stays."""
    before = deployment.whole()
    slave_id = next(each for each in before["sync_state_set"] if each != before["master_id"])
    slave = deployment.name_of(slave_id)
    with Load(deployment, f"Slave_{how}") as load:
        if how == "kill":
            deployment.process(slave).kill()
        else:
            deployment.process(slave).send_signal(signal.SIGSTOP)
        deployment.until(lambda told: slave_id not in told["sync_state_set"], "the slave left the set")
        load.wait_for_more()
        if how == "kill":
            deployment.start_broker(slave)
        else:
            deployment.process(slave).send_signal(signal.SIGCONT)
        after = deployment.whole()
        assert (after["master_id"], after["master_epoch"]) == (before["master_id"], before["master_epoch"])
    assert load.missing() == set()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_the_active_controller_goes(deployment: BrokerSetDeployment, how: str) -> None:
    """The other one takes over; no broker expires meanwhile, no election is held, and sends do not pause for it."""
    before = deployment.whole()
    controllers = deployment.controllers
    active = controllers.name_of(before["active"])
    with Load(deployment, f"Controller_{how}") as load:
        gone_s = time.monotonic()
        process = controllers.process(active)
        if how == "kill":
            process.kill()
        else:
            process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(3 * TTL_S)  # what would expire has expired
            load.wait_for_more()
        finally:
            if how == "freeze":
                process.send_signal(signal.SIGCONT)
        if how == "kill":
            controllers.start(active, etcd__endpoints=";".join(deployment.etcd.endpoints))
        after = deployment.whole()
        assert after["active"] != before["active"]
        assert (after["master_id"], after["master_epoch"]) == (before["master_id"], before["master_epoch"])
        assert load.longest_pause_s(gone_s) < TTL_S
    assert load.missing() == set()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_the_leader_of_etcd_goes(deployment: BrokerSetDeployment, how: str) -> None:
    """Two members of three are enough: the master stays, sends go on, and the set can change again.

    The frozen leader of an etcd before 3.5.13 that goes on revokes the leases of others (etcd-io/etcd#15247): an
    election may follow, which loses nothing.
    """
    before = deployment.whole()
    leader = deployment.etcd.leader()
    with Load(deployment, f"Etcd_{how}") as load:
        if how == "kill":
            deployment.etcd.kill(leader)
        else:
            deployment.etcd.freeze(leader)
        try:
            time.sleep(3 * TTL_S)
            load.wait_for_more()
            during = deployment.whole()
            assert (during["master_id"], during["master_epoch"]) == (before["master_id"], before["master_epoch"])
        finally:
            if how == "kill":
                deployment.etcd.start(leader)
            else:
                deployment.etcd.thaw(leader)
        deployment.etcd.leader()
        deployment.whole()
        load.wait_for_more()
    assert load.missing() == set()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_the_stand_by_controller_goes(deployment: BrokerSetDeployment, how: str) -> None:
    """Nobody notices: it decides nothing, and the active one keeps every lease as well."""
    before = deployment.whole()
    controllers = deployment.controllers
    stand_by = next(name for name in CONTROLLERS if name != controllers.name_of(before["active"]))
    process = controllers.process(stand_by)
    with Load(deployment, f"Stand_by_{how}") as load:
        gone_s = time.monotonic()
        if how == "kill":
            process.kill()
        else:
            process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(2 * TTL_S)
            load.wait_for_more()
        finally:
            if how == "freeze":
                process.send_signal(signal.SIGCONT)
        if how == "kill":
            controllers.start(stand_by, etcd__endpoints=";".join(deployment.etcd.endpoints))
            controllers.wait_ready(stand_by)
        after = deployment.whole()
        assert load.longest_pause_s(gone_s) < TTL_S
    told = ("active", "master_id", "master_epoch")
    assert [after[each] for each in told] == [before[each] for each in told]
    assert load.missing() == set()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_the_name_server_goes(deployment: BrokerSetDeployment, how: str) -> None:
    """It is nobody's judge: the master stays, and is in the routes again once the name server is back."""
    before = deployment.whole()
    with Load(deployment, f"Namesrv_{how}") as load:
        if how == "kill":
            deployment.process("namesrv").kill()
            deployment.start_namesrv()
        else:
            deployment.process("namesrv").send_signal(signal.SIGSTOP)
        try:
            load.wait_for_more(200)
        finally:
            deployment.process("namesrv").send_signal(signal.SIGCONT)
        after = deployment.whole()
        load.wait_for_more()
    assert (after["master_id"], after["master_epoch"]) == (before["master_id"], before["master_epoch"])
    assert load.missing() == set()


def test_an_operator_moves_the_master(deployment: BrokerSetDeployment) -> None:
    """`apogeemq admin ha elect` over a master that is alive: the one that is named follows, and the status says why."""
    before = deployment.whole()
    chosen = next(each for each in before["sync_state_set"] if each != before["master_id"])
    with Load(deployment, "Operator") as load:
        done = deployment.controllers.admin_ha("elect", "broker-a", "--broker-id", str(chosen))
        assert done.returncode == 0, f"{done.stderr}{deployment.status()}"
        deployment.until(lambda told: told["master_id"] == chosen, "the chosen one is master")
        load.wait_for_more()
        after = deployment.whole()
        newest = after["elections"][0]
        assert (newest["master_id"], newest["previous_id"]) == (chosen, before["master_id"])
        assert newest["reason"] == f"an operator chose broker {chosen}"
        assert all(each["lag"] >= 0 and 0 < each["lease_left_ms"] <= TTL_S * 1000 for each in after["brokers"])
        printed = deployment.controllers.admin_ha("status", "broker-a").stdout
        assert f"an operator chose broker {chosen}" in printed
        unknown = deployment.controllers.admin_ha("status", "no-such-set")
        assert (unknown.returncode, "there is no broker set no-such-set" in unknown.stderr) == (1, True)
    assert load.missing() == set()


def test_all_brokers_are_killed_at_once(deployment: BrokerSetDeployment) -> None:
    """Their page caches stay: whoever of the set comes back first leads in a new epoch, and nothing is lost."""
    before = deployment.whole()
    with Load(deployment, "All") as load:
        load.wait_for_more()
    for name in ("b1", "b2", "b3"):
        deployment.process(name).kill()
    for name in ("b3", "b1", "b2"):
        deployment.start_broker(name)
    after = deployment.whole()
    assert after["master_epoch"] > before["master_epoch"]
    assert load.missing() == set()


def test_etcd_forgets_everything(deployment: BrokerSetDeployment) -> None:
    """All members are there, and remember who they are: the set begins again by itself, and nothing is lost."""
    before = deployment.whole()
    with Load(deployment, "Wiped") as load:
        deployment.etcd.control("del", "--prefix", "/apogeemq/")
        deployment.until(lambda told: told["master_epoch"] > before["master_epoch"], "the set begins again")
        after = deployment.whole()
        load.wait_for_more()
    assert "etcd had forgotten the set" in after["elections"][0]["reason"]
    assert load.missing() == set()


def test_groups_and_offsets_go_on_with_the_next_master(deployment: BrokerSetDeployment) -> None:
    """A group's committed offset is known to whoever follows, as soon as the master has saved it."""
    deployment.whole()
    with Load(deployment, "Offsets") as load:
        load.wait_for_more()
    with WireClient(deployment.routed()) as client:
        client.heartbeat("c", "G_follows", "Offsets")
        fields = {"consumerGroup": "G_follows", "topic": "Offsets", "queueId": "0", "commitOffset": "17"}
        assert client.request(RequestCode.UPDATE_CONSUMER_OFFSET, fields).code == ResponseCode.SUCCESS
    before = deployment.whole()
    deployment.process(deployment.name_of(before["master_id"])).stop()
    deployment.until(lambda told: told["master_id"] not in {0, before["master_id"]}, "another broker is master")
    poll_until(lambda: bool(deployment.routed()), 60.0, lambda: AssertionError("no master in the routes"))
    with WireClient(deployment.routed()) as client:
        asked = {"consumerGroup": "G_follows", "topic": "Offsets", "queueId": "0"}
        reply = client.request(RequestCode.QUERY_CONSUMER_OFFSET, asked)
    assert reply.ext_fields is not None
    assert reply.ext_fields["offset"] == "17"
    deployment.start_broker(deployment.name_of(before["master_id"]))
    deployment.whole()


def test_messages_for_a_time_come_once_from_whoever_is_master_then(deployment: BrokerSetDeployment) -> None:
    """Two masters killed amid deliveries: each message comes, not before its time, and none a second time."""
    count = 900
    due_ms: dict[bytes, int] = {}
    deployment.whole()
    with WireClient(deployment.routed()) as client:
        begin_ms = int(time.time() * 1000) + 3_000
        for number in range(count):
            at_ms = begin_ms + number * 20
            properties = f"TIMER_DELIVER_MS\x01{at_ms}\x02UNIQ_KEY\x01K{number}\x02"
            reply = client.request(RequestCode.SEND_MESSAGE_V2, send_fields("Timed", 0, properties), b"%d" % number)
            assert reply.code == ResponseCode.SUCCESS, reply
            due_ms[b"%d" % number] = at_ms

    def came() -> list[Record]:
        try:
            with WireClient(deployment.routed()) as client:
                return pull_all(client, "Timed", "G_looks", 0)
        except (OSError, AssertionError):  # nobody is master in this moment
            return []

    def kill_master_after(share: float) -> None:
        poll_until(lambda: len(came()) > count * share, 60.0, lambda: AssertionError("they do not come"))
        before, killed = deployment.status(), deployment.master()
        deployment.process(killed).kill()
        deployment.until(lambda told: told["master_epoch"] > before["master_epoch"], "another one is master")
        deployment.start_broker(killed)
        deployment.whole()

    kill_master_after(0.25)
    kill_master_after(0.6)
    poll_until(lambda: len(came()) >= count, 60.0, lambda: AssertionError(f"only {len(came())} of {count} came"))
    time.sleep(2)
    records = came()
    assert sorted(record.body for record in records) == sorted(due_ms)
    assert [record.body for record in records if record.store_timestamp_ms < due_ms[record.body]] == []


def test_no_process_told_of_a_defect(deployment: BrokerSetDeployment, tmp_path: pathlib.Path) -> None:
    """After all that: no traceback in any log."""
    assert "Traceback" not in deployment.logs()
    for name in CONTROLLERS:
        assert "Traceback" not in deployment.controllers.process(name).log


def test_every_broker_of_a_set_lets_old_files_go(tmp_path: pathlib.Path) -> None:
    """The master, its slaves as it does, and whoever was master once: a log of at most 4 MiB does not fill a disk."""
    settings = {
        "store.commit_log_file_size_bytes": str(FILE_SIZE),
        "store.commit_log_size_bytes_max": str(4 * FILE_SIZE),
        "store.clean_resource_interval_ms": "200",
    }
    with BrokerSetDeployment(tmp_path, etcd=1, settings=settings) as deployment:
        for _ in range(2):
            before = deployment.whole()
            begins = {name: deployment.log_files(name)[-1] for name in deployment.remoting}
            with WireClient(deployment.routed()) as client:
                for _ in range(8 * FILE_SIZE // BODY_SIZE):
                    reply = client.request(RequestCode.SEND_MESSAGE_V2, send_fields("Large"), bytes(BODY_SIZE))
                    assert reply.code == ResponseCode.SUCCESS, reply

            def have_let_go(begins: dict[str, str] = begins) -> bool:
                return all(deployment.log_files(name)[0] > begin for name, begin in begins.items())

            poll_until(
                have_let_go,
                60.0,
                lambda: AssertionError({name: deployment.log_files(name) for name in deployment.remoting}),
            )
            master = deployment.name_of(before["master_id"])
            deployment.process(master).kill()
            deployment.start_broker(master)
            over = {0, before["master_id"]}
            deployment.until(lambda told, over=over: told["master_id"] not in over, "another is master")  # type: ignore[misc]
        assert "Traceback" not in deployment.logs()
