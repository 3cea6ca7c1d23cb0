"""What a step of the registrar asks its host to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from apogeemq.namesrv.core.values import BrokerIdentity, DataVersion, RefusalCode


@dataclass(frozen=True, slots=True)
class Accepted:
    """The tables hold this version of the broker's topics."""

    data_version: DataVersion


@dataclass(frozen=True, slots=True)
class NeedFull:
    """The broker has to send its whole topic table."""


@dataclass(frozen=True, slots=True)
class TopicsLeftOut:
    """Topics of the last message or full state that did not enter the routes; at most ten as examples with reasons."""

    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The session is over; the text names the field or rule."""

    code: RefusalCode
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over because the broker unregistered."""


Reply: TypeAlias = Accepted | NeedFull | TopicsLeftOut | Refused | Ended


@dataclass(frozen=True, slots=True)
class Send:
    """Send a reply on a session's stream; after Refused and Ended, end the stream."""

    session_id: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Joined:
    """A broker entered the routes, or its full state was replaced. For the log."""

    identity: BrokerIdentity
    topic_count: int


@dataclass(frozen=True, slots=True)
class Left:
    """A broker left the routes. For the log."""

    identity: BrokerIdentity
    reason: str


Effect: TypeAlias = Send | Joined | Left
