"""What a slave serves: reads, by the rules of Apache's slaves, up to what the set has confirmed.

```
 master ─log─▶ store: readers stop at the confirm offset ──┐
        ─tables─▶ files, and take_table ──▶ topics, groups ┴─▶ Reading: pulls, ends of queues, members of groups
```
Clients come here when a master tells them to (slaveReadEnable), or when their route has no master. Whatever changes
something is refused with the words that send clients to the master; so are commits of offsets, which Apache's slave
takes and forgets with the next table that it copies.

A cut of the log never reaches below the confirm offset: what is being read stays where it is.

Source: reference broker_behaviour.md §5 (what becomes of a pull's answer at a slave), §9.
"""

import asyncio
from collections.abc import Callable, Hashable

from apogeemq.broker.config import BrokerConfig
from apogeemq.broker.core.clients import ClientTable
from apogeemq.broker.core.long_polling import HeldLimits, LongPollingTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.faces.remoting.disk_reads import DiskReads
from apogeemq.broker.faces.remoting.groups import GroupRequests, notify_consumer_ids_changed
from apogeemq.broker.faces.remoting.offsets import OffsetRequests
from apogeemq.broker.faces.remoting.pulls import HeldPull, PullRequests, SlaveRules
from apogeemq.broker.faces.remoting.sliced_pulls import SlicedPulls
from apogeemq.broker.faces.remoting.table import RemotingFace, RequestStats
from apogeemq.broker.metadata_files import MetadataFiles
from apogeemq.broker.service.cold_reads import ColdReads
from apogeemq.broker.service.fetch import FetchService
from apogeemq.broker.service.groups import GroupService
from apogeemq.broker.service.offsets import OffsetService
from apogeemq.broker.service.slave_reads import suggestion
from apogeemq.broker.service.table_copies import CONSUMER_OFFSETS, GROUPS, TOPICS
from apogeemq.mesh.clock import Clock
from apogeemq.remoting_codec.aio.access import AccessHook, AllowAll
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import (
    ConsumerOffsetSerializeWrapper,
    SubscriptionGroupWrapper,
    TopicConfigSerializeWrapper,
)
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.roles import NOT_MASTER
from apogeemq.store.message_store import MessageStore

TICK_S = 0.2
"""How exactly held pulls end, and how soon they are woken: nobody says here which queues got messages."""

CLIENT_SCAN_INTERVAL_S = 10.0


