"""A set's log as it is opened, and as its epochs begin."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from apogeemq.broker.service.replicated_log import LogExpired
from apogeemq.store.epoch_file import EpochEntry, EpochFile

from packages.broker.tests.replicas import DIRECTORY, SetWorld


@pytest.fixture
async def world() -> AsyncIterator[SetWorld]:
    world = SetWorld()
    yield world
    await world.close()


async def test_readers_see_what_was_confirmed_when_it_was_noted(world: SetWorld) -> None:
    """Nothing without a note; after a stop what was confirmed before, and no record behind it."""
    broker = await world.broker(1)
    broker.send()
    assert broker.log.confirm_offset == broker.store.max_offset("TopicTest", 0) == 0
    await broker.lead(1, {1})
    confirmed = broker.log.end_offset
    await broker.lead(2, {1, 2})
    broker.send()
    await broker.stop()
    await broker.start()
    assert broker.log.confirm_offset == confirmed < broker.log.end_offset
    assert broker.store.max_offset("TopicTest", 0) == 1


async def test_the_first_epoch_has_all_that_was_written_before(world: SetWorld) -> None:
    """A later one begins at the log's end; each is in the file at once."""
    broker = await world.broker(1)
    broker.send()
    await broker.log.begin_epoch(3)
    end = broker.log.end_offset
    await broker.log.begin_epoch(4)
    entries = (EpochEntry(3, 0), EpochEntry(4, end))
    assert broker.log.entries == EpochFile(broker.disk, DIRECTORY / "epochFileCheckpoint").entries == entries
    assert broker.log.last_epoch == 4


async def test_each_byte_belongs_to_one_epoch(world: SetWorld) -> None:
    """The one that began last at or before it; bytes before the first entry are counted to that."""
    broker = await world.broker(1)
    for entry in (EpochEntry(2, 100), EpochEntry(3, 200), EpochEntry(5, 200)):
        await broker.log.add_entry(entry)
    log = broker.log
    assert [log.epoch_at(offset) for offset in (0, 100, 199)] == [(EpochEntry(2, 100), 200)] * 3
    assert log.epoch_at(200) == log.epoch_at(10_000) == (EpochEntry(5, 200), None)


async def test_epochs_behind_the_end_of_the_log_are_forgotten_at_the_start(world: SetWorld) -> None:
    """The log lost that end, or never had their first record; one that begins at the end stays."""
    broker = await world.broker(1)
    broker.send()
    await broker.log.begin_epoch(1)
    end = broker.log.end_offset
    await broker.log.begin_epoch(2)
    await broker.log.add_entry(EpochEntry(3, end + 1))
    await broker.stop()
    await broker.start()
    assert broker.log.entries == (EpochEntry(1, 0), EpochEntry(2, end))


async def test_reading_says_what_is_not_there(world: SetWorld) -> None:
    """Nothing at the end, an error behind it; what waits for the disk comes all the same."""
    broker = await world.broker(1)
    broker.send()
    end = broker.log.end_offset
    assert await broker.log.read(end, 100) == b""
    with pytest.raises(ValueError, match="behind"):
        await broker.log.read(end + 1, 100)
    with pytest.raises(LogExpired):
        await broker.log.read(-1, 100)
    held = broker.held()
    await broker.stop()
    await broker.start()
    broker.disk.cached = False
    assert await broker.log.read(0, 1 << 20) == held
