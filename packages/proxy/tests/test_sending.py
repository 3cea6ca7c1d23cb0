"""SendMessage without a socket: against brokers in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import CallRefused, StreamLost
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.messaging import MessagingService
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.message_id import RecallHandle, encode_recall_handle
from apogeemq.remoting_codec.roles import NOT_MASTER

from packages.proxy.tests.brokers_in_memory import Cluster, cluster_of, context_of, refuse


def message(message_id: str = "M1", body: bytes = b"hello", **system: Any) -> defs.Message:
    return defs.Message(
        topic=defs.Resource(name="T"),
        system_properties=defs.SystemProperties(message_id=message_id, **system),
        body=body,
    )


SOON = {"seconds": 1_700_000_005, "nanos": 678_900_000}
"""Within a horizon of the clock's first moment."""


def service_of(cluster: Cluster) -> MessagingService:
    return MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1))


async def test_a_message_is_stored_with_its_properties() -> None:
    """Tag, keys and id of the message become RocketMQ's properties; the answer has id and offset."""
    cluster = cluster_of(ManualClock(), "a")
    sent = message("M1", tag="A", keys=["k1", "k2"])
    sent.user_properties["colour"] = "red"
    response = await service_of(cluster).send_message(v2.SendMessageRequest(messages=[sent]), context_of(cluster.clock))
    assert response.status.code == Code.OK
    assert [(e.status.code, e.message_id, e.offset) for e in response.entries] == [(Code.OK, "M1", 0)]
    (record,) = cluster.brokers["a"].records
    properties = decode_properties(record.properties)
    assert properties == {"colour": "red", "UNIQ_KEY": "M1", "TAGS": "A", "KEYS": "k1 k2", "PGROUP": "T"}
    assert record.body == b"hello"


