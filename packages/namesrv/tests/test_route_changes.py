"""What a watcher is told, by example and against a dumb twin."""

from dataclasses import replace
from typing import TypeAlias

import pytest
from apogeemq.namesrv.core.route_changes import CHUNK_TOPICS_MAX, RouteChanges, Tidings
from apogeemq.namesrv.core.route_table import RouteChange, RouteTable
from apogeemq.namesrv.core.values import BrokerIdentity, DataVersion, MemberKey, TopicQueues
from hypothesis import given
from hypothesis import strategies as st

INSTANCE = 77


def changes_of(*steps: list[str], history_topics_max: int = 10_000) -> RouteChanges:
    changes = RouteChanges(INSTANCE, history_topics_max=history_topics_max)
    for topics in steps:
        changes.record(RouteChange(topics, are_brokers_changed=False))
    return changes


def test_a_watcher_is_told_what_changed_since() -> None:
    """Topics behind the revision that it saw, earliest first, each once."""
    changes = changes_of(["A", "B"], ["C"], ["A"])
    assert changes.since(INSTANCE, 1) == [Tidings(3, False, ["C", "A"])]
    assert changes.since(INSTANCE, 0) == [Tidings(3, False, ["B", "C", "A"])]


def test_a_watcher_that_missed_nothing_hears_the_revision() -> None:
    """It is sent all the same: the watcher then knows that the name server lives."""
    assert changes_of(["A"]).since(INSTANCE, 1) == [Tidings(1, False, [])]


@pytest.mark.parametrize(("instance", "revision"), [(0, 0), (78, 1), (INSTANCE, 3)])
def test_a_stranger_begins_anew(instance: int, revision: int) -> None:
    """Nothing seen yet, another process's revisions, or a revision that has not been."""
    assert changes_of(["A"], ["B"]).since(instance, revision) == [Tidings(2, True, [])]


def test_what_is_too_long_ago_is_a_reset() -> None:
    """With room for two topics, the first of three changes is forgotten: who saw it may go on, who did not may not."""
    changes = changes_of(["A"], ["B"], ["C"], history_topics_max=2)
    assert changes.since(INSTANCE, 0) == [Tidings(3, True, [])]
    assert changes.since(INSTANCE, 1) == [Tidings(3, False, ["B", "C"])]


def test_a_change_beyond_the_history_forgets_everything() -> None:
    """A broker with more topics than are remembered."""
    changes = changes_of(["A"], ["B", "C", "D"], history_topics_max=2)
    assert changes.since(INSTANCE, 1) == [Tidings(2, True, [])]
    assert changes.since(INSTANCE, 2) == [Tidings(2, False, [])]


def test_many_topics_come_in_chunks() -> None:
    """At most 500 names a message; until all of a revision are told, a watcher stands before it."""
    names = [f"T{number}" for number in range(1_100)]
    tidings = changes_of(["X"], names).since(INSTANCE, 0)
    assert [len(message.topics) for message in tidings] == [500, 500, 101]
    assert [message.revision for message in tidings] == [1, 1, 2]
    assert [topic for message in tidings for topic in message.topics] == ["X", *names]


QUEUES = st.integers(1, 3).map(lambda count: TopicQueues(count, count, 6, 0))
TOPICS = st.dictionaries(st.sampled_from("ABCDEF"), QUEUES, max_size=6)
KEYS = st.builds(MemberKey, st.sampled_from(["x", "y"]), st.integers(0, 1))
Step: TypeAlias = tuple[str, MemberKey | int, dict[str, TopicQueues], frozenset[str]]
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("put"), KEYS, TOPICS, st.frozensets(st.sampled_from("ABCDEF"))),
    st.tuples(st.just("change"), KEYS, TOPICS, st.frozensets(st.sampled_from("ABCDEF"))),
    st.tuples(st.just("remove"), KEYS, st.just({}), st.just(frozenset())),
    st.tuples(st.just("hear"), st.integers(0, 3), st.just({}), st.just(frozenset())),
)


class Watcher:
    """Keeps the routes of all topics, asks again for what it is told, and may lose its stream after any message."""

    def __init__(self, table: RouteTable, changes: RouteChanges) -> None:
        self.table, self.changes = table, changes
        self.instance, self.revision = 0, 0
        self.kept: dict[str, list[object]] = {}

    def hear(self, messages_max: int) -> None:
        for number, message in enumerate(self.changes.since(self.instance, self.revision)):
            if number == messages_max:
                return
            assert len(message.topics) <= CHUNK_TOPICS_MAX
            for topic in "ABCDEF" if message.is_reset else message.topics:
                self.kept[topic] = list(self.table.serving(topic))
            self.instance, self.revision = self.changes.instance, message.revision


@given(st.lists(STEPS, max_size=40), st.sampled_from([1, 3, 100]), st.sampled_from([1, 2, 500]))
def test_a_watcher_that_comes_back_ends_with_the_tables_routes(steps: list[Step], history: int, chunk: int) -> None:
    """Whatever changes, and wherever its streams break: once it has heard everything it keeps what the table says."""
    table = RouteTable()
    changes = RouteChanges(INSTANCE, history_topics_max=history)
    table.add_listener(changes.record)
    watcher = Watcher(table, changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("apogeemq.namesrv.core.route_changes.CHUNK_TOPICS_MAX", chunk)
        for step, key, topics, removed in steps:
            if isinstance(key, int):
                watcher.hear(key)
            elif step == "put":
                identity = replace(MASTER, broker_name=key.broker_name, broker_id=key.broker_id)
                table.put_member(identity, VERSION, dict(topics))
            elif step == "remove":
                table.remove_member(key)
            elif table.member(key) is not None:
                table.change_topics(key, VERSION, topics, removed)
        watcher.hear(1_000)
    assert watcher.revision == changes.revision
    assert {topic: watcher.kept.get(topic, []) for topic in "ABCDEF"} == {
        topic: table.serving(topic) for topic in "ABCDEF"
    }


MASTER = BrokerIdentity("C", "x", 0, 1, "10.0.0.1:10911", "10.0.0.1:10921")
VERSION = DataVersion(0, 0, 1)
