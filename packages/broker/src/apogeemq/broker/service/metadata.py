"""Keeps the tables' files up to date: topics and groups at once after a change, offsets every few seconds.

What is written is copied from the table on the event loop; making the text and writing it (with its fsync) happens in a
thread. While one
write runs, changes gather for the next: a thousand new topics are a handful of files. Acknowledgements of first
messages wait for their topic in a line of their own.

Consumer offsets and delay progress are pointers into the log: they are written only after the log is flushed up to
where it stood when they were taken (architecture §5). So after a crash nothing counts as consumed or delivered that was
lost, nor what will later get its number.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.metadata_files import MetadataFiles
from apogeemq.broker.service.delay import DelayService
from apogeemq.broker.service.durability import AcknowledgementLine
from apogeemq.mesh.clock import Clock
from apogeemq.remoting_codec.fastjson import JsonBody
from apogeemq.store.config_files import ConfigFile
from apogeemq.store.errors import StoreError

log = logging.getLogger(__name__)

RETRY_WAIT_S = 1.0


class MetadataSaver:
    """Writes the files of one broker.

    Args:
        files: where to.
        topics, groups, offsets, delay: what.
        topic_line: acknowledgements that wait until their topic is written.
        flush_log: flushes the commit log in a thread, up to where it is now.
        clock: for the waits.
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
        topic_line: AcknowledgementLine,
        flush_log: Callable[[], None],
        clock: Clock,
        offsets_interval_s: float,
        delay_interval_s: float,
    ) -> None:
        self._files = files
        self._topics = topics
        self._groups = groups
        self._offsets = offsets
        self._delay = delay
        self._topic_line = topic_line
        self._flush_log = flush_log
        self._clock = clock
        self._offsets_interval_s = offsets_interval_s
        self._delay_interval_s = delay_interval_s
        self._topics_changed = asyncio.Event()
        self._groups_changed = asyncio.Event()
        self._saved_offset_changes = 0
        self._saved_delay_changes = 0
        self._tasks: list[asyncio.Task[None]] = []
        topics.on_change(lambda _: self._topics_changed.set())
        groups.on_change(self._groups_changed.set)

    def start(self) -> None:
        """Begin to write after changes."""
        if self._topics.version > self._topics.saved_version:
            self._topics_changed.set()
        if self._groups.version > self._groups.saved_version:
            self._groups_changed.set()
        self._tasks = [
            asyncio.create_task(self._after_changes(self._topics_changed, self.save_topics), name="save-topics"),
            asyncio.create_task(self._after_changes(self._groups_changed, self.save_groups), name="save-groups"),
            asyncio.create_task(
                self._every(self._offsets_interval_s, self.save_consumer_offsets), name="save-consumer-offsets"
            ),
            asyncio.create_task(
                self._every(self._delay_interval_s, self.save_delay_progress), name="save-delay-progress"
            ),
        ]

    async def stop(self) -> None:
        """Stop the loops, then write everything once more; goes on after an error and raises the first one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        errors: list[OSError | StoreError] = []
        for save in (self.save_topics, self.save_groups, self.save_consumer_offsets, self.save_delay_progress):
            try:
                await save()
            except (OSError, StoreError) as error:
                log.error("%s failed at the stop: %s", save.__name__, error)  # noqa: TRY400 — the trace says nothing more
                errors.append(error)
        if errors:
            raise errors[0]

    async def save_topics(self) -> None:
        """Write topics.json, and let the acknowledgements go that waited for it."""
        version = self._topics.version
        if version > self._topics.saved_version:
            await _in_thread(self._save, self._files.topics, self._files.topics_body(self._topics))
            self._topics.saved(version)
        self._topic_line.reached(self._topics.saved_version)

    async def save_groups(self) -> None:
        """Write subscriptionGroup.json."""
        version = self._groups.version
        if version > self._groups.saved_version:
            await _in_thread(self._save, self._files.groups, self._files.groups_body(self._groups))
            self._groups.saved(version)

    async def save_consumer_offsets(self) -> None:
        """Flush the log, then write consumerOffset.json, if an offset was committed since."""
        changes = self._offsets.changes
        if changes != self._saved_offset_changes:
            body = self._files.consumer_offsets_body(self._offsets)
            await _in_thread(self._flush_then_save, self._files.consumer_offsets, body)
            self._saved_offset_changes = changes

    async def save_delay_progress(self) -> None:
        """Flush the log, then write delayOffset.json, if a delayed message was delivered since."""
        changes = self._delay.changes
        if changes != self._saved_delay_changes:
            body = self._files.delay_offsets_body(self._delay.progress)
            await _in_thread(self._flush_then_save, self._files.delay_offsets, body)
            self._saved_delay_changes = changes

    @staticmethod
    def _save(file: ConfigFile, body: JsonBody) -> None:
        file.save(body.encode(pretty=True))

    def _flush_then_save(self, file: ConfigFile, body: JsonBody) -> None:
        self._flush_log()
        self._save(file, body)

    async def _after_changes(self, changed: asyncio.Event, save: Callable[[], Awaitable[None]]) -> None:
        while True:
            await changed.wait()
            changed.clear()
            if not await self._try(save):
                changed.set()
                await self._clock.sleep(RETRY_WAIT_S)

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


async def _in_thread(write: Callable[[ConfigFile, JsonBody], None], file: ConfigFile, body: JsonBody) -> None:
    """Write in a thread. When cancelled, wait for it first: two writes of one file must never overlap."""
    writing = asyncio.ensure_future(asyncio.to_thread(write, file, body))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.gather(writing, return_exceptions=True)  # what failed now is written once more by `stop`
        raise