async def test_messages_of_a_group_go_to_its_queue_in_their_order() -> None:
    """Each stretch of one group is a batch; where it goes does not depend on who sent before."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].topic_types["T"] = "FIFO"
    service = service_of(cluster)
    for _ in range(3):
        messages = [
            message(f"{group}{number}", message_type=defs.FIFO, message_group=group)
            for group in ("orders-1", "grüße")
            for number in range(2)
        ]
        request = v2.SendMessageRequest(messages=messages)
        response = await service.send_message(request, context_of(cluster.clock))
        assert [entry.status.code for entry in response.entries] == [Code.OK] * 4
    sends = [one for one in cluster.brokers["a"].requests if isinstance(one, mesh.SendMessageRequest)]
    assert [(send.queue_id, send.batch) for send in sends] == [(1, True), (0, True)] * 3


async def test_several_messages_are_one_batch() -> None:
    """Messages of one topic go to one queue in one call; their offsets follow each other."""
    cluster = cluster_of(ManualClock(), "a", "b")
    request = v2.SendMessageRequest(messages=[message("M1", b"1"), message("M2", b"2"), message("M3", b"3")])
    response = await service_of(cluster).send_message(request, context_of(cluster.clock))
    assert [(entry.message_id, entry.offset) for entry in response.entries] == [("M1", 0), ("M2", 1), ("M3", 2)]
    sends = [send for broker in cluster.brokers.values() for send in broker.asked(mesh.SendMessageRequest)]
    assert [send.batch for send in sends] == [True]


async def test_messages_of_different_encodings_go_separately_and_are_answered_one_by_one() -> None:
    """A batch has one system flag: a compressed message beside plain ones is a send of its own."""
    cluster = cluster_of(ManualClock(), "a")
    broker = cluster.brokers["a"]

    def refuse_compressed(request: object) -> None:
        if isinstance(request, mesh.SendMessageRequest) and request.sys_flag & 1:
            refuse(ResponseCode.MESSAGE_ILLEGAL, mesh.SendMessageRequest)(request)

    broker.before = refuse_compressed
    request = v2.SendMessageRequest(messages=[message("M1"), message("M2", body_encoding=defs.GZIP), message("M3")])
    response = await service_of(cluster).send_message(request, context_of(cluster.clock))
    assert response.status.code == Code.MULTIPLE_RESULTS
    assert [entry.status.code for entry in response.entries] == [Code.OK, Code.BAD_REQUEST, Code.OK]
    assert [entry.message_id for entry in response.entries] == ["M1", "", "M3"]


async def test_sends_take_turns_over_all_queues() -> None:
    """Eight sends over two brokers of two queues each: two to each queue."""
    cluster = cluster_of(ManualClock(), "a", "b")
    service = service_of(cluster)
    for index in range(8):
        await service.send_message(v2.SendMessageRequest(messages=[message(f"M{index}")]), context_of(cluster.clock))
    queues = sorted(
        (name, send.queue_id)
        for name, broker in cluster.brokers.items()
        for send in broker.asked(mesh.SendMessageRequest)
    )
    assert queues == [("a", 0)] * 2 + [("a", 1)] * 2 + [("b", 0)] * 2 + [("b", 1)] * 2


@pytest.mark.parametrize("code", [ResponseCode.SYSTEM_BUSY, ResponseCode.SERVICE_NOT_AVAILABLE])
async def test_what_a_broker_refuses_for_itself_goes_to_another(code: ResponseCode) -> None:
    """A busy or full broker stored nothing: the other one gets the message, and the next ones first."""
    cluster = cluster_of(ManualClock(), "a", "b")
    cluster.brokers["a"].before = refuse(code, mesh.SendMessageRequest)
    service = service_of(cluster)
    for index in range(4):
        request = v2.SendMessageRequest(messages=[message(f"M{index}")])
        assert (await service.send_message(request, context_of(cluster.clock))).status.code == Code.OK
    assert len(cluster.brokers["b"].records) == 4
    assert len(cluster.brokers["a"].asked(mesh.SendMessageRequest)) <= 1  # avoided after its first refusal


async def test_a_broker_that_is_down_is_passed_over() -> None:
    """A broker that can't be reached got nothing, so that another one may be sent to."""
    cluster = cluster_of(ManualClock(), "a", "b")
    cluster.down = {"a"}
    service = service_of(cluster)
    for index in range(4):
        request = v2.SendMessageRequest(messages=[message(f"M{index}")])
        assert (await service.send_message(request, context_of(cluster.clock))).status.code == Code.OK
    assert len(cluster.brokers["b"].records) == 4


async def test_a_send_of_unknown_outcome_is_not_repeated() -> None:
    """After a lost stream the message may be stored: the client is told to decide, no other broker is asked."""
    cluster = cluster_of(ManualClock(), "a", "b")

    class Losing:
        target = "losing"

        def __init__(self) -> None:
            self.sends = 0

        async def call(self, call: object, request: object, *, timeout_s: float, on_late: object = None) -> object:
            if isinstance(request, mesh.SendMessageRequest):
                self.sends += 1
                raise StreamLost("broker", "reset")
            return mesh.QueryTopicReply(found=True)

    losing = Losing()
    cluster.caller = lambda broker_name: losing  # type: ignore[method-assign,assignment,return-value]  # a double
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).send_message(v2.SendMessageRequest(messages=[message()]), context_of(cluster.clock))
    assert caught.value.code == Code.PROXY_TIMEOUT
    assert losing.sends == 1


NOT_MASTER_REFUSAL = CallRefused(ResponseCode.SERVICE_NOT_AVAILABLE, f"{NOT_MASTER}ask for the one that is")


async def waited_for(cluster: Cluster, sending: asyncio.Future[v2.SendMessageResponse], seconds: float) -> None:
    """Let so much time pass; nobody is answered meanwhile."""
    await cluster.clock.run_for(seconds)
    assert not sending.done()


