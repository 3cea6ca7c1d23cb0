"""Delay levels and timer messages, some of them taken back: often, and by choice close to their time."""

import heapq
from collections.abc import Callable
from random import Random

from apogeemq.remoting_codec.codes import RequestCode

from tests.chaos.history import History, Kind, Recall, Send, now_ms
from tests.chaos.worker import Reader, Worker
from tests.config_files import QUEUES
from tests.e2e.wire_client import WireClient

TOPIC, GROUP = "ChaosDelay", "chaos_delay"
LEVELS_S = (1, 2)
TIMER_MS_MAX = 2_500
RECALL_SHARE = 0.3
CLOSE_SHARE = 0.5
"""Of the recalls so many come within the last milliseconds."""
CLOSE_MS = 6


class DelayedWorker(Worker):
    """Sends to all queues, and reads all of them."""

    name = "delayed"

    def __init__(self, where: Callable[[], str], history: History, random: Random) -> None:
        super().__init__(where, history, random)
        self._reader = Reader(TOPIC, GROUP, QUEUES)
        self._recalls: list[tuple[int, str, str]] = []
        """(when, key, handle) of what is to be taken back."""

    def step(self, client: WireClient) -> None:
        if self.is_sending:
            for _ in range(self.random.randint(1, 3)):
                self._send(client)
        self._recall_some(client)
        self._reader.read(client, self.history)

    def _send(self, client: WireClient) -> None:
        queue_id, dice = self.random.randrange(QUEUES), self.random.random()
        if dice < 0.25:
            level = self.random.randint(1, len(LEVELS_S))
            send = Send(key=self.next_key(), kind=Kind.DELAYED, wait_ms=LEVELS_S[level - 1] * 1_000)
            self.send(client, send, TOPIC, queue_id, {"DELAY": str(level)})
            return
        wait_ms = self.random.randint(20, TIMER_MS_MAX)
        if dice < 0.5:
            send = Send(key=self.next_key(), kind=Kind.DELAYED, wait_ms=wait_ms)
            told = self.send(client, send, TOPIC, queue_id, {"TIMER_DELAY_MS": str(wait_ms)})
        else:
            send = Send(key=self.next_key(), kind=Kind.DELAYED, due_ms=now_ms() + wait_ms)
            told = self.send(client, send, TOPIC, queue_id, {"TIMER_DELIVER_MS": str(send.due_ms)})
        if "recallHandle" in told and self.random.random() < RECALL_SHARE:
            lead_ms = CLOSE_MS if self.random.random() < CLOSE_SHARE else wait_ms
            when_ms = send.not_before_ms - self.random.randint(0, lead_ms)
            heapq.heappush(self._recalls, (when_ms, send.key, told["recallHandle"]))

    def _recall_some(self, client: WireClient) -> None:
        while self._recalls and self._recalls[0][0] <= now_ms():
            _, key, handle = heapq.heappop(self._recalls)
            recall = self.history.add(Recall(key=key))
            fields = {"producerGroup": "P", "topic": TOPIC, "recallHandle": handle}
            self.ask(client, recall, RequestCode.RECALL_MESSAGE, fields)
