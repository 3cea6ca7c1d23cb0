"""One non-blocking connection that carries whole frames, for the generator as for the null server."""

import contextlib
import socket
from collections.abc import Iterator, Sequence

from tools.bench import frames
from tools.bench.requests import Load

RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
SOCKET_BUFFER_BYTES = 1024 * 1024
CONNECT_TIMEOUT_S = 5.0


class ConnectionEndedError(Exception):
    """The peer closed the connection or sent what can't be received."""


class Lane:
    """One connection: what has been received of it so far, and what could not be written yet."""

    def __init__(self, sock: socket.socket, slots: range, receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> None:
        self.socket = sock
        self.slots = slots
        self.buffer = bytearray(receive_buffer_bytes)
        self._view = memoryview(self.buffer)
        self._filled = 0
        self._read = 0
        self._unsent = b""

    @property
    def is_blocked(self) -> bool:
        """Whether requests wait for room in the socket's buffer."""
        return bool(self._unsent)

    def receive(self) -> list[tuple[int, int]]:
        """Reads once; start and header's end of each whole frame in `buffer`, valid until the next call."""
        self._drop_read()
        try:
            count = self.socket.recv_into(self._view[self._filled :])
        except BlockingIOError:
            return []
        except ConnectionError as error:
            raise ConnectionEndedError(str(error)) from error
        if count == 0:
            raise ConnectionEndedError("the peer closed the connection")
        self._filled += count
        found = []
        while self._filled - self._read >= frames.HEAD_BYTES:
            header_end, end = frames.bounds(self.buffer, self._read)
            if end - self._read > len(self.buffer):
                raise ConnectionEndedError(f"a reply of {end - self._read} bytes")
            if end > self._filled:
                break
            found.append((self._read, header_end))
            self._read = end
        return found

    def _drop_read(self) -> None:
        rest = self._filled - self._read
        self.buffer[:rest] = self.buffer[self._read : self._filled]
        self._filled = rest
        self._read = 0

    def send(self, requests: Sequence[frames.Buffer]) -> None:
        """Writes what the socket takes and keeps the rest."""
        if self._unsent:
            self._unsent += b"".join(requests)
            return
        try:
            count = self.socket.sendmsg(requests)
        except BlockingIOError:
            count = 0
        except ConnectionError as error:
            raise ConnectionEndedError(str(error)) from error
        if count < sum(map(len, requests)):
            self._unsent = b"".join(requests)[count:]

    def flush(self) -> None:
        """Writes more of the rest."""
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[self.socket.send(self._unsent) :]


@contextlib.contextmanager
def connected(load: Load) -> Iterator[list[Lane]]:
    """The connections of a load, closed at the end."""
    with contextlib.ExitStack() as stack:
        lanes = []
        for number in range(load.connections):
            sock = stack.enter_context(socket.create_connection((load.host, load.port), CONNECT_TIMEOUT_S))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
            sock.setblocking(False)
            lanes.append(Lane(sock, range(number * load.depth, (number + 1) * load.depth)))
        yield lanes
