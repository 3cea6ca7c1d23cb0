"""Many connections that do little each: one request at a time on any of them, on one thread and one epoll."""

import contextlib
import resource
import select
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Self

from tools.bench import frames
from tools.bench.lane import CONNECT_TIMEOUT_S, Lane

RECEIVE_BUFFER_BYTES = 8 * 1024
ANSWER_TIMEOUT_S = 30.0
WINDOW = 200
"""Of set-up requests so many wait at a time, each on its own connection."""

SPARE_DESCRIPTORS = 200


class NoAnswerError(Exception):
    """The server did not answer everything in time."""


class Crowd:
    """Connections by number. Every request carries its connection's number as its slot."""

    def __init__(self, host: str, port: int, count: int) -> None:
        allow_descriptors(count + SPARE_DESCRIPTORS)
        self._epoll = select.epoll()
        self._lanes: list[Lane] = []
        self._numbers: dict[int, int] = {}
        for number in range(count):
            sock = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._lanes.append(Lane(sock, range(number, number + 1), RECEIVE_BUFFER_BYTES))
            self._numbers[sock.fileno()] = number
            self._epoll.register(sock, select.EPOLLIN)

    def __len__(self) -> int:
        return len(self._lanes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._epoll.close()
        for lane in self._lanes:
            lane.socket.close()

    def send(self, number: int, request: frames.Buffer) -> None:
        """Write a request on one connection."""
        self._lanes[number].send([request])

    def replies(self, timeout_s: float) -> Iterator[tuple[int, int]]:
        """Connection and code of each reply that comes within one wait; what the server asks of its own is dropped."""
        for fd, _ in self._epoll.poll(timeout_s):
            number = self._numbers[fd]
            lane = self._lanes[number]
            for start, header_end in lane.receive():
                if frames.slot_of(lane.buffer, start, header_end) == number:
                    yield number, frames.decode(lane.buffer, start).code

    def collect(self, count: int) -> dict[int, int]:
        """Codes by connection of the next `count` replies; NoAnswerError when they do not come."""
        codes: dict[int, int] = {}
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while len(codes) < count:
            codes.update(self.replies(0.1))
            if time.monotonic() > deadline:
                raise NoAnswerError(f"{len(codes)} of {count} requests answered within {ANSWER_TIMEOUT_S} s")
        return codes

    def ask(self, requests: Mapping[int, frames.Buffer]) -> None:
        """Send these requests, each by its connection, some at a time; all must be answered with success."""
        numbers = list(requests)
        for at in range(0, len(numbers), WINDOW):
            window = numbers[at : at + WINDOW]
            for number in window:
                self.send(number, requests[number])
            codes = self.collect(len(window))
            refused = {number: code for number, code in codes.items() if code != frames.SUCCESS}
            if refused:
                raise NoAnswerError(f"refused with these codes, by connection: {refused}")

    def drop_late(self) -> None:
        """Read what the server sent of its own, until nothing comes any more."""
        while self._epoll.poll(0.2):
            for _ in self.replies(0):
                pass


def allow_descriptors(count: int) -> None:
    """Raises this process's limit of open files, and so that of the servers it starts from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        with contextlib.suppress(ValueError):  # above the hard limit: connecting will say so
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
