"""Master and replicas on real stores: what is copied, confirmed and cut, and when a replica stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from apogeemq.broker.core.replication import follower, progress
from apogeemq.broker.service.leading import LeadershipEnded
from apogeemq.broker.service.table_copies import CONSUMER_OFFSETS
from apogeemq.store.epoch_file import EpochEntry
from apogeemq.store.retention import RetentionConfig

from packages.broker.tests.replicas import FILE_SIZE, SetBroker, SetWorld

COPYING = follower.Phase.COPYING


@pytest.fixture
async def world() -> AsyncIterator[SetWorld]:
    world = SetWorld()
    yield world
    await world.close()


async def three(world: SetWorld) -> tuple[SetBroker, SetBroker, SetBroker]:
    """A master of epoch 1 and its two replicas, which copied a few messages and are members."""
    master, second, third = [await world.broker(number) for number in (1, 2, 3)]
    await master.lead(1, {1, 2, 3})
    for replica in (second, third):
        replica.follow(master, 1)
    for number in range(20):
        master.send(b"%02d" % number * 200)
    await world.run(1)
    assert second.held() == third.held() == master.held()
    assert master.log.confirm_offset == second.log.confirm_offset == master.log.end_offset
    return master, second, third


# -- copying -----------------------------------------------------------------------------------------------------------


async def test_replicas_hold_the_masters_bytes_up_to_the_confirm_offset(world: SetWorld) -> None:
    """What is written while replicas copy is theirs soon, byte by byte; confirmed is what all members hold."""
    master, second, third = [await world.broker(number) for number in (1, 2, 3)]
    for _ in range(100):
        master.send(b"x" * 1000)
    await master.lead(1, {1, 2, 3})
    second.follow(master, 1)
    await world.run()
    assert master.confirmed == []
    third.follow(master, 1)
    await world.run()
    for _ in range(50):
        master.send(b"y" * 1000, queue_id=1)
        await world.run(0.01)
    assert master.log.confirm_offset == master.log.end_offset > 2 * FILE_SIZE
    assert second.held() == third.held() == master.held()
    assert second.phase is third.phase is COPYING
    assert second.log.entries == master.log.entries
    await world.run(0.6)
    assert second.log.confirm_offset == master.log.end_offset
    assert second.store.max_offset("TopicTest", 1) == 50


async def test_an_append_reaches_an_idle_replica_without_a_timer(world: SetWorld) -> None:
    """Between append, copy and confirmation no time has to pass."""
    master, second, _ = await three(world)
    master.send()
    await world.run(0)
    assert second.held() == master.held()
    assert master.log.confirm_offset == master.log.end_offset


async def test_a_set_of_one_confirms_what_it_writes(world: SetWorld) -> None:
    """Without replicas the confirm offset is the log's end, from the start on."""
    master = await world.broker(1)
    master.send()
    leading = await master.lead(1, {1})
    await leading.settled()
    assert master.log.confirm_offset == master.log.end_offset > 0
    master.send()
    await world.run(0)
    assert master.confirmed[-1] == master.log.end_offset


async def test_a_replica_goes_on_after_its_stream_broke(world: SetWorld) -> None:
    """It connects anew, compares, and copies what it missed; nothing twice."""
    master, second, _ = await three(world)
    world.network.cut(master.address, origin="host-2")
    master.send()
    await world.run(2)
    assert second.log.end_offset < master.log.end_offset
    world.network.heal(master.address)
    await world.run(1)
    assert second.held() == master.held()


