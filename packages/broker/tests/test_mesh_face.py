"""The calls of the mesh door: sends, pops, settling, topics, groups, clients, offsets, as a proxy sees them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable

import pytest
from apogeemq.broker.config import FlushDiskType, LimitsConfig, StoreSettings, TopicsConfig
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.v1 import broker_pb2 as pb
from apogeemq.mesh.v1 import methods
from apogeemq.remoting_codec.batch import BatchMessage, encode_batch
from apogeemq.remoting_codec.bodies import TopicConfig
from apogeemq.remoting_codec.codes import MessageSysFlag, RequestCode, ResponseCode
from apogeemq.remoting_codec.record import decode_records, encode_host
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.mesh_asking import BORN_HOST, BORN_TIMESTAMP_MS, Asker, handles_of, send_request
from packages.broker.tests.world import World, consumer_beat, properties_of, pull_fields, until

SYNC = StoreSettings(flush_disk_type=FlushDiskType.SYNC_FLUSH)


async def world_with_topic(
    disk: MemoryDisk | None = None,
    *,
    store: StoreSettings | None = None,
    topics: TopicsConfig | None = None,
    limits: LimitsConfig | None = None,
) -> World:
    world = World(disk, store=store, topics=topics, limits=limits)
    world.broker.topics.put(TopicConfig(topic_name="T", read_queue_nums=4, write_queue_nums=4))
    world.mark_saved()
    await world.broker.popping.restore()
    return world


async def refusal_of(asking: Awaitable[object]) -> CallRefused:
    with pytest.raises(CallRefused) as refused:
        await asking
    return refused.value


def bodies_of(runs: Iterable[pb.PoppedRun]) -> list[bytes]:
    return [record.body for run in runs for record in decode_records(run.records)]


# -- sends -------------------------------------------------------------------------------------------------------------


async def test_a_send_is_stored_as_it_was_given() -> None:
    """Every field of the request is in the record; the reply names it as a Remoting reply does."""
    async with await world_with_topic() as world:
        request = send_request(properties=b"UNIQ_KEY\x01U1\x02TAGS\x01a\x02")
        request.queue_id, request.flag, request.sys_flag, request.reconsume_times = 3, -7, 1, 2
        reply = await Asker(world).ask(methods.SEND_MESSAGE, request)
        record = world.record("T", 3)
        assert (record.body, record.flag, record.sys_flag, record.reconsume_times) == (b"hello", -7, 1, 2)
        assert (record.born_host, record.born_timestamp_ms) == (BORN_HOST, BORN_TIMESTAMP_MS)
        assert properties_of(record)["TAGS"] == "a"
        assert (reply.status, reply.message_id, reply.queue_id, reply.queue_offset) == (pb.SEND_OK, "U1", 3, 0)
        assert reply.offset_message_id == "7F00000100002A9F" + "0" * 16
        assert reply.transaction_id == "U1"


async def test_a_send_over_the_mesh_is_pulled_over_remoting() -> None:
    """One store behind both doors."""
    async with await world_with_topic() as world:
        await Asker(world).send(body=b"crossing")
        client = world.client()
        client.heartbeat(consumer_beat())
        assert decode_records(client.request(RequestCode.PULL_MESSAGE, pull_fields()).body)[0].body == b"crossing"


async def test_a_batch_becomes_its_messages() -> None:
    """Offsets follow the first one's; the ids are comma-joined, as over Remoting."""
    async with await world_with_topic() as world:
        request = send_request(body=encode_batch([BatchMessage(0, b"one", b""), BatchMessage(0, b"two", b"")]))
        request.batch = True
        reply = await Asker(world).ask(methods.SEND_MESSAGE, request)
        assert [record.body for record in world.records("T")] == [b"one", b"two"]
        assert (reply.queue_offset, reply.offset_message_id.count(",")) == (0, 1)


