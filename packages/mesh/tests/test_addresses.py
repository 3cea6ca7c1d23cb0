"""Addresses that others are told."""

from __future__ import annotations

import ipaddress

import pytest
from apogeemq.mesh.addresses import advertised_address, is_loopback, outbound_host, split_address
from apogeemq.mesh.config import ListenerConfig


@pytest.mark.parametrize(
    ("listener", "expected"),
    [
        (ListenerConfig(host="10.0.0.7", port=0), "10.0.0.7:4711"),
        (ListenerConfig(host="0.0.0.0", advertised_host="mq.example"), "mq.example:4711"),
        (ListenerConfig(host="10.0.0.7", advertised_port=31_000), "10.0.0.7:31000"),
        (ListenerConfig(host="::1"), "[::1]:4711"),
    ],
)
def test_advertised_address(listener: ListenerConfig, expected: str) -> None:
    """What is set is advertised; else the bound host and the port that was really got."""
    assert advertised_address(listener, 4711) == expected


def test_wildcard_is_never_advertised() -> None:
    """A listener on all interfaces is advertised under one address that can be dialled."""
    host, port = split_address(advertised_address(ListenerConfig(host="0.0.0.0"), 4711))
    assert (host, port) == (outbound_host(), 4711)
    assert not ipaddress.ip_address(host).is_unspecified


def test_split_address() -> None:
    """Host and port come apart, IPv6 addresses without their brackets."""
    assert split_address("broker-a:10911") == ("broker-a", 10911)
    assert split_address("[fe80::1]:1") == ("fe80::1", 1)


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:x", "host:65536", "fe80::1:1", "host:-1"])
def test_what_is_no_address(address: str) -> None:
    """Anything else is refused and shown."""
    with pytest.raises(ValueError, match="is no address of the form host:port"):
        split_address(address)


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("mq", False)]
)
def test_is_loopback(host: str, expected: bool) -> None:
    """Loopback names and addresses are told from all others."""
    assert is_loopback(host) is expected
