"""Server-side allocation over Remoting: recorded answers, several brokers, modes that outlive a restart."""

from collections.abc import Sequence

import msgspec
import pytest
from apogeemq.broker.config import IdentityConfig, LimitsConfig, PopConfig
from apogeemq.broker.core.request_modes import RequestModeTable
from apogeemq.broker.faces.remoting import assignments as face
from apogeemq.broker.service.assignments import NoOtherBrokers
from apogeemq.mesh.clock import ManualClock
from apogeemq.remoting_codec.bodies import MessageModel, MessageQueue
from apogeemq.remoting_codec.client_bodies import (
    MessageQueueAssignment,
    MessageRequestMode,
    QueryAssignmentRequestBody,
    QueryAssignmentResponseBody,
    SetMessageRequestModeRequestBody,
)
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.recordings import exchanges
from packages.broker.tests.world import ROOT, Client, World, consumer_beat

ASK = QueryAssignmentRequestBody(topic="T", consumer_group="G", client_id="c1", strategy_name="AVG")
POP = SetMessageRequestModeRequestBody(topic="T", consumer_group="G", mode=MessageRequestMode.POP)


class Others:
    """Name servers that say this of every topic."""

    def __init__(self, found: Sequence[MessageQueue] | None) -> None:
        self.found = found
        self.asked: list[str] = []

    async def queues(self, topic: str) -> Sequence[MessageQueue] | None:
        self.asked.append(topic)
        return self.found


async def set_mode(world: World, body: bytes, fields: dict[str, str] | None = None) -> RemotingCommand:
    """Set a mode, and have it written."""
    client = world.client(41_000)
    opaque = client.send(401, fields, body)
    assert not client.has_reply(opaque)
    await world.broker.saver.save_request_modes()
    return client.reply(opaque)


async def ask(client: Client, **changes: object) -> RemotingCommand:
    return await client.later(client.send(400, {}, msgspec.structs.replace(ASK, **changes).encode()))


async def share(client: Client, **changes: object) -> list[tuple[str, int]] | None:
    """Broker and queue id of what the client gets."""
    return _pairs(await assigned(client, **changes))


async def assigned(client: Client, **changes: object) -> list[MessageQueueAssignment] | None:
    reply = await ask(client, **changes)
    assert reply.code == 0
    return QueryAssignmentResponseBody.decode(reply.body).message_queue_assignments


def _pairs(found: list[MessageQueueAssignment] | None) -> list[tuple[str, int]] | None:
    if found is None:
        return None
    return [(each.message_queue.broker_name, each.message_queue.queue_id) for each in found]


async def test_the_answers_are_apaches() -> None:
    """As recorded from 5.3.3: modes are set; nothing is told to a group without members, one entry to a member."""
    async with World(identity=IdentityConfig(broker_name="broker-t")) as world:
        world.create_topic("TapPop")
        client = world.client()
        for exchange in exchanges("pop", 401):
            reply = await set_mode(world, exchange.request.body, exchange.request.ext_fields)
            assert (reply.code, reply.body) == (exchange.reply.code, exchange.reply.body)
        stranger, member = exchanges("pop", 400)
        client.heartbeat(consumer_beat(QueryAssignmentRequestBody.decode(member.request.body).client_id, "G_pop2"))
        for exchange in (stranger, member):
            reply = await client.later(client.send(400, {}, exchange.request.body))
            assert (reply.code, reply.body) == (exchange.reply.code, exchange.reply.body)


async def test_members_divide_the_queues_of_all_brokers() -> None:
    """In Java's order: topic, broker, queue. Who is no member gets nothing."""
    async with World() as world:
        world.create_topic("T", 2)
        world.broker.assignments._assignments._others = Others([MessageQueue("T", "broker-b", 0)])
        client = world.client()
        for client_id in ("c2", "c1"):
            client.heartbeat(consumer_beat(client_id))
        assert await share(client) == [("broker-a", 0), ("broker-a", 1)]
        assert await share(client, client_id="c2") == [("broker-b", 0)]
        assert await share(client, client_id="c2", strategy_name="AVG_BY_CIRCLE") == [("broker-a", 1)]
        assert await share(client, client_id="c3") == []