async def test_a_client_with_an_ipv6_address_keeps_it() -> None:
    """16 bytes of address go with the bit in the record's system flag."""
    async with await world_with_topic() as world:
        request = send_request()
        request.born_host = encode_host("2001:db8::9", 40_001)
        request.sys_flag = MessageSysFlag.BORNHOST_V6_FLAG
        await Asker(world).ask(methods.SEND_MESSAGE, request)
        record = world.record("T")
        assert record.born_host == request.born_host
        assert record.sys_flag & MessageSysFlag.BORNHOST_V6_FLAG


@pytest.mark.parametrize(("maximum", "topic"), [(None, "%RETRY%G"), (3, "%RETRY%G"), (2, "%DLQ%G"), (0, "%DLQ%G")])
async def test_a_retry_counts_against_the_senders_maximum(maximum: int | None, topic: str) -> None:
    """0 is a maximum like any other; without one the group's 16 counts."""
    async with await world_with_topic() as world:
        world.broker.groups.find_or_create("G")
        request = send_request("%RETRY%G")
        request.reconsume_times = 3
        if maximum is not None:
            request.max_reconsume_times = maximum
        sending = asyncio.ensure_future(Asker(world).ask(methods.SEND_MESSAGE, request))
        await asyncio.sleep(0)
        await world.broker.saver.save_topics()
        await sending
        assert len(world.records(topic)) == 1


@pytest.mark.parametrize(
    ("request_fields", "code"),
    [
        ({"topic": "SCHEDULE_TOPIC_XXXX"}, ResponseCode.NO_PERMISSION),
        ({"topic": "New", "default_topic": ""}, ResponseCode.TOPIC_NOT_EXIST),
        ({"topic": "bad name"}, ResponseCode.INVALID_PARAMETER),
        ({"queue_id": 4}, ResponseCode.INVALID_PARAMETER),
        ({"properties": b"\xff"}, ResponseCode.MESSAGE_ILLEGAL),
        ({"sys_flag": 4}, ResponseCode.MESSAGE_ILLEGAL),
        ({"properties": b"TRAN_MSG\x01true\x02"}, ResponseCode.MESSAGE_ILLEGAL),
    ],
)
async def test_a_refused_send_has_the_code_of_remoting(
    request_fields: dict[str, str | int | bytes], code: ResponseCode
) -> None:
    """One table of errors behind both doors; nothing is stored."""
    async with await world_with_topic() as world:
        request = send_request()
        for name, value in request_fields.items():
            setattr(request, name, value)
        assert (await refusal_of(Asker(world).ask(methods.SEND_MESSAGE, request))).code == code
        assert world.store.written_offset == 0


async def test_a_send_waits_for_its_new_topic() -> None:
    """Acknowledged once the topic would be found again after a crash."""
    async with await world_with_topic() as world:
        sending = asyncio.ensure_future(Asker(world).send("New"))
        await asyncio.sleep(0)
        assert not sending.done()
        assert len(world.records("New")) == 1
        await world.broker.saver.save_topics()
        assert (await sending).status == pb.SEND_OK


async def test_a_send_waits_for_its_flush() -> None:
    """With SYNC_FLUSH; the status says when the time was up, as Remoting's code does."""
    async with await world_with_topic(store=SYNC) as world:
        sending = asyncio.ensure_future(Asker(world).send())
        await asyncio.sleep(0)
        assert not sending.done()
        assert world.broker.flush_line is not None
        world.broker.flush_line.expire(1e9)
        reply = await sending
        assert (reply.status, reply.queue_offset) == (pb.FLUSH_DISK_TIMEOUT, 0)
        assert world.broker.call_stats.counts == {("SendMessage", 0): 1}


async def test_a_flush_that_fails_refuses() -> None:
    """It may be stored: SYSTEM_ERROR, and not the code by which a proxy sends it again unasked."""
    async with await world_with_topic(store=SYNC) as world:
        sending = asyncio.ensure_future(Asker(world).send())
        await asyncio.sleep(0)
        assert world.broker.flush_line is not None
        world.broker.flush_line.fail()
        refused = await refusal_of(sending)
        assert refused.code == ResponseCode.SYSTEM_ERROR
        assert "send it again" in refused.text
        assert world.broker.call_stats.counts == {("SendMessage", 1): 1}


