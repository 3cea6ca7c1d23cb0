"""What was put into a store, written down when it was sent; and whether a broker still has all of it, in each way.

The ledger talks to whichever broker has the store now, by plain Remoting requests. What it expects comes from what it
sent and from the acknowledgements; a record that one broker has handed out, every later one must hand out unchanged.
"""

import contextlib
import dataclasses
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from apogeemq.remoting_codec.batch import BatchMessage, encode_batch
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.message import decode_properties, encode_properties
from apogeemq.remoting_codec.message_id import decode_offset_message_id
from apogeemq.remoting_codec.record import Record, decode_record, decode_records

from tests.e2e.process import poll_until
from tests.e2e.wire_client import WireClient, pull_all, pull_fields, send_fields
from tests.interop.deployments import BROKER_NAME

ORDERS, BATCHES, PACKED, DELAYED = "ProofOrders", "ProofBatches", "ProofPacked", "ProofDelayed"
GROUP = "ProofGroup"
RETRIES = f"%RETRY%{GROUP}"
SCHEDULE = "SCHEDULE_TOPIC_XXXX"
ORDER_QUEUES = 4
WINDOW = 100
"""Sends on their way at a time."""
BODY_REPEATS = 120
"""Of some 15 bytes each: 600 orders fill more than one log file of 1 MiB."""

LEVELS_S = {1: 1, 3: 10, 4: 20, 18: 7_200}
"""What the delay levels used here wait."""
DELAY_LEVELS = "1s 5s 10s 20s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"
"""messageDelayLevel: RocketMQ's default, but for level 4, which would be 30 s."""
POP_INVISIBLE_MS = 10_000
POP_QUEUE_ID = 2
REVIVE_QUEUES = 8
ZLIB_FLAG = 0x301
"""Compressed, by zlib: bit 0, and the type 3 in bits 8 to 10."""
DUE_TIMEOUT_S = 60.0
TIMESTAMP_MS_MAX = (1 << 63) - 1

Queue = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Message:
    """One message to send."""

    topic: str
    queue_id: int
    body: bytes
    properties: Mapping[str, str]
    sys_flag: int = 0

    @property
    def unique_key(self) -> str:
        return self.properties["UNIQ_KEY"]


@dataclasses.dataclass(frozen=True)
class Stored:
    """One message that was acknowledged, and where the broker said that it is."""

    message: Message
    queue_offset: int
    physical_offset: int


@dataclasses.dataclass(frozen=True)
class Due:
    """One message that is to appear in queue 0 of a topic, once, and not before a time."""

    topic: str
    unique_key: str
    body: bytes
    due_ms: int


