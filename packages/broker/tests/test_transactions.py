"""Transactions: kept aside, committed or rolled back, asked about, known again after a restart."""

import pytest
from apogeemq.broker.config import FlushDiskType, LimitsConfig, StoreSettings, TransactionsConfig
from apogeemq.broker.core.transactions import Decision
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.record import Record, decode_record
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.recordings import exchanges, frames
from packages.broker.tests.test_roll_forward import clean, fill_files
from packages.broker.tests.world import (
    Client,
    World,
    bodies_of,
    fields_of,
    producer_beat,
    properties_of,
    pull_fields,
    send_fields,
    until,
)

HALF_TOPIC = "RMQ_SYS_TRANS_HALF_TOPIC"
OP_TOPIC = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
GIVEN_UP_TOPIC = "TRANS_CHECK_MAX_TIME_TOPIC"
GROUP = "CID_RMQ_SYS_TRANS"
COMMIT, ROLLBACK, UNKNOWN = 8, 12, 0
QUICK = TransactionsConfig(transaction_timeout_ms=6_000, check_interval_ms=30_000, check_interval_ms_max=60_000)


def make_world(
    disk: MemoryDisk | None = None, like: World | None = None, transactions: TransactionsConfig = QUICK
) -> World:
    clock = None if like is None else like.clock
    world = World(disk, clock=clock, transactions=transactions)
    world.broker.topics.put(TopicConfig(topic_name="T", read_queue_nums=4, write_queue_nums=4))
    world.mark_saved()
    return world


async def restart(world: World, *, orderly: bool = False) -> World:
    """The process is stopped or killed; another one opens the same directory."""
    await (world.stop() if orderly else world.kill())
    return make_world(world.disk, world, world.config.transactions)


def half_fields(key: str = "U1", queue_id: int = 1, group: str = "P", **more: str) -> dict[str, str]:
    """What a Java producer sends: the bit in the flag, and its properties."""
    given = {"TRAN_MSG": "true", "PGROUP": group, "UNIQ_KEY": key, "TAGS": "A", **more}
    properties = "".join(f"{name}\x01{value}\x02" for name, value in given.items())
    return send_fields("T", queue_id, properties, f="4")


def send_half(client: Client, body: bytes = b"half", **fields: str) -> RemotingCommand:
    reply = client.request(310, half_fields(**fields), body)  # type: ignore[arg-type]  # only texts are given here
    assert reply.code == ResponseCode.SUCCESS, reply.remark
    return reply


def start_with_producer(world: World) -> Client:
    """A broker at work, and a producer of group P that it knows."""
    world.broker.start()
    producer = world.client()
    producer.heartbeat(producer_beat("p1", "P"))
    return producer


def end_fields(record: Record, decision: int, *, group: str = "P", **more: str) -> dict[str, str]:
    return {
        "producerGroup": group,
        "tranStateTableOffset": str(record.queue_offset),
        "commitLogOffset": str(record.physical_offset),
        "commitOrRollback": str(decision),
        "fromTransactionCheck": "false",
        "msgId": "U1",
        **more,
    }


def end(client: Client, record: Record, decision: int, **more: str) -> RemotingCommand:
    return client.request(RequestCode.END_TRANSACTION, end_fields(record, decision, **more))


def halves(world: World) -> list[Record]:
    return world.records(HALF_TOPIC)


def delivered(world: World) -> list[bytes]:
    """Bodies of all that consumers of T can see."""
    return [record.body for queue_id in range(4) for record in world.records("T", queue_id)]


def questions(client: Client) -> list[tuple[int, Record]]:
    """(tranStateTableOffset, message) of the questions that came, each of which is oneway."""
    asked = client.pushed()
    assert all(command.code == RequestCode.CHECK_TRANSACTION_STATE and command.is_oneway for command in asked)
    return [(int(fields_of(command)["tranStateTableOffset"]), decode_record(command.body)) for command in asked]


# -- as recorded -------------------------------------------------------------------------------------------------------


