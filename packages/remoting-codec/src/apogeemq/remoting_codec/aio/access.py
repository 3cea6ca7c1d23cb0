"""Who may ask a Remoting server for what: a hook that its face asks before every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from apogeemq.remoting_codec.aio.channel import Channel
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand


@dataclass(frozen=True, slots=True)
class AccessRefusal:
    """What a request without permission is answered: response code and remark."""

    code: ResponseCode
    remark: str


class AccessHook(Protocol):
    """Decides about requests."""

    def check(self, channel: Channel, command: RemotingCommand) -> AccessRefusal | None:
        """Return why this request of this peer is refused, or None when it may go on. Must not block."""
        ...


class AllowAll:
    """Lets everybody ask everything: the choice as long as no ACL is configured."""

    def check(self, channel: Channel, command: RemotingCommand) -> AccessRefusal | None:
        """Allow."""
        return None
