"""Popping over Remoting: the recorded exchanges of Apache 5.3.3, and the rules of the reference."""

import asyncio

import pytest
from apogeemq.broker.config import IdentityConfig, LimitsConfig
from apogeemq.remoting_codec.bodies import BatchAck, BatchAckMessageRequestBody
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import decode_records

from packages.broker.tests.recordings import exchanges
from packages.broker.tests.test_pop import NORMAL_ONLY, let_it_be_over, send
from packages.broker.tests.world import Client, World, bodies_of, fields_of

POP, ACK, BATCH_ACK, CHANGE = (
    RequestCode.POP_MESSAGE,
    RequestCode.ACK_MESSAGE,
    RequestCode.BATCH_ACK_MESSAGE,
    RequestCode.CHANGE_MESSAGE_INVISIBLETIME,
)


def pop_fields(world: World, **more: str) -> dict[str, str]:
    """Ext fields of POP_MESSAGE, as a Java client writes them (vectors, pop)."""
    return {
        "consumerGroup": "G",
        "topic": "T",
        "queueId": "-1",
        "maxMsgNums": "32",
        "invisibleTime": "20000",
        "pollTime": "1000",
        "bornTime": str(world.clock.now_ms()),
        "initMode": "0",
        "expType": "TAG",
        "exp": "*",
        "order": "false",
        **more,
    }


def handle_fields(extra_info: str, topic: str = "T", **more: str) -> dict[str, str]:
    """Ext fields of ACK_MESSAGE; queue and offset are the last two of the handle."""
    *_, queue_id, offset = extra_info.split(" ")
    return {
        "consumerGroup": "G",
        "topic": topic,
        "queueId": queue_id,
        "offset": offset,
        "extraInfo": extra_info,
        **more,
    }


def pop(world: World, client: Client, **more: str) -> RemotingCommand:
    reply = client.request(POP, pop_fields(world, **more))
    assert reply.code == 0
    return reply


def client_made_handle(reply: RemotingCommand, index: int) -> str:
    """What a client makes of the header for the message `index` of the only run."""
    fields = fields_of(reply)
    mark, queue_id, start = fields["startOffsetInfo"].split(" ")
    offsets = fields["msgOffsetInfo"].split(" ")[2].split(",")
    times = f"{fields['popTime']} {fields['invisibleTime']} {fields['reviveQid']}"
    return f"{start} {times} {mark} broker-a {queue_id} {offsets[index]}"


def records_left(world: World) -> int:
    return len(world.broker.popping.log.table)


# -- as recorded -------------------------------------------------------------------------------------------------------


async def test_recorded_exchanges_come_out_alike() -> None:
    """Two queues with three messages each, as in the recording: same codes, same fields, same shapes."""
    identity = IdentityConfig(broker_name="broker-t", cluster_name="TapCluster")
    async with World(identity=identity, pop=NORMAL_ONLY) as world:
        world.create_topic("TapPop", 2)
        send(world, b"1", b"3", b"5", queue_id=0, topic="TapPop")
        send(world, b"0", b"2", b"4", queue_id=1, topic="TapPop")
        client = world.client()
        recorded = [exchange for exchange in exchanges("pop", POP) if exchange.reply.code == 0]
        assert recorded, "the recording has pops that found something"
        for exchange in recorded:
            fields = fields_of(exchange.request) | {"bornTime": str(world.clock.now_ms())}
            reply = client.request(POP, fields)
            theirs, ours = fields_of(exchange.reply), fields_of(reply)
            assert set(ours) == set(theirs)
            assert (reply.code, reply.remark) == (exchange.reply.code, exchange.reply.remark)
            assert ours["restNum"] == theirs["restNum"]
            for name in ("invisibleTime", "reviveQid"):
                assert ours[name] == theirs[name]
            assert ours["msgOffsetInfo"].split(" ")[2] == theirs["msgOffsetInfo"].split(" ")[2]
            assert [r.topic for r in decode_records(reply.body)] == [
                r.topic for r in decode_records(exchange.reply.body)
            ]