async def test_a_half_message_is_answered_as_recorded() -> None:
    """The half topic's queue offset, the queue that was asked for, the unique key as transaction id."""
    recorded, _ = exchanges("transaction", 310)
    async with make_world() as world:
        world.broker.topics.put(TopicConfig(topic_name="TapTrans", read_queue_nums=2, write_queue_nums=2))
        world.mark_saved()
        fields = fields_of(recorded.request)
        reply = world.client().request(310, fields, recorded.request.body)
        expected = fields_of(recorded.reply)
        assert reply.code == recorded.reply.code
        told = fields_of(reply)
        assert set(told) == set(expected)
        for name in ("queueId", "transactionId", "queueOffset", "TRACE_ON", "MSG_REGION"):
            assert told[name] == expected[name]


RECORDED_HALF = {
    "PGROUP": "P_store",
    "TAGS": "TagT",
    "TRAN_MSG": "true",
    "KEYS": "trans-COMMIT_MESSAGE",
    "WAIT": "true",
    "REAL_TOPIC": "T",
    "REAL_QID": "1",
    "UNIQ_KEY": "FD0000000000000000000000000000025F5030946E096F3323D50013",
    "__transactionId__": "FD0000000000000000000000000000025F5030946E096F3323D50013",
}
"""Properties of a half message in a store of Apache 5.3.3, with topic T; MSG_REGION, TRACE_ON and CLUSTER go to all."""


async def test_the_records_are_apaches() -> None:
    """Half, committed copy and operation record have the flags, offsets and properties that Apache's broker stores."""
    sent = {name: RECORDED_HALF[name] for name in ("KEYS", "TRAN_MSG", "UNIQ_KEY", "WAIT", "PGROUP", "TAGS")}
    text = "".join(f"{name}\x01{value}\x02" for name, value in sent.items())
    async with make_world() as world:
        client = world.client()
        assert client.request(310, send_fields("T", 1, text, f="4"), b"trans COMMIT_MESSAGE").code == 0
        (half,) = halves(world)
        assert end(client, half, COMMIT, group="P_store").code == 0
        committed = world.record("T", 1)
        settled = world.record(OP_TOPIC)
        added = {"MSG_REGION", "TRACE_ON", "CLUSTER"}
        for record in (half, committed):
            assert {k: v for k, v in properties_of(record).items() if k not in added} == RECORDED_HALF
            assert record.body == b"trans COMMIT_MESSAGE"
        assert (half.sys_flag, half.prepared_transaction_offset) == (0, 0)
        assert (committed.sys_flag, committed.prepared_transaction_offset) == (8, half.physical_offset)
        assert (committed.born_timestamp_ms, committed.born_host) == (half.born_timestamp_ms, half.born_host)
        assert (settled.body, properties_of(settled)) == (b"0,", {"WAIT": "true", "TAGS": "d"})


async def test_a_question_is_as_recorded() -> None:
    """Its fields, and the message under its real topic, with the offsets of its newest copy."""
    (recorded,) = [command for _, direction, command in frames("transaction") if command.code == 39]
    async with make_world() as world:
        producer = start_with_producer(world)
        send_half(producer)
        await world.clock.run_for(6.1)
        (asked,) = producer.pushed()
        fields, expected = fields_of(asked), fields_of(recorded)
        assert (asked.code, asked.flag, set(fields)) == (recorded.code, recorded.flag, set(expected))
        message, recorded_message = decode_record(asked.body), decode_record(recorded.body)
        for told, about in ((fields, message), (expected, recorded_message)):
            assert told["topic"] == HALF_TOPIC
            assert int(told["tranStateTableOffset"]) == about.queue_offset
            assert int(told["commitLogOffset"]) == about.physical_offset
            assert told["msgId"] == told["transactionId"] == properties_of(about)["UNIQ_KEY"]
            assert int(told["offsetMsgId"][16:], 16) == about.physical_offset
        assert (message.topic, message.queue_id, message.body) == ("T", 1, b"half")
        assert (recorded_message.topic, recorded_message.sys_flag) == ("TapTrans", 0)


# -- commit and roll back ----------------------------------------------------------------------------------------------


