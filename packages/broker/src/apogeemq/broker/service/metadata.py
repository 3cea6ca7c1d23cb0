"""Keeps the tables' files up to date: topics, groups, modes and queue locks at once after a change, offsets every few
seconds.

What changed goes into a journal beside the file; the whole goes into the file, as Java reads it, when the journal is
full, every few minutes, and at the stop. While one write runs, changes gather for the next: a thousand new topics are a
handful of synced appends. Acknowledgements of first messages wait for their topic in a line of their own.

Consumer offsets and delay progress are pointers into the log: they are written only after the log is flushed, and in a
broker set confirmed, up to where it stood when they were taken (architecture §5). So after a crash or a change of roles
nothing counts as consumed or delivered that was lost, nor what will later get its number.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Protocol

from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.queue_locks import QueueLockTable
from apogeemq.broker.core.request_modes import RequestModeTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.metadata_files import MetadataFiles
from apogeemq.broker.service.delay import DelayService
from apogeemq.broker.service.durability import AcknowledgementLine
from apogeemq.broker.service.saved_tables import (
    SavedConsumerOffsets,
    SavedDelayProgress,
    SavedGroups,
    SavedPopOrders,
    SavedQueueLocks,
    SavedRequestModes,
    SavedTopics,
)
from apogeemq.broker.service.table_copies import (
    CONSUMER_OFFSETS,
    DELAY_OFFSETS,
    GROUPS,
    MODES,
    POP_ORDERS,
    QUEUE_LOCKS,
    TOPICS,
)
from apogeemq.broker.service.table_saver import TableSaver
from apogeemq.mesh.clock import Clock
from apogeemq.store.errors import StoreError

log = logging.getLogger(__name__)

RETRY_WAIT_S = 1.0
RETRY_WAIT_S_MAX = 30.0
"""After a failed write; doubled with each further one, since each may encode a whole table in vain."""

WHOLE_INTERVAL_S = 300.0
"""How old a `.json` may become while its journal says more: what a Java broker misses at most after a kill."""


class NotConfirmed(StoreError):  # noqa: N818 — a fact
    """What a table speaks of is not confirmed by the broker set: it is not written now."""


class Saver(Protocol):
    """A TableSaver, whatever the keys of its table are."""

    async def whole(self) -> bytes:
        """See TableSaver."""
        ...

    async def save_whole(self) -> None:
        """See TableSaver."""
        ...

    async def settle(self) -> None:
        """See TableSaver."""
        ...


class MetadataSaver:
    """Writes the files of one broker.

    Args:
        files: where to.
        topics, groups, offsets, delay, modes, orders, locks: what.
        topic_line: acknowledgements that wait until their topic is written.
        mode_line: answers that wait until their mode is written.
        settle_log: has the commit log flushed, and confirmed, up to where it is now. Errors: StoreError, OSError.
        clock: for the waits.
        on_pointers: gets, by the table's name, each change of offsets and progress that was written.
        offsets_interval_s: between writes of consumer offsets (flushConsumerOffsetInterval).
        delay_interval_s: between writes of delay progress.
    """

    def __init__(
        self,
        *,
        files: MetadataFiles,
        topics: TopicTable,
        groups: SubscriptionGroupTable,
        offsets: ConsumerOffsetTable,
        delay: DelayService,
        modes: RequestModeTable,
        orders: SavedPopOrders,
        locks: QueueLockTable,
        topic_line: AcknowledgementLine,
        mode_line: AcknowledgementLine,
        settle_log: Callable[[], Awaitable[None]],
        clock: Clock,
        offsets_interval_s: float,
        delay_interval_s: float,
        on_pointers: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._topics = topics
        self._groups = groups
        self._modes = modes
        self._topic_line = topic_line
        self._mode_line = mode_line
        self._clock = clock
        self._offsets_interval_s = offsets_interval_s
        self._delay_interval_s = delay_interval_s
        self._topics_changed = asyncio.Event()
        self._groups_changed = asyncio.Event()
        self._modes_changed = asyncio.Event()
        self._locks_changed = asyncio.Event()
        self._topic_saver = TableSaver(SavedTopics(topics), files.topics)
        self._group_saver = TableSaver(SavedGroups(groups), files.groups)

        def told(name: str) -> Callable[[bytes], None] | None:
            return None if on_pointers is None else partial(on_pointers, name)

        self._offset_saver = TableSaver(
            SavedConsumerOffsets(offsets),
            files.consumer_offsets,
            before_write=settle_log,
            on_written=told(CONSUMER_OFFSETS),
        )
        self._delay_saver = TableSaver(
            SavedDelayProgress(delay), files.delay_offsets, before_write=settle_log, on_written=told(DELAY_OFFSETS)
        )
        self._mode_saver = TableSaver(SavedRequestModes(modes), files.request_modes, on_written=told(MODES))
        self._order_saver = TableSaver(orders, files.pop_orders, before_write=settle_log, on_written=told(POP_ORDERS))
        self._lock_saver = TableSaver(SavedQueueLocks(locks), files.queue_locks)
        self._tasks: list[asyncio.Task[None]] = []
        topics.on_change(lambda _: self._topics_changed.set())
        groups.on_change(lambda _: self._groups_changed.set())
        modes.on_change(self._modes_changed.set)
        locks.on_change(lambda _: self._locks_changed.set())

    def start(self) -> None:
        """Begin to write after changes."""
        if self._topics.version > self._topics.saved_version:
            self._topics_changed.set()
        if self._groups.version > self._groups.saved_version:
            self._groups_changed.set()
        self._tasks = [
            asyncio.create_task(self._after_changes(self._topics_changed, self.save_topics), name="save-topics"),
            asyncio.create_task(self._after_changes(self._groups_changed, self.save_groups), name="save-groups"),
            asyncio.create_task(self._after_changes(self._modes_changed, self.save_request_modes), name="save-modes"),
            asyncio.create_task(self._after_changes(self._locks_changed, self._lock_saver.save), name="save-locks"),
            asyncio.create_task(
                self._every(self._offsets_interval_s, self.save_consumer_offsets), name="save-consumer-offsets"
            ),
            asyncio.create_task(
                self._every(self._delay_interval_s, self.save_delay_progress), name="save-delay-progress"
            ),
            asyncio.create_task(self._every(WHOLE_INTERVAL_S, self._save_whole), name="save-whole-tables"),
        ]

    async def wholes(self) -> AsyncIterator[tuple[str, bytes]]:
        """Each table by its name, in the form of its file, as it is now."""
        savers: dict[str, Saver] = {
            TOPICS: self._topic_saver,
            GROUPS: self._group_saver,
            MODES: self._mode_saver,
            CONSUMER_OFFSETS: self._offset_saver,
            DELAY_OFFSETS: self._delay_saver,
            POP_ORDERS: self._order_saver,
            QUEUE_LOCKS: self._lock_saver,
        }
        for name, saver in savers.items():
            yield name, await saver.whole()

    async def settle(self) -> None:
        """After a start, before the first request: write what the last process may not have synced, and what loading
        had to cut back. Errors: OSError, StoreError.

        Where the set does not confirm it in time it is written later, as ever: a broker must not fail to lead for that.
        """
        saves = [*(saver.settle for saver in self._savers()), self.save_consumer_offsets, self.save_delay_progress]
        for save in saves:
            try:
                await save()
            except NotConfirmed as why:
                log.warning("offsets and progress of before are written later: %s", why)

    async def stop(self) -> None:
        """Stop the loops, then write each file whole; goes on after an error and raises the first one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        errors: list[OSError | StoreError] = []
        for save in self._whole_saves():
            try:
                await save()
            except NotConfirmed as why:
                log.info("what was read last is not written at the stop: %s", why)
            except (OSError, StoreError) as error:
                log.error("a table could not be written at the stop: %s", error)  # noqa: TRY400 — the trace says nothing more
                errors.append(error)
        self._let_go()
        if errors:
            raise errors[0]

    async def save_topics(self) -> None:
        """Write what changed of topics.json, and let the acknowledgements go that waited for it."""
        await self._topic_saver.save()
        self._let_go()

    async def save_groups(self) -> None:
        """Write what changed of subscriptionGroup.json."""
        await self._group_saver.save()

    async def save_request_modes(self) -> None:
        """Write what changed of messageRequestMode.json, and let the answers go that waited for it."""
        await self._mode_saver.save()
        self._let_go()

    async def save_consumer_offsets(self) -> None:
        """If an offset was committed since: settle the log, then write what changed of consumerOffset.json.

        The same for consumerOrderInfo.json.
        """
        await self._offset_saver.save()
        await self._order_saver.save()

    async def save_delay_progress(self) -> None:
        """If a delayed message was delivered since: settle the log, then write what changed of delayOffset.json."""
        await self._delay_saver.save()

    async def _save_whole(self) -> None:
        for save in self._whole_saves():
            await self._try(save)
        self._let_go()

    def _let_go(self) -> None:
        self._topic_line.reached(self._topics.saved_version)
        self._mode_line.reached(self._modes.saved_version)

    def _whole_saves(self) -> list[Callable[[], Awaitable[None]]]:
        return [saver.save_whole for saver in self._savers()]

    def _savers(self) -> tuple[Saver, ...]:
        pointers = self._offset_saver, self._order_saver, self._delay_saver
        return self._topic_saver, self._group_saver, self._mode_saver, self._lock_saver, *pointers

    async def _after_changes(self, changed: asyncio.Event, save: Callable[[], Awaitable[None]]) -> None:
        wait_s = RETRY_WAIT_S
        while True:
            await changed.wait()
            changed.clear()
            if await self._try(save):
                wait_s = RETRY_WAIT_S
            else:
                changed.set()
                await self._clock.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_WAIT_S_MAX)

    async def _every(self, interval_s: float, save: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.sleep(interval_s)
            await self._try(save)

    @staticmethod
    async def _try(save: Callable[[], Awaitable[None]]) -> bool:
        """A failed write is told and tried again: the tables in memory stay what counts."""
        try:
            await save()
        except (OSError, StoreError) as error:
            log.error("metadata could not be written, trying again: %s", error)  # noqa: TRY400 — the trace says nothing more
            return False
        return True
