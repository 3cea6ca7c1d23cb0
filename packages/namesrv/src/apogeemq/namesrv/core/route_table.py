"""Which broker serves which topic: the tables behind every route answer.

    broker sets    broker name → its members by broker id (id 0 = master)
    member         identity, topic table with its version
    topic counts   topic → how many members announce it (for the list of all topics)
    master epochs  broker name → highest master epoch ever admitted, kept after the broker left

The topics of a broker name are those of its member with the lowest id, as with Apache: the master's, or a slave's while
there is no master. They are looked up in that member's own table rather than kept in a second index: a route is cached
as bytes (route_bodies.py), so a lookup over all broker names happens only after a change, and a broker with fifty
thousand topics can leave without as many index entries being touched.

Queries never change anything. What a registration may do is decided elsewhere (registrar.py); the functions that apply
cannot fail on a decided change, and each tells the listeners which topics' routes may have changed.
There are two views of the routes: `route` and `cluster_info` for Remoting clients, `serving` and `broker_sets` for
services, which also reach brokers that have no Remoting listener.

Source: Apache namesrv RouteInfoManager, 5.3; reference broker_behaviour §12.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from apogeemq.namesrv.core.values import BrokerIdentity, DataVersion, MemberKey, TopicQueues
from apogeemq.remoting_codec.bodies import ClusterInfo
from apogeemq.remoting_codec.route import BrokerData, QueueData, TopicRouteData


class RouteChange(NamedTuple):
    """Topics whose routes may have changed, and whether a broker came, went or moved."""

    topics: Collection[str]
    are_brokers_changed: bool


ChangeListener: TypeAlias = Callable[[RouteChange], None]
"""Is told every change."""


class Member:
    """One registered broker. `topics` belongs to the table: callers read it and never change it."""

    __slots__ = ("data_version", "identity", "topics")

    def __init__(self, identity: BrokerIdentity, data_version: DataVersion, topics: dict[str, TopicQueues]) -> None:
        self.identity = identity
        self.data_version = data_version
        self.topics = topics


class RouteTable:
    """The tables, one instance per name server. Bounds on them are the registrar's."""

    def __init__(self) -> None:
        self._listeners: list[ChangeListener] = []
        self._sets: dict[str, dict[int, Member]] = {}
        self._topic_counts: dict[str, int] = {}
        self._master_epochs: dict[str, int] = {}
        self._member_count = 0

    def add_listener(self, listener: ChangeListener) -> None:
        """Have `listener` called after every change, in the order of the changes."""
        self._listeners.append(listener)

    # Queries

    @property
    def member_count(self) -> int:
        """Brokers registered, masters and slaves."""
        return self._member_count

    @property
    def topic_count(self) -> int:
        """Different topics that registered brokers announce."""
        return len(self._topic_counts)

    def member(self, key: MemberKey) -> Member | None:
        """Return a registered broker, or None."""
        return self._sets.get(key.broker_name, {}).get(key.broker_id)

    def members_named(self, broker_name: str) -> list[Member]:
        """Return the members of a broker set, lowest id first."""
        members = self._sets.get(broker_name, {})
        return [members[broker_id] for broker_id in sorted(members)]

    def master_epoch(self, broker_name: str) -> int:
        """Return the highest master epoch admitted under a broker name; 0 when there was none."""
        return self._master_epochs.get(broker_name, 0)

    def topic_names(self) -> list[str]:
        """Return every topic that some registered broker announces, in no particular order."""
        return list(self._topic_counts)

    def route(self, topic: str) -> TopicRouteData | None:
        """Return a topic's route for Remoting clients, sorted by broker name; None when no such broker serves it.

        Brokers without a Remoting listener are left out: these clients could not connect to them.
        """
        queue_datas: list[QueueData] = []
        broker_datas: list[BrokerData] = []
        for broker_name, members in self._sets_that_serve(topic):
            broker = _broker_data(broker_name, members)
            if broker.broker_addrs:
                queue_datas.append(_queue_data(broker_name, _leading(members).topics[topic]))
                broker_datas.append(broker)
        if not queue_datas:
            return None
        return TopicRouteData(queue_datas=queue_datas, broker_datas=broker_datas)

    def cluster_info(self) -> ClusterInfo:
        """Return all brokers that Remoting clients can reach, by name, and the names in each cluster, sorted."""
        brokers = {}
        clusters: dict[str, list[str]] = {}
        for broker_name in sorted(self._sets):
            members = self._sets[broker_name]
            broker = _broker_data(broker_name, members)
            if broker.broker_addrs:
                brokers[broker_name] = broker
                clusters.setdefault(_leading(members).identity.cluster, []).append(broker_name)
        return ClusterInfo(broker_addr_table=brokers, cluster_addr_table=clusters)

    def serving(self, topic: str) -> list[tuple[TopicQueues, list[BrokerIdentity]]]:
        """Return who serves a topic, by broker name: the queues, and the broker set's members, lowest id first."""
        return [(_leading(members).topics[topic], _identities(members)) for _, members in self._sets_that_serve(topic)]

    def broker_sets(self) -> list[list[BrokerIdentity]]:
        """Return all broker sets, sorted by name, each with its members, lowest id first."""
        return [_identities(self._sets[broker_name]) for broker_name in sorted(self._sets)]

    # Apply

    def raise_master_epoch(self, broker_name: str, epoch: int) -> None:
        """Remember a master epoch if it is the highest of its broker name."""
        if epoch > self.master_epoch(broker_name):
            self._master_epochs.pop(broker_name, None)  # back to the end of the order: it is the newest
            self._master_epochs[broker_name] = epoch

    def forget_master_epochs(self, count_max: int) -> None:
        """Keep at most ``count_max`` epochs: the longest unchanged of broker names without a member go first."""
        surplus = len(self._master_epochs) - count_max
        if surplus > 0:
            gone = [name for name in self._master_epochs if name not in self._sets]
            for name in gone[:surplus]:
                del self._master_epochs[name]

    def put_member(self, identity: BrokerIdentity, data_version: DataVersion, topics: dict[str, TopicQueues]) -> None:
        """Register a broker with its whole topic table, in place of whoever has its name and id now.

        `topics` belongs to the table from here on.
        """
        before = self._leading_topics(identity.broker_name)
        self._take_out(identity.key)
        self._sets.setdefault(identity.broker_name, {})[identity.broker_id] = Member(identity, data_version, topics)
        self._member_count += 1
        self._count_topics(topics)
        self._tell_brokers_changed(identity.broker_name, before)

    def change_topics(
        self, key: MemberKey, data_version: DataVersion, changed: Mapping[str, TopicQueues], removed: Collection[str]
    ) -> None:
        """Change some topics of a registered broker; topics to be removed that it does not have are ignored."""
        member = self._sets[key.broker_name][key.broker_id]
        self._count_topics(topic for topic in changed if topic not in member.topics)
        member.topics.update(changed)
        for topic in removed:
            if member.topics.pop(topic, None) is not None:
                self._uncount_topic(topic)
        member.data_version = data_version
        self._tell(RouteChange([*changed, *removed], are_brokers_changed=False))

    def remove_member(self, key: MemberKey) -> None:
        """Take a broker out of every route, if it is registered."""
        before = self._leading_topics(key.broker_name)
        if self._take_out(key):
            self._tell_brokers_changed(key.broker_name, before)

    def _sets_that_serve(self, topic: str) -> list[tuple[str, dict[int, Member]]]:
        """Return the broker sets in whose leading member's table a topic is, sorted by broker name."""
        return sorted(
            (item for item in self._sets.items() if topic in _leading(item[1]).topics), key=lambda item: item[0]
        )

    def _leading_topics(self, broker_name: str) -> Mapping[str, TopicQueues]:
        members = self._sets.get(broker_name)
        return {} if members is None else _leading(members).topics

    def _tell_brokers_changed(self, broker_name: str, before: Mapping[str, TopicQueues]) -> None:
        """Tell that a broker set is another one now: all its topics have other addresses, `before` and after."""
        self._tell(RouteChange(before.keys() | self._leading_topics(broker_name).keys(), are_brokers_changed=True))

    def _tell(self, change: RouteChange) -> None:
        for listener in self._listeners:
            listener(change)

    def _take_out(self, key: MemberKey) -> bool:
        members = self._sets.get(key.broker_name, {})
        member = members.pop(key.broker_id, None)
        if member is None:
            return False
        if not members:
            del self._sets[key.broker_name]
        self._member_count -= 1
        for topic in member.topics:
            self._uncount_topic(topic)
        return True

    def _count_topics(self, topics: Iterable[str]) -> None:
        counts = self._topic_counts
        for topic in topics:
            counts[topic] = counts.get(topic, 0) + 1

    def _uncount_topic(self, topic: str) -> None:
        count = self._topic_counts[topic] - 1
        if count:
            self._topic_counts[topic] = count
        else:
            del self._topic_counts[topic]


def _leading(members: Mapping[int, Member]) -> Member:
    """Return the member whose topic table counts: the one with the lowest id. A broker set is never empty."""
    return members[min(members)]


def _identities(members: Mapping[int, Member]) -> list[BrokerIdentity]:
    return [members[broker_id].identity for broker_id in sorted(members)]


def _queue_data(broker_name: str, queues: TopicQueues) -> QueueData:
    return QueueData(
        broker_name=broker_name,
        read_queue_nums=queues.read_queue_nums,
        write_queue_nums=queues.write_queue_nums,
        perm=queues.perm,
        topic_sys_flag=queues.topic_sys_flag,
    )


def _broker_data(broker_name: str, members: Mapping[int, Member]) -> BrokerData:
    """Return a broker set as clients see it; its addresses are empty when no member has a Remoting listener."""
    leading = _leading(members).identity
    return BrokerData(
        cluster=leading.cluster,
        broker_name=broker_name,
        broker_addrs={
            broker_id: members[broker_id].identity.remoting_address
            for broker_id in sorted(members)
            if members[broker_id].identity.remoting_address
        },
        zone_name=leading.zone or None,
    )
