"""What an echo of 1 KiB costs the server process under asyncio's own loop and under uvloop.

The figures of docs/adr/0007-uvloop-by-default.md come from this script:

    .venv/bin/python tests/trials/event_loops.py

The client is a plain blocking socket in another process, so that only the loop differs. A line per run: messages in
flight, loop, CPU of the server (user + system) per message, messages per second. Start and end of the server process
are inside the figure, which is why many messages are sent.
"""

import asyncio
import os
import pathlib
import resource
import socket
import time
import typing

import uvloop

MESSAGE = b"x" * 1024
RUNS = 3
MESSAGES = {1: 20_000, 64: 200_000}  # in flight → how many in all
LOOPS = {"asyncio": asyncio.run, "uvloop": uvloop.run}


class Echo(asyncio.BufferedProtocol):
    """Writes back what it reads; `ended` is set when the peer closes."""

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended
        self._buffer = bytearray(64 * 1024)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio.Transport, so this can't be asserted.
        self._transport = typing.cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._transport.write(bytes(self._buffer[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()


async def serve(listener: socket.socket) -> None:
    """Serve until the first connection ends."""
    ended = asyncio.Event()
    await asyncio.get_running_loop().create_server(lambda: Echo(ended), sock=listener)
    await ended.wait()


def drive(port: int, in_flight: int, messages: int) -> None:
    """Send `in_flight` messages, wait for all of them, again and again."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(messages // in_flight):
            connection.sendall(MESSAGE * in_flight)
            missing = in_flight * len(MESSAGE)
            while missing:
                received = connection.recv(missing)
                assert received, "the server closed"
                missing -= len(received)


def measure(loop: str, in_flight: int, messages: int) -> tuple[float, float]:
    """(CPU µs per message of the server process, messages per second)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        child = os.fork()
        if child == 0:
            LOOPS[loop](serve(listener))
            os._exit(0)
    started = time.perf_counter()
    drive(port, in_flight, messages)
    elapsed_s = time.perf_counter() - started
    usage: resource.struct_rusage = os.wait4(child, 0)[2]
    return (usage.ru_utime + usage.ru_stime) / messages * 1e6, messages / elapsed_s


def main() -> None:
    print(f"load average before: {pathlib.Path('/proc/loadavg').read_text().split()[0]}")
    for in_flight, messages in MESSAGES.items():
        for _ in range(RUNS):
            for loop in LOOPS:
                cpu_us, rate = measure(loop, in_flight, messages)
                figures = f"{cpu_us:6.1f} µs/message  {rate:>9,.0f} messages/s"
                print(f"{in_flight:>3} in flight  {loop:<8} {figures}", flush=True)


if __name__ == "__main__":
    main()
