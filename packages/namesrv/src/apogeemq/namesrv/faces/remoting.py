"""The Remoting face: what clients ask a name server, by request code.

Routes are answered from encoded bodies that are kept until a change makes them wrong. A request that cannot be answered
gets a response code and a remark, which names the field where one is to blame; nothing a client sends changes anything.

Source: remoting.md §8 for the bodies, client_demands.md and recorded exchanges with Apache 5.3.3 for codes and remarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from apogeemq.namesrv.core.route_bodies import BODIES_SIZE_BYTES_MAX, RouteBodies
from apogeemq.namesrv.core.route_table import RouteChange, RouteTable
from apogeemq.namesrv.core.values import TOPIC_LENGTH_MAX
from apogeemq.remoting_codec.aio.access import AccessHook
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.bodies import TopicList
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode, request_code_name
from apogeemq.remoting_codec.command import RemotingCommand, request_code_not_supported
from apogeemq.remoting_codec.errors import HeaderInvalid, RemoteProtocolError
from apogeemq.remoting_codec.framing import encode_frame, encode_response_frame
from apogeemq.remoting_codec.headers.route import GetRouteInfoRequestHeader
from apogeemq.remoting_codec.route import STANDARD_JSON_VERSION_MIN

FAQ_URL = "https://rocketmq.apache.org/docs/bestPractice/06FAQ"

Answer: TypeAlias = tuple[ResponseCode, bytes]
"""Response code, and the whole response frame."""

CountRequest: TypeAlias = Callable[[int, ResponseCode], None]
"""Is told request code and response code of every request that was handled."""


class RemotingFace:
    """Handles the requests of all Remoting connections; `handle` is what a RemotingServer calls.

    is_waiting  tells whether brokers still have to register after a start: routes are then refused (code 1), as with
                Apache's needWaitForService, rather than shown with brokers missing
    """

    def __init__(
        self,
        table: RouteTable,
        *,
        access: AccessHook,
        is_waiting: Callable[[], bool],
        count: CountRequest,
        route_cache_size_bytes: int = BODIES_SIZE_BYTES_MAX,
    ) -> None:
        self._table = table
        self._access = access
        self._is_waiting = is_waiting
        self._count = count
        self._routes = RouteBodies(self._route_body, route_cache_size_bytes)
        self._cluster_info_body: bytes | None = None
        self._topic_list_body: bytes | None = None
        self._functions: Mapping[int, Callable[[RemotingCommand], Answer]] = {
            RequestCode.GET_ROUTEINFO_BY_TOPIC: self._route,
            RequestCode.GET_BROKER_CLUSTER_INFO: self._cluster_info,
            RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER: self._topic_list,
        }
        table.add_listener(self._forget)

    def handle(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Answer one request; a oneway request has no answer."""
        code, frame = self._answer(channel, command)
        self._count(command.code, code)
        return None if command.is_oneway else frame

    def _answer(self, channel: Channel, command: RemotingCommand) -> Answer:
        function = self._functions.get(command.code)
        if function is None:
            return ResponseCode.REQUEST_CODE_NOT_SUPPORTED, encode_frame(request_code_not_supported(command))
        refusal = self._access.check(channel, command)
        if refusal is not None:
            return _without_body(command, refusal.code, refusal.remark)
        try:
            return function(command)
        except RemoteProtocolError as error:
            remark = f"{request_code_name(command.code)}: {error}"
            return _without_body(command, ResponseCode.SYSTEM_ERROR, remark)

    def _route(self, command: RemotingCommand) -> Answer:
        header = GetRouteInfoRequestHeader.decode(command.ext_fields)
        if self._is_waiting():
            return _without_body(command, ResponseCode.SYSTEM_ERROR, "name server not ready")
        topic = header.topic
        if len(topic) > TOPIC_LENGTH_MAX:
            raise HeaderInvalid("topic", f"it has {len(topic)} characters, at most {TOPIC_LENGTH_MAX} are allowed")
        standard = command.version >= STANDARD_JSON_VERSION_MIN or bool(header.accept_standard_json_only)
        body = self._routes.get(topic, standard=standard)
        if body is None:
            remark = f"No topic route info in name server for the topic: {topic}\nSee {FAQ_URL} for further details."
            return _without_body(command, ResponseCode.TOPIC_NOT_EXIST, remark)
        return _with_body(command, body)

    def _cluster_info(self, command: RemotingCommand) -> Answer:
        if self._cluster_info_body is None:
            self._cluster_info_body = self._table.cluster_info().encode()
        return _with_body(command, self._cluster_info_body)

    def _topic_list(self, command: RemotingCommand) -> Answer:
        if self._topic_list_body is None:
            self._topic_list_body = TopicList(topic_list=self._table.topic_names()).encode()
        return _with_body(command, self._topic_list_body)

    def _route_body(self, topic: str, standard: bool) -> bytes | None:
        route = self._table.route(topic)
        return None if route is None else route.encode(standard=standard)

    def _forget(self, change: RouteChange) -> None:
        """Drop the bodies that a change of the tables may have made wrong: all of them when brokers change.

        That is a step as long as nothing is; a broker's fifty thousand topics one by one would hold the event loop.
        """
        self._routes.forget(None if change.are_brokers_changed else change.topics)
        self._topic_list_body = None
        if change.are_brokers_changed:
            self._cluster_info_body = None


def _with_body(command: RemotingCommand, body: bytes) -> Answer:
    return ResponseCode.SUCCESS, encode_response_frame(command.opaque, ResponseCode.SUCCESS, body=body)


def _without_body(command: RemotingCommand, code: ResponseCode, remark: str) -> Answer:
    return code, encode_response_frame(command.opaque, code, remark=remark)
