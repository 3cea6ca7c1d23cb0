"""TLS at every kind of listener of a real process, with certificates of an authority made for the test."""

import pathlib
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
import trustme
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from tests.e2e.http_client import get
from tests.e2e.process import Ready, start_all_in_one
from tests.e2e.wire_client import TIMEOUT_S, WireClient, pull_all, send_fields

TOPIC, GROUP = "Secret", "G_secret"
UNKNOWN_CODE = 9999


@dataclass(frozen=True)
class Site:
    """A server where: broker.remoting is permissive; broker.vip demands TLS and a client's certificate;
    namesrv.remoting, broker.http and broker.mesh demand TLS.

    `tls` trusts it; `tls_with_certificate` shows one as well.
    """

    ready: Ready
    authority_pem: bytes
    tls: ssl.SSLContext
    tls_with_certificate: ssl.SSLContext

    def connect(self, listener: str, tls: ssl.SSLContext | None = None) -> WireClient:
        return WireClient(self.ready.listeners[listener], tls=tls)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory: pathlib.Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = {name: directory / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    certificate.private_key_pem.write_to_path(str(paths["key"]))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(paths["cert"]), append=True)

    settings = {"broker.listeners.vip.enabled": "true", "broker.listeners.vip.tls.client_ca_path": str(paths["ca"])}
    modes = {
        "broker.listeners.remoting": "permissive",
        "broker.listeners.vip": "enforcing",
        "broker.listeners.http": "enforcing",
        "broker.listeners.mesh": "enforcing",
        "namesrv.listeners.remoting": "enforcing",
    }
    for listener, mode in modes.items():
        settings[f"{listener}.tls.mode"] = mode
        settings[f"{listener}.tls.cert_path"] = str(paths["cert"])
        settings[f"{listener}.tls.key_path"] = str(paths["key"])
    tls, tls_with_certificate = ssl.create_default_context(), ssl.create_default_context()
    for context in (tls, tls_with_certificate):
        authority.configure_trust(context)
    authority.issue_cert("a-client").configure_cert(tls_with_certificate)
    with start_all_in_one(directory / "data", log_directory=directory, settings=settings) as process:
        yield Site(process.wait_ready(), authority.cert_pem.bytes(), tls, tls_with_certificate)
        process.stop()


def test_plain_and_tls_share_one_port(site: Site) -> None:
    """Permissive: each kind of client sends and pulls, and gets what the other has sent."""
    bodies = [b"plain", b"x" * 300_000]
    with site.connect("broker.remoting") as plain, site.connect("broker.remoting", site.tls) as secure:
        for client, body in zip((plain, secure), bodies, strict=True):
            reply = client.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), body)
            assert reply.code == ResponseCode.SUCCESS
        for client in (plain, secure):
            assert [record.body for record in pull_all(client, TOPIC, GROUP)] == bodies
        (_, record) = pull_all(plain, TOPIC, GROUP)
        host, port = secure.socket.getsockname()
        assert record.born_host == socket.inet_aton(host) + struct.pack(">i", port)


def test_the_server_shows_its_certificate(site: Site) -> None:
    """A client that does not trust its authority ends the handshake; the server goes on."""
    with pytest.raises(ssl.SSLCertVerificationError):
        site.connect("broker.remoting", ssl.create_default_context())
    with site.connect("broker.remoting", site.tls) as secure:
        assert secure.request(UNKNOWN_CODE).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED


@pytest.mark.parametrize("listener", ["namesrv.remoting", "broker.vip"])
def test_enforcing_closes_plain_connections(site: Site, listener: str) -> None:
    """The first byte tells; whoever speaks TLS beside it does not notice."""
    with site.connect(listener, site.tls_with_certificate) as secure, site.connect(listener) as plain:
        assert secure.request(UNKNOWN_CODE).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
        plain.send(UNKNOWN_CODE)
        assert plain.is_closed_by_peer()
        assert secure.request(UNKNOWN_CODE).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED


def test_a_client_needs_a_certificate_where_one_is_demanded(site: Site) -> None:
    """With a client CA: none, or another authority's, and the connection ends before the first answer."""
    stranger = ssl.create_default_context()
    stranger.load_verify_locations(cadata=site.authority_pem.decode())
    trustme.CA().issue_cert("a-stranger").configure_cert(stranger)
    for tls in (site.tls, stranger):
        with pytest.raises((ssl.SSLError, ConnectionError)):  # noqa: SIM117 — the handshake or the request, by timing
            with site.connect("broker.vip", tls) as client:
                client.request(UNKNOWN_CODE)
    with site.connect("broker.vip", site.tls_with_certificate) as client:
        assert client.request(RequestCode.SEND_MESSAGE_V2, send_fields("Vip"), b"x").code == ResponseCode.SUCCESS


def test_a_broken_handshake_costs_nobody_else_anything(site: Site) -> None:
    """What begins like TLS and is none is closed."""
    with site.connect("broker.remoting", site.tls) as neighbour, site.connect("broker.remoting") as broken:
        broken.socket.sendall(b"\x16\x03\x01\x00\x05hello")
        assert broken.is_closed_by_peer()
        assert neighbour.request(UNKNOWN_CODE).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED


def test_probes_over_tls(site: Site) -> None:
    """The http listener takes the same settings."""
    status, body = get(site.ready.listeners["broker.http"], "/healthz", tls=site.tls)
    assert (status, body) == (200, "alive\n")


def test_mesh_over_tls(site: Site) -> None:
    """A gRPC client that trusts the authority gets its answer, one that speaks plain text does not."""
    target = site.ready.listeners["broker.mesh"]
    request = health_pb2.HealthCheckRequest()
    with grpc.secure_channel(target, grpc.ssl_channel_credentials(site.authority_pem)) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as refused:
        health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
