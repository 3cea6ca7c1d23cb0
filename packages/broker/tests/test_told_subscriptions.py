"""Members of one group that want different things: found, told once, listed, measured, refused where that is set."""

import logging

import msgspec
import pytest
from apogeemq.broker.config import TopicsConfig
from apogeemq.broker.core.told_subscriptions import (
    SubscriptionDifference,
    ToldSubscriptions,
    TopicDifference,
    describe,
)
from apogeemq.broker.metrics import register_metrics
from apogeemq.mesh.metrics import Registry
from apogeemq.remoting_codec.bodies import HeartbeatData, SubscriptionData

from packages.broker.tests.world import World, consumer_beat

LOGGER = "apogeemq.broker.service.groups"


def tags(expression: str, topic: str = "T") -> SubscriptionData:
    return SubscriptionData(topic=topic, sub_string=expression)


def sql(expression: str) -> SubscriptionData:
    return SubscriptionData(topic="T", sub_string=expression, expression_type="SQL92")


def with_topics(beat: HeartbeatData, *subscriptions: SubscriptionData) -> HeartbeatData:
    (consumer,) = beat.consumer_data_set
    changed = msgspec.structs.replace(consumer, subscription_data_set=list(subscriptions))
    return msgspec.structs.replace(beat, consumer_data_set=[changed])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([tags("A || B")], [tags("B||A")]),
        ([tags("")], [tags("*")]),
        ([tags("A")], [tags("A"), tags("*", "%RETRY%G")]),
        ([tags("A"), tags("B", "U")], [tags("B", "U"), tags("A")]),
        ([tags("A")], []),
        ([SubscriptionData(topic="T", sub_version=1)], [SubscriptionData(topic="T", sub_version=2)]),
    ],
)
def test_what_is_the_same(one: list[SubscriptionData], other: list[SubscriptionData]) -> None:
    """Tags in any order, the retry topic told or not, another version, and nothing told at all."""
    told = ToldSubscriptions("G")
    told.tell("c1", one)
    assert told.difference_with("c2", other) is None
    told.tell("c2", other)
    assert (told.variants, told.difference()) == (1, None)


@pytest.mark.parametrize(
    ("one", "other", "topics"),
    [
        ([tags("A")], [tags("B")], [TopicDifference("T", {"A": ["c1"], "B": ["c2"]})]),
        ([tags("A")], [sql("A")], [TopicDifference("T", {"A": ["c1"], "SQL92: A": ["c2"]})]),
        ([tags("*")], [tags("*"), tags("*", "U")], [TopicDifference("U", {"": ["c1"], "*": ["c2"]})]),
    ],
)
def test_what_differs(
    one: list[SubscriptionData], other: list[SubscriptionData], topics: list[TopicDifference]
) -> None:
    """Expressions, their kinds, and topics; those in which all agree are not named."""
    told = ToldSubscriptions("G")
    told.tell("c1", one)
    would = told.difference_with("c2", other)
    told.tell("c2", other)
    assert (told.variants, told.difference()) == (2, SubscriptionDifference("G", topics))
    assert would == told.difference()


def test_one_member_may_change_its_mind() -> None:
    """It is compared with the others only; when the one that differs leaves, all agree again."""
    told = ToldSubscriptions("G")
    told.tell("c1", [tags("A")])
    assert told.difference_with("c1", [tags("B")]) is None
    told.tell("c1", [tags("B")])
    told.tell("c2", [tags("A")])
    assert told.variants == 2
    told.left("c2")
    told.left("c2")
    assert (told.variants, told.difference()) == (1, None)


def test_a_description_is_of_bounded_length() -> None:
    """However many members, topics and expressions there are."""
    told = ToldSubscriptions("G")
    for number in range(100):
        told.tell(f"c{number}" * 100, [tags(f"tag{number % 9}" * 90, f"T{topic}") for topic in range(20)])
    difference = told.difference()
    assert difference is not None
    text = describe(difference)
    assert "(and 15 topics more)" in text
    assert "and 7 more" in text
    assert len(text) < 25_000


async def test_the_log_tells_once(caplog: pytest.LogCaptureFixture) -> None:
    """With group, topics and members; again when it changes, at most once a minute, and when all agree."""
    caplog.set_level(logging.INFO, LOGGER)
    async with World() as world:
        one, two = world.client(1), world.client(2)
        one.heartbeat(consumer_beat("c1", expression="A"))
        two.heartbeat(consumer_beat("c2", expression="B"))
        for _ in range(3):
            one.heartbeat(consumer_beat("c1", expression="A"))
            two.heartbeat(consumer_beat("c2", expression="B"))
        (warning,) = [record.getMessage() for record in caplog.records if record.name == LOGGER]
        assert warning.startswith("the members of consumer group G differ")
        assert "topic T: c1 subscribe to [A]; c2 subscribe to [B]" in warning
        two.heartbeat(consumer_beat("c2", expression="D"))
        world.clock.advance(60)
        two.heartbeat(consumer_beat("c2", expression="C"))
        two.close()
        told = [record.getMessage() for record in caplog.records if record.name == LOGGER][1:]
        assert len(told) == 2
        assert "c2 subscribe to [C]" in told[0]
        assert told[1] == "the members of consumer group G subscribe to the same again"


async def test_groups_that_differ_are_listed_and_measured() -> None:
    """For administrators; a group that agrees is in neither."""
    async with World() as world:
        registry = Registry()
        register_metrics(registry, world.broker, {})
        client = world.client()
        client.heartbeat(consumer_beat("c1", "H"))
        for client_id, expression in (("c1", "A"), ("c2", "B"), ("c3", "B")):
            client.heartbeat(consumer_beat(client_id, expression=expression))
        assert world.broker.group_service.differing_subscriptions() == [
            SubscriptionDifference("G", [TopicDifference("T", {"A": ["c1"], "B": ["c2", "c3"]})])
        ]
        lines = [line for line in registry.render().splitlines() if "differing_subscriptions{" in line]
        assert lines == ['apogeemq_consumer_group_differing_subscriptions{consumer_group="G"} 2']


async def test_the_later_one_may_be_refused() -> None:
    """With a remark that names both; nothing of its heartbeat is taken. The same subscription is welcome."""
    async with World(topics=TopicsConfig(refuse_differing_subscriptions=True)) as world:
        client = world.client()
        client.heartbeat(consumer_beat("c1", expression="A"))
        refused = client.heartbeat(consumer_beat("c2", expression="B"))
        assert refused.code == 16
        assert "topic T: c1 subscribe to [A]; c2 subscribe to [B]" in str(refused.remark)
        assert world.broker.group_service.consumer_ids("G") == ["c1"]
        assert client.heartbeat(consumer_beat("c2", expression="A")).code == 0
        assert client.heartbeat(with_topics(consumer_beat("c2"), tags("A"), tags("*", "U"))).code == 16
        assert world.broker.group_service.differing_subscriptions() == []
