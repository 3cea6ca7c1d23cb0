"""Reads in threads, held back by events of the test."""

import asyncio
import threading

import pytest
from apogeemq.broker.errors import SystemBusy
from apogeemq.broker.service.cold_reads import ColdReads


async def test_a_read_gives_its_result_or_its_error() -> None:
    """As if it had been called here."""
    reads = ColdReads(running_max=1)
    assert await reads.read(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await reads.read(lambda: 1 // 0)


async def test_one_read_too_many_is_refused() -> None:
    """With the setting that says how many may run; afterwards there is room again."""
    reads, go_on = ColdReads(running_max=1), threading.Event()
    first = asyncio.ensure_future(reads.read(go_on.wait))
    await asyncio.sleep(0)
    with pytest.raises(SystemBusy, match="cold_reads_max"):
        await reads.read(lambda: 7)
    go_on.set()
    await first
    assert await reads.read(lambda: 7) == 7


async def test_a_read_that_nobody_waits_for_still_counts() -> None:
    """Its thread runs on; a stop lets it come to its end."""
    reads, go_on = ColdReads(running_max=1), threading.Event()
    first = asyncio.ensure_future(reads.read(go_on.wait))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    with pytest.raises(SystemBusy):
        await reads.read(lambda: 7)
    go_on.set()
    await reads.stop()
    assert await reads.read(lambda: 7) == 7