async def test_a_send_waits_for_the_next_master() -> None:
    """Nothing was stored while the set had none: the client sees one send that took a second."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.down = {"a"}
    sending = asyncio.ensure_future(
        service_of(cluster).send_message(v2.SendMessageRequest(messages=[message()]), context_of(cluster.clock))
    )
    await waited_for(cluster, sending, 1.0)
    cluster.down = set()
    await cluster.clock.run_for(0.3)
    assert (await sending).status.code == Code.OK
    assert len(cluster.brokers["a"].records) == 1
    assert set(cluster.doubted) == {"T"}


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_broker_that_is_master_no_longer_is_waited_for(is_known: bool) -> None:
    """Whether it is asked about the topic first or sent to; the queues of another broker are used if there is one."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    request = v2.SendMessageRequest(messages=[message()])
    if is_known:
        await service.send_message(request, context_of(cluster.clock))
    is_away = True

    def before(request: object) -> None:
        if is_away:
            raise NOT_MASTER_REFUSAL

    cluster.brokers["a"].before = before
    sending = asyncio.ensure_future(service.send_message(request, context_of(cluster.clock)))
    await waited_for(cluster, sending, 0.5)
    is_away = False
    await cluster.clock.run_for(0.3)
    assert (await sending).status.code == Code.OK
    assert len(cluster.brokers["a"].records) == 1 + is_known


async def test_a_set_without_a_master_costs_no_more_than_the_deadline() -> None:
    """The refusal leaves before the client's own deadline; tries come with pauses between them."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].topic_types["T"] = "NORMAL"
    service = service_of(cluster)
    request = v2.SendMessageRequest(messages=[message()])
    await service.send_message(request, context_of(cluster.clock))

    def refuse_sends(request: object) -> None:
        if isinstance(request, mesh.SendMessageRequest):
            raise NOT_MASTER_REFUSAL

    cluster.brokers["a"].before = refuse_sends
    sending = asyncio.ensure_future(service.send_message(request, context_of(cluster.clock, timeout_s=3.0)))
    await waited_for(cluster, sending, 2.5)
    await cluster.clock.run_for(0.45)
    assert sending.done()
    assert isinstance(sending.exception(), ProxyError)
    assert 10 < len(cluster.brokers["a"].asked(mesh.SendMessageRequest)) < 40


async def test_a_full_broker_is_not_waited_for() -> None:
    """SERVICE_NOT_AVAILABLE without the word of another master: refused at once, as the only broker there is."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].before = refuse(ResponseCode.SERVICE_NOT_AVAILABLE, mesh.SendMessageRequest)
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).send_message(v2.SendMessageRequest(messages=[message()]), context_of(cluster.clock))
    assert caught.value.code == Code.INTERNAL_SERVER_ERROR
    assert len(cluster.brokers["a"].asked(mesh.SendMessageRequest)) == 1


async def test_waiting_can_be_switched_off() -> None:
    """limits.master_wait_s = 0: the client hears at once that the broker can't be reached."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.down = {"a"}
    limits = Limits(master_wait_s=0)
    service = MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1), limits=limits)
    with pytest.raises(ProxyError) as caught:
        await service.send_message(v2.SendMessageRequest(messages=[message()]), context_of(cluster.clock))
    assert caught.value.code == Code.PROXY_TIMEOUT


async def test_a_broker_that_does_not_answer_costs_no_more_than_the_deadline() -> None:
    """The refusal leaves before the client's own deadline."""
    cluster = cluster_of(ManualClock(), "a")

    async def never() -> None:
        await asyncio.Event().wait()

    cluster.brokers["a"].before = lambda request: never() if isinstance(request, mesh.SendMessageRequest) else None
    request = v2.SendMessageRequest(messages=[message()])
    sending = asyncio.ensure_future(service_of(cluster).send_message(request, context_of(cluster.clock, timeout_s=1.0)))
    await cluster.clock.run_for(0.95)
    assert sending.done()
    assert isinstance(error := sending.exception(), ProxyError)
    assert error.code == Code.PROXY_TIMEOUT


