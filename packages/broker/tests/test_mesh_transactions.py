"""Transactions of producers behind a proxy: half messages, their end, and questions that their proxy takes."""

import asyncio

import pytest
from apogeemq.broker.config import FlushDiskType, StoreSettings
from apogeemq.broker.service import proxied_checks
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.v1 import broker_pb2 as pb
from apogeemq.mesh.v1 import methods
from apogeemq.remoting_codec.record import Record, decode_record

from packages.broker.tests.mesh_asking import Asker, send_request
from packages.broker.tests.test_transactions import delivered, halves, make_world
from packages.broker.tests.world import World, properties_of, until

COMMIT, ROLLBACK = pb.TRANSACTION_COMMIT, pb.TRANSACTION_ROLLBACK


async def send_half(asker: Asker, key: str = "U1", body: bytes = b"half", group: str = "P") -> pb.SendMessageReply:
    """What a proxy makes of a gRPC producer's transaction message."""
    properties = f"TRAN_MSG\x01true\x02PGROUP\x01{group}\x02UNIQ_KEY\x01{key}\x02"
    request = send_request("T", body, properties.encode())
    request.sys_flag = 4
    return await asker.ask(methods.SEND_MESSAGE, request)


def end_request(
    half: Record, resolution: pb.TransactionResolution = COMMIT, group: str = "P", message_id: str = "U1"
) -> pb.EndTransactionRequest:
    return pb.EndTransactionRequest(
        producer_group=group,
        queue_offset=half.queue_offset,
        physical_offset=half.physical_offset,
        resolution=resolution,
        message_id=message_id,
    )


async def end(asker: Asker, request: pb.EndTransactionRequest) -> pb.EndTransactionResult:
    return (await asker.ask(methods.END_TRANSACTION, request)).result


async def beat(asker: Asker, client_id: str = "c1", group: str = "P") -> None:
    """A producer behind the asker lives."""
    await asker.ask(methods.CLIENT_HEARTBEAT, pb.ClientHeartbeatRequest(client_id=client_id, producer_groups=[group]))


def taking(asker: Asker, max_nums: int = 32) -> "asyncio.Future[pb.TakeTransactionChecksReply]":
    """The asker waits for questions."""
    request = pb.TakeTransactionChecksRequest(max_nums=max_nums, poll_time_ms=60_000)
    return asyncio.ensure_future(asker.ask(methods.TAKE_TRANSACTION_CHECKS, request, timeout_s=90.0))


async def started_with_producer(world: World, client_id: str = "c1") -> tuple[Asker, "asyncio.Future[object]"]:
    """A broker at work, and a proxy of one producer, which waits for questions."""
    world.broker.start()
    asker = Asker(world)
    await beat(asker, client_id)
    waiting = taking(asker)
    await asyncio.sleep(0)
    return asker, waiting  # type: ignore[return-value]  # a future of a reply is one of an object here


# -- half messages and their end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("resolution", "bodies"), [(COMMIT, [b"half"]), (ROLLBACK, [])])
async def test_a_half_message_is_kept_aside_until_its_end(
    resolution: pb.TransactionResolution, bodies: list[bytes]
) -> None:
    """The answer to the send has what its end must name: the half topic's queue offset, and by its id the log's."""
    async with make_world() as world:
        asker = Asker(world)
        reply = await send_half(asker)
        (half,) = halves(world)
        assert (reply.queue_offset, reply.transaction_id) == (half.queue_offset, "U1")
        assert int(reply.offset_message_id[-16:], 16) == half.physical_offset
        assert delivered(world) == []
        assert await end(asker, end_request(half, resolution)) == pb.END_OK
        assert delivered(world) == bodies
        assert len(world.broker.transacting.table) == 0


async def test_an_end_that_comes_twice() -> None:
    """In the same way it changes nothing, as after a lost stream; in the other way it is told so."""
    async with make_world() as world:
        asker = Asker(world)
        await send_half(asker)
        (half,) = halves(world)
        for _ in range(2):
            assert await end(asker, end_request(half)) == pb.END_OK
        reply = await asker.ask(methods.END_TRANSACTION, end_request(half, ROLLBACK))
        assert reply.result == pb.END_NOT_FOUND
        assert "ended already (commit)" in reply.remark
        assert delivered(world) == [b"half"]


@pytest.mark.parametrize(
    ("field", "value", "remark"),
    [
        ("producer_group", "Q", "producer group wrong"),
        ("queue_offset", 7, "state table offset wrong"),
        ("physical_offset", 1 << 40, "no message begins"),
        ("message_id", "U2", "message id wrong"),
    ],
)
async def test_an_end_that_names_no_half_message(field: str, value: object, remark: str) -> None:
    """It is told apart from what fails, and nothing is decided."""
    async with make_world() as world:
        asker = Asker(world)
        await send_half(asker)
        request = end_request(halves(world)[0])
        setattr(request, field, value)
        reply = await asker.ask(methods.END_TRANSACTION, request)
        assert reply.result == pb.END_NOT_FOUND
        assert remark in reply.remark
        assert len(world.broker.transacting.table) == 1


async def test_an_end_without_resolution_is_refused() -> None:
    """Whoever does not know yet says nothing."""
    async with make_world() as world:
        asker = Asker(world)
        await send_half(asker)
        request = end_request(halves(world)[0], pb.TRANSACTION_RESOLUTION_UNSPECIFIED)
        with pytest.raises(CallRefused, match="resolution is 0"):
            await asker.ask(methods.END_TRANSACTION, request)


