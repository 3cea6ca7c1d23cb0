"""Encoded route answers, kept until a change makes them wrong: thousands of clients ask for the same few routes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

BODIES_SIZE_BYTES_MAX = 64 * 1024 * 1024
"""Default bound of all kept bodies together. One topic on a hundred brokers makes a body of some 20 KiB."""


class RouteBodies:
    """Least-recently-used cache of the route bodies of topics, in both forms that clients ask for.

    `build(topic, standard)` makes a body, or gives None for a topic without a route. Unknown topics are not kept: their
    names come from outside, so there is no end to them.
    """

    def __init__(self, build: Callable[[str, bool], bytes | None], size_bytes_max: int = BODIES_SIZE_BYTES_MAX) -> None:
        self._build = build
        self._size_bytes_max = size_bytes_max
        self._size_bytes = 0
        self._bodies: OrderedDict[tuple[str, bool], bytes] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        """All kept bodies together."""
        return self._size_bytes

    def get(self, topic: str, *, standard: bool) -> bytes | None:
        """Return a topic's route body, in standard JSON or with bare integer keys; None when it has no route."""
        key = (topic, standard)
        body = self._bodies.get(key)
        if body is not None:
            self._bodies.move_to_end(key)
            return body
        body = self._build(topic, standard)
        if body is not None:
            self._keep(key, body)
        return body

    def forget(self, topics: Collection[str] | None) -> None:
        """Drop the bodies of some topics, or all of them for None."""
        if topics is None:
            self._bodies = OrderedDict()
            self._size_bytes = 0
            return
        for topic in topics:
            for standard in (False, True):
                self._size_bytes -= len(self._bodies.pop((topic, standard), b""))

    def _keep(self, key: tuple[str, bool], body: bytes) -> None:
        self._bodies[key] = body
        self._size_bytes += len(body)
        while self._size_bytes > self._size_bytes_max:
            _, oldest = self._bodies.popitem(last=False)
            self._size_bytes -= len(oldest)
