"""The runner of auto-renewal: asks brokers for more time for what clients are working on (core/renewal.py)."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from itertools import islice

from apogeemq.mesh.clock import Clock
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import CHANGE_INVISIBLE_TIME, EXTEND_INVISIBLE
from apogeemq.proxy.core import receipt_handle
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.core.renewal import AFTER_CLIENT_MS, Renewal, RenewalTable
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.background import Background
from apogeemq.proxy.service.broker_calls import BrokerCalls

SCAN_S = 1.0
HANDLES_PER_CALL_MAX = 1024
RENEWED_AT_ONCE_MAX = 16 * HANDLES_PER_CALL_MAX
GIVEN_BACK_AT_ONCE = 64

_log = logging.getLogger(__name__)

_Destination = tuple[str, str, str, int]
"""Broker, group, topic, and for how long: what one call has in common."""


class Renewing:
    """Prolongs invisible times until cancelled; hands out again what a client that went was working on."""

    def __init__(
        self, renewals: RenewalTable, calls: BrokerCalls, background: Background, clock: Clock, limits: Limits
    ) -> None:
        self._renewals = renewals
        self._calls = calls
        self._background = background
        self._clock = clock
        self._limits = limits

    async def run(self) -> None:
        """Renew what is due, once a second."""
        while True:
            await self._clock.sleep(SCAN_S)
            await self.renew_due()

    async def renew_due(self) -> None:
        """Prolong the time of what is due now, at most RENEWED_AT_ONCE_MAX; the rest comes with the next scan."""
        now_ms = self._clock.now_ms()
        by_destination: dict[_Destination, list[Renewal]] = defaultdict(list)
        last_times: set[Renewal] = set()
        for renewal in islice(self._renewals.take_due(now_ms), RENEWED_AT_ONCE_MAX):
            extension_ms, is_last = renewal.extension(now_ms)
            by_destination[renewal.handle.broker_name, renewal.group, renewal.topic, extension_ms].append(renewal)
            if is_last:
                last_times.add(renewal)
        await asyncio.gather(
            *(
                self._renew(destination, renewals[start : start + HANDLES_PER_CALL_MAX], last_times)
                for destination, renewals in by_destination.items()
                for start in range(0, len(renewals), HANDLES_PER_CALL_MAX)
            )
        )

    def client_gone(self, client_id: str) -> None:
        """The client is gone: its messages are handed out again soon."""
        renewals = self._renewals.client_gone(client_id)
        if renewals:
            self._background.start(self._give_back(renewals))

    async def _renew(self, destination: _Destination, renewals: list[Renewal], last_times: set[Renewal]) -> None:
        """Prolong what one call can, and note what came of it."""
        try:
            reply = await self._extend(destination, renewals)
        except ProxyError as error:
            _log.info("%d messages were not renewed at %s, again soon: %s", len(renewals), destination[0], error)
            for renewal in renewals:
                self._renewals.failed(renewal, self._clock.now_ms())
            return
        now_ms = self._clock.now_ms()
        for renewal, result in zip(renewals, reply.results, strict=False):
            if result == mesh.HANDLE_OK and renewal not in last_times:
                self._renewals.renewed(renewal, destination[3], now_ms)
            else:
                self._renewals.drop(renewal)

    async def _give_back(self, renewals: list[Renewal]) -> None:
        for start in range(0, len(renewals), GIVEN_BACK_AT_ONCE):
            await asyncio.gather(*(self._shorten(one) for one in renewals[start : start + GIVEN_BACK_AT_ONCE]))

    async def _shorten(self, renewal: Renewal) -> None:
        """Let one message come again soon. A renewal only ever adds time; a change of the time may take some away."""
        request = mesh.ChangeInvisibleTimeRequest(
            consumer_group=renewal.group,
            topic=renewal.topic,
            handle=receipt_handle.to_mesh(renewal.handle),
            invisible_time_ms=AFTER_CLIENT_MS,
        )
        try:
            await self._calls.call(
                renewal.handle.broker_name,
                CHANGE_INVISIBLE_TIME,
                request,
                timeout_s=self._limits.broker_timeout_s,
            )
        except ProxyError as error:
            _log.info("a message of a client that went waits for its invisible time: %s", error)

    async def _extend(self, destination: _Destination, renewals: list[Renewal]) -> mesh.ExtendInvisibleReply:
        broker_name, group, topic, extension_ms = destination
        request = mesh.ExtendInvisibleRequest(
            consumer_group=group,
            topic=topic,
            handles=[receipt_handle.to_mesh(renewal.handle) for renewal in renewals],
            invisible_time_ms=extension_ms,
        )
        return await self._calls.call(broker_name, EXTEND_INVISIBLE, request, timeout_s=self._limits.broker_timeout_s)
