"""Transactions of gRPC clients: half messages, their end at any proxy, and brokers' questions on Telemetry streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core import transaction_id
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.messaging import MessagingService
from apogeemq.proxy.service.orphans import Delivery
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.message import decode_properties, encode_properties
from apogeemq.remoting_codec.record import encode_record

from packages.proxy.tests.brokers_in_memory import Cluster, cluster_of, context_of, half_record, refuse
from packages.proxy.tests.test_clients import producer, running, service_of

TOPIC = defs.Resource(name="T")


def half_message(message_id: str = "M1") -> defs.Message:
    system = defs.SystemProperties(message_id=message_id, message_type=defs.TRANSACTION)
    return defs.Message(topic=TOPIC, system_properties=system, body=b"half")


def transactional_cluster(*names: str) -> Cluster:
    cluster = cluster_of(ManualClock(), *names)
    for broker in cluster.brokers.values():
        broker.topic_types["T"] = "TRANSACTION"
    return cluster


async def send(cluster: Cluster, *messages: defs.Message) -> v2.SendMessageResponse:
    request = v2.SendMessageRequest(messages=messages)
    return await service_of(cluster).send_message(request, context_of(cluster.clock))


async def end(cluster: Cluster, handle: str, **more: object) -> v2.EndTransactionResponse:
    """By a proxy that did not see the send."""
    fields = {"resolution": defs.COMMIT, "message_id": "M1", "source": defs.SOURCE_CLIENT, **more}
    request = v2.EndTransactionRequest(topic=TOPIC, transaction_id=handle, **fields)  # type: ignore[arg-type]  # as said
    return await service_of(cluster).end_transaction(request, context_of(cluster.clock))


# -- half messages -----------------------------------------------------------------------------------------------------


async def test_a_half_message_is_stored_as_one() -> None:
    """The bit of the flag and TRAN_MSG; its producer group is the topic; the client's patience in whole seconds."""
    cluster = transactional_cluster("a")
    sent = half_message()
    sent.system_properties.orphaned_transaction_recovery_duration.FromMilliseconds(7_900)
    response = await send(cluster, sent)
    assert response.status.code == Code.OK
    (record,) = cluster.brokers["a"].records
    assert record.sys_flag == 4
    assert decode_properties(record.properties) == {
        "UNIQ_KEY": "M1",
        "PGROUP": "T",
        "TRAN_MSG": "true",
        "CHECK_IMMUNITY_TIME_IN_SECONDS": "7",
    }


async def test_its_transaction_id_says_where_it_is() -> None:
    """Broker, offset in the half topic, offset in the log: nothing that only this proxy knows."""
    cluster = transactional_cluster("a")
    for _ in range(3):
        response = await send(cluster, half_message())
    assert response.entries[0].transaction_id == "v1 2 2000 a"
    assert response.entries[0].message_id == "M1"


async def test_half_messages_go_alone() -> None:
    """A batch would have one end, its messages need one each."""
    cluster = transactional_cluster("a")
    response = await send(cluster, half_message("M1"), half_message("M2"))
    assert [entry.transaction_id for entry in response.entries] == ["v1 0 0 a", "v1 1 1000 a"]
    assert [send.batch for send in cluster.brokers["a"].asked(mesh.SendMessageRequest)] == [False, False]


async def test_a_half_message_that_may_be_lost_has_no_transaction_id() -> None:
    """As it has no message id."""
    cluster = transactional_cluster("a")
    cluster.brokers["a"].send_status = mesh.FLUSH_DISK_TIMEOUT
    (entry,) = (await send(cluster, half_message())).entries
    assert (entry.status.code, entry.transaction_id) == (Code.MASTER_PERSISTENCE_TIMEOUT, "")


# -- their end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [defs.SOURCE_CLIENT, defs.SOURCE_SERVER_CHECK])
@pytest.mark.parametrize(
    ("resolution", "told"),
    [
        (defs.COMMIT, mesh.TRANSACTION_COMMIT),
        (defs.ROLLBACK, mesh.TRANSACTION_ROLLBACK),
        (defs.TRANSACTION_RESOLUTION_UNSPECIFIED, None),
    ],
)
async def test_any_proxy_ends_a_transaction(
    source: defs.TransactionSource,
    resolution: defs.TransactionResolution,
    told: mesh.TransactionResolution | None,
) -> None:
    """At the broker that the id names, by what the id says; who does not know yet changes nothing."""
    cluster = transactional_cluster("a", "b")
    response = await end(cluster, "v1 7 4711 b", resolution=resolution, source=source)
    assert response.status.code == Code.OK
    expected = mesh.EndTransactionRequest(producer_group="T", queue_offset=7, physical_offset=4711, message_id="M1")
    if told is not None:
        expected.resolution = told
    asked = {name: broker.asked(mesh.EndTransactionRequest) for name, broker in cluster.brokers.items()}
    assert asked == {"a": [], "b": [] if told is None else [expected]}