async def test_nobody_sees_a_half_message() -> None:
    """It is in no queue of its topic before it is committed, and a pull that waits there is not woken."""
    async with make_world() as world:
        client = world.client()
        waiting = client.send(11, pull_fields(queue_id=1, sysFlag="6", suspendTimeoutMillis="15000"))
        send_half(client)
        assert delivered(world) == []
        assert not client.has_reply(waiting)
        end(client, halves(world)[0], COMMIT)
        assert bodies_of(await client.later(waiting)) == [b"half"]


@pytest.mark.parametrize(("decision", "bodies"), [(COMMIT, [b"half"]), (ROLLBACK, []), (UNKNOWN, [])])
async def test_a_decision_is_carried_out(decision: int, bodies: list[bytes]) -> None:
    """Commit shows the message in its queue; roll back and unknown do not; only unknown leaves it pending."""
    async with make_world() as world:
        client = world.client()
        send_half(client)
        assert end(client, halves(world)[0], decision).code == 0
        assert delivered(world) == bodies
        assert len(world.broker.transacting.table) == (1 if decision == UNKNOWN else 0)


async def test_a_decision_is_oneway() -> None:
    """As producers send it: nothing comes back, also when it is refused."""
    async with make_world() as world:
        client = world.client()
        send_half(client)
        half = halves(world)[0]
        client.send(RequestCode.END_TRANSACTION, end_fields(half, COMMIT, group="Wrong"), oneway=True)
        assert delivered(world) == []
        client.send(RequestCode.END_TRANSACTION, end_fields(half, COMMIT), oneway=True)
        assert delivered(world) == [b"half"]
        assert client.received() == []


async def test_a_second_decision() -> None:
    """The same once more does nothing; another one is refused with what happened before."""
    async with make_world() as world:
        client = world.client()
        send_half(client)
        half = halves(world)[0]
        for _ in range(2):
            assert end(client, half, COMMIT).code == 0
        refused = end(client, half, ROLLBACK)
        assert (refused.code, refused.remark) == (
            1,
            "the transaction has ended already (commit), it can't rollback now",
        )
        assert delivered(world) == [b"half"]


@pytest.mark.parametrize(
    ("fields", "remark"),
    [
        ({"producerGroup": "Q"}, "The producer group wrong"),
        ({"tranStateTableOffset": "7"}, "The transaction state table offset wrong"),
        ({"commitLogOffset": "1"}, "Find prepared transaction message failed"),
        ({"commitLogOffset": "-1"}, "Find prepared transaction message failed"),
        ({"commitLogOffset": str(1 << 60)}, "Find prepared transaction message failed"),
        ({"commitOrRollback": "4"}, "commitOrRollback is 4; it must be 8 (commit), 12 (roll back) or 0 (unknown)"),
    ],
)
async def test_a_decision_that_names_nothing_is_refused(fields: dict[str, str], remark: str) -> None:
    """Code 1 in Apache's words; the transaction stays pending."""
    async with make_world() as world:
        client = world.client()
        send_half(client)
        before = world.store.written_offset
        reply = client.request(RequestCode.END_TRANSACTION, end_fields(halves(world)[0], COMMIT) | fields)
        assert reply.code == ResponseCode.SYSTEM_ERROR
        assert str(reply.remark).startswith(remark)
        assert world.store.written_offset == before
        assert len(world.broker.transacting.table) == 1


async def test_another_message_is_no_half_message() -> None:
    """Whoever names an ordinary message's offset commits nothing."""
    async with make_world() as world:
        client = world.client()
        client.request(310, send_fields(), b"ordinary")
        send_half(client)
        fields = end_fields(halves(world)[0], COMMIT) | {"commitLogOffset": "0"}
        reply = client.request(RequestCode.END_TRANSACTION, fields)
        assert (reply.code, reply.remark) == (1, "The commit log offset wrong: 0 is no half message")


async def test_transactions_can_be_refused() -> None:
    """16, in Apache's words; nothing is stored."""
    async with make_world(transactions=TransactionsConfig(reject_transaction_message=True)) as world:
        reply = world.client().request(310, half_fields(), b"half")
        assert reply.code == ResponseCode.NO_PERMISSION
        assert "sending transaction message is forbidden" in str(reply.remark)
        assert world.store.written_offset == 0


