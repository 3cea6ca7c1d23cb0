"""Acknowledgements that wait: for anything, for the disk, for a new topic's file."""

import errno
from random import Random

import pytest
from apogeemq.broker.config import FlushDiskType, LimitsConfig, StoreSettings
from apogeemq.broker.errors import SystemBusy
from apogeemq.broker.service.durability import AcknowledgementLine, Outcome
from apogeemq.store.errors import TooManyWaiters
from apogeemq.store.faulty_disk import FaultyDisk

from packages.broker.tests.world import Client, World, fields_of, pull_fields, send_fields, until

SYNC = StoreSettings(flush_disk_type=FlushDiskType.SYNC_FLUSH, sync_flush_timeout_ms=5_000)


def line_with(*targets: int, waiting_max: int = 10) -> tuple[AcknowledgementLine, list[tuple[int, Outcome]]]:
    line = AcknowledgementLine(waiting_max=waiting_max, what="the disk")
    seen: list[tuple[int, Outcome]] = []
    for target in targets:
        line.add(target, float(target), lambda outcome, target=target: seen.append((target, outcome)))  # type: ignore[misc]  # default binds the number
    return line, seen


def test_one_flush_lets_all_go_that_it_covers() -> None:
    """Those at or below the reached offset are done, in order; the others wait on."""
    line, seen = line_with(10, 20, 30)
    line.reached(9)
    assert seen == []
    line.reached(20)
    assert seen == [(10, Outcome.DONE), (20, Outcome.DONE)]
    assert len(line) == 1


def test_who_waits_too_long_times_out() -> None:
    """The deadline ends a wait once, and a later flush does not end it again."""
    line, seen = line_with(10, 20)
    line.expire(9.9)
    line.expire(10.0)
    line.reached(99)
    assert seen == [(10, Outcome.TIMEOUT), (20, Outcome.DONE)]


def test_a_failed_flush_fails_all() -> None:
    """Nobody is left waiting for what can't happen."""
    line, seen = line_with(10, 20)
    line.fail()
    assert seen == [(10, Outcome.FAILED), (20, Outcome.FAILED)]
    assert len(line) == 0


def test_a_full_line_refuses_with_its_limit() -> None:
    """The refusal comes before anything is stored and names the limit and its value."""
    line, _ = line_with(10, waiting_max=2)
    line.check_room()
    line.add(20, 1.0, lambda outcome: None)
    with pytest.raises(SystemBusy, match=r"wait for the disk, the limit \(limits.waiting_acknowledgements_max\) is 2"):
        line.check_room()


def test_who_comes_late_is_put_where_it_belongs() -> None:
    """What waited in another line before: it goes with its own target, neither held up by others nor holding them."""
    line, seen = line_with(20, 40, 10, 30)
    assert line.last_target == 40
    line.reached(10)
    assert seen == [(10, Outcome.DONE)]
    line.reached(30)
    assert seen == [(target, Outcome.DONE) for target in (10, 20, 30)]


def test_a_deadline_counts_wherever_it_stands_in_the_line() -> None:
    """Those behind may have waited longer already."""
    line = AcknowledgementLine(waiting_max=10, what="the disk")
    seen: list[str] = []
    line.add(1, 50.0, lambda outcome: seen.append(f"first {outcome.name}"))
    line.add(2, 40.0, lambda outcome: seen.append(f"second {outcome.name}"))
    line.expire(45.0)
    assert seen == ["second TIMEOUT"]
    line.reached(9)
    assert seen == ["second TIMEOUT", "first DONE"]


# -- SYNC_FLUSH, on a disk that can fail -------------------------------------------------------------------------------


def sends(client: Client, count: int) -> list[int]:
    return client.send_together([(310, send_fields(), b"%d" % number) for number in range(count)])


def codes(client: Client, opaques: list[int]) -> list[int]:
    return [client.reply(opaque).code for opaque in opaques]


async def world_with_topic(disk: FaultyDisk | None = None, limits: LimitsConfig | None = None) -> World:
    world = World(disk or FaultyDisk(Random(1)), store=SYNC, limits=limits)
    world.create_topic()
    return world


async def test_one_flush_answers_all_sends_of_one_read() -> None:
    """None is acknowledged before the flush, all are after it; the answers are those of any send."""
    async with await world_with_topic() as world:
        client = world.client()
        opaques = sends(client, 3)
        assert client.received() == []
        world.store.flush_once()
        await until(lambda: all(map(client.has_reply, opaques)))
        replies = [client.reply(opaque) for opaque in opaques]
        assert [(reply.code, fields_of(reply)["queueOffset"]) for reply in replies] == [(0, "0"), (0, "1"), (0, "2")]