async def test_a_chunk_may_end_inside_a_record(world: SetWorld) -> None:
    """A log of larger records than a chunk comes through; what is acknowledged are whole records only."""
    settings = {"commit_log_file_size_bytes": 2 << 20, "message_size_bytes_max": 1 << 20}
    master, second = [await world.broker(number, **settings) for number in (1, 2)]
    for number in range(5):
        master.send(bytes([number]) * 700_000)
    leading = await master.lead(1, {1, 2})
    second.follow(master, 1)
    heard: set[int] = set()
    for _ in range(40):
        await world.run(0)
        heard.update(each.offset for each in leading.replicas())
    record_size_bytes = len(master.held()[: master.store.queue_unit("TopicTest", 0, 0)[1]])  # type: ignore[index]
    ends = {0, *(part * record_size_bytes for part in (1, 2)), 2 << 20}
    assert {offset for offset in heard if offset <= 2 << 20} <= ends
    await world.run(1)
    assert second.held() == master.held()
    assert master.log.confirm_offset == master.log.end_offset


async def test_a_replica_begins_where_the_masters_log_does(world: SetWorld) -> None:
    """What has expired at the master is not asked for; an empty log begins with the master's oldest file."""
    master = await world.broker(1, retention=RetentionConfig(log_size_bytes_max=2 * FILE_SIZE))
    second = await world.broker(2)
    for _ in range(200):
        master.send(b"x" * 1000)
    await master.lead(1, {1})
    master.store.begin_expiry()
    master.store.flush_once()
    assert master.log.min_offset > 0
    second.follow(master, 1)
    await world.run(1)
    assert second.log.min_offset == master.log.min_offset
    assert second.held() == master.held()


async def test_a_replica_lets_go_what_its_master_has_let_go(world: SetWorld) -> None:
    """Once all that the master had by then is confirmed here: what was live in its oldest files was stored anew."""
    master = await world.broker(1, retention=RetentionConfig(log_size_bytes_max=2 * FILE_SIZE))
    second = await world.broker(2)
    await master.lead(1, {1, 2})
    second.follow(master, 1)
    for _ in range(200):
        master.send(b"x" * 1000)
    await world.run(1)
    assert second.following.let_go_offset == 0
    master.store.begin_expiry()
    master.store.flush_once()
    assert master.log.min_offset > 0
    master.send(b"brings the news")
    await world.run(1)
    assert second.following.let_go_offset == master.log.min_offset
    await second.following.stop()
    assert second.following.let_go_offset == 0


# -- another master ----------------------------------------------------------------------------------------------------


async def test_a_master_that_follows_again_cuts_what_nobody_else_has(world: SetWorld) -> None:
    """Its unconfirmed end goes, the new master's log takes its place, epochs and all."""
    master, second, third = await three(world)
    world.network.cut(master.address)
    for _ in range(5):
        master.send(b"never confirmed")
    await world.run(0.1)
    await second.lead(2, {1, 2, 3})
    third.follow(second, 2)
    second.send(b"of the second epoch")
    await world.run(0.1)
    await master.stop_leading()
    master.follow(second, 2)
    await world.run(1)
    assert master.held() == second.held() == third.held()
    assert master.log.entries == second.log.entries == third.log.entries
    assert [entry.epoch for entry in master.log.entries] == [1, 2]
    assert second.log.confirm_offset == second.log.end_offset


async def test_bytes_that_differ_inside_an_epoch_are_cut_at_the_confirm_offset(world: SetWorld) -> None:
    """An epoch says who wrote, not what became of it: the CRC tells, and all that is confirmed stays."""
    master, second, third = await three(world)
    confirmed = second.held()
    await third.following.stop()
    await second.following.stop()
    second.send(b"a torn record that passed for one")
    master.send(b"what the master wrote there; longer")
    second.follow(master, 1)
    await world.run(1)
    assert second.held() == master.held()
    assert second.held().startswith(confirmed)


async def test_a_master_that_comes_back_leads_a_new_epoch(world: SetWorld) -> None:
    """Its log is as it was, and its replicas go on from there."""
    master, second, third = await three(world)
    await master.stop()
    await master.start()
    assert master.log.confirm_offset == master.log.end_offset
    leading = await master.lead(2, {1, 2, 3})
    for replica in (second, third):
        replica.follow(master, 2)
    master.send(b"after the start")
    await world.run(1)
    await leading.settled()
    assert second.held() == third.held() == master.held()
    assert second.log.entries == (EpochEntry(1, 0), master.log.entries[1])