class Ledger:
    """Fills a store in turns, and checks in each turn all that the earlier ones put there."""

    def __init__(self) -> None:
        self.stored: list[Stored] = []
        self.queues: dict[Queue, list[Record]] = {}
        """As the last broker handed them out."""
        self.committed: dict[Queue, int] = {}
        self.pending: list[Due] = []
        self.delivered: list[Due] = []
        self.is_exactly_once = True
        """Until somebody is killed: progress of the last second may be lost then, and messages come twice."""
        self.step = 2
        """Every how-manieth message is looked up by id, and by its keys: each costs a request or two."""

    # -- putting in ----------------------------------------------------------------------------------------------------

    def fill(self, client: WireClient, turn: str, count: int) -> None:
        """Orders over several queues, a batch, a compressed body, delays of 2 h and of 1 s; offsets are committed."""
        self._send(client, [order(turn, number) for number in range(count)])
        self._send_batch(client, [message(BATCHES, turn, number) for number in range(10)])
        packed = zlib.compress(f"{turn} packed".encode() * 1000)
        self._send(client, [dataclasses.replace(message(PACKED, turn, 0), body=packed, sys_flag=ZLIB_FLAG)])
        self._delay(client, turn, 18)
        self.pending.append(self._delay(client, turn, 1))
        self.await_pending(client)
        self.look(client)
        self._commit(client)

    def send_until_killed(self, client: WireClient, turn: str, count: int, kill: Callable[[], None]) -> None:
        """Orders; after `count` acknowledgements the broker is killed while more are on their way, or stored."""
        self.is_exactly_once = False
        on_their_way: deque[tuple[Message, int]] = deque()
        for number in range(count + WINDOW):
            sent = order(turn, number)
            on_their_way.append((sent, client.send(RequestCode.SEND_MESSAGE_V2, fields_of(sent), sent.body)))
            if len(on_their_way) > WINDOW:
                self._receive_next(client, on_their_way)
        kill()
        with contextlib.suppress(OSError):  # those that it answered before count, too
            while on_their_way:
                self._receive_next(client, on_their_way)

    def _receive_next(self, client: WireClient, on_their_way: deque[tuple[Message, int]]) -> None:
        sent, opaque = on_their_way.popleft()
        self._acknowledged([sent], client.receive(opaque))

    def leave_pending(self, client: WireClient, turn: str, level: int) -> None:
        """A delayed message and a retry, both delayed by that level: for the next owner."""
        self.pending.append(self._delay(client, turn, level))
        failed = self.queues[ORDERS, 1][-1]
        unique_key = decode_properties(failed.properties)["UNIQ_KEY"]
        self.pending.append(Due(RETRIES, unique_key, failed.body, now_ms() + LEVELS_S[level] * 1000))
        fields = {
            "offset": str(failed.physical_offset),
            "group": GROUP,
            "delayLevel": str(level),
            "originMsgId": unique_key,
            "originTopic": ORDERS,
            "unitMode": "false",
            "maxReconsumeTimes": "16",
        }
        succeed(client, RequestCode.CONSUMER_SEND_MSG_BACK, fields)

    def leave_popped(self, client: WireClient, turn: str) -> None:
        """A message that a group popped and does not acknowledge comes again; those before it were acknowledged."""
        group = f"{GROUP}-{turn}"
        for _ in range(REVIVE_QUEUES):  # so that the group's last record follows settled ones in its revive queue
            acknowledge(client, group, pop(client, group))
        born_ms = now_ms()
        [popped] = decode_records(pop(client, group).body)
        unique_key = decode_properties(popped.properties)["UNIQ_KEY"]
        due = Due(f"%RETRY%{group}_{ORDERS}", unique_key, popped.body, born_ms + POP_INVISIBLE_MS)
        self.pending.append(due)

    def _send(self, client: WireClient, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), WINDOW):
            sent = messages[start : start + WINDOW]
            opaques = [client.send(RequestCode.SEND_MESSAGE_V2, fields_of(each), each.body) for each in sent]
            for each, opaque in zip(sent, opaques, strict=True):
                self._acknowledged([each], client.receive(opaque))

    def _send_batch(self, client: WireClient, messages: Sequence[Message]) -> None:
        fields = send_fields(messages[0].topic, messages[0].queue_id, m="true")
        body = encode_batch(BatchMessage(0, each.body, encode_properties(each.properties)) for each in messages)
        self._acknowledged(messages, client.request(RequestCode.SEND_BATCH_MESSAGE, fields, body))

    def _acknowledged(self, messages: Sequence[Message], reply: RemotingCommand) -> None:
        assert reply.code == ResponseCode.SUCCESS, reply
        assert reply.ext_fields is not None
        first_offset = int(reply.ext_fields["queueOffset"])
        ids = reply.ext_fields["msgId"].split(",")
        for number, (each, message_id) in enumerate(zip(messages, ids, strict=True)):
            self.stored.append(Stored(each, first_offset + number, decode_offset_message_id(message_id)[1]))

    def _delay(self, client: WireClient, turn: str, level: int) -> Due:
        delayed = message(DELAYED, turn, level)
        delayed = dataclasses.replace(delayed, properties={**delayed.properties, "DELAY": str(level)})
        due_ms = now_ms() + LEVELS_S[level] * 1000
        succeed(client, RequestCode.SEND_MESSAGE_V2, fields_of(delayed), delayed.body)
        return Due(DELAYED, delayed.unique_key, delayed.body, due_ms)

    def _commit(self, client: WireClient) -> None:
        """The group has consumed a part of each queue of the orders, a different one of each."""
        for queue_id in range(ORDER_QUEUES):
            offset = len(self.queues[ORDERS, queue_id]) - 10 * queue_id - 5
            fields = {"consumerGroup": GROUP, "topic": ORDERS, "queueId": str(queue_id), "commitOffset": str(offset)}
            succeed(client, RequestCode.UPDATE_CONSUMER_OFFSET, fields)
            self.committed[ORDERS, queue_id] = offset

    # -- looking -------------------------------------------------------------------------------------------------------

    def await_pending(self, client: WireClient) -> None:
        """Returns when each pending message has been delivered, none early, and each message only once."""
        for due in self.pending:
            poll_until(
                lambda due=due: bool(copies_of(client, due)),  # type: ignore[misc]  # a default that binds
                DUE_TIMEOUT_S,
                lambda due=due: AssertionError(f"{due.unique_key} did not come to {due.topic}"),  # type: ignore[misc]
            )
        self.delivered += self.pending
        self.pending = []
        for due in self.delivered:
            copies = copies_of(client, due)
            assert len(copies) == 1 or not self.is_exactly_once, due
            for copy in copies:
                assert copy.body == due.body
                assert copy.store_timestamp_ms >= due.due_ms

    def look(self, client: WireClient) -> None:
        """Every queue: what was there when a broker was last looked at is unchanged, and all that was sent is there."""
        known: dict[Queue, list[Record]] = {queue: [] for queue in self._queues_sent()} | self.queues
        for (topic, queue_id), before in known.items():
            records = pull_all(client, topic, GROUP, queue_id)
            assert records[: len(before)] == before, (topic, queue_id)
            assert [record.queue_offset for record in records] == list(range(len(records))), (topic, queue_id)
            self.queues[topic, queue_id] = records
        for each in self.stored:
            record = self._record_of(each)
            properties = decode_properties(record.properties)
            assert record.body == each.message.body
            assert record.sys_flag == each.message.sys_flag
            assert record.physical_offset == each.physical_offset
            assert each.message.properties.items() <= properties.items()

    def look_by_id(self, client: WireClient) -> None:
        """Messages by the physical offset that their offset message ids carry."""
        for each in self.stored[:: self.step]:
            reply = succeed(client, RequestCode.VIEW_MESSAGE_BY_ID, {"offset": str(each.physical_offset)})
            assert decode_record(reply.body) == self._record_of(each)

    def look_by_key(self, client: WireClient) -> None:
        """Messages by their unique keys and by their own keys; nothing by a key that none has."""
        for each in self.stored[self.step - 1 :: self.step]:
            expected = [self._record_of(each)]
            topic, key = each.message.topic, each.message.properties["KEYS"].split()[0]
            assert query(client, topic, key, each.message.unique_key) == expected
            assert query(client, topic, key) == expected
        assert query(client, ORDERS, "no-such-key") == []

    def look_at_offsets(self, client: WireClient) -> None:
        """The group's offsets are those committed, and a pull from there goes on with the message that stands there."""
        for (topic, queue_id), offset in self.committed.items():
            fields = {"consumerGroup": GROUP, "topic": topic, "queueId": str(queue_id)}
            reply = succeed(client, RequestCode.QUERY_CONSUMER_OFFSET, fields)
            assert reply.ext_fields == {"offset": str(offset)}
            reply = succeed(client, RequestCode.PULL_MESSAGE, pull_fields(topic, GROUP, queue_id, offset))
            assert decode_records(reply.body)[0] == self.queues[topic, queue_id][offset]

    def _queues_sent(self) -> set[Queue]:
        return {(each.message.topic, each.message.queue_id) for each in self.stored}

    def _record_of(self, stored: Stored) -> Record:
        return self.queues[stored.message.topic, stored.message.queue_id][stored.queue_offset]


