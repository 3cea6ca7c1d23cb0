"""Requests and their replies over a blocking connection: for set-up, and for loads that ask one thing at a time."""

import contextlib
import socket
from collections.abc import Iterator, Sequence

from tools.bench import frames

RECEIVE_BYTES = 256 * 1024


class Conversation:
    """One connection. Every request must carry slot 0 or above; what the server asks of its own is passed over."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._socket = sock
        self._address = address
        self._received = bytearray()

    def ask(self, request: frames.Buffer) -> frames.Reply:
        """The reply to one request; OSError when it does not come in time."""
        return self.ask_all([request])[0]

    def ask_all(self, requests: Sequence[frames.Buffer]) -> list[frames.Reply]:
        """The replies to requests that are written together, in the order in which they come."""
        self._socket.sendall(b"".join(requests))
        replies: list[frames.Reply] = []
        while len(replies) < len(requests):
            reply = self._next()
            if reply.slot >= 0:
                replies.append(reply)
        return replies

    def _next(self) -> frames.Reply:
        received = self._received
        while len(received) < frames.HEAD_BYTES or len(received) < frames.bounds(received, 0)[1]:
            chunk = self._socket.recv(RECEIVE_BYTES)
            if not chunk:
                raise ConnectionResetError(f"{self._address} closed the connection before it answered")
            received += chunk
        end = frames.bounds(received, 0)[1]
        frame = bytes(received[:end])
        del received[:end]
        return frames.decode(frame, 0)


@contextlib.contextmanager
def conversation(host: str, port: int, timeout_s: float = 5.0) -> Iterator[Conversation]:
    """A connection that is closed at the end. OSError when the server is not there."""
    with socket.create_connection((host, port), timeout_s) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Conversation(sock, f"{host}:{port}")


def exchange(host: str, port: int, request: frames.Buffer, timeout_s: float = 5.0) -> frames.Reply:
    """The reply to one request over a connection of its own: a client that just arrived."""
    with conversation(host, port, timeout_s) as talk:
        return talk.ask(request)
