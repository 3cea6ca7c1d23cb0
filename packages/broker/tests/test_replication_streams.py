"""A master's side against replicas that say what they like: refusals, bounds, and whoever takes nothing."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.network import ClientStream
from apogeemq.mesh.v1 import replication_pb2 as pb
from apogeemq.mesh.v1.methods import REPLICATE

from packages.broker.tests.replicas import CLUSTER, FILE_SIZE, NAME, SetBroker, SetWorld

MIB = 1 << 20
Message = pb.ReplicaMessage


class Scripted:
    """A replica that reads when it is told to."""

    def __init__(self, world: SetWorld, master: SetBroker) -> None:
        self.world = world
        channel = world.network.at("host-9").channel(master.address)
        self.stream: ClientStream[pb.ReplicaMessage, pb.MasterMessage] = channel.stream(REPLICATE)

    async def hello(self, **changed: object) -> None:
        fields = {
            "cluster": CLUSTER,
            "broker_name": NAME,
            "broker_id": 9,
            "incarnation": 1,
            "epoch": 1,
            "commit_log_file_size_bytes": FILE_SIZE,
            **changed,
        }
        await self.stream.send(Message(hello=Message.Hello(**fields)))  # type: ignore[arg-type]  # any of its fields

    async def copy_from(self, offset: int) -> None:
        await self.stream.send(Message(copy_from=Message.CopyFrom(offset=offset)))

    async def acknowledge(self, offset: int, epoch: int = 1, states: int = 0) -> None:
        await self.stream.send(Message(acknowledge=Message.Acknowledge(epoch=epoch, offset=offset, states=states)))

    async def ask_crc(self, start: int, end: int, crc: int) -> bool:
        await self.stream.send(Message(ask_crc=Message.AskCrc(start=start, end=end, crc=crc)))
        answer = await self.stream.receive()
        assert answer is not None
        assert answer.WhichOneof("kind") == "crc_same", answer
        return answer.crc_same.is_same

    async def welcomed(self) -> pb.MasterMessage.Welcome:
        await self.hello()
        message = await self.stream.receive()
        assert message is not None
        return message.welcome

    async def last_word(self) -> tuple[int, str]:
        """The refusal that ends the stream; what came before is passed over."""
        refused = None
        while (message := await self.stream.receive()) is not None:
            assert refused is None, "a refusal is the last word"
            if message.WhichOneof("kind") == "refused":
                refused = message.refused
        assert refused is not None, "the stream ended without a word"
        return refused.code, refused.text

    async def read_while_it_comes(self) -> int:
        """Where the log that came ends: after that come signs of life only."""
        end = signs = 0
        while signs < 5:
            coming = asyncio.ensure_future(self.stream.receive())
            await self.world.run(0)
            if not coming.done():
                await self.world.run(1)
            message = await coming
            assert message is not None
            end = max(end, message.chunk.offset + len(message.chunk.data))
            signs = 0 if message.chunk.data else signs + 1
        return end


@pytest.fixture
async def world() -> AsyncIterator[SetWorld]:
    world = SetWorld()
    yield world
    await world.close()


@pytest.fixture
async def master(world: SetWorld) -> SetBroker:
    """Leads epoch 1 alone, with one message in its log."""
    broker = await world.broker(1)
    await broker.lead(1, {1})
    broker.send()
    return broker


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"cluster": "c2"}, pb.REPLICATION_REFUSAL_WRONG_SET, ["c1", "c2"]),
        ({"broker_name": "broker-b"}, pb.REPLICATION_REFUSAL_WRONG_SET, ["broker-a", "broker-b"]),
        ({"broker_id": 1}, pb.REPLICATION_REFUSAL_WRONG_SET, ["broker 1", "two have one id"]),
        (
            {"commit_log_file_size_bytes": 1 << 30},
            pb.REPLICATION_REFUSAL_OTHER_FILE_SIZE,
            ["65536", "1073741824", "mappedFileSizeCommitLog"],
        ),
        ({"epoch": 2}, pb.REPLICATION_REFUSAL_OTHER_EPOCH, ["epoch 1", "epoch 2"]),
        ({"epoch": 0}, pb.REPLICATION_REFUSAL_INVALID, ["epoch 0"]),
        ({"broker_id": -1}, pb.REPLICATION_REFUSAL_INVALID, ["broker id -1"]),
        ({"incarnation": -1}, pb.REPLICATION_REFUSAL_INVALID, ["incarnation -1"]),
        ({"cluster": "c" * 256}, pb.REPLICATION_REFUSAL_INVALID, ["255"]),
        ({"broker_name": "b" * 256}, pb.REPLICATION_REFUSAL_INVALID, ["255"]),
    ],
)
async def test_a_hello_that_does_not_fit_is_refused(
    world: SetWorld, master: SetBroker, changed: dict[str, object], code: int, words: list[str]
) -> None:
    """By name: what differs, on which side."""
    replica = Scripted(world, master)
    await replica.hello(**changed)
    refused = asyncio.ensure_future(replica.last_word())
    await world.run(1.1)  # of an epoch to come it might be the master
    told, text = await refused
    assert told == code
    for word in words:
        assert word in text
    assert master.leading is not None
    assert master.leading.replicas() == []


async def test_who_does_not_lead_serves_nobody(world: SetWorld) -> None:
    """A broker that is no master says so, after it has waited for a moment whether it becomes one."""
    broker = await world.broker(1)
    replica = Scripted(world, broker)
    await replica.hello()
    refused = asyncio.ensure_future(replica.last_word())
    await world.run(0.9)
    assert not refused.done()
    await world.run(0.2)
    assert (await refused)[0] == pb.REPLICATION_REFUSAL_NOT_MASTER


async def test_a_replica_may_hear_of_an_epoch_before_its_master_begins_it(world: SetWorld, master: SetBroker) -> None:
    """Its stream waits for that moment, and is not refused."""
    second = await world.broker(2)
    second.follow(master, 2)
    await world.run(0.5)
    await master.lead(2, {1, 2})
    await world.run(0.02)
    assert master.leading is not None
    assert [each.broker_id for each in master.leading.replicas()] == [2]
    assert second.held() == master.held()


async def test_a_stream_without_a_hello_is_refused(world: SetWorld, master: SetBroker) -> None:
    """At once where something else comes first, and after a while where nothing does."""
    replica = Scripted(world, master)
    await replica.copy_from(0)
    assert (await replica.last_word())[0] == pb.REPLICATION_REFUSAL_INVALID
    mute = Scripted(world, master)
    await world.run(11)
    assert (await mute.last_word())[0] == pb.REPLICATION_REFUSAL_TOO_SLOW


async def ask_too_much(replica: Scripted) -> None:
    await replica.stream.send(Message(ask_crc=Message.AskCrc(start=0, end=(64 << 10) + 1)))


async def ask_backwards(replica: Scripted) -> None:
    await replica.stream.send(Message(ask_crc=Message.AskCrc(start=10, end=5)))


async def copy_from_behind_the_end(replica: Scripted) -> None:
    await replica.copy_from(1 << 40)


async def copy_twice(replica: Scripted) -> None:
    await replica.copy_from(0)
    await replica.copy_from(0)


async def acknowledge_before_copying(replica: Scripted) -> None:
    await replica.acknowledge(0)


async def acknowledge_what_was_not_sent(replica: Scripted) -> None:
    await replica.copy_from(0)
    await replica.acknowledge(1 << 40)


async def acknowledge_less_than_nothing(replica: Scripted) -> None:
    await replica.copy_from(0)
    await replica.acknowledge(-1)


async def acknowledge_states_that_were_not_sent(replica: Scripted) -> None:
    await replica.copy_from(0)
    await replica.acknowledge(0, states=1000)


async def say_hello_again(replica: Scripted) -> None:
    await replica.hello()


async def say_nothing_known(replica: Scripted) -> None:
    await replica.stream.send(Message())


@pytest.mark.parametrize(
    "say",
    [
        ask_too_much,
        ask_backwards,
        copy_from_behind_the_end,
        copy_twice,
        acknowledge_before_copying,
        acknowledge_what_was_not_sent,
        acknowledge_less_than_nothing,
        acknowledge_states_that_were_not_sent,
        say_hello_again,
        say_nothing_known,
    ],
)
async def test_a_message_that_makes_no_sense_ends_the_stream(
    world: SetWorld, master: SetBroker, say: Callable[[Scripted], Awaitable[None]]
) -> None:
    """With a word why; nothing of it counts, and nobody else notices."""
    second = await world.broker(2)
    second.follow(master, 1)
    await world.run(1)
    replica = Scripted(world, master)
    await replica.welcomed()
    await say(replica)
    assert (await replica.last_word())[0] == pb.REPLICATION_REFUSAL_INVALID
    master.send()
    await world.run()
    assert second.held() == master.held()
    assert master.leading is not None
    assert [each.broker_id for each in master.leading.replicas()] == [2]


async def test_an_acknowledgement_of_another_epoch_ends_the_stream(world: SetWorld, master: SetBroker) -> None:
    """It speaks of another master's log."""
    replica = Scripted(world, master)
    await replica.welcomed()
    await replica.copy_from(0)
    await replica.acknowledge(0, epoch=2)
    assert (await replica.last_word())[0] == pb.REPLICATION_REFUSAL_OTHER_EPOCH


