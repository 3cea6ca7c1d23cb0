"""TLS material for mesh listeners and channels, and SSL contexts for the other listeners."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a listener shows and asks for, as PEM bytes. With `client_ca` set, clients must show a certificate."""

    certificate_chain: bytes
    private_key: bytes = field(repr=False)
    client_ca: bytes | None = None


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What a channel trusts and shows. All values are PEM bytes.

    Without `ca` the system's roots are trusted. `certificate_chain` and `private_key` go together (mTLS).
    `server_name` is expected in the server's certificate instead of the dialled host.
    """

    ca: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None
