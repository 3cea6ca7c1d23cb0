"""Pulls and pops by SQL92 in slices: the same answers, and no turn of the loop that one expression takes for itself."""

import asyncio

import pytest
from apogeemq.broker.config import StoreSettings
from apogeemq.broker.filter.message_filter import message_filter, read_filtered, slice_time
from apogeemq.broker.service.pop import NothingPopped
from apogeemq.mesh.clock import ManualClock
from apogeemq.store.message_store import ReadStatus

from packages.broker.tests.test_pop import request
from packages.broker.tests.test_pop_waits import Poll, one_turn
from packages.broker.tests.world import Client, World, bodies_of, fields_of, pull_fields, send_fields

NOTHING = "a > 1000"
CLOCK_INTERVAL = 16


class TickingClock(ManualClock):
    """Each look at it takes a millisecond: a slice is over at its second look."""

    def monotonic(self) -> float:
        self.advance(0.001)
        return super().monotonic()


def sql_fields(expression: str, **more: str) -> dict[str, str]:
    return pull_fields() | {"subscription": expression, "expressionType": "SQL92"} | more


def fill(world: World, count: int, queue_id: int = 0) -> None:
    """Messages whose property `a` and body are their number."""
    client = world.client(50_000)
    for number in range(count):
        client.request(310, send_fields("T", queue_id, f"a\x01{number}\x02"), b"%d" % number)


async def asked(client: Client, expression: str, **more: str) -> tuple[int, str, list[bytes]]:
    reply = await client.later(client.send(11, sql_fields(expression, **more)))
    return reply.code, fields_of(reply)["nextBeginOffset"], bodies_of(reply)


def test_a_slice_begins_when_it_is_asked_for() -> None:
    """What was waited for before does not count."""
    clock = ManualClock()
    is_over = slice_time(clock.monotonic, 0.5)
    clock.advance(10)
    assert not is_over()
    clock.advance(0.4)
    assert not is_over()
    clock.advance(0.1)
    assert is_over()


async def test_a_read_ends_when_its_time_is_over() -> None:
    """With what was found so far, or with nothing; it has always looked at some, and says where it was."""
    async with World() as world:
        world.create_topic()
        fill(world, 100)
        for expression, status, count in ((NOTHING, ReadStatus.NO_MATCHED_MESSAGE, 0), ("a < 5", ReadStatus.FOUND, 5)):
            wanted = message_filter("SQL92", expression, sql_enabled=True)
            result = read_filtered(world.store, "T", 0, 0, 32, 1 << 20, wanted, is_over=lambda: True)
            assert (result.status, result.count, result.next_offset) == (status, count, CLOCK_INTERVAL)


@pytest.mark.parametrize("expression", [NOTHING, "a = 0", "a = 70", "a >= 90", "a > 10 AND a < 60"])
@pytest.mark.parametrize("offset", [0, 1, 17, 99])
async def test_slices_give_what_one_read_gives(expression: str, offset: int) -> None:
    """All messages that match, in order, whether a clock interrupts or not; and the same end."""
    found = []
    for clock in (ManualClock(), TickingClock()):
        async with World(clock=clock) as world:
            world.create_topic()
            fill(world, 100)
            bodies: list[bytes] = []
            next_offset = offset
            while next_offset < 100:
                code, told, some = await asked(world.client(), expression, queueOffset=str(next_offset))
                assert code == (0 if some else 20)
                bodies += some
                next_offset = int(told)
            found.append((next_offset, bodies))
    assert found[0] == found[1]


async def test_an_answer_looks_at_as_many_messages_as_apaches() -> None:
    """800, and what is left of the last slice; then the client asks again."""
    async with World(clock=TickingClock(), log_file_size_bytes=4 << 20) as world:
        world.create_topic()
        fill(world, 1_000)
        client = world.client()
        code, told, bodies = await asked(client, NOTHING)
        assert (code, 800 <= int(told) <= 832, bodies) == (20, True, [])
        assert await asked(client, NOTHING, queueOffset=told) == (20, "1000", [])


async def test_many_pulls_take_turns() -> None:
    """One slice a turn where time is short: no pull waits for another to look through all of its queue."""
    async with World(clock=TickingClock()) as world:
        world.create_topic()
        fill(world, 100, queue_id=0)
        fill(world, 10, queue_id=1)
        client = world.client()
        long, short = client.send_together(
            [(11, sql_fields(NOTHING), b""), (11, sql_fields("a = 3", queueId="1"), b"")]
        )
        assert len(world.broker.sliced_pulls) == 2
        turns = 0
        while not client.has_reply(short):
            await one_turn()
            turns += 1
        assert turns <= 4
        assert not client.has_reply(long)
        assert (await client.later(long)).code == 20


async def test_a_pull_that_waits_is_answered_with_what_matches() -> None:
    """Held at the end of its queue; a message that does not match answers it too, with where to go on."""
    async with World() as world:
        world.create_topic()
        client = world.client()
        opaque = client.send(11, sql_fields("a = 1", sysFlag="6", suspendTimeoutMillis="15000"))
        await one_turn()
        assert not client.has_reply(opaque)
        fill(world, 2)
        reply = await client.later(opaque)
        assert (reply.code, bodies_of(reply), fields_of(reply)["nextBeginOffset"]) == (0, [b"1"], "2")


async def test_old_messages_are_sliced_too() -> None:
    """Read in a thread, looked through some at a time."""
    settings = StoreSettings(hot_window_bytes=1)
    async with World(clock=TickingClock(), store=settings) as world:
        world.create_topic()
        fill(world, 100)
        assert await asked(world.client(), "a = 99") == (0, "100", [b"99"])


async def test_a_client_that_is_gone_is_not_read_for() -> None:
    """What waits of it leaves the line."""
    async with World() as world:
        world.create_topic()
        fill(world, 3)
        client = world.client()
        client.send(11, sql_fields("a = 1"))
        client.close()
        client.channel.close("gone")
        await one_turn()
        assert len(world.broker.sliced_pulls) == 0
        assert world.broker.stats.counts.get((11, 0), 0) == 0


async def test_a_pop_ends_when_its_time_is_over() -> None:
    """It says that there is more to look at; who waits comes to it all the same."""
    async with World(clock=TickingClock()) as world:
        world.create_topic("T", 1)
        fill(world, 100)
        service = world.broker.popping.service
        once = service.pop(service.check(request(expression="a = 98", expression_type="SQL92")))
        assert once == NothingPopped(more=True)
        assert 0 < (world.broker.offsets.query("T", "G", 0) or 0) < 90
        waiting = Poll(world, expression="a = 98", expression_type="SQL92")
        async with asyncio.timeout(10):
            while not waiting.outcomes:
                await one_turn()
        assert waiting.bodies == [b"98"]


async def test_lines_of_pops_take_turns() -> None:
    """One message that wakes many groups: they are served in several turns, all of them."""
    async with World(clock=TickingClock()) as world:
        world.create_topic("T", 1)
        waiting = [Poll(world, group=f"G{number}", queue_id=0) for number in range(10)]
        fill(world, 1)
        await one_turn()
        served = sum(bool(each.outcomes) for each in waiting)
        assert served < 10
        async with asyncio.timeout(10):
            while not all(each.outcomes for each in waiting):
                await one_turn()
        assert [each.bodies for each in waiting] == [[b"0"]] * 10