async def test_a_master_compares_what_it_has(world: SetWorld, master: SetBroker) -> None:
    """The same bytes are; others, and what lies behind its end, are not."""
    replica = Scripted(world, master)
    welcome = await replica.welcomed()
    end = welcome.end_offset
    crc = zlib.crc32(master.held())
    assert (welcome.epoch, welcome.min_offset, end) == (1, 0, master.log.end_offset)
    assert await replica.ask_crc(0, end, crc)
    assert not await replica.ask_crc(0, end, crc ^ 1)
    assert not await replica.ask_crc(0, end + 1, crc)


async def test_another_stream_of_the_same_broker_takes_over(world: SetWorld, master: SetBroker) -> None:
    """The older one ends, with a word."""
    first, second = Scripted(world, master), Scripted(world, master)
    await first.welcomed()
    await second.welcomed()
    assert (await first.last_word())[0] == pb.REPLICATION_REFUSAL_REPLACED
    await second.copy_from(0)
    assert master.leading is not None
    assert len(master.leading.replicas()) == 1


async def test_streams_end_with_the_epoch(world: SetWorld, master: SetBroker) -> None:
    """A master that leads no longer says so, and has let go of its replicas when stop() returns."""
    replica = Scripted(world, master)
    await replica.welcomed()
    leading = master.leading
    assert leading is not None
    await master.stop_leading()
    assert leading.replicas() == []
    assert (await replica.last_word())[0] == pb.REPLICATION_REFUSAL_NOT_MASTER


