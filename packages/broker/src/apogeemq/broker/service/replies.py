"""Replies of request-reply: who is waiting for one, and what it is told. Source: reference remoting.md §9.

    requester ──message: CORRELATION_ID, REPLY_TO_CLIENT, TTL──▶ topic ──▶ replier
    requester ◀──PUSH_REPLY_MESSAGE_TO_CLIENT── broker ◀──SEND_REPLY_MESSAGE, the same properties── replier

The requester is a producer with a connection to this broker. A copy of each reply is kept in the topic that the replier
named (<cluster>_REPLY_TOPIC), whether the requester was reached or not: to be looked up, not to be delivered. So a copy
that could not be stored does not stop the reply, and nobody waits for it to be on disk.
"""

import logging
from collections.abc import Callable, Hashable
from ipaddress import ip_address
from typing import Generic, TypeVar

import msgspec
from apogeemq.broker.core.clients import ClientTable, Member
from apogeemq.broker.core.properties import join_properties, read_properties
from apogeemq.broker.errors import RequestFailed
from apogeemq.broker.service.send import SendService, Sent
from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.headers.client_call import ReplyMessageRequestHeader
from apogeemq.remoting_codec.headers.send import SendMessageRequestHeader, SendMessageRequestHeaderV2
from apogeemq.store.errors import StoreError

log = logging.getLogger(__name__)

C = TypeVar("C", bound=Hashable)

ReplyHeader = SendMessageRequestHeader | SendMessageRequestHeaderV2


class ReplyService(Generic[C]):
    """Keeps replies and finds out whom they are for.

    Args:
        send: stores the copies.
        clients: knows the requesters.
        store_host: packed address (4 or 16 bytes) and port (int32) of this broker.
        now_ms: wall clock.
        is_kept: whether copies are stored (storeReplyMessageEnable).
    """

    def __init__(
        self,
        *,
        send: SendService,
        clients: ClientTable[C],
        store_host: bytes,
        now_ms: Callable[[], int],
        is_kept: bool = True,
    ) -> None:
        self._send = send
        self._is_kept = is_kept
        self._clients = clients
        self._store_host = _host_text(store_host)
        self._now_ms = now_ms

    def keep(self, header: ReplyHeader, body: bytes, born_host: bytes, client_version: int) -> Sent | None:
        """Store a copy; None when none is wanted, or when the store did not take it, of which the log tells.

        Raises BrokerError as any send does: then the reply must not go on either.
        """
        request = msgspec.structs.replace(header, batch=False)  # the body of a reply is one message's, always
        if not self._is_kept:
            self._send.check(request, body)
            return None
        try:
            return self._send.send(request, body, born_host, client_version)
        except StoreError as error:
            log.warning("a reply to topic %s goes on without a stored copy: %s", header.topic, error)
            return None

    def requester(self, header: ReplyHeader) -> Member[C]:
        """Who asked. Raises RequestFailed (1), in Apache's words, when the reply does not say or nobody is there."""
        client_id = read_properties(header.properties or "").get(m.PROPERTY_REPLY_TO_CLIENT)
        if client_id is None:
            raise RequestFailed(f"reply message properties[{m.PROPERTY_REPLY_TO_CLIENT}] is null")
        member = self._clients.producer(client_id)
        if member is None:
            raise RequestFailed(f"push reply message fail, channel of <{client_id}> not found.")
        return member

    def push_header(self, header: ReplyHeader, replier: str) -> ReplyMessageRequestHeader:
        """What the requester gets beside the body. `replier` is "ip:port"."""
        now_ms = self._now_ms()
        properties = read_properties(header.properties or "") | {m.PROPERTY_PUSH_REPLY_TIME: str(now_ms)}
        return ReplyMessageRequestHeader(
            producer_group=header.producer_group,
            topic=header.topic,
            default_topic=header.default_topic,
            default_topic_queue_nums=header.default_topic_queue_nums,
            queue_id=header.queue_id,
            sys_flag=header.sys_flag,
            born_timestamp=header.born_timestamp,
            flag=header.flag,
            properties=join_properties(properties),
            reconsume_times=header.reconsume_times,
            unit_mode=bool(header.unit_mode),
            born_host=f"/{replier}",
            store_host=self._store_host,
            store_timestamp=now_ms,
        )


def _host_text(packed: bytes) -> str:
    """An address as Java writes it: a slash before it."""
    address = ip_address(packed[:-4])
    return f"/{f'[{address}]' if address.version == 6 else address}:{int.from_bytes(packed[-4:])}"
