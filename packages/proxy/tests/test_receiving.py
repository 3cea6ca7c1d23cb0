"""ReceiveMessage, AckMessage and ChangeInvisibleDuration against brokers in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from apogeemq.mesh.calls import Call, Caller
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import CallRefused, ChannelClosed, MeshError, StreamLost
from apogeemq.mesh.network import Req, Resp
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.durations import duration
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.messaging import MessagingService
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.message import encode_properties
from apogeemq.remoting_codec.roles import NOT_MASTER

from packages.proxy.tests.brokers_in_memory import Cluster, cluster_of, context_of, refuse

GROUP = defs.Resource(name="G")
TOPIC = defs.Resource(name="T")


def service_of(cluster: Cluster) -> MessagingService:
    return MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1))


def request_of(broker: str = "", **fields: Any) -> v2.ReceiveMessageRequest:
    queue = defs.MessageQueue(topic=TOPIC, id=-1, broker=defs.Broker(name=broker))
    request = v2.ReceiveMessageRequest(group=GROUP, message_queue=queue, batch_size=16)
    request.invisible_duration.CopyFrom(duration(15_000))
    request.MergeFrom(v2.ReceiveMessageRequest(**fields))
    return request


async def parts_of(
    service: MessagingService, cluster: Cluster, request: v2.ReceiveMessageRequest, timeout_s: float = 20.0
) -> list[v2.ReceiveMessageResponse]:
    context = context_of(cluster.clock, timeout_s=timeout_s)
    return [part async for part in service.receive_message(request, context)]


async def received(
    service: MessagingService, cluster: Cluster, request: v2.ReceiveMessageRequest, after_s: float = 1.5
) -> list[v2.ReceiveMessageResponse]:
    """The parts of an answer that comes within `after_s`, which is more than a client's settings are waited for."""
    receiving = asyncio.ensure_future(parts_of(service, cluster, request))
    await cluster.clock.run_for(after_s)
    assert receiving.done()
    return receiving.result()


def kinds(parts: list[v2.ReceiveMessageResponse]) -> list[str | None]:
    return [part.WhichOneof("content") for part in parts]


async def test_the_answer_is_status_messages_delivery_timestamp() -> None:
    """Clients rely on the order of the parts, and on an upper-case MD5 of the body."""
    cluster = cluster_of(ManualClock(), "a")
    properties = {"UNIQ_KEY": "M1", "TAGS": "A", "KEYS": "k1 k2", "colour": "red"}
    cluster.brokers["a"].store("T", b"hello", encode_properties(properties), reconsume_times=2)
    parts = await received(service_of(cluster), cluster, request_of("a"))
    assert kinds(parts) == ["status", "message", "delivery_timestamp"]
    assert parts[0].status.code == Code.OK
    message = parts[1].message
    system = message.system_properties
    assert (message.topic.name, message.body, dict(message.user_properties)) == ("T", b"hello", {"colour": "red"})
    assert (system.message_id, system.tag, list(system.keys)) == ("M1", "A", ["k1", "k2"])
    assert system.body_digest.checksum == hashlib.md5(b"hello", usedforsecurity=False).hexdigest().upper()
    assert (system.body_digest.type, system.body_encoding) == (defs.MD5, defs.IDENTITY)
    assert (system.delivery_attempt, system.queue_offset, system.born_host) == (3, 0, "10.0.0.7:8000")
    pop_time_ms = 1_700_000_001_000  # the manual clock's start, and one second of waiting for settings
    assert system.receipt_handle == f"0 {pop_time_ms} 15000 3 0 a 0 0 0"


async def test_no_message_in_time_is_message_not_found() -> None:
    """An empty answer is a status and a timestamp, and leaves before the client's deadline."""
    cluster = cluster_of(ManualClock(), "a")
    receiving = asyncio.ensure_future(parts_of(service_of(cluster), cluster, request_of("a"), timeout_s=8.0))
    await cluster.clock.run_for(7.9)
    parts = receiving.result()
    assert kinds(parts) == ["status", "delivery_timestamp"]
    assert parts[0].status.code == Code.MESSAGE_NOT_FOUND