async def test_too_many_pending_are_refused() -> None:
    """With the limit; the transaction that ends makes room."""
    async with World(limits=LimitsConfig(pending_transactions_max=1)) as world:
        world.create_topic()
        client = world.client()
        send_half(client)
        refused = client.request(310, half_fields("U2"), b"half")
        assert refused.code == ResponseCode.SYSTEM_BUSY
        assert "limits.pending_transactions_max" in str(refused.remark)
        end(client, halves(world)[0], ROLLBACK)
        send_half(client)


async def test_a_committed_message_that_failed_is_no_transaction() -> None:
    """A consumer that sends it to its retry topic sends TRAN_MSG on with it."""
    async with make_world() as world:
        client = world.client()
        world.broker.groups.find_or_create("G")
        world.broker.topics.create_for_group("%RETRY%G", 1)
        world.mark_saved()
        properties = "TRAN_MSG\x01true\x02PGROUP\x01P\x02UNIQ_KEY\x01U\x02DELAY\x013\x02"
        reply = client.request(310, send_fields("%RETRY%G", 0, properties, j="1", l="16"), b"again")
        assert reply.code == 0
        assert world.record("SCHEDULE_TOPIC_XXXX", 2).body == b"again"
        assert halves(world) == []


async def test_with_sync_flush_the_end_is_told_when_it_is_on_disk() -> None:
    """To whoever waits for an answer."""
    settings = StoreSettings(flush_disk_type=FlushDiskType.SYNC_FLUSH)
    async with World(store=settings) as world:
        world.create_topic()
        client = world.client()
        opaque = client.send(310, half_fields(), b"half")
        world.store.flush_once()
        await until(lambda: client.has_reply(opaque))
        opaque = client.send(RequestCode.END_TRANSACTION, end_fields(halves(world)[0], COMMIT))
        assert not client.has_reply(opaque)
        world.store.flush_once()
        assert (await client.later(opaque)).code == 0
        assert world.store.flushed_offset == world.store.written_offset


# -- questions ---------------------------------------------------------------------------------------------------------


async def test_a_silent_producer_is_asked_after_its_time() -> None:
    """Not before; the half message is stored again with the count; then after growing waits."""
    async with make_world() as world:
        producer = start_with_producer(world)
        send_half(producer)
        await world.clock.run_for(5.9)
        assert questions(producer) == []
        times = []
        for _ in range(1_800):
            await world.clock.run_for(0.1)
            world.broker.clients.renew("p1", producer.channel, world.clock.monotonic())
            times += [round(world.clock.monotonic(), 1) for _ in questions(producer)]
        began = times[0]
        assert [round(time - began) for time in times] == [0, 30, 90, 150]
        assert [properties_of(record).get("TRANSACTION_CHECK_TIMES") for record in halves(world)] == [
            None,
            *"1234",
        ]


@pytest.mark.parametrize("copy", [0, 1])
async def test_any_copy_ends_the_transaction(copy: int) -> None:
    """The producer's own late word names the first, its answer to a question the newest; the other is void then."""
    async with make_world() as world:
        producer = start_with_producer(world)
        send_half(producer)
        await world.clock.run_for(6.1)
        assert len(questions(producer)) == 1
        first, newest = halves(world)
        assert end(producer, (first, newest)[copy], COMMIT, fromTransactionCheck="true").code == 0
        assert end(producer, (newest, first)[copy], COMMIT).code == 0, "it is done"
        assert delivered(world) == [b"half"]
        await world.clock.run_for(400)
        assert questions(producer) == []


async def test_while_nothing_is_confirmed_no_transaction_is_lost() -> None:
    """A replica stands still for longer than producers are asked: they are asked on about what is not confirmed, and
    their answer counts; nobody sees the message before it is.
    """
    async with make_world() as world:
        producer = start_with_producer(world)
        world.store.confirm_offset = world.store.written_offset
        send_half(producer)
        await world.clock.run_for(6.1)
        assert len(questions(producer)) == 1
        await world.clock.run_for(40)
        assert world.broker.transacting.service.unreadable == 0
        ((_, newest),) = questions(producer)
        assert end(producer, newest, COMMIT, fromTransactionCheck="true").code == 0
        assert delivered(world) == []
        world.store.confirm_offset = world.store.written_offset
        assert delivered(world) == [b"half"]


