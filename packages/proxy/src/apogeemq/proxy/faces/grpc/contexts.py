"""Who asks: a call's metadata and peer as a RequestContext."""

from __future__ import annotations

import functools

from apogeemq.mesh.addresses import split_address
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.faces.grpc.port import DoorCall
from apogeemq.remoting_codec.errors import LocalProtocolError
from apogeemq.remoting_codec.record import encode_host

CLIENT_ID_SIZE_MAX = 255
"""Characters of a client id; brokers take no more. Official clients make theirs of host, process and clock: some 60."""

LANGUAGE_SIZE_MAX = 64
"""Characters of a language's name. It is kept for as long as the client is known."""

PEERS_KEPT = 4_096
"""Connections whose packed address is kept."""

_UNKNOWN_HOST = encode_host("127.0.0.1", 0)


def request_context(call: DoorCall, now: float, default_timeout_s: float) -> RequestContext:
    """Read the metadata; `now` is the door's clock. Raises ProxyError CLIENT_ID_REQUIRED, BAD_REQUEST."""
    metadata = call.metadata
    client_id = metadata.get("x-mq-client-id", "").strip()
    if not client_id:
        raise ProxyError(
            Code.CLIENT_ID_REQUIRED, "metadata x-mq-client-id is missing or blank: set it to the client's id"
        )
    if len(client_id) > CLIENT_ID_SIZE_MAX:
        raise ProxyError(
            Code.BAD_REQUEST,
            f"metadata x-mq-client-id has {len(client_id)} characters; at most {CLIENT_ID_SIZE_MAX} are allowed",
        )
    language = metadata.get("x-mq-language", "")
    if len(language) > LANGUAGE_SIZE_MAX:
        raise ProxyError(
            Code.BAD_REQUEST,
            f"metadata x-mq-language has {len(language)} characters; at most {LANGUAGE_SIZE_MAX} are allowed",
        )
    return RequestContext(
        client_id=client_id,
        language=language,
        client_version=metadata.get("x-mq-client-version", ""),
        namespace=metadata.get("x-mq-namespace", ""),
        peer=call.peer,
        peer_host=_packed(call.peer),
        deadline=now + default_timeout_s if call.deadline is None else call.deadline,
        request_id=metadata.get("x-mq-request-id", ""),
    )


@functools.lru_cache(maxsize=PEERS_KEPT)
def _packed(peer: str) -> bytes:
    """The peer as records carry a host; a client on a unix socket is on this machine.

    Kept, since a connection makes many calls and parsing an address is a tenth of what a send costs here.
    """
    try:
        return encode_host(*split_address(peer))
    except (ValueError, LocalProtocolError):
        return _UNKNOWN_HOST
