"""Who asks: what a face knows about a request besides its message."""

from __future__ import annotations

import msgspec


class RequestContext(msgspec.Struct, frozen=True, gc=False):
    """One request's circumstances.

    client_id       x-mq-client-id, never blank
    language        x-mq-language: RocketMQ's LanguageCode name (JAVA, CPP, GO, PYTHON, …); empty when not given
    client_version  x-mq-client-version; empty when not given
    namespace       x-mq-namespace; empty when not given
    peer            where the client connected from, "ip:port" or "[ip]:port", for logs
    peer_host       the same packed: 4 or 16 bytes of address, then 4 of port
    deadline        when the client stops waiting; seconds of the proxy's monotonic clock
    request_id      x-mq-request-id, for logs; empty when not given
    """

    client_id: str
    language: str
    client_version: str
    namespace: str
    peer: str
    peer_host: bytes
    deadline: float
    request_id: str
