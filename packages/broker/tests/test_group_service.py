"""Membership over the tables: groups and retry topics made by heartbeats, who is told of what."""

import msgspec
import pytest
from apogeemq.broker.config import LimitsConfig, TopicsConfig
from apogeemq.broker.core import clients
from apogeemq.broker.errors import InvalidParameter, RequestFailed, SystemBusy
from apogeemq.remoting_codec.bodies import ConsumerData, HeartbeatData
from apogeemq.remoting_codec.codes import RequestCode

from packages.broker.tests.recordings import exchanges, frames
from packages.broker.tests.world import Client, World, consumer_beat, fields_of, light_beat, producer_beat


def told(client: Client) -> list[str]:
    """Groups of the notices that a client got since it was asked last."""
    pushed = client.pushed()
    assert all(command.code == RequestCode.NOTIFY_CONSUMER_IDS_CHANGED for command in pushed)
    assert all(command.is_oneway for command in pushed)
    return [fields_of(command)["consumerGroup"] for command in pushed]


def renamed(beat: HeartbeatData, *groups: str) -> HeartbeatData:
    """The beat of a client that is in these groups."""
    (consumer,) = beat.consumer_data_set
    several: list[ConsumerData] = [msgspec.structs.replace(consumer, group_name=group) for group in groups]
    return msgspec.structs.replace(beat, consumer_data_set=several)


async def test_the_first_heartbeat_makes_group_and_retry_topic() -> None:
    """So that the first retry finds a route (reference client_demands.md)."""
    async with World() as world:
        world.client().heartbeat(consumer_beat())
        assert world.broker.groups.get("G") is not None
        config = world.broker.topics.require("%RETRY%G").config
        assert (config.read_queue_nums, config.write_queue_nums, config.perm) == (1, 1, 6)


async def test_a_group_without_retries_gets_no_retry_topic() -> None:
    """retryQueueNums 0."""
    async with World() as world:
        group = world.broker.groups.find_or_create("G")
        world.broker.groups._put_all([msgspec.structs.replace(group, retry_queue_nums=0)])
        world.client().heartbeat(consumer_beat())
        assert world.broker.topics.get("%RETRY%G") is None


async def test_a_group_that_may_not_be_made_has_members_all_the_same() -> None:
    """autoCreateSubscriptionGroup off: the heartbeat is taken, the pull will be refused."""
    async with World(topics=TopicsConfig(auto_create_subscription_group=False)) as world:
        assert world.client().heartbeat(consumer_beat()).code == 0
        assert world.broker.group_service.consumer_ids("G") == ["c1"]
        assert world.broker.groups.get("G") is None
        assert world.broker.topics.get("%RETRY%G") is None


async def test_the_answer_to_a_heartbeat_is_apaches() -> None:
    """As recorded; a full heartbeat is never asked for again."""
    async with World() as world:
        for exchange in exchanges("heartbeat", 34):
            reply = world.client().request(34, exchange.request.ext_fields, exchange.request.body)
            assert (reply.code, reply.ext_fields) == (exchange.reply.code, exchange.reply.ext_fields)
        assert world.broker.group_service.consumer_ids("G_hb") == ["192.0.2.2@c1637242308536"]


async def test_the_notice_is_apaches_and_comes_before_the_answer() -> None:
    """Code 40, oneway, with the group; recorded from 5.3.3."""
    (recorded, *_) = [
        command
        for _, direction, command in frames("heartbeat")
        if direction == "s>c" and command.code == 40 and not command.is_response
    ]
    async with World() as world:
        client = world.client()
        client.send(34, {}, consumer_beat("c", "G_hb").encode())
        notice, answer = client.received()
        assert (notice.code, notice.flag, notice.ext_fields) == (recorded.code, recorded.flag, recorded.ext_fields)
        assert answer.is_response


async def test_members_hear_of_each_other() -> None:
    """Join, change of subscription, leave and lost connection; a mere beat tells nobody."""
    async with World() as world:
        one, two = world.client(1), world.client(2)
        one.heartbeat(consumer_beat("c1"))
        assert told(one) == ["G"]
        two.heartbeat(consumer_beat("c2"))
        assert (told(one), told(two)) == (["G"], ["G"])
        one.heartbeat(consumer_beat("c1"))
        assert (told(one), told(two)) == ([], [])
        one.heartbeat(consumer_beat("c1", expression="TagA", version=2))
        assert (told(one), told(two)) == (["G"], ["G"])
        two.close()
        assert told(one) == ["G"]
        two = world.client(3)
        two.heartbeat(consumer_beat("c2", expression="TagA", version=2))
        assert (told(one), told(two)) == (["G"], ["G"])
        two.request(35, {"clientID": "c2", "consumerGroup": "G"})
        assert (told(one), told(two)) == (["G"], [])


async def test_a_group_may_be_left_in_peace() -> None:
    """notifyConsumerIdsChangedEnable off: nobody is told."""
    async with World() as world:
        group = world.broker.groups.find_or_create("G")
        world.broker.groups._put_all([msgspec.structs.replace(group, notify_consumer_ids_changed_enable=False)])
        client = world.client()
        client.heartbeat(consumer_beat())
        assert told(client) == []


