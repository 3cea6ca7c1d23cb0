"""Requests that are wrong in one way each: most are generated from what the headers and bodies declare.

    GOOD request ──one fault──▶ BadRequest: what is sent, and what has to come back

Where the answers are documented:
- a header field that is missing or does not parse: 1 with `<field>` (docs/compatibility.md, "Where we differ");
- a body that does not parse: 1 with the field's path, or with the position where the text is no JSON (fastjson.py);
- values that parse and can't be: reference broker_behaviour.md §1 (names: 29), §2 (send-back: 26, 1), §5 (checks of a
  pull in their order), §6 (commits: 17, 26), §8 (pops: 29, 13, 208); sizes of messages: 13; limits: 2;
- what clients ask for and is not there: 22, 21, 19, 206 to 210, in Apache's words.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
from apogeemq.remoting_codec.batch import BatchMessage, encode_batch
from apogeemq.remoting_codec.bodies import (
    BatchAck,
    BatchAckMessageRequestBody,
    CheckClientRequestBody,
    LockBatchRequestBody,
    MessageQueue,
    ProducerData,
    SubscriptionData,
    UnlockBatchRequestBody,
)
from apogeemq.remoting_codec.client_bodies import QueryAssignmentRequestBody, SetMessageRequestModeRequestBody
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.fastjson import JsonBody
from apogeemq.remoting_codec.headers.registry import REQUEST_HEADERS
from apogeemq.remoting_codec.message_id import RecallHandle, encode_offset_message_id, encode_recall_handle

from packages.broker.tests.world import STORE_HOST, consumer_beat, long_names, pull_fields, send_fields

BODY_SIZE_BYTES_MAX = 64 << 10
"""Of a message, in the world that these requests are sent to."""
PROPERTIES_SIZE_BYTES_MAX = 32_767
GROUP_LENGTH_MAX, TOPIC_LENGTH_MAX = 120, 127
TEXT_LENGTH_MAX = 255
FAR = 10**12
"""An offset that nothing has."""
HALF_OFFSET = "<where the half message is>"
"""For the physical offset of the world's half message, which only it knows."""

C, R = RequestCode, ResponseCode


class BadRequest(NamedTuple):
    """A request with one fault. `named` must be in the remark, whose case does not matter."""

    request: int
    fields: Mapping[str, str]
    body: bytes
    fault: str
    code: int
    named: str


# -- good requests -----------------------------------------------------------------------------------------------------


HANDLE = "0 {pop_time} 60000 0 0 broker-a 0 0"
"""A handle of the message that the world has popped; `pop_time` in ms."""

_QUEUE = {"topic": "T", "queueId": "0"}
_REPLY = send_fields("DefaultCluster_REPLY_TOPIC", properties="REPLY_TO_CLIENT\x01p1\x02")
_BATCH = encode_batch([BatchMessage(0, b"one", b"A\x01a\x02"), BatchMessage(0, b"two", b"")])
_BEAT = msgspec.structs.replace(
    consumer_beat(), producer_data_set=[ProducerData(group_name="P")], heartbeat_fingerprint=7
)
_LOCKED = [MessageQueue("T", "broker-a", 0), MessageQueue("T", "broker-a", 1)]
_ACK = BatchAck(
    consumer_group="G",
    topic="T",
    start_offset=0,
    queue_id=0,
    revive_queue_id=0,
    pop_time=1,
    invisible_time=60_000,
    bit_set=base64.b64encode(b"\x01").decode(),
)
_SUBSCRIPTION = SubscriptionData(topic="T", sub_string="a > 1", expression_type="SQL92")

