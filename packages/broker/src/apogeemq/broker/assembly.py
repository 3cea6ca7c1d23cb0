"""A broker put together: the place that wires tables, services and both doors.

`Broker` knows no listener and no name server: `app` adds these. Tests use it over a socket pair, or with no socket.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable

from apogeemq.broker.config import BrokerConfig, FlushDiskType, LimitsConfig
from apogeemq.broker.core.clients import ClientTable
from apogeemq.broker.core.delay import DelayLevels
from apogeemq.broker.core.in_flight import InFlight, Limit
from apogeemq.broker.core.long_polling import HeldLimits, LongPollingTable
from apogeemq.broker.core.message_ids import MessageIds
from apogeemq.broker.core.properties import BrokerProperties
from apogeemq.broker.core.queue_locks import QueueLockTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.faces.mesh.answers import CallStats
from apogeemq.broker.faces.mesh.clients import ClientAnswers
from apogeemq.broker.faces.mesh.dead_letters import DeadLetterAnswers
from apogeemq.broker.faces.mesh.offsets import OffsetAnswers
from apogeemq.broker.faces.mesh.pops import PopAnswers
from apogeemq.broker.faces.mesh.recalls import RecallAnswers
from apogeemq.broker.faces.mesh.sends import SendAnswers
from apogeemq.broker.faces.mesh.settling import SettlingAnswers
from apogeemq.broker.faces.mesh.table import call_table
from apogeemq.broker.faces.mesh.topics import TopicAnswers
from apogeemq.broker.faces.mesh.transactions import TransactionAnswers
from apogeemq.broker.faces.remoting.assignments import AssignmentRequests
from apogeemq.broker.faces.remoting.client_calls import ClientCalls
from apogeemq.broker.faces.remoting.configs import ConfigRequests
from apogeemq.broker.faces.remoting.disk_reads import DiskReads
from apogeemq.broker.faces.remoting.groups import GroupRequests, notify_consumer_ids_changed
from apogeemq.broker.faces.remoting.locks import LockRequests
from apogeemq.broker.faces.remoting.messages import MessageRequests
from apogeemq.broker.faces.remoting.offsets import OffsetRequests
from apogeemq.broker.faces.remoting.pop import PopRequests
from apogeemq.broker.faces.remoting.pulls import HeldPull, PullRequests
from apogeemq.broker.faces.remoting.queries import QueryRequests
from apogeemq.broker.faces.remoting.recalls import RecallRequests
from apogeemq.broker.faces.remoting.relays import RelayRequests
from apogeemq.broker.faces.remoting.replies import ReplyRequests
from apogeemq.broker.faces.remoting.resets import ResetRequests
from apogeemq.broker.faces.remoting.sliced_pulls import SlicedPulls
from apogeemq.broker.faces.remoting.table import RemotingFace, RequestStats
from apogeemq.broker.faces.remoting.transactions import TransactionRequests
from apogeemq.broker.faces.spans import SendSpans
from apogeemq.broker.metadata_files import MetadataFiles
from apogeemq.broker.popping import Popping
from apogeemq.broker.service.acknowledge import Acknowledger
from apogeemq.broker.service.assignments import AssignmentService, NoOtherBrokers, OtherBrokers
from apogeemq.broker.service.cold_reads import ColdReads
from apogeemq.broker.service.confirmation import Confirmation
from apogeemq.broker.service.delay import DelayService
from apogeemq.broker.service.delayed_form import DelayedForm
from apogeemq.broker.service.durability import AcknowledgementLine, FlushLine
from apogeemq.broker.service.fetch import FetchService
from apogeemq.broker.service.forward_dead import ForwardDead
from apogeemq.broker.service.groups import GroupService
from apogeemq.broker.service.log_reads import LogReads
from apogeemq.broker.service.metadata import MetadataSaver
from apogeemq.broker.service.offset_resets import OffsetResetService
from apogeemq.broker.service.offsets import OffsetService
from apogeemq.broker.service.queries import QueryService
from apogeemq.broker.service.recall import RecallService
from apogeemq.broker.service.replies import ReplyService
from apogeemq.broker.service.roll_forward import RollForward
from apogeemq.broker.service.saved_tables import SavedPopOrders
from apogeemq.broker.service.send import SendService
from apogeemq.broker.service.send_back import SendBackService
from apogeemq.broker.service.slave_reads import suggestion
from apogeemq.broker.service.table_copies import tell_changes
from apogeemq.broker.service.timed_form import TimedForm
from apogeemq.broker.service.timers import TimerService
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.broker.transacting import Transacting
from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.remoting_codec.aio.access import AccessHook, AllowAll
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.store.message_store import MessageStore
from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

TICK_S = 0.2
"""How exactly held pulls and waiting acknowledgements end."""

CLIENT_SCAN_INTERVAL_S = 10.0


class Broker:
    """All of a broker but its listeners and links: tables, services, the doors, and what runs beside them.

    Needs a running event loop and an open store. `remoting` is the handler that a Remoting listener gets, `calls` what
    a mesh listener serves. In a broker set it is the master of one epoch, whose `confirmation` it waits for;
    `clients` are those that read here while it was a slave, and beat again only within 30 s;
    `on_table_change` gets each change of a table by its name, see table_copies: of topics, groups and queue locks at
    once: before anything is stored that needs them (architecture §6.10). `until_confirmed` waits until the set holds
    the log up to an offset, or raises StoreError.
    """

    def __init__(
        self,
        config: BrokerConfig,
        store: MessageStore,
        files: MetadataFiles,
        *,
        store_host: bytes,
        clock: Clock,
        chance: Chance,
        access: AccessHook | None = None,
        tracer: Tracer | None = None,
        other_brokers: OtherBrokers | None = None,
        confirmation: Confirmation | None = None,
        on_table_change: Callable[[str, bytes], None] | None = None,
        until_confirmed: Callable[[int], Awaitable[None]] | None = None,
        clients: ClientTable[Hashable] | None = None,
    ) -> None:
        self.config = config
        self._confirmation = confirmation
        self._until_confirmed = until_confirmed
        self.store = store
        self.stats = RequestStats()
        self.call_stats = CallStats()
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        identity, limits = config.identity, config.limits
        levels = DelayLevels(config.store.message_delay_level)

        self.topics = TopicTable(
            now_ms=clock.now_ms,
            auto_create=config.topics.auto_create_topic_enable,
            default_queue_nums=config.topics.default_topic_queue_nums,
            topics_max=limits.topics_max,
        )
        self.groups = SubscriptionGroupTable(
            now_ms=clock.now_ms,
            auto_create=config.topics.auto_create_subscription_group,
            groups_max=limits.groups_max,
        )
        files.load_topics(self.topics)
        files.load_groups(self.groups)
        self.offsets = files.load_consumer_offsets()
        modes = files.load_request_modes()
        if not store.recovery.clean or confirmation is not None:
            cut = self.offsets.clamp(store.max_offset)
            if cut:
                log.warning("%d consumer offsets were ahead of the log and were cut back", cut)
        self.topics.ensure_built_in(
            identity.cluster_name, identity.broker_name, len(levels), config.pop.revive_queue_num
        )
        self.groups.ensure_predefined()

        self.clients: ClientTable[Hashable] = (
            ClientTable(client_timeout_s=limits.client_timeout_s) if clients is None else clients
        )
        self.queue_locks = QueueLockTable()
        knows_locks = files.load_queue_locks(self.queue_locks, clock.monotonic())
        if confirmation is not None and not knows_locks and store.written_offset > 0:
            self.queue_locks.owners_are_unknown(
                clock.monotonic()
            )  # the master before this one did not tell its replicas
        self.long_polling: LongPollingTable[HeldPull] = LongPollingTable(
            HeldLimits(
                waiting_max=limits.held_pulls_max,
                waiting_per_queue_max=limits.held_pulls_per_queue_max,
                waiting_per_owner_max=limits.held_pulls_per_client_max,
                size_bytes_max=limits.held_pulls_bytes_max,
            )
        )
        self.topic_line = AcknowledgementLine(
            waiting_max=limits.waiting_acknowledgements_max, what="a new topic's configuration to be written"
        )
        self.mode_line = AcknowledgementLine(
            waiting_max=limits.waiting_acknowledgements_max, what="a message request mode to be written"
        )
        self.flush_line = (
            FlushLine(store, waiting_max=limits.waiting_acknowledgements_max)
            if config.store.flush_disk_type is FlushDiskType.SYNC_FLUSH
            else None
        )
        self.sends_in_flight = _in_flight(limits, "waiting_acknowledgements", "sends that wait for the disk")
        self.calls_in_flight = _in_flight(limits, "client_calls", "calls that wait for a client's answer")
        self.acknowledger = Acknowledger(
            topics=self.topics,
            flush_line=self.flush_line,
            topic_line=self.topic_line,
            in_flight=self.sends_in_flight,
            monotonic=clock.monotonic,
            timeout_s=config.store.sync_flush_timeout_ms / 1000,
            queue_time_s_max=(
                config.store.wait_time_in_send_queue_ms / 1000 if config.store.fast_failure_enable else None
            ),
            confirmation=confirmation,
        )
        ids = MessageIds(
            store_host=store_host,
            process_id=os.getpid(),
            instance_hash=chance.randrange(1 << 32),
            now_ms=clock.now_ms,
        )
        self.dead_letters: Counter[tuple[str, str]] = Counter()
        writer = MessageWriter(store, self if confirmation is None else confirmation.holding_back(self))
        delayed_form = DelayedForm(
            levels=levels, now_ms=clock.now_ms, store_timestamp_ms=lambda: store.store_timestamp_ms
        )
        reads = LogReads(store, config.store.hot_window_bytes)
        self.transacting = Transacting(
            config,
            store=store,
            reads=reads,
            topics=self.topics,
            offsets=self.offsets,
            clients=self.clients,
            writer=writer,
            clock=clock,
            chance=chance,
            store_host=store_host,
            offset_message_id=ids.offset_message_id,
        )
        timed_form = TimedForm(timer=store.timer, now_ms=clock.now_ms, is_enabled=config.timers.timer_wheel_enable)
        self.timers = TimerService(
            store=store,
            topics=self.topics,
            writer=writer,
            clock=clock,
            reads=reads,
        )
        broker_properties = BrokerProperties(
            region=identity.region_id, cluster=identity.cluster_name, trace_on=config.topics.trace_on
        )
        self.send = SendService(
            topics=self.topics,
            groups=self.groups,
            writer=writer,
            properties=broker_properties,
            delay_levels=levels,
            delayed_form=delayed_form,
            choose_queue=chance.randrange,
            create_unique_key=ids.unique_key,
            offset_message_id=ids.offset_message_id,
            permission=identity.broker_permission,
            body_size_bytes_max=config.store.max_message_size_bytes,
            broker_name=identity.broker_name,
            is_ordered=lambda group: self.queue_locks.is_locked(group, clock.monotonic()),
            dead_letters=self.dead_letters,
            transactions=self.transacting.service,
            timed_form=timed_form,
            timer_arrived=self.timers.message_arrived,
        )
        self.send_back = SendBackService(
            store=store,
            topics=self.topics,
            groups=self.groups,
            writer=writer,
            delay_levels=levels,
            delayed_form=delayed_form,
            offset_message_id=ids.offset_message_id,
            choose_queue=chance.randrange,
            permission=identity.broker_permission,
            broker_name=identity.broker_name,
            dead_letters=self.dead_letters,
        )
        self.fetch = FetchService(
            store=store,
            topics=self.topics,
            groups=self.groups,
            offsets=self.offsets,
            clients=self.clients,
            permission=identity.broker_permission,
            broker_name=identity.broker_name,
            count_max=limits.pull_messages_max,
            size_bytes_max=limits.pull_size_bytes_max,
            sql_enabled=config.topics.property_filter_enable,
        )
        self.offset_service = OffsetService(
            store=store,
            topics=self.topics,
            groups=self.groups,
            offsets=self.offsets,
            hot_window_bytes=config.store.hot_window_bytes,
        )
        self.group_service: GroupService[Hashable] = GroupService(
            clients=self.clients,
            groups=self.groups,
            topics=self.topics,
            notify=notify_consumer_ids_changed,
            monotonic=clock.monotonic,
            sql_enabled=config.topics.property_filter_enable,
            refuse_differing=config.topics.refuse_differing_subscriptions,
        )
        self.delay = DelayService(
            store=store,
            topics=self.topics,
            writer=writer,
            levels=levels,
            clock=clock,
            reads=reads,
            progress=files.load_delay_offsets(),
        )
        orders, order_log_position = files.load_pop_orders()
        self.saver = MetadataSaver(
            files=files,
            topics=self.topics,
            groups=self.groups,
            offsets=self.offsets,
            delay=self.delay,
            modes=modes,
            orders=SavedPopOrders(orders, lambda: self.popping.order_log.position),
            locks=self.queue_locks,
            topic_line=self.topic_line,
            mode_line=self.mode_line,
            settle_log=self._settle_log,
            clock=clock,
            offsets_interval_s=config.store.flush_consumer_offset_interval_ms / 1000,
            delay_interval_s=config.store.flush_delay_offset_interval_ms / 1000,
            on_pointers=on_table_change,
        )
        if on_table_change is not None:
            tell_changes(self.topics, self.groups, self.queue_locks, on_table_change)
        self.cold_reads = ColdReads(running_max=limits.cold_reads_max)
        self.disk_reads = DiskReads(self.cold_reads, self._refuse)
        self.client_calls = ClientCalls(
            in_flight=self.calls_in_flight, timeout_s=limits.client_call_s, refuse=self._refuse
        )
        self.popping = Popping(
            config,
            store=store,
            reads=reads,
            topics=self.topics,
            groups=self.groups,
            offsets=self.offsets,
            writer=writer,
            cold_reads=self.cold_reads,
            clock=clock,
            chance=chance,
            store_host=store_host,
            offset_message_id=ids.offset_message_id,
            dead_letters=self.dead_letters,
            orders=orders,
            order_log_position=order_log_position,
        )
        self.sliced_pulls = SlicedPulls(
            fetch=self.fetch, disk_reads=self.disk_reads, refuse=self._refuse, monotonic=clock.monotonic
        )
        self.pulls = PullRequests(
            fetch=self.fetch,
            table=self.long_polling,
            sliced=self.sliced_pulls,
            stats=self.stats,
            disk_reads=self.disk_reads,
            refuse=self._refuse,
            monotonic=clock.monotonic,
            hold_s_max=limits.pull_hold_s_max,
            short_hold_s=config.topics.short_polling_time_ms / 1000,
            long_polling=config.topics.long_polling_enable,
            suggest=suggestion(config, store, self.groups),
        )
        self.assignments = AssignmentRequests(
            AssignmentService(
                topics=self.topics,
                clients=self.clients,
                modes=modes,
                others=other_brokers or NoOtherBrokers(),
                broker_name=identity.broker_name,
                default_mode=config.pop.default_message_request_mode,
                default_share_with=config.pop.default_pop_share_queue_num,
                is_dividing=config.pop.server_load_balancer_enable,
            ),
            self.stats,
            self._refuse,
            mode_line=self.mode_line,
            monotonic=clock.monotonic,
            timeout_s=config.store.sync_flush_timeout_ms / 1000,
        )
        self.roll_forward = RollForward(
            (
                self.delay.roll_forward,
                self.timers.roll_forward,
                self.popping.revive.roll_forward,
                self.transacting.checks.roll_forward,
            )
        )
        spans = SendSpans(tracer)
        messages = MessageRequests(
            send=self.send,
            send_back=self.send_back,
            acknowledger=self.acknowledger,
            spans=spans,
            region=identity.region_id,
            trace_on=config.topics.trace_on,
            stats=self.stats,
            disk_reads=self.disk_reads,
        )
        replies = ReplyRequests(
            ReplyService(
                send=self.send,
                clients=self.clients,
                store_host=store_host,
                now_ms=clock.now_ms,
                is_kept=config.topics.store_reply_message_enable,
            ),
            self.client_calls,
            self.stats,
            region=identity.region_id,
            trace_on=config.topics.trace_on,
        )
        transactions = TransactionRequests(
            transactions=self.transacting.service,
            acknowledger=self.acknowledger,
            disk_reads=self.disk_reads,
            reads=reads,
            stats=self.stats,
        )
        recalls = RecallService(
            topics=self.topics,
            writer=writer,
            properties=broker_properties,
            timed_form=timed_form,
            timer_arrived=self.timers.message_arrived,
            now_ms=clock.now_ms,
            store_host=store_host,
            broker_name=identity.broker_name,
            is_enabled=config.timers.recall_message_enable,
        )
        forwards = ForwardDead(store=store, pops=self.popping.service, send_back=self.send_back, reads=reads)
        queries = QueryService(store)
        relays = RelayRequests(
            groups=self.group_service,
            topics=self.topics,
            queries=queries,
            cold_reads=self.cold_reads,
            calls=self.client_calls,
            stats=self.stats,
            broker_name=identity.broker_name,
        )
        resets = ResetRequests(
            resets=OffsetResetService(store=store, topics=self.topics, groups=self.groups, offsets=self.offsets),
            groups=self.group_service,
            disk_reads=self.disk_reads,
            on_reset=self._offsets_reset,
            stats=self.stats,
            broker_name=identity.broker_name,
            server_side=config.topics.use_server_side_reset_offset,
        )
        self.remoting = RemotingFace(
            {
                **messages.handlers(),
                **replies.handlers(),
                **transactions.handlers(),
                **RecallRequests(recalls, self.acknowledger, self.stats, region=identity.region_id).handlers(),
                **self.pulls.handlers(),
                **OffsetRequests(self.offset_service, self.stats, self.disk_reads).handlers(),
                **QueryRequests(queries, self.stats, self.disk_reads).handlers(),
                **GroupRequests(self.group_service, self.stats).handlers(),
                **ConfigRequests(self.topics, self.groups, self.stats).handlers(),
                **relays.handlers(),
                **self.assignments.handlers(),
                **resets.handlers(),
                **PopRequests(
                    pops=self.popping.service,
                    polls=self.popping.polls,
                    stats=self.stats,
                    refuse=self._refuse,
                    now_ms=clock.now_ms,
                    monotonic=clock.monotonic,
                    broker_name=identity.broker_name,
                ).handlers(),
                **LockRequests(self.queue_locks, clock.monotonic, self.stats).handlers(),
            },
            access or AllowAll(),
            self.stats,
        )
        self.calls = call_table(
            sends=SendAnswers(self.send, self.acknowledger, spans),
            recalls=RecallAnswers(recalls, self.acknowledger),
            pops=PopAnswers(self.popping.polls, clock),
            settling=SettlingAnswers(self.popping.service),
            dead_letters=DeadLetterAnswers(forwards, self.acknowledger),
            topics=TopicAnswers(self.topics, self.group_service, self.acknowledger),
            clients=ClientAnswers(self.group_service),
            offsets=OffsetAnswers(self.offset_service, self.cold_reads),
            transactions=TransactionAnswers(
                transactions=self.transacting.service,
                checks=self.transacting.proxied,
                acknowledger=self.acknowledger,
                reads=reads,
                cold_reads=self.cold_reads,
                clock=clock,
            ),
            stats=self.call_stats,
            on_owner_gone=self.owner_gone,
            tracer=tracer,
        )

    @property
    def message_reserve_time_ms(self) -> int:
        """How long ago the oldest message that is still there was stored; 0 without one."""
        stored_ms = self.store.oldest_store_timestamp_ms
        return self._clock.now_ms() - stored_ms if stored_ms else 0

    def message_arrived(self, topic: str, queue_id: int, tags_code: int) -> None:
        """A message was stored: tell those who wait for it (see `writer.Arrivals`)."""
        self.pulls.message_arrived(topic, queue_id, tags_code)
        self.popping.polls.message_arrived(topic, queue_id, tags_code)

    def message_delayed(self, queue_id: int) -> None:
        """A message was stored that is due later."""
        self.delay.message_arrived(queue_id)

    def _offsets_reset(self, topic: str, group: str, queue_ids: Iterable[int]) -> None:
        """An operator set a group's offsets: tell those of the group who wait for messages."""
        queues = tuple(queue_ids)
        self.pulls.offsets_reset(topic, group, queues)
        self.popping.offsets_reset(topic, group, queues)

    def channel_closed(self, channel: Channel) -> None:
        """A client's connection is gone."""
        self.pulls.channel_closed(channel)
        self.popping.owner_gone(channel)
        self.group_service.channel_closed(channel)

    def owner_gone(self, owner: Hashable) -> None:
        """A proxy's streams are lost: its clients leave, until their next heartbeat."""
        self.popping.owner_gone(owner)
        self.transacting.proxied.owner_gone(owner)
        self.group_service.channel_closed(owner)

    async def restore(self) -> None:
        """Read back what was under way before this start: what was popped, and which transactions are pending.

        To be called once; until then pops, acknowledgements and the end of a transaction are refused.
        """
        await self.popping.restore()
        await self.transacting.restore()

    async def _settle_log(self) -> None:
        """Have the log of this moment flushed, and confirmed in a broker set. Errors: StoreError, OSError."""
        end_offset = self.store.written_offset
        await asyncio.to_thread(self.store.flush)
        if self._until_confirmed is not None:
            await self._until_confirmed(end_offset)

    async def settle_tables(self) -> None:
        """Write what a crash left unsynced in journals, and what loading had to cut back after it; to be called before
        the first request is served.

        New messages take the numbers that were cut off: pointers that still stood ahead of them in the files would skip
        them after a second crash.
        """
        await self.saver.settle()

    def start(self) -> None:
        """Begin the work that runs beside requests."""
        self.saver.start()
        if self._confirmation is None:  # in a broker set the process is asked, which outlives the epoch
            self.store.add_roll_forward(self.roll_forward.hook)
        self.store.begin_expiry()
        self._tasks = [
            asyncio.create_task(self._tick(), name="tick"),
            asyncio.create_task(self._scan_clients(), name="scan-clients"),
            asyncio.create_task(self.delay.run(), name="delay"),
            asyncio.create_task(self.timers.run(), name="timers"),
            asyncio.create_task(self.timers.run_settling(), name="timers-settling"),
            self.popping.start(),
            self.transacting.start(),
            asyncio.create_task(self.roll_forward.run(), name="roll-forward"),
        ]

    async def stop(self) -> None:
        """Answer who waits, and write the tables. The listeners take no requests any more."""
        self.roll_forward.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.timers.stop()
        self.pulls.stop()
        await self.client_calls.stop()
        await self.assignments.stop()
        await self.popping.stop()
        self.transacting.stop()
        await self.cold_reads.stop()
        await self.saver.stop()

    def failed_task(self) -> str | None:
        """The name of a background task that ended though it should not have, for the health check."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                return task.get_name()
        return None

    def _refuse(self, command: RemotingCommand, error: Exception) -> Reply:
        return self.remoting.refuse(command, error)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            now = self._clock.monotonic()
            self.pulls.expire()
            self.popping.expire()
            self.topic_line.expire(now)
            self.mode_line.expire(now)
            if self.flush_line is not None:
                self.flush_line.expire(now)
            if self._confirmation is not None:
                self._confirmation.line.expire(now)

    async def _scan_clients(self) -> None:
        while True:
            await self._clock.sleep(CLIENT_SCAN_INTERVAL_S)
            self.queue_locks.expire(self._clock.monotonic())
            for channel in self.group_service.expire():
                if isinstance(channel, Channel):  # a proxy's channel has other clients, which are alive
                    channel.close(f"no heartbeat for {self.clients.client_timeout_s:g} s")


def _in_flight(limits: LimitsConfig, name: str, what: str) -> InFlight:
    """What is bounded by the four settings of this name."""

    def limit(suffix: str) -> Limit:
        return Limit(f"limits.{name}_{suffix}", getattr(limits, f"{name}_{suffix}"))

    return InFlight(
        what,
        count=limit("max"),
        size_bytes=limit("bytes_max"),
        client_count=limit("per_client_max"),
        client_size_bytes=limit("per_client_bytes_max"),
    )
