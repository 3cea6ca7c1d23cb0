"""What is the same for all requests of the Remoting face: refusals, access, oneway requests, counting."""

import inspect
from pathlib import Path

import pytest
from apogeemq.broker import errors
from apogeemq.broker.errors import BrokerError
from apogeemq.broker.faces.error_codes import error_code
from apogeemq.broker.faces.remoting.table import UNKNOWN_REQUEST_CODE
from apogeemq.remoting_codec.aio.access import AccessRefusal
from apogeemq.remoting_codec.aio.channel import Channel
from apogeemq.remoting_codec.bodies import LockBatchRequestBody, MessageQueue, UnlockBatchRequestBody
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode, request_code_name
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.store import errors as store_errors

from packages.broker.tests.recordings import exchanges
from packages.broker.tests.world import World, consumer_beat, pull_fields, send_fields

SERVED: dict[int, tuple[dict[str, str], str]] = {
    RequestCode.SEND_MESSAGE: ({}, "producerGroup"),
    RequestCode.SEND_MESSAGE_V2: ({}, "a"),
    RequestCode.SEND_BATCH_MESSAGE: ({}, "a"),
    RequestCode.CONSUMER_SEND_MSG_BACK: ({}, "offset"),
    RequestCode.END_TRANSACTION: ({"producerGroup": "P", "tranStateTableOffset": "0"}, "commitLogOffset"),
    RequestCode.SEND_REPLY_MESSAGE: ({}, "producerGroup"),
    RequestCode.SEND_REPLY_MESSAGE_V2: ({}, "a"),
    RequestCode.RECALL_MESSAGE: ({"topic": "T"}, "recallHandle"),
    RequestCode.PULL_MESSAGE: ({"topic": "T"}, "consumerGroup"),
    RequestCode.LITE_PULL_MESSAGE: ({}, "consumerGroup"),
    RequestCode.QUERY_CONSUMER_OFFSET: ({"consumerGroup": "G"}, "topic"),
    RequestCode.UPDATE_CONSUMER_OFFSET: ({"consumerGroup": "G", "topic": "T", "queueId": "0"}, "commitOffset"),
    RequestCode.SEARCH_OFFSET_BY_TIMESTAMP: ({"topic": "T", "queueId": "0"}, "timestamp"),
    RequestCode.GET_MAX_OFFSET: ({}, "topic"),
    RequestCode.GET_MIN_OFFSET: ({"topic": "T"}, "queueId"),
    RequestCode.GET_EARLIEST_MSG_STORETIME: ({"topic": "T"}, "queueId"),
    RequestCode.QUERY_MESSAGE: ({"topic": "T", "key": "k", "maxNum": "1", "beginTimestamp": "0"}, "endTimestamp"),
    RequestCode.VIEW_MESSAGE_BY_ID: ({}, "offset"),
    RequestCode.UNREGISTER_CLIENT: ({}, "clientID"),
    RequestCode.GET_CONSUMER_LIST_BY_GROUP: ({}, "consumerGroup"),
    RequestCode.GET_TOPIC_CONFIG: ({}, "topic"),
    RequestCode.GET_SUBSCRIPTIONGROUP_CONFIG: ({}, "group"),
    RequestCode.GET_CONSUMER_RUNNING_INFO: ({"consumerGroup": "G"}, "clientId"),
    RequestCode.CONSUME_MESSAGE_DIRECTLY: ({}, "consumerGroup"),
    RequestCode.INVOKE_BROKER_TO_RESET_OFFSET: ({"topic": "T", "group": "G"}, "timestamp"),
    RequestCode.INVOKE_BROKER_TO_GET_CONSUMER_STATUS: ({"topic": "T"}, "group"),
    RequestCode.POP_MESSAGE: ({"consumerGroup": "G", "topic": "T"}, "queueId"),
    RequestCode.ACK_MESSAGE: ({"consumerGroup": "G", "topic": "T", "queueId": "0"}, "extraInfo"),
    RequestCode.CHANGE_MESSAGE_INVISIBLETIME: ({"consumerGroup": "G"}, "topic"),
    RequestCode.NOTIFICATION: ({"consumerGroup": "G", "topic": "T", "queueId": "-1"}, "pollTime"),
    RequestCode.POLLING_INFO: ({"consumerGroup": "G", "topic": "T"}, "queueId"),
}
"""What has a header, with a request that lacks a field."""

