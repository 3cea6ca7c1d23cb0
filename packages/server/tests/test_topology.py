"""Topologies: what a file says, what the short forms stand for, and what is refused with key and reason."""

from pathlib import Path

import msgspec
import pytest
from apogeemq.mesh.errors import ConfigError
from apogeemq.server.topology import Topology, ha_topology, plain_topology, read_topology

DEPLOY = Path(__file__).parents[3] / "deploy"


def read(tmp_path: Path, text: str) -> Topology:
    """Read a file of this text."""
    file = tmp_path / "t.toml"
    file.write_text(text)
    return read_topology(file)


def test_processes_are_told_by_kind_and_name(tmp_path: Path) -> None:
    """Of all kinds, in the order of starting, with their settings as written."""
    topology = read(
        tmp_path,
        """
        cluster_name = "c"
        restart = "always"
        [etcd]
        program = "/opt/etcd"
        members.e = { client_port = 1, peer_port = 2 }
        [namesrv.members.n]
        listeners.remoting.port = 3
        [controller.members.c]
        [broker_sets.a]
        config = "broker.conf"
        settings.flushDiskType = "SYNC_FLUSH"
        [broker_sets.a.members]
        a-1 = {}
        a-2 = { brokerElectionPriority = 1 }
        [proxy.members.p]
        """,
    )
    assert topology.names == ["e", "n", "c", "a-1", "a-2", "p"]
    assert (topology.cluster_name, topology.restart, topology.etcd.program) == ("c", "always", "/opt/etcd")
    assert (topology.etcd.members["e"].client_port, topology.etcd.members["e"].peer_port) == (1, 2)
    assert topology.namesrv.members["n"] == {"listeners": {"remoting": {"port": 3}}}
    brokers = topology.broker_sets["a"]
    assert brokers.settings == {"flushDiskType": "SYNC_FLUSH"}
    assert brokers.members == {"a-1": {}, "a-2": {"brokerElectionPriority": 1}}
    assert brokers.config == str(tmp_path / "broker.conf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("restart = 'sometimes'", r"restart is wrong: Invalid enum value 'sometimes'"),
        ("restrat = 'never'", r"restrat is not known; did you mean restart\?"),
        ("source = 'x'", r"source is not known"),
        ("[brokers]", r"brokers is not known; did you mean broker_sets\?"),
        ("[namesrv.member.n]", r"namesrv\.member is not known; did you mean members\?"),
        ("[etcd.members.e]\nport = 1", r"etcd\.members\.e\.port is not known"),
        ("[etcd.members.e]\nclient_port = 'x'", r"etcd\.members\.e\.client_port is wrong: Expected `int"),
        ("[etcd.members.e]\nclient_port = 70000", r"etcd\.members\.e\.client_port is 70000; allowed is 0 to 65535"),
        ("[broker_sets.a]\nconfig = 1", r"broker_sets\.a\.config is wrong: Expected `str`, got `int`"),
        ("[broker_sets]\na = 1", r"broker_sets\.a is 1; it must be a table"),
        ("[broker_sets.a.members]\nb = 1", r"broker_sets\.a\.members"),
        ("[broker_sets.a]", r"broker_sets\.a\.members names no broker"),
        ("proxy = 1", r"proxy is 1; it must be a table"),
        ("", r"members names no process"),
        ("[proxy.members.'a.b']", r"members\.a\.b must be 1 to 64 of"),
        ("[proxy.members.a]\n[namesrv.members.a]", r"members\.a is the name of two processes"),
        ("[proxy.members.broker]", r"members\.broker is the name of a kind of service"),
        ("= 1", r"t\.toml is no TOML"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(tmp_path: Path, text: str, message: str) -> None:
    """With the reason, and the file."""
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "t.toml") in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    """With the system's reason."""
    with pytest.raises(ConfigError, match=r"/no/such\.toml cannot be read: No such file"):
        read_topology(Path("/no/such.toml"))


def test_the_file_in_deploy_is_what_ha_stands_for() -> None:
    """The same processes; what the file says beyond are defaults, for whoever wants to change them."""
    file, short = read_topology(DEPLOY / "topology-ha.toml"), ha_topology()
    assert file.names == short.names
    assert len(short.names) == 3 + 2 + 2 + 3 + 2
    without = msgspec.structs.replace(file, source="", controller=short.controller, broker_sets=short.broker_sets)
    assert without == short


def test_more_brokers_leave_the_first_one_as_it_was() -> None:
    """Its folder of data is the same, so that its messages are found again."""
    assert plain_topology().names == ["namesrv", "broker", "proxy"]
    assert plain_topology(brokers=3).names == ["namesrv", "broker", "broker-b", "broker-c", "proxy"]
    assert list(plain_topology(brokers=28).broker_sets)[-3:] == ["broker-z", "broker-27", "broker-28"]
    assert ha_topology(brokers=2).names[7:13] == [f"broker-{one}-{n}" for one in "ab" for n in (1, 2, 3)]
