"""Pops that wait: woken by what they wait for, in turn, bounded, and forgotten with their asker."""

import asyncio

import pytest
from apogeemq.broker.config import LimitsConfig, StoreSettings
from apogeemq.broker.core.pop import Popped, PopRequest
from apogeemq.broker.errors import BrokerError, PollingFull, PollingTimeout, TopicNotExist
from apogeemq.broker.service.pop_waits import Found
from apogeemq.mesh.clock import ManualClock
from apogeemq.store.memory_disk import MemoryDisk

from packages.broker.tests.test_pop import NORMAL_ONLY, bodies_of, let_it_be_over, popped, request, send
from packages.broker.tests.world import World, until


class Poll:
    """One that asked, for `pop` or what `request` makes of the rest, and what it got."""

    def __init__(
        self, world: World, seconds: float = 10, owner: str = "asker", pop: PopRequest | None = None, **wanted: object
    ) -> None:
        self.outcomes: list[Found | Exception] = []
        popping = world.broker.popping
        asked = request(**wanted) if pop is None else pop  # type: ignore[arg-type]  # whatever request takes
        checked = popping.service.check(asked)
        self.poll = popping.polls.begin(checked, world.clock.monotonic() + seconds, owner, self.outcomes.append)

    @property
    def bodies(self) -> list[bytes]:
        (outcome,) = self.outcomes
        assert isinstance(outcome, Popped)
        return bodies_of(outcome)

    @property
    def error(self) -> Exception:
        (outcome,) = self.outcomes
        assert isinstance(outcome, BrokerError)
        return outcome


async def one_turn() -> None:
    await asyncio.sleep(0)


async def test_a_message_that_is_there_is_popped_at_once() -> None:
    """Without a turn of the loop."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a")
        assert Poll(world).bodies == [b"a"]
        assert len(world.broker.popping.polls) == 0


async def test_messages_wake_who_waits_first() -> None:
    """All of one network read go to one waiter; the next message to the next one."""
    async with World() as world:
        world.create_topic("T", 2)
        first, second = Poll(world), Poll(world)
        send(world, b"a", queue_id=0)
        send(world, b"b", queue_id=1)
        await one_turn()
        assert sorted(first.bodies) == [b"a", b"b"]
        assert second.outcomes == []
        send(world, b"c")
        await one_turn()
        assert second.bodies == [b"c"]


async def test_only_what_is_waited_for_wakes() -> None:
    """Another queue, another tag, another topic do not."""
    async with World() as world:
        world.create_topic("T", 2)
        world.create_topic("U", 2)
        queue_1, tag_b = Poll(world, queue_id=1), Poll(world, group="H", expression="B")
        send(world, b"u", topic="U")
        send(world, b"a", queue_id=0, tag="A")
        await one_turn()
        assert queue_1.outcomes == tag_b.outcomes == []
        send(world, b"b", queue_id=1, tag="B")
        await one_turn()
        assert (queue_1.bodies, tag_b.bodies) == ([b"b"], [b"b"])


async def test_a_message_that_comes_again_wakes() -> None:
    """Whoever waits gets it when its invisible time is over, and needs no retry topic beforehand."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, b"a")
        popped(world)
        waiting = Poll(world, seconds=30, queue_id=0)
        await let_it_be_over(world)
        await one_turn()
        assert waiting.bodies == [b"a"]


async def test_a_wait_ends() -> None:
    """With 210 at its time; without poll time at once; never later than the broker allows."""
    async with World(limits=LimitsConfig(pull_hold_s_max=5)) as world:
        world.create_topic("T", 1)
        now, short, long = Poll(world, 0), Poll(world, 2), Poll(world, 3_600)
        assert isinstance(now.error, PollingTimeout)
        world.clock.advance(1.9)
        world.broker.popping.polls.expire()
        assert short.outcomes == []
        world.clock.advance(0.1)
        world.broker.popping.polls.expire()
        assert isinstance(short.error, PollingTimeout)
        assert long.outcomes == []
        world.clock.advance(3)
        world.broker.popping.polls.expire()
        assert isinstance(long.error, PollingTimeout)