@pytest.mark.parametrize(
    "handle",
    [
        "",
        "M1",
        "v1 7 4711",
        "v1 7 4711 ",
        "v2 7 4711 a",
        "v1 x 4711 a",
        "v1 -7 4711 a",
        f"v1 {2**63} 0 a",
        "v1 7 1 " + "a" * 600,
    ],
)
async def test_what_is_no_transaction_id(handle: str) -> None:
    """Malformed, or of another proxy: refused before anybody is asked, whatever is to become of it."""
    cluster = transactional_cluster("a")
    for resolution in (defs.COMMIT, defs.TRANSACTION_RESOLUTION_UNSPECIFIED):
        with pytest.raises(ProxyError, match="transaction_id: ") as caught:
            await end(cluster, handle, resolution=resolution)
        assert caught.value.code == Code.INVALID_TRANSACTION_ID
    assert cluster.brokers["a"].requests == []


def test_a_transaction_id_is_read_as_it_was_written() -> None:
    """Whatever the broker is called."""
    handle = transaction_id.TransactionId(2**63 - 1, 0, "broker with spaces")
    assert transaction_id.parse(str(handle)) == handle


async def test_a_transaction_that_is_not_pending() -> None:
    """Of another topic or message, ended otherwise or long ago: the broker says so, in its words."""
    cluster = transactional_cluster("a")
    reply = mesh.EndTransactionReply(result=mesh.END_NOT_FOUND, remark="it was decided before")
    cluster.brokers["a"].end_reply = reply
    with pytest.raises(ProxyError, match="transaction_id: it was decided before") as caught:
        await end(cluster, "v1 7 4711 a")
    assert caught.value.code == Code.INVALID_TRANSACTION_ID


async def test_a_broker_that_nobody_knows() -> None:
    """The id is of another cluster, or made up."""
    with pytest.raises(ProxyError, match="transaction_id: no broker z") as caught:
        await end(transactional_cluster("a"), "v1 7 4711 z")
    assert caught.value.code == Code.INVALID_TRANSACTION_ID


@pytest.mark.parametrize(
    ("more", "code"),
    [({"resolution": 9}, Code.BAD_REQUEST), ({"message_id": "m" * 256}, Code.ILLEGAL_MESSAGE_ID)],
)
async def test_an_end_that_is_wrong(more: dict[str, object], code: Code) -> None:
    """Nobody is asked."""
    cluster = transactional_cluster("a")
    with pytest.raises(ProxyError) as caught:
        await end(cluster, "v1 7 4711 a", **more)
    assert (caught.value.code, cluster.brokers["a"].requests) == (code, [])


async def test_a_broker_that_fails_to_end_it() -> None:
    """Its own code, so that the client may try again: the id is good."""
    cluster = transactional_cluster("a")
    cluster.brokers["a"].before = refuse(ResponseCode.SYSTEM_BUSY, mesh.EndTransactionRequest)
    with pytest.raises(ProxyError) as caught:
        await end(cluster, "v1 7 4711 a")
    assert caught.value.code == Code.TOO_MANY_REQUESTS


# -- questions ---------------------------------------------------------------------------------------------------------


def question(key: str = "M1", client_id: str = "c@1", topic: str = "T") -> mesh.TransactionCheck:
    """As a broker asks it."""
    properties = encode_properties({"UNIQ_KEY": key, "TRAN_MSG": "true", "PGROUP": topic, "colour": "red"})
    record = half_record(topic, b"half", properties)
    return mesh.TransactionCheck(
        producer_group=topic, client_id=client_id, record=encode_record(record), message_id=key
    )


@dataclass
class Producer:
    """A client with one stream; `has_room` is whether it reads."""

    received: list[v2.TelemetryCommand] = field(default_factory=list)
    has_room: bool = True
    close: Callable[[], None] = lambda: None

    @property
    def asked(self) -> list[str]:
        """The message ids it was asked about."""
        return [
            command.recover_orphaned_transaction_command.message.system_properties.message_id
            for command in self.received
            if command.HasField("recover_orphaned_transaction_command")
        ]


async def connected(service: MessagingService, cluster: Cluster, client_id: str = "c@1") -> Producer:
    """A producer of topic T whose settings are known."""
    client = Producer()
    context = context_of(cluster.clock, client_id=client_id)
    session = service.open_telemetry(context, client.received.append, has_room=lambda: client.has_room)
    await session.on_command(producer())
    client.close = session.closed
    return client


async def settled(cluster: Cluster, seconds: float = 1.1) -> None:
    await cluster.clock.run_for(seconds)


async def test_a_producer_is_asked() -> None:
    """The message under the name that the client gave its topic, and a transaction id that ends the newest copy."""
    cluster = transactional_cluster("a")
    service = service_of(cluster)
    async with running(service):
        client = await connected(service, cluster)
        await settled(cluster)
        cluster.brokers["a"].questions.put_nowait(question())
        await settled(cluster, 0.01)
        command = client.received[-1].recover_orphaned_transaction_command
        assert command.transaction_id == "v1 8 5000 a"
        assert (command.message.topic, command.message.body) == (TOPIC, b"half")
        assert dict(command.message.user_properties) == {"colour": "red"}
        assert command.message.system_properties.message_type == defs.TRANSACTION
        assert client.asked == ["M1"]
        assert service.orphans.questions == {Delivery.DELIVERED: 1}