async def test_any_producer_of_the_group_is_asked() -> None:
    """Also one that came later; never one of another group, and one only."""
    async with make_world() as world:
        world.broker.start()
        sender, other, stranger = (world.client(port) for port in (1, 2, 3))
        sender.heartbeat(producer_beat("p1", "P"))
        other.heartbeat(producer_beat("p2", "P"))
        stranger.heartbeat(producer_beat("p3", "Q"))
        send_half(sender)
        sender.close()
        await world.clock.run_for(6.1)
        assert [body.body for _, body in questions(other)] == [b"half"]
        assert questions(stranger) == []


async def test_while_no_producer_is_there_nothing_is_asked() -> None:
    """Nor counted; the first that comes back is asked within a second."""
    async with make_world() as world:
        # The checks alone run, so that an hour passes in few steps of the clock.
        world.broker._tasks = [world.broker.transacting.start()]
        sender = world.client(1)
        send_half(sender)
        await world.clock.run_for(3_600)
        assert len(halves(world)) == 1
        back = world.client(2)
        back.heartbeat(producer_beat("p2", "P"))
        await world.clock.run_for(1.1)
        assert len(questions(back)) == 1
        assert [properties_of(record).get("TRANSACTION_CHECK_TIMES") for record in halves(world)] == [None, "1"]


async def test_after_all_questions_it_is_given_up() -> None:
    """The message lies in TRANS_CHECK_MAX_TIME_TOPIC, and is not committed any more."""
    settings = TransactionsConfig(check_interval_ms=1_000, check_interval_ms_max=1_000, check_max=3)
    async with make_world(transactions=settings) as world:
        producer = start_with_producer(world)
        send_half(producer)
        await world.clock.run_for(60)
        assert len(questions(producer)) == 3
        given_up = world.record(GIVEN_UP_TOPIC)
        assert (given_up.body, properties_of(given_up)["REAL_TOPIC"]) == (b"half", "T")
        reason = properties_of(given_up)["APOGEEMQ_FAILURE_REASON"]
        assert reason == "its producer group P decided nothing in 3 checks"
        refused = end(producer, halves(world)[-1], COMMIT)
        assert (refused.code, delivered(world)) == (1, [])
        assert world.broker.transacting.service.ended == {("T", Decision.GIVEN_UP): 1}


async def test_who_never_comes_back_loses_his_transaction() -> None:
    """After pending_hours_max, without a question."""
    async with make_world(transactions=TransactionsConfig(pending_hours_max=1)) as world:
        world.broker._tasks = [world.broker.transacting.start()]
        send_half(world.client())
        await world.clock.run_for(3_599)
        assert world.records(GIVEN_UP_TOPIC) == []
        await world.clock.run_for(10)
        assert world.record(GIVEN_UP_TOPIC).body == b"half"
        assert world.broker.transacting.checks.asked == 0


async def test_a_producer_may_ask_for_patience() -> None:
    """CHECK_IMMUNITY_TIME_IN_SECONDS is the time until the first question."""
    async with make_world() as world:
        producer = start_with_producer(world)
        send_half(producer, CHECK_IMMUNITY_TIME_IN_SECONDS="100")
        send_half(producer, key="U2", CHECK_IMMUNITY_TIME_IN_SECONDS="soon")
        await world.clock.run_for(7)
        assert [properties_of(message)["UNIQ_KEY"] for _, message in questions(producer)] == ["U2"]
        end(producer, halves(world)[-1], ROLLBACK)
        await world.clock.run_for(92)
        assert questions(producer) == []
        await world.clock.run_for(2)
        assert len(questions(producer)) == 1