class Reading:
    """A slave's tables and door, until it stops, or leads and lets clients in. Needs a running event loop.

    Args:
        store: open; it is appended to meanwhile, by the copying.
        files: the tables as they are now; later changes come by `take_table`.
        is_master_there: whether the master's log comes in at this moment.
    """

    def __init__(
        self,
        config: BrokerConfig,
        store: MessageStore,
        files: MetadataFiles,
        *,
        clock: Clock,
        access: AccessHook | None,
        is_master_there: Callable[[], bool],
    ) -> None:
        limits, topics = config.limits, config.topics
        self._store = store
        self._is_master_there = is_master_there
        self._was_master_there = True
        self._looked_at_offset = 0
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self.topics = TopicTable(
            now_ms=clock.now_ms,
            auto_create=False,
            default_queue_nums=topics.default_topic_queue_nums,
            topics_max=limits.topics_max,
        )
        self.groups = SubscriptionGroupTable(
            now_ms=clock.now_ms, auto_create=topics.auto_create_subscription_group, groups_max=limits.groups_max
        )
        files.load_topics(self.topics)
        files.load_groups(self.groups)
        self.offsets = files.load_consumer_offsets()
        self.clients: ClientTable[Hashable] = ClientTable(client_timeout_s=limits.client_timeout_s)
        stats = RequestStats()
        fetch = FetchService(
            store=store,
            topics=self.topics,
            groups=self.groups,
            offsets=self.offsets,
            clients=self.clients,
            permission=config.identity.broker_permission,
            broker_name=config.identity.broker_name,
            count_max=limits.pull_messages_max,
            size_bytes_max=limits.pull_size_bytes_max,
            sql_enabled=topics.property_filter_enable,
        )
        self._group_service: GroupService[Hashable] = GroupService(
            clients=self.clients,
            groups=self.groups,
            topics=self.topics,
            notify=notify_consumer_ids_changed,
            monotonic=clock.monotonic,
            sql_enabled=topics.property_filter_enable,
            refuse_differing=topics.refuse_differing_subscriptions,
        )
        self._cold_reads = ColdReads(running_max=limits.cold_reads_max)
        disk_reads = DiskReads(self._cold_reads, self._refuse)
        self._pulls = PullRequests(
            fetch=fetch,
            table=LongPollingTable[HeldPull](
                HeldLimits(
                    waiting_max=limits.held_pulls_max,
                    waiting_per_queue_max=limits.held_pulls_per_queue_max,
                    waiting_per_owner_max=limits.held_pulls_per_client_max,
                    size_bytes_max=limits.held_pulls_bytes_max,
                )
            ),
            sliced=SlicedPulls(fetch=fetch, disk_reads=disk_reads, refuse=self._refuse, monotonic=clock.monotonic),
            stats=stats,
            disk_reads=disk_reads,
            refuse=self._refuse,
            monotonic=clock.monotonic,
            hold_s_max=limits.pull_hold_s_max,
            short_hold_s=topics.short_polling_time_ms / 1000,
            long_polling=topics.long_polling_enable,
            slave=SlaveRules(is_master_there, config.replication.slave_read_enable),
            suggest=suggestion(config, store, self.groups),
        )
        offset_service = OffsetService(
            store=store,
            topics=self.topics,
            groups=self.groups,
            offsets=self.offsets,
            hot_window_bytes=config.store.hot_window_bytes,
        )
        offsets = OffsetRequests(offset_service, stats, disk_reads).handlers()
        del offsets[RequestCode.UPDATE_CONSUMER_OFFSET]
        self._face = RemotingFace(
            {
                **self._pulls.handlers(),
                **offsets,
                **GroupRequests(self._group_service, stats).handlers(),
                RequestCode.END_TRANSACTION: _end_transaction,
            },
            access or AllowAll(),
            stats,
        )

    def start(self) -> None:
        """Begin the work that runs beside requests."""
        self._tasks = [
            asyncio.create_task(self._tick(), name="reading-tick"),
            asyncio.create_task(self._scan_clients(), name="reading-scan-clients"),
        ]

    async def stop(self) -> None:
        """Answer who waits; what reads from the disk is waited for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pulls.stop()
        await self._cold_reads.stop()

    def serves(self, code: int) -> bool:
        """Whether this request is a slave's to answer."""
        return code in self._face.codes

    def handle(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Serve one request."""
        return self._face(channel, command)

    def channel_closed(self, channel: Channel) -> None:
        """A client's connection is gone."""
        self._pulls.channel_closed(channel)
        self._group_service.channel_closed(channel)

    def take_table(self, name: str, data: bytes) -> None:
        """A table of the master, or what changed of it; others than readers need are passed over.

        What is in it replaces what was known; the tables have no deletions. Raises BodyInvalid.
        """
        if name == TOPICS:
            topics = TopicConfigSerializeWrapper.decode(data)
            self.topics.load(topics.topic_config_table.values(), topics.data_version)
        elif name == GROUPS:
            groups = SubscriptionGroupWrapper.decode(data)
            self.groups.load(groups.subscription_group_table.values(), groups.data_version, None)
        elif name == CONSUMER_OFFSETS:
            self.offsets.load(ConsumerOffsetSerializeWrapper.decode(data).offset_table)

    def _refuse(self, command: RemotingCommand, error: Exception) -> Reply:
        return self._face.refuse(command, error)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self._pulls.expire()
            is_master_there = self._is_master_there()
            if is_master_there and not self._was_master_there:
                self._pulls.stop()  # who waited for the master can ask it now
            self._was_master_there = is_master_there
            offset = self._store.confirm_offset
            if offset != self._looked_at_offset:
                self._looked_at_offset = offset
                await self._pulls.log_went_on(self._store.max_offset)

    async def _scan_clients(self) -> None:
        while True:
            await self._clock.sleep(CLIENT_SCAN_INTERVAL_S)
            for channel in self._group_service.expire():
                if isinstance(channel, Channel):
                    channel.close(f"no heartbeat for {self.clients.client_timeout_s:g} s")


def _end_transaction(_channel: Channel, command: RemotingCommand) -> Reply:
    """The master stores how a transaction ends; Apache's slave has a code of its own for this."""
    if command.is_oneway:
        return None
    remark = f"{NOT_MASTER}a transaction is ended at the master"
    return encode_response_frame(command.opaque, ResponseCode.SLAVE_NOT_AVAILABLE, {}, remark)
