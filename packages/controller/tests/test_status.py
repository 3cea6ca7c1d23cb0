"""What `apogeemq-controller status` and its sisters print, and where they ask."""

import json
from typing import Any

import pytest
from apogeemq.controller.commands import Controllers, command_main, describe
from apogeemq.controller.status import render
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.network import CallContext, UnaryHandler
from apogeemq.mesh.v1 import controller_pb2 as pb
from apogeemq.mesh.v1.methods import DESCRIBE_SETS

Replica = pb.SetState.Replica
Seen = pb.DescribeSetsReply.Seen


def reply(**state: Any) -> pb.DescribeSetsReply:
    """A set of a master, a slave that fell out of the SyncStateSet, and a learner."""
    replicas = [
        Replica(broker_id=1, address="10.0.0.1:10911", mesh_address="10.0.0.1:10921", incarnation=4),
        Replica(broker_id=2, address="10.0.0.2:10911", mesh_address="10.0.0.2:10921", incarnation=1),
        Replica(broker_id=3, address="10.0.0.3:10911", mesh_address="10.0.0.3:10921", incarnation=1, is_learner=True),
    ]
    known = {"master_id": 1, "master_epoch": 5, "members": [1], "set_epoch": 9, "replicas": replicas, **state}
    brokers = [
        Seen(broker_id=1, is_alive=True, is_connected=True, epoch=5, end_offset=1234, lease_left_ms=2500, lag=0),
        Seen(broker_id=2, epoch=5, end_offset=99, lag=1135),
        Seen(broker_id=3, is_alive=True),
    ]
    broker_set = pb.DescribeSetsReply.BrokerSet(broker_name="broker-a", set_state=pb.SetState(**known), brokers=brokers)
    return pb.DescribeSetsReply(cluster="c", controller="10.0.0.9:9870", active="10.0.0.8:9870", sets=[broker_set])


def test_a_table_has_a_line_for_each_broker() -> None:
    """Columns are aligned, the role is by the state of the set."""
    assert render(reply(), "table").splitlines() == [
        "cluster c, active controller 10.0.0.8:9870, seen by 10.0.0.9:9870",
        "",
        "BROKER SET  EPOCH  SET EPOCH  ID  ROLE     IN SET  ALIVE  STREAM  LEASE  END OFFSET  LAG   ADDRESS",
        "broker-a    5      9          1   master   yes     yes    yes     2.5 s  1234        0     10.0.0.1:10911",
        "broker-a    5      9          2   slave    no      no     no      -      99          1135  10.0.0.2:10911",
        "broker-a    5      9          3   learner  no      yes    no      -      0           -     10.0.0.3:10911",
    ]


def test_the_last_elections_stand_at_the_end() -> None:
    """Each with its age in a unit that people read, and the reason."""
    told = reply()
    for epoch, master, previous, age_ms in ((5, 1, 2, 7_200_000), (4, 2, 2, 119_999), (3, 2, 0, 400_000_000)):
        election = pb.DescribeSetsReply.Election(
            master_epoch=epoch, master_id=master, previous_id=previous, members=[1], reason="why", age_ms=age_ms
        )
        told.sets[0].elections.append(election)
    assert render(told, "table").splitlines()[-5:] == [
        "",
        "Last elections that this controller saw:",
        "  broker-a: epoch 5, broker 1 instead of 2, set [1], 2 h ago: why",
        "  broker-a: epoch 4, broker 2, set [1], 119 s ago: why",
        "  broker-a: epoch 3, broker 2, set [1], 4 d ago: why",
    ]
    [first, *_] = json.loads(render(told, "json"))["sets"][0]["elections"]
    assert first == {
        "master_epoch": 5,
        "master_id": 1,
        "previous_id": 2,
        "sync_state_set": [1],
        "reason": "why",
        "age_ms": 7_200_000,
    }


