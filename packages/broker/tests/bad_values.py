"""Requests whose fields all parse, but have values that can't be, or that contradict each other or what the broker has.

A table by request code; where the answers are documented is told in bad_requests.
"""

import base64
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping

from apogeemq.remoting_codec.batch import BatchMessage, encode_batch
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.message_id import encode_offset_message_id

from packages.broker.tests.bad_requests import (
    BODIES,
    BODY_SIZE_BYTES_MAX,
    FAR,
    GOOD,
    GROUP_LENGTH_MAX,
    HANDLE,
    MISSING,
    PROPERTIES_SIZE_BYTES_MAX,
    TEXT_LENGTH_MAX,
    TOPIC_LENGTH_MAX,
    BadRequest,
    Path,
    changed_body,
)
from packages.broker.tests.world import LONG_NAMES, STORE_HOST

C, R = RequestCode, ResponseCode
INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1

Values = Iterable[tuple[dict[str, str], int, str]]
"""(changed fields, response code, what the remark names)."""

NO_TOPICS = (
    "",
    "no spaces, please",
    "Ünïcode",
    "a/b",
    "a\x00b",
    "t" * (TOPIC_LENGTH_MAX + 1),
    "%RETRY%" + "t" * 249,
    "t" * 40_000,
)
NO_GROUPS = ("", "no spaces, please", "Ünïcode", "a/b", "a\x00b", "g" * (GROUP_LENGTH_MAX + 1), "g" * 40_000)
NO_QUEUES = ("-1", "4", "99", str(INT32_MAX), str(-(2**31)))


def _each(field: str, values: Iterable[str], code: int, named: str) -> Values:
    return [({field: value}, code, named) for value in values]


def _topics(code: int, *, unknown: int | None = None, named: str = "topic") -> Values:
    """The topics that can't be, and one that can but is not there."""
    return [
        *_each("topic", NO_TOPICS, code, named),
        *_each("topic", ["Unknown", "%RETRY%Unknown"], code if unknown is None else unknown, named),
    ]


def _groups(code: int, *, field: str = "consumerGroup", named: str = "group", unknown: bool = True) -> Values:
    """The groups that can't be; where groups are not made by use also one that can but is not there."""
    return [*_each(field, NO_GROUPS, code, named), *(_each(field, ["Unknown"], code, named) if unknown else ())]


def _queue(*, code: int = R.INVALID_PARAMETER, topics: bool = True) -> Values:
    return [
        *(_topics(R.TOPIC_NOT_EXIST) if topics else ()),
        *_each("queueId", NO_QUEUES, code, "queueId"),
    ]


# -- sending -----------------------------------------------------------------------------------------------------------


def _sends(*, is_batch: bool = False) -> Values:
    """By the names of SEND_MESSAGE. Sends may make topics and choose queues: what is not there is no fault."""
    no_group: tuple[int, str] = (R.MESSAGE_ILLEGAL, "batch") if is_batch else (R.SUBSCRIPTION_GROUP_NOT_EXIST, "group")
    return [
        *_each("topic", NO_TOPICS, R.INVALID_PARAMETER, "topic"),
        *_each("topic", ["SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC"], R.NO_PERMISSION, "topic"),
        ({"topic": "New", "defaultTopic": "NoTemplate"}, R.TOPIC_NOT_EXIST, "topic"),
        ({"topic": "New", "defaultTopic": ""}, R.TOPIC_NOT_EXIST, "topic"),
        ({"topic": "%RETRY%Unknown"}, *no_group),
        *_each("queueId", ["4", "99", str(INT32_MAX)], R.INVALID_PARAMETER, "queueId"),
        *_each("sysFlag", ["4", "5", str(INT32_MAX)], R.MESSAGE_ILLEGAL, "system flag"),
    ]