async def test_a_long_poll_ends_with_the_first_message() -> None:
    """What is stored while a receive waits is handed out at once."""
    cluster = cluster_of(ManualClock(), "a")
    receiving = asyncio.ensure_future(parts_of(service_of(cluster), cluster, request_of("a")))
    await cluster.clock.run_for(4.0)
    assert not receiving.done()
    cluster.brokers["a"].store("T", b"now")
    await cluster.clock.run_for(0.0)
    assert kinds(receiving.result()) == ["status", "message", "delivery_timestamp"]


async def test_without_a_broker_all_are_asked_at_once() -> None:
    """A message at any of three brokers ends the wait; the polls at the others are cancelled."""
    cluster = cluster_of(ManualClock(), "a", "b", "c")
    service = service_of(cluster)
    for name in ("c", "a", "b"):
        receiving = asyncio.ensure_future(parts_of(service, cluster, request_of()))
        await cluster.clock.run_for(3.0)
        cluster.brokers[name].store("T", name.encode())
        await cluster.clock.run_for(0.0)
        assert [part.message.body for part in receiving.result() if part.HasField("message")] == [name.encode()]
    for name, broker in cluster.brokers.items():
        broker.store("T", b"later")
        assert broker.visible("G") == [1], f"a poll that was given up still popped at {name}"


async def test_what_several_brokers_have_at_once_is_handed_out_up_to_the_batch() -> None:
    """Answers that come together are joined: each broker was asked for its share."""
    cluster = cluster_of(ManualClock(), "a", "b")
    for broker in cluster.brokers.values():
        for index in range(10):
            broker.store("T", b"%d" % index)
    parts = await received(service_of(cluster), cluster, request_of())
    assert kinds(parts).count("message") == 16
    assert [len(broker.visible("G")) for broker in cluster.brokers.values()] == [2, 2]


async def test_a_batch_smaller_than_the_cluster_is_served_by_all_of_it() -> None:
    """One message at a time from three brokers: nothing is popped and given back while there is enough."""
    cluster = cluster_of(ManualClock(), "a", "b", "c")
    for name, broker in cluster.brokers.items():
        broker.store("T", name.encode())
    service = service_of(cluster)
    request = request_of()
    request.batch_size = 1
    bodies = []
    for _ in range(3):
        parts = await received(service, cluster, request)
        bodies += [part.message.body for part in parts if part.HasField("message")]
    assert sorted(bodies) == [b"a", b"b", b"c"]
    assert not any(broker.asked(mesh.ChangeInvisibleTimeRequest) for broker in cluster.brokers.values())
    receiving = asyncio.ensure_future(parts_of(service, cluster, request))
    await cluster.clock.run_for(3.0)
    cluster.brokers["b"].store("T", b"later")
    await cluster.clock.run_for(0.0)
    assert [part.message.body for part in receiving.result() if part.HasField("message")] == [b"later"]


async def test_what_is_popped_beyond_the_batch_is_visible_again_at_once() -> None:
    """A broker that gives more than it was asked for does not make messages wait for their invisible time."""
    cluster = cluster_of(ManualClock(), "a")
    for index in range(3):
        cluster.brokers["a"].store("T", b"%d" % index)

    def ask_for_more(request: object) -> None:
        if isinstance(request, mesh.PopMessageRequest):
            request.max_msg_nums = 3

    cluster.brokers["a"].before = ask_for_more
    request = request_of("a")
    request.batch_size = 1
    parts = await received(service_of(cluster), cluster, request)
    assert [part.message.body for part in parts if part.HasField("message")] == [b"0"]
    assert len(cluster.brokers["a"].visible("G")) >= 1
    changed = cluster.brokers["a"].asked(mesh.ChangeInvisibleTimeRequest)
    assert [(change.handle.queue_offset, change.invisible_time_ms) for change in changed][:2] == [(1, 0), (2, 0)]


