"""Settings of one topic and of one group."""

import json

from apogeemq.remoting_codec.bodies import SubscriptionGroupConfig, TopicConfigAndQueueMapping

from packages.broker.tests.world import World


async def test_a_topic_tells_its_settings() -> None:
    """As Java writes them; no mapping."""
    async with World() as world:
        world.create_topic("T", queues=3)
        answer = world.client().request(351, {"topic": "T"})
        assert answer.code == 0
        assert json.loads(answer.body) == {
            "attributes": {},
            "order": False,
            "perm": 6,
            "readQueueNums": 3,
            "topicFilterType": "SINGLE_TAG",
            "topicName": "T",
            "topicSysFlag": 0,
            "writeQueueNums": 3,
        }
        assert TopicConfigAndQueueMapping.decode(answer.body).mapping_detail is None


async def test_an_unknown_topic_is_told_and_not_made() -> None:
    """17."""
    async with World() as world:
        answer = world.client().request(351, {"topic": "Missing"})
        assert (answer.code, answer.remark) == (17, "No topic in this broker. topic: Missing")
        assert world.broker.topics.get("Missing") is None


async def test_a_group_tells_its_settings() -> None:
    """All of them."""
    async with World() as world:
        group = world.broker.groups.find_or_create("G")
        answer = world.client().request(352, {"group": "G"})
        assert answer.code == 0
        assert SubscriptionGroupConfig.decode(answer.body) == group
        assert json.loads(answer.body)["retryMaxTimes"] == 16


async def test_an_unknown_group_is_told_and_not_made() -> None:
    """26, though heartbeats would make it."""
    async with World() as world:
        answer = world.client().request(352, {"group": "Missing"})
        assert (answer.code, answer.remark) == (26, "No group in this broker. group: Missing")
        assert world.broker.groups.get("Missing") is None