BODIES: Mapping[int, JsonBody] = {
    C.HEART_BEAT: _BEAT,
    C.LOCK_BATCH_MQ: LockBatchRequestBody(consumer_group="G", client_id="c1", mq_set=_LOCKED),
    C.UNLOCK_BATCH_MQ: UnlockBatchRequestBody(consumer_group="G", client_id="c1", mq_set=_LOCKED),
    C.CHECK_CLIENT_CONFIG: CheckClientRequestBody(client_id="c1", group="G", subscription_data=_SUBSCRIPTION),
    C.QUERY_ASSIGNMENT: QueryAssignmentRequestBody(topic="T", consumer_group="G", client_id="c1", strategy_name="AVG"),
    C.SET_MESSAGE_REQUEST_MODE: SetMessageRequestModeRequestBody(topic="T", consumer_group="G"),
    C.BATCH_ACK_MESSAGE: BatchAckMessageRequestBody(broker_name="broker-a", acks=[_ACK]),
}
"""The body of a good request, where it is JSON."""

_FIELDS: Mapping[int, dict[str, str]] = {
    C.SEND_MESSAGE: long_names(send_fields()),
    C.SEND_MESSAGE_V2: send_fields(),
    C.SEND_BATCH_MESSAGE: send_fields(m="true"),
    C.SEND_REPLY_MESSAGE: long_names(_REPLY),
    C.SEND_REPLY_MESSAGE_V2: _REPLY,
    C.END_TRANSACTION: {
        "producerGroup": "P",
        "tranStateTableOffset": "0",
        "commitLogOffset": HALF_OFFSET,
        "commitOrRollback": "8",
        "msgId": "",
    },
    C.RECALL_MESSAGE: {
        "producerGroup": "P",
        "topic": "T",
        "recallHandle": encode_recall_handle(RecallHandle("T", "broker-a", 1_700_000_100_000, "K")),
    },
    C.CONSUMER_SEND_MSG_BACK: {"offset": "0", "group": "G", "delayLevel": "0", "originTopic": "T"},
    C.PULL_MESSAGE: pull_fields(),
    C.LITE_PULL_MESSAGE: pull_fields(),
    C.QUERY_MESSAGE: {"topic": "T", "key": "k", "maxNum": "32", "beginTimestamp": "0", "endTimestamp": str(FAR * 10)},
    C.VIEW_MESSAGE_BY_ID: {"topic": "T", "offset": "0"},
    C.QUERY_CONSUMER_OFFSET: {"consumerGroup": "G", **_QUEUE},
    C.UPDATE_CONSUMER_OFFSET: {"consumerGroup": "G", **_QUEUE, "commitOffset": "1"},
    C.SEARCH_OFFSET_BY_TIMESTAMP: {**_QUEUE, "timestamp": "1"},
    C.GET_MAX_OFFSET: _QUEUE,
    C.GET_MIN_OFFSET: _QUEUE,
    C.GET_EARLIEST_MSG_STORETIME: _QUEUE,
    C.HEART_BEAT: {},
    C.UNREGISTER_CLIENT: {"clientID": "c9", "producerGroup": "P", "consumerGroup": "G"},
    C.GET_CONSUMER_LIST_BY_GROUP: {"consumerGroup": "G"},
    C.LOCK_BATCH_MQ: {},
    C.UNLOCK_BATCH_MQ: {},
    C.CHECK_CLIENT_CONFIG: {},
    C.GET_TOPIC_CONFIG: {"topic": "T"},
    C.GET_SUBSCRIPTIONGROUP_CONFIG: {"group": "G"},
    C.INVOKE_BROKER_TO_RESET_OFFSET: {"topic": "T", "group": "G", "timestamp": "0", "isForce": "true"},
    C.INVOKE_BROKER_TO_GET_CONSUMER_STATUS: {"topic": "T", "group": "G", "clientAddr": ""},
    C.GET_CONSUMER_RUNNING_INFO: {"consumerGroup": "G", "clientId": "c1", "jstackEnable": "false"},
    C.CONSUME_MESSAGE_DIRECTLY: {
        "consumerGroup": "G",
        "clientId": "c1",
        "msgId": encode_offset_message_id(STORE_HOST, 0),
        "topic": "T",
    },
    C.QUERY_ASSIGNMENT: {},
    C.SET_MESSAGE_REQUEST_MODE: {},
    C.POP_MESSAGE: {
        "consumerGroup": "G",
        "topic": "T",
        "queueId": "-1",
        "maxMsgNums": "32",
        "invisibleTime": "60000",
        "pollTime": "0",
        "bornTime": "0",
        "initMode": "0",
        "expType": "TAG",
        "exp": "*",
    },
    C.ACK_MESSAGE: {"consumerGroup": "G", **_QUEUE, "extraInfo": HANDLE.format(pop_time=1), "offset": "0"},
    C.BATCH_ACK_MESSAGE: {},
    C.CHANGE_MESSAGE_INVISIBLETIME: {
        "consumerGroup": "G",
        **_QUEUE,
        "extraInfo": HANDLE.format(pop_time=1),
        "offset": "0",
        "invisibleTime": "1000",
    },
    C.NOTIFICATION: {"consumerGroup": "G", "topic": "T", "queueId": "-1", "pollTime": "0", "bornTime": "0"},
    C.POLLING_INFO: {"consumerGroup": "G", "topic": "T", "queueId": "-1"},
}

