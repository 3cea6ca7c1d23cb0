"""The link to the name servers: one registration stream to each, kept open for as long as the broker runs.

The name servers know nothing of each other, so each is told everything, independently:

    connect ─▶ hello ─▶ (asked: whole topic table) ─▶ accepted ─▶ a delta at every change, a beat each second
       ▲                                                                         │
       └── wait 0.1 s, doubling to 3 s, with jitter ◀── lost, refused, unanswered ┘

Nothing here polls: a change of topics is handed over by topics_changed() and leaves in the same turn of the event loop.
Several changes that come while a send waits leave together. What happened while a stream was down needs no memory: the
next hello carries the version of the topic table, and the name server asks for the table when it has another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeAlias, TypeVar

from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock, within
from apogeemq.mesh.errors import DeadlineExceeded, MeshError
from apogeemq.mesh.network import ClientStream, Network
from apogeemq.mesh.tls import ClientTls
from apogeemq.mesh.v1 import namesrv_pb2 as pb
from apogeemq.mesh.v1.methods import NAMESRV_REGISTER
from apogeemq.remoting_codec.bodies import DataVersion, TopicConfig

BEAT_INTERVAL_S = 1.0
CHUNK_TOPICS_MAX = 500
"""Most topics in one message; the name server refuses more."""

ANSWER_TIMEOUT_S = 10.0
"""Longest wait for the answer to a hello or to a whole topic table."""

UNREGISTER_TIMEOUT_S = 1.0
BACK_OFF_S_MIN = 0.1
BACK_OFF_S_MAX = 3.0

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_Stream: TypeAlias = ClientStream[pb.RegistrationRequest, pb.RegistrationReply]


@dataclass(frozen=True, slots=True)
class BrokerIdentity:
    """Who registers.

    broker_id         0 = master
    incarnation       grows with each start of this broker process
    remoting_address  advertised "host:port", "" without a Remoting listener
    mesh_address      advertised "host:port", "" without a mesh listener
    master_epoch      of the controller that made this broker master; 0 without one
    """

    cluster: str
    broker_name: str
    broker_id: int
    incarnation: int
    remoting_address: str
    mesh_address: str
    zone: str = ""
    master_epoch: int = 0


class TopicState(Protocol):
    """The broker's topic table, as far as a name server is concerned."""

    @property
    def data_version(self) -> DataVersion:
        """The version of the table now; every change makes another one."""
        ...

    def full_state(self) -> tuple[DataVersion, list[TopicConfig]]:
        """Return the whole table with its version."""
        ...

    def find(self, topic: str) -> TopicConfig | None:
        """Return one topic, or None when there is no such topic (any more)."""
        ...


