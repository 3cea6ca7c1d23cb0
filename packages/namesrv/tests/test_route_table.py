"""The route table, by example and against a dumb twin."""

from collections.abc import Collection
from dataclasses import replace
from typing import TypeAlias

from apogeemq.namesrv.core.route_table import RouteTable
from apogeemq.namesrv.core.values import BrokerIdentity, DataVersion, MemberKey, TopicQueues
from hypothesis import given
from hypothesis import strategies as st

VERSION = DataVersion(0, 0, 1)
MASTER = BrokerIdentity("DefaultCluster", "broker-a", 0, 100, "10.0.0.1:10911", "10.0.0.1:10921")
SLAVE = replace(MASTER, broker_id=1, remoting_address="10.0.0.2:10911")
OTHER = replace(MASTER, broker_name="broker-b", remoting_address="10.0.1.1:10911")
QUEUES = TopicQueues(4, 4, 6, 0)


def table_of(*members: tuple[BrokerIdentity, Collection[str]]) -> RouteTable:
    table = RouteTable()
    for identity, topics in members:
        table.put_member(identity, VERSION, dict.fromkeys(topics, QUEUES))
    return table


def test_a_route_is_sorted_by_broker_name() -> None:
    """Clients number the queues in the order given, so all must see the same."""
    table = table_of((OTHER, ["TopicA"]), (MASTER, ["TopicA"]))
    route = table.route("TopicA")
    assert route is not None
    assert [queues.broker_name for queues in route.queue_datas] == ["broker-a", "broker-b"]
    assert [broker.broker_name for broker in route.broker_datas] == ["broker-a", "broker-b"]


def test_a_route_has_what_the_broker_announced() -> None:
    """Queue numbers, permission and flags are the broker's own, and so is its zone."""
    table = RouteTable()
    table.put_member(replace(MASTER, zone="zone-1"), VERSION, {"TopicA": TopicQueues(8, 2, 4, 1)})
    route = table.route("TopicA")
    assert route is not None
    (queues,) = route.queue_datas
    assert (queues.read_queue_nums, queues.write_queue_nums, queues.perm, queues.topic_sys_flag) == (8, 2, 4, 1)
    (broker,) = route.broker_datas
    assert (broker.cluster, broker.zone_name, broker.enable_acting_master) == ("DefaultCluster", "zone-1", False)


def test_a_route_has_only_the_brokers_that_serve_the_topic() -> None:
    """A broker without the topic is not in it."""
    route = table_of((MASTER, ["TopicA"]), (OTHER, ["TopicB"])).route("TopicA")
    assert route is not None
    assert [broker.broker_name for broker in route.broker_datas] == ["broker-a"]


def test_the_topics_of_a_name_are_those_of_its_lowest_id() -> None:
    """A slave that lags behind neither hides a new topic nor shows a deleted one."""
    table = table_of((SLAVE, ["deleted"]), (MASTER, ["new"]))
    assert table.route("deleted") is None
    route = table.route("new")
    assert route is not None
    assert route.broker_datas[0].broker_addrs == {0: "10.0.0.1:10911", 1: "10.0.0.2:10911"}


def test_a_broker_without_a_remoting_listener_is_left_out() -> None:
    """Remoting clients could not connect to it; its topics are still listed."""
    table = table_of((replace(MASTER, remoting_address=""), ["TopicA"]))
    assert table.route("TopicA") is None
    assert table.cluster_info().broker_addr_table == {}
    assert table.topic_names() == ["TopicA"]


def test_cluster_info_lists_all_brokers() -> None:
    """Every broker name with its addresses, and the sorted names of each cluster."""
    table = table_of((OTHER, []), (MASTER, []), (SLAVE, []), (replace(OTHER, cluster="C2", broker_name="c"), []))
    info = table.cluster_info()
    assert {name: data.broker_addrs for name, data in info.broker_addr_table.items()} == {
        "broker-a": {0: "10.0.0.1:10911", 1: "10.0.0.2:10911"},
        "broker-b": {0: "10.0.1.1:10911"},
        "c": {0: "10.0.1.1:10911"},
    }
    assert info.cluster_addr_table == {"DefaultCluster": ["broker-a", "broker-b"], "C2": ["c"]}


def test_listeners_are_told_what_changed() -> None:
    """A change of topics names them; a broker that comes or goes changes the routes of all its topics."""
    told: list[tuple[set[str], bool]] = []
    table = RouteTable()
    table.add_listener(lambda change: told.append((set(change.topics), change.are_brokers_changed)))
    table.put_member(MASTER, VERSION, {"TopicA": QUEUES})
    table.change_topics(MASTER.key, VERSION, {"TopicB": QUEUES}, ["TopicA"])
    table.put_member(MASTER, VERSION, {"TopicC": QUEUES})
    table.remove_member(MASTER.key)
    table.remove_member(MASTER.key)
    assert told == [
        ({"TopicA"}, True),
        ({"TopicA", "TopicB"}, False),
        ({"TopicB", "TopicC"}, True),
        ({"TopicC"}, True),
    ]


