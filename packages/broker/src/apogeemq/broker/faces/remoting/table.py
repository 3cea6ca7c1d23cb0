"""Request code → function, and everything that is the same for all requests.

Around each function: the access hook, counting, and errors that become replies. A function gets the channel and the
command and gives the reply's buffers, or None when the reply comes later (or never: oneway). Whatever it raises becomes
one reply (faces/error_codes.py); other requests of the same connection are not touched.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping

from apogeemq.broker.errors import BrokerError, RequestNotSupported
from apogeemq.broker.faces.error_codes import error_code, refusal_limit, refusal_remark
from apogeemq.remoting_codec.aio.access import AccessHook
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import request_code_name
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.send_refusals import SEND_CODES, send_refusal_code
from apogeemq.store.errors import StoreError

log = logging.getLogger(__name__)

Handler = Callable[[Channel, RemotingCommand], Reply]


UNKNOWN_REQUEST_CODE = -1
"""Under this all codes that nothing serves are counted: a peer may try any number."""


class RequestStats:
    """Counts by (request code, response code), and refusals by limit; plain ints, read at scrape time."""

    __slots__ = ("counts", "refused")

    def __init__(self) -> None:
        self.counts: dict[tuple[int, int], int] = {}
        self.refused: Counter[str] = Counter()

    def count(self, request_code: int, response_code: int) -> None:
        """Count one answer."""
        key = (request_code, response_code)
        self.counts[key] = self.counts.get(key, 0) + 1


class RemotingFace:
    """Gives each command to its function.

    Args:
        handlers: request code → function.
        access: asked before every request.
        stats: counts what was answered.
    """

    def __init__(self, handlers: Mapping[int, Handler], access: AccessHook, stats: RequestStats) -> None:
        self._handlers = dict(handlers)
        self._access = access
        self._stats = stats

    @property
    def codes(self) -> frozenset[int]:
        """The request codes that are served."""
        return frozenset(self._handlers)

    def __call__(self, channel: Channel, command: RemotingCommand) -> Reply:
        """Serve one request."""
        try:
            handler = self._handlers.get(command.code)
            if handler is None:
                raise RequestNotSupported(f" request type {command.code} not supported")
            refusal = self._access.check(channel, command)
            if refusal is not None:
                return self._reply_refusal(command, refusal.code, refusal.remark)
            return handler(channel, command)
        except (BrokerError, CodecError, StoreError) as error:
            return self.refuse(command, error)

    def refuse(self, command: RemotingCommand, error: Exception) -> Reply:
        """The reply to a request that failed; None for a oneway one."""
        remark = refusal_remark(error)
        if isinstance(error, CodecError):
            remark = f"{request_code_name(command.code)}: {remark}"
        limit = refusal_limit(error)
        if limit is not None:
            self._stats.refused[limit] += 1
        code: int = error_code(error)
        if command.code in SEND_CODES:
            code = send_refusal_code(code, command.version)
        return self._reply_refusal(command, code, remark)

    def _reply_refusal(self, command: RemotingCommand, code: int, remark: str) -> Reply:
        self._stats.count(command.code if command.code in self._handlers else UNKNOWN_REQUEST_CODE, code)
        if command.is_oneway:
            log.info("oneway request refused: %s: %s", command, remark)
            return None
        # Ext fields are there even when empty: a Java client reads them without asking (trap 5).
        return encode_response_frame(command.opaque, code, {}, remark)
