"""Requests that wait for their reply, and what a reply looks like on its way.

    requester ──message: CORRELATION_ID, REPLY_TO_CLIENT, TTL──▶ topic ──▶ replier
    requester ◀──PUSH_REPLY_MESSAGE_TO_CLIENT (326)── broker ◀──SEND_REPLY_MESSAGE_V2 (325), the same three── replier

The reply comes over whichever broker of the requester's cluster the replier sent it to, so the requester must be known
at all of them. Source: reference remoting.md §9.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from apogeemq.client_api.errors import LimitReached, NotSupported
from apogeemq.client_api.message import ReceivedMessage, is_user_property
from apogeemq.client_remoting.messages import BODY_SIZE_BYTES_MAX, ReplyAddress, receipt_of
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.compression import decompress
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.client_call import ReplyMessageRequestHeader
from apogeemq.remoting_codec.message import (
    PROPERTY_CORRELATION_ID,
    PROPERTY_MSG_TYPE,
    PROPERTY_REPLY_TO_CLIENT,
    PROPERTY_TTL,
    PROPERTY_WAIT,
    decode_properties,
)

logger = logging.getLogger(__name__)

REQUESTS_MAX: Final = 10_000
"""Requests of one producer that may wait for their reply at a time."""
_REPLY_TOPIC_SUFFIX: Final = "_REPLY_TOPIC"
_REPLY: Final = "reply"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyMessage:
    """The reply to a request. `properties` are the replier's own; `born_timestamp_ms` is its clock, since 1970."""

    body: bytes
    properties: Mapping[str, str]
    born_timestamp_ms: int
    born_host: str


class OpenRequests:
    """The requests of one producer that wait."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._open: dict[str, asyncio.Future[ReplyMessage]] = {}

    def __len__(self) -> int:
        return len(self._open)

    @contextlib.contextmanager
    def opened(self, timeout_s: float) -> Iterator[tuple[str, "asyncio.Future[ReplyMessage]"]]:
        """A place for a new request: its further properties as text, and its reply, when that comes.

        Raises LimitReached where too many wait.
        """
        if len(self._open) >= REQUESTS_MAX:
            raise LimitReached(
                f"{len(self._open)} requests wait for their replies, the limit is {REQUESTS_MAX}",
                hint="Wait for some of them, or use a second producer.",
            )
        correlation_id = str(uuid.uuid4())
        reply: asyncio.Future[ReplyMessage] = asyncio.get_running_loop().create_future()
        self._open[correlation_id] = reply
        ttl_ms = round(timeout_s * 1000)
        try:
            yield _encode(ReplyAddress(correlation_id, self._client_id, str(ttl_ms), "")), reply
        finally:
            del self._open[correlation_id]

    def take_reply(self, _channel: Channel, command: RemotingCommand) -> Reply:
        """Answer PUSH_REPLY_MESSAGE_TO_CLIENT (326). A reply that nobody waits for any more is taken and dropped."""
        try:
            header = ReplyMessageRequestHeader.decode(command.ext_fields)
            properties = decode_properties((header.properties or "").encode())
            body = decompress(command.body, header.sys_flag, BODY_SIZE_BYTES_MAX)
        except CodecError as error:
            logger.warning("a reply cannot be read: %s", error)
            return encode_response_frame(
                command.opaque, ResponseCode.SYSTEM_ERROR, {}, f"the reply is damaged: {error}"
            )
        reply = self._open.get(properties.get(PROPERTY_CORRELATION_ID, ""))
        if reply is None or reply.done():
            logger.info("a reply from %s came too late, or twice", header.born_host)
        else:
            reply.set_result(
                ReplyMessage(
                    body=body,
                    properties={key: value for key, value in properties.items() if is_user_property(key)},
                    born_timestamp_ms=header.born_timestamp,
                    born_host=header.born_host.removeprefix("/"),
                )
            )
        return encode_response_frame(command.opaque, ResponseCode.SUCCESS, {})

    def give_up(self, error: Exception) -> None:
        """The client closes: nothing waits any more."""
        for reply in self._open.values():
            if not reply.done():
                reply.set_exception(error)


def reply_topic(cluster: str) -> str:
    """The topic by which replies go through a cluster."""
    return cluster + _REPLY_TOPIC_SUFFIX


def reply_address(request: ReceivedMessage) -> ReplyAddress:
    """Where the reply to a message goes. Raises NotSupported for one that wants none."""
    address = receipt_of(request).reply_address
    if address is None or not address.cluster:
        raise NotSupported(
            f"message {request.message_id} is no request: nobody waits for a reply to it",
            hint="Requests are sent with `Producer.request`, or by a Java producer's `request`.",
        )
    return address


def reply_properties(address: ReplyAddress) -> str:
    """The properties of a reply, besides its unique key."""
    return f"{_encode(address)}{PROPERTY_MSG_TYPE}\x01{_REPLY}\x02{PROPERTY_WAIT}\x01true\x02"


def _encode(address: ReplyAddress) -> str:
    return (
        f"{PROPERTY_CORRELATION_ID}\x01{address.correlation_id}\x02"
        f"{PROPERTY_REPLY_TO_CLIENT}\x01{address.client_id}\x02"
        f"{PROPERTY_TTL}\x01{address.ttl_ms}\x02"
    )
