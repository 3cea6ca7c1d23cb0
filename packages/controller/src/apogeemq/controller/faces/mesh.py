"""The mesh face: brokers' streams, and what operators ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from apogeemq.controller.core.broker_set import NEW_SET
from apogeemq.controller.core.election import Refusal
from apogeemq.controller.core.requests import (
    BY_OPERATOR,
    AskElection,
    CleanBroker,
    RecoverSet,
    Refused,
    Request,
    SetLearner,
)
from apogeemq.controller.faces.broker_stream import BrokerStream, JoinStream, StreamPorts
from apogeemq.controller.faces.values import (
    InvalidRequest,
    broker_id_of,
    broker_name_of,
    election_message,
    hello_of,
    one_broker_id_of,
    operator_message,
    refused_message,
    state_message,
)
from apogeemq.controller.service.set_runner import Answered, SetRunner
from apogeemq.mesh.clock import within
from apogeemq.mesh.errors import MeshError, PeerRefused, RefusalCode
from apogeemq.mesh.network import CallContext, Handler, StreamHandler, UnaryHandler
from apogeemq.mesh.v1 import controller_pb2 as pb
from apogeemq.mesh.v1.methods import (
    CLEAN_BROKER,
    CONTROLLER_JOIN,
    DESCRIBE_SETS,
    ELECT_MASTER,
    RECOVER_SET,
    SWITCH_LEARNER,
)

HELLO_TIMEOUT_S = 10.0
LAST_WORD_TIMEOUT_S = 3.0
"""How long the end of a stream waits for its peer to take the refusal."""
OPERATOR_TIMEOUT_S = 10.0
"""Longest wait of an operator for etcd."""

_log = logging.getLogger(__name__)

_V = TypeVar("_V", str, int)


class ControllerFace:
    """Serves the controller's API.

    Args:
        cluster: of this controller; brokers of another one are refused.
        name: gives this controller's mesh endpoint.
        etcd_trouble: gives why etcd cannot be used; empty where it answers.
    """

    def __init__(
        self,
        cluster: str,
        ports: StreamPorts,
        *,
        name: Callable[[], str],
        etcd_trouble: Callable[[], str],
        streams_max: int,
    ) -> None:
        self._cluster = cluster
        self._ports = ports
        self._name = name
        self._etcd_trouble = etcd_trouble
        self._streams_max = streams_max
        self._streams: set[BrokerStream] = set()
        self.handlers: list[Handler] = [
            StreamHandler(CONTROLLER_JOIN, self._join),
            UnaryHandler(DESCRIBE_SETS, self._describe_sets),
            UnaryHandler(ELECT_MASTER, self._elect_master),
            UnaryHandler(CLEAN_BROKER, self._clean_broker),
            UnaryHandler(RECOVER_SET, self._recover_set),
            UnaryHandler(SWITCH_LEARNER, self._switch_learner),
        ]

    @property
    def stream_count(self) -> int:
        """Open streams of brokers."""
        return len(self._streams)

    def standing_changed(self) -> None:
        """Tell every broker who is active now."""
        for stream in self._streams:
            stream.tell_standing()

    def finish_all(self) -> None:
        """End every stream cleanly, as the controller stops; brokers go to another one."""
        for stream in self._streams:
            stream.finish(None)

    async def _join(self, stream: JoinStream) -> None:
        refused: Refused | None = None
        try:
            broker_stream = await self._met(stream)
        except (InvalidRequest, TimeoutError) as error:
            refused = Refused(Refusal.INVALID_REQUEST, str(error) or f"no hello within {HELLO_TIMEOUT_S:g} s")
        if refused is not None:
            _log.warning("%s is refused: %s", stream.peer, refused.text)
            await self._send_last(stream, pb.JoinReply(refused=refused_message(refused)))
        elif broker_stream is not None:
            await self._serve(stream, broker_stream)

    async def _met(self, stream: JoinStream) -> BrokerStream | None:
        """Take the hello; None where the peer finished before."""
        if len(self._streams) >= self._streams_max:
            raise InvalidRequest(f"this controller has {self._streams_max} streams already (limits.streams_max)")
        first = await within(self._ports.clock, HELLO_TIMEOUT_S, stream.receive())
        if first is None:
            return None
        if first.WhichOneof("kind") != "hello":
            raise InvalidRequest("the first message of a stream must be its hello")
        broker_name, who = hello_of(first.hello, self._cluster)
        return BrokerStream(stream, broker_name, who, self._ports)

    async def _serve(self, stream: JoinStream, broker: BrokerStream) -> None:
        self._streams.add(broker)
        broker.tell_standing()
        tasks = [asyncio.ensure_future(broker.read()), asyncio.ensure_future(broker.write())]
        try:
            waiting: set[asyncio.Future[Any]] = {*tasks, broker.over}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            self._note_end(broker, tasks)
            if broker.over.done() and (last_word := broker.over.result()) is not None:
                await self._send_last(stream, last_word)
        finally:
            self._streams.discard(broker)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await broker.close()

    def _note_end(self, broker: BrokerStream, tasks: Sequence[asyncio.Future[None]]) -> None:
        """What is no loss of the stream is a defect: it leaves the handler, and the network logs it."""
        for task in tasks:
            if task.done() and (error := task.exception()) is not None:
                if not isinstance(error, MeshError):
                    raise error
                _log.info("a stream of set %s ended: %s", broker.broker_name, error)

    async def _send_last(self, stream: JoinStream, reply: pb.JoinReply) -> None:
        try:
            await within(self._ports.clock, LAST_WORD_TIMEOUT_S, stream.send(reply))
        except (MeshError, TimeoutError) as error:
            _log.info("%s was not told why its stream ended (%s): %s", stream.peer, reply.refused.text, error)

    async def _describe_sets(self, request: pb.DescribeSetsRequest, context: CallContext) -> pb.DescribeSetsReply:
        sets = self._ports.sets
        chosen = sorted(name for name in sets.by_name if request.broker_name in ("", name))
        return pb.DescribeSetsReply(
            cluster=self._cluster,
            controller=self._name(),
            active=sets.active_name,
            etcd_trouble=self._etcd_trouble(),
            sets=[_described(sets.by_name[name]) for name in chosen],
        )

    async def _elect_master(self, request: pb.ElectMasterRequest, context: CallContext) -> pb.OperatorReply:
        designated_id = _checked(broker_id_of, request.broker_id)
        asked = AskElection(0, BY_OPERATOR, over_epoch=0, designated_id=designated_id)
        return await self._operate(_checked(broker_name_of, request.broker_name), asked)

    async def _clean_broker(self, request: pb.CleanBrokerRequest, context: CallContext) -> pb.OperatorReply:
        asked = CleanBroker(0, _checked(broker_id_of, request.broker_id))
        return await self._operate(_checked(broker_name_of, request.broker_name), asked)

    async def _recover_set(self, request: pb.RecoverSetRequest, context: CallContext) -> pb.OperatorReply:
        asked = RecoverSet(0, _checked(one_broker_id_of, request.broker_id))
        return await self._operate(_checked(broker_name_of, request.broker_name), asked)

    async def _switch_learner(self, request: pb.SwitchLearnerRequest, context: CallContext) -> pb.OperatorReply:
        asked = SetLearner(0, _checked(one_broker_id_of, request.broker_id), request.is_learner)
        return await self._operate(_checked(broker_name_of, request.broker_name), asked)

    async def _operate(self, broker_name: str, request: Request) -> pb.OperatorReply:
        """Have a set that there is decide what an operator asks, and wait for it."""
        sets, clock = self._ports.sets, self._ports.clock
        runner = sets.by_name.get(broker_name)
        if not sets.is_active:
            refused = Refused(Refusal.NOT_LEADER, f"another controller is active: {sets.active_name or 'none yet'}")
            return operator_message(Answered(refused, ()), sets.active_name)
        if runner is None:
            refused = Refused(Refusal.BROKER_METADATA_NOT_EXIST, f"there is no broker set {broker_name}")
            return operator_message(Answered(refused, ()), sets.active_name)
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        begun_s = clock.monotonic()
        runner.ask(request, lambda result: None if future.done() else future.set_result(result))
        try:
            result = await within(clock, OPERATOR_TIMEOUT_S, _awaited(future))
        except TimeoutError:
            text = f"no answer of etcd within {OPERATOR_TIMEOUT_S:g} s: look whether it was done"
            result = Answered(Refused(Refusal.STORE_FAILED, text), ())
        self._ports.metrics.answered(request, result.answer, clock.monotonic() - begun_s)
        return operator_message(result, sets.active_name)


async def _awaited(future: asyncio.Future[Answered]) -> Answered:
    return await future


def _checked(read: Callable[[_V], _V], value: _V) -> _V:
    """Read one field; what is wrong with it is the caller's refusal."""
    try:
        return read(value)
    except InvalidRequest as error:
        raise PeerRefused(RefusalCode.INVALID_ARGUMENT, str(error)) from error


def _described(runner: SetRunner) -> pb.DescribeSetsReply.BrokerSet:
    known = {each.broker_id for each in runner.replicas}
    return pb.DescribeSetsReply.BrokerSet(
        broker_name=runner.broker_name,
        set_state=state_message(runner.state, runner.replicas) if known or runner.state != NEW_SET else None,
        brokers=[
            pb.DescribeSetsReply.Seen(
                broker_id=broker_id,
                is_alive=broker_id in runner.alive,
                is_connected=broker_id in runner.connected,
                epoch=report.epoch if report is not None else 0,
                end_offset=report.end_offset if report is not None else 0,
                lease_left_ms=runner.lease_left_ms(broker_id),
                lag=runner.lag(broker_id),
            )
            for broker_id in sorted(known)
            for report in [runner.reports.get(broker_id)]
        ],
        trouble=runner.trouble,
        elections=[election_message(election, age_ms) for election, age_ms in runner.elections],
    )