@pytest.mark.parametrize(
    "limits",
    [LimitsConfig(held_pops_per_key_max=2), LimitsConfig(held_pops_max=2)],
    ids=["of one kind", "in all"],
)
async def test_too_many_waiters_are_refused(limits: LimitsConfig) -> None:
    """209 with both limits; after one left there is room."""
    async with World(limits=limits) as world:
        world.create_topic("T", 1)
        polls = [Poll(world) for _ in range(3)]
        assert isinstance(polls[2].error, PollingFull)
        assert "limits.held_pops_per_key_max" in str(polls[2].error)
        world.broker.popping.polls.forget(polls[0].poll)
        assert Poll(world).outcomes == []


async def test_nothing_is_popped_for_who_is_gone() -> None:
    """What waits for a lost connection is forgotten; the message goes to the next."""
    async with World() as world:
        world.create_topic("T", 1)
        gone, here = Poll(world, owner="gone"), Poll(world, owner="here")
        world.broker.popping.owner_gone("gone")
        send(world, b"a")
        await one_turn()
        assert gone.outcomes == []
        assert here.bodies == [b"a"]


async def test_at_the_stop_everybody_is_answered() -> None:
    """And nobody waits any more."""
    async with World() as world:
        world.create_topic("T", 1)
        before = Poll(world)
        await world.broker.popping.polls.stop()
        assert isinstance(before.error, PollingTimeout)
        assert isinstance(Poll(world).error, PollingTimeout)


async def test_many_waiters_are_served_in_turns_of_the_loop() -> None:
    """A burst for hundreds of waiters does not hold the loop; all are served."""
    async with World() as world:
        world.create_topic("T", 1)
        polls = [Poll(world, count_max=1) for _ in range(100)]
        send(world, *[b"%d" % number for number in range(100)])
        await one_turn()
        assert sum(bool(poll.outcomes) for poll in polls) < 100
        await until(lambda: all(poll.outcomes for poll in polls))
        assert [poll.bodies for poll in polls] == [[b"%d" % number] for number in range(100)]


# -- as a coroutine ----------------------------------------------------------------------------------------------------


async def test_it_can_be_awaited() -> None:
    """For doors that have a task for each call."""
    async with World() as world:
        world.create_topic("T", 1)
        task = asyncio.create_task(world.broker.popping.polls.pop(request(), world.clock.monotonic() + 5, "asker"))
        await one_turn()
        send(world, b"a")
        assert bodies_of(await task) == [b"a"]
        with pytest.raises(PollingTimeout):
            await world.broker.popping.polls.pop(request(), world.clock.monotonic(), "asker")
        with pytest.raises(TopicNotExist):
            await world.broker.popping.polls.pop(request("Unknown"), world.clock.monotonic(), "asker")


async def test_a_cancelled_caller_pops_nothing() -> None:
    """Its place in the line is free."""
    async with World() as world:
        world.create_topic("T", 1)
        task = asyncio.create_task(world.broker.popping.polls.pop(request(), world.clock.monotonic() + 5, "asker"))
        await one_turn()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(world.broker.popping.polls) == 0
        send(world, b"a")
        await one_turn()
        assert bodies_of(popped(world)) == [b"a"]


async def test_who_is_cancelled_before_the_pop_pops_nothing() -> None:
    """Also in the turn of the loop in which the message came, before the task itself knows of its cancellation."""
    async with World() as world:
        world.create_topic("T", 1)
        polls = world.broker.popping.polls
        gone = asyncio.create_task(polls.pop(request(), world.clock.monotonic() + 5, "asker"))
        await one_turn()
        here = Poll(world)
        send(world, b"a")
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert gone.cancelled()
        assert here.bodies == [b"a"]
        assert len(polls) == 0


async def test_who_is_cancelled_behind_the_pop_has_popped() -> None:
    """Its messages are its own by then: it ends with them, so that they can still be told, and given back."""
    async with World() as world:
        world.create_topic("T", 1)
        polls = world.broker.popping.polls
        task = asyncio.create_task(polls.pop(request(), world.clock.monotonic() + 5, "asker"))
        await one_turn()
        send(world, b"a")
        while len(polls):
            await one_turn()
        assert not task.done()
        task.cancel()
        assert bodies_of(await task) == [b"a"]