async def test_sends_that_come_during_a_flush_join_the_next() -> None:
    """What was written after the flush began is not acknowledged by it."""
    async with await world_with_topic() as world:
        client = world.client()
        first = sends(client, 1)
        world.store.flush_once()  # its news is on the way to the event loop
        second = sends(client, 2)
        await until(lambda: client.has_reply(first[0]))
        assert not any(map(client.has_reply, second))
        world.store.flush_once()
        await until(lambda: all(map(client.has_reply, second)))
        assert codes(client, first + second) == [0, 0, 0]


async def test_a_failed_flush_refuses_all_who_wait() -> None:
    """The messages may be lost; the store takes nothing more, and says why."""
    disk = FaultyDisk(Random(1))
    world = await world_with_topic(disk)
    client = world.client()
    opaques = sends(client, 3)
    disk.fail("sync", errno.EIO, path_part="commitlog")
    world.store.flush_once()
    await until(lambda: all(map(client.has_reply, opaques)))
    refused = client.reply(opaques[0])
    assert (refused.code, refused.remark) == (14, "the flush to disk failed: the message may be lost, send it again")
    assert codes(client, opaques[1:]) == [14, 14]
    assert not world.store.is_writable
    later = client.request(310, send_fields(), b"later")
    assert later.code == 14
    assert "the store is not writable" in str(later.remark)
    world.store.flush_once()
    assert client.request(11, pull_fields()).code == 0, "reading goes on"
    await world.kill()


async def test_a_flush_that_takes_too_long_times_out() -> None:
    """FLUSH_DISK_TIMEOUT with all fields: the message is stored, and may be flushed later."""
    async with await world_with_topic() as world:
        world.broker.start()
        client = world.client()
        (opaque,) = sends(client, 1)
        await world.clock.run_for(4.9)
        assert not client.has_reply(opaque)
        await world.clock.run_for(0.4)
        reply = client.reply(opaque)
        assert (reply.code, fields_of(reply)["queueOffset"]) == (10, "0")
        assert reply.remark == "the message is stored, but its flush to disk was not done within 5 s"
        world.store.flush_once()
        await world.clock.run_for(1)
        assert not client.has_reply(opaque)


async def test_a_sender_that_does_not_wait_is_answered_at_once() -> None:
    """WAIT=false."""
    async with await world_with_topic() as world:
        assert world.client().request(310, send_fields(properties="WAIT\x01false\x02"), b"x").code == 0


async def test_a_oneway_send_is_stored_and_never_answered() -> None:
    """Neither before nor after the flush."""
    async with await world_with_topic() as world:
        client = world.client()
        client.send(310, send_fields(), b"x", oneway=True)
        world.store.flush_once()
        await until(lambda: len(world.broker.flush_line or ()) == 0)
        assert client.received() == []
        assert world.store.max_offset("T", 0) == 1


async def test_the_line_is_bounded() -> None:
    """One more than may wait is refused before it is stored; after the flush there is room again."""
    async with await world_with_topic(limits=LimitsConfig(waiting_acknowledgements_max=2)) as world:
        client = world.client()
        *waiting, refused = sends(client, 3)
        reply = client.reply(refused)
        assert reply.code == 2
        assert "sends that wait for the disk: 2 in all, 1 more would be too many" in str(reply.remark)
        assert world.store.max_offset("T", 0) == 2
        world.store.flush_once()
        await until(lambda: all(map(client.has_reply, waiting)))
        assert len(world.broker.flush_line or ()) == 0


async def test_a_new_topics_send_waits_for_its_file_and_for_the_flush() -> None:
    """Whichever comes last answers: the topic would be found again after a crash, and the message too."""
    async with World(FaultyDisk(Random(1)), store=SYNC) as world:
        world.create_topic("Old")
        client = world.client()
        new = client.send(310, send_fields("New"), b"x")
        old = client.send(310, send_fields("Old"), b"y")  # in the line for the flush before the one for New is
        await world.broker.saver.save_topics()
        assert not client.has_reply(new)
        world.store.flush_once()
        await until(lambda: client.has_reply(new) and client.has_reply(old))
        assert codes(client, [new, old]) == [0, 0]


async def test_a_flush_that_cannot_be_waited_for_refuses() -> None:
    """The store's own bound on who waits: nobody is left without an answer."""
    async with await world_with_topic() as world:
        try:
            while True:
                world.store.notify_flushed(1, lambda error: None)
        except TooManyWaiters:
            client = world.client()
            (opaque,) = sends(client, 1)
            assert client.reply(opaque).code == 14
        world.store.flush_once()


async def test_a_closed_store_fails_who_waits_for_it() -> None:
    """Nobody is left without an answer when the store is closed under them."""
    world = await world_with_topic()
    client = world.client()
    (opaque,) = sends(client, 1)
    world.store.close()
    await until(lambda: client.has_reply(opaque))
    assert client.reply(opaque).code in (0, 14)
    await world.kill()