def message(topic: str, turn: str, number: int, queue_id: int = 0) -> Message:
    """A small message with a tag and keys of its own."""
    name = f"{topic}-{turn}-{number}"
    properties = {
        "TAGS": "TagA" if number % 2 else "TagB",
        "KEYS": f"{name} {turn}",
        "UNIQ_KEY": f"UNIQ{name}",
        "WAIT": "true",
    }
    return Message(topic, queue_id, f"{name} ".encode(), properties)


def order(turn: str, number: int) -> Message:
    """A larger one."""
    small = message(ORDERS, turn, number, number % ORDER_QUEUES)
    return dataclasses.replace(small, body=small.body * BODY_REPEATS)


def fields_of(message: Message) -> dict[str, str]:
    """The request that sends it."""
    properties = encode_properties(message.properties).decode()
    return send_fields(message.topic, message.queue_id, properties, f=str(message.sys_flag))


def pop(client: WireClient, group: str) -> RemotingCommand:
    """One message of the orders for a group, which has it for POP_INVISIBLE_MS."""
    fields = {
        "consumerGroup": group,
        "topic": ORDERS,
        "queueId": str(POP_QUEUE_ID),
        "maxMsgNums": "1",
        "invisibleTime": str(POP_INVISIBLE_MS),
        "pollTime": "0",
        "bornTime": str(now_ms()),
        "initMode": "0",
        "expType": "TAG",
        "exp": "*",
        "order": "false",
    }
    return succeed(client, RequestCode.POP_MESSAGE, fields)


