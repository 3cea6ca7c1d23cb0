"""Addresses of name servers as users write them."""

from typing import NamedTuple


class Address(NamedTuple):
    """A host name or IP address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """As it is written: `host:port`, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host:port` or `[ipv6]:port`. Raises ValueError that quotes the text."""
    host, separator, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65_535:
        raise ValueError(f"{text.strip()[:100]!r} is not host:port")
    return Address(host, int(port))


def parse_addresses(text: str) -> tuple[Address, ...]:
    """`host:port;host:port`; at least one. Raises ValueError that quotes the one at fault."""
    addresses = tuple(dict.fromkeys(parse_address(part) for part in text.split(";") if part.strip()))
    if not addresses:
        raise ValueError("no address given: write host:port, several with ; between")
    return addresses