@pytest.mark.parametrize(
    ("send_status", "code"),
    [
        (mesh.FLUSH_DISK_TIMEOUT, Code.MASTER_PERSISTENCE_TIMEOUT),
        (mesh.FLUSH_SLAVE_TIMEOUT, Code.SLAVE_PERSISTENCE_TIMEOUT),
        (mesh.SLAVE_NOT_AVAILABLE, Code.HA_NOT_AVAILABLE),
    ],
)
async def test_a_message_that_is_not_safe_has_no_id(send_status: mesh.SendStatus, code: Code) -> None:
    """What a failure may still lose is answered with its status and no message id."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].send_status = send_status
    request = v2.SendMessageRequest(messages=[message()])
    response = await service_of(cluster).send_message(request, context_of(cluster.clock))
    assert (response.status.code, response.entries[0].status.code, response.entries[0].message_id) == (code, code, "")


async def test_a_topic_without_write_permission_is_forbidden() -> None:
    """Permission 4 is reading only."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.topics["T"] = 4
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).send_message(v2.SendMessageRequest(messages=[message()]), context_of(cluster.clock))
    assert caught.value.code == Code.FORBIDDEN


async def test_an_unknown_topic_is_not_found() -> None:
    """Sending makes no topic, even where queries do."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.topics, cluster.creates = {}, True
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).send_message(v2.SendMessageRequest(messages=[message()]), context_of(cluster.clock))
    assert caught.value.code == Code.TOPIC_NOT_FOUND


@pytest.mark.parametrize(
    ("system", "topic_type", "code"),
    [
        ({"message_type": defs.FIFO, "message_group": "g"}, "FIFO", None),
        ({"message_type": defs.DELAY}, "DELAY", Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ({"message_type": defs.DELAY, "delivery_timestamp": SOON}, "DELAY", None),
        ({"message_type": defs.DELAY, "delivery_timestamp": SOON, "message_group": "g"}, "DELAY", None),
        ({"message_type": defs.NORMAL, "delivery_timestamp": SOON}, "DELAY", None),
        ({"delivery_timestamp": SOON}, "MIXED", None),
        ({"delivery_timestamp": SOON}, "NORMAL", Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ({"delivery_timestamp": SOON}, "FIFO", Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ({"message_type": defs.TRANSACTION}, "TRANSACTION", None),
        ({"message_type": defs.TRANSACTION}, "MIXED", None),
        ({"message_type": defs.TRANSACTION}, "", Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ({"message_type": defs.NORMAL}, "TRANSACTION", Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ({"message_group": "g"}, "", Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ({"message_type": defs.NORMAL}, "FIFO", Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
        ({"message_type": defs.NORMAL}, "MIXED", None),
        ({}, "", None),
    ],
)
async def test_messages_must_fit_their_topic(system: dict[str, Any], topic_type: str, code: Code | None) -> None:
    """Of the kinds that are served, and only for topics that take them."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].topic_types["T"] = topic_type
    sending = service_of(cluster).send_message(
        v2.SendMessageRequest(messages=[message(**system)]), context_of(cluster.clock)
    )
    if code is None:
        assert (await sending).status.code == Code.OK
    else:
        with pytest.raises(ProxyError) as caught:
            await sending
        assert caught.value.code == code


async def test_a_message_with_a_time_waits_for_it_and_can_be_taken_back() -> None:
    """The time in ms becomes TIMER_DELIVER_MS; the answer has what the broker takes it back by."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].topic_types["T"] = "MIXED"
    service = service_of(cluster)
    request = v2.SendMessageRequest(messages=[message("M1", delivery_timestamp=SOON)])
    (entry,) = (await service.send_message(request, context_of(cluster.clock))).entries
    assert decode_properties(cluster.brokers["a"].records[0].properties)["TIMER_DELIVER_MS"] == "1700000005678"
    recall = v2.RecallMessageRequest(topic=defs.Resource(name="T"), recall_handle=entry.recall_handle)
    recalled = await service.recall_message(recall, context_of(cluster.clock))
    assert (recalled.status.code, recalled.message_id) == (Code.OK, "M1")
    (asked,) = cluster.brokers["a"].asked(mesh.RecallMessageRequest)
    assert (asked.topic, asked.recall_handle) == ("T", entry.recall_handle)


@pytest.mark.parametrize(
    ("seconds", "stored"), [(1_699_999_999, "1699999999000"), (1, "1000"), (-1, "0"), (-(2**62), "0")]
)
async def test_a_time_that_is_over_is_the_brokers_matter(seconds: int, stored: str) -> None:
    """It delivers at once; a time before 1970 is one of those."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].topic_types["T"] = "MIXED"
    request = v2.SendMessageRequest(messages=[message("M1", delivery_timestamp={"seconds": seconds})])
    (entry,) = (await service_of(cluster).send_message(request, context_of(cluster.clock))).entries
    assert (entry.status.code, entry.recall_handle) == (Code.OK, "")
    assert decode_properties(cluster.brokers["a"].records[0].properties)["TIMER_DELIVER_MS"] == stored


