"""TLS of mesh listeners and of the others, with a certificate authority made for the test."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import trustme
from apogeemq.mesh.config import TlsConfig
from apogeemq.mesh.errors import ConfigError, PeerUnavailable
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.network import CallContext, Listening, MeshChannel, Unary, UnaryHandler
from apogeemq.mesh.tls import ClientTls, ServerTls, server_ssl_context, server_tls
from google.protobuf.wrappers_pb2 import StringValue

GREET = Unary("/apogeemq.test.Greeter/Greet", StringValue, StringValue)
Serve: TypeAlias = Callable[[ServerTls | None], Awaitable[str]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    """An authority that nobody trusts."""
    return trustme.CA()


@pytest.fixture
def config(authority: trustme.CA, tmp_path: Path) -> TlsConfig:
    """The settings of a listener for 127.0.0.1."""
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return TlsConfig(mode="enforcing", cert_path=str(tmp_path / "cert.pem"), key_path=str(tmp_path / "key.pem"))


@pytest.fixture
def mutual_config(config: TlsConfig, tmp_path: Path) -> TlsConfig:
    """The same, demanding client certificates."""
    return TlsConfig(
        mode="enforcing",
        cert_path=config.cert_path,
        key_path=config.key_path,
        client_ca_path=str(tmp_path / "ca.pem"),
    )


def client_tls(trusted: trustme.CA, issuer: trustme.CA | None = None) -> ClientTls:
    """What a client has: whom it trusts, and perhaps a certificate of its own."""
    ca = trusted.cert_pem.bytes()
    if issuer is None:
        return ClientTls(ca=ca)
    own = issuer.issue_cert("broker-a")
    chain = b"".join(pem.bytes() for pem in own.cert_chain_pems)
    return ClientTls(ca=ca, certificate_chain=chain, private_key=own.private_key_pem.bytes())


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start gRPC servers that greet, and stop them after the test; gives their targets."""
    listenings: list[Listening] = []

    async def greet(request: StringValue, context: CallContext) -> StringValue:
        return StringValue(value=f"hello {request.value}")

    async def serve(tls: ServerTls | None) -> str:
        listening = await GrpcNetwork().serve("127.0.0.1", 0, [UnaryHandler(GREET, greet)], tls=tls)
        listenings.append(listening)
        return f"127.0.0.1:{listening.port}"

    yield serve
    for listening in listenings:
        await listening.stop(0)


async def greeting(target: str, tls: ClientTls | None) -> str:
    channel: MeshChannel = GrpcNetwork().channel(target, tls=tls)
    try:
        return (await channel.unary(GREET, StringValue(value="ann"), timeout_s=30)).value
    finally:
        await channel.close()


async def test_grpc_over_tls(serve: Serve, config: TlsConfig, authority: trustme.CA) -> None:
    """A client that trusts the authority calls over TLS."""
    target = await serve(server_tls(config))
    assert await greeting(target, client_tls(authority)) == "hello ann"


async def test_grpc_server_name(serve: Serve, authority: trustme.CA) -> None:
    """A certificate for another name is accepted under that name only."""
    certificate = authority.issue_cert("broker.example")
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    target = await serve(ServerTls(chain, certificate.private_key_pem.bytes()))
    ca = authority.cert_pem.bytes()
    assert await greeting(target, ClientTls(ca=ca, server_name="broker.example")) == "hello ann"
    with pytest.raises(PeerUnavailable):
        await greeting(target, ClientTls(ca=ca))


async def test_grpc_refuses_strangers(
    serve: Serve, config: TlsConfig, authority: trustme.CA, stranger: trustme.CA
) -> None:
    """A client that does not trust the server's authority, or speaks no TLS, does not connect."""
    target = await serve(server_tls(config))
    with pytest.raises(PeerUnavailable):
        await greeting(target, client_tls(stranger))
    with pytest.raises(PeerUnavailable):
        await greeting(target, None)
    plain_target = await serve(None)
    with pytest.raises(PeerUnavailable):
        await greeting(plain_target, client_tls(authority))


async def test_grpc_mutual_tls(
    serve: Serve, mutual_config: TlsConfig, authority: trustme.CA, stranger: trustme.CA
) -> None:
    """With a client authority only clients with a certificate from it get in."""
    target = await serve(server_tls(mutual_config))
    assert await greeting(target, client_tls(authority, authority)) == "hello ann"
    for tls in (client_tls(authority), client_tls(authority, stranger)):
        with pytest.raises(PeerUnavailable):
            await greeting(target, tls)


def test_disabled_tls_is_none() -> None:
    """A listener without TLS has no material and no context."""
    assert server_tls(TlsConfig()) is None
    assert server_ssl_context(TlsConfig()) is None


def test_mesh_listener_is_never_permissive(config: TlsConfig) -> None:
    """A gRPC port can't speak both; the setting that asks for it is refused."""
    permissive = TlsConfig(mode="permissive", cert_path=config.cert_path, key_path=config.key_path)
    with pytest.raises(ConfigError, match=r"tls.mode is permissive; a mesh listener takes disabled \| enforcing"):
        server_tls(permissive)


def test_private_keys_are_not_shown(config: TlsConfig, authority: trustme.CA) -> None:
    """The text form of TLS material, which may reach a log, has no key in it."""
    for material in (server_tls(config), client_tls(authority, authority)):
        assert "PRIVATE KEY" not in repr(material)


async def test_ssl_context(config: TlsConfig, mutual_config: TlsConfig, authority: trustme.CA) -> None:
    """The context of a Remoting or HTTP listener shows the certificate, and demands one where it should."""
    plain_client, certified_client = ssl.create_default_context(), ssl.create_default_context()
    for client in (plain_client, certified_client):
        authority.configure_trust(client)
    authority.issue_cert("client").configure_cert(certified_client)
    assert await _exchange(config, plain_client) == b"hello"
    assert await _exchange(mutual_config, certified_client) == b"hello"
    assert await _exchange(mutual_config, plain_client) == b""


async def _exchange(config: TlsConfig, client: ssl.SSLContext) -> bytes:
    """Connect once and read what the server says; nothing when it refuses, which TLS 1.3 tells after the handshake."""

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0, ssl=server_ssl_context(config))
    port = server.sockets[0].getsockname()[1]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        data = await reader.read()
        writer.close()
    except (ssl.SSLError, ConnectionError):
        return b""
    else:
        return data
    finally:
        server.close()


def test_context_refuses_old_protocols(config: TlsConfig) -> None:
    """TLS 1.1 and older are not spoken."""
    context = server_ssl_context(config)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_unusable_files_are_named(config: TlsConfig, tmp_path: Path) -> None:
    """A key that is none, a client CA without certificate and a missing file are each named by setting and path."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"garbage\.pem, which are no certificate and its key"):
        server_ssl_context(TlsConfig(mode="permissive", cert_path=config.cert_path, key_path=str(garbage)))
    wrong_ca = TlsConfig(
        mode="enforcing", cert_path=config.cert_path, key_path=config.key_path, client_ca_path=str(garbage)
    )
    with pytest.raises(ConfigError, match=r"tls.client_ca_path is .*garbage\.pem, which holds no certificate"):
        server_ssl_context(wrong_ca)
    missing = TlsConfig(mode="enforcing", cert_path=config.cert_path, key_path=str(tmp_path / "absent.pem"))
    with pytest.raises(ConfigError, match=r"tls.key_path is .*absent\.pem, which cannot be read"):
        server_tls(missing)
