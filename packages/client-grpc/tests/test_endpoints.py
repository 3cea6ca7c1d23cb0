"""Addresses as users write them, as the API carries them, and as gRPC dials them."""

import pytest
from apogeemq.client_grpc.core.endpoints import Endpoints
from apogeemq.proto.v2 import definition_pb2


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:8081", "ipv4:127.0.0.1:8081"),
        ("10.0.0.1", "ipv4:10.0.0.1:8081"),
        ("10.0.0.1:1; 10.0.0.2:2 ;", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:9000", "ipv6:[::1]:9000"),
        ("[fe80::1];[::2]:7", "ipv6:[fe80::1]:8081,[::2]:7"),
        ("mq.example:443", "dns:///mq.example:443"),
        ("localhost", "dns:///localhost:8081"),
    ],
)
def test_an_address_becomes_what_grpc_dials(text: str, target: str) -> None:
    """Without a port it is 8081; several IP addresses are one access point."""
    assert Endpoints.parse(text).target == target


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no address"),
        (" ; ", "no address"),
        ("a.example;b.example", "several host names"),
        ("a.example;10.0.0.1", "mixes"),
        ("10.0.0.1;[::1]", "mixes"),
        ("http://a.example:8081", "without a scheme"),
        ("a.example:", None),
        ("a.example:0", "no valid port"),
        ("a.example:65536", "no valid port"),
        ("a.example:x", "no valid port"),
        ("[::1", "write IPv6"),
        ("[::1]8081", "write IPv6"),
        ("a b:1", "no address"),
        (":1", "no host"),
    ],
)
def test_a_bad_address_is_refused_with_a_reason(text: str, complaint: str | None) -> None:
    """What can't be dialled shows where it is written; only an empty port is taken for none."""
    if complaint is None:
        assert Endpoints.parse(text).addresses == (("a.example", 8081),)
        return
    with pytest.raises(ValueError, match=complaint):
        Endpoints.parse(text)


@pytest.mark.parametrize("text", ["10.0.0.1:1;10.0.0.2:2", "[::1]:9000", "mq.example:443"])
def test_endpoints_come_back_from_the_api_as_they_went(text: str) -> None:
    """A proxy echoes them, and they are equal to the ones that the client asked with."""
    endpoints = Endpoints.parse(text)
    wire = definition_pb2.Endpoints.FromString(endpoints.to_proto().SerializeToString())
    assert Endpoints.of(wire) == endpoints
    assert str(endpoints) == text
