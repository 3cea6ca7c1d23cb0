"""What a slave serves, on the store of a broker that writes: what it makes of each answer is what counts here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from apogeemq.broker.config import ReplicationConfig
from apogeemq.broker.reading import Reading
from apogeemq.broker.service.saved_tables import SavedTopics
from apogeemq.broker.service.table_copies import TOPICS
from apogeemq.remoting_codec.codes import RequestCode

from packages.broker.tests.world import Client, World, bodies_of, consumer_beat, fields_of, pull_fields, send_fields

HELD = {"sysFlag": "6", "suspendTimeoutMillis": "15000"}


class Slave:
    """Reads from the store of `world`, whose broker stands for the master."""

    def __init__(self, world: World, *, slave_read_enable: bool = False) -> None:
        self.is_master_there = True
        config = msgspec.structs.replace(
            world.config, replication=ReplicationConfig(slave_read_enable=slave_read_enable)
        )
        self.reading = Reading(
            config,
            world.store,
            world.files,
            clock=world.clock,
            access=None,
            is_master_there=lambda: self.is_master_there,
        )
        self.remoting = self.reading.handle
        self.channel_closed = self.reading.channel_closed
        topics = world.broker.topics
        self.reading.take_table(TOPICS, SavedTopics(topics).part_now(list(topics)).encode())

    def client(self) -> Client:
        """One connection to it."""
        return Client(self)  # type: ignore[arg-type]  # the two that a client needs


@asynccontextmanager
async def slave_of(world: World, **settings: bool) -> AsyncIterator[Slave]:
    """One that runs."""
    world.create_topic()
    slave = Slave(world, **settings)
    slave.reading.start()
    try:
        yield slave
    finally:
        await slave.reading.stop()


def produce(world: World, count: int) -> None:
    """Messages "0", "1", … in queue 0 of T."""
    client = world.client()
    for number in range(count):
        assert client.request(310, send_fields("T"), b"%d" % number).code == 0


async def test_what_is_confirmed_is_handed_out() -> None:
    """And no more; the answer sends the consumer back to the master."""
    async with World() as world, slave_of(world) as slave:
        produce(world, 3)
        world.store.confirm_offset = world.records("T")[2].physical_offset
        reply = slave.client().request(11, pull_fields())
        assert bodies_of(reply) == [b"0", b"1"]
        assert fields_of(reply)["suggestWhichBrokerId"] == "0"
        assert fields_of(slave.client().request(RequestCode.GET_MAX_OFFSET, {"topic": "T", "queueId": "0"})) == {
            "offset": "2"
        }


@pytest.mark.parametrize("offset", [1, 9])
async def test_who_finds_nothing_is_sent_to_the_master(offset: int) -> None:
    """At the end of the queue, and beyond it, where a slave may be behind: the offset is never corrected."""
    async with World() as world, slave_of(world) as slave:
        produce(world, 1)
        reply = slave.client().request(11, pull_fields(offset=offset))
        assert (reply.code, fields_of(reply)["nextBeginOffset"]) == (20, str(offset))
        assert fields_of(reply)["suggestWhichBrokerId"] == "0"


async def test_who_is_sent_to_the_master_asks_no_oftener_than_each_second() -> None:
    """A client whose route has no master comes back here at once: it is held for a moment."""
    async with World() as world, slave_of(world) as slave:
        produce(world, 1)
        client = slave.client()
        client.send(11, pull_fields(offset=9) | HELD)
        await world.clock.run_for(0.9)
        assert client.received() == []
        await world.clock.run_for(0.5)
        assert [reply.code for reply in client.received()] == [20]


async def test_without_a_master_pulls_wait_as_they_do_there() -> None:
    """Nothing else could be asked."""
    async with World() as world, slave_of(world) as slave:
        produce(world, 1)
        slave.is_master_there = False
        assert slave.client().request(11, pull_fields(offset=1)).code == 19
        client = slave.client()
        client.send(11, pull_fields(offset=1) | HELD)
        await world.clock.run_for(14.0)
        assert client.received() == []
        await world.clock.run_for(1.5)
        assert [reply.code for reply in client.received()] == [19]


async def test_a_held_pull_is_answered_when_the_log_goes_on() -> None:
    """Within a tick, also one for an offset beyond the end that was known here."""
    async with World() as world, slave_of(world) as slave:
        produce(world, 1)
        slave.is_master_there = False
        client = slave.client()
        opaques = [client.send(11, pull_fields(offset=offset) | HELD) for offset in (1, 2)]
        await world.clock.run_for(5.0)
        assert client.received() == []
        produce(world, 2)
        await world.clock.run_for(0.5)
        assert [(reply.opaque, reply.code) for reply in client.received()] == [(opaque, 0) for opaque in opaques]


async def test_who_waited_for_the_master_hears_that_it_is_there() -> None:
    """A pull that is held since there was none goes on at the next master, and not after its time."""
    async with World() as world, slave_of(world) as slave:
        produce(world, 1)
        slave.is_master_there = False
        client = slave.client()
        client.send(11, pull_fields(offset=1) | HELD)
        await world.clock.run_for(3.0)
        slave.is_master_there = True
        await world.clock.run_for(0.5)
        assert [(reply.code, fields_of(reply)["suggestWhichBrokerId"]) for reply in client.received()] == [(20, "0")]


async def test_a_transaction_ends_at_the_master() -> None:
    """SLAVE_NOT_AVAILABLE (11), as Apache's slaves answer; nothing to a oneway request."""
    async with World() as world, slave_of(world) as slave:
        client = slave.client()
        assert client.request(RequestCode.END_TRANSACTION, {}).code == 11
        client.send(RequestCode.END_TRANSACTION, {}, oneway=True)
        assert client.received() == []


async def test_a_slave_that_is_read_from_answers_for_itself() -> None:
    """slaveReadEnable: consumers stay until they are near the end."""
    async with World() as world, slave_of(world, slave_read_enable=True) as slave:
        produce(world, 1)
        assert slave.client().request(11, pull_fields(offset=1)).code == 19


async def test_members_are_known_and_commits_are_not_taken() -> None:
    """Heartbeats and what groups have read are answered; who would change something is another's to serve."""
    async with World() as world, slave_of(world) as slave:
        client = slave.client()
        assert client.request(RequestCode.HEART_BEAT, {}, consumer_beat().encode()).code == 0
        members = client.request(RequestCode.GET_CONSUMER_LIST_BY_GROUP, {"consumerGroup": "G"})
        assert b"c1" in members.body
        for code in (RequestCode.UPDATE_CONSUMER_OFFSET, RequestCode.SEND_MESSAGE_V2, RequestCode.POP_MESSAGE):
            assert not slave.reading.serves(code)


async def test_a_far_consumer_is_sent_to_a_slave() -> None:
    """By the bytes of log between it and the end, to the id that its group has for that; else to its usual one."""
    settings = ReplicationConfig(slave_read_enable=True, access_message_in_memory_max_ratio=0)
    async with World(replication=settings) as world:
        world.create_topic()
        produce(world, 2)
        client = world.client()
        found = client.request(11, pull_fields())
        assert fields_of(found)["suggestWhichBrokerId"] == "1"
        nothing = client.request(11, pull_fields(offset=2))
        assert fields_of(nothing)["suggestWhichBrokerId"] == "0"