_LONG_PROPERTIES = (
    "KEYS\x01" + "k" * PROPERTIES_SIZE_BYTES_MAX + "\x02",
    "k" * 33_000 + "\x01v\x02",
    "ü\x01ü\x02" * 5_461,  # fits in characters, not in bytes
    "k\x01v\x02" * 8_191,  # fits until the broker adds its own
    "x" * 1_000_000,
)


def _single_sends() -> Values:
    """What a batch has in its messages."""
    return [
        *_sends(),
        *_each("properties", _LONG_PROPERTIES, R.MESSAGE_ILLEGAL, "properties"),
        *_each("properties", [f"DELAY\x01{level}\x02" for level in ("x", "1.5", "9" * 20)], R.MESSAGE_ILLEGAL, "DELAY"),
        ({"properties": "TRAN_MSG\x01true\x02"}, R.MESSAGE_ILLEGAL, "PGROUP"),
        ({"properties": "TRAN_MSG\x01true\x02PGROUP\x01P\x02DELAY\x013\x02"}, R.MESSAGE_ILLEGAL, "DELAY"),
    ]


def _short_names(values: Values) -> Values:
    short_of = {long: short for short, long in LONG_NAMES.items()}
    return [
        ({short_of[name]: value for name, value in changed.items()}, code, named) for changed, code, named in values
    ]


def _batch(*messages: BatchMessage) -> bytes:
    return encode_batch(messages)


_ONE = _batch(BatchMessage(0, b"one", b"A\x01a\x02"))

NO_MESSAGES: Iterable[tuple[bytes, str]] = ((b"", "body"), (b"x" * (BODY_SIZE_BYTES_MAX + 1), "body"))
NO_BATCHES: Iterable[tuple[bytes, str]] = (
    *NO_MESSAGES,
    *((_ONE[:end], "batch") for end in range(1, len(_ONE))),
    *((_ONE + _ONE[:end], "batch") for end in range(1, len(_ONE), 5)),
    *((struct.pack(">i", size) + _ONE[4:], "batch") for size in (0, -1, 1, len(_ONE) + 1, INT32_MAX)),
    *((_ONE[:16] + struct.pack(">i", size) + _ONE[20:], "length") for size in (-1, 0, 1_000, INT32_MAX)),
    *((_ONE[:23] + struct.pack(">h", size) + _ONE[25:], "length") for size in (-1, 1_000, 32_767)),
    (_batch(BatchMessage(0, b"one", b"A\x01\xff\x02")), "properties"),
    (_ONE + _batch(BatchMessage(0, b"one", b"k\x01" + b"v" * 32_700 + b"\x02")), "properties"),
    (_ONE + _batch(BatchMessage(0, b"one", b"DELAY\x013\x02")), "message 1 of the batch has a delay"),
    (_ONE + _batch(BatchMessage(0, b"one", b"TRAN_MSG\x01true\x02")), "message 1 of the batch"),
)


def _message_faults(code: int) -> Iterator[BadRequest]:
    """Fields and bodies of a send, to a topic that is there and (nothing may be made) to one that is not."""
    is_long = code in (C.SEND_MESSAGE, C.SEND_REPLY_MESSAGE)
    is_batch = code == C.SEND_BATCH_MESSAGE
    values = _sends(is_batch=True) if is_batch else _single_sends()
    topic_field = "topic" if is_long else "b"
    good, good_body = GOOD[code]
    bodies = [(body, named) for body, named in (NO_BATCHES if is_batch else NO_MESSAGES)]
    for topic in (good[topic_field], "New"):
        fields = good | {topic_field: topic}
        for changed, answer, named in values if is_long else _short_names(values):
            yield BadRequest(code, fields | changed, good_body, f"{topic}: {_told(changed)}", answer, named)
        for body, named in bodies:
            yield BadRequest(code, fields, body, f"{topic}: body {body!r:.60}", R.MESSAGE_ILLEGAL, named)
        if code in (C.SEND_MESSAGE, C.SEND_MESSAGE_V2):
            flag = {"batch" if is_long else "m": "true"}
            yield BadRequest(code, fields | flag, b"no batch", f"{topic}: batch flag", R.MESSAGE_ILLEGAL, "batch")
        if is_batch:
            delayed = fields | {"i": "DELAY\x013\x02"}
            yield BadRequest(code, delayed, good_body, f"{topic}: delayed batch", R.MESSAGE_ILLEGAL, "batch")
            retry = fields | {"b": "%RETRY%G"}
            yield BadRequest(code, retry, good_body, "a batch of retries", R.MESSAGE_ILLEGAL, "batch")