class NamesrvLink:
    """Keeps this broker registered with every configured name server until stopped.

    targets   mesh endpoints "host:port" of the name servers
    identity  asked before each hello; call identity_changed() when it would now answer something else
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        network: Network,
        clock: Clock,
        chance: Chance,
        identity: Callable[[], BrokerIdentity],
        topics: TopicState,
        tls: ClientTls | None = None,
    ) -> None:
        self._clock = clock
        self._registrations = [
            _Registration(target, network, clock, chance, identity, topics, tls, self._report)
            for target in dict.fromkeys(targets)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._accepted = asyncio.Event()

    @property
    def registered(self) -> dict[str, bool]:
        """Return for each name server whether it has accepted this broker on a stream that is still open."""
        return {registration.target: registration.is_registered for registration in self._registrations}

    async def start(self) -> None:
        """Begin to register; does not wait for any name server."""
        self._tasks = [asyncio.create_task(registration.run()) for registration in self._registrations]

    async def stop(self) -> None:
        """Unregister where registered, waiting at most UNREGISTER_TIMEOUT_S for each, all at once; then disconnect."""
        for registration in self._registrations:
            registration.leave()
        tasks, self._tasks = self._tasks, []
        if tasks:
            await asyncio.gather(*tasks)

    async def wait_registered(self, timeout_s: float) -> None:
        """Wait until some name server has accepted this broker. Raises TimeoutError."""
        await within(self._clock, timeout_s, self._wait_any_accepted())

    def topics_changed(self, topics: Iterable[str]) -> None:
        """Tell all name servers that these topics were made, changed or removed. Call it after the change."""
        names = list(topics)
        for registration in self._registrations:
            registration.topics_changed(names)

    def identity_changed(self) -> None:
        """Register anew everywhere, for example because the role changed."""
        for registration in self._registrations:
            registration.begin_again()

    async def _wait_any_accepted(self) -> None:
        while not any(self.registered.values()):
            self._accepted.clear()
            await self._accepted.wait()

    def _report(self) -> None:
        self._accepted.set()


class _Wish(Enum):
    """What interrupts an open stream from this side."""

    BEGIN_AGAIN = auto()
    LEAVE = auto()


class _RefusedError(Exception):
    """The name server refused this broker; its text says why."""


class _Registration:
    """The stream to one name server, and the loop that keeps it open.

    While a stream is open, `_known` is the version that the name server has, or will have once it has taken what was
    sent; `_dirty` are the topics that changed since, in order.
    """

    def __init__(
        self,
        target: str,
        network: Network,
        clock: Clock,
        chance: Chance,
        identity: Callable[[], BrokerIdentity],
        topics: TopicState,
        tls: ClientTls | None,
        on_registered: Callable[[], None],
    ) -> None:
        self.target = target
        self.is_registered = False
        self._network = network
        self._clock = clock
        self._identity = identity
        self._topics = topics
        self._tls = tls
        self._on_registered = on_registered
        self._back_off = _BackOff(chance)
        self._wish: _Wish | None = None
        self._wish_made = asyncio.Event()
        self._known = topics.data_version
        self._dirty: dict[str, None] = {}
        self._is_full_due = False
        self._is_beat_due = False
        self._has_work = asyncio.Event()
        self._last_failure = ""

    def topics_changed(self, topics: Iterable[str]) -> None:
        """Send these topics as soon as the stream allows; without a stream the next hello covers them."""
        self._dirty.update(dict.fromkeys(topics))
        self._has_work.set()

    def begin_again(self) -> None:
        """Drop the stream and open another one at once."""
        self._interrupt(_Wish.BEGIN_AGAIN)

    def leave(self) -> None:
        """Unregister, then let run() return."""
        self._interrupt(_Wish.LEAVE)

    async def run(self) -> None:
        """Stay registered until leave()."""
        while self._wish is not _Wish.LEAVE:
            if self._wish is _Wish.BEGIN_AGAIN:
                self._clear_wish()
            try:
                await self._register_once()
                self._report_failure("it ended the stream")
            except (MeshError, TimeoutError, _RefusedError) as error:
                self._report_failure(str(error))
            except Exception:  # noqa: BLE001 — logged; without this loop the broker would run and not be found again
                _log.exception("registration with name server %s failed", self.target)
            await self._wait_before_retry()

    def _interrupt(self, wish: _Wish) -> None:
        if self._wish is not _Wish.LEAVE:
            self._wish = wish
            self._wish_made.set()

    def _clear_wish(self) -> None:
        self._wish = None
        self._wish_made.clear()

    async def _register_once(self) -> None:
        """Open a stream and hold it until it ends, whoever ends it. Every attempt has a connection of its own."""
        channel = self._network.channel(self.target, tls=self._tls)
        try:
            await self._hold(channel.stream(NAMESRV_REGISTER))
        finally:
            self.is_registered = False
            await channel.close()

    async def _hold(self, stream: _Stream) -> None:
        self._is_full_due = self._is_beat_due = False
        reading = asyncio.create_task(self._read(stream))
        working = [asyncio.create_task(self._write(stream)), asyncio.create_task(self._keep_time())]
        interrupted = asyncio.create_task(self._wish_made.wait())
        tasks: set[asyncio.Task[object]] = {reading, *working, interrupted}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self._wish is _Wish.LEAVE and not reading.done():
                await _cancel(working)
                await within(self._clock, UNREGISTER_TIMEOUT_S, _unregister(stream, reading))
            for task in done:
                task.result()
        finally:
            await _cancel(tasks)

    async def _read(self, stream: _Stream) -> None:
        """Take replies until the name server ends the stream."""
        while (reply := await stream.receive()) is not None:
            match reply.WhichOneof("kind"):
                case "accepted":
                    self._accept()
                case "need_full":
                    self.is_registered = False
                    self._is_full_due = True
                    self._has_work.set()
                case "topics_left_out":
                    self._report_left_out(reply.topics_left_out)
                case "refused":
                    raise _RefusedError(f"{_code_name(reply.refused.code)}: {reply.refused.text}")
                case _:
                    _log.warning("name server %s sent a reply that this broker does not know", self.target)

    async def _write(self, stream: _Stream) -> None:
        """Say hello, then send whatever is due, most urgent first, whenever something is."""
        self._known = self._topics.data_version
        self._dirty.clear()
        hello = pb.RegistrationRequest.Hello(
            identity=_identity_message(self._identity()), data_version=_version_message(self._known)
        )
        await stream.send(pb.RegistrationRequest(hello=hello))
        while True:
            await self._has_work.wait()
            if self._is_full_due:
                await self._send_full(stream)
            elif self.is_registered and self._dirty:
                await self._send_deltas(stream)
            elif self.is_registered and self._is_beat_due:  # after the deltas: its version is then the one sent last
                await self._send_beat(stream)
            else:
                self._has_work.clear()

    async def _keep_time(self) -> None:
        """Make a beat due each second; give up on a name server that does not answer."""
        unanswered_s = 0.0
        while unanswered_s < ANSWER_TIMEOUT_S:
            await self._clock.sleep(BEAT_INTERVAL_S)
            if self.is_registered:
                unanswered_s = 0.0
                self._is_beat_due = True
                self._has_work.set()
            else:
                unanswered_s += BEAT_INTERVAL_S
        raise DeadlineExceeded(self.target, NAMESRV_REGISTER.path, ANSWER_TIMEOUT_S)

    async def _send_full(self, stream: _Stream) -> None:
        self._is_full_due = False
        self._dirty.clear()
        self._known, configs = self._topics.full_state()
        version = _version_message(self._known)
        chunks = list(_chunks(configs)) or [[]]
        for number, chunk in enumerate(chunks, start=1):
            full_state = pb.RegistrationRequest.FullState(
                first=number == 1,
                last=number == len(chunks),
                data_version=version,
                topics=[_topic_message(config) for config in chunk],
            )
            await stream.send(pb.RegistrationRequest(full_state=full_state))

    async def _send_deltas(self, stream: _Stream) -> None:
        """Send what changed. All but the last delta of a row keep the old version: only then is the change complete."""
        base, self._known = self._known, self._topics.data_version
        chunks = list(_chunks(list(self._dirty)))
        self._dirty.clear()
        found = [[(name, self._topics.find(name)) for name in chunk] for chunk in chunks]
        for number, chunk in enumerate(found, start=1):
            delta = pb.RegistrationRequest.Delta(
                base=_version_message(base),
                data_version=_version_message(self._known if number == len(found) else base),
                changed=[_topic_message(config) for _, config in chunk if config is not None],
                removed=[name for name, config in chunk if config is None],
            )
            await stream.send(pb.RegistrationRequest(delta=delta))

    async def _send_beat(self, stream: _Stream) -> None:
        self._is_beat_due = False
        beat = pb.RegistrationRequest.Beat(data_version=_version_message(self._topics.data_version))
        await stream.send(pb.RegistrationRequest(beat=beat))

    def _accept(self) -> None:
        self.is_registered = True
        self._back_off.reset()
        self._last_failure = ""
        self._has_work.set()
        self._on_registered()
        _log.info("registered with name server %s", self.target)

    async def _wait_before_retry(self) -> None:
        """Wait the back-off, or until there is a wish."""
        if self._wish is None:
            waiting = asyncio.create_task(self._clock.sleep(self._back_off.next_s()))
            interrupted = asyncio.create_task(self._wish_made.wait())
            try:
                await asyncio.wait({waiting, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _cancel([waiting, interrupted])

    def _report_failure(self, reason: str) -> None:
        """Log why there is no stream: once, not at every attempt that fails the same way."""
        if self._wish is None:
            level = logging.DEBUG if reason == self._last_failure else logging.WARNING
            _log.log(level, "not registered with name server %s: %s", self.target, reason)
            self._last_failure = reason

    def _report_left_out(self, left_out: pb.RegistrationReply.TopicsLeftOut) -> None:
        examples = "; ".join(f"{topic.topic_name}: {topic.reason}" for topic in left_out.examples)
        _log.error("name server %s left %d topics out of its routes: %s", self.target, left_out.count, examples)


class _BackOff:
    """Waits that double from BACK_OFF_S_MIN to BACK_OFF_S_MAX, each cut by up to half so that brokers do not march."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._next_s = BACK_OFF_S_MIN

    def next_s(self) -> float:
        wait_s = self._next_s * (1 - self._chance.random() / 2)
        self._next_s = min(2 * self._next_s, BACK_OFF_S_MAX)
        return wait_s

    def reset(self) -> None:
        self._next_s = BACK_OFF_S_MIN