async def test_an_asker_that_stopped_waiting_is_no_matter() -> None:
    """The message is stored; nobody is told."""
    async with await world_with_topic() as world:
        sending = asyncio.ensure_future(Asker(world).send("New"))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait({sending})
        await world.broker.saver.save_topics()
        assert len(world.records("New")) == 1


async def test_a_full_line_refuses_before_anything_is_stored() -> None:
    """With the code that lets a client go elsewhere."""
    async with await world_with_topic(limits=LimitsConfig(waiting_acknowledgements_max=1)) as world:
        asker = Asker(world)
        waiting = asyncio.ensure_future(asker.send("New"))
        await asyncio.sleep(0)
        stored = world.store.written_offset
        assert (await refusal_of(asker.send("New"))).code == ResponseCode.SYSTEM_BUSY
        assert world.store.written_offset == stored
        waiting.cancel()


# -- pops and what becomes of them -------------------------------------------------------------------------------------


async def test_what_is_popped_is_acknowledged_with_its_handle() -> None:
    """Records as they are stored, with all that a handle is made of; a second pop finds nothing."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        for number in range(3):
            await asker.send(body=b"%d" % number)
        popped = await asker.pop()
        assert (popped.status, bodies_of(popped.runs)) == (pb.POP_FOUND, [b"0", b"1", b"2"])
        assert (popped.pop_time_ms, popped.invisible_time_ms) == (world.clock.now_ms(), 60_000)
        handles = handles_of(popped)
        assert [handle.queue_offset for handle in handles] == [0, 1, 2]
        assert (await asker.pop()).status == pb.POP_POLLING_TIMEOUT
        request = pb.AckMessageRequest(consumer_group="G", topic="T", handles=handles)
        assert (await asker.ask(methods.ACK_MESSAGE, request)).results == [pb.HANDLE_OK] * 3
        assert (await asker.ask(methods.ACK_MESSAGE, request)).results == [pb.HANDLE_OK] * 3, "idempotent"


async def test_handles_that_name_nothing_are_told_apart() -> None:
    """A message that is not there, and one whose time is over."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        await asker.send()
        (handle,) = handles_of(await asker.pop(invisible_time_ms=1_000))
        missing = pb.PopHandle()
        missing.CopyFrom(handle)
        missing.queue_offset = 7
        world.clock.advance(2.0)
        request = pb.AckMessageRequest(consumer_group="G", topic="T", handles=[handle, missing])
        results = (await asker.ask(methods.ACK_MESSAGE, request)).results
        assert results == [pb.HANDLE_EXPIRED, pb.HANDLE_NO_MESSAGE]


async def test_a_changed_time_makes_a_new_handle() -> None:
    """The old one is dead from then on."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        await asker.send()
        (handle,) = handles_of(await asker.pop())
        world.clock.advance(1.0)
        request = pb.ChangeInvisibleTimeRequest(consumer_group="G", topic="T", handle=handle, invisible_time_ms=5_000)
        changed = await asker.ask(methods.CHANGE_INVISIBLE_TIME, request)
        assert (changed.result, changed.invisible_time_ms) == (pb.HANDLE_OK, 5_000)
        assert changed.pop_time_ms == world.clock.now_ms()
        ack = pb.AckMessageRequest(consumer_group="G", topic="T", handles=[handle])
        assert (await asker.ask(methods.ACK_MESSAGE, ack)).results == [pb.HANDLE_EXPIRED]
        ack.handles[0].pop_time_ms, ack.handles[0].invisible_time_ms = changed.pop_time_ms, 5_000
        assert (await asker.ask(methods.ACK_MESSAGE, ack)).results == [pb.HANDLE_OK]


async def test_more_time_leaves_the_handle_alive() -> None:
    """Whoever holds the original one may still acknowledge with it."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        await asker.send()
        (handle,) = handles_of(await asker.pop(invisible_time_ms=1_000))
        extend = pb.ExtendInvisibleRequest(consumer_group="G", topic="T", handles=[handle], invisible_time_ms=60_000)
        assert (await asker.ask(methods.EXTEND_INVISIBLE, extend)).results == [pb.HANDLE_OK]
        world.clock.advance(30.0)
        ack = pb.AckMessageRequest(consumer_group="G", topic="T", handles=[handle])
        assert (await asker.ask(methods.ACK_MESSAGE, ack)).results == [pb.HANDLE_OK]


