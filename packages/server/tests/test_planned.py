"""What each process of a topology runs with: settings, ports, addresses of the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from apogeemq.mesh.config import ListenerConfig, Loaded
from apogeemq.mesh.errors import ConfigError
from apogeemq.server.planned import Plan, plan, replaced_ports, settings_of_topology
from apogeemq.server.topology import Topology, ha_topology, plain_topology, read_topology

DATA = Path("/srv/mq")


def planned(
    topology: Topology,
    *,
    free_ports: bool = False,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Plan:
    """Plan with what a test needs; `flags` are as after --set."""
    settings = settings_of_topology(flags or {}, topology)
    return plan(topology, data=DATA, free_ports=free_ports, environ=environ or {}, settings=settings)


def read(tmp_path: Path, text: str) -> Topology:
    """A topology of this text."""
    file = tmp_path / "t.toml"
    file.write_text(text)
    return read_topology(file)


def loaded(made: Plan, name: str) -> Loaded[Any]:
    """The settings of one process."""
    return next(each.loaded for each in made.services if each.name == name)


def values(made: Plan, name: str) -> dict[str, str]:
    """The settings of one process as text, by key."""
    return dict(line.rsplit("  (", 1)[0].split(" = ", 1) for line in loaded(made, name).describe())


def test_services_of_a_kind_take_ports_100_apart() -> None:
    """The first its own (architecture §3), on loopback; brokers are counted over all sets."""
    made = planned(ha_topology(brokers=2))
    assert values(made, "namesrv-1")["listeners.remoting.port"] == "9876"
    assert values(made, "namesrv-2")["listeners.mesh.port"] == "9977"
    assert values(made, "controller-2")["listeners.mesh.port"] == "9970"
    assert values(made, "broker-a-1")["listeners.remoting.port"] == "10911"
    assert values(made, "broker-b-1")["listeners.remoting.port"] == "11211"
    assert values(made, "proxy-2")["listeners.grpc.port"] == "8181"
    assert [(each.client_port, each.peer_port) for each in made.etcd] == [(2379, 2380), (2479, 2480), (2579, 2580)]
    assert {values(made, each.name)["listeners.http.host"] for each in made.services} == {"127.0.0.1"}


def test_free_ports_are_left_to_the_system() -> None:
    """But for those that a setting gives."""
    made = planned(ha_topology(), free_ports=True, flags={"broker-a-2.listenPort": "7"})
    assert values(made, "broker-a-1")["listeners.remoting.port"] == "0"
    assert values(made, "broker-a-2")["listeners.remoting.port"] == "7"
    assert [(each.client_port, each.peer_port) for each in made.etcd] == [(0, 0)] * 3


def test_each_source_goes_over_the_one_before(tmp_path: Path) -> None:
    """The group's file, its settings, the process's own, the environment, --set; whatever name a source has for it."""
    (tmp_path / "broker.conf").write_text("brokerClusterName=c\ndefaultTopicQueueNums=1\nlistenPort=1\n")
    topology = read(
        tmp_path,
        """
        cluster_name = "c"
        [broker_sets.a]
        config = "broker.conf"
        settings = { topics = { default_topic_queue_nums = 2 }, flushDiskType = "SYNC_FLUSH", pop.revive_queue_num = 2 }
        members.one = { defaultTopicQueueNums = 3, pop = { revive_queue_num = 3 } }
        """,
    )
    environ = {"APOGEEMQ_BROKER_POP_REVIVE_QUEUE_NUM": "4"}
    made = planned(topology, environ=environ, flags={"broker.flushDiskType": "ASYNC_FLUSH", "one.listenPort": "5"})
    told = values(made, "one")
    assert told["topics.default_topic_queue_nums"] == "3"
    assert told["pop.revive_queue_num"] == "4"
    assert told["store.flush_disk_type"] == "ASYNC_FLUSH"
    assert told["listeners.remoting.port"] == "5"
    assert (told["identity.broker_name"], told["store.path"]) == ("a", "/srv/mq/one")
    origin = loaded(made, "one").origins["topics.default_topic_queue_nums"]
    assert origin == f"file {tmp_path / 't.toml'}, key broker_sets.a.members.one.defaultTopicQueueNums"


def test_brokers_belong_to_sets_where_there_are_controllers() -> None:
    """Without controllers each is a master by itself."""
    made = planned(ha_topology())
    assert values(made, "broker-a-3")["replication.enabled"] == "true"
    assert values(made, "broker-a-3")["identity.broker_name"] == "broker-a"
    assert values(planned(plain_topology()), "broker")["replication.enabled"] == "false"


def test_addresses_are_given_where_the_topology_has_who_has_them(tmp_path: Path) -> None:
    """By key and kind; a name server elsewhere is said by a setting, as for a broker alone."""
    made = planned(ha_topology())
    given = {each.name: made.given(each) for each in made.services}
    assert given["namesrv-1"] == {}
    assert given["controller-1"] == {"etcd.endpoints": "etcd"}
    assert given["broker-a-1"] == {"identity.namesrv_addr": "namesrv", "replication.controllers": "controller"}
    assert given["proxy-1"] == {"identity.namesrv_addr": "namesrv"}
    alone = planned(read(tmp_path, "[broker_sets.a]\nsettings.namesrvAddr = 'elsewhere:9877'\nmembers.one = {}"))
    assert alone.given(alone.services[0]) == {}
    assert alone.without_effect() == []


def test_roles_in_a_set_need_no_controllers(tmp_path: Path) -> None:
    """Brokers of one name with ids of their own: a master and its slave."""
    made = planned(
        read(
            tmp_path,
            "[namesrv.members.n]\n[broker_sets.a.members]\nm.brokerRole = 'SYNC_MASTER'\n"
            "s = {brokerRole = 'SLAVE', brokerId = 1}",
        )
    )
    identities = [each.loaded.value.identity for each in made.of_kind("broker")]
    assert [(each.broker_name, each.broker_id, each.broker_role.value) for each in identities] == [
        ("a", 0, "SYNC_MASTER"),
        ("a", 1, "SLAVE"),
    ]
    assert not any(each.loaded.value.replication.enabled for each in made.of_kind("broker"))


def test_what_has_no_effect_is_told_with_the_process() -> None:
    """An address that the topology gives itself, and Apache's properties without a meaning."""
    made = planned(plain_topology(), environ={"NAMESRV_ADDR": "mq:9877"}, flags={"proxy.proxyMode": "CLUSTER"})
    assert made.without_effect() == [
        "broker: identity.namesrv_addr (environment NAMESRV_ADDR)",
        "proxy: identity.namesrv_addr (environment NAMESRV_ADDR)",
        "proxy: identity.proxy_mode (flag --set proxyMode)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[broker_sets.a.members.b]\nno_such = 1",
            r"b: no_such is not known \[file .*, key broker_sets\.a\.members\.b\.",
        ),
        ("[namesrv.members.n]\nlistenPort = 'x'", r"n: listenPort \(listeners\.remoting\.port\) is 'x'; allowed is"),
        (
            "[broker_sets.a.members]\nb = {}\nc = {}",
            r"broker_sets\.a has several brokers of one id, and no controllers",
        ),
        ("[broker_sets.a]\nconfig = 'none.conf'\nmembers.b = {}", r"b: .*none\.conf cannot be read"),
        (
            "[proxy.members]\np = { listeners.grpc.port = 8080 }",
            r"p: listeners\.grpc\.port is 8080, which p: listeners\.remoting has on 127\.0\.0\.1 as well",
        ),
        (
            "[controller.members.c]\n[broker_sets.a.members]\nb = { brokerClusterName = 'other' }",
            r"b: identity\.cluster_name is 'other', but the controllers' is 'DefaultCluster'",
        ),
        (
            "[controller.members.c]\n[broker_sets.a.members]\nb = { brokerName = 'other' }\nd = {}",
            r"b: identity\.broker_name is 'other', but it is a member of broker_sets\.a",
        ),
        (
            "[namesrv.members.n]\nlisteners.mesh.enabled = false\n[proxy.members.p]",
            r"n: listeners\.mesh\.enabled is false, but the broker registers there",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_process_and_key(tmp_path: Path, text: str, message: str) -> None:
    """Before anything runs."""
    with pytest.raises(ConfigError, match=message):
        planned(read(tmp_path, text))


@pytest.mark.parametrize("key", ["flushDiskType", "brokr.x", "etcd-1.client_port"])
def test_a_setting_of_nobody_is_refused(key: str) -> None:
    """Its prefix is a kind of service, or the name of one of the processes that have settings."""
    with pytest.raises(
        ConfigError, match=r"does not begin with a service \(namesrv\., controller\., broker\., proxy\.\)"
    ):
        settings_of_topology({key: "1"}, ha_topology())


def test_free_ports_are_taken_again() -> None:
    """By a process that is started anew; not where another port is advertised, or one was given."""
    listeners = (
        planned(
            plain_topology(),
            free_ports=True,
            flags={"broker.listenPort": "7", "broker.listeners.mesh.advertised_port": "8"},
        )
        .of_kind("broker")[0]
        .loaded.value.listeners
    )
    assert isinstance(listeners.http, ListenerConfig)
    bound = {"remoting": "127.0.0.1:7", "mesh": "127.0.0.1:8", "http": "[::1]:41234"}
    assert replaced_ports(listeners, bound) == {"LISTENERS_HTTP_PORT": "41234"}
    assert replaced_ports(listeners, {}) == {}
