"""One client of one kind: it sends, and consumes what was sent, over a connection that it opens again after each kill.

A worker is a thread with one blocking connection. Whatever it does is in the history before it is on the wire, so that
a call whose answer the kill swallowed stands there as UNKNOWN.
"""

import abc
import itertools
import threading
from collections.abc import Callable, Mapping
from random import Random
from typing import TypeVar

from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.message import encode_properties
from apogeemq.remoting_codec.record import Record, decode_records
from apogeemq.remoting_codec.roles import is_not_master

from tests.chaos.history import Call, Delivery, History, Outcome, Place, Send
from tests.e2e.wire_client import TIMEOUT_S, WireClient, pull_fields, send_fields

PAUSE_S = 0.005
RECONNECT_S = 0.02
SILENCE_S = 2.0
STORED_PERHAPS = {
    ResponseCode.FLUSH_DISK_TIMEOUT,
    ResponseCode.SLAVE_NOT_AVAILABLE,
    ResponseCode.FLUSH_SLAVE_TIMEOUT,
    ResponseCode.SERVICE_NOT_AVAILABLE,
}
"""Refusals of what may be in the log all the same: it may come, or be cut off. See `is_not_master` for the last."""
TIMED_OUT = "the broker took a request and neither answered nor closed the connection"

CallT = TypeVar("CallT", bound=Call)


class AnyWorker(abc.ABC):
    """The thread, over whatever protocol.

    Args:
        history: gets everything.
        random: makes its choices.
    """

    name: str

    def __init__(self, history: History, random: Random) -> None:
        self.history = history
        self.random = random
        self.is_sending = True
        """Cleared when no more is to be sent, and all that is there is to be consumed."""
        self.failure: BaseException | None = None
        """What ended the thread, where it was not told to end."""
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """End; the thread is gone afterwards."""
        self._is_over.set()
        self._thread.join()

    def next_key(self) -> str:
        """Of a message that was never sent."""
        return f"{self.name}-{next(self._numbers)}"

    @abc.abstractmethod
    def _go_on(self) -> None:
        """Over one connection, until it breaks or `_is_over` is set. What it raises ends the thread."""

    def _run(self) -> None:
        try:
            while not self._is_over.is_set():
                self._go_on()
                self._is_over.wait(RECONNECT_S)
        except BaseException as error:  # noqa: BLE001 — told to whoever asks, who fails with it
            self.failure = error


class Worker(AnyWorker):
    """A client of a broker. `step` is called again and again, over a connection that may break in it.

    Args:
        where: gives the broker's address, the same after each kill; of a set the master's, empty while there is none.
        history: gets everything.
        random: makes its choices.
    """

    bears_silence = False
    """Whether a broker may take a request and answer nothing: one that is frozen does."""

    def __init__(self, where: Callable[[], str], history: History, random: Random) -> None:
        super().__init__(history, random)
        self._where = where

    # -- what a kind does ----------------------------------------------------------------------------------------------

    def connected(self, client: WireClient) -> None:
        """There is a new connection."""

    @abc.abstractmethod
    def step(self, client: WireClient) -> None:
        """Send a little, consume a little; must not wait for long."""

    # -- parts for it --------------------------------------------------------------------------------------------------

    def send(
        self, client: WireClient, send: Send, topic: str, queue_id: int, properties: Mapping[str, str], **more: str
    ) -> dict[str, str]:
        """Send a message whose body is its key; gives the fields of the answer, where it was accepted."""
        given = encode_properties({"UNIQ_KEY": send.key, **properties}).decode()
        self.history.add(send)
        fields = send_fields(topic, queue_id, given, **more)
        reply = self.ask(client, send, RequestCode.SEND_MESSAGE_V2, fields, send.key.encode())
        return dict(reply.ext_fields or {}) if send.outcome is Outcome.ACKNOWLEDGED else {}

    def ask(
        self, client: WireClient, call: CallT, code: int, fields: dict[str, str], body: bytes = b""
    ) -> RemotingCommand:
        """Make a call that is in the history, and note how it ended."""
        reply = client.request(code, fields, body)
        if reply.code not in STORED_PERHAPS or is_not_master(reply.code, reply.remark):
            accepted = reply.code == ResponseCode.SUCCESS
            self.history.end(call, Outcome.ACKNOWLEDGED if accepted else Outcome.REFUSED)
        return reply

    def _go_on(self) -> None:
        """Over one connection, until it breaks, or somebody else is master."""
        try:
            address = self._where()
            if not address:
                return
            with WireClient(address) as client:
                client.socket.settimeout(SILENCE_S if self.bears_silence else TIMEOUT_S)
                self.connected(client)
                while not self._is_over.is_set() and self._where() == address:
                    self.step(client)
                    self._is_over.wait(PAUSE_S)
        except TimeoutError as error:
            if not self.bears_silence:
                raise AssertionError(TIMED_OUT) from error
        except OSError:
            return  # killed, or not there yet


class Reader:
    """Reads all queues of a topic from their beginning, each copy once; a kill changes nothing for it."""

    def __init__(self, topic: str, group: str, queues: int) -> None:
        self._topic = topic
        self._group = group
        self._offsets = dict.fromkeys(range(queues), 0)

    def read(self, client: WireClient, history: History) -> None:
        """What has come since the last time, into the history."""
        for queue_id in self._offsets:
            for record in self._pull(client, queue_id):
                place = Place(self._topic, queue_id, record.queue_offset)
                history.add(Delivery(key=record.body.decode(), place=place, stored_ms=record.store_timestamp_ms))

    def _pull(self, client: WireClient, queue_id: int) -> list[Record]:
        fields = pull_fields(self._topic, self._group, queue_id, self._offsets[queue_id])
        reply = client.request(RequestCode.PULL_MESSAGE, fields)
        if reply.code != ResponseCode.SUCCESS:
            return []
        self._offsets[queue_id] = int((reply.ext_fields or {})["nextBeginOffset"])
        return decode_records(reply.body)