async def test_one_broker_that_is_down_does_not_hinder_the_others() -> None:
    """Only when no broker can be asked is the receive refused."""
    cluster = cluster_of(ManualClock(), "a", "b")
    cluster.down = {"a"}
    cluster.brokers["b"].store("T", b"b")
    service = service_of(cluster)
    assert kinds(await received(service, cluster, request_of())).count("message") == 1
    cluster.down = {"a", "b"}
    receiving = asyncio.ensure_future(parts_of(service, cluster, request_of()))
    await cluster.clock.run_for(11.0)
    error = receiving.exception()
    assert isinstance(error, ProxyError)
    assert error.code == Code.PROXY_TIMEOUT


async def test_a_receive_waits_for_the_next_master() -> None:
    """The set has none for two seconds: the client is told nothing of that, and gets what the next one has at once."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.down = {"a"}
    receiving = asyncio.ensure_future(parts_of(service_of(cluster), cluster, request_of("a")))
    await cluster.clock.run_for(1.0 + 2.0)  # one second for settings
    assert not receiving.done()
    cluster.down = set()
    cluster.brokers["a"].store("T", b"later")
    await cluster.clock.run_for(0.25)  # the longest pause between two tries
    assert kinds(receiving.result()) == ["status", "message", "delivery_timestamp"]
    assert set(cluster.doubted) == {"T"}


class _Dying:
    """The way to a broker: polls wait there until it dies, and then end with an error. Nothing else does."""

    target = "dying"

    def __init__(self, caller: Caller, error: MeshError) -> None:
        self.polls: list[mesh.PopMessageRequest] = []
        self._caller = caller
        self._error = error
        self._is_dead = asyncio.Event()

    def die(self) -> None:
        self._is_dead.set()

    async def call(
        self,
        call: Call[Req, Resp],
        request: Req,
        *,
        timeout_s: float,
        on_late: Callable[[Resp], None] | None = None,
    ) -> Resp:
        if isinstance(request, mesh.PopMessageRequest):
            self.polls.append(request)
            await self._is_dead.wait()
            raise self._error
        return await self._caller.call(call, request, timeout_s=timeout_s, on_late=on_late)


@pytest.mark.parametrize(
    "error",
    [
        StreamLost("broker", "reset"),
        ChannelClosed("broker", "the caller"),
        CallRefused(ResponseCode.SERVICE_NOT_AVAILABLE, f"{NOT_MASTER}ask for the one that is"),
    ],
)
async def test_a_poll_goes_on_at_the_next_master(monkeypatch: pytest.MonkeyPatch, error: MeshError) -> None:
    """Its master dies or steps down while it waits: it waits on for what is left of its time, and gets what comes."""
    cluster = cluster_of(ManualClock(), "a")
    broker = cluster.brokers["a"]
    dying = _Dying(cluster.caller("a"), error)
    with monkeypatch.context() as patched:
        patched.setattr(cluster, "caller", lambda broker_name: dying)
        receiving = asyncio.ensure_future(parts_of(service_of(cluster), cluster, request_of("a"), timeout_s=20.0))
        await cluster.clock.run_for(6.0)
    dying.die()
    await cluster.clock.run_for(1.0)
    assert not receiving.done()
    [first], [second] = dying.polls, broker.asked(mesh.PopMessageRequest)
    assert first.poll_time_ms == 17_500  # 1 s was waited for settings, and half a request time-out of 3 s is left
    assert 12_250 <= second.poll_time_ms < 12_500
    broker.store("T", b"later")
    await cluster.clock.run_for(0.0)
    assert kinds(receiving.result()) == ["status", "message", "delivery_timestamp"]


async def test_a_receive_waits_no_longer_than_it_polls() -> None:
    """A client that waits for 8 s hears before that time is over that there is no master."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.down = {"a"}
    receiving = asyncio.ensure_future(parts_of(service_of(cluster), cluster, request_of("a"), timeout_s=8.0))
    await cluster.clock.run_for(7.5)
    error = receiving.exception()
    assert isinstance(error, ProxyError)
    assert error.code == Code.PROXY_TIMEOUT


