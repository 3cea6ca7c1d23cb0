"""The transactional part of a broker put together: what is pending, who is asked about it."""

import asyncio
from collections.abc import Callable, Hashable

from apogeemq.broker.config import BrokerConfig
from apogeemq.broker.core.clients import ClientTable
from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.core.transactions import TransactionTable
from apogeemq.broker.faces.remoting.transactions import RemotingProducers
from apogeemq.broker.service.asked_producers import AskedProducers
from apogeemq.broker.service.log_reads import LogReads
from apogeemq.broker.service.proxied_checks import ProxiedChecks
from apogeemq.broker.service.transaction_checks import TransactionCheckService
from apogeemq.broker.service.transactions import CheckSchedule, TransactionService
from apogeemq.broker.service.writer import MessageWriter
from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.store.message_store import MessageStore


class Transacting:
    """The services of transactions, wired; `service` is for the doors, `proxied` for that of proxies."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        store: MessageStore,
        reads: LogReads,
        topics: TopicTable,
        offsets: ConsumerOffsetTable,
        clients: ClientTable[Hashable],
        writer: MessageWriter,
        clock: Clock,
        chance: Chance,
        store_host: bytes,
        offset_message_id: Callable[[int], str],
    ) -> None:
        settings = config.transactions
        schedule = CheckSchedule(
            timeout_ms=settings.transaction_timeout_ms,
            interval_ms=settings.check_interval_ms,
            interval_ms_max=settings.check_interval_ms_max,
            checks_max=settings.check_max,
            pending_ms_max=settings.pending_hours_max * 3_600_000,
        )
        self.table = TransactionTable(pending_max=config.limits.pending_transactions_max)
        self.service = TransactionService(
            store=store,
            topics=topics,
            offsets=offsets,
            writer=writer,
            table=self.table,
            schedule=schedule,
            clock=clock,
            store_host=store_host,
            is_rejecting=settings.reject_transaction_message,
            broker_name=config.identity.broker_name,
        )
        self.proxied = ProxiedChecks(self.table.is_newest, clock)
        ways = (RemotingProducers(config.identity.broker_name), self.proxied)
        producers = AskedProducers(clients, ways, chance.randrange)
        self.checks = TransactionCheckService(
            store=store,
            topics=topics,
            writer=writer,
            transactions=self.service,
            table=self.table,
            schedule=schedule,
            clock=clock,
            ask=producers.ask,
            has_producer=producers.has_producer,
            offset_message_id=offset_message_id,
            reads=reads,
        )
        self._is_restored = False

    async def restore(self) -> None:
        """Know again what was pending before the start. Raises StoreError, RecordInvalid, OSError."""
        await self.service.restore()
        self._is_restored = True

    def start(self) -> asyncio.Task[None]:
        """Begin to ask producers."""
        return asyncio.create_task(self.checks.run(), name="transaction-checks")

    def stop(self) -> None:
        """Say how far the next start must read, once it is known. Asking has ended before."""
        if self._is_restored:
            self.service.commit_progress()