async def test_a_member_whose_channel_closes_is_not_written_to() -> None:
    """Others still are."""
    async with World() as world:
        one, two = world.client(1), world.client(2)
        one.heartbeat(consumer_beat("c1"))
        two.heartbeat(consumer_beat("c2"))
        one.channel.close("the test says so")
        assert (told(one), told(two)) == (["G", "G"], ["G"])
        two.heartbeat(consumer_beat("c2", expression="A", version=2))
        assert (told(one), told(two)) == ([], ["G"])


async def test_the_list_of_members() -> None:
    """In the order of joining; a group without members is an error and not an empty list (trap 18)."""
    async with World() as world:
        client = world.client()
        nobody = client.request(38, {"consumerGroup": "G"})
        assert (nobody.code, nobody.remark) == (1, "no consumer for this group, G")
        for client_id in ("c2", "c1"):
            client.heartbeat(consumer_beat(client_id))
        assert client.request(38, {"consumerGroup": "G"}).body == b'{"consumerIdList":["c2","c1"]}'
        with pytest.raises(RequestFailed, match="no consumer for this group, H"):
            world.broker.group_service.consumer_ids("H")


async def test_a_light_heartbeat_needs_its_fingerprint() -> None:
    """IS_SUB_CHANGE asks for the full one again: after a restart, over a new connection, with another fingerprint."""
    async with World() as world:
        client = world.client()
        light = light_beat("c1", 7)
        assert fields_of(client.heartbeat(light))["IS_SUB_CHANGE"] == "true"
        assert fields_of(client.heartbeat(consumer_beat("c1", fingerprint=7)))["IS_SUB_CHANGE"] == "true"
        assert fields_of(client.heartbeat(light))["IS_SUB_CHANGE"] == "false"
        assert fields_of(client.heartbeat(light_beat("c1", 8)))["IS_SUB_CHANGE"] == "true"
        assert fields_of(world.client(2).heartbeat(light))["IS_SUB_CHANGE"] == "true"


async def test_light_heartbeats_keep_a_client_alive() -> None:
    """All its memberships are renewed; without them it is dropped after 120 s, and its channel closed."""
    async with World() as world:
        world.broker.start()
        quiet, light = world.client(1), world.client(2)
        quiet.heartbeat(renamed(consumer_beat("c1", fingerprint=1), "G", "H"))
        light.heartbeat(renamed(consumer_beat("c2", fingerprint=2), "G", "H"))
        for _ in range(5):
            await world.clock.run_for(30)
            light.heartbeat(light_beat("c2", 2))
        assert world.broker.group_service.consumer_ids("G") == ["c2"]
        assert world.broker.group_service.consumer_ids("H") == ["c2"]
        assert quiet.channel.close_reason == "no heartbeat for 120 s"
        assert light.channel.close_reason is None


async def test_a_client_leaves_one_group_of_each_kind() -> None:
    """UNREGISTER_CLIENT names a producer group, a consumer group, or both."""
    async with World() as world:
        client = world.client()
        client.heartbeat(producer_beat("c1", "P"))
        client.heartbeat(consumer_beat("c1"))
        assert client.request(35, {"clientID": "c1", "producerGroup": "P"}).code == 0
        assert world.broker.clients.producer_groups == {}
        assert world.broker.group_service.consumer_ids("G") == ["c1"]
        assert client.request(35, {"clientID": "nobody", "producerGroup": "P", "consumerGroup": "G"}).code == 0
        assert world.broker.group_service.consumer_ids("G") == ["c1"]


async def test_a_heartbeat_beyond_a_bound_makes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused whole: no group and no retry topic is made for it."""
    monkeypatch.setattr(clients, "GROUPS_PER_HEARTBEAT_MAX", 2)
    async with World() as world:
        topics, groups = len(world.broker.topics), len(world.broker.groups)
        reply = world.client().heartbeat(renamed(consumer_beat(), "A", "B", "C"))
        assert (reply.code, reply.remark) == (2, "a heartbeat names 3 groups, the limit is 2")
        assert (len(world.broker.topics), len(world.broker.groups)) == (topics, groups)


async def test_illegal_and_too_many_groups_are_refused() -> None:
    """With the reason, and no member is taken in."""
    async with World(limits=LimitsConfig(groups_max=9)) as world:
        service = world.broker.group_service
        channel = world.client().channel
        with pytest.raises(InvalidParameter, match="contains illegal characters"):
            service.heartbeat(consumer_beat(group="a b"), channel, "JAVA", 479)
        service.heartbeat(consumer_beat(group="A"), channel, "JAVA", 479)
        with pytest.raises(SystemBusy, match=r"limits.groups_max\) is 9"):
            service.heartbeat(consumer_beat(group="B"), channel, "JAVA", 479)
        assert list(world.broker.clients.consumer_groups) == ["A"]