async def test_replicas_are_bounded(world: SetWorld, master: SetBroker) -> None:
    """One more than 64 is refused; one of those that copy may come back."""
    replicas = [Scripted(world, master) for _ in range(65)]
    for number, replica in enumerate(replicas[:64]):
        await replica.hello(broker_id=100 + number)
        await replica.stream.receive()
    await replicas[64].hello(broker_id=200)
    assert (await replicas[64].last_word())[0] == pb.REPLICATION_REFUSAL_TOO_MANY
    again = Scripted(world, master)
    await again.hello(broker_id=100)
    message = await again.stream.receive()
    assert message is not None
    assert message.WhichOneof("kind") == "welcome"


# -- flow control ------------------------------------------------------------------------------------------------------


async def test_chunks_are_bounded_and_end_with_their_epoch(world: SetWorld) -> None:
    """At most 256 KiB, each with the epoch that wrote it; together they are the log."""
    master = await world.broker(1, commit_log_file_size_bytes=2 * MIB)
    await master.lead(1, {1})
    for _ in range(50):
        master.send(b"x" * 10_000)
    first = master.log.end_offset
    await master.lead(2, {1})
    master.send()
    replica = Scripted(world, master)
    await replica.hello(epoch=2, commit_log_file_size_bytes=2 * MIB)
    await replica.stream.receive()
    await replica.copy_from(0)
    data = b""
    while len(data) < master.log.end_offset:
        message = await replica.stream.receive()
        assert message is not None
        chunk = message.chunk
        assert chunk.offset == len(data)
        assert 0 < len(chunk.data) <= 256 << 10
        written_in = (1, 0) if chunk.offset < first else (2, first)
        assert (chunk.written_in.epoch, chunk.written_in.start_offset) == written_in
        assert chunk.offset >= first or chunk.offset + len(chunk.data) <= first
        data += chunk.data
    assert data == master.held()