WITH_BODY = (
    RequestCode.HEART_BEAT,
    RequestCode.LOCK_BATCH_MQ,
    RequestCode.UNLOCK_BATCH_MQ,
    RequestCode.BATCH_ACK_MESSAGE,
    RequestCode.CHECK_CLIENT_CONFIG,
    RequestCode.QUERY_ASSIGNMENT,
    RequestCode.SET_MESSAGE_REQUEST_MODE,
)

# A request of each kind that a broker with topic T and group G serves.
GOOD: dict[int, tuple[dict[str, str], bytes]] = {
    RequestCode.SEND_MESSAGE_V2: (send_fields(), b"x"),
    RequestCode.PULL_MESSAGE: (pull_fields(), b""),
    RequestCode.QUERY_CONSUMER_OFFSET: ({"consumerGroup": "G", "topic": "T", "queueId": "0"}, b""),
    RequestCode.UPDATE_CONSUMER_OFFSET: (
        {"consumerGroup": "G", "topic": "T", "queueId": "0", "commitOffset": "1"},
        b"",
    ),
    RequestCode.GET_MAX_OFFSET: ({"topic": "T", "queueId": "0"}, b""),
    RequestCode.GET_MIN_OFFSET: ({"topic": "T", "queueId": "0"}, b""),
    RequestCode.HEART_BEAT: ({}, consumer_beat().encode()),
    RequestCode.UNREGISTER_CLIENT: ({"clientID": "c1", "consumerGroup": "H"}, b""),
    RequestCode.GET_CONSUMER_LIST_BY_GROUP: ({"consumerGroup": "G"}, b""),
    RequestCode.GET_TOPIC_CONFIG: ({"topic": "T"}, b""),
    RequestCode.GET_SUBSCRIPTIONGROUP_CONFIG: ({"group": "G"}, b""),
    RequestCode.LOCK_BATCH_MQ: ({}, LockBatchRequestBody(consumer_group="G", client_id="c1").encode()),
    RequestCode.UNLOCK_BATCH_MQ: ({}, UnlockBatchRequestBody(consumer_group="G", client_id="c1").encode()),
}


async def world_with_group() -> World:
    world = World()
    world.create_topic()
    world.client().heartbeat(consumer_beat())
    return world


# -- requests that can't be read ---------------------------------------------------------------------------------------


async def test_every_served_request_is_tried_here() -> None:
    """A new one must be added to the tables of this file."""
    async with World() as world:
        assert world.broker.remoting.codes == set(SERVED) | set(WITH_BODY)


@pytest.mark.parametrize("code", SERVED)
async def test_a_missing_field_is_named(code: int) -> None:
    """With the request's name; the connection goes on."""
    fields, missing = SERVED[code]
    async with World() as world:
        client = world.client()
        reply = client.request(code, fields, b"body")
        assert reply.code == ResponseCode.SYSTEM_ERROR
        assert str(reply.remark).startswith(f"{request_code_name(code)}: ")
        assert missing in str(reply.remark)
        assert reply.ext_fields == {}, "a Java client reads them without asking (trap 5)"
        assert client.channel.close_reason is None


@pytest.mark.parametrize("code", WITH_BODY)
@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"{}", b'{"clientID":7}'])
async def test_a_body_that_cannot_be_read_is_refused(code: RequestCode, body: bytes) -> None:
    """Code 1 with the name of the request."""
    async with World() as world:
        client = world.client()
        reply = client.request(code, {}, body)
        assert reply.code == ResponseCode.SYSTEM_ERROR
        assert reply.remark
        assert client.channel.close_reason is None


@pytest.mark.parametrize("value", ["x", "", "1.5", str(2**31), "-" * 5])
async def test_a_field_that_does_not_parse_is_named(value: str) -> None:
    """The wire name of the field."""
    async with World() as world:
        reply = world.client().request(11, pull_fields() | {"queueId": value})
        assert reply.code == ResponseCode.SYSTEM_ERROR
        assert "queueId" in str(reply.remark)