async def test_a_pop_that_is_cancelled_at_any_turn() -> None:
    """What it popped is told, late; and what was not told is there for the next."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        late: list[pb.PopMessageReply] = []
        got: list[bytes] = []
        left: list[bytes] = []
        for turns in range(8):
            request = pb.PopMessageRequest(
                consumer_group="G",
                topic="T",
                queue_id=-1,
                max_msg_nums=1,
                invisible_time_ms=60_000,
                poll_time_ms=5_000,
            )
            pop = asker.caller.call(methods.POP_MESSAGE, request, timeout_s=9.0, on_late=late.append)
            popping = asyncio.ensure_future(pop)
            for _ in range(3):
                await asyncio.sleep(0)
            sending = asyncio.ensure_future(asker.send(body=b"%d" % turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            popping.cancel()
            await sending
            with contextlib.suppress(asyncio.CancelledError):
                got += bodies_of((await popping).runs)
            left += bodies_of((await asker.pop()).runs)
        told = [body for reply in late for body in bodies_of(reply.runs)]
        assert sorted(got + told + left) == [b"%d" % turns for turns in range(8)]
        assert all((got, told, left))


async def test_a_pop_waits_for_a_message() -> None:
    """From either door; it is answered in the turn in which it comes."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        popping = asyncio.ensure_future(asker.pop(poll_time_ms=15_000))
        await asyncio.sleep(0)
        assert not popping.done()
        await asker.send(body=b"at last")
        assert bodies_of((await popping).runs) == [b"at last"]


async def test_a_pop_is_told_that_nothing_came_before_its_asker_gives_up() -> None:
    """The poll time may be longer than the call's: the answer still reaches the asker."""
    async with await world_with_topic() as world:
        world.broker.start()
        caller = Asker(world)
        request = pb.PopMessageRequest(
            consumer_group="G", topic="T", max_msg_nums=1, invisible_time_ms=60_000, poll_time_ms=60_000
        )
        popping = asyncio.ensure_future(caller.ask(methods.POP_MESSAGE, request, timeout_s=5.0))
        await world.clock.run_for(5.0)
        assert (await popping).status == pb.POP_POLLING_TIMEOUT


async def test_too_many_waiting_pops_are_told() -> None:
    """A status, not a refusal: the consumer asks again later."""
    async with await world_with_topic(limits=LimitsConfig(held_pops_max=1)) as world:
        asker = Asker(world)
        waiting = asyncio.ensure_future(asker.pop(poll_time_ms=15_000))
        await asyncio.sleep(0)
        assert (await asker.pop(poll_time_ms=15_000)).status == pb.POP_POLLING_FULL
        waiting.cancel()


# -- topics and groups -------------------------------------------------------------------------------------------------


async def test_a_topic_is_described() -> None:
    """With the type of its messages, which its attributes hold; an unknown one is not found."""
    async with await world_with_topic() as world:
        config = TopicConfig(
            topic_name="F", read_queue_nums=2, write_queue_nums=1, perm=4, attributes={"message.type": "FIFO"}
        )
        world.broker.topics.put(config)
        asker = Asker(world)
        reply = await asker.ask(methods.QUERY_TOPIC, pb.QueryTopicRequest(topic="F"))
        assert reply == pb.QueryTopicReply(
            found=True, read_queue_nums=2, write_queue_nums=1, perm=4, message_type="FIFO"
        )
        assert (await asker.ask(methods.QUERY_TOPIC, pb.QueryTopicRequest(topic="T"))).message_type == ""
        assert not (await asker.ask(methods.QUERY_TOPIC, pb.QueryTopicRequest(topic="X"))).found