async def _unregister(stream: _Stream, reading: asyncio.Task[None]) -> None:
    """Take this broker out of the routes at once, and wait until the name server has ended the stream."""
    await stream.send(pb.RegistrationRequest(unregister=pb.RegistrationRequest.Unregister()))
    await stream.finish()
    await asyncio.wait({reading})


async def _cancel(tasks: Iterable[asyncio.Task[object]]) -> None:
    """Cancel tasks and wait until they have ended; what they ended with is dropped, the caller has looked at it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _code_name(code: int) -> str:
    """Return a refusal code's short name, or its number when the name server is newer than this broker."""
    known = {number: name for name, number in pb.RefusalCode.items()}
    return known.get(code, str(code)).removeprefix("REFUSAL_CODE_")


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + CHUNK_TOPICS_MAX] for start in range(0, len(items), CHUNK_TOPICS_MAX))


def _identity_message(identity: BrokerIdentity) -> pb.BrokerIdentity:
    return pb.BrokerIdentity(
        cluster=identity.cluster,
        broker_name=identity.broker_name,
        broker_id=identity.broker_id,
        incarnation=identity.incarnation,
        remoting_address=identity.remoting_address,
        mesh_address=identity.mesh_address,
        zone=identity.zone,
        master_epoch=identity.master_epoch,
    )


def _version_message(version: DataVersion) -> pb.DataVersion:
    return pb.DataVersion(state_version=version.state_version, timestamp_ms=version.timestamp, counter=version.counter)


def _topic_message(config: TopicConfig) -> pb.TopicConfig:
    return pb.TopicConfig(
        topic_name=config.topic_name,
        read_queue_nums=config.read_queue_nums,
        write_queue_nums=config.write_queue_nums,
        perm=config.perm,
        topic_sys_flag=config.topic_sys_flag,
    )