async def test_recorded_acknowledgements_succeed() -> None:
    """Code 0 without remark, whatever became of the messages: ours never had them."""
    async with World(identity=IdentityConfig(broker_name="broker-t")) as world:
        world.create_topic("TapPop", 2)
        for queue_id in (0, 1):
            send(world, b"a", b"b", b"c", queue_id=queue_id, topic="TapPop")
        client = world.client()
        for code in (ACK, BATCH_ACK):
            for exchange in exchanges("pop", code):
                reply = client.request(code, exchange.request.ext_fields, exchange.request.body)
                assert (reply.code, reply.remark) == (exchange.reply.code, exchange.reply.remark)


async def test_a_recorded_change_is_answered_with_the_parts_of_a_handle() -> None:
    """popTime, invisibleTime, reviveQid: for a dead handle too, as Apache does."""
    async with World(identity=IdentityConfig(broker_name="broker-t")) as world:
        world.create_topic("TapPop", 2)
        send(world, b"a", b"b", queue_id=1, topic="TapPop")
        (exchange,) = exchanges("pop", CHANGE)
        reply = world.client().request(CHANGE, exchange.request.ext_fields)
        assert reply.code == exchange.reply.code == 0
        assert set(fields_of(reply)) == set(fields_of(exchange.reply))
        assert fields_of(reply)["invisibleTime"] == "3000"
        assert fields_of(reply)["reviveQid"] == "0"


async def test_nothing_in_time_is_answered_as_recorded() -> None:
    """210 after the poll time, with all fields."""
    async with World() as world:
        world.create_topic("T", 1)
        client = world.client()
        opaque = client.send(POP, pop_fields(world))
        world.clock.advance(0.9)
        world.broker.popping.polls.expire()
        assert not client.has_reply(opaque)
        world.clock.advance(0.1)
        world.broker.popping.polls.expire()
        reply = client.reply(opaque)
        recorded = next(e.reply for e in exchanges("pop", POP) if e.reply.code == ResponseCode.POLLING_TIMEOUT)
        assert reply.code == ResponseCode.POLLING_TIMEOUT
        assert set(fields_of(reply)) == set(fields_of(recorded))
        assert {fields_of(reply)[name] for name in ("startOffsetInfo", "msgOffsetInfo")} == {""}


# -- pops --------------------------------------------------------------------------------------------------------------


async def test_the_header_tells_every_run() -> None:
    """`mark queue start` and `mark queue offset,offset`, separated by semicolons."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 2)
        send(world, b"a", b"b", queue_id=0)
        send(world, b"c", queue_id=1)
        fields = fields_of(pop(world, world.client()))
        assert fields["startOffsetInfo"] == "0 0 0;0 1 0"
        assert fields["msgOffsetInfo"] == "0 0 0,1;0 1 0"


async def test_a_held_pop_is_answered_when_a_message_comes() -> None:
    """Without a further request."""
    async with World() as world:
        world.create_topic("T", 1)
        client = world.client()
        opaque = client.send(POP, pop_fields(world))
        send(world, b"a")
        await asyncio.sleep(0)
        assert bodies_of(client.reply(opaque)) == [b"a"]


async def test_a_retried_message_shows_its_topic_and_its_handle() -> None:
    """Topic as asked for, POP_CK in the properties with mark 1; it is acknowledged under its retry topic (trap 24)."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 2)
        send(world, b"a", queue_id=1)
        client = world.client()
        pop(world, client)
        await let_it_be_over(world)
        reply = pop(world, client)
        (record,) = decode_records(reply.body)
        fields, properties = fields_of(reply), decode_properties(record.properties)
        assert (record.topic, record.reconsume_times, record.body) == ("T", 1, b"a")
        handle = properties["POP_CK"]
        assert handle == f"0 {fields['popTime']} 20000 {fields['reviveQid']} 1 broker-a 0 0"
        assert (fields["startOffsetInfo"], fields["msgOffsetInfo"]) == ("1 0 0", "1 0 0")
        assert client.request(ACK, handle_fields(handle, "%RETRY%G_T")).code == 0
        assert records_left(world) == 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"maxMsgNums": "33"}, ResponseCode.INVALID_PARAMETER),
        ({"queueId": "9"}, ResponseCode.INVALID_PARAMETER),
        ({"topic": "Unknown"}, ResponseCode.TOPIC_NOT_EXIST),
        ({"exp": "||"}, ResponseCode.SUBSCRIPTION_PARSE_FAILED),
        ({"bornTime": "1"}, ResponseCode.POLLING_TIMEOUT),
    ],
)
async def test_pops_that_are_refused(fields: dict[str, str], code: ResponseCode) -> None:
    """Apache's codes; one that comes more than 500 ms after its poll time gets 210 at once."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a")
        reply = world.client().request(POP, pop_fields(world, **fields))
        assert (reply.code, records_left(world)) == (code, 0)


@pytest.mark.parametrize(("late_ms", "code"), [(500, 0), (501, ResponseCode.POLLING_TIMEOUT)])
async def test_how_late_a_pop_may_be(late_ms: int, code: int) -> None:
    """500 ms after bornTime + pollTime, by the broker's clock (broker_behaviour.md §8)."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a")
        born = str(world.clock.now_ms() - 1_000 - late_ms)
        assert world.client().request(POP, pop_fields(world, bornTime=born)).code == code


