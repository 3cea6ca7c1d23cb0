"""The orderly end of a real process: what it answers on the way, what it leaves, and what the next one finds."""

import pathlib
import signal

import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.record import Record

from tests.e2e.process import ManagedProcess, Ready, fixed_ports, start_all_in_one
from tests.e2e.wire_client import WireClient, pull_all, pull_fields, route_of, send_fields, send_until_it_ends

TOPIC, GROUP = "Kept", "G_kept"
QUEUES = 4
HELD = {"sysFlag": "6", "suspendTimeoutMillis": "60000"}
UNKNOWN_CODE = 9999
ONLY_WHAT_IS_KNOWN = {"broker.autoCreateTopicEnable": "false", "broker.autoCreateSubscriptionGroup": "false"}


def hold_pull(client: WireClient, topic: str, group: str, queue_id: int, offset: int) -> int:
    """Send a pull that waits, and return its opaque once the broker holds it."""
    opaque = client.send(RequestCode.PULL_MESSAGE, pull_fields(topic, group, queue_id, offset, **HELD))
    client.request(UNKNOWN_CODE)  # requests of a connection are handled in order
    return opaque


def fill(client: WireClient) -> dict[int, list[Record]]:
    """Send some messages to each queue, pipelined; gives what can then be pulled."""
    client.heartbeat("c", GROUP, TOPIC)
    opaques = [client.send(310, send_fields(TOPIC, n % QUEUES), b"body %d" % n) for n in range(400)]
    assert {client.receive(opaque).code for opaque in opaques} == {ResponseCode.SUCCESS}
    return {queue_id: pull_all(client, TOPIC, GROUP, queue_id) for queue_id in range(QUEUES)}


def commit(client: WireClient, queue_id: int, offset: int) -> None:
    fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": str(queue_id), "commitOffset": str(offset)}
    assert client.request(RequestCode.UPDATE_CONSUMER_OFFSET, fields).code == ResponseCode.SUCCESS


def committed(client: WireClient, queue_id: int) -> int:
    fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": str(queue_id)}
    return int((client.request(RequestCode.QUERY_CONSUMER_OFFSET, fields).ext_fields or {})["offset"])