_MESSAGES = (C.SEND_MESSAGE, C.SEND_MESSAGE_V2, C.SEND_REPLY_MESSAGE, C.SEND_REPLY_MESSAGE_V2)

GOOD: Mapping[int, tuple[dict[str, str], bytes]] = {
    code: (fields, BODIES[code].encode() if code in BODIES else b"x" if code in _MESSAGES else b"")
    for code, fields in _FIELDS.items()
} | {C.SEND_BATCH_MESSAGE: (_FIELDS[C.SEND_BATCH_MESSAGE], _BATCH)}
"""For each request that the broker serves one that it serves with success: fields and body."""


# -- faults of a header's fields, by their declared types --------------------------------------------------------------

NO_NUMBERS = ("", "x", "1.5", "0x1", " 1", "1 ", "--1", "9" * 40, "-" + "9" * 40, "NaN", "true")
NO_BOOLEANS = ("", "maybe", "yes", "2", "-1", "1.0")


def header_faults(code: int) -> Iterator[BadRequest]:
    """Each required field missing, each field that is no text with texts that its type does not have."""
    header = REQUEST_HEADERS.get(code)
    good, body = GOOD[code]
    for field in () if header is None else msgspec.structs.fields(header):
        name = field.encode_name
        if field.required:
            fields = {key: value for key, value in good.items() if key != name}
            yield BadRequest(code, fields, body, f"{name} is missing", R.SYSTEM_ERROR, f"<{name}>")
        for value in _unfit_texts(msgspec.inspect.type_info(field.type)):
            yield BadRequest(code, good | {name: value}, body, f"{name}={value!r}", R.SYSTEM_ERROR, f"<{name}>")


def _unfit_texts(declared: msgspec.inspect.Type) -> Iterator[str]:
    kind = _without_none(declared)
    if isinstance(kind, msgspec.inspect.IntType):
        low, high = kind.ge, kind.le
        assert isinstance(low, int), "Java's numbers have a range"
        assert isinstance(high, int)
        yield from (*NO_NUMBERS, str(low - 1), str(high + 1))
    elif isinstance(kind, msgspec.inspect.BoolType):
        yield from NO_BOOLEANS
    elif isinstance(kind, msgspec.inspect.EnumType):
        yield from ("", "NONE_OF_THEM", "7")
    else:
        assert isinstance(kind, msgspec.inspect.StrType)


def _without_none(declared: msgspec.inspect.Type) -> msgspec.inspect.Type:
    if isinstance(declared, msgspec.inspect.UnionType):
        (declared,) = (kind for kind in declared.types if not isinstance(kind, msgspec.inspect.NoneType))
    return declared


# -- faults of a JSON body, by its declared fields ---------------------------------------------------------------------