async def test_a_new_master_is_settled_once_its_members_hold_its_log(world: SetWorld) -> None:
    """Until then its readers would see less than the master before let them see."""
    master, second, third = await three(world)
    third.world.network.cut(master.address, origin="host-3")
    master.send()
    await world.run(0.1)
    await master.stop_leading()
    leading = await second.lead(2, {2, 3})
    await world.run(0.1)
    assert second.log.confirm_offset < second.log.end_offset
    third.follow(second, 2)
    await leading.settled()
    assert second.log.confirm_offset == second.log.end_offset


async def test_who_waits_for_a_master_that_stops_hears_of_it(world: SetWorld) -> None:
    """settled() ends with LeadershipEnded; nothing is confirmed after stop()."""
    master = await world.broker(1)
    master.send()
    leading = await master.lead(1, {1, 2})
    await master.stop_leading()
    with pytest.raises(LeadershipEnded):
        await leading.settled()
    leading.take_set(progress.TakeSet(frozenset({1}), 99))
    leading.written()
    await world.run(1)
    assert master.confirmed == []


async def test_an_older_epoch_is_not_followed(world: SetWorld) -> None:
    """Whoever was told of a newer master passes over word of an older one."""
    master, second, third = await three(world)
    await second.lead(2, {1, 2, 3})
    third.follow(second, 2)
    third.follow(master, 1)
    second.send()
    await world.run(1)
    assert third.held() == second.held()
    assert third.following.master_id == 2


async def test_stopping_ends_the_copy(world: SetWorld) -> None:
    """What comes after stop() is not appended; following again goes on."""
    master, second, third = await three(world)
    await second.following.stop()
    before = second.log.end_offset
    master.send()
    await world.run(1)
    assert second.log.end_offset == before
    assert second.phase is follower.Phase.IDLE
    second.follow(master, 1)
    await world.run(1)
    assert second.held() == third.held() == master.held()


# -- the set -----------------------------------------------------------------------------------------------------------


async def test_changes_of_the_set_are_proposed(world: SetWorld) -> None:
    """A member that falls silent is to go, one that caught up is to come; with the start that copied."""
    master, second, _ = await three(world)
    await second.following.stop()
    await world.run(2)
    assert [each.broker_id for each in master.proposals[-1].members] == [1, 3]
    assert master.leading is not None
    master.leading.take_set(progress.TakeSet(frozenset({1, 3}), 11))
    master.proposals.clear()
    second.follow(master, 1)
    await world.run(1)
    assert progress.Member(2, second.incarnation) in master.proposals[-1].members


async def test_a_learner_copies_and_never_counts(world: SetWorld) -> None:
    """Nobody proposes it for the set; once it is a learner no more, it is proposed, by a new hello."""
    master, second = [await world.broker(number) for number in (1, 2)]
    second.following.set_learner(is_learner=True)
    leading = await master.lead(1, {1})
    second.follow(master, 1)
    master.send()
    await world.run(2)
    assert second.held() == master.held()
    assert [each.is_learner for each in leading.replicas()] == [True]
    assert master.proposals == []
    second.following.set_learner(is_learner=False)
    await world.run(1)
    assert [each.is_learner for each in leading.replicas()] == [False]
    assert [each.broker_id for each in master.proposals[-1].members] == [1, 2]


async def test_operators_see_how_far_replicas_are(world: SetWorld) -> None:
    """Who copies from here, up to where, how far behind, and when it was last heard."""
    master, second, _ = await three(world)
    assert master.leading is not None
    world.network.cut(master.address, origin="host-3")
    world.network.delay(master.address, 0.1, 0.1001, origin="host-2")
    await world.run(1)
    before = second.log.end_offset
    master.send()
    [status] = master.leading.replicas()
    assert (status.broker_id, status.offset) == (2, before)
    assert status.lag_bytes == master.log.end_offset - before
    assert 0 <= status.silent_ms <= 600