async def test_waiting_for_a_master_can_be_switched_off() -> None:
    """limits.master_wait_s = 0: a receive is refused at once."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.down = {"a"}
    limits = Limits(master_wait_s=0)
    service = MessagingService(cluster, cluster, clock=cluster.clock, chance=SeededChance(1), limits=limits)
    with pytest.raises(ProxyError):
        await received(service, cluster, request_of("a"), 1.0)


async def test_messages_of_other_tags_are_acknowledged_and_not_handed_out() -> None:
    """Brokers compare hashes, the proxy compares the texts."""
    cluster = cluster_of(ManualClock(), "a")
    for tag in ("A", "B", "C"):
        cluster.brokers["a"].store("T", tag.encode(), encode_properties({"TAGS": tag}))
    request = request_of("a", filter_expression=defs.FilterExpression(type=defs.TAG, expression="A || C"))
    parts = await received(service_of(cluster), cluster, request)
    assert [part.message.body for part in parts if part.HasField("message")] == [b"A", b"C"]
    assert cluster.brokers["a"].acked["G"] == {1}


async def test_an_orderly_group_pops_in_order_and_is_told_its_attempts() -> None:
    """By the group's policy; the broker counts, since the record of a message that comes again lies where it lay."""
    cluster = cluster_of(ManualClock(), "a")
    broker = cluster.brokers["a"]
    broker.orderly_groups.add("G")
    broker.store("T", b"first", encode_properties({"__SHARDINGKEY": "orders"}))
    service = service_of(cluster)
    for attempt in (1, 2):
        parts = await received(service, cluster, request_of("a", attempt_id=f"attempt-{attempt}"))
        system = parts[1].message.system_properties
        assert (system.delivery_attempt, system.message_group) == (attempt, "orders")
        await cluster.clock.run_for(15.0)
    pops = [request for request in broker.requests if isinstance(request, mesh.PopMessageRequest)]
    assert [(pop.order, pop.attempt_id) for pop in pops] == [(True, "attempt-1"), (True, "attempt-2")]


async def test_what_fails_too_often_in_order_is_moved_to_the_dead_letters() -> None:
    """The group's maximum and one; else nothing of its message group would ever go on."""
    cluster = cluster_of(ManualClock(), "a")
    broker = cluster.brokers["a"]
    broker.orderly_groups.add("G")
    broker.retry_max_times = 1
    broker.store("T", b"stubborn")
    service = service_of(cluster)
    for _ in range(2):
        parts = await received(service, cluster, request_of("a"))
        assert kinds(parts) == ["status", "message", "delivery_timestamp"]
        await cluster.clock.run_for(15.0)
    parts = await received(service, cluster, request_of("a"))
    assert parts[0].status.code == Code.MESSAGE_NOT_FOUND
    await cluster.clock.run_for(0.0)
    (forward,) = [one for one in broker.requests if isinstance(one, mesh.ForwardToDeadLetterQueueRequest)]
    assert (forward.consumer_group, forward.topic, forward.handle.queue_offset) == ("G", "T", 0)
    assert forward.reason == "not acknowledged in 2 attempts"
    assert broker.acked["G"] == {0}


