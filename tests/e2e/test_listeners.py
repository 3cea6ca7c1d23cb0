"""Several Remoting listeners of one broker, and an advertised address that is not the bound one."""

import pathlib
from collections.abc import Iterator

import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.message_id import decode_offset_message_id
from apogeemq.remoting_codec.record import encode_host

from tests.e2e.process import ManagedProcess, free_port, poll_until, start_all_in_one
from tests.e2e.wire_client import WireClient, pull_all, pull_fields, route_of, send_fields

TOPIC, GROUP = "Doors", "G_doors"
ADVERTISED_HOST, ADVERTISED_PORT = "127.0.0.2", 7777
ADVERTISED = f"{ADVERTISED_HOST}:{ADVERTISED_PORT}"


class Doors:
    """Where the broker really listens."""

    def __init__(self, process: ManagedProcess, bound_port: int) -> None:
        listeners = process.wait_ready().listeners
        self.told = listeners["broker.remoting"]
        self.remoting = f"127.0.0.1:{bound_port}"
        self.vip = listeners["broker.vip"]
        self.namesrv = listeners["namesrv.remoting"]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A broker behind an address translation, as it were, with its fast port open."""
    directory: pathlib.Path = tmp_path_factory.mktemp("doors")
    bound_port = free_port()
    settings = {
        "broker.listenPort": str(bound_port),
        "broker.brokerIP1": ADVERTISED_HOST,
        "broker.listeners.remoting.advertised_port": str(ADVERTISED_PORT),
        "broker.listeners.vip.enabled": "true",
    }
    with start_all_in_one(directory / "data", log_directory=directory, settings=settings) as process:
        yield Doors(process, bound_port)
        process.stop()


def test_both_ports_lead_to_the_same_queues(doors: Doors) -> None:
    """What is sent through one port is pulled through the other, and wakes who waits there."""
    with WireClient(doors.remoting) as remoting, WireClient(doors.vip) as vip:
        assert vip.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), b"by vip").code == ResponseCode.SUCCESS
        held = {"sysFlag": "6", "suspendTimeoutMillis": "15000"}
        opaque = vip.send(RequestCode.PULL_MESSAGE, pull_fields(TOPIC, GROUP, 0, 1, **held))
        sent = remoting.request(RequestCode.SEND_MESSAGE_V2, send_fields(TOPIC), b"by remoting")
        assert sent.code == ResponseCode.SUCCESS
        assert (vip.receive(opaque).ext_fields or {})["nextBeginOffset"] == "2"
        bodies = [b"by vip", b"by remoting"]
        assert [record.body for record in pull_all(remoting, TOPIC, GROUP)] == bodies
        assert [record.body for record in pull_all(vip, TOPIC, GROUP)] == bodies


def test_a_group_has_members_on_both_ports(doors: Doors) -> None:
    """Clients of one group see each other, whichever port they use."""
    with WireClient(doors.remoting) as remoting, WireClient(doors.vip) as vip:
        remoting.heartbeat("one", "G_both", TOPIC)
        vip.heartbeat("two", "G_both", TOPIC)
        reply = remoting.request(RequestCode.GET_CONSUMER_LIST_BY_GROUP, {"consumerGroup": "G_both"})
        assert b'"one"' in reply.body
        assert b'"two"' in reply.body


def test_the_advertised_address_is_what_others_are_told(doors: Doors) -> None:
    """Routes, the ready line, message ids and the records' store host have it, through whichever port they came."""
    with WireClient(doors.remoting) as remoting, WireClient(doors.vip) as vip:
        for client in (remoting, vip):
            sent = client.request(RequestCode.SEND_MESSAGE_V2, send_fields("Told"), b"x")
            store_host, physical_offset = decode_offset_message_id((sent.ext_fields or {})["msgId"])
            assert store_host == encode_host(ADVERTISED_HOST, ADVERTISED_PORT)
            record = pull_all(client, "Told", GROUP)[-1]
            assert (record.store_host, record.physical_offset) == (store_host, physical_offset)
    assert doors.told == ADVERTISED
    poll_until(lambda: route_of(doors.namesrv, "Told") is not None, 20, lambda: AssertionError("no route came"))
    route = route_of(doors.namesrv, "Told")
    assert route is not None
    assert [data.broker_addrs for data in route.broker_datas] == [{0: ADVERTISED}]
