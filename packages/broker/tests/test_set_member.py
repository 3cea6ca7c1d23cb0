"""A broker as a member of its set: when it registers, what it does with what it is told, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from apogeemq.broker.core.replication.progress import Propose, TakeSet
from apogeemq.broker.core.replication.role import NO_MASTER, Role, Told
from apogeemq.broker.core.replication.set_view import Registration, ReplicaInSet, SetView
from apogeemq.broker.service.set_member import LEAVE_TIMEOUT_S, REGISTER_AGAIN_S, SetMember
from apogeemq.mesh.clock import ManualClock

A, B = (ReplicaInSet(f"{name}:1", f"{name}:2", 1, is_learner=False) for name in "ab")


def view(master_id: int, epoch: int, members: set[int], set_epoch: int = 1, *, learner: bool = False) -> SetView:
    own = ReplicaInSet("b:1", "b:2", 1, is_learner=learner)
    return SetView(Told(master_id, epoch, frozenset(members), set_epoch), {1: A, 2: own})


class Everything:
    """Link, lease and part at once: keeps what it is asked for, in order."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.active = "c1"
        self.halt = asyncio.Event()
        self.halt.set()
        self.error: OSError | None = None
        self._ids = 0

    async def tick(self, now_s: float) -> None:
        return

    def register(self, registration: Registration) -> int:
        self.done.append(("register", registration.broker_id))
        return self._id()

    def ask_election(self, over_epoch: int) -> None:
        self.done.append(("ask", over_epoch))

    def propose(self, proposal: Propose) -> None:
        self.done.append(proposal)

    def leave(self) -> int:
        self.done.append("leave")
        return self._id() if self.active else 0

    def knows(self, master_epoch: int, set_epoch: int) -> None:
        self.done.append(("knows", master_epoch, set_epoch))

    def _id(self) -> int:
        self._ids += 1
        return self._ids

    def take_lease(self, broker_id: int, lease_id: int) -> None:
        self.done.append(("lease", broker_id, lease_id))

    def drop_lease(self) -> None:
        self.done.append("no lease")

    def joined(self, broker_id: int, *, is_learner: bool) -> None:
        self.done.append(("joined", broker_id, is_learner))

    def registration_accepted(self) -> None:
        return

    async def begin_epoch(self, epoch: int) -> None:
        await self.halt.wait()
        if self.error is not None:
            raise self.error
        self.done.append(("epoch", epoch))

    async def lead(self, epoch: int, known: TakeSet) -> None:
        self.done.append(("lead", epoch, sorted(known.members)))

    def told(self, told: Told) -> None:
        return

    async def take_set(self, known: TakeSet) -> None:
        self.done.append(("set", sorted(known.members)))

    def fence(self) -> None:
        self.done.append("fence")

    async def stop_leading(self) -> None:
        self.done.append("stop leading")

    async def follow(self, master_id: int, epoch: int, master: ReplicaInSet | None) -> None:
        self.done.append(("follow", master_id, epoch, master.mesh_address if master else None))


class Lease:
    """Lease's tick is without arguments, the link's is not."""

    def __init__(self, everything: Everything) -> None:
        self.take_lease = everything.take_lease
        self.drop_lease = everything.drop_lease

    def tick(self) -> None:
        return


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.all = Everything()
        self.member = SetMember(
            0,
            last_epoch=lambda: 0,
            registration=lambda broker_id: Registration(
                broker_id, "b:1", "b:2", "boot", True, False, 0, 0, 0, is_learner=False
            ),
            part=self.all,
            lease=Lease(self.all),
            clock=self.clock,
        )

    def taken(self) -> list[object]:
        """What was done since the last look, without what is said at every state."""
        done, self.all.done = self.all.done, []
        return [each for each in done if not (isinstance(each, tuple) and each[0] == "knows")]

    async def pass_s(self, seconds: float) -> None:
        await self.clock.run_for(seconds)


@asynccontextmanager
async def member() -> AsyncIterator[World]:
    world = World()
    world.member.start(world.all)
    try:
        await world.pass_s(0.0)
        yield world
    finally:
        world.all.halt.set()
        await world.member.stop()


async def registered(world: World, told: SetView) -> None:
    world.member.registered(1, 2, 77, told)
    await world.pass_s(0.0)


async def test_it_registers_until_it_is_answered() -> None:
    """At once, and again each second; under the id that it was given from then on."""
    async with member() as world:
        assert world.taken() == [("register", 0)]
        await world.pass_s(REGISTER_AGAIN_S)
        assert world.taken() == [("register", 0)]
        await registered(world, view(1, 1, {1}))
        assert world.taken() == [("joined", 2, False), ("lease", 2, 77), ("follow", 1, 1, "a:2")]
        await world.pass_s(5.0)
        assert world.taken() == []
        world.member.register_again()
        await world.pass_s(0.2)
        assert world.taken() == ["no lease", ("register", 2)]