async def test_sql_is_the_brokers_matter() -> None:
    """The expression goes to the broker as it is; what comes back is handed out whatever its tag."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].store("T", b"A", encode_properties({"TAGS": "A"}))
    sql = defs.FilterExpression(type=defs.SQL, expression=" n > 3 AND TAGS IS NOT NULL ")
    parts = await received(service_of(cluster), cluster, request_of("a", filter_expression=sql))
    assert [part.message.body for part in parts if part.HasField("message")] == [b"A"]
    (asked,) = cluster.brokers["a"].asked(mesh.PopMessageRequest)
    assert (asked.expression_type, asked.expression) == ("SQL92", "n > 3 AND TAGS IS NOT NULL")


async def test_a_client_that_goes_in_the_middle_leaves_the_rest_to_others() -> None:
    """What was not handed over when the stream broke is visible again at once."""
    cluster = cluster_of(ManualClock(), "a")
    for index in range(3):
        cluster.brokers["a"].store("T", b"%d" % index)
    service = service_of(cluster)
    answer = service.receive_message(request_of("a"), context_of(cluster.clock, timeout_s=20))

    async def take_two() -> None:
        await anext(answer)
        await anext(answer)

    taking = asyncio.ensure_future(take_two())
    await cluster.clock.run_for(1.5)
    taking.result()
    await answer.aclose()  # type: ignore[attr-defined]  # it is a generator, which the face closes
    await cluster.clock.run_for(0.0)
    assert sorted(cluster.brokers["a"].visible("G")) == [1, 2]


async def test_a_client_that_goes_while_it_waits_pops_nothing() -> None:
    """A cancelled receive takes its polls along."""
    cluster = cluster_of(ManualClock(), "a", "b")
    receiving = asyncio.ensure_future(parts_of(service_of(cluster), cluster, request_of()))
    await cluster.clock.run_for(3.0)
    receiving.cancel()
    await cluster.clock.run_for(0.0)
    cluster.brokers["a"].store("T", b"for others")
    await cluster.clock.run_for(1.0)
    assert cluster.brokers["a"].visible("G") == [0]


async def test_waiting_for_settings_makes_no_deadline_too_short() -> None:
    """A client that gives just enough time and sends no settings gets its answer within that time."""
    cluster = cluster_of(ManualClock(), "a")
    receiving = asyncio.ensure_future(parts_of(service_of(cluster), cluster, request_of("a"), 5.2))
    await cluster.clock.run_for(5.1)
    assert [part.status.code for part in receiving.result() if part.HasField("status")] == [Code.MESSAGE_NOT_FOUND]


@pytest.mark.parametrize("timeout_s", [4.0, 0.5])
async def test_too_little_time_to_poll_is_refused(timeout_s: float) -> None:
    """Below five seconds left there is no time for a long poll; it is said at once, settings or not."""
    cluster = cluster_of(ManualClock(), "a")
    receiving = asyncio.ensure_future(parts_of(service_of(cluster), cluster, request_of("a"), timeout_s))
    await cluster.clock.run_for(0.0)
    assert isinstance(error := receiving.exception(), ProxyError)
    assert error.code == Code.ILLEGAL_POLLING_TIME


async def refusal_of(cluster: Cluster, request: v2.ReceiveMessageRequest) -> ProxyError:
    """What a receive is refused with, within the time that settings are waited for."""
    receiving = asyncio.ensure_future(parts_of(service_of(cluster), cluster, request))
    await cluster.clock.run_for(1.5)
    error = receiving.exception()
    assert isinstance(error, ProxyError)
    return error


async def test_a_broker_with_too_many_polls_asks_for_patience() -> None:
    """TOO_MANY_REQUESTS, on which clients back off; unless another broker has messages."""
    cluster = cluster_of(ManualClock(), "a", "b")
    cluster.brokers["a"].is_polling_full = True
    assert (await refusal_of(cluster, request_of("a"))).code == Code.TOO_MANY_REQUESTS
    cluster.brokers["b"].store("T", b"b")
    assert kinds(await received(service_of(cluster), cluster, request_of())).count("message") == 1


async def test_a_broker_that_refuses_a_pop_is_heard() -> None:
    """Its code in the API's words: an unknown group is the client's matter."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].before = refuse(ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST, mesh.PopMessageRequest)
    assert (await refusal_of(cluster, request_of("a"))).code == Code.CONSUMER_GROUP_NOT_FOUND