@pytest.mark.parametrize("code", [*SERVED, *WITH_BODY, 9_999])
async def test_a_oneway_request_is_never_answered(code: int) -> None:
    """Not even when it is refused."""
    async with World() as world:
        client = world.client()
        client.send(code, dict(SERVED[code][0]) if code in SERVED else {}, b"body", oneway=True)
        assert client.received() == []


@pytest.mark.parametrize("code", GOOD)
async def test_a_oneway_request_that_is_served_is_not_answered(code: int) -> None:
    """The same request with an answer is answered with success."""
    fields, body = GOOD[code]
    async with await world_with_group() as world:
        client = world.client(2)
        client.request(310, send_fields(), b"there is something to pull")
        client.send(code, fields, body, oneway=True)
        assert [command for command in client.received() if command.is_response] == []
        client.pushed()
        assert client.request(code, fields, body).code == 0


async def test_an_unknown_request_is_answered_as_recorded() -> None:
    """Apache's remark begins with a space."""
    (exchange,) = exchanges("errors", 9_999)
    async with World() as world:
        reply = world.client().request(9_999, {})
        assert (reply.code, reply.remark) == (exchange.reply.code, exchange.reply.remark)


async def test_unknown_codes_are_counted_as_one() -> None:
    """Whoever tries all numbers fills neither memory nor metrics."""
    async with World() as world:
        client = world.client()
        for code in range(50_000, 50_100):
            client.request(code)
        assert world.broker.stats.counts == {(UNKNOWN_REQUEST_CODE, 3): 100}


async def test_answers_are_counted_by_request_and_result() -> None:
    """Oneway requests too, served or refused."""
    async with await world_with_group() as world:
        client = world.client(2)
        client.request(11, pull_fields())
        client.request(11, pull_fields("Missing"))
        client.send(15, SERVED[RequestCode.UPDATE_CONSUMER_OFFSET][0], oneway=True)
        for code in (14, 15, 30, 35, 38, 41):
            client.send(code, *GOOD[code], oneway=True)
        refused = {(11, 19): 1, (11, 17): 1, (15, 1): 1, (14, 22): 1}
        served = {(code, 0): 1 for code in (34, 15, 30, 35, 38, 41)}
        assert world.broker.stats.counts == refused | served


async def test_a_bug_in_a_handler_costs_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The asker hears of an internal error and not of its text; the connection goes on."""
    async with await world_with_group() as world:
        client = world.client(2)

        def bug(*_: object) -> int:
            raise ZeroDivisionError("a secret")

        monkeypatch.setattr(world.broker.offset_service, "max_offset", bug)
        reply = client.request(30, GOOD[30][0])
        assert (reply.code, reply.remark) == (1, "internal error: ZeroDivisionError")
        assert client.request(31, GOOD[31][0]).code == 0


# -- access ------------------------------------------------------------------------------------------------------------


class Nobody:
    """Refuses everybody, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def check(self, channel: Channel, command: RemotingCommand) -> AccessRefusal | None:
        self.asked.append(command.code)
        return AccessRefusal(ResponseCode.NO_PERMISSION, f"{channel.peer} may not {request_code_name(command.code)}")


async def test_every_request_is_asked_about_and_refused() -> None:
    """16 with the hook's remark, before anything of the request is looked at; oneway ones are just not done."""
    hook = Nobody()
    async with World(access=hook) as world:
        client = world.client(40_001)
        for code in sorted(world.broker.remoting.codes):
            reply = client.request(code, {}, b"nonsense")
            assert (reply.code, reply.remark) == (16, f"10.0.0.9:40001 may not {request_code_name(code)}")
        client.send(310, send_fields(), b"x", oneway=True)
        assert client.received() == []
        assert world.store.written_offset == 0
        assert hook.asked == [*sorted(world.broker.remoting.codes), 310]
        assert client.request(9_999).code == 3, "what nobody serves needs no permission to be told so"


# -- errors become codes -----------------------------------------------------------------------------------------------


def errors_of_the_broker() -> list[type[BrokerError]]:
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BrokerError)]


@pytest.mark.parametrize("kind", errors_of_the_broker())
def test_a_broker_error_has_its_own_code(kind: type[BrokerError]) -> None:
    """And its text is the remark."""
    error = kind("why")
    assert error_code(error) == kind.code
    assert error.remark == "why"