async def test_without_an_active_controller_it_waits() -> None:
    """Nobody is asked, and the reason is told."""
    world = World()
    world.all.active = ""
    world.member.start(world.all)
    await world.pass_s(3.0)
    assert world.taken() == []
    assert "no active controller" in world.member.trouble
    await world.member.stop()


async def test_a_late_answer_for_another_id_is_passed_over() -> None:
    """Two registrations under id 0 crossed: the broker stays who it is."""
    async with member() as world:
        await registered(world, view(1, 1, {1}))
        world.taken()
        world.member.registered(2, 3, 78, view(1, 1, {1}))
        await world.pass_s(0.0)
        assert world.taken() == []
        assert world.member.broker_id == 2


async def test_it_leads_once_its_epoch_is_on_the_disk() -> None:
    """Told that it is master: the epoch first, then the lead; the set of that epoch follows."""
    async with member() as world:
        await registered(world, view(2, 1, {2}))
        assert world.taken()[1:] == [("joined", 2, False), ("lease", 2, 77), ("epoch", 1), ("lead", 1, [2])]
        assert world.member.role is Role.LEADING
        world.member.told(view(2, 1, {1, 2}, 2))
        await world.pass_s(0.0)
        assert world.taken() == [("set", [1, 2])]


async def test_it_is_fenced_before_anything_slow() -> None:
    """Another master: no acknowledgement from that moment, though the disk still works on the old epoch."""
    async with member() as world:
        await registered(world, view(2, 1, {1, 2}))
        world.taken()
        world.all.halt.clear()
        world.member.told(view(2, 2, {1, 2}, 2))
        await world.pass_s(0.0)
        assert world.taken() == ["fence", "stop leading"]
        world.member.told(view(1, 3, {1}, 3))
        await world.pass_s(0.0)
        assert world.taken() == []
        world.all.halt.set()
        await world.pass_s(0.0)
        assert world.taken() == [("epoch", 2), ("follow", 1, 3, "a:2")]


async def test_who_cannot_play_its_part_beats_no_more() -> None:
    """Its disk fails as an epoch is to begin: the lease goes, so that another broker follows, and health says why."""
    async with member() as world:
        world.all.error = OSError("no such disk")
        await registered(world, view(2, 1, {2}))
        assert world.taken()[-2:] == ["fence", "no lease"]
        assert world.member.failed_task() == "set-member-part"
        assert "no such disk" in world.member.trouble
        world.member.register_again()
        await world.pass_s(5.0)
        assert ("register", 2) not in world.taken()


async def test_a_set_without_master_is_asked_for_one() -> None:
    """Over the newest epoch that is known."""
    async with member() as world:
        await registered(world, view(NO_MASTER, 0, set(), 0))
        assert ("ask", 0) in world.taken()


async def test_a_learner_hears_that_it_is_none_any_more() -> None:
    """The controllers decide it at run time (architecture §6.6)."""
    async with member() as world:
        await registered(world, view(1, 1, {1}, learner=True))
        assert ("joined", 2, True) in world.taken()
        world.member.told(view(1, 1, {1}, 2))
        assert ("joined", 2, False) in world.taken()


async def test_a_refusal_is_told_to_whoever_asks() -> None:
    """And registration goes on: a person may mend what was wrong."""
    async with member() as world:
        world.member.refused(1, 2014, "broker id 2 belongs to elsewhere:10911")
        assert "belongs to elsewhere" in world.member.trouble
        world.taken()
        await world.pass_s(REGISTER_AGAIN_S)
        assert world.taken() == [("register", 0)]


async def test_a_clean_stop_waits_for_the_set() -> None:
    """It fences itself, asks to leave, and goes on once the controller has answered."""
    async with member() as world:
        await registered(world, view(2, 1, {1, 2}))
        world.taken()
        leaving = asyncio.ensure_future(world.member.leave())
        await world.pass_s(0.0)
        assert world.taken() == ["fence", "leave"]
        assert not leaving.done()
        world.member.told(view(1, 2, {1}, 2))
        world.member.accepted(world.all._ids, view(1, 2, {1}, 2))
        await world.pass_s(0.0)
        assert leaving.done()
        assert world.taken() == ["no lease"]


async def test_a_clean_stop_does_not_wait_for_ever() -> None:
    """Without an answer it stops all the same: its lease will end."""
    async with member() as world:
        await registered(world, view(2, 1, {2}))
        leaving = asyncio.ensure_future(world.member.leave())
        await world.pass_s(LEAVE_TIMEOUT_S)
        await leaving