async def test_a_cancellation_at_any_turn() -> None:
    """In whichever turn: a message is either popped for who asked, or there for the next."""
    async with World() as world:
        world.create_topic("T", 1)
        outcomes = set()
        for turns in range(8):
            pop = world.broker.popping.polls.pop(request(), world.clock.monotonic() + 5, "asker")
            task = asyncio.create_task(pop)
            await one_turn()
            send(world, b"%d" % turns)
            for _ in range(turns):
                await one_turn()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            outcomes.add(task.cancelled())
            for_next = [] if isinstance(Poll(world, 0).outcomes[0], PollingTimeout) else [b"%d" % turns]
            assert for_next == ([b"%d" % turns] if task.cancelled() else [])
        assert outcomes == {True, False}


# -- old messages ------------------------------------------------------------------------------------------------------


def cold_world(limits: LimitsConfig | None = None) -> tuple[World, MemoryDisk]:
    disk = MemoryDisk()
    return World(disk, pop=NORMAL_ONLY, store=StoreSettings(hot_window_bytes=1), limits=limits), disk


async def test_old_messages_are_read_in_a_thread() -> None:
    """Meanwhile the group's other pops pass the queue by, and go on when it is read."""
    world, disk = cold_world()
    async with world:
        world.create_topic("T", 1)
        send(world, b"a", b"b", b"c")
        disk.cached = False
        first = Poll(world, count_max=1)
        second = Poll(world, count_max=1)
        assert first.outcomes == second.outcomes == []
        assert len(world.broker.popping.polls) == 1, "the second one waits for the queue"
        await until(lambda: bool(first.outcomes and second.outcomes))
        assert (first.bodies, second.bodies) == ([b"a"], [b"b"])


async def test_what_was_read_for_who_is_gone_is_not_popped() -> None:
    """It stays where it is, for the next."""
    world, disk = cold_world()
    async with world:
        world.create_topic("T", 1)
        send(world, b"a")
        disk.cached = False
        gone = Poll(world, owner="gone")
        world.broker.popping.owner_gone("gone")
        here = Poll(world, owner="here")
        await until(lambda: bool(here.outcomes))
        assert gone.outcomes == []
        assert here.bodies == [b"a"]


async def test_reads_from_the_disk_are_bounded() -> None:
    """One more is refused with the limit's name, and its queue is free again."""
    world, disk = cold_world(LimitsConfig(cold_reads_max=1))
    async with world:
        world.create_topic("T", 2)
        send(world, b"a", queue_id=0)
        send(world, b"b", queue_id=1)
        disk.cached = False
        reads, refused = Poll(world, queue_id=0), Poll(world, queue_id=1)
        await until(lambda: bool(reads.outcomes and refused.outcomes))
        assert reads.bodies == [b"a"]
        assert "limits.cold_reads_max" in str(refused.error)
        again = Poll(world, queue_id=1)
        await until(lambda: bool(again.outcomes))
        assert again.bodies == [b"b"]


async def test_a_position_that_moved_while_the_disk_was_read_counts() -> None:
    """What was read for nothing is not handed out: the group stands elsewhere now."""
    world, disk = cold_world()
    async with world:
        world.create_topic("T", 1)
        send(world, b"a", b"b")
        disk.cached = False
        waiting = Poll(world)
        world.broker.offsets.commit("T", "G", 0, 1)
        await until(lambda: bool(waiting.outcomes))
        assert waiting.bodies == [b"b"]


async def test_the_tick_ends_waits() -> None:
    """A started broker looks several times a second."""
    clock = ManualClock()
    async with World(clock=clock) as world:
        world.create_topic("T", 1)
        world.broker.start()
        waiting = Poll(world, 1)
        await clock.run_for(1.5)
        assert isinstance(waiting.error, PollingTimeout)


async def test_an_offset_reset_wakes_who_waits_in_that_group() -> None:
    """Set back by an operator, it gets the old messages now; other groups and queues wait on."""
    async with World() as world:
        world.create_topic("T", 2)
        world.broker.groups.find_or_create("G")
        world.mark_saved()
        send(world, b"a", queue_id=0)
        for group in ("G", "H"):
            world.broker.offsets.commit("T", group, 0, 1)
        all_queues, other_queue, other_group = (
            Poll(world, queue_id=-1),
            Poll(world, queue_id=1),
            Poll(world, group="H"),
        )
        operator = world.client(60_000)
        fields = {"topic": "T", "group": "G", "queueId": "0", "offset": "0", "timestamp": "0", "isForce": "true"}
        assert (await operator.later(operator.send(222, fields))).code == 0
        await one_turn()
        assert all_queues.bodies == [b"a"]
        assert other_queue.outcomes == other_group.outcomes == []