# -- everything else ---------------------------------------------------------------------------------------------------

_EXPRESSIONS: Values = [
    ({"subscription": " || "}, R.SUBSCRIPTION_PARSE_FAILED, "expression"),
    ({"subscription": "|| ".join(f"t{n}" for n in range(1_001))}, R.SUBSCRIPTION_PARSE_FAILED, "expression"),
    ({"subscription": "t" * 65_537}, R.SUBSCRIPTION_PARSE_FAILED, "expression"),
    ({"expressionType": "XPATH"}, R.SYSTEM_ERROR, "filter message by XPATH"),
    ({"expressionType": "X" * 40_000}, R.SYSTEM_ERROR, "filter message by X"),
    *(
        ({"subscription": sql, "expressionType": "SQL92"}, R.SUBSCRIPTION_PARSE_FAILED, "expression")
        for sql in ("", "a >", "a > 'x", "(" * 5_000, "a = 1 " * 50_000, "a; drop")
    ),
]

_PULLS: Values = [
    *_groups(R.INVALID_PARAMETER, unknown=False),
    *_queue(),
    *_each("maxMsgNums", ["0", "-1", str(-(2**31))], R.INVALID_PARAMETER, "maxMsgNums"),
    *_EXPRESSIONS,
    # The subscription is not in the request, and the one that is known does not do.
    ({"sysFlag": "0", "consumerGroup": "Unknown"}, R.SUBSCRIPTION_NOT_EXIST, "group"),
    ({"sysFlag": "0", "topic": "Other"}, R.SUBSCRIPTION_NOT_EXIST, "subscription"),
    ({"sysFlag": "0", "subVersion": str(INT64_MAX)}, R.SUBSCRIPTION_NOT_LATEST, "subscription"),
    # Not refused, but told where to go on. The wait of the last two is none.
    *_each("queueOffset", [str(FAR), str(INT64_MAX), "3"], R.PULL_OFFSET_MOVED, "offset_overflow"),
    *_each("queueOffset", ["-1", str(-(2**63))], R.PULL_OFFSET_MOVED, "offset_too_small"),
    *(
        ({"queueId": "1", "sysFlag": "6", "suspendTimeoutMillis": wait}, R.PULL_NOT_FOUND, "no_m")
        for wait in ("-1", str(-(2**63)))
    ),
]

_LOOKS: Values = [
    *_groups(R.INVALID_PARAMETER, unknown=False),
    *_topics(R.TOPIC_NOT_EXIST),
    *_each("queueId", ["-2", *NO_QUEUES[1:]], R.INVALID_PARAMETER, "queueId"),
]

_POPS: Values = [
    *_LOOKS,
    *_each("maxMsgNums", ["0", "-1", "33", str(INT32_MAX)], R.INVALID_PARAMETER, "maxMsgNums"),
    *_each("invisibleTime", ["0", "-1", "259200001", str(INT64_MAX)], R.INVALID_PARAMETER, "invisibleTime"),
    *_each("initMode", ["2", "-1", str(INT32_MAX)], R.INVALID_PARAMETER, "initMode"),
    *_each("exp", [" || ", "t" * 65_537], R.SUBSCRIPTION_PARSE_FAILED, "expression"),
    ({"exp": "a >", "expType": "SQL92"}, R.SUBSCRIPTION_PARSE_FAILED, "expression"),
    *_each("expType", ["XPATH", "X" * 40_000], R.SYSTEM_ERROR, "filter message by X"),
    ({"bornTime": "1"}, R.POLLING_TIMEOUT, "timeout"),
]

