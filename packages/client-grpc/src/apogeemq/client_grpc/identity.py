"""Who a client is, from the machine it runs on; and the lots that ids are made of."""

import dataclasses
import importlib.metadata
import itertools
import os
import platform
import secrets
import socket
from typing import Final, Self

from apogeemq.client_grpc.core.metadata import MessageIds, client_id

_INDEX: Final = itertools.count()


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Made when a client starts, so that one made before a fork is another in each process."""

    client_id: str
    version: str
    hostname: str
    platform: str
    message_ids: MessageIds

    @classmethod
    def of_this_process(cls, now_ms: int) -> Self:
        """A new identity; no two are alike."""
        pid = os.getpid()
        hostname = socket.gethostname()
        return cls(
            client_id=client_id(hostname, pid, next(_INDEX), secrets.randbits(64)),
            version=importlib.metadata.version("apogeemq-client-grpc"),
            hostname=hostname,
            platform=platform.platform(terse=True),
            message_ids=MessageIds(origin=secrets.randbits(48), pid=pid, now_ms=now_ms),
        )