def test_a_slave_that_comes_or_goes_changes_its_masters_topics() -> None:
    """Their routes have another address; the slave's own table is looked at by nobody while the master is there."""
    told: list[set[str]] = []
    table = table_of((MASTER, ["TopicA"]))
    table.add_listener(lambda change: told.append(set(change.topics)))
    table.put_member(SLAVE, VERSION, {"TopicOld": QUEUES})
    table.remove_member(MASTER.key)
    table.remove_member(SLAVE.key)
    assert told == [{"TopicA"}, {"TopicA", "TopicOld"}, {"TopicOld"}]


def test_services_see_brokers_without_a_remoting_listener() -> None:
    """They reach them over the mesh; members come lowest id first, broker sets by name."""
    mesh_only = replace(OTHER, remoting_address="")
    table = table_of((mesh_only, ["TopicA"]), (SLAVE, ["TopicA"]), (MASTER, ["TopicA", "TopicB"]))
    assert table.serving("TopicA") == [(QUEUES, [MASTER, SLAVE]), (QUEUES, [mesh_only])]
    assert table.serving("TopicB") == [(QUEUES, [MASTER, SLAVE])]
    assert table.serving("TopicC") == []
    assert table.broker_sets() == [[MASTER, SLAVE], [mesh_only]]


def test_master_epochs_only_rise() -> None:
    """A lower one is not remembered."""
    table = RouteTable()
    table.raise_master_epoch("broker-a", 5)
    table.raise_master_epoch("broker-a", 4)
    assert table.master_epoch("broker-a") == 5
    assert table.master_epoch("broker-b") == 0


def test_remembered_epochs_are_bounded() -> None:
    """The longest unchanged go first, and never that of a broker name that is registered."""
    table = table_of((MASTER, []))
    for name, epoch in (("broker-a", 1), ("gone-1", 1), ("gone-2", 1), ("gone-1", 2)):
        table.raise_master_epoch(name, epoch)
    table.forget_master_epochs(2)
    assert [table.master_epoch(name) for name in ("broker-a", "gone-1", "gone-2")] == [1, 2, 0]


TOPICS = st.sampled_from(["A", "B", "C"])
KEYS = st.builds(MemberKey, st.sampled_from(["x", "y"]), st.integers(0, 2))
Operation: TypeAlias = tuple[str, MemberKey, frozenset[str], frozenset[str]]
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.tuples(st.just("put"), KEYS, st.frozensets(TOPICS), st.just(frozenset())),
    st.tuples(st.just("change"), KEYS, st.frozensets(TOPICS), st.frozensets(TOPICS)),
    st.tuples(st.just("remove"), KEYS, st.just(frozenset()), st.just(frozenset())),
)


@given(st.lists(OPERATIONS, max_size=30))
def test_the_table_agrees_with_a_dumb_twin(operations: list[Operation]) -> None:
    """After any operations, routes, topics and counts are those of a plain map from broker to its topics."""
    table = RouteTable()
    twin: dict[MemberKey, set[str]] = {}
    for operation, key, changed, removed in operations:
        topics = dict.fromkeys(changed, QUEUES)
        if operation == "put":
            identity = replace(MASTER, broker_name=key.broker_name, broker_id=key.broker_id)
            table.put_member(identity, VERSION, topics)
            twin[key] = set(changed)
        elif operation == "remove":
            table.remove_member(key)
            twin.pop(key, None)
        elif key in twin:
            table.change_topics(key, VERSION, topics, removed)
            twin[key] = (twin[key] | changed) - removed
    assert table.member_count == len(twin)
    assert sorted(table.topic_names()) == sorted(set().union(*twin.values()))
    assert table.topic_count == len(table.topic_names())
    for topic in "ABC":
        assert broker_names(table, topic) == names_by_twin(twin, topic)


def broker_names(table: RouteTable, topic: str) -> list[str]:
    route = table.route(topic)
    return [] if route is None else [queues.broker_name for queues in route.queue_datas]


def names_by_twin(twin: dict[MemberKey, set[str]], topic: str) -> list[str]:
    """A broker name serves a topic when its member with the lowest id has it."""
    lowest = {name: min(key for key in twin if key.broker_name == name) for name in {key.broker_name for key in twin}}
    return sorted(name for name, key in lowest.items() if topic in twin[key])