async def test_a_client_without_a_clock_asks_now() -> None:
    """bornTime 0 is replaced by now."""
    async with World() as world:
        world.create_topic("T", 1)
        client = world.client()
        opaque = client.send(POP, pop_fields(world, bornTime="0"))
        assert not client.has_reply(opaque), "it is held"


async def test_too_many_held_pops() -> None:
    """209 for one more."""
    async with World(limits=LimitsConfig(held_pops_per_key_max=1)) as world:
        world.create_topic("T", 1)
        client = world.client()
        client.send(POP, pop_fields(world))
        assert client.request(POP, pop_fields(world)).code == ResponseCode.POLLING_FULL


async def test_a_closed_connection_pops_nothing() -> None:
    """The message waits for somebody else."""
    async with World() as world:
        world.create_topic("T", 1)
        gone = world.client()
        gone.send(POP, pop_fields(world))
        gone.close()
        send(world, b"a")
        await asyncio.sleep(0)
        assert records_left(world) == 0
        assert bodies_of(pop(world, world.client())) == [b"a"]


async def test_a_oneway_pop_takes_nothing() -> None:
    """Nobody would get the messages."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a")
        world.client().send(POP, pop_fields(world), oneway=True)
        assert records_left(world) == 0


# -- handles -----------------------------------------------------------------------------------------------------------


async def test_a_message_is_acknowledged_with_the_handle_that_clients_make() -> None:
    """Out of the header of the pop; twice is as good as once."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a", b"b")
        client = world.client()
        reply = pop(world, client)
        for _ in range(2):
            assert client.request(ACK, handle_fields(client_made_handle(reply, 1))).code == 0
        assert records_left(world) == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"queueId": "1"}, ResponseCode.MESSAGE_ILLEGAL),
        ({"queueId": "-1"}, ResponseCode.MESSAGE_ILLEGAL),
        ({"offset": "2"}, ResponseCode.NO_MESSAGE),
        ({"offset": "-1"}, ResponseCode.NO_MESSAGE),
        ({"offset": "1"}, ResponseCode.SUCCESS),
        ({"topic": "Unknown"}, ResponseCode.TOPIC_NOT_EXIST),
        ({"extraInfo": "nonsense"}, ResponseCode.INVALID_PARAMETER),
        ({"extraInfo": "0 1 2 999 0 broker-a 0 0"}, ResponseCode.SUCCESS),
        ({"extraInfo": "0 1 2 3 0 broker-a 0 0"}, ResponseCode.SUCCESS),
    ],
)
async def test_codes_of_acknowledgements(fields: dict[str, str], code: ResponseCode) -> None:
    """13 for a queue, 208 for an offset outside [min, max]; else 0, for unknown handles too."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a")
        client = world.client()
        handle = client_made_handle(pop(world, client), 0)
        assert client.request(ACK, handle_fields(handle) | fields).code == code
        assert records_left(world) == 1


async def test_a_changed_time_kills_the_old_handle() -> None:
    """The answer's parts make the new one (trap 24)."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a")
        client = world.client()
        old = client_made_handle(pop(world, client), 0)
        reply = client.request(CHANGE, handle_fields(old, invisibleTime="3000"))
        assert reply.code == 0
        fields = fields_of(reply)
        client.request(ACK, handle_fields(old))
        assert records_left(world) == 1
        new = f"0 {fields['popTime']} {fields['invisibleTime']} {fields['reviveQid']} 0 broker-a 0 0"
        client.request(ACK, handle_fields(new))
        assert records_left(world) == 0


