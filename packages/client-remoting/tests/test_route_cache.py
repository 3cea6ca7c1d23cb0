"""Routes: what clients see of them, and when they are asked for again."""

import pytest
from apogeemq.client_remoting.core import route_cache
from apogeemq.client_remoting.core.route_cache import RouteCache, TooManyTopics, borrowed_route, read_route
from apogeemq.remoting_codec.bodies import MessageQueue
from apogeemq.remoting_codec.route import BrokerData, QueueData, TopicRouteData


def data(*brokers: tuple[str, int, dict[int, str]]) -> TopicRouteData:
    """A route of brokers: name, perm, addresses; two queues to write and three to read each."""
    return TopicRouteData(
        queue_datas=[
            QueueData(broker_name=name, read_queue_nums=3, write_queue_nums=2, perm=perm) for name, perm, _ in brokers
        ],
        broker_datas=[
            BrokerData(cluster="c", broker_name=name, broker_addrs=addresses) for name, _, addresses in brokers
        ],
    )


def names(queues: tuple[MessageQueue, ...]) -> list[str]:
    return [f"{queue.broker_name}{queue.queue_id}" for queue in queues]


def test_queues_by_permission_sorted_as_java_sorts() -> None:
    """By broker name, then by number, in whatever order the name server has them."""
    route = read_route(
        "t", data(("b", 6, {0: "b:1"}), ("a", 6, {0: "a:1"}), ("r", 4, {0: "r:1"}), ("w", 2, {0: "w:1"}))
    )
    assert names(route.write_queues) == ["a0", "a1", "b0", "b1", "w0", "w1"]
    assert names(route.read_queues) == ["a0", "a1", "a2", "b0", "b1", "b2", "r0", "r1", "r2"]


def test_a_broker_without_master_is_read_and_waited_for() -> None:
    """Reads go to its slave with the lowest id; a message group's queue stays the same one."""
    route = read_route("t", data(("a", 6, {2: "slave2", 1: "slave1"}), ("gone", 6, {})))
    assert names(route.write_queues) == ["a0", "a1"]
    assert names(route.read_queues) == ["a0", "a1", "a2"]
    assert route.master("a") is None
    assert route.any_address("a") == "slave1"
    assert route.any_address("gone") is None


def test_a_topic_to_be_made_borrows_the_default_topics_route() -> None:
    """With as many queues as brokers will make, and nothing to read yet."""
    route = borrowed_route("new", read_route("TBW102", data(("a", 7, {0: "a:1"}))), queues_max=1)
    assert route.write_queues == (MessageQueue("new", "a", 0),)
    assert route.read_queues == ()


def test_a_known_route_is_due_after_thirty_seconds_a_missing_one_after_one() -> None:
    """And a topic that was never asked for at once."""
    cache = RouteCache()
    assert cache.is_due("known", 0.0)
    cache.take("known", read_route("known", data(("a", 6, {0: "a:1"}))), 0.0)
    cache.take("missing", None, 0.0)
    assert cache.due_topics(0.9) == []
    assert cache.due_topics(1.0) == ["missing"]
    assert cache.next_due(0.0) == 1.0
    assert cache.due_topics(30.0) == ["known", "missing"]


def test_a_suspected_route_is_due_soon_but_not_again_and_again() -> None:
    """At the earliest a quarter of a second after the last question; what is known stays meanwhile."""
    cache = RouteCache()
    route = read_route("t", data(("a", 6, {0: "a:1"})))
    cache.take("t", route, 10.0)
    cache.suspect("t", 10.1)
    assert not cache.is_due("t", 10.2)
    assert cache.is_due("t", 10.25)
    cache.unanswered("t", 11.0)
    assert not cache.is_due("t", 11.9)
    assert cache.get("t") is route
    cache.suspect("unknown", 0.0)


def test_taking_tells_whether_anything_changed() -> None:
    """A new topic, another route, the topic's end."""
    cache = RouteCache()
    route = read_route("t", data(("a", 6, {0: "a:1"})))
    assert cache.take("t", route, 0.0)
    assert not cache.take("t", read_route("t", data(("a", 6, {0: "a:1"}))), 30.0)
    assert cache.take("t", read_route("t", data(("a", 6, {0: "a:2"}))), 60.0)
    assert (cache.addresses(), cache.broker_names()) == ({"a:2"}, {"a"})
    assert not cache.take("t", None, 90.0)
    assert cache.take("t", None, 100.0)
    assert cache.addresses() == set()


def test_a_route_outlives_its_broker_for_a_while() -> None:
    """Between two masters nobody serves the topic: what is known stays, and is asked for again each second."""
    cache = RouteCache()
    route = read_route("t", data(("a", 6, {0: "a:1"})))
    cache.take("t", route, 0.0)
    cache.take("t", None, 30.0)
    assert cache.get("t") is route
    assert (cache.is_due("t", 30.9), cache.is_due("t", 31.0)) == (False, True)
    cache.take("t", None, 39.9)
    assert cache.get("t") is route
    assert cache.take("t", read_route("t", data(("a", 6, {0: "a:2"}))), 39.95)
    assert not cache.take("t", None, 45.0)
    cache.take("t", None, 55.0)
    assert cache.get("t") is None


def test_the_cache_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic that is known can still be renewed."""
    monkeypatch.setattr(route_cache, "TOPICS_MAX", 1)
    cache = RouteCache()
    cache.take("first", None, 0.0)
    cache.take("first", None, 1.0)
    with pytest.raises(TooManyTopics):
        cache.take("second", None, 1.0)
