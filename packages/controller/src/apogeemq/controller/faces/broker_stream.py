"""One broker's stream to this controller: who speaks, what it asks, what it is told.

    hello ─▶ standing ─▶ register, beats, requests … ◀─ answers, states, standing ─▶ end

What is to be sent waits in a queue of bounded length; a broker that does not read loses its stream and comes back.
Replies have no order among each other but that in which they were made.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TypeAlias

from apogeemq.controller.core.broker_set import Replica, SyncState
from apogeemq.controller.core.election import Refusal
from apogeemq.controller.core.requests import Refused, Register, Request
from apogeemq.controller.errors import EtcdError, LeaseGone
from apogeemq.controller.faces.values import (
    InvalidRequest,
    answer_message,
    beat_of,
    refused_message,
    register_of,
    request_of,
    state_message,
)
from apogeemq.controller.metrics import ControllerMetrics
from apogeemq.controller.service.broker_sets import BrokerSets
from apogeemq.controller.service.etcd_calls import EtcdCalls
from apogeemq.controller.service.set_runner import Answered, SetRunner
from apogeemq.controller.service.tasks import Tasks
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.network import MeshStream
from apogeemq.mesh.v1 import controller_pb2 as pb

REPLIES_MAX = 256
"""Messages to one broker that wait to be sent."""
REQUESTS_MAX = 16
"""Requests of one broker that wait for their answer; further ones are refused."""
BEATS_MAX = 4
"""Beats of one broker that wait for etcd; further ones are passed over, the next beat counts as well."""
BEAT_TIMEOUT_S = 1.0

_log = logging.getLogger(__name__)

JoinStream: TypeAlias = MeshStream[pb.JoinReply, pb.JoinRequest]


@dataclass(frozen=True, slots=True)
class StreamPorts:
    """What all streams of a controller work with."""

    sets: BrokerSets
    etcd: EtcdCalls
    clock: Clock
    metrics: ControllerMetrics


class BrokerStream:
    """A stream after its hello. `who` has the check code and incarnation that the hello named, and no id yet."""

    def __init__(self, stream: JoinStream, broker_name: str, who: Replica, ports: StreamPorts) -> None:
        self.broker_name = broker_name
        self.over: asyncio.Future[pb.JoinReply | None] = asyncio.get_running_loop().create_future()
        self._stream = stream
        self._who = who
        self._ports = ports
        self._replies: asyncio.Queue[pb.JoinReply] = asyncio.Queue(REPLIES_MAX)
        self._tasks = Tasks()
        self._waiting = 0
        self._beats = 0
        self._lease_id = 0

    async def read(self) -> None:
        """Take message after message until the broker finishes or is lost, or the stream is over."""
        while not self.over.done() and (message := await self._stream.receive()) is not None:
            try:
                self._take(message)
            except InvalidRequest as error:
                self.finish(Refused(Refusal.INVALID_REQUEST, str(error)))

    async def write(self) -> None:
        """Send what waits, until cancelled."""
        while True:
            await self._stream.send(await self._replies.get())

    async def close(self) -> None:
        """The stream has ended."""
        runner = self._ports.sets.by_name.get(self.broker_name)
        if runner is not None:
            runner.closed(self)
        await self._tasks.stop()

    def finish(self, last_word: Refused | None) -> None:
        """End it, with a last word or without one."""
        if not self.over.done():
            refused = None if last_word is None else pb.JoinReply(refused=refused_message(last_word))
            self.over.set_result(refused)

    def tell_standing(self) -> None:
        """Say who is active."""
        sets = self._ports.sets
        self._reply(pb.JoinReply(standing=pb.JoinReply.Standing(is_active=sets.is_active, active=sets.active_name)))

    # As the set sees it (BrokerSession)

    def tell(self, state: SyncState, replicas: tuple[Replica, ...]) -> None:
        """Say what the set is like now."""
        self._reply(pb.JoinReply(set_state=state_message(state, replicas)))

    def register_again(self) -> None:
        """Say that its lease is gone, or that this controller does not know it."""
        self._reply(pb.JoinReply(register_again=pb.JoinReply.RegisterAgain()))

    def superseded(self) -> None:
        """End it: another stream of the broker took its place."""
        self.finish(Refused(Refusal.INVALID_REQUEST, "a newer stream of this broker took over"))

    # What the broker says

    def _take(self, message: pb.JoinRequest) -> None:
        match message.WhichOneof("kind"):
            case "beat":
                self._beat(message.beat)
            case "knows":
                knows = message.knows
                runner = self._ports.sets.by_name.get(self.broker_name)
                if runner is not None:
                    runner.knows(self, self._who.broker_id, knows.master_epoch, knows.set_epoch)
            case "register":
                self._ask(register_of(message.register, self._who))
            case _:
                request = request_of(message, self._who.broker_id, self._who.incarnation)
                if self._who.broker_id:
                    self._ask(request)
                else:
                    text = "this stream has neither registered nor beaten yet"
                    self._answer(request, Answered(Refused(Refusal.BROKER_NEED_TO_BE_REGISTERED, text), ()))

    def _ask(self, request: Request) -> None:
        runner = self._ports.sets.of(self.broker_name)
        if isinstance(runner, Refused):
            self._answer(request, Answered(runner, ()))
            return
        if self._waiting >= REQUESTS_MAX:
            text = f"{REQUESTS_MAX} requests of this broker wait for their answers: ask again"
            self._answer(request, Answered(Refused(Refusal.INVALID_REQUEST, text), ()))
            return
        self._waiting += 1
        begun_s = self._ports.clock.monotonic()

        def answered(result: Answered) -> None:
            self._waiting -= 1
            self._ports.metrics.answered(request, result.answer, self._ports.clock.monotonic() - begun_s)
            self._answer(request, result)

        runner.ask(request, answered, lease_id=self._lease_id)

    def _answer(self, request: Request, result: Answered) -> None:
        if isinstance(request, Register) and result.lease is not None and not isinstance(result.answer, Refused):
            self._registered(request, result.answer.broker_id, result.lease.lease_id)
        self._reply(answer_message(request.request_id, result, self._ports.sets.active_name))

    def _registered(self, request: Register, broker_id: int, lease_id: int) -> None:
        """It told of its log with the registration, so that it may be elected before its first beat."""
        self._who, self._lease_id = replace(self._who, broker_id=broker_id), lease_id
        runner = self._ports.sets.by_name.get(self.broker_name)
        if runner is not None:
            runner.beaten(self, self._who, request.last_epoch, request.end_offset)

    def _beat(self, message: pb.JoinRequest.Beat) -> None:
        broker_id, lease_id, epoch, end_offset = beat_of(message)
        runner = self._ports.sets.of(self.broker_name)
        who = self._who if self._who.broker_id == broker_id else replace(self._who, broker_id=broker_id)
        if isinstance(runner, Refused) or not runner.beaten(self, who, epoch, end_offset):
            return
        self._who, self._lease_id = who, lease_id
        if self._beats < BEATS_MAX:
            self._beats += 1
            self._tasks.start(self._prolong(runner, message.beat_id, lease_id))

    async def _prolong(self, runner: SetRunner, beat_id: int, lease_id: int) -> None:
        """The broker believes in its lease from when it sent the beat: etcd is asked after that."""
        asked_ms = runner.now_ms
        begun_s = self._ports.clock.monotonic()
        is_good = False
        try:
            ttl_s = await self._ports.etcd.beat(lease_id, timeout_s=BEAT_TIMEOUT_S)
            is_good = True
        except LeaseGone:
            self.register_again()
        except EtcdError as error:
            _log.info(
                "a beat of broker %d of set %s was not passed on: %s", self._who.broker_id, self.broker_name, error
            )
        else:
            runner.prolonged(self._who.broker_id, ttl_s, asked_ms)
            self._reply(pb.JoinReply(beaten=pb.JoinReply.Beaten(beat_id=beat_id, lease_ttl_ms=ttl_s * 1000)))
        finally:
            self._beats -= 1
        self._ports.metrics.beaten(self._ports.clock.monotonic() - begun_s, is_good=is_good)

    def _reply(self, message: pb.JoinReply) -> None:
        try:
            self._replies.put_nowait(message)
        except asyncio.QueueFull:
            self.finish(Refused(Refusal.INVALID_REQUEST, f"{REPLIES_MAX} messages wait and are not read"))