async def test_a_brokers_horizon_may_be_nearer_than_the_proxys() -> None:
    """Its refusal begins with the words of Apache's; the API has a code for it. Other refusals keep theirs."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].topic_types["T"] = "DELAY"
    for text, code in (("timer message illegal, 9 s", Code.ILLEGAL_DELIVERY_TIME), ("too large", Code.BAD_REQUEST)):
        error = CallRefused(ResponseCode.MESSAGE_ILLEGAL, text)

        def refuse_it(request: object, error: CallRefused = error) -> None:
            if isinstance(request, mesh.SendMessageRequest):
                raise error

        cluster.brokers["a"].before = refuse_it
        request = v2.SendMessageRequest(messages=[message("M1", delivery_timestamp=SOON)])
        with pytest.raises(ProxyError) as caught:
            await service_of(cluster).send_message(request, context_of(cluster.clock))
        assert (caught.value.code, caught.value.message) == (code, text)


async def test_messages_with_a_time_go_one_by_one() -> None:
    """A batch has no delays; what is beside them still goes as one."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].topic_types["T"] = "MIXED"
    sent = [message("M1"), message("M2"), *(message(f"M{n}", delivery_timestamp=SOON) for n in (3, 4)), message("M5")]
    response = await service_of(cluster).send_message(v2.SendMessageRequest(messages=sent), context_of(cluster.clock))
    assert [entry.message_id for entry in response.entries] == ["M1", "M2", "M3", "M4", "M5"]
    assert [bool(entry.recall_handle) for entry in response.entries] == [False, False, True, True, False]
    assert [send.batch for send in cluster.brokers["a"].asked(mesh.SendMessageRequest)] == [True, False, False, False]


@pytest.mark.parametrize(
    ("handle", "code"),
    [
        ("", Code.BAD_REQUEST),
        ("rubbish", Code.BAD_REQUEST),
        (encode_recall_handle(RecallHandle("T", "nobody", 1_700_000_005_000, "M1")), Code.BAD_REQUEST),
        (encode_recall_handle(RecallHandle("T", "a", 1, "M1")), Code.BAD_REQUEST),
    ],
)
async def test_what_is_no_recall_is_refused(handle: str, code: Code) -> None:
    """By the proxy, or by the broker that the handle names: then the text is the broker's."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].before = refuse(ResponseCode.ILLEGAL_OPERATION, mesh.RecallMessageRequest)
    request = v2.RecallMessageRequest(topic=defs.Resource(name="T"), recall_handle=handle)
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).recall_message(request, context_of(cluster.clock))
    assert caught.value.code == code


async def test_kinds_of_messages_may_be_of_no_matter() -> None:
    """enableTopicMessageTypeCheck=false: an ordinary message goes into any topic."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].topic_types["T"] = "FIFO"
    limits = Limits(message_types_checked=False)
    service = MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1), limits=limits)
    request = v2.SendMessageRequest(messages=[message()])
    assert (await service.send_message(request, context_of(cluster.clock))).status.code == Code.OK