def test_what_is_wrong_stands_below_the_table() -> None:
    """No master, a possible loss, a set that nothing can be decided about, an etcd that does not answer."""
    told = reply(master_id=0, possible_loss=True, loss_epoch=3)
    told.etcd_trouble = "no member answered"
    told.sets[0].trouble = "a key is broken"
    told.active = ""
    lines = render(told, "table").splitlines()
    assert lines[:2] == [
        "cluster c, active controller none, seen by 10.0.0.9:9870",
        "ETCD CANNOT BE USED: no member answered",
    ]
    assert lines[-4:] == [
        "broker-a: NOTHING CAN BE DECIDED: a key is broken",
        "broker-a: has NO MASTER",
        "broker-a: its only member MAY LACK what it acknowledged",
        "broker-a: what was acknowledged before epoch 3 MAY BE LOST",
    ]


def test_json_has_all_of_it_for_programs() -> None:
    """Booleans and numbers stay what they are."""
    made = json.loads(render(reply(), "json"))
    assert (made["cluster"], made["active"], made["etcd_trouble"]) == ("c", "10.0.0.8:9870", "")
    [broker_set] = made["sets"]
    assert (broker_set["master_id"], broker_set["sync_state_set"], broker_set["possible_loss"]) == (1, [1], False)
    assert broker_set["brokers"][0] == {
        "broker_id": 1,
        "role": "master",
        "in_sync_state_set": True,
        "alive": True,
        "connected": True,
        "epoch": 5,
        "end_offset": 1234,
        "lag": 0,
        "lease_left_ms": 2500,
        "address": "10.0.0.1:10911",
        "mesh_address": "10.0.0.1:10921",
        "incarnation": 4,
    }


@pytest.mark.parametrize(
    "words",
    [
        ["clean-broker", "--broker-name", "a"],
        ["clean-broker", "--broker-name", "a", "--broker-id", "0"],
        ["elect-master"],
        ["recover", "a"],
        ["set-learner", "a", "1"],
        ["set-learner", "a", "1", "--on", "--off"],
        ["recover", "a", "--from", "0"],
        ["recover", "--from", "1"],
        ["status", "-o", "xml"],
    ],
)
def test_wrong_arguments_end_with_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A whole set is never cleaned up by leaving something out."""
    with pytest.raises(SystemExit) as ended:
        command_main(words)
    assert ended.value.code == 2
    assert "usage: apogeemq-controller" in capsys.readouterr().err


def test_nobody_who_answers_ends_with_code_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All that were named are tried, and named again in the error."""
    targets = ["127.0.0.1:1", "127.0.0.1:2"]
    assert command_main(["status", "--controller", ";".join(targets)]) == 1
    error = capsys.readouterr().err
    assert all(target in error for target in targets)


@pytest.mark.parametrize(
    ("actives", "believed"),
    [
        ({"one": "", "two": "two:1"}, "two:1"),
        ({"one": "gone:1", "two": "two:1"}, "two:1"),
        ({"one": "two:1", "two": "", "three": "three:1"}, "three:1"),
        ({"one": "two:1", "two": "one:1"}, "one:1"),
        ({"one": "", "two": "gone:1"}, "one:1"),
    ],
)
async def test_who_says_that_it_is_active_is_believed(
    actives: dict[str, str], believed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is cut off names nobody, or who was active before; a stand-by's view is given as such."""
    network = MemoryNetwork(ManualClock(), SeededChance(1))

    async def serve(name: str, active: str) -> None:
        async def answer(request: pb.DescribeSetsRequest, context: CallContext) -> pb.DescribeSetsReply:
            return pb.DescribeSetsReply(controller=f"{name}:1", active=active)

        await network.serve(name, 1, [UnaryHandler(DESCRIBE_SETS, answer)])

    for name, active in actives.items():
        await serve(name, active)
    controllers = Controllers([f"{name}:1" for name in actives], network, None)
    found = await describe(
        controllers, lambda channel: channel.unary(DESCRIBE_SETS, pb.DescribeSetsRequest(), timeout_s=1)
    )
    assert found.controller == believed
    assert ("stand-by's view" in capsys.readouterr().err) == (found.active != believed)
