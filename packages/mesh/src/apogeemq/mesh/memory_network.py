"""A network inside one process, for tests and simulation: same behaviour as GrpcNetwork, weather on demand.

    network = MemoryNetwork(clock, SeededChance(7))
    broker = network.at("broker-a")              # the network as seen from a host of that name
    network.delay("namesrv:9877", 0.01, 0.05)    # every message to and from there takes 10–50 ms
    network.cut("namesrv:9877", origin="broker-a")
    network.heal("namesrv:9877")

Messages are encoded and decoded on the way, so both sides never share one, and bounds hold. Order within a stream is
kept whatever the delays. Time and chance are the ones handed in: the same seed gives the same run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock, within
from apogeemq.mesh.dispatch import (
    Untraced,
    answer,
    converse,
    decode,
    encode,
    handlers_by_path,
    joined_metadata,
    wind_down,
)
from apogeemq.mesh.errors import (
    ChannelClosed,
    DeadlineExceeded,
    MeshError,
    PeerRefused,
    PeerUnavailable,
    RefusalCode,
)
from apogeemq.mesh.memory_stream import Conversation
from apogeemq.mesh.memory_wires import Call, Wires
from apogeemq.mesh.network import (
    CallContext,
    CallTracing,
    ClientStream,
    Handler,
    Listening,
    MeshChannel,
    Metadata,
    Network,
    Req,
    Resp,
    Stream,
    StreamHandler,
    Unary,
    UnaryHandler,
)

if TYPE_CHECKING:
    from apogeemq.mesh.tls import ClientTls, ServerTls

_FIRST_FREE_PORT = 49_152
_LAST_FREE_PORT = 65_535


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _World:
    """What the parts of one MemoryNetwork share."""

    wires: Wires
    tracing: CallTracing
    listeners: dict[str, _Listener]


class MemoryNetwork:
    """Listeners by "host:port", and the weather between them. Its own calls have no particular origin ("")."""

    def __init__(self, clock: Clock, chance: Chance, *, tracing: CallTracing | None = None) -> None:
        self._world = _World(Wires(clock, chance), tracing or Untraced(), {})

    def at(self, host: str) -> Network:
        """Return this network as the host named `host` sees it: its calls have that origin."""
        return _HostView(self, host)

    async def serve(
        self, host: str, port: int, handlers: Sequence[Handler], *, tls: ServerTls | None = None
    ) -> Listening:
        """Listen under "host:port"; port 0 takes a free one. Raises OSError when the address is taken."""
        listeners = self._world.listeners
        listener = _Listener(self._world, host, port or self._free_port(host), handlers, tls)
        if listeners.setdefault(listener.address, listener) is not listener:
            raise OSError(f"{listener.address} is already in use")
        return listener

    def channel(self, target: str, *, tls: ClientTls | None = None) -> MeshChannel:
        """Make a channel to `target` with origin ""."""
        return self.channel_from("", target, tls)

    def channel_from(self, origin: str, target: str, tls: ClientTls | None) -> MeshChannel:
        """Make a channel to `target` with a given origin."""
        return _Channel(self._world, origin, target, tls)

    def cut(self, target: str, *, origin: str | None = None) -> None:
        """Break every call to `target` (from `origin`, or from anywhere) and refuse new ones until heal()."""
        self.refuse(target, origin=origin)
        self._world.wires.break_calls(origin, target, "the network was cut")

    def refuse(self, target: str, *, origin: str | None = None) -> None:
        """Refuse new calls to `target` until heal(); running ones go on."""
        self._world.wires.weather(origin, target).refuses = True

    def delay(self, target: str, min_s: float, max_s: float, *, origin: str | None = None) -> None:
        """Let every message to and from `target` take a time drawn from [min_s, max_s)."""
        weather = self._world.wires.weather(origin, target)
        weather.delay_s_min, weather.delay_s_max = min_s, max_s

    def heal(self, target: str, *, origin: str | None = None) -> None:
        """Undo cut(), refuse() and delay() for `target`; without `origin`, also what was set for single origins."""
        self._world.wires.clear_up(origin, target)

    def _free_port(self, host: str) -> int:
        for port in range(_FIRST_FREE_PORT, _LAST_FREE_PORT + 1):
            if f"{host}:{port}" not in self._world.listeners:
                return port
        raise OSError(f"no free port on {host}")


class _HostView:
    """The network as one named host sees it."""

    def __init__(self, network: MemoryNetwork, host: str) -> None:
        self._network = network
        self._host = host

    async def serve(
        self, host: str, port: int, handlers: Sequence[Handler], *, tls: ServerTls | None = None
    ) -> Listening:
        return await self._network.serve(host, port, handlers, tls=tls)

    def channel(self, target: str, *, tls: ClientTls | None = None) -> MeshChannel:
        return self._network.channel_from(self._host, target, tls)


class _Listener:
    """A server: its handlers, and what runs on it."""

    def __init__(self, world: _World, host: str, port: int, handlers: Sequence[Handler], tls: ServerTls | None) -> None:
        self.host = host
        self.port = port
        self.address = f"{host}:{port}"
        self._world = world
        self._tls = tls
        self._handlers = handlers_by_path(handlers)
        self._running: set[asyncio.Task[Any]] = set()

    def check_tls(self, tls: ClientTls | None) -> None:
        """Raise PeerUnavailable where a real handshake would fail for lack of TLS or of a client certificate."""
        if (self._tls is None) != (tls is None):
            raise PeerUnavailable(self.address, "one side speaks TLS and the other does not")
        if self._tls and self._tls.client_ca and not (tls and tls.certificate_chain):
            raise PeerUnavailable(self.address, "the listener demands a client certificate")

    async def answer(self, path: str, data: bytes, context: CallContext) -> bytes:
        """Run a unary call in the caller's task."""
        handler = self._handlers.get(path)
        if not isinstance(handler, UnaryHandler):
            raise _unimplemented(path)
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        self._running.add(task)
        try:
            return await answer(handler, data, context, self._world.tracing)
        finally:
            self._running.discard(task)

    def accept(self, path: str, conversation: Conversation[Any, Any]) -> None:
        """Run a stream's handler in a task of its own."""
        handler = self._handlers.get(path)
        if isinstance(handler, StreamHandler):
            task = asyncio.ensure_future(self._host_stream(handler, conversation))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        else:
            conversation.handled(_unimplemented(path))

    async def stop(self, grace_s: float) -> None:
        """See Listening.stop."""
        if self._world.listeners.get(self.address) is self:
            del self._world.listeners[self.address]
        if self._running:
            try:
                await within(self._world.wires.clock, grace_s, asyncio.wait(set(self._running)))
            except TimeoutError:
                _log.warning("%s: %d calls still ran after %g s", self.address, len(self._running), grace_s)
        self._world.wires.break_calls(None, self.address, "the server stopped")
        running: set[asyncio.Task[Any]] = set(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _host_stream(self, handler: StreamHandler[Req, Resp], conversation: Conversation[Req, Resp]) -> None:
        work = asyncio.ensure_future(
            converse(handler, conversation.handler, self._world.tracing, conversation.lost.done)
        )
        try:
            await asyncio.wait({work, conversation.lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await wind_down(work, self._world.wires.clock)
        error = None if work.cancelled() else work.exception()
        conversation.handled(error if isinstance(error, PeerRefused) else None)


class _Channel:
    """Calls from one origin to one target."""

    def __init__(self, world: _World, origin: str, target: str, tls: ClientTls | None) -> None:
        self.target = target
        self._world = world
        self._origin = origin
        self._tls = tls
        self._closed = False
        self._failures: set[asyncio.Future[MeshError]] = set()
        self._conversations: WeakSet[Conversation[Any, Any]] = WeakSet()

    async def unary(
        self, method: Unary[Req, Resp], request: Req, *, timeout_s: float, metadata: Metadata | None = None
    ) -> Resp:
        """See MeshChannel.unary."""
        path = method.path
        traced = self._world.tracing.client_call(path, self.target)
        try:
            sent_metadata = joined_metadata(metadata, traced.metadata)
            context = CallContext(f"memory:{self._origin}", sent_metadata, timeout_s)
            reply = await self._call(path, encode(path, request), context, timeout_s)
            decoded = decode(path, method.response_type, reply)
        except BaseException as error:
            traced.end(error)
            raise
        traced.end(None)
        return decoded

    def stream(self, method: Stream[Req, Resp], *, metadata: Metadata | None = None) -> ClientStream[Req, Resp]:
        """See MeshChannel.stream."""
        if self._closed:
            raise ChannelClosed(self.target, "the channel")
        traced = self._world.tracing.client_call(method.path, self.target)
        sent_metadata = joined_metadata(metadata, traced.metadata)
        conversation = Conversation(self._world.wires, self._origin, self.target, method, sent_metadata, traced.end)
        self._conversations.add(conversation)
        try:
            self._connect().accept(method.path, conversation)
        except MeshError as error:
            conversation.close_opener(error)
        return conversation.opener

    async def close(self) -> None:
        """See MeshChannel.close."""
        self._closed = True
        error = ChannelClosed(self.target, "the channel")
        for conversation in list(self._conversations):
            conversation.close_opener(error)
        for failure in list(self._failures):
            _settle(failure, error)

    def _connect(self) -> _Listener:
        """Find who listens at the target; raises PeerUnavailable or ChannelClosed."""
        if self._closed:
            raise ChannelClosed(self.target, "the channel")
        listener = self._world.listeners.get(self.target)
        if listener is None:
            raise PeerUnavailable(self.target, "nobody listens there")
        self._world.wires.check_open(self._origin, self.target)
        listener.check_tls(self._tls)
        return listener

    async def _call(self, path: str, data: bytes, context: CallContext, timeout_s: float) -> bytes:
        """Run one unary call until its reply, its failure or its deadline, whichever is first."""
        listener = self._connect()
        failure: asyncio.Future[MeshError] = asyncio.get_running_loop().create_future()
        call = Call(
            self._world.wires,
            self._origin,
            self.target,
            lambda reason: _settle(failure, PeerUnavailable(self.target, reason)),
        )
        work = asyncio.ensure_future(_round_trip(call, listener, path, data, context))
        timer = asyncio.ensure_future(call.clock.sleep(timeout_s))
        self._failures.add(failure)
        try:
            pending: set[asyncio.Future[Any]] = {work, timer, failure}
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                raise failure.result()
            if not work.done():
                raise DeadlineExceeded(self.target, path, timeout_s)
            return work.result()
        finally:
            self._failures.discard(failure)
            call.end()
            timer.cancel()
            work.cancel()
            await asyncio.wait({work})


async def _round_trip(call: Call, listener: _Listener, path: str, data: bytes, context: CallContext) -> bytes:
    await call.clock.sleep(call.travel_time_s())
    reply = await listener.answer(path, data, context)
    await call.clock.sleep(call.travel_time_s())
    return reply


def _settle(failure: asyncio.Future[MeshError], error: MeshError) -> None:
    if not failure.done():
        failure.set_result(error)


def _unimplemented(path: str) -> PeerRefused:
    return PeerRefused(RefusalCode.UNIMPLEMENTED, f"no handler for {path}")
