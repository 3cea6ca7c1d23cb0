"""How long a server lets others wait: a client that asks for next to nothing every millisecond, beside the load.

Its longest wait is at least as long as the server's event loop was held, as every request waits for that. It may be
longer: the machine may have kept the server, or this client, from running.
"""

import multiprocessing
import socket
import time
from multiprocessing.connection import Connection
from typing import Self

from tools.bench import frames
from tools.bench.lane import CONNECT_TIMEOUT_S

INTERVAL_S = 0.001
START_TIMEOUT_S = 30.0
GROUP = "bench_nobody"
"""A group without members: to ask for them is answered by a refusal, after one look into a table."""


class Probe:
    """Asks from entering to leaving, in a process of its own."""

    def __init__(self, host: str, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self._process = context.Process(target=_ask_on, args=(host, port, theirs))
        self.waits_ms: list[float] = []

    def __enter__(self) -> Self:
        self._process.start()
        if not self._end.poll(START_TIMEOUT_S):
            raise TimeoutError("the probe did not start")
        self._end.recv()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.send(None)
        self.waits_ms = self._end.recv()
        self._process.join()


def _ask_on(host: str, port: int, end: Connection) -> None:
    """Say when the first answer was there, ask until told to end, and give what each wait was."""
    request = frames.member_list_request(GROUP, slot=0)
    waits_ms = []
    with socket.create_connection((host, port), CONNECT_TIMEOUT_S) as sock:
        _wait_ms(sock, request)
        end.send(None)
        while not end.poll():
            waits_ms.append(_wait_ms(sock, request))
            time.sleep(INTERVAL_S)
    end.send(waits_ms)


def _wait_ms(sock: socket.socket, request: bytes) -> float:
    began = time.monotonic()
    sock.sendall(request)
    if not sock.recv(64 * 1024):
        raise ConnectionResetError("the server closed the probe's connection")
    return (time.monotonic() - began) * 1e3
