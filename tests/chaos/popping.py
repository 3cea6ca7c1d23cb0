"""Pops: messages in no order, and message groups in theirs. Some are acknowledged, some later, some not at all."""

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from random import Random

from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import Record, decode_records

from tests.chaos.history import Ack, Change, Delivery, History, Kind, Outcome, Place, Pop, Send, now_ms
from tests.chaos.worker import Worker
from tests.config_files import QUEUES
from tests.e2e.wire_client import WireClient

TOPIC, GROUP = "ChaosPop", "chaos_pop"
FIFO_TOPIC, FIFO_GROUP = "ChaosFifo", "chaos_fifo"
MESSAGE_GROUPS = 6
INVISIBLE_MS = 1_500
CHANGED_MS = (500, 2_500)
ACK_SHARE = 0.8
CHANGE_SHARE = 0.1
WAITING_MAX = 300
"""While so many have not come yet, no more are sent: on a busy machine popping in order is slower than sending."""
NORMAL_MARK = "0"
BROKER_NAME = "chaos"
"""Part of the handles."""


@dataclasses.dataclass(slots=True)
class InHand:
    """A popped message: where its delivery is in the history, and the handle that settles it."""

    delivery: Delivery
    handle: str
    settle_at_ms: int = 0


class PopWorker(Worker):
    """Pops from all queues of a topic; subclasses say in which order."""

    name = "pop"
    kind = Kind.POP
    topic, group = TOPIC, GROUP

    def __init__(self, where: Callable[[], str], history: History, random: Random) -> None:
        super().__init__(where, history, random)
        self._waiting: set[str] = set()
        """Keys of those that were sent and have not come yet."""
        self._later: list[InHand] = []
        """Those that got another time, and will be acknowledged within it."""

    def step(self, client: WireClient) -> None:
        if self.is_sending and len(self._waiting) < WAITING_MAX:
            for _ in range(self.random.randint(1, 3)):
                self._send(client)
        for one in self._pop(client):
            self._treat(client, one)
        self._ack_later(client)

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, client: WireClient) -> None:
        send = Send(key=self.next_key(), kind=self.kind)
        self._send_to(client, send, self.random.randrange(QUEUES), {})

    def _send_to(self, client: WireClient, send: Send, queue_id: int, properties: dict[str, str]) -> None:
        self.send(client, send, self.topic, queue_id, properties)
        if send.outcome is Outcome.ACKNOWLEDGED:
            self._waiting.add(send.key)

    # -- popping -------------------------------------------------------------------------------------------------------

    def _pop(self, client: WireClient) -> Iterator[InHand]:
        pop = self.history.add(Pop(kind=self.kind, invisible_ms=INVISIBLE_MS))
        reply = client.request(RequestCode.POP_MESSAGE, self._pop_fields())
        # Nothing there is an answer too: this pop has taken nothing.
        self.history.end(pop, Outcome.ACKNOWLEDGED)
        if reply.code == ResponseCode.SUCCESS:
            yield from [self._delivered(record, reply) for record in decode_records(reply.body)]
        else:
            assert reply.code in {ResponseCode.POLLING_TIMEOUT, ResponseCode.SERVICE_NOT_AVAILABLE}, reply

    def _pop_fields(self) -> dict[str, str]:
        return {
            "consumerGroup": self.group,
            "topic": self.topic,
            "queueId": "-1",
            "maxMsgNums": str(self.random.randint(1, 16)),
            "invisibleTime": str(INVISIBLE_MS),
            "pollTime": "0",
            "bornTime": str(now_ms()),
            "initMode": "0",
            "expType": "TAG",
            "exp": "*",
            "order": "false",
        }

    def _attempt(self) -> str:
        return ""

    def _delivered(self, record: Record, reply: RemotingCommand) -> InHand:
        handle = handle_of(record, reply.ext_fields or {})
        _, popped, invisible, _, mark, _, queue_id, queue_offset = handle.split(" ")
        place = Place(real_topic(self.topic, self.group, mark), int(queue_id), int(queue_offset))
        delivery = Delivery(
            key=record.body.decode(),
            place=place,
            stored_ms=record.store_timestamp_ms,
            failures=record.reconsume_times,
            popped_ms=int(popped),
            visible_ms=int(popped) + int(invisible),
            attempt=self._attempt(),
        )
        self._waiting.discard(delivery.key)
        return InHand(self.history.add(delivery), handle)

    # -- settling ------------------------------------------------------------------------------------------------------

    def _treat(self, client: WireClient, one: InHand) -> None:
        dice = self.random.random() if self.is_sending else 0.0
        if dice < ACK_SHARE:
            self._ack(client, one)
        elif dice < ACK_SHARE + CHANGE_SHARE:
            self._change(client, one)

    def _ack_later(self, client: WireClient) -> None:
        due = [one for one in self._later if one.settle_at_ms <= now_ms()]
        self._later = [one for one in self._later if one.settle_at_ms > now_ms()]
        for one in due:
            self._ack(client, one)

    def _ack(self, client: WireClient, one: InHand) -> None:
        ack = self.history.add(Ack(of=one.delivery.number))
        self.ask(client, ack, RequestCode.ACK_MESSAGE, self._handle_fields(one))

    def _change(self, client: WireClient, one: InHand) -> None:
        """It gets another time, and most are acknowledged within it."""
        new_ms = self.random.randint(*CHANGED_MS)
        change = self.history.add(Change(of=one.delivery.number, visible_ms=now_ms() + new_ms))
        fields = {**self._handle_fields(one), "invisibleTime": str(new_ms)}
        reply = self.ask(client, change, RequestCode.CHANGE_MESSAGE_INVISIBLETIME, fields)
        if change.outcome is not Outcome.ACKNOWLEDGED:
            return
        told = reply.ext_fields or {}
        if self.kind is Kind.POP:  # of an ordered one the answer has the old handle's times
            change.visible_ms = int(told["popTime"]) + int(told["invisibleTime"])
        start, _, _, _, *rest = one.handle.split(" ")
        handle = " ".join((start, told["popTime"], told["invisibleTime"], told["reviveQid"], *rest))
        self._later.append(InHand(one.delivery, handle, now_ms() + new_ms // 2))

    def _handle_fields(self, one: InHand) -> dict[str, str]:
        *_, mark, _, queue_id, queue_offset = one.handle.split(" ")
        return {
            "consumerGroup": self.group,
            "topic": real_topic(self.topic, self.group, mark),
            "queueId": queue_id,
            "offset": queue_offset,
            "extraInfo": one.handle,
        }


class OrderedPopWorker(PopWorker):
    """Pops message groups in order. A pop without an answer is asked again under its attempt id."""

    name = "ordered-pop"
    kind = Kind.ORDERED_POP
    topic, group = FIFO_TOPIC, FIFO_GROUP

    def __init__(self, where: Callable[[], str], history: History, random: Random) -> None:
        super().__init__(where, history, random)
        self._attempts = 0

    def _send(self, client: WireClient) -> None:
        group = f"group-{self.random.randrange(MESSAGE_GROUPS)}"
        send = Send(key=self.next_key(), kind=self.kind, order_group=group)
        self._send_to(client, send, zlib.crc32(group.encode()) % QUEUES, {"__SHARDINGKEY": group})

    def _pop_fields(self) -> dict[str, str]:
        return {**super()._pop_fields(), "order": "true", "attemptId": self._attempt()}

    def _attempt(self) -> str:
        return f"attempt-{self._attempts}"

    def _pop(self, client: WireClient) -> Iterator[InHand]:
        popped = list(super()._pop(client))
        self._attempts += 1
        yield from popped


def handle_of(record: Record, told: dict[str, str]) -> str:
    """A popped message's handle: the client makes it out of the answer, but of what comes again, which has its own."""
    given = decode_properties(record.properties).get("POP_CK")
    if given is not None:
        return given
    starts = {}
    for part in told["startOffsetInfo"].split(";"):
        mark, queue_id, start = part.split(" ")
        starts[mark, int(queue_id)] = start
    times = f"{told['popTime']} {told['invisibleTime']} {told['reviveQid']}"
    start = starts[NORMAL_MARK, record.queue_id]
    return f"{start} {times} {NORMAL_MARK} {BROKER_NAME} {record.queue_id} {record.queue_offset}"


def real_topic(topic: str, group: str, mark: str) -> str:
    """Where a popped message lies: in the topic, or in one of its group's retry topics (reference remoting.md)."""
    return {NORMAL_MARK: topic, "1": f"%RETRY%{group}_{topic}", "2": f"%RETRY%{group}+{topic}"}[mark]