async def test_brokers_are_polled_while_there_are_producers() -> None:
    """Consumers are no reason; without producers the call is given up."""
    cluster = transactional_cluster("a")
    service = service_of(cluster)
    polls = cluster.brokers["a"]
    async with running(service):
        await settled(cluster, 3.0)
        assert polls.asked(mesh.TakeTransactionChecksRequest) == []
        client = await connected(service, cluster)
        await settled(cluster)
        (request,) = polls.asked(mesh.TakeTransactionChecksRequest)
        assert (request.max_nums, request.poll_time_ms) == (32, 20_000)
        client.close()
        await settled(cluster, 8.0)
        polls.questions.put_nowait(question())
        await settled(cluster, 30.0)
        assert polls.questions.qsize() == 1


async def test_another_producer_answers_for_one_that_is_gone() -> None:
    """Its stream is over, or the broker chose a client that this proxy does not know any more."""
    cluster = transactional_cluster("a")
    service = service_of(cluster)
    async with running(service):
        gone, other = [await connected(service, cluster, name) for name in ("gone", "other")]
        gone.close()
        await settled(cluster)
        for client_id in ("gone", "never there"):
            cluster.brokers["a"].questions.put_nowait(question(client_id, client_id))
        await settled(cluster, 0.01)
        assert (gone.asked, other.asked) == ([], ["gone", "never there"])


async def test_a_question_that_nobody_takes_is_dropped() -> None:
    """It comes again; questions behind it are carried on."""
    cluster = transactional_cluster("a")
    service = service_of(cluster)
    async with running(service):
        client = await connected(service, cluster)
        await settled(cluster)
        for key, topic in (("M1", "Other"), ("M2", "T")):
            cluster.brokers["a"].questions.put_nowait(question(key, topic=topic))
        await settled(cluster, 0.01)
        assert client.asked == ["M2"]
        assert service.orphans.questions == {Delivery.NOBODY: 1, Delivery.DELIVERED: 1}


async def test_a_producer_that_does_not_read_is_waited_for() -> None:
    """No further question is taken meanwhile, so that the broker holds back what it counts; not for ever."""
    cluster = transactional_cluster("a")
    service = service_of(cluster)
    async with running(service):
        client = await connected(service, cluster)
        await settled(cluster)
        client.has_room = False
        cluster.brokers["a"].questions.put_nowait(question("M1"))
        await settled(cluster, 3.0)
        cluster.brokers["a"].questions.put_nowait(question("M2"))
        assert (client.asked, cluster.brokers["a"].questions.qsize()) == ([], 1)
        client.has_room = True
        await settled(cluster, 0.2)
        assert client.asked == ["M1", "M2"]
        client.has_room = False
        for key in ("M3", "M4", "M5"):
            cluster.brokers["a"].questions.put_nowait(question(key))
        await settled(cluster, 6.0)
        assert service.orphans.questions == {Delivery.DELIVERED: 2, Delivery.BUSY: 3}


async def test_a_broker_that_fails_or_is_too_old_is_asked_again() -> None:
    """After a second; one that does not know the call after a minute. The first call that it answers does not wait."""
    cluster = transactional_cluster("a")
    service = service_of(cluster)
    broker = cluster.brokers["a"]
    codes = [ResponseCode.SYSTEM_ERROR, ResponseCode.REQUEST_CODE_NOT_SUPPORTED]

    def refuse_first(request: object) -> None:
        if isinstance(request, mesh.TakeTransactionChecksRequest) and codes:
            raise CallRefused(codes.pop(0), "no")

    broker.before = refuse_first
    async with running(service):
        client = await connected(service, cluster)
        asked = [(2.2, 2), (50.0, 2), (11.0, 4)]
        for seconds, count in asked:
            await settled(cluster, seconds)
            assert len(broker.asked(mesh.TakeTransactionChecksRequest)) == count
        assert [request.poll_time_ms for request in broker.asked(mesh.TakeTransactionChecksRequest)[-2:]] == [0, 20_000]
        broker.questions.put_nowait(question())
        await settled(cluster, 0.01)
        assert client.asked == ["M1"]


async def test_a_damaged_question_is_skipped() -> None:
    """The others of the answer are carried on."""
    cluster = transactional_cluster("a")
    service = service_of(cluster)
    async with running(service):
        client = await connected(service, cluster)
        await settled(cluster)
        broken = question()
        broken.record = broken.record[:-3]
        for check in (broken, question("M2")):
            cluster.brokers["a"].questions.put_nowait(check)
        await asyncio.sleep(0)
        await settled(cluster, 0.01)
        assert client.asked == ["M2"]