async def test_a_topic_that_nobody_may_read_is_forbidden() -> None:
    """Permission 2 is writing only."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.topics["T"] = 2
    assert (await refusal_of(cluster, request_of("a"))).code == Code.FORBIDDEN


async def test_a_damaged_record_hides_no_other_brokers_messages() -> None:
    """It is the broker's fault and told so, where there is nothing else to hand out."""
    cluster = cluster_of(ManualClock(), "a", "b")
    cluster.brokers["a"].damages_records = True
    for broker in cluster.brokers.values():
        broker.store("T", broker.name.encode())
    parts = await received(service_of(cluster), cluster, request_of())
    assert [part.message.body for part in parts if part.HasField("message")] == [b"b"]
    cluster.brokers["a"].store("T", b"again")
    assert (await refusal_of(cluster, request_of("a"))).code == Code.INTERNAL_SERVER_ERROR


async def test_settings_end_the_wait_for_them() -> None:
    """A receive that came before its client's settings goes on with them at once, and the next one never waits."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].store("T", b"1")
    service = service_of(cluster)
    receiving = asyncio.ensure_future(parts_of(service, cluster, request_of("a")))
    await cluster.clock.run_for(0.5)
    assert not receiving.done()
    settings = defs.Settings(client_type=defs.SIMPLE_CONSUMER, subscription=defs.Subscription(group=GROUP))
    session = service.open_telemetry(context_of(cluster.clock), lambda command: None)
    await session.on_command(v2.TelemetryCommand(settings=settings))
    await cluster.clock.run_for(0.0)
    assert kinds(receiving.result()) == ["status", "message", "delivery_timestamp"]
    cluster.brokers["a"].store("T", b"2")
    assert kinds(await received(service, cluster, request_of("a"), after_s=0.0)).count("message") == 1


async def test_settings_that_never_come_are_waited_for_once() -> None:
    """One second, then defaults; later receives of that client start at once."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    for after_s in (1.0, 0.0):
        cluster.brokers["a"].store("T", b"x")
        assert kinds(await received(service, cluster, request_of("a"), after_s)).count("message") == 1


async def test_what_cannot_be_given_back_waits_for_its_time() -> None:
    """The receive is answered all the same, and the service goes on."""
    cluster = cluster_of(ManualClock(), "a")
    for tag in ("A", "B"):
        cluster.brokers["a"].store("T", tag.encode(), encode_properties({"TAGS": tag}))
    cluster.brokers["a"].before = refuse(ResponseCode.SYSTEM_BUSY, mesh.AckMessageRequest)
    request = request_of("a", filter_expression=defs.FilterExpression(type=defs.TAG, expression="B"))
    parts = await received(service_of(cluster), cluster, request)
    assert [part.message.body for part in parts if part.HasField("message")] == [b"B"]
    assert cluster.brokers["a"].visible("G") == []
    await cluster.clock.run_for(15.0)
    assert cluster.brokers["a"].visible("G") == [0, 1]


async def test_acks_of_one_request_are_one_call_per_broker_and_answered_one_by_one() -> None:
    """Good, malformed, unknown and outdated handles beside each other."""
    cluster = cluster_of(ManualClock(), "a", "b")
    service = service_of(cluster)
    for broker in cluster.brokers.values():
        broker.store("T", b"1")
        broker.store("T", b"2")
    parts = await received(service, cluster, request_of())
    handles = [part.message.system_properties.receipt_handle for part in parts if part.HasField("message")]
    assert len(handles) == 4
    others = ["rubbish", "0 1 2 3 0 nobody 0 0 0", handles[0].replace(" 15000 ", " 15001 ")]
    request = v2.AckMessageRequest(group=GROUP, topic=TOPIC)
    for handle in handles + others:
        request.entries.add(message_id="M", receipt_handle=handle)
    response = await service.ack_message(request, context_of(cluster.clock))
    assert response.status.code == Code.MULTIPLE_RESULTS
    expected = [Code.OK] * 4 + [Code.INVALID_RECEIPT_HANDLE, Code.BAD_REQUEST, Code.INVALID_RECEIPT_HANDLE]
    assert [entry.status.code for entry in response.entries] == expected
    assert [entry.receipt_handle for entry in response.entries] == handles + others
    assert [len(broker.asked(mesh.AckMessageRequest)) for broker in cluster.brokers.values()] == [1, 1]
    assert [broker.acked["G"] for broker in cluster.brokers.values()] == [{0, 1}, {0, 1}]