async def test_broadcasting_gives_everything() -> None:
    """To anybody, whatever the strategy."""
    async with World() as world:
        world.create_topic("T", 2)
        found = await share(world.client(), message_model=MessageModel.BROADCASTING, strategy_name=None)
        assert found == [("broker-a", 0), ("broker-a", 1)]


async def test_dividing_may_be_off() -> None:
    """serverLoadBalancerEnable: every member gets all."""
    async with World(pop=PopConfig(server_load_balancer_enable=False)) as world:
        world.create_topic("T", 2)
        client = world.client()
        for client_id in ("c1", "c2"):
            client.heartbeat(consumer_beat(client_id))
        assert await share(client, client_id="c2") == [("broker-a", 0), ("broker-a", 1)]


@pytest.mark.parametrize("changes", [{"strategy_name": "CONFIG"}, {"strategy_name": None}, {"topic": "Missing"}])
async def test_what_cannot_be_divided_is_left_as_it_is(changes: dict[str, str]) -> None:
    """An answer without a list: the client skips this round."""
    async with World() as world:
        world.create_topic()
        client = world.client()
        client.heartbeat(consumer_beat())
        assert (await ask(client, **changes)).body == b"{}"


async def test_without_a_name_server_clients_keep_what_they_have() -> None:
    """An answer out of half the route would take the other brokers' queues away."""
    async with World() as world:
        world.create_topic()
        world.broker.assignments._assignments._others = Others(None)
        client = world.client()
        client.heartbeat(consumer_beat())
        assert await share(client) is None


async def test_no_name_server_is_asked_for_what_is_no_topic() -> None:
    """A text of any length would go there, and be kept here."""
    others = Others([MessageQueue("T", "broker-b", 0)])
    async with World() as world:
        world.broker.assignments._assignments._others = others
        client = world.client()
        client.heartbeat(consumer_beat())
        for topic in ("", "no spaces, please", "t" * 128):
            assert await share(client, topic=topic) is None
        assert others.asked == []
        assert await share(client, topic="T") == [("broker-b", 0)]
        assert others.asked == ["T"]


async def test_a_topic_that_may_not_be_read_is_not_divided() -> None:
    """Permission write only."""
    async with World() as world:
        world.create_topic()
        config = world.broker.topics.require("T").config
        world.broker.topics.put(msgspec.structs.replace(config, perm=2))
        client = world.client()
        client.heartbeat(consumer_beat())
        assert await share(client) is None


async def test_the_default_mode_is_not_for_retry_topics() -> None:
    """defaultMessageRequestMode POP; retries are pulled all the same."""
    async with World(pop=PopConfig(default_message_request_mode=MessageRequestMode.POP)) as world:
        world.create_topic()
        client = world.client()
        client.heartbeat(consumer_beat())
        for topic, mode, queue_id in (("T", MessageRequestMode.POP, -1), ("%RETRY%G", MessageRequestMode.PULL, 0)):
            (found,) = await assigned(client, topic=topic) or []
            assert (found.mode, found.message_queue.queue_id) == (mode, queue_id)


async def test_a_mode_is_kept_as_java_keeps_it() -> None:
    """In config/messageRequestMode.json: topic → group → what was set; there again after a restart."""
    disk, clock = MemoryDisk(), ManualClock()
    async with World(disk, clock=clock) as world:
        assert (await set_mode(world, POP.encode())).code == 0
    text = disk.read_file(ROOT / "config" / "messageRequestMode.json")
    assert msgspec.json.decode(text) == {
        "messageRequestModeMap": {
            "T": {"G": {"topic": "T", "consumerGroup": "G", "mode": "POP", "popShareQueueNum": 0}}
        }
    }
    async with World(disk, clock=clock) as again:
        again.create_topic()
        client = again.client()
        client.heartbeat(consumer_beat())
        (found,) = await assigned(client) or []
        assert found.mode is MessageRequestMode.POP


