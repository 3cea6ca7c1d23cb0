"""The popping part of a broker put together: what is popped, who waits, what comes again."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Hashable

from apogeemq.broker.config import BrokerConfig
from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.pop import RetryMark
from apogeemq.broker.core.pop_orders import PopOrders
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.service.cold_reads import ColdReads
from apogeemq.broker.service.log_reads import LogReads
from apogeemq.broker.service.order_log import OrderLog
from apogeemq.broker.service.ordered_pops import OrderedPops
from apogeemq.broker.service.pop import PopService
from apogeemq.broker.service.pop_waits import PopPolls
from apogeemq.broker.service.revive import ReviveService
from apogeemq.broker.service.revive_log import ReviveLog
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.store.message_store import MessageStore


class Popping:
    """The services of popping, wired; `service` and `polls` are for the doors. Needs a running event loop."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        store: MessageStore,
        reads: LogReads,
        topics: TopicTable,
        groups: SubscriptionGroupTable,
        offsets: ConsumerOffsetTable,
        writer: MessageWriter,
        cold_reads: ColdReads,
        clock: Clock,
        chance: Chance,
        store_host: bytes,
        offset_message_id: Callable[[int], str],
        dead_letters: Counter[tuple[str, str]],
        orders: PopOrders,
        order_log_position: int | None,
    ) -> None:
        identity, limits = config.identity, config.limits
        marks = _retry_topic_marks(v2=config.pop.retry_topic_v2, v1_too=config.pop.retrieve_retry_topic_v1)
        self.log = ReviveLog(
            store=store,
            topics=topics,
            writer=writer,
            cluster=identity.cluster_name,
            broker_name=identity.broker_name,
            store_host=store_host,
            now_ms=clock.now_ms,
        )
        self.revive = ReviveService(
            store=store,
            topics=topics,
            groups=groups,
            offsets=offsets,
            writer=writer,
            revive_log=self.log,
            clock=clock,
            retry_mark=marks[0],
            reads=reads,
            dead_letters=dead_letters,
            offset_message_id=offset_message_id,
        )
        self.order_log = OrderLog(
            store=store,
            topics=topics,
            writer=writer,
            orders=orders,
            position=order_log_position,
            cluster=identity.cluster_name,
            store_host=store_host,
            now_ms=clock.now_ms,
        )
        self.ordered = OrderedPops(
            store=store,
            offsets=offsets,
            log=self.order_log,
            now_ms=clock.now_ms,
            monotonic=clock.monotonic,
            size_bytes_max=limits.pull_size_bytes_max,
            per_group_max=config.pop.message_group_in_flight_max,
        )
        self.service = PopService(
            store=store,
            topics=topics,
            groups=groups,
            offsets=offsets,
            log=self.log,
            ordered=self.ordered,
            now_ms=clock.now_ms,
            monotonic=clock.monotonic,
            randrange=chance.randrange,
            permission=identity.broker_permission,
            size_bytes_max=limits.pull_size_bytes_max,
            retry_topic_marks=marks,
            retry_first_percent=config.pop.retry_probability_percent,
            hot_window_bytes=config.store.hot_window_bytes,
            messages_max=limits.popped_messages_max,
            sql_enabled=config.topics.property_filter_enable,
        )
        self.polls = PopPolls(
            pops=self.service,
            monotonic=clock.monotonic,
            waiting_max=limits.held_pops_max,
            waiting_per_key_max=limits.held_pops_per_key_max,
            hold_s_max=limits.pull_hold_s_max,
            cold_reads=cold_reads,
        )
        self.ordered.on_freed = lambda topic, group, queue_id: self.polls.offsets_reset(topic, group, (queue_id,))

    async def restore(self) -> None:
        """Read back what was popped before this start; until then every pop and handle is refused."""
        await self.revive.restore()
        await self.ordered.restore()
        self.service.ready = True

    def start(self) -> asyncio.Task[None]:
        """Begin to revive what is due."""
        return asyncio.create_task(self.revive.run(), name="revive")

    def expire(self) -> None:
        """Answer whose poll time is over, and wake who waits for messages whose time is over."""
        self.polls.expire()
        self.ordered.tick()

    def offsets_reset(self, topic: str, group: str, queue_ids: Collection[int]) -> None:
        """A group's offsets were set by an operator: what is in hand in order belongs to the old ones."""
        for queue_id in queue_ids:
            self.ordered.position_set(topic, group, queue_id)
        self.polls.offsets_reset(topic, group, queue_ids)

    def owner_gone(self, owner: Hashable) -> None:
        """Whoever asked is gone: nothing is popped for it any more."""
        self.polls.drop_owner(owner)

    async def stop(self) -> None:
        """Answer who waits, and note how far the revive log is settled. Reviving has ended before."""
        await self.polls.stop()
        if self.service.ready:
            self.revive.commit_progress()


def _retry_topic_marks(*, v2: bool, v1_too: bool) -> tuple[RetryMark, ...]:
    if not v2:
        return (RetryMark.V1,)
    return (RetryMark.V2, RetryMark.V1) if v1_too else (RetryMark.V2,)
