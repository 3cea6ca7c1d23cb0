"""Pulls: a topic's queues are read from offset 0 on, each in order; in the end once more, from the beginning.

```
queue 0   0 1 2 3 4 5 │ the master goes │ 4' 5' …      4 and 5 were shown, and others lie there now: REWRITTEN
                                        │ ends at 4    4 and 5 were shown, and are no more:          TAKEN_BACK
```
It needs nothing of a broker but sends and pulls, which makes it a measure for brokers of others too.
"""

import time
from collections.abc import Callable
from random import Random

from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.record import decode_records

from tests.chaos.history import Delivery, Gone, History, Kind, Place, Send
from tests.chaos.worker import RECONNECT_S, Worker
from tests.config_files import QUEUES
from tests.e2e.wire_client import WireClient, pull_fields

TOPIC, GROUP = "ChaosPull", "chaos_pull"
SECOND_GROUP = "chaos_pull_again"


class PullingWorker(Worker):
    """Sends to all queues of a topic, and pulls all of them. Goes back where a queue's end did."""

    name = Kind.PULL.value

    def __init__(self, where: Callable[[], str], history: History, random: Random) -> None:
        super().__init__(where, history, random)
        self._offsets = dict.fromkeys(range(QUEUES), 0)

    def step(self, client: WireClient) -> None:
        if self.is_sending:
            for _ in range(self.random.randint(1, 3)):
                send = Send(key=self.next_key(), kind=Kind.PULL)
                self.send(client, send, TOPIC, self.random.randrange(QUEUES), {})
        for queue_id in self._offsets:
            self._read(client, queue_id)

    def _read(self, client: WireClient, queue_id: int) -> None:
        reply = pull(client, GROUP, queue_id, self._offsets[queue_id])
        for delivery in deliveries(reply, queue_id):
            self.history.add(delivery)
        if reply.code in {ResponseCode.SUCCESS, ResponseCode.PULL_OFFSET_MOVED}:
            self._offsets[queue_id] = int((reply.ext_fields or {})["nextBeginOffset"])


def read_again(where: Callable[[], str], history: History, timeout_s: float) -> None:
    """Read all queues from their beginning, and put into the history what was delivered before and is not there now.

    Args:
        where: gives the master's address, empty while there is none.
        history: nobody adds to it meanwhile.
        timeout_s: for all of it.

    Raises AssertionError when not all could be read by then.
    """
    shown = {
        event.place: event.key
        for event in history.events()
        if isinstance(event, Delivery) and event.place.topic == TOPIC
    }
    deadline = time.monotonic() + timeout_s
    there: set[Place] = set()
    for queue_id in range(QUEUES):
        end = max((place.queue_offset + 1 for place in shown if place.queue_id == queue_id), default=0)
        there |= _places(where, queue_id, end, deadline)
    for place in sorted(shown.keys() - there):
        history.add(Gone(key=shown[place], place=place))


def _places(where: Callable[[], str], queue_id: int, end: int, deadline: float) -> set[Place]:
    """What lies in a queue in front of offset `end`, as far as the queue goes."""
    places: set[Place] = set()
    offset = 0
    while offset < end:
        assert time.monotonic() < deadline, f"queue {queue_id} could not be read again behind {offset} of {end}"
        try:
            with WireClient(where()) as client:
                while offset < end:
                    reply = pull(client, SECOND_GROUP, queue_id, offset)
                    places |= {each.place for each in deliveries(reply, queue_id)}
                    if reply.code in {ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_OFFSET_MOVED}:
                        return places
                    if reply.code != ResponseCode.SUCCESS:
                        break
                    offset = int((reply.ext_fields or {})["nextBeginOffset"])
        except (OSError, ValueError):  # nobody is there, or there is no address yet
            pass
        time.sleep(RECONNECT_S)
    return places


def pull(client: WireClient, group: str, queue_id: int, offset: int) -> RemotingCommand:
    """One pull; the answer as it came."""
    return client.request(RequestCode.PULL_MESSAGE, pull_fields(TOPIC, group, queue_id, offset))


def deliveries(reply: RemotingCommand, queue_id: int) -> list[Delivery]:
    """What an answer carries."""
    if reply.code != ResponseCode.SUCCESS:
        return []
    return [
        Delivery(
            key=record.body.decode(),
            place=Place(TOPIC, queue_id, record.queue_offset),
            stored_ms=record.store_timestamp_ms,
        )
        for record in decode_records(reply.body)
    ]