async def test_at_most_8_mib_are_sent_and_not_acknowledged(world: SetWorld) -> None:
    """However fast the replica reads; each acknowledgement lets as much follow."""
    master = await world.broker(1, commit_log_file_size_bytes=16 * MIB)
    for _ in range(1000):
        master.send(b"x" * 12_000)
    await master.lead(1, {1})
    replica = Scripted(world, master)
    await replica.hello(commit_log_file_size_bytes=16 * MIB)
    await replica.stream.receive()
    await replica.copy_from(0)
    sent = await replica.read_while_it_comes()
    assert 8 * MIB - (256 << 10) < sent <= 8 * MIB
    await replica.acknowledge(MIB)
    more = await replica.read_while_it_comes()
    assert sent < more <= 9 * MIB


async def test_a_little_waits_for_the_last_acknowledgement(world: SetWorld) -> None:
    """And comes in one chunk with what is written until then; 64 KiB wait for none."""
    master = await world.broker(1, commit_log_file_size_bytes=2 * MIB)
    await master.lead(1, {1})
    master.send()
    replica = Scripted(world, master)
    await replica.hello(commit_log_file_size_bytes=2 * MIB)
    await replica.stream.receive()
    await replica.copy_from(0)
    first = await replica.read_while_it_comes()
    assert first == master.log.end_offset
    master.send()
    assert await replica.read_while_it_comes() == first
    master.send()
    await replica.acknowledge(first)
    message = await replica.stream.receive()
    assert message is not None
    assert (message.chunk.offset, message.chunk.data) == (first, master.held()[first:])
    for _ in range(6):
        master.send(b"x" * 12_000)
    assert await replica.read_while_it_comes() == master.log.end_offset


async def test_a_replica_that_acknowledges_nothing_is_cut_off(world: SetWorld, master: SetBroker) -> None:
    """10 s after it was sent something; others have gone on copying meanwhile."""
    second = await world.broker(2)
    second.follow(master, 1)
    replica = Scripted(world, master)
    await replica.welcomed()
    await replica.copy_from(0)
    await world.run(1)
    assert master.leading is not None
    for _ in range(17):
        master.send()
        await replica.acknowledge(0)
        await world.run(0.5)
    assert [each.broker_id for each in master.leading.replicas()] == [2, 9]
    assert second.held() == master.held()
    await replica.acknowledge(0)
    await world.run(1.5)
    assert [each.broker_id for each in master.leading.replicas()] == [2]
    code, text = await replica.last_word()
    assert code == pb.REPLICATION_REFUSAL_TOO_SLOW
    assert "broker 9" in text


async def test_a_replica_that_reads_nothing_is_cut_off(world: SetWorld) -> None:
    """Its window is full, nothing more is kept for it, and after 10 s its stream ends."""
    master = await world.broker(1, commit_log_file_size_bytes=64 * MIB)
    for _ in range(3000):
        master.send(b"x" * 12_000)
    leading = await master.lead(1, {1})
    replica = Scripted(world, master)
    await replica.hello(commit_log_file_size_bytes=64 * MIB)
    await replica.copy_from(0)
    await world.run(9)
    assert [each.broker_id for each in leading.replicas()] == [9]
    await world.run(3)
    assert leading.replicas() == []


async def test_a_silent_replica_is_cut_off(world: SetWorld, master: SetBroker) -> None:
    """One that copies says something each 500 ms; nothing for 10 s, and its stream ends."""
    replica = Scripted(world, master)
    await replica.welcomed()
    await replica.copy_from(master.log.end_offset)
    await world.run(9.8)
    assert master.leading is not None
    assert len(master.leading.replicas()) == 1
    await world.run(0.5)
    assert master.leading.replicas() == []


async def test_a_lost_replica_is_forgotten(world: SetWorld, master: SetBroker) -> None:
    """Its stream broke: it is no longer among those that copy."""
    replica = Scripted(world, master)
    await replica.welcomed()
    replica.stream.cancel()
    await world.run()
    assert master.leading is not None
    assert master.leading.replicas() == []
    with pytest.raises(MeshError):
        await replica.stream.receive()
