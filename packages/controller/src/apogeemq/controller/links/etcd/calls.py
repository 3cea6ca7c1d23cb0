"""Unary calls: each with a deadline, at the member in use, and at the next when that one fails.

    connect ──▶ send ──▶ answer
       │          │
       │          ├── refused                      → the error, at once
       │          ├── token missing or old         → log in, send again
       │          ├── not taken up (no leader)     → next member
       │          └── no answer, connection broke  → next member where the call may be repeated, else EtcdOutcomeUnknown
       └── no connection                           → next member: nothing was sent

A transaction is never repeated blindly: the first one may have been done, and its conditions may hold again.
Rules: architecture §6.13.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc.aio
from apogeemq.controller.errors import EtcdOutcomeUnknown, EtcdRefused, EtcdUnavailable
from apogeemq.controller.etcd_api import v3_pb2 as pb
from apogeemq.controller.links.etcd.members import Member, Members, NotConnected
from apogeemq.controller.links.etcd.methods import AUTHENTICATE, Method, Request, Response
from apogeemq.controller.links.etcd.statuses import Meaning, meaning_of, refusal_of

if TYPE_CHECKING:
    from apogeemq.mesh.clock import Clock

ANSWER_TIMEOUT_S = 1.5
"""Longest wait for one member's answer; a call's own time may end sooner."""
LOGINS_MAX = 2
PAUSE_S_MIN = 0.05
PAUSE_S_MAX = 1.0
"""Waits after each member has failed once more; the first is the shortest, and each is twice the one before."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of etcd's own authentication."""

    user: str
    password: str = field(repr=False)


class Calls:
    """Calls of one cluster, with the token that they carry where etcd asks for one."""

    def __init__(self, members: Members, clock: Clock, credentials: Credentials | None = None) -> None:
        self.members = members
        self._clock = clock
        self._credentials = credentials
        self._token: str | None = None

    async def call(
        self, method: Method[Request, Response], request: Request, *, timeout_s: float, lease_id: int = 0
    ) -> Response:
        """Carry out a call within its time.

        Raises:
            EtcdRefused: etcd said no (EtcdDenied, LeaseGone for `lease_id`).
            EtcdOutcomeUnknown: a call that must not be repeated was sent, and its answer never came.
            EtcdUnavailable: no member took it up in time.
        """
        attempt = _Attempt(self._clock, timeout_s, len(self.members.endpoints))
        logins_left = LOGINS_MAX
        while attempt.seconds_left > 0:
            member = self.members.current
            try:
                await member.connect(attempt.seconds_left)
                metadata = await self.metadata(member)
                return await member.call(method, request, attempt.answer_timeout_s, metadata)
            except NotConnected as error:
                attempt.failed(str(error))
            except grpc.aio.AioRpcError as error:
                meaning = meaning_of(error)
                if (refusal := self.refusal(error, lease_id, may_log_in=logins_left > 0)) is not None:
                    raise refusal from error
                if meaning is Meaning.LOGIN:
                    logins_left -= 1
                    continue
                reason = f"{error.code().name}: {error.details()}"
                if meaning is Meaning.UNKNOWN and not method.repeats:
                    self.members.give_up(member)
                    raise EtcdOutcomeUnknown(member.endpoint, reason) from error
                attempt.failed(f"{member.endpoint} answered {reason}")
            self.members.give_up(member)
            await attempt.pause()
        raise EtcdUnavailable(self.members.endpoints, timeout_s, attempt.last)

    async def metadata(self, member: Member) -> list[tuple[str, str]]:
        """What a call or stream at `member` carries; logs in first where there is a user and no token yet."""
        if self._credentials is None:
            return []
        if self._token is None:
            self._token = await self._log_in(member, self._credentials)
        return [("token", self._token)] if self._token else []

    def refusal(self, error: grpc.aio.AioRpcError, lease_id: int = 0, *, may_log_in: bool = True) -> EtcdRefused | None:
        """Why no further try makes sense after a failure; None when one does, which gets another token if need be."""
        meaning = meaning_of(error)
        if meaning is Meaning.LOGIN and self._credentials is not None and may_log_in:
            self._token = None
            return None
        return refusal_of(error, lease_id) if meaning in (Meaning.REFUSED, Meaning.LOGIN) else None

    async def _log_in(self, member: Member, credentials: Credentials) -> str:
        request = pb.AuthenticateRequest(name=credentials.user, password=credentials.password)
        try:
            return (await member.call(AUTHENTICATE, request, ANSWER_TIMEOUT_S, [])).token
        except grpc.aio.AioRpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                return ""  # a cluster without users takes every call
            if meaning_of(error) is Meaning.REFUSED:
                raise refusal_of(error) from error
            raise NotConnected(f"{member.endpoint} did not take the log-in: {error.details()}") from error


class _Attempt:
    """How much time a call has left, and how long it waits before it asks the next member."""

    def __init__(self, clock: Clock, timeout_s: float, members: int) -> None:
        self.last = "none was tried"
        self._clock = clock
        self._end_s = clock.monotonic() + timeout_s
        self._members = members
        self._failures = 0

    @property
    def seconds_left(self) -> float:
        return self._end_s - self._clock.monotonic()

    @property
    def answer_timeout_s(self) -> float:
        return max(min(ANSWER_TIMEOUT_S, self.seconds_left), 0.001)

    def failed(self, reason: str) -> None:
        self.last = reason
        self._failures += 1

    async def pause(self) -> None:
        rounds, place = divmod(self._failures, self._members)
        if place == 0:
            wait_s = min(PAUSE_S_MIN * 2 ** (rounds - 1), PAUSE_S_MAX)
            await self._clock.sleep(max(0.0, min(wait_s, self.seconds_left)))
