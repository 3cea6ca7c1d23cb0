"""HEART_BEAT (34) and UNREGISTER_CLIENT (35): producers that come by the proxy are known to the brokers behind it.

A beat is passed on to every broker, and the client is not made to wait for that: a broker that misses one hears the
next, 30 s later. Consumer groups in a beat are left out, since this version serves no consumers here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from apogeemq.mesh.calls import Call
from apogeemq.mesh.errors import MeshError
from apogeemq.mesh.network import Req, Resp
from apogeemq.mesh.v1.broker_pb2 import ClientHeartbeatRequest, UnregisterClientRequest
from apogeemq.mesh.v1.methods import CLIENT_HEARTBEAT, UNREGISTER_CLIENT
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.faces.remoting.face import Answer, Function
from apogeemq.proxy.ports import Brokers
from apogeemq.remoting_codec.aio.channel import Channel
from apogeemq.remoting_codec.bodies import HeartbeatData
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import HeaderInvalid
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.group import UnregisterClientRequestHeader

GROUPS_MAX = 1_000
"""Producer groups in one heartbeat."""

TOLD_AT_A_TIME_MAX = 1_000
"""Calls to brokers about clients that may wait; what comes beyond is left to the next heartbeat."""

_CLIENT = "proxy.producer"

_log = logging.getLogger(__name__)


class ProducerRequests:
    """Membership of producers. `all_brokers` are the names of those behind the proxy."""

    def __init__(self, brokers: Brokers, all_brokers: Callable[[], Sequence[str]], *, timeout_s: float) -> None:
        self._brokers = brokers
        self._all_brokers = all_brokers
        self._timeout_s = timeout_s
        self.connected: dict[str, dict[str, Channel]] = {}
        """Group → client id → its connection."""
        self._telling: set[asyncio.Task[None]] = set()

    def functions(self) -> Mapping[int, Function]:
        """Request code → function."""
        return {RequestCode.HEART_BEAT: self.heart_beat, RequestCode.UNREGISTER_CLIENT: self.unregister_client}

    async def heart_beat(self, channel: Channel, command: RemotingCommand) -> Answer:
        """A client says which groups it produces for."""
        beat = HeartbeatData.decode(command.body)
        groups = [producer.group_name for producer in beat.producer_data_set]
        if len(groups) > GROUPS_MAX:
            raise HeaderInvalid("producerDataSet", f"it has {len(groups)} groups, at most {GROUPS_MAX} are allowed")
        if groups:
            self._forget(channel)
            channel.attributes[_CLIENT] = (beat.client_id, groups)
            for group in groups:
                self.connected.setdefault(group, {})[beat.client_id] = channel
            request = ClientHeartbeatRequest(
                client_id=beat.client_id,
                language=command.language,
                version=command.version,
                producer_groups=groups,
            )
            self._tell_all(CLIENT_HEARTBEAT, request)
        ext_fields = {"IS_SUPPORT_HEART_BEAT_V2": "false", "IS_SUB_CHANGE": "false"}
        return _success(command, ext_fields)

    async def unregister_client(self, channel: Channel, command: RemotingCommand) -> Answer:
        """A client leaves a group."""
        header = UnregisterClientRequestHeader.decode(command.ext_fields)
        if header.producer_group:
            self._forget_member(header.producer_group, header.client_id, channel)
            self._leave(header.client_id, [header.producer_group])
        return _success(command, {})

    def channel_closed(self, channel: Channel) -> None:
        """A connection is gone: its producer leaves all its groups."""
        self._forget(channel)
        match channel.attributes.get(_CLIENT):
            case (str(client_id), list(groups)):
                self._leave(client_id, groups)

    async def stop(self) -> None:
        """Give up what brokers were not told yet; they notice by themselves."""
        telling = set(self._telling)
        for task in telling:
            task.cancel()
        await asyncio.gather(*telling, return_exceptions=True)

    def _forget(self, channel: Channel) -> None:
        match channel.attributes.get(_CLIENT):
            case (str(client_id), list(groups)):
                for group in groups:
                    self._forget_member(group, client_id, channel)

    def _forget_member(self, group: str, client_id: str, channel: Channel) -> None:
        members = self.connected.get(group)
        if members is not None and members.get(client_id) is channel:
            del members[client_id]
            if not members:
                del self.connected[group]

    def _leave(self, client_id: str, groups: list[str]) -> None:
        self._tell_all(UNREGISTER_CLIENT, UnregisterClientRequest(client_id=client_id, producer_groups=groups))

    def _tell_all(self, call: Call[Req, Resp], request: Req) -> None:
        for broker_name in self._all_brokers():
            if len(self._telling) >= TOLD_AT_A_TIME_MAX:
                _log.warning("%s is not told to %s: %d such calls wait", call.name, broker_name, TOLD_AT_A_TIME_MAX)
                return
            task = asyncio.ensure_future(self._tell(broker_name, call, request))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, broker_name: str, call: Call[Req, Resp], request: Req) -> None:
        try:
            await self._brokers.caller(broker_name).call(call, request, timeout_s=self._timeout_s)
        except (MeshError, ProxyError) as error:
            _log.debug("%s was not told to %s: %s", call.name, broker_name, error)


def _success(command: RemotingCommand, ext_fields: dict[str, str]) -> Answer:
    return ResponseCode.SUCCESS, encode_response_frame(command.opaque, ResponseCode.SUCCESS, ext_fields)
