"""Orphaned transactions: brokers' questions about them, carried to producers of this proxy.

The mesh has no way for a broker to speak first. So for as long as some producer is connected here, one call waits at
each broker of its topics until there are questions (TakeTransactionChecks). A question goes to the client that the
broker chose, or to another producer of the same topic when that one has no stream any more or does not read it; the
client answers by EndTransaction, at whichever proxy. While all producers of a topic have as many commands to read as
may wait, no further questions are taken, for PATIENCE_S at most.

A question that nobody here can take is dropped and counted: the broker asks again after the transaction's own back-off.
The same happens to those that a proxy had when it died.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum, auto
from typing import Protocol

from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import TAKE_TRANSACTION_CHECKS
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code, Resource
from apogeemq.proxy.core.messages import message_of
from apogeemq.proxy.core.transaction_id import TransactionId
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.background import Background
from apogeemq.proxy.service.broker_calls import BrokerCalls
from apogeemq.proxy.service.clients import Client, ClientService
from apogeemq.remoting_codec.errors import RecordInvalid
from apogeemq.remoting_codec.record import Record, decode_record

CHECKS_PER_CALL_MAX = 32
POLL_S = 20.0
ANSWER_S = 5.0
"""How much later than its poll time a broker may answer."""
SCAN_S = 1.0
RETRY_S = 1.0
OLD_BROKER_RETRY_S = 60.0
"""Until a broker that does not know the call is tried again: it may have been updated."""
PATIENCE_S = 5.0
LOOK_AGAIN_S = 0.05

_log = logging.getLogger(__name__)


class Delivery(Enum):
    """What became of a question; the names are values of the metric's label in lower case."""

    DELIVERED = auto()
    BUSY = auto()
    """Nobody who could be asked reads what waits for him."""
    NOBODY = auto()
    """No producer of the group has a connection here."""


class Door(Protocol):
    """Where producers come from."""

    def ask(self, broker_name: str, check: mesh.TransactionCheck, record: Record) -> Delivery:
        """Put a question to a producer of the check's group. Never waits."""
        ...

    def broker_names(self) -> Collection[str]:
        """Brokers that may have questions for the producers that are there now."""
        ...


class GrpcProducers:
    """The door of gRPC clients: RecoverOrphanedTransactionCommand on a Telemetry stream."""

    def __init__(self, clients: ClientService, brokers_of: Callable[[str], Sequence[str]], chance: Chance) -> None:
        self._clients = clients
        self._brokers_of = brokers_of
        self._chance = chance

    def broker_names(self) -> Collection[str]:
        """Brokers of all topics that somebody publishes to."""
        return {name for topic in self._clients.producers.topics for name in self._brokers_of(topic)}

    def ask(self, broker_name: str, check: mesh.TransactionCheck, record: Record) -> Delivery:
        """Ask the client that the broker chose, else another one."""
        delivery = Delivery.NOBODY
        for client, resource in self._in_order(check):
            streams = list(client.streams)
            free = next((stream for stream in streams if stream.has_room()), None)
            if free is not None:
                free.send(_command(broker_name, record, resource))
                return Delivery.DELIVERED
            if streams:
                delivery = Delivery.BUSY
        return delivery

    def _in_order(self, check: mesh.TransactionCheck) -> Iterator[tuple[Client, Resource]]:
        producers = self._clients.producers.of(check.producer_group)
        chosen = producers.get(check.client_id)
        if chosen is not None:
            yield chosen
        others = [producer for client_id, producer in producers.items() if client_id != check.client_id]
        start = self._chance.randrange(len(others)) if others else 0
        yield from others[start:]
        yield from others[:start]


class Orphans:
    """Takes questions from brokers until cancelled. `doors` are asked in their order."""

    def __init__(self, calls: BrokerCalls, background: Background, clock: Clock, doors: list[Door]) -> None:
        self.doors = doors
        self.questions: Counter[Delivery] = Counter()
        """Since start, by what became of them."""
        self._calls = calls
        self._background = background
        self._clock = clock
        self._polls: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Poll the brokers that may have questions."""
        try:
            while True:
                self._poll_those({name for door in self.doors for name in door.broker_names()})
                await self._clock.sleep(SCAN_S)
        finally:
            self._poll_those(set())

    def _poll_those(self, broker_names: Collection[str]) -> None:
        for name in [name for name in self._polls if name not in broker_names]:
            self._polls.pop(name).cancel()
        for name in broker_names:
            if name not in self._polls or self._polls[name].done():
                self._polls[name] = asyncio.create_task(self._poll(name), name=f"transaction checks of {name}")

    async def _poll(self, broker_name: str) -> None:
        poll_s = POLL_S

        def came_late(reply: mesh.TakeTransactionChecksReply) -> None:
            self._background.start(self._carry(broker_name, reply.checks))

        while True:
            request = mesh.TakeTransactionChecksRequest(max_nums=CHECKS_PER_CALL_MAX, poll_time_ms=round(poll_s * 1000))
            try:
                reply = await self._calls.call(
                    broker_name, TAKE_TRANSACTION_CHECKS, request, timeout_s=POLL_S + ANSWER_S, on_late=came_late
                )
            except ProxyError as error:
                _log.debug("%s gives no questions about transactions: %s", broker_name, error)
                is_old = error.code == Code.NOT_IMPLEMENTED
                poll_s = 0.0  # the next one is not to wait: its answer tells that the broker is there again
                await self._clock.sleep(OLD_BROKER_RETRY_S if is_old else RETRY_S)
            else:
                poll_s = POLL_S
                await self._carry(broker_name, reply.checks)

    async def _carry(self, broker_name: str, checks: Sequence[mesh.TransactionCheck]) -> None:
        """Put the questions; those of a group whose producers do not read are given up after PATIENCE_S, once."""
        deaf: set[str] = set()
        for check in checks:
            try:
                record = decode_record(check.record)
            except RecordInvalid as error:
                _log.error("%s asks about a message that can't be read: %s", broker_name, error)
                continue
            delivery = self._ask(broker_name, check, record)
            deadline = self._clock.monotonic() + PATIENCE_S
            while delivery is Delivery.BUSY and check.producer_group not in deaf and self._clock.monotonic() < deadline:
                await self._clock.sleep(LOOK_AGAIN_S)
                delivery = self._ask(broker_name, check, record)
            if delivery is Delivery.BUSY:
                deaf.add(check.producer_group)
            if delivery is not Delivery.DELIVERED:
                _log.info(
                    "a question of %s about a transaction of %s is dropped (%s); it comes again",
                    broker_name,
                    check.producer_group,
                    delivery.name.lower(),
                )
            self.questions[delivery] += 1

    def _ask(self, broker_name: str, check: mesh.TransactionCheck, record: Record) -> Delivery:
        delivery = Delivery.NOBODY
        for door in self.doors:
            at_door = door.ask(broker_name, check, record)
            if at_door is Delivery.DELIVERED:
                return at_door
            if at_door is Delivery.BUSY:
                delivery = at_door
        return delivery


def _command(broker_name: str, record: Record, topic: Resource) -> v2.TelemetryCommand:
    """The question as a gRPC client reads it."""
    half = TransactionId(record.queue_offset, record.physical_offset, broker_name)
    return v2.TelemetryCommand(
        recover_orphaned_transaction_command=v2.RecoverOrphanedTransactionCommand(
            message=message_of(record, topic, "", 0), transaction_id=str(half)
        )
    )