_NO_HANDLES = (
    "",
    "x",
    " ".join("1234567"),
    " ".join("1234567890"),
    HANDLE.format(pop_time="-1"),
    HANDLE.format(pop_time="x"),
    HANDLE.format(pop_time="9" * 20),
    "0" * 40_000,
)
_HANDLES: Values = [
    *_each("extraInfo", _NO_HANDLES, R.INVALID_PARAMETER, "extraInfo"),
    *_topics(R.TOPIC_NOT_EXIST),
    *_each("queueId", NO_QUEUES, R.MESSAGE_ILLEGAL, "queueId"),
    *_each("offset", ["-1", str(FAR), str(INT64_MAX)], R.NO_MESSAGE, "offset"),
]

_NO_MESSAGE_IDS = ("", "x", "G" * 32, "0" * 31, "0" * 33, "0" * 40_000, "ü" * 32)

_VALUES: Mapping[int, Values] = {
    C.CONSUMER_SEND_MSG_BACK: [
        *_each("offset", ["-1", "1", str(FAR), str(INT64_MAX)], R.SYSTEM_ERROR, "offset"),
        *_groups(R.SUBSCRIPTION_GROUP_NOT_EXIST, field="group"),
        # A group that has no retry topic yet gets none by it.
        ({"group": "TOOLS_CONSUMER", "offset": str(FAR)}, R.SYSTEM_ERROR, "offset"),
    ],
    C.END_TRANSACTION: [
        *_each("commitOrRollback", ["4", "1", "-1", str(INT32_MAX)], R.SYSTEM_ERROR, "commitOrRollback"),
        *_each("commitLogOffset", ["-1", "1", str(FAR), str(INT64_MAX)], R.SYSTEM_ERROR, "commitLogOffset"),
        ({"commitLogOffset": "0"}, R.SYSTEM_ERROR, "commit log offset"),  # a message, but no half message
        *_each("producerGroup", ["", "Other", "p" * 40_000], R.SYSTEM_ERROR, "producer group"),
        *_each("tranStateTableOffset", ["-1", "1", str(FAR)], R.SYSTEM_ERROR, "state table offset"),
    ],
    C.RECALL_MESSAGE: [
        *_topics(R.TOPIC_NOT_EXIST),
        *_each("recallHandle", ["", "x", "djEgVA==", "k" * 5_000], R.ILLEGAL_OPERATION, "recallHandle"),
    ],
    C.PULL_MESSAGE: _PULLS,
    C.LITE_PULL_MESSAGE: _PULLS,
    C.QUERY_MESSAGE: [
        *_each("maxNum", ["0", "-1"], R.INVALID_PARAMETER, "maxNum"),
        *_topics(R.QUERY_NOT_FOUND, named="message"),
        *_each("key", ["", "k" * 40_000], R.QUERY_NOT_FOUND, "message"),
        ({"beginTimestamp": "2", "endTimestamp": "1"}, R.QUERY_NOT_FOUND, "time range"),
        ({"beginTimestamp": str(-(2**63)), "endTimestamp": "-1"}, R.QUERY_NOT_FOUND, "time range"),
    ],
    C.VIEW_MESSAGE_BY_ID: _each("offset", ["-1", "1", str(FAR), str(INT64_MAX)], R.SYSTEM_ERROR, "offset"),
    C.QUERY_CONSUMER_OFFSET: [
        # A group that is not known begins at 0 on a young topic, unless it says that it does not want that.
        *(
            (changed | {"setZeroIfNotFound": "false"}, answer, named)
            for changed, answer, named in _groups(R.QUERY_NOT_FOUND, named="not found")
        ),
        *_topics(R.QUERY_NOT_FOUND, named="not found"),
        *_each("queueId", NO_QUEUES, R.QUERY_NOT_FOUND, "not found"),
    ],
    C.UPDATE_CONSUMER_OFFSET: [
        *_groups(R.SUBSCRIPTION_GROUP_NOT_EXIST),
        *_queue(),
        *_each("commitOffset", ["-1", str(-(2**63))], R.INVALID_PARAMETER, "commitOffset"),
    ],
    C.SEARCH_OFFSET_BY_TIMESTAMP: [*_queue(), *_each("timestamp", [str(-(2**63)), str(INT64_MAX)], R.SUCCESS, "")],
    C.GET_MAX_OFFSET: _queue(),
    C.GET_MIN_OFFSET: _queue(),
    C.GET_EARLIEST_MSG_STORETIME: _queue(),
    # Whoever is nowhere leaves nothing: a success that changes nothing.
    C.UNREGISTER_CLIENT: [
        *_each("clientID", ["", "c" * 40_000, "a\x00b"], R.SUCCESS, ""),
        *_each("producerGroup", NO_GROUPS, R.SUCCESS, ""),
        *_groups(R.SUCCESS, named=""),
    ],
    C.GET_CONSUMER_LIST_BY_GROUP: _groups(R.SYSTEM_ERROR),
    C.GET_TOPIC_CONFIG: _topics(R.TOPIC_NOT_EXIST),
    C.GET_SUBSCRIPTIONGROUP_CONFIG: _groups(R.SUBSCRIPTION_GROUP_NOT_EXIST, field="group"),
    C.INVOKE_BROKER_TO_RESET_OFFSET: [
        *_topics(R.TOPIC_NOT_EXIST),
        *_groups(R.SUBSCRIPTION_GROUP_NOT_EXIST, field="group"),
        *_each("queueId", NO_QUEUES[1:4], R.INVALID_PARAMETER, "queueId"),
        *(({"queueId": "0", "offset": offset}, R.SYSTEM_ERROR, "offset") for offset in ("-2", "3", str(FAR))),
    ],
    C.INVOKE_BROKER_TO_GET_CONSUMER_STATUS: _groups(R.SYSTEM_ERROR, field="group"),
    C.GET_CONSUMER_RUNNING_INFO: [
        *_groups(R.SYSTEM_ERROR, named="consumer"),
        *_each("clientId", ["", "c2", "c" * 40_000], R.SYSTEM_ERROR, "consumer"),
    ],
    C.CONSUME_MESSAGE_DIRECTLY: [
        *_groups(R.SYSTEM_ERROR, named="consumer"),
        *_each("clientId", ["", "c2", "c" * 40_000], R.SYSTEM_ERROR, "consumer"),
        *_each("msgId", _NO_MESSAGE_IDS, R.SYSTEM_ERROR, "<msgId>"),
        *(
            ({"msgId": encode_offset_message_id(STORE_HOST, offset)}, R.SYSTEM_ERROR, "offset")
            for offset in (1, FAR, -1)
        ),
    ],
    C.POP_MESSAGE: _POPS,
    C.NOTIFICATION: [
        *_LOOKS,
        *_each("exp", [" || ", "t" * 65_537], R.SUBSCRIPTION_PARSE_FAILED, "expression"),
    ],
    C.POLLING_INFO: _LOOKS,
    C.ACK_MESSAGE: _HANDLES,
    C.CHANGE_MESSAGE_INVISIBLETIME: [
        *_HANDLES,
        *_each("invisibleTime", ["-1", "259200001", str(INT64_MAX)], R.INVALID_PARAMETER, "invisibleTime"),
    ],
}