# -- restarts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orderly", [True, False])
async def test_a_restart_knows_what_is_pending(orderly: bool) -> None:
    """And what is not; what was asked before counts on."""
    world = await make_world().__aenter__()
    client = world.client()
    for number in range(4):
        send_half(client, str(number).encode(), key=f"U{number}")
    first = halves(world)
    end(client, first[1], COMMIT)
    end(client, first[2], ROLLBACK)
    world.broker.start()
    client.heartbeat(producer_beat("p1", "P"))
    await world.clock.run_for(6.1)
    assert len(questions(client)) == 2
    async with await restart(world, orderly=orderly) as world:
        table = world.broker.transacting.table
        assert len(table) == 2
        pending = table.find(0)
        assert pending is not None
        assert (pending.offsets[0], pending.checks) == (0, 1)
        client = world.client()
        assert end(client, first[0], COMMIT).code == 0
        assert end(client, halves(world)[-1], ROLLBACK).code == 0
        assert sorted(delivered(world)) == [b"0", b"1"]
        assert len(table) == 0


async def test_any_copy_ends_the_transaction_after_a_restart() -> None:
    """Also one that the start did not read, because a newer one lies behind it."""
    world = await make_world().__aenter__()
    producer = start_with_producer(world)
    send_half(producer)
    await world.clock.run_for(6.1)
    await world.broker.transacting.checks.roll_forward(world.store.written_offset)
    await world.broker.saver.save_consumer_offsets()
    async with await restart(world) as world:
        _, asked_about, newest = halves(world)
        client = world.client()
        assert end(client, asked_about, COMMIT, fromTransactionCheck="true").code == 0
        assert end(client, newest, COMMIT).code == 0, "it is done"
        assert end(client, asked_about, COMMIT).code == 0, "it is done"
        assert delivered(world) == [b"half"]
        assert len(world.broker.transacting.table) == 0


async def test_progress_lets_a_start_read_little() -> None:
    """With nothing pending the pointers stand at the ends, in the file that Apache's broker reads."""
    world = await make_world().__aenter__()
    client = world.client()
    for number in range(3):
        send_half(client, key=f"U{number}")
        end(client, halves(world)[-1], COMMIT)
    await world.stop()
    table = world.files.load_consumer_offsets()
    assert table.query(HALF_TOPIC, GROUP, 0) == 3
    assert table.query(OP_TOPIC, GROUP, 0) == 3


async def test_a_broker_that_never_started_says_nothing_of_progress() -> None:
    """Else the next start would read nothing, and forget what is pending."""
    world = await make_world().__aenter__()
    send_half(world.client())
    await world.stop()
    again = make_world(world.disk, world)
    await again.stop()
    async with make_world(world.disk, again) as third:
        assert len(third.broker.transacting.table) == 1


async def test_a_damaged_operation_record_is_told() -> None:
    """And skipped: the producer is asked once more."""
    world = await make_world().__aenter__()
    send_half(world.client())
    topic = world.broker.topics.require(OP_TOPIC)
    host = b"\x7f\x00\x00\x01\x00\x00\x00\x01"
    world.broker.transacting.service._writer.put(topic, 0, 0, 0, 0, host, 0, b"nonsense", b"TAGS\x01d\x02", 100)
    async with await restart(world) as world:
        assert len(world.broker.transacting.table) == 1
        assert world.broker.transacting.service.unreadable == 1


# -- files that go -----------------------------------------------------------------------------------------------------


async def test_a_half_message_outlives_its_file() -> None:
    """It is stored anew, and can be committed by its newest copy; nothing was asked for that."""
    small = StoreSettings(commit_log_size_bytes_max=4 * 8192, clean_resource_interval_ms=1)
    async with World(store=small, log_file_size_bytes=8192) as world:
        for name in ("T", "Filler"):
            world.broker.topics.put(TopicConfig(topic_name=name, read_queue_nums=4, write_queue_nums=4))
        world.mark_saved()
        world.broker.start()
        client = world.client()
        send_half(client)
        fill_files(world)
        await clean(world)
        assert world.store.min_physical_offset >= 4 * 8192
        pending = world.broker.transacting.table.find(0)
        assert pending is not None
        assert (pending.newest, pending.checks) == (1, 0)
        data = world.store.record_at(pending.physical_offset)
        assert data is not None
        assert end(client, decode_record(data), COMMIT).code == 0
        assert delivered(world) == [b"half"]
