"""Beats for leases: one stream to the member in use, over which any number of leases are kept alive.

etcd answers the beats of a lease in the order in which they came, so an answer belongs to the oldest beat of its lease.
A beat that is not answered in time condemns the stream: all that wait on it fail, and the next beat goes to the next
member. A beat changes nothing twice, so whoever sent it just sends it again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque

import grpc.aio
from apogeemq.controller.errors import EtcdError, EtcdRefused, EtcdUnavailable, LeaseGone
from apogeemq.controller.etcd_api import v3_pb2 as pb
from apogeemq.controller.links.etcd.calls import Calls
from apogeemq.controller.links.etcd.members import Member, NotConnected
from apogeemq.controller.links.etcd.methods import LEASE_KEEP_ALIVE

BEATS_MAX = 10_000
"""Beats that wait for an answer at a time; more are refused as unavailable."""


class KeepAlives:
    """The beats of all leases of this process."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stream: _Stream | None = None
        self._opening = asyncio.Lock()

    async def beat(self, lease_id: int, timeout_s: float) -> int:
        """Keep a lease alive; gives its time to live in seconds, counted from some moment after this call.

        Raises:
            LeaseGone: it has ended.
            EtcdRefused: this user may not.
            EtcdUnavailable: no answer in time; the next beat asks another member.
        """
        stream: _Stream | None = None
        try:
            async with asyncio.timeout(timeout_s):
                stream = await self._open(timeout_s)
                ttl_s = await stream.beat(lease_id)
        except EtcdRefused:
            raise
        except (TimeoutError, NotConnected, _StreamBroke) as error:
            self._drop(stream)
            reason = str(error) or "the answer to a beat is late"
            raise EtcdUnavailable(self._calls.members.endpoints, timeout_s, reason) from error
        if ttl_s <= 0:
            raise LeaseGone(lease_id)
        return ttl_s

    async def close(self) -> None:
        """End the stream; beats that wait fail."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    async def _open(self, timeout_s: float) -> _Stream:
        async with self._opening:
            if self._stream is None or self._stream.broke:
                member = self._calls.members.current
                try:
                    await member.connect(timeout_s)
                    self._stream = _Stream(member, await self._calls.metadata(member), self._calls)
                except (NotConnected, TimeoutError, asyncio.CancelledError):
                    self._calls.members.give_up(member)
                    raise
            return self._stream

    def _drop(self, stream: _Stream | None) -> None:
        """Take this stream out of use, unless another has its place already."""
        if stream is None:
            return
        stream.break_off("another beat on this stream had no answer in time")
        if self._stream is stream:
            self._stream = None
            self._calls.members.give_up(stream.member)


class _StreamBroke(Exception):  # noqa: N818 — a fact, seen inside this module only
    """The stream has ended: no beat on it will be answered."""


class _Stream:
    """One stream: beats out, answers in."""

    def __init__(self, member: Member, metadata: list[tuple[str, str]], calls: Calls) -> None:
        self.member = member
        self.broke = ""
        self._calls = calls
        self._call = member.stream(LEASE_KEEP_ALIVE, metadata)
        self._waiting: defaultdict[int, deque[asyncio.Future[int]]] = defaultdict(deque)
        self._count = 0
        self._writing = asyncio.Lock()
        self._reading = asyncio.create_task(self._read())

    async def beat(self, lease_id: int) -> int:
        if self.broke:
            raise _StreamBroke(self.broke)
        if self._count >= BEATS_MAX:
            raise NotConnected(f"{BEATS_MAX} beats wait for {self.member.endpoint} already")
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with self._writing:  # grpc.aio refuses a second write at a time; the order of beats is the order here
            self._waiting[lease_id].append(answer)
            self._count += 1
            try:
                await self._call.write(pb.LeaseKeepAliveRequest(ID=lease_id))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                self.break_off(f"{self.member.endpoint} has ended the stream: {error}")
        return await answer

    def break_off(self, reason: str) -> None:
        self._fail(_StreamBroke(reason))
        self._reading.cancel()
        self._call.cancel()

    async def close(self) -> None:
        self.break_off("the etcd client is closed")
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for message in self._call:
                self._answered(message)
            self._fail(_StreamBroke(f"{self.member.endpoint} has ended the stream"))
        except grpc.aio.AioRpcError as error:
            self._fail(self._failure(error))

    def _answered(self, message: pb.LeaseKeepAliveResponse) -> None:
        waiting = self._waiting.get(message.ID)
        if not waiting:
            return
        answer = waiting.popleft()
        self._count -= 1
        if not waiting:
            del self._waiting[message.ID]
        if not answer.done():
            answer.set_result(message.TTL)

    def _failure(self, error: grpc.aio.AioRpcError) -> EtcdError | _StreamBroke:
        reason = f"{self.member.endpoint} broke the stream: {error.code().name}: {error.details()}"
        return self._calls.refusal(error) or _StreamBroke(reason)

    def _fail(self, error: EtcdError | _StreamBroke) -> None:
        self.broke = self.broke or str(error)
        waiting, self._waiting = self._waiting, defaultdict(deque)
        self._count = 0
        for answers in waiting.values():
            for answer in answers:
                if not answer.done():
                    answer.set_exception(error)
                    answer.exception()  # looked at: whoever asked may have run out of time while it was written
