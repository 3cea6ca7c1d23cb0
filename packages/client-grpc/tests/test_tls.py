"""TLS between client and proxy."""

import ssl

import grpc
import pytest
import trustme
from apogeemq.client_api.errors import StartFailed
from apogeemq.client_grpc import Message, Producer, Tls, session
from scripted_proxy import ScriptedProxy


def server_credentials(ca: trustme.CA, *, ask_for_certificate: bool) -> grpc.ServerCredentials:
    certificate = ca.issue_cert("127.0.0.1")
    return grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), b"".join(pem.bytes() for pem in certificate.cert_chain_pems))],
        root_certificates=ca.cert_pem.bytes() if ask_for_certificate else None,
        require_client_auth=ask_for_certificate,
    )


@pytest.mark.parametrize("mutual", [False, True])
async def test_a_message_goes_through_tls(mutual: bool) -> None:
    """With the server's certificate checked, and with the client's where the server asks for one."""
    ca = trustme.CA()
    own = ca.issue_cert("client.example")
    tls = Tls(
        ca=ca.cert_pem.bytes(),
        certificate=own.cert_chain_pems[0].bytes() if mutual else None,
        private_key=own.private_key_pem.bytes() if mutual else None,
    )
    async with (
        ScriptedProxy(credentials=server_credentials(ca, ask_for_certificate=mutual)) as proxy,
        Producer(proxy.address, tls=tls) as producer,
    ):
        await producer.send(Message("T", b"body"))
        assert len(proxy.held) == 1


@pytest.mark.parametrize("tls", [None, Tls(ca=trustme.CA().cert_pem.bytes())], ids=["plain", "another CA"])
async def test_a_client_that_does_not_fit_fails_to_start(monkeypatch: pytest.MonkeyPatch, tls: Tls | None) -> None:
    """Plain text to a TLS listener, or a certificate that nobody vouches for."""
    monkeypatch.setattr(session, "SETTINGS_TIMEOUT_S", 0.3)
    credentials = server_credentials(trustme.CA(), ask_for_certificate=False)
    async with ScriptedProxy(credentials=credentials) as proxy:
        with pytest.raises(StartFailed, match="sent no settings"):
            async with Producer(proxy.address, tls=tls):
                pass


def test_what_grpc_cannot_use_is_refused() -> None:
    """An SSLContext, and half of a key pair."""
    with pytest.raises(TypeError, match="PEM"):
        Tls(ca=ssl.create_default_context())  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(ValueError, match="belong together"):
        Tls(certificate=b"pem")