def restarted(data: pathlib.Path, ready: Ready, log_directory: pathlib.Path) -> ManagedProcess:
    """The next process on the same data and the same ports, one that makes no topic and no group by itself."""
    settings = {**fixed_ports(ready), **ONLY_WHAT_IS_KNOWN}
    return start_all_in_one(data, log_directory=log_directory, settings=settings, ports=None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_and_everything_is_kept(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    """Who waits is answered, the exit code is 0, and the next process has messages, offsets, topics and groups."""
    data = tmp_path / "data"
    with start_all_in_one(data, log_directory=tmp_path / "first", settings={}) as process:
        ready = process.wait_ready()
        with WireClient(ready.listeners["broker.remoting"]) as client:
            sent = fill(client)
            commit(client, 0, 7)
            commit(client, 1, 100)
            waiting = hold_pull(client, TOPIC, GROUP, 0, 100)
            assert (data / "broker" / "abort").exists()
            process.send_signal(number)
            answer = client.receive(waiting)
            assert answer.code == ResponseCode.PULL_NOT_FOUND
            assert (answer.ext_fields or {})["nextBeginOffset"] == "100"
            assert client.is_closed_by_peer()
        assert process.wait_exit(20) == 0
        assert process.log == ""
    assert not (data / "broker" / "abort").exists()

    with restarted(data, ready, tmp_path / "second") as process:
        assert process.wait_ready().listeners == ready.listeners
        with WireClient(ready.listeners["broker.remoting"]) as client:
            assert {queue_id: pull_all(client, TOPIC, GROUP, queue_id) for queue_id in range(QUEUES)} == sent
            assert [committed(client, queue_id) for queue_id in (0, 1)] == [7, 100]
            more = client.request(310, send_fields(TOPIC, 3), b"more")
            assert (more.ext_fields or {})["queueOffset"] == "100"
            assert client.request(310, send_fields("Unknown"), b"x").code == ResponseCode.TOPIC_NOT_EXIST
            unknown = client.request(RequestCode.PULL_MESSAGE, pull_fields(TOPIC, "G_unknown"))
            assert unknown.code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST
        route = route_of(ready.listeners["namesrv.remoting"], TOPIC)
        assert route is not None
        assert [queues.write_queue_nums for queues in route.queue_datas] == [QUEUES]
        process.stop()
        assert process.log == ""  # in particular nothing about recovery


def test_a_start_that_is_stopped_at_once_leaves_a_directory_that_opens(tmp_path: pathlib.Path) -> None:
    """A signal right after the ready line, while the tables are first written, is an orderly end as well."""
    for run in range(2):
        with start_all_in_one(tmp_path / "data", log_directory=tmp_path / str(run), settings={}) as process:
            process.wait_ready()
            process.stop()
            assert process.log == ""
    assert not (tmp_path / "data" / "broker" / "abort").exists()


def test_what_is_acknowledged_while_it_stops_is_kept(tmp_path: pathlib.Path) -> None:
    """A stop amid pipelined sends is as orderly: nobody gets an error, and no acknowledgement was given in vain."""
    data = tmp_path / "data"
    with start_all_in_one(data, log_directory=tmp_path / "first", settings={}) as process:
        ready = process.wait_ready()
        with WireClient(ready.listeners["broker.remoting"]) as client:
            acknowledged = send_until_it_ends(client, TOPIC, 1000, lambda: process.send_signal(signal.SIGTERM))
        assert process.wait_exit(20) == 0
        assert process.log == ""
    with restarted(data, ready, tmp_path / "second") as process:
        process.wait_ready()
        with WireClient(ready.listeners["broker.remoting"]) as client:
            bodies = [record.body for record in pull_all(client, TOPIC, "TOOLS_CONSUMER")]
        assert len(bodies) >= acknowledged
        assert bodies == [b"body %d" % number for number in range(len(bodies))]
        process.stop()
        assert process.log == ""


def test_a_second_signal_ends_it_at_once(tmp_path: pathlib.Path) -> None:
    """While the stop still waits for a client that does not read, a second signal exits with 130; data is kept."""
    data = tmp_path / "data"
    with start_all_in_one(data, log_directory=tmp_path / "first", settings={}) as process:
        ready = process.wait_ready()
        address = ready.listeners["broker.remoting"]
        with WireClient(address) as waiting, WireClient(address) as reads_nothing:
            assert waiting.request(310, send_fields(TOPIC), b"x" * (1 << 20)).code == ResponseCode.SUCCESS
            for _ in range(40):  # 40 MiB of answers, far more than the sockets' buffers take
                reads_nothing.send(RequestCode.PULL_MESSAGE, pull_fields(TOPIC, GROUP))
            opaque = hold_pull(waiting, TOPIC, GROUP, 0, 1)
            process.send_signal(signal.SIGTERM)
            assert waiting.receive(opaque).code == ResponseCode.PULL_NOT_FOUND  # so the stop is under way
            process.send_signal(signal.SIGTERM)
            assert process.wait_exit(20) == 130
        assert "SIGTERM again: exiting at once" in process.log
    assert (data / "broker" / "abort").exists()

    with restarted(data, ready, tmp_path / "second") as process:
        process.wait_ready()
        with WireClient(address) as client:
            assert [len(record.body) for record in pull_all(client, TOPIC, GROUP)] == [1 << 20]
        process.stop()


def test_the_readmes_command_stops_in_good_order(tmp_path: pathlib.Path) -> None:
    """A SIGTERM to `./task up` itself stops the server: no process stays behind, and the store is closed."""
    root = pathlib.Path(__file__).resolve().parents[2]
    argv = [str(root / "task"), "up", "--", "--data", str(tmp_path / "data"), "--ports", "free"]
    with ManagedProcess("task", argv, log_directory=tmp_path / "logs", cwd=root) as process:
        ready = process.wait_ready(timeout_s=120)
        with WireClient(ready.listeners["broker.remoting"]) as client:
            assert client.request(310, send_fields(TOPIC), b"kept").code == ResponseCode.SUCCESS
        process.stop()
    assert not (tmp_path / "data" / "broker" / "abort").exists()
