"""The name servers: one answers for all, the next is asked when it does not."""

import asyncio
import logging
from collections.abc import Sequence

from apogeemq.client_api.errors import ConnectionBroken
from apogeemq.client_remoting import link
from apogeemq.client_remoting.connection import Connection
from apogeemq.remoting_codec.errors import RemoteProtocolError
from apogeemq.remoting_codec.route import TopicRouteData

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 3.0


class NoNameServer(Exception):  # noqa: N818 — named like the client's errors
    """None of the name servers answered; the text says how the last one failed."""


class NameServers:
    """Asks the name server that answered last, and the others in turn when it fails.

    Args:
        connections: one for each; at least one.
        first: which to begin with: clients should not all ask the same one.
    """

    def __init__(self, connections: Sequence[Connection], first: int) -> None:
        self._connections = list(connections)
        self._current = first % len(self._connections)

    async def open(self, timeout_s: float) -> None:
        """Connect to any of them. Raises NoNameServer when none could be reached in time."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            connection = self._connections[self._current]
            left_s = deadline - asyncio.get_running_loop().time()
            try:
                await connection.open(left_s)
            except ConnectionBroken as error:
                self._current = (self._current + 1) % len(self._connections)
                if asyncio.get_running_loop().time() >= deadline:
                    raise NoNameServer(error.text) from error
            else:
                return

    async def route(self, topic: str) -> TopicRouteData | None:
        """The route of a topic; None when there is none. Raises NoNameServer."""
        failure: Exception | None = None
        for _ in self._connections:
            connection = self._connections[self._current]
            if not connection.is_backing_off or len(self._connections) == 1:
                try:
                    return await link.query_route(connection, topic, ASK_TIMEOUT_S)
                except (ConnectionBroken, TimeoutError, link.Refusal, RemoteProtocolError) as error:
                    logger.info("name server %s did not give the route of %s: %s", connection.address, topic, error)
                    failure = error
            self._current = (self._current + 1) % len(self._connections)
        raise NoNameServer(f"no name server answers: {failure or 'all were unreachable a moment ago'}") from failure

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            await connection.close()
