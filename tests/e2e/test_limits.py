"""Bounds of a real process, set low: who reaches one is refused or cut off, and a neighbour does not notice.

Each test has its own connections; the neighbour of the module stays open through all of them.
"""

import pathlib
import struct
from collections.abc import Iterator

import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_frame

from tests.e2e.http_client import metric
from tests.e2e.process import ManagedProcess, Ready, poll_until, start_all_in_one
from tests.e2e.wire_client import WireClient, pull_all, pull_fields, send_fields

TOPIC, GROUP = "Bounds", "G_bounds"
UNKNOWN_CODE = 9999
CONNECTIONS_MAX = 8
FRAME_SIZE_BYTES_MAX = 131_072
WRITE_BUFFER_BYTES_MAX = 16 << 20
BODY = b"x" * 60_000
MESSAGES = 20
PULL_SIZE_BYTES = len(BODY) * MESSAGES
DEADLINE_S = 20.0

SETTINGS = {
    "broker.limits.connections_max": str(CONNECTIONS_MAX),
    "broker.limits.frame_size_bytes_max": str(FRAME_SIZE_BYTES_MAX),
    "broker.limits.write_buffer_bytes_max": str(WRITE_BUFFER_BYTES_MAX),
    "broker.limits.slow_reader_s": "0.5",
    "broker.maxTransferBytesOnMessageInMemory": str(2 * PULL_SIZE_BYTES),
    "broker.limits.held_pulls_per_queue_max": "2",
    "broker.maxMessageSize": "65536",
    "namesrv.limits.frame_size_bytes_max": "4096",
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedProcess]:
    directory: pathlib.Path = tmp_path_factory.mktemp("limits")
    with start_all_in_one(directory / "data", log_directory=directory, settings=SETTINGS, log_level="INFO") as process:
        process.wait_ready()
        yield process
        process.stop()


@pytest.fixture(scope="module")
def ready(limited: ManagedProcess) -> Ready:
    return limited.wait_ready()


@pytest.fixture(scope="module")
def neighbour(ready: Ready) -> Iterator[WireClient]:
    """Fills the queue, and is served whatever happens to others."""
    with connect(ready) as client:
        for _ in range(MESSAGES):
            assert client.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), BODY).code == ResponseCode.SUCCESS
        yield client


def connect(ready: Ready) -> WireClient:
    return WireClient(ready.listeners["broker.remoting"])


def count(ready: Ready, name: str) -> float:
    return metric(ready.listeners["broker.http"], name, listener="remoting")


def pull_without_reading(client: WireClient, size_bytes: int) -> None:
    """Ask for so many bytes in one write, and read none of them."""
    pull = RemotingCommand(RequestCode.PULL_MESSAGE, ext_fields=pull_fields(TOPIC, GROUP))
    client.socket.sendall(encode_frame(pull) * (size_bytes // PULL_SIZE_BYTES))


def test_more_connections_than_allowed_are_refused(ready: Ready, neighbour: WireClient) -> None:
    """One too many is closed unheard; when another one leaves there is room again."""
    poll_until(lambda: count(ready, "apogeemq_connections") == 1, DEADLINE_S, lambda: AssertionError("others remain"))
    refused_before = count(ready, "apogeemq_connections_refused_total")
    others = [connect(ready) for _ in range(CONNECTIONS_MAX - 1)]
    for client in others:
        assert client.request(UNKNOWN_CODE).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
    with connect(ready) as one_too_many:
        assert one_too_many.is_closed_by_peer()
    assert count(ready, "apogeemq_connections_refused_total") == refused_before + 1
    assert len(pull_all(neighbour, TOPIC, GROUP)) == MESSAGES
    for client in others:
        client.socket.close()
    poll_until(lambda: count(ready, "apogeemq_connections") == 1, DEADLINE_S, lambda: AssertionError("no room"))
    with connect(ready) as again:
        assert again.request(UNKNOWN_CODE).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("listener", "size_bytes_max"), [("broker.remoting", FRAME_SIZE_BYTES_MAX), ("namesrv.remoting", 4096)]
)
def test_a_frame_above_the_bound_ends_its_connection(
    ready: Ready, neighbour: WireClient, listener: str, size_bytes_max: int
) -> None:
    """It is enough that a frame announces more than the bound."""
    with WireClient(ready.listeners[listener]) as client:
        client.socket.sendall(struct.pack(">I", size_bytes_max + 1))
        assert client.is_closed_by_peer()
    assert neighbour.request(UNKNOWN_CODE).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED


def test_a_reader_that_is_too_slow_is_cut(ready: Ready, neighbour: WireClient, limited: ManagedProcess) -> None:
    """Above the high-water mark (4 MiB) and below the bound, a client that does not read has half a second."""
    cut_before = count(ready, "apogeemq_connections_cut_total")
    with connect(ready) as slow:
        address = own_address(slow)
        pull_without_reading(slow, WRITE_BUFFER_BYTES_MAX - (1 << 20))
        poll_until(
            lambda: count(ready, "apogeemq_connections_cut_total") == cut_before + 1,
            DEADLINE_S,
            lambda: limited.failure("cut nobody"),
        )
        assert len(pull_all(neighbour, TOPIC, GROUP)) == MESSAGES
    assert f"cutting {address}: slow reader, " in limited.log


def test_more_unread_than_allowed_cuts_at_once(ready: Ready, neighbour: WireClient, limited: ManagedProcess) -> None:
    """Above the bound there is no half second: what waits for one client is no more than the bound."""
    with connect(ready) as greedy:
        address = own_address(greedy)
        pull_without_reading(greedy, 3 * WRITE_BUFFER_BYTES_MAX)
        poll_until(lambda: f"cutting {address}: " in limited.log, DEADLINE_S, lambda: limited.failure("cut nobody"))
        assert len(pull_all(neighbour, TOPIC, GROUP)) == MESSAGES
    (line,) = (line for line in limited.log.splitlines() if f"cutting {address}: " in line)
    assert line.endswith("bytes are unsent, which is above the bound")


def test_no_more_pulls_are_held_than_allowed(ready: Ready, neighbour: WireClient) -> None:
    """One too many on a queue is told to come back, and counted; the others wait on and get the message."""
    held = {"sysFlag": "6", "suspendTimeoutMillis": "60000"}
    with connect(ready) as client:
        waiting = [client.send(RequestCode.PULL_MESSAGE, pull_fields(TOPIC, GROUP, 1, 0, **held)) for _ in range(2)]
        third = client.request(RequestCode.PULL_MESSAGE, pull_fields(TOPIC, GROUP, 1, 0, **held))
        assert third.code == ResponseCode.FLOW_CONTROL
        assert third.remark == "2 pulls wait for this queue, the limit (limits.held_pulls_per_queue_max) is 2"
        http = ready.listeners["broker.http"]
        assert metric(http, "apogeemq_requests_refused_total", limit="limits.held_pulls_per_queue_max") == 1
        assert metric(http, "apogeemq_requests_in_flight", kind="held_pull") == 2
        assert neighbour.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC, 1), b"x").code == ResponseCode.SUCCESS
        assert [client.receive(opaque).code for opaque in waiting] == [ResponseCode.SUCCESS] * 2


def own_address(client: WireClient) -> str:
    """A client's end of its connection, as the server logs it."""
    host, port = client.socket.getsockname()
    return f"{host}:{port}"