async def test_a_replica_that_waits_for_its_disk_acknowledges_what_is_synced(world: SetWorld) -> None:
    """With acks_flushed an acknowledgement follows the flush, not the append."""
    master = await world.broker(1)
    second = SetBroker(world, 2)
    second.acks_flushed = True
    await second.start()
    await master.lead(1, {1, 2})
    second.follow(master, 1)
    await world.run()
    master.send()
    await world.run(1)
    assert second.held() == master.held()
    assert master.log.confirm_offset == 0
    second.store.flush_once()
    await world.run(0)
    assert master.log.confirm_offset == master.log.end_offset


# -- states ------------------------------------------------------------------------------------------------------------


async def test_states_come_whole_first_and_then_in_their_place(world: SetWorld) -> None:
    """All tables before the first chunk; a change after the log of its moment and before what is written later."""
    master, second = [await world.broker(number) for number in (1, 2)]
    master.send()
    await master.lead(1, {1, 2})
    master.tables["topics"] = b"{0}"
    master.change("groups", b"[0]")
    second.follow(master, 1)
    await world.run(1)
    assert second.states == [("topics", b"{0}", True, 0), ("groups", b"[0]", True, 0)]
    second.states.clear()
    between = master.log.end_offset
    master.change("topics", b"+1", whole=False)
    first = master.send().size_bytes
    master.send()
    master.change("topics", b"+2", whole=False)
    master.send()
    await world.run(1)
    places = [between, between + 2 * first]
    assert second.states == [("topics", b"+1", False, places[0]), ("topics", b"+2", False, places[1])]
    assert second.held() == master.held()


async def test_pointers_come_behind_the_log_that_they_speak_of(world: SetWorld) -> None:
    """A replica that is elected before has older ones: something comes again, and nothing is missed."""
    master, second = [await world.broker(number) for number in (1, 2)]
    for _ in range(10):
        master.send()
    await master.lead(1, {1})
    master.tables["topics"] = b"{0}"
    master.tables[CONSUMER_OFFSETS] = b"{10}"
    end = master.log.end_offset
    second.follow(master, 1)
    await world.run(1)
    assert second.states == [("topics", b"{0}", True, 0), (CONSUMER_OFFSETS, b"{10}", True, end)]
    assert end > 0


async def test_pointers_wait_until_their_place_is_confirmed(world: SetWorld) -> None:
    """Nobody's log is cut before it: else messages would count as done whose successors are gone."""
    master, second, third = [await world.broker(number) for number in (1, 2, 3)]
    await master.lead(1, {1, 2, 3})
    second.follow(master, 1)
    third.follow(master, 1)
    await world.run(1)
    await third.following.stop()
    master.send()
    master.change(CONSUMER_OFFSETS, b"+1", whole=False)
    master.send()
    await world.run(1)
    assert second.held() == master.held()
    assert second.states == []
    third.follow(master, 1)
    await world.run(1)
    assert second.states == [(CONSUMER_OFFSETS, b"+1", False, master.log.end_offset)]


async def test_a_replica_that_was_proposed_and_connects_anew_holds_nobody_up(world: SetWorld) -> None:
    """Its pointers wait for what is confirmed, and that for what it holds: this counts before it has the pointers."""
    master, second, third = [await world.broker(number) for number in (1, 2, 3)]
    master.tables[CONSUMER_OFFSETS] = b"{0}"
    await master.lead(1, {1, 2})
    for replica in (second, third):
        replica.follow(master, 1)
    await world.run(1)
    assert {each.broker_id for each in master.proposals[-1].members} == {1, 2, 3}
    await third.following.stop()
    master.send()
    third.follow(master, 1)
    await world.run(1)
    assert master.log.confirm_offset == master.log.end_offset
    assert third.states[-1][0] == CONSUMER_OFFSETS