async def test_what_is_settled_waits_for_the_next_master() -> None:
    """An acknowledgement, a change and a forward that come while there is none are done by the next one."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    for body in (b"1", b"2", b"3"):
        cluster.brokers["a"].store("T", body)
    parts = await received(service, cluster, request_of("a"))
    handles = [part.message.system_properties.receipt_handle for part in parts if part.HasField("message")]
    cluster.down = {"a"}
    context = context_of(cluster.clock, timeout_s=3.0)
    ack = v2.AckMessageRequest(group=GROUP, topic=TOPIC, entries=[v2.AckMessageEntry(receipt_handle=handles[0])])
    change = v2.ChangeInvisibleDurationRequest(group=GROUP, topic=TOPIC, receipt_handle=handles[1])
    change.invisible_duration.CopyFrom(duration(0))
    forward = v2.ForwardMessageToDeadLetterQueueRequest(group=GROUP, topic=TOPIC, receipt_handle=handles[2])
    settling = asyncio.gather(
        service.ack_message(ack, context),
        service.change_invisible_duration(change, context),
        service.forward_message_to_dead_letter_queue(forward, context),
    )
    await cluster.clock.run_for(2.0)
    assert not settling.done()
    cluster.down = set()
    await cluster.clock.run_for(0.25)  # the longest pause between two tries
    assert [answer.status.code for answer in settling.result()] == [Code.OK] * 3
    assert cluster.brokers["a"].acked["G"] == {0, 2}
    assert cluster.brokers["a"].visible("G") == [1]


async def test_an_acknowledgement_waits_no_longer_than_its_client() -> None:
    """It is refused before the client's 3 s are over: nothing was done, and the client may try again."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.down = {"a"}
    ack = v2.AckMessageRequest(
        group=GROUP, topic=TOPIC, entries=[v2.AckMessageEntry(receipt_handle="0 1 2 3 0 a 0 0 0")]
    )
    acking = asyncio.ensure_future(service_of(cluster).ack_message(ack, context_of(cluster.clock, timeout_s=3.0)))
    await cluster.clock.run_for(2.9)
    assert [entry.status.code for entry in acking.result().entries] == [Code.PROXY_TIMEOUT]


async def test_an_acknowledgement_whose_answer_was_lost_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be effective: the client decides."""
    cluster = cluster_of(ManualClock(), "a")

    class Losing:
        target = "losing"
        calls = 0

        async def call(self, *args: object, **more: object) -> object:
            self.calls += 1
            raise StreamLost("broker", "reset")

    losing = Losing()
    monkeypatch.setattr(cluster, "caller", lambda broker_name: losing)
    ack = v2.AckMessageRequest(
        group=GROUP, topic=TOPIC, entries=[v2.AckMessageEntry(receipt_handle="0 1 2 3 0 a 0 0 0")]
    )
    response = await service_of(cluster).ack_message(ack, context_of(cluster.clock))
    assert [entry.status.code for entry in response.entries] == [Code.PROXY_TIMEOUT]
    assert losing.calls == 1


async def test_a_changed_invisible_time_gives_a_new_handle_and_ends_the_old_one() -> None:
    """The new handle acknowledges, the old one does not any more."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    cluster.brokers["a"].store("T", b"1")
    parts = await received(service, cluster, request_of("a"))
    old = parts[1].message.system_properties.receipt_handle
    change = v2.ChangeInvisibleDurationRequest(group=GROUP, topic=TOPIC, receipt_handle=old, message_id="M")
    change.invisible_duration.CopyFrom(duration(30_000))
    changed = await service.change_invisible_duration(change, context_of(cluster.clock))
    assert changed.status.code == Code.OK
    assert changed.receipt_handle == "0 1700000001500 30000 5 0 a 0 0 0"
    codes = []
    for handle in (old, changed.receipt_handle):
        ack = v2.AckMessageRequest(group=GROUP, topic=TOPIC, entries=[v2.AckMessageEntry(receipt_handle=handle)])
        codes.append((await service.ack_message(ack, context_of(cluster.clock))).status.code)
    assert codes == [Code.INVALID_RECEIPT_HANDLE, Code.OK]