@pytest.mark.parametrize(("queue_nums", "made"), [(0, 8), (3, 3), (100, 8)])
async def test_a_topic_is_made_from_the_template(queue_nums: int, made: int) -> None:
    """Never more queues than TBW102 has (8 by default); the answer waits until it is written."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        request = pb.EnsureTopicRequest(topic="New", queue_nums=queue_nums)
        asking = asyncio.ensure_future(asker.ask(methods.ENSURE_TOPIC, request))
        again = asyncio.ensure_future(asker.ask(methods.ENSURE_TOPIC, request))
        await asyncio.sleep(0)
        assert not asking.done()
        assert not again.done(), "made, but not written yet"
        await world.broker.saver.save_topics()
        assert ((await asking).created, (await again).created) == (True, False)
        topic = world.broker.topics.get("New")
        assert topic is not None
        assert (topic.config.write_queue_nums, topic.config.perm) == (made, 6)


async def test_a_topic_is_not_made_where_sends_make_none() -> None:
    """autoCreateTopicEnable decides; one that is there is fine."""
    async with await world_with_topic(topics=TopicsConfig(auto_create_topic_enable=False)) as world:
        asker = Asker(world)
        refused = await refusal_of(asker.ask(methods.ENSURE_TOPIC, pb.EnsureTopicRequest(topic="New")))
        assert refused.code == ResponseCode.TOPIC_NOT_EXIST
        assert not (await asker.ask(methods.ENSURE_TOPIC, pb.EnsureTopicRequest(topic="T"))).created


async def test_a_topic_that_could_not_be_written_is_refused() -> None:
    """It may be gone after a crash: whoever asked is to ask again."""
    async with await world_with_topic() as world:
        asking = asyncio.ensure_future(Asker(world).ask(methods.ENSURE_TOPIC, pb.EnsureTopicRequest(topic="New")))
        await asyncio.sleep(0)
        world.broker.topic_line.expire(1e9)
        refused = await refusal_of(asking)
        assert refused.code == ResponseCode.SERVICE_NOT_AVAILABLE
        assert refused.text.startswith("topic New is made")


async def test_a_group_is_made_when_asked_for() -> None:
    """With its retry topic; without `create` an unknown one is not found."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        query = pb.QueryGroupRequest(consumer_group="G2")
        assert not (await asker.ask(methods.QUERY_GROUP, query)).found
        query.create = True
        reply = await asker.ask(methods.QUERY_GROUP, query)
        assert (reply.found, reply.consume_enable, reply.retry_max_times) == (True, True, 16)
        assert not reply.consume_message_orderly
        assert world.broker.topics.get("%RETRY%G2") is not None


async def test_a_group_is_not_made_where_it_may_not_be() -> None:
    """autoCreateSubscriptionGroup decides."""
    async with await world_with_topic(topics=TopicsConfig(auto_create_subscription_group=False)) as world:
        query = pb.QueryGroupRequest(consumer_group="G2", create=True)
        assert not (await Asker(world).ask(methods.QUERY_GROUP, query)).found


# -- clients -----------------------------------------------------------------------------------------------------------


async def test_a_proxys_client_is_a_member_until_its_proxy_is_gone() -> None:
    """Remoting members of its group are told of both; the proxy itself is told nothing."""
    async with await world_with_topic() as world:
        client = world.client()
        client.heartbeat(consumer_beat("remoting"))
        client.pushed()
        asker = Asker(world)
        await asker.heartbeat("c1")
        assert world.broker.group_service.consumer_ids("G") == ["remoting", "c1"]
        assert [command.code for command in client.pushed()] == [RequestCode.NOTIFY_CONSUMER_IDS_CHANGED]
        await asker.caller.close()
        assert world.broker.group_service.consumer_ids("G") == ["remoting"]
        assert [command.code for command in client.pushed()] == [RequestCode.NOTIFY_CONSUMER_IDS_CHANGED]