NO_JSON = (b"", b"{", b"}", b"{]", b"{not json}", b"\xff\xfe", b"\x00", b"<xml/>", b'{"a":1}x', b'{"a" 1}', b"'a'")
NO_OBJECTS = (b"null", b"7", b"true", b"[]", b'"text"', b"[{}]", b"1.5")


def body_faults(code: int) -> Iterator[BadRequest]:
    """No JSON, no object, cut off, too deep, and each declared field missing or of another kind."""
    good = BODIES.get(code)
    if good is None:
        return
    fields = GOOD[code][0]
    encoded = good.encode()

    def bad(body: bytes, fault: str, named: str) -> BadRequest:
        return BadRequest(code, fields, body, fault, R.SYSTEM_ERROR, named)

    for body in NO_JSON:
        yield bad(body, f"body {body!r}", " at ")
    for body in NO_OBJECTS:
        yield bad(body, f"body {body!r}", type(good).__name__)
    for end in range(1, len(encoded), 7):
        yield bad(encoded[:end], f"body cut off at {end}", "at character")
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        deep = b'{"x":' + opening * 20_000 + b"1" + closing * 20_000 + b"," + encoded[1:]
        yield bad(deep, f"{opening!r} 20,000 times", "nested")
    for path, value, named in _unfit_members(type(good), json.loads(encoded), ()):
        fault = f"$.{'.'.join(map(str, path))}={value!r:.60}"
        yield bad(changed_body(code, path, value), fault, named)
        if len(path) == 1 and value is not MISSING and value is not None:
            twice = encoded[:-1] + b"," + json.dumps({named: value}).encode()[1:]
            yield bad(twice, f"{fault}, after a good one", named)


class _Missing:
    def __repr__(self) -> str:
        return "(missing)"


MISSING = _Missing()
Path = tuple[str | int, ...]
"""Names and indexes from the body to one of its values."""


def changed_body(code: int, path: Path, value: object) -> bytes:
    """The good request's body with another value in one place, or without it."""
    changed = json.loads(BODIES[code].encode())
    *parents, last = path
    place = changed
    for step in parents:
        place = place[step]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return json.dumps(changed).encode()


def _unfit_members(body: type, plain: object, path: Path) -> Iterator[tuple[Path, object, str]]:
    """(path, unfit value, what the remark must name) for each field of a body and of what is in it."""
    assert isinstance(plain, dict)
    for field in msgspec.structs.fields(body):
        name = field.encode_name
        at = (*path, name)
        if field.required:
            yield at, MISSING, name
            yield at, None, name
        kind = _without_none(msgspec.inspect.type_info(field.type))
        for value in _unfit_values(kind):
            yield at, value, name
        if isinstance(kind, msgspec.inspect.ListType) and isinstance(kind.item_type, msgspec.inspect.StructType):
            for index, item in enumerate(plain.get(name, ())):
                yield from _unfit_members(kind.item_type.cls, item, (*at, index))
        elif isinstance(kind, msgspec.inspect.StructType) and name in plain:
            yield from _unfit_members(kind.cls, plain[name], at)


def _unfit_values(kind: msgspec.inspect.Type) -> tuple[object, ...]:
    match kind:
        case msgspec.inspect.IntType():
            return ("x", "", "1.5", 1.5, [], {}, [1], 2**63, -(2**63) - 1, 10**30)
        case msgspec.inspect.BoolType():
            return ("maybe", "", 7, 0.5, [], {})
        case msgspec.inspect.EnumType():
            return ("NONE_OF_THEM", "", 99, -1, [], {}, True)
        case msgspec.inspect.StrType():
            return (7, 1.5, True, [], {}, ["x"])
        case msgspec.inspect.ListType():
            return ("x", 7, {}, [[]], [None], True)
        case msgspec.inspect.StructType():
            return ("x", 7, [], True)
    raise AssertionError(f"a body with {kind}")