async def test_a_busy_broker_leaves_the_old_handle_good() -> None:
    """TOO_MANY_REQUESTS echoes the handle, so that the client can try again with it."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].before = refuse(ResponseCode.SYSTEM_BUSY, mesh.ChangeInvisibleTimeRequest)
    change = v2.ChangeInvisibleDurationRequest(group=GROUP, topic=TOPIC, receipt_handle="0 1 2 3 0 a 0 0 0")
    change.invisible_duration.CopyFrom(duration(0))
    changed = await service_of(cluster).change_invisible_duration(change, context_of(cluster.clock))
    assert (changed.status.code, changed.receipt_handle) == (Code.TOO_MANY_REQUESTS, "0 1 2 3 0 a 0 0 0")


async def test_a_change_that_a_broker_refuses_is_told() -> None:
    """Only a busy broker's refusal keeps the handle."""
    cluster = cluster_of(ManualClock(), "a")
    cluster.brokers["a"].before = refuse(ResponseCode.NO_PERMISSION, mesh.ChangeInvisibleTimeRequest)
    change = v2.ChangeInvisibleDurationRequest(group=GROUP, topic=TOPIC, receipt_handle="0 1 2 3 0 a 0 0 0")
    change.invisible_duration.CopyFrom(duration(0))
    with pytest.raises(ProxyError) as caught:
        await service_of(cluster).change_invisible_duration(change, context_of(cluster.clock))
    assert caught.value.code == Code.FORBIDDEN


@pytest.mark.parametrize(
    ("attempt", "attempts_max", "reason"),
    [
        (3, 3, "forwarded by its consumer after attempt 3 of 3"),
        (3, 0, "forwarded by its consumer after attempt 3"),
        (0, 3, ""),
    ],
)
async def test_a_message_that_is_given_up_is_forwarded(attempt: int, attempts_max: int, reason: str) -> None:
    """To the broker that handed it out, with what the client says of its attempts; it is renewed no more."""
    cluster = cluster_of(ManualClock(), "a")
    service = service_of(cluster)
    cluster.brokers["a"].store("T", b"1")
    request = request_of("a")
    request.auto_renew = True
    parts = await received(service, cluster, request)
    handle = parts[1].message.system_properties.receipt_handle
    assert len(service.renewals) == 1
    forward = v2.ForwardMessageToDeadLetterQueueRequest(
        group=GROUP,
        topic=TOPIC,
        receipt_handle=handle,
        message_id="M",
        delivery_attempt=attempt,
        max_delivery_attempts=attempts_max,
    )
    response = await service.forward_message_to_dead_letter_queue(forward, context_of(cluster.clock))
    assert response.status.code == Code.OK
    (asked,) = cluster.brokers["a"].asked(mesh.ForwardToDeadLetterQueueRequest)
    assert (asked.consumer_group, asked.topic, asked.reason) == ("G", "T", reason)
    assert asked.handle.queue_offset == 0
    assert len(service.renewals) == 0
