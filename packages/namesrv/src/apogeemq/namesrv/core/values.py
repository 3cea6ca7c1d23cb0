"""The values that brokers register, and what is right and wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

NAME_LENGTH_MAX = 127
"""Longest cluster, broker and zone name, in characters."""

TOPIC_LENGTH_MAX = 255
"""Longest topic, in characters: retry and DLQ topics may be this long, ordinary ones 127 (the broker sees to that)."""

ADDRESS_LENGTH_MAX = 261
"""Longest "host:port": a DNS name of 255 characters, a colon and five digits."""

QUEUE_NUMS_MAX = 65_536
"""Most queues a topic may announce per broker. Clients make one object per queue, so a wild number would kill them."""

PERM_MAX = 7
"""Read 4, write 2, inherit 1."""


class MemberKey(NamedTuple):
    """Names one broker process. Brokers of one name are a broker set: id 0 is its master, the others are slaves."""

    broker_name: str
    broker_id: int


class DataVersion(NamedTuple):
    """Version of a broker's topic table. Two tables are the same only if all three numbers are."""

    state_version: int
    timestamp_ms: int
    counter: int


class TopicQueues(NamedTuple):
    """What one broker announces about one topic: queues to read, queues to write, permission bits and unit flags."""

    read_queue_nums: int
    write_queue_nums: int
    perm: int
    topic_sys_flag: int


@dataclass(frozen=True, slots=True)
class BrokerIdentity:
    """Who registers; the fields are those of the mesh API's BrokerIdentity.

    incarnation       grows with each start of the broker process
    remoting_address  advertised "host:port", "" when the broker has no Remoting listener
    mesh_address      advertised "host:port", "" when the broker has no mesh listener
    master_epoch      given by the controller to a master; 0 without a controller
    """

    cluster: str
    broker_name: str
    broker_id: int
    incarnation: int
    remoting_address: str
    mesh_address: str = ""
    zone: str = ""
    master_epoch: int = 0

    @property
    def key(self) -> MemberKey:
        """Broker name and id."""
        return MemberKey(self.broker_name, self.broker_id)

    @property
    def address(self) -> str:
        """The address that tells two broker processes apart: Remoting if there is one, mesh otherwise."""
        return self.remoting_address or self.mesh_address


class RefusalCode(IntEnum):
    """Why a registration stream is ended; the numbers are those of the mesh API's RefusalCode."""

    INVALID_ARGUMENT = 1
    OUT_OF_ORDER = 2
    LIMIT_EXCEEDED = 3
    NAME_CONFLICT = 4
    FENCED_MASTER_EPOCH = 5
    STALE_INCARNATION = 6
    SUPERSEDED = 7
    EXPIRED = 8


def identity_problem(identity: BrokerIdentity) -> str | None:
    """Say which field of an identity is wrong and what would be right; None when all are right."""
    for field, name in (("cluster", identity.cluster), ("broker_name", identity.broker_name)):
        if problem := _name_problem(name, NAME_LENGTH_MAX):
            return f"{field} {problem}"
    if identity.zone and (problem := _name_problem(identity.zone, NAME_LENGTH_MAX)):
        return f"zone {problem}"
    if identity.broker_id < 0:
        return f"broker_id is {identity.broker_id}; it must be 0 (master) or more"
    if identity.master_epoch < 0:
        return f"master_epoch is {identity.master_epoch}; it must be 0 (no controller) or more"
    return _addresses_problem(identity)


def topic_problem(topic: str, queues: TopicQueues) -> str | None:
    """Say what is wrong with an announced topic; None when it may enter the routes."""
    if problem := _name_problem(topic, TOPIC_LENGTH_MAX):
        return f"topic_name {problem}"
    for field, count in (("read_queue_nums", queues.read_queue_nums), ("write_queue_nums", queues.write_queue_nums)):
        if not 0 <= count <= QUEUE_NUMS_MAX:
            return f"{field} is {count}; it must be within 0..{QUEUE_NUMS_MAX}"
    if not 0 <= queues.perm <= PERM_MAX:
        return f"perm is {queues.perm}; it must be within 0..{PERM_MAX}"
    return None


def _addresses_problem(identity: BrokerIdentity) -> str | None:
    if not identity.address:
        return "remoting_address and mesh_address are both empty; nobody could reach this broker"
    for field, address in (
        ("remoting_address", identity.remoting_address),
        ("mesh_address", identity.mesh_address),
    ):
        if address and (problem := _address_problem(address)):
            return f"{field} {problem}"
    return None


def _address_problem(address: str) -> str | None:
    if len(address) > ADDRESS_LENGTH_MAX:
        return f"has {len(address)} characters; at most {ADDRESS_LENGTH_MAX} are allowed"
    host, colon, port = address.rpartition(":")
    if not colon or not host or not _is_plain(host):
        return f"is {address!r}; it must be host:port"
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
        return f"is {address!r}; its port must be within 1..65535"
    return None


def _name_problem(name: str, length_max: int) -> str | None:
    if not name:
        return "is empty"
    if len(name) > length_max:
        return f"has {len(name)} characters; at most {length_max} are allowed"
    if not _is_plain(name):
        return f"is {name!r}; spaces and control characters are not allowed"
    return None


def _is_plain(text: str) -> bool:
    """Tell whether a text is printable and has no space: a space in a broker name would break pop's handles."""
    return text.isprintable() and " " not in text
