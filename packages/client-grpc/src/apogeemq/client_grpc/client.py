"""What producers and consumers have in common: sessions, routes, heartbeats, and an orderly beginning and end.

Started in this order: Telemetry stream to the access point, its settings, the topics' routes, then a stream to every
other endpoint that a route names, before anything else uses it. Ended in the reverse: NotifyClientTermination, streams,
channels.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from apogeemq.client_api.errors import ClientClosed, ClientError, RouteNotFound, StartFailed
from apogeemq.client_grpc.clock import Clock
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.client_grpc.core.metadata import Headers
from apogeemq.client_grpc.core.routes import TopicRoute
from apogeemq.client_grpc.core.settings import Described
from apogeemq.client_grpc.core.status import code_name, is_fine, no_route
from apogeemq.client_grpc.identity import Identity
from apogeemq.client_grpc.link import Link, Tls
from apogeemq.client_grpc.methods import (
    HEARTBEAT,
    NOTIFY_CLIENT_TERMINATION,
    QUERY_ROUTE,
    Method,
    Request,
    Response,
)
from apogeemq.client_grpc.session import Session
from apogeemq.proto.v2 import definition_pb2, service_pb2

REQUEST_TIMEOUT_S: Final = 3.0
HEARTBEAT_S: Final = 10.0
FIRST_HEARTBEAT_S: Final = 1.0
ROUTE_REFRESH_S: Final = 30.0
SETTINGS_RESEND_S: Final = 300.0
TERMINATION_TIMEOUT_S: Final = 1.0

_UNKNOWN_CLIENT: Final = definition_pb2.Code.UNRECOGNIZED_CLIENT_TYPE
_log = logging.getLogger(__name__)


class Role(Protocol):
    """What makes a client a producer or a consumer."""

    @property
    def client_type(self) -> definition_pb2.ClientType:
        """As the API numbers them."""
        ...

    @property
    def group(self) -> str | None:
        """The consumer group; None for a producer."""
        ...

    def settings(self, described: Described) -> definition_pb2.Settings:
        """What to tell the server, as of now."""
        ...

    def take_settings(self, settings: definition_pb2.Settings) -> None:
        """What the server tells; may come at any time."""
        ...

    async def answer(
        self, command: service_pb2.TelemetryCommand, endpoints: Endpoints
    ) -> service_pb2.TelemetryCommand | None:
        """Answer a command of the proxy at `endpoints`; None where there is nothing to answer on the stream."""
        ...


class Client:
    """The connections of one producer or consumer. Made when it starts; used in one event loop."""

    def __init__(self, access_point: Endpoints, role: Role, *, clock: Clock, tls: Tls | None) -> None:
        self.identity = Identity.of_this_process(clock.now_ms())
        self.access_point = access_point
        self.clock = clock
        self._role = role
        self._link = Link(Headers(self.identity.client_id, self.identity.version), clock=clock, tls=tls)
        self._described = Described(
            client_type=role.client_type,
            access_point=access_point,
            request_timeout_s=REQUEST_TIMEOUT_S,
            version=self.identity.version,
            platform=self.identity.platform,
            hostname=self.identity.hostname,
        )
        self._sessions: dict[Endpoints, Session] = {}
        self._routes: dict[str, TopicRoute] = {}
        self._asking: dict[str, asyncio.Task[TopicRoute]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def link(self) -> Link:
        """The calls that need no session, and the streams."""
        return self._link

    async def start(self, topics: Iterable[str]) -> None:
        """Introduce the client, learn the routes. Raises StartFailed, RouteNotFound; nothing is left open then.

        In a child process of one that used gRPC it raises ClientClosed.
        """
        self._link.check_process()
        try:
            await self._open_session(self.access_point).start()
            for topic in topics:
                await self.route(topic)
        except RouteNotFound:
            await self.close()
            raise
        except ClientError as error:
            await self.close()
            if isinstance(error, StartFailed):
                raise
            raise StartFailed(f"the client could not start: {error.text}", code=error.code, hint=error.hint) from error
        except BaseException:
            await self.close()
            raise
        self.every(HEARTBEAT_S, self._heartbeat, first_s=FIRST_HEARTBEAT_S)
        self.every(ROUTE_REFRESH_S, self._refresh_routes)
        self.every(SETTINGS_RESEND_S, self._introduce_everywhere)

    def check(self) -> None:
        """Raises ClientClosed when the client is closed, or is used in a child of the process that started it."""
        self._link.check_process()
        if self._closed:
            raise ClientClosed("the client is closed", hint="Use it inside its `async with` block.")

    async def close(self) -> None:
        """Say good-bye and give everything back. Errors on the way out concern nobody any more; they are logged."""
        if self._closed:
            return
        self._closed = True
        await end_tasks([*self._tasks, *self._asking.values()])
        await asyncio.gather(*(self._terminate(endpoints) for endpoints in self._sessions))
        await asyncio.gather(*(session.close() for session in self._sessions.values()))
        await self._link.close()

    def every(self, interval_s: float, work: Callable[[], Awaitable[None]], *, first_s: float | None = None) -> None:
        """Do something again and again until the client closes; a failure is logged and the next time comes."""
        self._tasks.append(asyncio.create_task(self._repeat(interval_s, first_s, work), name=work.__qualname__))

    async def call(
        self,
        method: Method[Request, Response],
        endpoints: Endpoints,
        request: Request,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        traceparent: str | None = None,
    ) -> Response:
        """Ask a proxy that this client has introduced itself to. Raises as Link.unary."""
        return await self._link.unary(method, endpoints, request, timeout_s=timeout_s, traceparent=traceparent)

    async def session(self, endpoints: Endpoints, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        """Until the proxy at `endpoints` knows this client. Raises ConnectionBroken."""
        session = self._sessions.get(endpoints) or self._open_session(endpoints)
        session.hold()
        await session.wait_ready(timeout_s)

    async def introduce(self, endpoints: Endpoints) -> None:
        """Tell a proxy that seems to have forgotten this client who it is."""
        session = self._sessions.get(endpoints)
        if session is not None:
            await session.introduce()

    async def introduce_everywhere(self) -> None:
        """Send the settings to all proxies: they have changed."""
        await self._introduce_everywhere()

    def known_route(self, topic: str) -> TopicRoute | None:
        """The topic's route if it is known already."""
        return self._routes.get(topic)

    async def route(self, topic: str, *, fresh: bool = False) -> TopicRoute:
        """The topic's route, kept until it is refreshed; `fresh` asks again. Many may ask, one call is made.

        Raises RouteNotFound, ConnectionBroken.
        """
        known = self._routes.get(topic)
        if known is not None and not fresh:
            return known
        asking = self._asking.get(topic)
        if asking is None:
            asking = self._asking[topic] = asyncio.create_task(self._ask_route(topic), name=f"route {topic}")
            asking.add_done_callback(lambda task: self._asked_route(topic, task))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if asking.cancelled() and (task is None or not task.cancelling()):
                raise ClientClosed("the client was closed while it asked for a route") from None
            raise

    def _asked_route(self, topic: str, asking: asyncio.Task[TopicRoute]) -> None:
        self._asking.pop(topic, None)
        if not asking.cancelled():
            asking.exception()  # whoever waited has it; if nobody does any more, it is of no interest

    async def _ask_route(self, topic: str) -> TopicRoute:
        request = service_pb2.QueryRouteRequest(
            topic=definition_pb2.Resource(name=topic), endpoints=self.access_point.to_proto()
        )
        answer = await self.call(QUERY_ROUTE, self.access_point, request)
        if not is_fine(answer.status):
            raise no_route(topic, answer.status, broker=str(self.access_point))
        route = TopicRoute.of(topic, answer.message_queues)
        await self._introduce_to(route)
        self._routes[topic] = route
        return route

    async def _introduce_to(self, route: TopicRoute) -> None:
        """A session with every place of a route; one that is down does no harm while another is there."""
        waiting = (self.session(endpoints) for endpoints in route.endpoints)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        errors = [result for result in results if result is not None]
        for error in errors:
            if len(errors) == len(results) or not isinstance(error, ClientError):
                raise error
            _log.warning("a place on the route of topic %s is not there: %s", route.topic, error)

    async def _refresh_routes(self) -> None:
        for topic in list(self._routes):
            try:
                await self.route(topic, fresh=True)
            except ClientError as error:
                _log.warning("the route of topic %s could not be refreshed, the last one stays: %s", topic, error)

    def _open_session(self, endpoints: Endpoints) -> Session:
        session = self._sessions[endpoints] = Session(
            str(endpoints),
            open_stream=lambda: self._link.telemetry(endpoints),
            describe=lambda: self._role.settings(self._described),
            on_settings=self._role.take_settings,
            on_command=lambda command: self._role.answer(command, endpoints),
            clock=self.clock,
            jitter=random.random,
        )
        return session

    async def _introduce_everywhere(self) -> None:
        for endpoints, session in self._sessions.items():
            try:
                await session.introduce()
            except ClientError as error:  # the session opens its stream again and says it then
                _log.info("the settings could not be sent to %s: %s", endpoints, error)

    async def _heartbeat(self) -> None:
        await asyncio.gather(*(self._heartbeat_to(endpoints) for endpoints in list(self._sessions)))

    async def _heartbeat_to(self, endpoints: Endpoints) -> None:
        request = service_pb2.HeartbeatRequest(client_type=self._role.client_type, group=_group(self._role))
        try:
            answer = await self.call(HEARTBEAT, endpoints, request)
            if answer.status.code == _UNKNOWN_CLIENT:
                await self.introduce(endpoints)
            elif not is_fine(answer.status):
                _log.warning("heartbeat to %s: %s: %s", endpoints, code_name(answer.status.code), answer.status.message)
        except ClientError as error:
            _log.info("heartbeat to %s failed: %s", endpoints, error)

    async def _terminate(self, endpoints: Endpoints) -> None:
        if not self._sessions[endpoints].ready:
            return
        request = service_pb2.NotifyClientTerminationRequest(group=_group(self._role))
        try:
            await self.call(NOTIFY_CLIENT_TERMINATION, endpoints, request, timeout_s=TERMINATION_TIMEOUT_S)
        except ClientError as error:
            _log.info("could not tell %s that this client ends: %s", endpoints, error)

    async def _repeat(self, interval_s: float, first_s: float | None, work: Callable[[], Awaitable[None]]) -> None:
        await self.clock.sleep(interval_s if first_s is None else first_s)
        while True:
            try:
                await work()
            except Exception:  # noqa: BLE001 — one failure must not end what has to go on for the client's life
                _log.exception("background work failed; it is tried again in %s s", interval_s)
            await self.clock.sleep(interval_s)


async def end_tasks(tasks: Iterable[asyncio.Task[object]]) -> None:
    """Cancel tasks and wait until they have ended, however they end."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)


def _group(role: Role) -> definition_pb2.Resource | None:
    return None if role.group is None else definition_pb2.Resource(name=role.group)
