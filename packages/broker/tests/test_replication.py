"""Master and replicas on real stores: what is copied, confirmed, cut and refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from apogeemq.broker.core.replication import follower

from packages.broker.tests.replicas import SetWorld


@pytest.fixture
async def world() -> AsyncIterator[SetWorld]:
    world = SetWorld()
    yield world
    await world.close()


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
    assert master.log.confirm_offset == master.log.end_offset > 2 * 64 << 10
    assert second.held() == third.held() == master.held()
    assert second.phase is third.phase is follower.Phase.COPYING
    assert second.log.entries == master.log.entries
    await world.run(0.6)
    assert second.log.confirm_offset == master.log.end_offset
    assert second.store.max_offset("TopicTest", 1) == 50