def acknowledge(client: WireClient, group: str, popped: RemotingCommand) -> None:
    """What `pop` answered, settled; the handle is put together as clients do."""
    offset = decode_records(popped.body)[0].queue_offset
    answer = popped.ext_fields or {}
    pop_of = f"{offset} {answer['popTime']} {answer['invisibleTime']} {answer['reviveQid']}"
    fields = {
        "consumerGroup": group,
        "topic": ORDERS,
        "queueId": str(POP_QUEUE_ID),
        "extraInfo": f"{pop_of} 0 {BROKER_NAME} {POP_QUEUE_ID} {offset}",
        "offset": str(offset),
    }
    succeed(client, RequestCode.ACK_MESSAGE, fields)


def copies_of(client: WireClient, due: Due) -> list[Record]:
    """Those in queue 0 of its topic that have its unique key; a topic that does not exist yet has none."""
    reply = client.request(RequestCode.PULL_MESSAGE, pull_fields(due.topic, GROUP))
    if reply.code == ResponseCode.TOPIC_NOT_EXIST:
        return []
    records = pull_all(client, due.topic, GROUP)
    return [record for record in records if decode_properties(record.properties).get("UNIQ_KEY") == due.unique_key]


def scheduled(client: WireClient, level: int) -> int:
    """How many messages were ever delayed by a level."""
    fields = {"topic": SCHEDULE, "queueId": str(level - 1)}
    reply = succeed(client, RequestCode.GET_MAX_OFFSET, fields)
    return int((reply.ext_fields or {})["offset"])


def query(client: WireClient, topic: str, key: str, unique_key: str | None = None) -> list[Record]:
    """QUERY_MESSAGE over all times, by key or by unique key; none found is an empty list."""
    fields = {"topic": topic, "key": key, "maxNum": "32", "beginTimestamp": "0", "endTimestamp": str(TIMESTAMP_MS_MAX)}
    if unique_key is not None:
        fields |= {"key": unique_key, "_UNIQUE_KEY_QUERY": "true"}
    reply = client.request(RequestCode.QUERY_MESSAGE, fields)
    if reply.code == ResponseCode.QUERY_NOT_FOUND:
        return []
    assert reply.code == ResponseCode.SUCCESS, reply
    return decode_records(reply.body)


def succeed(client: WireClient, code: int, fields: dict[str, str], body: bytes = b"") -> RemotingCommand:
    """One request that must be answered with success."""
    reply = client.request(code, fields, body)
    assert reply.code == ResponseCode.SUCCESS, reply
    return reply


def now_ms() -> int:
    """Wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000
