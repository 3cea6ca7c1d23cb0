"""Where a proxy is: addresses as the user writes them, as the API carries them, and as gRPC dials them."""

import dataclasses
import ipaddress
from typing import Self

from apogeemq.proto.v2 import definition_pb2

DEFAULT_PORT = 8081

_IPV4 = definition_pb2.AddressScheme.IPv4
_IPV6 = definition_pb2.AddressScheme.IPv6
_DOMAIN_NAME = definition_pb2.AddressScheme.DOMAIN_NAME


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoints:
    """One access point: several IP addresses of one family, of which one is used at a time, or one host name.

    One connection and one Telemetry stream belong to each. The proxy echoes in routes what the client asked with, so
    equal endpoints are the same place.
    """

    scheme: definition_pb2.AddressScheme
    addresses: tuple[tuple[str, int], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "host:port", several separated by ";"; without a port it is 8081. Raises ValueError.

        IPv6 addresses stand in brackets: "[::1]:8081".
        """
        addresses = tuple(_address(part.strip()) for part in text.split(";") if part.strip())
        if not addresses:
            raise ValueError(f"no address in {text!r}: give the proxy's as 'host:port', several separated by ';'")
        schemes = {_scheme(host) for host, _ in addresses}
        if len(schemes) > 1:
            raise ValueError(f"{text!r} mixes host names, IPv4 and IPv6 addresses: give one kind only")
        scheme = schemes.pop()
        if scheme == _DOMAIN_NAME and len(addresses) > 1:
            raise ValueError(f"{text!r} has several host names: give one that resolves to all, or IP addresses")
        return cls(scheme, addresses)

    @classmethod
    def of(cls, endpoints: definition_pb2.Endpoints) -> Self:
        """From the API's message; what a server sends is taken as it is."""
        return cls(endpoints.scheme, tuple((address.host, address.port) for address in endpoints.addresses))

    def to_proto(self) -> definition_pb2.Endpoints:
        """As the API's message."""
        return definition_pb2.Endpoints(
            scheme=self.scheme,
            addresses=[definition_pb2.Address(host=host, port=port) for host, port in self.addresses],
        )

    @property
    def target(self) -> str:
        """As gRPC dials it: https://github.com/grpc/grpc/blob/master/doc/naming.md."""
        if self.scheme == _IPV4:
            return "ipv4:" + ",".join(f"{host}:{port}" for host, port in self.addresses)
        if self.scheme == _IPV6:
            return "ipv6:" + ",".join(f"[{host}]:{port}" for host, port in self.addresses)
        host, port = self.addresses[0]
        return f"dns:///{host}:{port}"

    def __str__(self) -> str:
        return ";".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses)


def _address(text: str) -> tuple[str, int]:
    if "/" in text or any(character.isspace() for character in text):
        raise ValueError(f"{text!r} is no address: write 'host:port', without a scheme or a path")
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no address: write IPv6 as '[::1]:8081'")
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
    if not host:
        raise ValueError(f"{text!r} is no address: it has no host")
    if not port:
        return host, DEFAULT_PORT
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} has no valid port: it is a number from 1 to 65535")
    return host, int(port)


def _scheme(host: str) -> definition_pb2.AddressScheme:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return _DOMAIN_NAME
    return _IPV4 if version == 4 else _IPV6