def _bodies(code: int, path: Path, values: Iterable[object], answer: int, named: str) -> Iterator[BadRequest]:
    for value in values:
        fault = f"$.{'.'.join(map(str, path))}={value!r:.60}"
        yield BadRequest(code, GOOD[code][0], changed_body(code, path, value), fault, answer, named)


_LONG_TEXTS = ("", "c" * (TEXT_LENGTH_MAX + 1), "c" * 40_000)


def _heartbeat_faults() -> Iterator[BadRequest]:
    code, bad = C.HEART_BEAT, R.INVALID_PARAMETER
    consumers, producers = ("consumerDataSet", 0), ("producerDataSet", 0)
    subscriptions = (*consumers, "subscriptionDataSet", 0)
    yield from _bodies(code, ("clientID",), _LONG_TEXTS, bad, "clientID")
    yield from _bodies(code, (*producers, "groupName"), _LONG_TEXTS, bad, "groupName")
    yield from _bodies(code, (*consumers, "groupName"), NO_GROUPS, bad, "group")
    topics = ("", "t" * (TEXT_LENGTH_MAX + 1), "t" * 40_000)
    yield from _bodies(code, (*subscriptions, "topic"), topics, bad, "topic")
    yield from _bodies(code, (*subscriptions, "subString"), ["s" * 65_537], bad, "subString")
    yield from _bodies(code, (*subscriptions, "expressionType"), ["X" * 40_000], bad, "expressionType")
    # Of two groups one can't be: the other is not made either.
    new = {"groupName": "New", "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING"}
    new["consumeFromWhere"] = "CONSUME_FROM_LAST_OFFSET"
    two = [new, new | {"groupName": "no spaces, please"}]
    yield from _bodies(code, ("consumerDataSet",), [two], bad, "group")
    yield from _bodies(code, ("consumerDataSet",), [[new] * 1_001], R.SYSTEM_BUSY, "limit is 1000")
    many = [{"topic": f"t{n}"} for n in range(10_001)]
    yield from _bodies(code, (*consumers, "subscriptionDataSet"), [many], R.SYSTEM_BUSY, "limit is 10000")


