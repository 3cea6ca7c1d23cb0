"""The load generator at work against servers made for it: it counts what was answered, and nothing else."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.process import ManagedProcess
from tools.bench import frames, load
from tools.bench.lane import ConnectionEndedError
from tools.bench.requests import Load, Pulls
from tools.bench.server_process import split_address


def load_of(process: ManagedProcess, kind: str, connections: int, depth: int, messages: int | None) -> Load:
    host, port = split_address(process.wait_ready().listeners["remoting"])
    return Load(kind, host, port, "T", connections, depth, seconds=0.2, warmup_s=0.1, messages=messages)


@pytest.mark.parametrize(("kind", "messages"), [("send", 1000), ("batch", 3200), ("spread", 1000)])
@pytest.mark.parametrize(("connections", "depth"), [(1, 1), (1, 64), (3, 7)])
def test_a_load_with_an_end_sends_exactly_that_much(
    null_server: ManagedProcess, kind: str, messages: int, connections: int, depth: int
) -> None:
    """Every message is counted once its reply is there."""
    outcome = load.run(load_of(null_server, kind, connections, depth, messages))
    assert (outcome.messages, outcome.errors) == (messages, {})
    assert outcome.server_cpu_us is None


def test_a_load_by_time_measures_what_comes_in_it(null_server: ManagedProcess) -> None:
    """Pulls are counted by the records in their bodies, 32 each from the null server."""
    outcome = load.run(load_of(null_server, "pull", 2, 1, messages=None))
    assert outcome.messages > 0
    assert outcome.messages % 32 == 0
    assert 0 < outcome.p50_ms <= outcome.p99_ms <= outcome.max_ms


def test_refused_requests_are_errors_and_no_messages() -> None:
    """Another code than 0 is counted under its code and remark."""
    header = b'{"code":2,"flag":1,"opaque":%d,"remark":"[REJECTREQUEST]system busy"}'
    with canned_server([header % (frames.OPAQUE_BASE + number % 2) for number in range(10)]) as (host, port):
        outcome = load.run(Load("send", host, port, "T", connections=1, depth=2, messages=10))
    assert outcome.messages == 0
    assert outcome.errors == {"code 2: [REJECTREQUEST]system busy": 10}


def test_a_closed_connection_ends_the_run() -> None:
    """Figures of a run that lost a connection would say nothing."""
    with (
        canned_server([]) as (host, port),
        pytest.raises(ConnectionEndedError),
    ):
        load.run(Load("send", host, port, "T", connections=1, depth=1, messages=1))


def test_the_end_of_a_queue_is_no_error() -> None:
    """A pull with an end has done there; a pull by time starts anew."""
    ended = Pulls(Load("pull", "h", 1, "T", 1, 1, messages=5))
    at_end = frames.Reply(0, frames.PULL_NOT_FOUND, "", {}, memoryview(b""))
    assert ended.next(0) is not None
    assert ended.accepts(at_end)
    assert ended.next(0) is None
    endless = Pulls(Load("pull", "h", 1, "T", 1, 1))
    assert endless.accepts(at_end)
    assert endless.next(0) is not None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_quantiles_are_values_that_occurred(share: float, expected: int) -> None:
    """The smallest that covers the share."""
    assert load.quantile(range(1, 101), share) == expected


@contextlib.contextmanager
def canned_server(headers: list[bytes]) -> Iterator[tuple[str, int]]:
    """Takes one connection, answers with the given headers, and closes it (at once when there are none)."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            for header in headers:
                connection.sendall(frames.prefix(len(header), 0) + header)
            while headers and connection.recv(64 * 1024):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        host, port = listener.getsockname()
        yield host, port
        thread.join(10)
