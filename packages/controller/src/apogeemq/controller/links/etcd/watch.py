"""A watch that goes on at another member when its own dies, freezes or loses the leader.

connect ─▶ create at the next revision ─▶ changes, in order ─▶ …
   ▲                                          │
   └── next member, a pause ◀── stream ended, no leader, silent for 10 s and then no progress within 2 s
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import grpc.aio
from apogeemq.controller.core.etcd import Change
from apogeemq.controller.core.watch_progress import WatchProgress
from apogeemq.controller.errors import EtcdRefused
from apogeemq.controller.etcd_api import v3_pb2 as pb
from apogeemq.controller.links.etcd.calls import ANSWER_TIMEOUT_S, PAUSE_S_MAX, PAUSE_S_MIN, Calls
from apogeemq.controller.links.etcd.members import CONNECT_TIMEOUT_S, Member, NotConnected
from apogeemq.controller.links.etcd.methods import WATCH
from apogeemq.controller.links.etcd.statuses import compaction_of
from apogeemq.controller.links.etcd.values import change

if TYPE_CHECKING:
    from apogeemq.mesh.clock import Clock

HAS_LEADER = ("hasleader", "true")
"""Makes etcd end the stream of a member that has lost the leader, instead of leaving it silent."""


class Watch:
    """Changes of a range of keys from a revision on."""

    def __init__(self, calls: Calls, clock: Clock, key: bytes, range_end: bytes, start_revision: int) -> None:
        self._calls = calls
        self._clock = clock
        self._key = key
        self._range_end = range_end
        self._progress = WatchProgress(start_revision)
        self._pause_s = PAUSE_S_MIN

    async def changes(self) -> AsyncGenerator[tuple[Change, ...], None]:
        """Changes as they come, several at once where etcd tells them together; for ever.

        Close the iterator when done (contextlib.aclosing). Raises:
            Compacted: some of what was to come is no longer kept: read everything anew, and watch from there.
            EtcdRefused, EtcdDenied: etcd does not take the watch.
            EtcdClosed: the client was closed.
        """
        while True:
            member = self._calls.members.current
            try:
                async for changes in self._at(member):
                    self._pause_s = PAUSE_S_MIN
                    yield changes
            except (NotConnected, TimeoutError):
                pass  # the next member is asked below; what went wrong is told by whoever calls etcd with a deadline
            except grpc.aio.AioRpcError as error:
                if (refusal := self._calls.refusal(error)) is not None:
                    raise refusal from error
            self._calls.members.give_up(member)
            await self._clock.sleep(self._pause_s)
            self._pause_s = min(self._pause_s * 2, PAUSE_S_MAX)

    async def _at(self, member: Member) -> AsyncGenerator[tuple[Change, ...], None]:
        """Changes from one member, until it fails or has nothing to prove that it lives."""
        await member.connect(CONNECT_TIMEOUT_S)
        metadata = await self._calls.metadata(member)
        call = member.stream(WATCH, [*metadata, HAS_LEADER])
        reading: asyncio.Future[Any] | None = None
        try:
            self._progress.opened(self._now_ms())
            await self._write(call, pb.WatchRequest(create_request=self._create()))
            while True:
                reading = reading or asyncio.ensure_future(call.read())
                if not await self._wait(reading):
                    if self._progress.is_dead(self._now_ms()):
                        return
                    if self._progress.must_ask(self._now_ms()):
                        await self._write(call, pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
                    continue
                message, reading = reading.result(), None
                if message is grpc.aio.EOF:
                    return
                if changes := self._take(message):
                    yield changes
        finally:
            if reading is not None:
                reading.cancel()
            call.cancel()

    def _create(self) -> pb.WatchCreateRequest:
        return pb.WatchCreateRequest(
            key=self._key, range_end=self._range_end, start_revision=self._progress.next_revision
        )

    def _take(self, message: pb.WatchResponse) -> tuple[Change, ...]:
        if message.canceled:
            if (compacted := compaction_of(message.cancel_reason, message.compact_revision)) is not None:
                raise compacted
            raise EtcdRefused("CANCELLED", message.cancel_reason or "the watch was cancelled")
        if not message.events:
            self._progress.alive(self._now_ms())
            return ()
        fresh = self._progress.told([event.kv.mod_revision for event in message.events], self._now_ms())
        return tuple(change(message.events[place]) for place in fresh)

    async def _wait(self, reading: asyncio.Future[Any]) -> bool:
        left_s = max(0, self._progress.due_ms() - self._now_ms()) / 1000
        await asyncio.wait({reading}, timeout=left_s)
        return reading.done()

    async def _write(self, call: grpc.aio.StreamStreamCall[Any, Any], request: pb.WatchRequest) -> None:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await call.write(request)

    def _now_ms(self) -> int:
        return round(self._clock.monotonic() * 1000)