def _lock_faults(code: int) -> Iterator[BadRequest]:
    bad = R.INVALID_PARAMETER
    yield from _bodies(code, ("consumerGroup",), [""], R.SYSTEM_ERROR, "consumerGroup")
    yield from _bodies(code, ("consumerGroup",), _LONG_TEXTS[1:], bad, "consumerGroup")
    yield from _bodies(code, ("clientId",), [""], R.SYSTEM_ERROR, "clientId")
    yield from _bodies(code, ("clientId",), _LONG_TEXTS[1:], bad, "clientId")
    for index in (0, 1):
        yield from _bodies(code, ("mqSet", index, "topic"), _LONG_TEXTS, bad, "topic")
        yield from _bodies(code, ("mqSet", index, "brokerName"), _LONG_TEXTS[1:], bad, "brokerName")
        yield from _bodies(code, ("mqSet", index, "queueId"), [-1, INT32_MAX], bad, "queueId")
    queues = [{"topic": "T", "brokerName": "broker-a", "queueId": 1}] * 10_001
    yield from _bodies(code, ("mqSet",), [queues], R.SYSTEM_BUSY, "limit is 10000")


def _check_config_faults() -> Iterator[BadRequest]:
    code, path = C.CHECK_CLIENT_CONFIG, "subscriptionData"
    sql = ("", "a >", "(" * 5_000, "a = 1 " * 50_000)
    yield from _bodies(code, (path, "subString"), sql, R.SUBSCRIPTION_PARSE_FAILED, "expression")
    types = ["XPATH", "X" * 40_000]
    yield from _bodies(code, (path, "expressionType"), types, R.SYSTEM_ERROR, "filter message by X")


def _assignment_faults() -> Iterator[BadRequest]:
    """Nobody has such queues: the answer is a success with none, and the client keeps what it has."""
    code = C.QUERY_ASSIGNMENT
    yield from _bodies(code, ("topic",), NO_TOPICS, R.SUCCESS, "")
    yield from _bodies(code, ("consumerGroup",), NO_GROUPS, R.SUCCESS, "")
    yield from _bodies(code, ("clientId",), _LONG_TEXTS, R.SUCCESS, "")
    yield from _bodies(code, ("strategyName",), ["", "NONE", "S" * 40_000], R.SUCCESS, "")