async def test_a_change_of_no_message() -> None:
    """208 at the end of the queue, where an acknowledgement is still taken."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a")
        reply = world.client().request(CHANGE, handle_fields("0 1 2 3 0 broker-a 0 1", invisibleTime="3000"))
        assert reply.code == ResponseCode.NO_MESSAGE


async def test_a_batch_acknowledges_by_bits() -> None:
    """Bit i stands for start offset + i, Base64 of little-endian bytes (trap 25)."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, *[b"%d" % number for number in range(12)])
        client = world.client()
        fields = fields_of(pop(world, client))
        ack = batch_ack(fields, "Ags=")  # 02 0B, little-endian 0x0B02: bits 1, 8, 9 and 11
        assert client.request(BATCH_ACK, {}, BatchAckMessageRequestBody(broker_name="b", acks=[ack]).encode()).code == 0
        await let_it_be_over(world)
        left = [int(record.body) for record in world.records("%RETRY%G_T")]
        assert left == [0, 2, 3, 4, 5, 6, 7, 10]


async def test_a_batch_names_retried_messages_by_their_mark() -> None:
    """Topic as popped, `r` says that they lay in the retry topic."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        client = world.client()
        pop(world, client)
        await let_it_be_over(world)
        fields = fields_of(pop(world, client))
        body = BatchAckMessageRequestBody(acks=[batch_ack(fields, "AQ==", retry="1")]).encode()
        assert client.request(BATCH_ACK, {}, body).code == 0
        assert records_left(world) == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"retry": "7"}, ResponseCode.INVALID_PARAMETER),
        ({"bits": "?"}, ResponseCode.SYSTEM_ERROR),
        ({"bits": "A" * 4_000}, ResponseCode.SYSTEM_ERROR),
    ],
)
async def test_batches_that_are_refused(changes: dict[str, str], code: ResponseCode) -> None:
    """A mark or a bit set that is none; nothing is acknowledged."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a")
        client = world.client()
        fields = fields_of(pop(world, client))
        ack = batch_ack(fields, changes.get("bits", "AQ=="), changes.get("retry", "0"))
        body = BatchAckMessageRequestBody(acks=[batch_ack(fields, "AQ=="), ack]).encode()
        assert client.request(BATCH_ACK, {}, body).code == code
        assert records_left(world) == 1


async def test_a_batch_is_bounded() -> None:
    """1,024 messages; one more is refused with the limit."""
    async with World() as world:
        world.create_topic("T", 1)
        full = BatchAck(
            consumer_group="G",
            topic="T",
            start_offset=0,
            queue_id=0,
            revive_queue_id=0,
            pop_time=1,
            invisible_time=1,
            bit_set="/////w==",
        )
        body = BatchAckMessageRequestBody(acks=[full] * 33).encode()
        reply = world.client().request(BATCH_ACK, {}, body)
        assert reply.code == ResponseCode.SYSTEM_BUSY
        assert "1056 messages, the limit is 1024" in str(reply.remark)


def batch_ack(fields: dict[str, str], bits: str, retry: str = "0") -> BatchAck:
    return BatchAck(
        consumer_group="G",
        topic="T",
        retry=retry,
        start_offset=0,
        queue_id=0,
        revive_queue_id=int(fields["reviveQid"]),
        pop_time=int(fields["popTime"]),
        invisible_time=int(fields["invisibleTime"]),
        bit_set=bits,
    )
