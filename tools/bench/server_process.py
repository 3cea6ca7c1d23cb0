"""The server under load: started here, or running already; and what the kernel knows of its processes."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Self

from tests.interop.deployments import DEPLOYMENTS

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SAMPLE_INTERVAL_S = 0.1


@dataclasses.dataclass(frozen=True)
class Server:
    """Where the broker listens, and its processes (none when they are not known)."""

    host: str
    port: int
    pids: tuple[int, ...]
    description: str


@contextlib.contextmanager
def started(kind: str) -> Iterator[Server]:
    """A fresh server with its data in a temporary directory that goes with it. `kind` is a deployment's name."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="apogeemq-bench-"))
    try:
        with DEPLOYMENTS[kind](directory, {}) as deployment:
            host, port = split_address(deployment.broker)
            pids = tuple(process.pid for process in deployment.processes.values())
            yield Server(host, port, pids, description=f"{kind}, started for this run")
            deployment.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def running(target: str, pids: Sequence[int]) -> Server:
    """A server that somebody else started."""
    host, port = split_address(target)
    return Server(host, port, tuple(pids), description=f"{target}, running already")


def split_address(address: str) -> tuple[str, int]:
    """ "host:port" in its parts."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes with all of their threads, from /proc/PID/stat."""
    return sum(_cpu_ticks(pid) for pid in pids) / TICKS_PER_SECOND


def _cpu_ticks(pid: int) -> int:
    # The second field is the command's name in parentheses and may hold spaces; utime and stime are fields 14 and 15.
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def memory_kib(pids: Sequence[int], field: str) -> int:
    """A field of /proc/PID/status such as RssAnon, summed over the processes, in KiB."""
    return sum(_status_kib(pid, field) for pid in pids)


def _status_kib(pid: int, field: str) -> int:
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise KeyError(f"/proc/{pid}/status has no {field}")


class MemorySampler:
    """Samples RssAnon (what is the processes' own: the page cache of mapped files is not in it) in a thread."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-sampler")
        self.samples_kib: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_INTERVAL_S):
            self.samples_kib.append(memory_kib(self._pids, "RssAnon"))
