"""The mesh face: brokers' registration streams, and the passing of time over them.

Each stream is a session of the registrar. A session ends by its own messages, by a deadline, or because another stream
of the same broker took over; in the last two cases somebody else's step ends this stream, hence every stream waits for
its next message and for its end at the same time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from apogeemq.mesh.clock import Clock, within
from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.network import MeshStream, StreamHandler
from apogeemq.mesh.v1.methods import NAMESRV_REGISTER
from apogeemq.mesh.v1.namesrv_pb2 import RegistrationReply, RegistrationRequest
from apogeemq.namesrv.core.effects import Effect, Ended, Joined, Left, Refused, Reply, Send
from apogeemq.namesrv.core.registrar import Registrar
from apogeemq.namesrv.faces.mesh_values import identity_of, reply_message, topics_of, version_of

TICK_S = 0.5
"""How often deadlines are looked at: a broker leaves at most this much later than it should."""

LAST_WORD_TIMEOUT_S = 3.0
"""How long the end of a stream waits for its peer to take the refusal."""

_log = logging.getLogger(__name__)

RegistrationStream: TypeAlias = MeshStream[RegistrationReply, RegistrationRequest]


@dataclass(frozen=True, slots=True)
class _Session:
    """An open stream. `end` gets the last word: a refusal to send, or None to finish without one."""

    session_id: int
    stream: RegistrationStream
    end: asyncio.Future[Refused | None]

    def finish(self, last_word: Refused | None) -> None:
        if not self.end.done():
            self.end.set_result(last_word)


class RegistrationFace:
    """Runs the registrar's steps for every stream, and sends what they ask for."""

    def __init__(self, registrar: Registrar, clock: Clock) -> None:
        self._registrar = registrar
        self._clock = clock
        self._sessions: dict[int, _Session] = {}
        self.handler: StreamHandler[RegistrationRequest, RegistrationReply] = StreamHandler(
            NAMESRV_REGISTER, self._serve
        )

    async def keep_time(self) -> None:
        """Act on deadlines that have passed, until cancelled."""
        while True:
            await self._clock.sleep(TICK_S)
            while (effects := self._registrar.expire_next(self._now_ms())) is not None:
                await self._perform(effects)
                await self._clock.sleep(0)  # a broker with many topics leaving is work: let others run between two

    def finish_all(self) -> None:
        """End every stream cleanly, as the name server stops; brokers then look for it again."""
        for session in self._sessions.values():
            session.finish(None)

    async def _serve(self, stream: RegistrationStream) -> None:
        opened = self._registrar.open(self._now_ms())
        if isinstance(opened, Refused):
            await self._send_last(stream, opened)
            return
        session = _Session(opened, stream, asyncio.get_running_loop().create_future())
        self._sessions[opened] = session
        reading = asyncio.ensure_future(self._read(session))
        try:
            waiting: set[asyncio.Future[Any]] = {reading, session.end}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            if session.end.done() and (last_word := session.end.result()) is not None:
                await self._send_last(stream, last_word)
        finally:
            del self._sessions[opened]
            self._registrar.lost(opened, self._now_ms())
            reading.cancel()
            await asyncio.wait({reading})

    async def _read(self, session: _Session) -> None:
        """Take message after message until the peer finishes or is lost, or the session is over."""
        try:
            while not session.end.done() and (request := await session.stream.receive()) is not None:
                await self._perform(self._step(session.session_id, request))
        except MeshError as error:
            _log.info("registration stream from %s ended: %s", session.stream.peer, error)

    def _step(self, session_id: int, request: RegistrationRequest) -> list[Effect]:
        now_ms = self._now_ms()
        match request.WhichOneof("kind"):
            case "hello":
                hello = request.hello
                return self._registrar.hello(
                    session_id, identity_of(hello.identity), version_of(hello.data_version), now_ms
                )
            case "full_state":
                full = request.full_state
                version, topics = version_of(full.data_version), topics_of(full.topics)
                return self._registrar.full_state(session_id, version, topics, now_ms, first=full.first, last=full.last)
            case "delta":
                delta = request.delta
                base, version = version_of(delta.base), version_of(delta.data_version)
                return self._registrar.delta(
                    session_id, base, version, topics_of(delta.changed), list(delta.removed), now_ms
                )
            case "beat":
                return self._registrar.beat(session_id, version_of(request.beat.data_version), now_ms)
            case "unregister":
                return self._registrar.unregister(session_id)
            case _:
                return self._registrar.violated(
                    session_id, "kind is not set, or is newer than this name server", now_ms
                )

    async def _perform(self, effects: Iterable[Effect]) -> None:
        """Run effects in order. What ends a session only marks it: its own task says the last word."""
        for effect in effects:
            match effect:
                case Send(session_id, reply):
                    session = self._sessions.get(session_id)
                    if session is not None:
                        await self._reply(session, reply)
                case Joined(identity, topic_count):
                    _log.info(
                        "broker %s id %d of cluster %s at %s joined with %d topics",
                        identity.broker_name,
                        identity.broker_id,
                        identity.cluster,
                        identity.address,
                        topic_count,
                    )
                case Left(identity, reason):
                    _log.info("broker %s id %d left: %s", identity.broker_name, identity.broker_id, reason)

    async def _reply(self, session: _Session, reply: Reply) -> None:
        match reply:
            case Refused():
                _log.warning("registration from %s refused: %s", session.stream.peer, _text(reply))
                session.finish(reply)
            case Ended():
                session.finish(None)
            case _:
                await session.stream.send(reply_message(reply))

    async def _send_last(self, stream: RegistrationStream, refused: Refused) -> None:
        try:
            await within(self._clock, LAST_WORD_TIMEOUT_S, stream.send(reply_message(refused)))
        except (MeshError, TimeoutError) as error:
            _log.info("%s was not told why its registration ended (%s): %s", stream.peer, _text(refused), error)

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)


def _text(refused: Refused) -> str:
    return f"{refused.code.name}: {refused.text}"