async def test_a_topics_kind_for_remoting_clients() -> None:
    """As a broker has it, asked once; none for one that is not there yet; not to be said while no broker answers."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].topic_types["T"] = "FIFO"
    service = service_of(cluster)
    assert [await service.topic_type("T") for _ in range(2)] == ["FIFO", "FIFO"]
    assert len(cluster.brokers["a"].asked(mesh.QueryTopicRequest)) == 1
    cluster.topics = {}
    assert await service.topic_type("New") == ""
    down = cluster_of(ManualClock(), "a")
    down.brokers["a"].before = refuse(ResponseCode.SYSTEM_ERROR, mesh.QueryTopicRequest)
    assert await service_of(down).topic_type("T") is None


async def test_a_refusal_of_the_message_itself_goes_nowhere_else() -> None:
    """MESSAGE_ILLEGAL would be said by every broker: one try, and the broker's text."""
    cluster = cluster_of(ManualClock(), "a", "b")
    for broker in cluster.brokers.values():
        broker.before = refuse(ResponseCode.MESSAGE_ILLEGAL, mesh.SendMessageRequest)
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).send_message(v2.SendMessageRequest(messages=[message()]), context_of(cluster.clock))
    assert (caught.value.code, caught.value.message) == (Code.BAD_REQUEST, "the twin says no")
    assert sum(len(broker.asked(mesh.SendMessageRequest)) for broker in cluster.brokers.values()) == 1


async def test_when_no_broker_has_the_topic_its_route_is_asked_for_anew() -> None:
    """Each is tried once; the client is told what the last one said."""
    cluster = cluster_of(ManualClock(), "a", "b")
    for broker in cluster.brokers.values():
        broker.before = refuse(ResponseCode.TOPIC_NOT_EXIST, mesh.SendMessageRequest)
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).send_message(v2.SendMessageRequest(messages=[message()]), context_of(cluster.clock))
    assert caught.value.code == Code.TOPIC_NOT_FOUND
    assert [len(broker.asked(mesh.SendMessageRequest)) for broker in cluster.brokers.values()] == [1, 1]
    assert cluster.forgotten == ["T", "T"]


async def test_bodies_of_a_batch_count_together() -> None:
    """Each of two bodies may pass, both together are above 4 MiB."""
    cluster = cluster_of(ManualClock(), "a")
    request = v2.SendMessageRequest(messages=[message("M1", b"x" * (3 << 20)), message("M2", b"x" * (2 << 20))])
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).send_message(request, context_of(cluster.clock))
    assert caught.value.code == Code.MESSAGE_BODY_TOO_LARGE


async def test_a_topic_is_asked_about_once_in_a_while() -> None:
    """The type of a topic holds for 20 s; within them a send costs one call."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    broker = cluster.brokers["a"]
    for asked in (1, 1, 1):
        await service.send_message(v2.SendMessageRequest(messages=[message()]), context_of(cluster.clock))
        assert len(broker.asked(mesh.QueryTopicRequest)) == asked
    await cluster.clock.run_for(20.0)
    await service.send_message(v2.SendMessageRequest(messages=[message()]), context_of(cluster.clock))
    assert len(broker.asked(mesh.QueryTopicRequest)) == 2


async def test_a_client_that_came_by_ipv6_is_marked_so() -> None:
    """The born host has 20 bytes then, which the system flag must say."""
    cluster = cluster_of(ManualClock(), "a")
    context = msgspec.structs.replace(context_of(cluster.clock), peer_host=bytes(15) + b"\1" + bytes(4))
    await service_of(cluster).send_message(v2.SendMessageRequest(messages=[message()]), context)
    (sent,) = cluster.brokers["a"].asked(mesh.SendMessageRequest)
    assert (sent.sys_flag, len(sent.born_host)) == (0x10, 20)


async def test_a_call_without_time_left_is_not_begun() -> None:
    """REQUEST_TIMEOUT before a broker is asked for anything."""
    cluster = cluster_of(ManualClock(), "a")
    request = v2.SendMessageRequest(messages=[message()])
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).send_message(request, context_of(cluster.clock, timeout_s=0.05))
    assert caught.value.code == Code.REQUEST_TIMEOUT
    assert cluster.brokers["a"].requests == []