def test_the_tree_of_errors_tells_the_codes() -> None:
    """The table at the top of the module is what the classes say."""
    told = {}
    for line in str(errors.__doc__).splitlines():
        words = line.replace("├──", "").replace("└──", "").split()
        if len(words) > 1 and words[1].isdecimal():
            told[words[0]] = int(words[1])
    assert told == {kind.__name__: kind.code for kind in errors_of_the_broker() if kind is not BrokerError}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (store_errors.MessageTooLarge("body", 2, 1), 13),
        (store_errors.MessageInvalid("why"), 13),
        (store_errors.TooManyWaiters(1), 2),
        (store_errors.DiskSlow("sync", Path("/store"), 5000), 2),
        (store_errors.DiskFull(Path("/store")), 14),
        (store_errors.DiskAlmostFull(Path("/store"), 0.95, 1, "diskSpaceWarningLevelRatio", "90"), 14),
        (store_errors.NotWritable("why"), 14),
        (store_errors.StoreClosed(), 14),
        (store_errors.RecordCorrupt(1, "why"), 1),
        (store_errors.OffsetOutOfRange(1, 2, 3), 1),
        (ValueError("why"), 1),
    ],
)
def test_errors_of_the_store_have_codes(error: Exception, code: int) -> None:
    """Whether a retry helps is what the client reads from them."""
    assert error_code(error) == code


async def test_a_closed_store_is_an_answer() -> None:
    """14: the client goes to another broker."""
    world = await world_with_group()
    client = world.client(2)
    world.store.close()
    for code, fields, body in ((310, send_fields(), b"x"), (11, pull_fields(), b""), (30, GOOD[30][0], b"")):
        assert client.request(code, fields, body).code == 14
    await world.kill()


# -- locks -------------------------------------------------------------------------------------------------------------


def lock_body(client_id: str, *queue_ids: int, group: str = "G") -> bytes:
    queues = [MessageQueue("T", "broker-a", queue_id) for queue_id in queue_ids]
    return LockBatchRequestBody(consumer_group=group, client_id=client_id, mq_set=queues).encode()


async def test_queues_are_locked_and_given_back() -> None:
    """The answer lists those that the client holds, as Java names them."""
    async with World() as world:
        client = world.client()
        held = client.request(41, {}, lock_body("c1", 0, 1))
        assert held.body == (
            b'{"lockOKMQSet":[{"brokerName":"broker-a","queueId":0,"topic":"T"},'
            b'{"brokerName":"broker-a","queueId":1,"topic":"T"}]}'
        )
        assert client.request(41, {}, lock_body("c2", 0, 1)).body == b'{"lockOKMQSet":[]}'
        client.send(42, {}, lock_body("c1", 1), oneway=True)
        assert b'"queueId":1' in client.request(41, {}, lock_body("c2", 0, 1)).body


@pytest.mark.parametrize("body", [lock_body("", 0), lock_body("c1", 0, group="")])
async def test_a_lock_needs_its_owner(body: bytes) -> None:
    """Group and client id."""
    async with World() as world:
        for code in (41, 42):
            reply = world.client().request(code, {}, body)
            assert (reply.code, reply.remark) == (1, "the body names no consumerGroup or no clientId")


async def test_a_lock_request_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In queues a request."""
    monkeypatch.setattr("apogeemq.broker.faces.remoting.locks.QUEUES_PER_REQUEST_MAX", 2)
    async with World() as world:
        reply = world.client().request(41, {}, lock_body("c1", 0, 1, 2))
        assert (reply.code, reply.remark) == (2, "a lock request names 3 queues, the limit is 2")


async def test_a_lock_ends_60_seconds_after_its_last_renewal() -> None:
    """By the broker's own clock; what ran out is swept away."""
    async with World() as world:
        world.broker.start()
        client = world.client()
        client.request(41, {}, lock_body("c1", 0))
        await world.clock.run_for(55)
        assert client.request(41, {}, lock_body("c2", 0)).body == b'{"lockOKMQSet":[]}'
        await world.clock.run_for(16)
        assert len(world.broker.queue_locks) == 0
        assert b'"queueId":0' in client.request(41, {}, lock_body("c2", 0)).body
