"""The Remoting door of a proxy: routes that lead to the proxy itself, sends that go on to a broker, producers' beats.

Almost every answer waits for somebody else, so a request becomes a task that writes its reply when it has one; replies
of one connection may come in any order, which Remoting clients expect. What this version does not serve (pulls, pops,
offsets, administration) is answered REQUEST_CODE_NOT_SUPPORTED.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from apogeemq.mesh.clock import Clock
from apogeemq.mesh.errors import (
    CallRefused,
    CallsOverloaded,
    DeadlineExceeded,
    MeshError,
    MessageTooLarge,
    PeerUnavailable,
)
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.errors import MasterAway, ProxyError
from apogeemq.remoting_codec.aio.access import AccessHook
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import ResponseCode, request_code_name, response_code_name
from apogeemq.remoting_codec.command import RemotingCommand, request_code_not_supported
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.framing import encode_frame, encode_response_frame
from apogeemq.remoting_codec.roles import NOT_MASTER
from apogeemq.remoting_codec.send_refusals import SEND_CODES, send_refusal_code

Answer: TypeAlias = tuple[int, bytes]
"""Response code, and the whole response frame."""

Function: TypeAlias = Callable[[Channel, RemotingCommand], Awaitable[Answer]]

Observe = Callable[[str, str, float], None]
"""Is told of each request that was answered: name of its code, name of the answer's, seconds."""

UNKNOWN_REQUEST = "unknown"
"""Name of all request codes that nothing serves: a peer may try any number, but not each with a line of its own."""

_CODE_OF_PROXY_ERROR: Mapping[int, ResponseCode] = {
    Code.TOPIC_NOT_FOUND: ResponseCode.TOPIC_NOT_EXIST,
    Code.TOO_MANY_REQUESTS: ResponseCode.SYSTEM_BUSY,
    Code.PROXY_TIMEOUT: ResponseCode.SERVICE_NOT_AVAILABLE,
    Code.NOT_IMPLEMENTED: ResponseCode.REQUEST_CODE_NOT_SUPPORTED,
    Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE: ResponseCode.MESSAGE_ILLEGAL,
}

_log = logging.getLogger(__name__)


class RemotingFace:
    """Gives each command to its function; `handle` is what a RemotingServer calls.

    functions               request code → function; it raises ProxyError, MeshError or CodecError to refuse
    requests_in_flight_max  requests that may wait for an answer, over all connections; SYSTEM_BUSY beyond
    """

    def __init__(
        self,
        functions: Mapping[int, Function],
        *,
        access: AccessHook,
        clock: Clock,
        observe: Observe,
        requests_in_flight_max: int,
    ) -> None:
        self._functions = dict(functions)
        self._access = access
        self._clock = clock
        self._observe = observe
        self._requests_in_flight_max = requests_in_flight_max
        self._running: set[asyncio.Task[None]] = set()

    def handle(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Serve one request: refuse at once, or answer later."""
        function = self._functions.get(command.code)
        if function is None:
            self._observe(UNKNOWN_REQUEST, response_code_name(ResponseCode.REQUEST_CODE_NOT_SUPPORTED), 0.0)
            return None if command.is_oneway else encode_frame(request_code_not_supported(command))
        refusal = self._access.check(channel, command)
        if refusal is not None:
            return self._refuse(command, refusal.code, refusal.remark)
        if len(self._running) >= self._requests_in_flight_max:
            remark = f"{self._requests_in_flight_max} requests wait for an answer at this proxy; try again"
            code: int = ResponseCode.SYSTEM_BUSY
            if command.code in SEND_CODES:
                code = send_refusal_code(code, command.version)
            return self._refuse(command, code, remark)
        task = asyncio.ensure_future(self._answer(function, channel, command))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return None

    async def stop(self, grace_s: float) -> None:
        """Let what runs be answered for so long, then give it up."""
        running = set(self._running)
        if running:
            _, late = await asyncio.wait(running, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _answer(self, function: Function, channel: Channel, command: RemotingCommand) -> None:
        begun = self._clock.monotonic()
        try:
            code, frame = await function(channel, command)
        except Exception as error:  # noqa: BLE001 — becomes the answer, and what nobody expected is logged
            code, remark = _refusal(command, error)
            if command.code in SEND_CODES:
                code = send_refusal_code(code, command.version)
            frame = _refusal_frame(command, code, remark)
        self._observe(request_code_name(command.code), response_code_name(code), self._clock.monotonic() - begun)
        if not command.is_oneway:
            channel.write(frame)

    def _refuse(self, command: RemotingCommand, code: int, remark: str) -> Reply:
        self._observe(request_code_name(command.code), response_code_name(code), 0.0)
        return None if command.is_oneway else _refusal_frame(command, code, remark)


def _refusal_frame(command: RemotingCommand, code: int, remark: str) -> bytes:
    # Ext fields are there even when empty: a Java client reads them without asking (trap 5).
    return encode_response_frame(command.opaque, code, {}, remark)


def _refusal(command: RemotingCommand, error: Exception) -> tuple[int, str]:
    """Response code and remark of what a function raised. Only what a client may try again gets such a code."""
    if isinstance(error, CallRefused):
        return error.code, error.text
    if isinstance(error, MasterAway | PeerUnavailable):
        return ResponseCode.SERVICE_NOT_AVAILABLE, f"{NOT_MASTER}{error}"
    if isinstance(error, ProxyError):
        return _CODE_OF_PROXY_ERROR.get(error.code, ResponseCode.SYSTEM_ERROR), error.message
    if isinstance(error, CodecError):
        return ResponseCode.SYSTEM_ERROR, f"{request_code_name(command.code)}: {error}"
    if isinstance(error, CallsOverloaded):
        return ResponseCode.SYSTEM_BUSY, str(error)
    if isinstance(error, MessageTooLarge):
        return ResponseCode.MESSAGE_ILLEGAL, str(error)
    if isinstance(error, DeadlineExceeded):
        return ResponseCode.SYSTEM_ERROR, f"{error}; whether it was done is not known"
    if isinstance(error, MeshError):
        return ResponseCode.SERVICE_NOT_AVAILABLE, str(error)
    _log.error("%s failed", request_code_name(command.code), exc_info=error)
    return ResponseCode.SYSTEM_ERROR, "the proxy failed to answer; its log says how"
