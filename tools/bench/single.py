"""One request and its reply over a connection of its own, blocking: for set-up and for a client that just arrived."""

import socket

from tools.bench import frames


def exchange(host: str, port: int, request: frames.Buffer, timeout_s: float = 5.0) -> frames.Reply:
    """The reply to one request; OSError when the server is not there or does not answer in time."""
    with socket.create_connection((host, port), timeout_s) as sock:
        sock.sendall(request)
        received = bytearray()
        while len(received) < frames.HEAD_BYTES or len(received) < frames.bounds(received, 0)[1]:
            chunk = sock.recv(64 * 1024)
            if not chunk:
                raise ConnectionResetError(f"{host}:{port} closed the connection before it answered")
            received += chunk
    return frames.decode(received, 0)