async def test_who_waits_for_a_confirmation_hears_of_it(world: SetWorld) -> None:
    """Or that this master leads no longer."""
    master, second = [await world.broker(number) for number in (1, 2)]
    leading = await master.lead(1, {1, 2})
    await leading.until_confirmed(0)
    master.send()
    waiting = asyncio.ensure_future(leading.until_confirmed(master.log.end_offset))
    await world.run(1)
    assert not waiting.done()
    second.follow(master, 1)
    await world.run(1)
    assert waiting.done()
    await second.following.stop()
    master.send()
    waiting = asyncio.ensure_future(leading.until_confirmed(master.log.end_offset))
    await world.run(0)
    await master.stop_leading()
    with pytest.raises(LeadershipEnded):
        await waiting


async def test_who_has_not_stored_the_tables_comes_into_no_set(world: SetWorld) -> None:
    """It may have pointers of its own from a log that was cut off: elected with them it would pass messages by."""
    master, second = [await world.broker(number) for number in (1, 2)]
    master.send()
    await master.lead(1, {1})
    master.tables[CONSUMER_OFFSETS] = b"{10}"
    second.state_failure = OSError("no room")
    second.follow(master, 1)
    await world.run(3)
    assert second.held() == master.held()
    assert master.proposals == []
    second.state_failure = None
    await world.run(10)
    assert [{each.broker_id for each in proposal.members} for proposal in master.proposals[:1]] == [{1, 2}]


async def test_a_large_state_comes_in_one_piece(world: SetWorld) -> None:
    """However many messages it takes."""
    master, second = [await world.broker(number) for number in (1, 2)]
    table = bytes(range(256)) * 4000
    master.tables |= {"large": table, "empty": b""}
    await master.lead(1, {1, 2})
    second.follow(master, 1)
    await world.run(1)
    assert second.states == [("large", table, True, 0), ("empty", b"", True, 0)]


async def test_a_state_that_cannot_be_kept_is_sent_again_whole(world: SetWorld) -> None:
    """Nothing behind it is acknowledged until it is kept."""
    master, second = [await world.broker(number) for number in (1, 2)]
    await master.lead(1, {1, 2})
    second.follow(master, 1)
    await world.run(1)
    second.state_failure = OSError("no room")
    before = second.log.end_offset
    master.change("topics", b"{1}")
    master.send()
    await world.run(0.3)
    assert second.log.end_offset == before
    second.state_failure = None
    await world.run(1)
    assert second.states == [("topics", b"{1}", True, before)]
    assert master.log.confirm_offset == master.log.end_offset


async def test_too_many_waiting_states_become_whole_tables(world: SetWorld) -> None:
    """A replica that is far behind is sent the tables as they are, instead of each change."""
    master, second = [await world.broker(number) for number in (1, 2)]
    await master.lead(1, {1, 2})
    second.follow(master, 1)
    await world.run(1)
    second.states.clear()
    master.tables["topics"] = b"{all}"
    for number in range(3000):
        master.change("topics", b"+%d" % number, whole=False)
    await world.run(1)
    assert second.states == [("topics", b"{all}", True, 0)]


async def test_a_master_knows_once_all_changes_are_stored(world: SetWorld) -> None:
    """Of every member that copies, also where no byte of the log follows the change."""
    master, second, third = [await world.broker(number) for number in (1, 2, 3)]
    leading = await master.lead(1, {1, 2, 3})
    for replica in (second, third):
        replica.follow(master, 1)
    await world.run(1)
    await asyncio.wait_for(leading.states_stored(), 1)
    third.may_store.clear()
    master.change("topics", b"{1}")
    stored = asyncio.ensure_future(leading.states_stored())
    await world.run(3)
    assert ("topics", b"{1}", True, 0) in second.states
    assert not stored.done()
    third.may_store.set()
    await world.run(0)
    assert third.states[-1] == ("topics", b"{1}", True, 0)
    assert stored.done()