def _request_mode_faults() -> Iterator[BadRequest]:
    code = C.SET_MESSAGE_REQUEST_MODE
    yield from _bodies(code, ("topic",), [t for t in NO_TOPICS if "%" not in t], R.INVALID_PARAMETER, "topic")
    yield from _bodies(code, ("topic",), ["%RETRY%G"], R.NO_PERMISSION, "topic")
    yield from _bodies(code, ("consumerGroup",), NO_GROUPS, R.INVALID_PARAMETER, "group")


def _batch_ack_faults() -> Iterator[BadRequest]:
    code, ack = C.BATCH_ACK_MESSAGE, ("acks", 0)
    yield from _bodies(code, ("acks",), [[], MISSING], R.SYSTEM_ERROR, "acks")
    yield from _bodies(code, (*ack, "r"), ["3", "", "x", "9" * 40_000], R.INVALID_PARAMETER, "mark r")
    yield from _bodies(code, (*ack, "b"), ["*", "=", "A", "\u00fc", "A" * 40_000], R.SYSTEM_ERROR, "bit set b")
    too_many = base64.b64encode(b"\xff" * 129).decode()
    yield from _bodies(code, (*ack, "b"), [too_many], R.SYSTEM_BUSY, "limit is 1024")
    good = json.loads(BODIES[code].encode())["acks"][0]
    # Of two acknowledgements one can't be: the other, which could be done, is not done either.
    yield from _bodies(code, ("acks",), [[good, good | {"r": "3"}]], R.INVALID_PARAMETER, "mark r")
    yield from _bodies(code, ("acks",), [[good, good | {"b": "*"}]], R.SYSTEM_ERROR, "bit set b")


_BODY_FAULTS: Mapping[int, Callable[[], Iterator[BadRequest]]] = {
    C.HEART_BEAT: _heartbeat_faults,
    C.LOCK_BATCH_MQ: lambda: _lock_faults(C.LOCK_BATCH_MQ),
    C.UNLOCK_BATCH_MQ: lambda: _lock_faults(C.UNLOCK_BATCH_MQ),
    C.CHECK_CLIENT_CONFIG: _check_config_faults,
    C.QUERY_ASSIGNMENT: _assignment_faults,
    C.SET_MESSAGE_REQUEST_MODE: _request_mode_faults,
    C.BATCH_ACK_MESSAGE: _batch_ack_faults,
}

_MAKES_GROUPS = (C.PULL_MESSAGE, C.LITE_PULL_MESSAGE, C.POP_MESSAGE)


def value_faults(code: int) -> Iterator[BadRequest]:
    """What is wrong with the request's values, by the tables of this module."""
    if code in (C.SEND_MESSAGE, C.SEND_MESSAGE_V2, C.SEND_BATCH_MESSAGE, C.SEND_REPLY_MESSAGE, C.SEND_REPLY_MESSAGE_V2):
        yield from _message_faults(code)
    good, body = GOOD[code]
    for changed, answer, named in _VALUES.get(code, ()):
        yield BadRequest(code, good | changed, body, _told(changed), answer, named)
        if code in _MAKES_GROUPS and "consumerGroup" not in changed and answer not in _SERVED:
            fields = good | {"consumerGroup": "New"} | changed
            nobody_told = changed.get("sysFlag") == "0"
            expected = (R.SUBSCRIPTION_NOT_EXIST, "group") if nobody_told else (answer, named)
            yield BadRequest(code, fields, body, f"a new group, {_told(changed)}", *expected)
    if code in _BODY_FAULTS:
        yield from _BODY_FAULTS[code]()


_SERVED = (R.PULL_OFFSET_MOVED, R.PULL_NOT_FOUND, R.POLLING_TIMEOUT)


def _told(changed: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value!r:.60}" for name, value in changed.items())