async def test_a_client_unregisters_from_the_groups_it_names() -> None:
    """And stays in the others."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        await asker.heartbeat("c1", "G")
        await asker.heartbeat("c1", "H")
        request = pb.UnregisterClientRequest(client_id="c1", consumer_groups=["G"], producer_groups=["P"])
        await asker.ask(methods.UNREGISTER_CLIENT, request)
        assert world.broker.clients.consumer_group("G") is None
        assert world.broker.group_service.consumer_ids("H") == ["c1"]


async def test_silent_clients_of_a_proxy_leave_alone() -> None:
    """Their proxy and its other clients stay."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        world.broker.start()
        await asker.heartbeat("silent")
        await world.clock.run_for(100.0)
        await asker.heartbeat("alive")
        await world.clock.run_for(40.0)
        assert world.broker.group_service.consumer_ids("G") == ["alive"]


@pytest.mark.parametrize("field", ["consume_type", "message_model", "consume_from_where"])
async def test_a_consumers_settings_are_rocketmqs_names(field: str) -> None:
    """The refusal lists them."""
    async with await world_with_topic() as world:
        consumer = pb.ClientHeartbeatRequest.ConsumerData(group="G")
        setattr(consumer, field, "NONE")
        request = pb.ClientHeartbeatRequest(client_id="c1", consumers=[consumer])
        refused = await refusal_of(Asker(world).ask(methods.CLIENT_HEARTBEAT, request))
        assert refused.code == ResponseCode.INVALID_PARAMETER
        assert refused.text.startswith(f"consumers[0].{field} is 'NONE'; it must be one of ")


# -- offsets -----------------------------------------------------------------------------------------------------------


async def test_offsets_are_kept_and_told() -> None:
    """Committed, begin, end, and by time: the first message at or after it."""
    async with await world_with_topic() as world:
        asker = Asker(world)
        world.broker.groups.find_or_create("G")
        times = []
        for _ in range(3):
            world.clock.advance(1.0)
            times.append(world.clock.now_ms())
            await asker.send()

        async def offset(kind: int, *, consumer_group: str = "", timestamp_ms: int = 0) -> tuple[bool, int]:
            request = pb.QueryOffsetRequest(
                topic="T", kind=pb.OffsetKind.Name(kind), consumer_group=consumer_group, timestamp_ms=timestamp_ms
            )
            reply = await asker.ask(methods.QUERY_OFFSET, request)
            return reply.found, reply.queue_offset

        assert await offset(pb.OFFSET_COMMITTED, consumer_group="G") == (False, 0)
        update = pb.UpdateOffsetRequest(topic="T", consumer_group="G", queue_offset=2)
        await asker.ask(methods.UPDATE_OFFSET, update)
        assert await offset(pb.OFFSET_COMMITTED, consumer_group="G") == (True, 2)
        assert await offset(pb.OFFSET_MIN) == (True, 0)
        assert await offset(pb.OFFSET_MAX) == (True, 3)
        assert await offset(pb.OFFSET_BY_TIME, timestamp_ms=times[1]) == (True, 1)
        assert await offset(pb.OFFSET_BY_TIME, timestamp_ms=times[1] + 1) == (True, 2)


@pytest.mark.parametrize("kind", [pb.OFFSET_MIN, pb.OFFSET_MAX, pb.OFFSET_BY_TIME])
async def test_offsets_of_an_unknown_topic_are_refused(kind: int) -> None:
    """At once, or out of the thread that searches."""
    async with await world_with_topic() as world:
        request = pb.QueryOffsetRequest(topic="X", kind=pb.OffsetKind.Name(kind))
        refused = await refusal_of(Asker(world).ask(methods.QUERY_OFFSET, request))
        assert refused.code == ResponseCode.TOPIC_NOT_EXIST
        assert world.broker.call_stats.counts == {("QueryOffset", 17): 1}


async def test_old_messages_are_found_by_time_in_a_thread() -> None:
    """The loop goes on meanwhile; the search counts among the reads that may wait for the disk."""
    disk = MemoryDisk()
    async with await world_with_topic(disk, store=StoreSettings(hot_window_bytes=1)) as world:
        asker = Asker(world)
        await asker.send()
        request = pb.QueryOffsetRequest(topic="T", kind=pb.OFFSET_BY_TIME, timestamp_ms=1)
        asking = asyncio.ensure_future(asker.ask(methods.QUERY_OFFSET, request))
        await until(asking.done)
        assert asking.result().queue_offset == 0