async def test_who_is_gone_or_not_in_the_set_is_not_waited_for(world: SetWorld) -> None:
    """What a learner or a replica that left has of the tables does not matter: it is not elected."""
    master, second, third = [await world.broker(number) for number in (1, 2, 3)]
    leading = await master.lead(1, {1, 2})
    for replica in (second, third):
        replica.follow(master, 1)
    await world.run(1)
    second.state_failure = OSError("no room")
    third.may_store.clear()
    master.change("topics", b"{1}")
    stored = asyncio.ensure_future(leading.states_stored())
    await world.run(0.05)
    assert stored.done()
    third.may_store.set()


# -- halting -----------------------------------------------------------------------------------------------------------


async def test_a_replica_with_confirmed_records_that_its_master_lacks_halts(
    world: SetWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """It copies nothing, says why and what to do, and takes a later order to follow another master."""
    master, second, third = await three(world)
    await third.following.stop()
    await world.run(2)  # silent for long enough not to be proposed again
    master.send(b"held by the first two")
    master.leading.take_set(progress.TakeSet(frozenset({1, 2}), 11))  # type: ignore[union-attr]
    await world.run(1)
    held = second.held()
    await third.lead(2, {3})
    with caplog.at_level(logging.ERROR):
        second.follow(third, 2)
        await world.run(5)
    assert second.phase is follower.Phase.HALTED
    assert second.held() == held
    [record] = caplog.records
    for word in (str(second.log.confirm_offset), str(third.log.end_offset), "person", "elect-master", "docs/ha.md"):
        assert word in record.getMessage()
    assert second.following.halted_reason in record.getMessage()
    await master.lead(3, {1, 2})
    second.follow(master, 3)
    await world.run(1)
    assert second.phase is COPYING
    assert second.following.halted_reason == ""
    assert second.held() == master.held()


async def test_an_unconfirmed_log_with_nothing_in_common_is_dropped(world: SetWorld) -> None:
    """Nothing in it was ever acknowledged: the master's takes its place from its beginning."""
    master, second, third = [await world.broker(number) for number in (1, 2, 3)]
    await third.lead(1, {1, 2, 3})
    third.send(b"never confirmed")
    second.follow(third, 1)
    await world.run(1)
    assert second.log.end_offset > 0
    await master.lead(2, {1, 2, 3})
    master.send(b"of epoch 2")
    second.follow(master, 2)
    await world.run(1)
    assert second.held() == master.held()
    assert second.log.entries == (EpochEntry(2, 0),)


async def test_a_log_that_never_was_a_sets_is_not_dropped(world: SetWorld) -> None:
    """A broker that stood alone acknowledged by itself: only a person may drop that."""
    master, second = [await world.broker(number) for number in (1, 2)]
    second.send(b"acknowledged to somebody")
    held = second.held()
    await master.lead(1, {1})
    master.send(b"another log")
    second.follow(master, 1)
    await world.run(3)
    assert second.held() == held
    assert second.phase is follower.Phase.HALTED
    [error] = second.full_copies
    assert "move its store directory away" in str(error)


async def test_a_log_that_cannot_be_continued_halts_after_a_few_attempts(world: SetWorld) -> None:
    """The bytes before the common point agree, but what follows does not fit: trying for ever would not help."""
    master, second, third = await three(world)
    await second.following.stop()
    master.send(b"next in its queue")
    world.corrupt(master, second.log.end_offset)
    second.follow(master, 1)
    await world.run(10)
    assert second.phase is follower.Phase.HALTED
    assert "apogeemq-store check" in second.following.halted_reason
    assert third.phase is follower.Phase.COPYING or third.following.halted_reason


async def test_a_replica_without_room_goes_on_once_it_has_some(world: SetWorld) -> None:
    """A full disk passes; meanwhile it tries again and again."""
    master = await world.broker(1)
    second = await world.broker(2)
    await master.lead(1, {1, 2})
    second.follow(master, 1)
    await world.run(1)
    second.disk.capacity_bytes = sum(inode.allocated_bytes for inode in second.disk.files.values())
    for _ in range(200):
        master.send(b"x" * 1000)
    await world.run(3)
    assert second.log.end_offset < master.log.end_offset
    second.disk.capacity_bytes = None
    await world.run(3)
    assert second.held() == master.held()