async def test_an_old_half_message_is_read_in_a_thread() -> None:
    """It lies beyond the window of what is in memory."""
    world = World(store=StoreSettings(hot_window_bytes=0))
    world.create_topic("T")
    async with world:
        asker = Asker(world)
        await send_half(asker)
        assert await end(asker, end_request(halves(world)[0])) == pb.END_OK
        assert delivered(world) == [b"half"]


async def test_with_sync_flush_the_end_waits_for_the_disk() -> None:
    """As over Remoting: who is told that it ended finds it so after a crash."""
    world = World(store=StoreSettings(flush_disk_type=FlushDiskType.SYNC_FLUSH))
    world.create_topic("T")
    async with world:
        asker = Asker(world)
        sending = asyncio.ensure_future(send_half(asker))
        await until(lambda: bool(halves(world)))
        world.store.flush_once()
        await sending
        ending = asyncio.ensure_future(end(asker, end_request(halves(world)[0])))
        await until(lambda: bool(delivered(world)))
        assert not ending.done()
        world.store.flush_once()
        assert await ending == pb.END_OK


# -- questions ---------------------------------------------------------------------------------------------------------


async def test_a_proxy_takes_the_questions_of_its_producers() -> None:
    """The half message under its real topic; its offsets are the new copy's, which ends the transaction."""
    async with make_world() as world:
        asker, waiting = await started_with_producer(world)
        await send_half(asker)
        await world.clock.run_for(5.9)
        assert not waiting.done()
        await world.clock.run_for(0.2)
        (check,) = (await waiting).checks  # type: ignore[attr-defined]
        record = decode_record(check.record)
        assert (check.producer_group, check.client_id, check.message_id) == ("P", "c1", "U1")
        assert (record.topic, record.queue_id, record.body, record.queue_offset) == ("T", 0, b"half", 1)
        assert properties_of(record)["TRANSACTION_CHECK_TIMES"] == "1"
        assert check.offset_message_id.endswith(f"{record.physical_offset:016X}")
        assert await end(asker, end_request(record)) == pb.END_OK
        assert delivered(world) == [b"half"]


async def test_who_never_took_questions_is_not_asked() -> None:
    """An older proxy: nothing is counted, and another proxy's producer of the group is asked instead."""
    async with make_world() as world:
        world.broker.start()
        old, new = Asker(world), Asker(world)
        await beat(old, "behind-old")
        await send_half(old)
        await world.clock.run_for(10.0)
        assert world.broker.transacting.checks.asked == 0
        await beat(new, "behind-new")
        waiting = taking(new)
        await asyncio.sleep(0)
        await world.clock.run_for(2.0)
        (check,) = (await waiting).checks
        assert check.client_id == "behind-new"


async def test_a_proxy_that_is_gone_is_not_asked() -> None:
    """What waited for it is lost, and comes again to another one by the transaction's back-off."""
    async with make_world() as world:
        asker, waiting = await started_with_producer(world)
        waiting.cancel()
        await send_half(asker)
        await world.clock.run_for(6.1)
        assert len(world.broker.transacting.proxied) == 1
        await asker.caller.close()
        assert len(world.broker.transacting.proxied) == 0
        other = Asker(world)
        await beat(other, "c2")
        again = taking(other)
        await world.clock.run_for(31.0)
        assert [check.client_id for check in (await again).checks] == ["c2"]


async def test_what_was_decided_meanwhile_is_no_question_any_more() -> None:
    """Nor is one that was asked anew."""
    async with make_world() as world:
        asker, waiting = await started_with_producer(world)
        waiting.cancel()
        for key in ("U1", "U2"):
            await send_half(asker, key)
        await world.clock.run_for(6.1)
        first, second = halves(world)[2:]
        assert await end(asker, end_request(first)) == pb.END_OK
        await world.clock.run_for(31.0)  # the second one is asked once more
        assert len(world.broker.transacting.proxied) == 3
        (check,) = (await taking(asker)).checks
        assert check.message_id == "U2"
        assert decode_record(check.record).queue_offset > second.queue_offset


async def test_nothing_comes_in_time() -> None:
    """The answer is empty, and the asker asks again."""
    async with make_world() as world:
        _, waiting = await started_with_producer(world)
        await world.clock.run_for(60.5)
        assert list((await waiting).checks) == []  # type: ignore[attr-defined]


async def test_questions_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that the proxy is nobody to be asked: nothing is counted, and the question is put when there is room."""
    monkeypatch.setattr(proxied_checks, "WAITING_MAX", 2)
    async with make_world() as world:
        asker, waiting = await started_with_producer(world)
        waiting.cancel()
        for key in ("U1", "U2", "U3"):
            await send_half(asker, key)
        await world.clock.run_for(7.0)
        assert world.broker.transacting.checks.asked == 2
        assert [check.message_id for check in (await taking(asker, 1)).checks] == ["U1"]
        await world.clock.run_for(2.0)
        assert world.broker.transacting.checks.asked == 3
        assert [check.message_id for check in (await taking(asker)).checks] == ["U2", "U3"]


async def test_one_answer_has_few_large_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one fits however large it is."""
    monkeypatch.setattr(proxied_checks, "TAKEN_SIZE_BYTES", 3_000)
    async with make_world() as world:
        asker, waiting = await started_with_producer(world)
        waiting.cancel()
        for number in range(4):
            await send_half(asker, f"U{number}", b"x" * 2_000)
        await world.clock.run_for(6.1)
        assert [len((await taking(asker)).checks) for _ in range(2)] == [2, 2]