async def test_a_mode_survives_a_crash_once_it_is_in_the_journal() -> None:
    """Written before the answer."""
    disk, clock = MemoryDisk(), ManualClock()
    world = World(disk, clock=clock)
    await set_mode(world, POP.encode())
    other = msgspec.structs.replace(POP, consumer_group="H", mode=MessageRequestMode.PULL)
    await set_mode(world, other.encode())
    await world.kill()
    async with World(disk, clock=clock) as again:
        table = again.files.load_request_modes()
        assert {(mode.consumer_group, mode.mode) for mode in table} == {("G", "POP"), ("H", "PULL")}


@pytest.mark.parametrize(
    ("changes", "code", "remark"),
    [
        ({"topic": "%RETRY%G"}, 16, "retry topic is not allowed to set mode"),
        ({"topic": "a b"}, 29, "illegal characters"),
        ({"consumer_group": ""}, 29, "group is blank"),
    ],
)
async def test_what_may_not_be_set(changes: dict[str, str], code: int, remark: str) -> None:
    """Nothing is kept of it."""
    async with World() as world:
        reply = world.client().request(401, {}, msgspec.structs.replace(POP, **changes).encode())
        assert (reply.code, remark in str(reply.remark)) == (code, True)
        assert world.broker.saver._mode_saver._table.changed == set()


async def test_modes_are_bounded() -> None:
    """One more is refused with the limit; those that are there may change."""
    async with World() as world:
        world.broker.assignments._assignments._modes = RequestModeTable(modes_max=1)
        client = world.client()
        first = client.send(401, {}, POP.encode())
        full = client.request(401, {}, msgspec.structs.replace(POP, topic="U").encode())
        assert (full.code, full.remark) == (2, "this broker already has 1 message request modes, its limit")
        again = client.send(401, {}, POP.encode())
        world.broker.mode_line.reached(2)
        assert (client.reply(first).code, client.reply(again).code) == (0, 0)


async def test_a_mode_that_is_not_written_in_time_is_no_success() -> None:
    """After syncFlushTimeout, in time even for a disk that has stopped; it counts all the same until a restart."""
    async with World() as world:
        world.create_topic()
        client = world.client()
        client.heartbeat(consumer_beat())
        opaque = client.send(401, {}, POP.encode())
        world.clock.advance(5.0)
        world.broker.mode_line.expire(world.clock.monotonic())
        reply = client.reply(opaque)
        assert (reply.code, "not written to the disk within 5 s" in str(reply.remark)) == (14, True)
        (found,) = await assigned(client) or []
        assert found.mode is MessageRequestMode.POP


async def test_modes_that_wait_for_the_disk_are_bounded() -> None:
    """limits.waiting_acknowledgements_max; nothing is kept of the one that is refused."""
    async with World(limits=LimitsConfig(waiting_acknowledgements_max=1)) as world:
        client = world.client()
        first = client.send(401, {}, POP.encode())
        busy = client.request(401, {}, msgspec.structs.replace(POP, topic="U").encode())
        assert (busy.code, str(busy.remark).endswith("(limits.waiting_acknowledgements_max) is 1")) == (2, True)
        await world.broker.saver.save_request_modes()
        assert client.reply(first).code == 0
        assert [mode.topic for mode in world.broker.assignments._assignments._modes] == ["T"]


async def test_queries_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused at once, with the limit; the others get their answer."""
    monkeypatch.setattr(face, "RUNNING_MAX", 1)
    async with World() as world:
        client = world.client()
        first, second = client.send_together([(400, {}, ASK.encode()), (400, {}, ASK.encode())])
        busy = client.reply(second)
        assert (busy.code, "the limit is 1" in str(busy.remark)) == (2, True)
        assert (await client.later(first)).body == b"{}"


async def test_a_broker_alone_knows_of_no_others() -> None:
    """Without name servers it divides its own queues."""
    assert list(await NoOtherBrokers().queues("T")) == []
