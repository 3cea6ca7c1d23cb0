"""TLS material for mesh listeners and channels, and SSL contexts for the other listeners."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from apogeemq.mesh.config import TlsConfig
from apogeemq.mesh.errors import ConfigError


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


def server_tls(config: TlsConfig) -> ServerTls | None:
    """Read a mesh listener's material; None when TLS is disabled. Raises ConfigError.

    One gRPC port speaks TLS or plain text, never both: mode permissive is refused.
    """
    if config.mode == "permissive":
        raise ConfigError("tls.mode", "is permissive; a mesh listener takes disabled | enforcing")
    if config.mode == "disabled":
        return None
    return ServerTls(
        _read("tls.cert_path", config.cert_path),
        _read("tls.key_path", config.key_path),
        None if config.client_ca_path is None else _read("tls.client_ca_path", config.client_ca_path),
    )


def server_ssl_context(config: TlsConfig) -> ssl.SSLContext | None:
    """Make the context of a Remoting or HTTP listener; None when TLS is disabled. Raises ConfigError.

    TLS 1.2 or newer. With a client CA, a client without a certificate it signed is refused, in permissive mode too.
    """
    if config.mode == "disabled":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.cert_path or "", config.key_path)
    except (OSError, ssl.SSLError) as error:
        pair = f"are {config.cert_path} and {config.key_path}, which are no certificate and its key: {error}"
        raise ConfigError("tls.cert_path and tls.key_path", pair) from error
    if config.client_ca_path is not None:
        try:
            context.load_verify_locations(config.client_ca_path)
        except (OSError, ssl.SSLError) as error:
            problem = f"is {config.client_ca_path}, which holds no certificate: {error}"
            raise ConfigError("tls.client_ca_path", problem) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _read(key: str, path: str | None) -> bytes:
    if path is None:
        raise ConfigError(key, "must be set when TLS is on")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(key, f"is {path}, which cannot be read: {error.strerror}") from error
