"""What the broker's tests share: a whole broker on a disk in memory, a clock moved by hand, connections in memory.

Nothing in it is a mock: store, services, Remoting face and channels are the real ones; only the transport below a
channel, the disk and the clock are the ones made for tests.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from apogeemq.broker.assembly import Broker
from apogeemq.broker.config import (
    BrokerConfig,
    IdentityConfig,
    LimitsConfig,
    PopConfig,
    ReplicationConfig,
    StoreSettings,
    TimersConfig,
    TopicsConfig,
    TransactionsConfig,
)
from apogeemq.broker.metadata_files import MetadataFiles, metadata_files
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import ManualClock
from apogeemq.remoting_codec.aio.access import AccessHook
from apogeemq.remoting_codec.aio.channel import Channel, ChannelLimits
from apogeemq.remoting_codec.aio.stats import TrafficStats
from apogeemq.remoting_codec.bodies import (
    ConsumeFromWhere,
    ConsumerData,
    ConsumeType,
    HeartbeatData,
    MessageModel,
    ProducerData,
    SubscriptionData,
)
from apogeemq.remoting_codec.codes import VERSION, RequestCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.connection import Connection
from apogeemq.remoting_codec.framing import encode_frame, encode_response_frame
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import Record, decode_record, decode_records
from apogeemq.store.config import StoreConfig
from apogeemq.store.delivery_times import tags_code_rule
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import MessageStore
from apogeemq.store.timer_config import TimerConfig
from opentelemetry.trace import Tracer

LONG_NAMES = {
    "a": "producerGroup",
    "b": "topic",
    "c": "defaultTopic",
    "d": "defaultTopicQueueNums",
    "e": "queueId",
    "f": "sysFlag",
    "g": "bornTimestamp",
    "h": "flag",
    "i": "properties",
    "j": "reconsumeTimes",
    "k": "unitMode",
    "l": "maxReconsumeTimes",
    "m": "batch",
}
"""Fields of SEND_MESSAGE_V2 and what SEND_MESSAGE calls them."""

ROOT = Path("/store")
STORE_HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"
REAL_TIMEOUT_S = 20.0
"""How long `until` waits for threads, in real time."""


class MemoryTransport(asyncio.Transport):
    """The socket below a channel: keeps what is written, and whether it was closed."""

    def __init__(self, peer: tuple[str, int]) -> None:
        super().__init__({"peername": peer})
        self.written = bytearray()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing ever waits here."""

    def pause_reading(self) -> None:
        """What a test lets arrive is read at once."""

    def resume_reading(self) -> None:
        """See pause_reading."""

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


class Client:
    """One connection to a broker's Remoting face."""

    def __init__(self, broker: Broker, peer: tuple[str, int] = ("10.0.0.9", 40_001)) -> None:
        self.broker = broker
        self.transport = MemoryTransport(peer)
        self.channel = Channel(broker.remoting, ChannelLimits(), TrafficStats())
        self.channel.connection_made(self.transport)
        self.channel.add_close_listener(broker.channel_closed)
        self._opaque = itertools.count(1)
        self._connection: Connection[None] = Connection()
        self._received: list[RemotingCommand] = []

    def send(
        self,
        code: int,
        ext_fields: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        oneway: bool = False,
        version: int = VERSION,
        language: str = "JAVA",
    ) -> int:
        """Let one request arrive; gives its opaque."""
        return self.send_together(
            [(code, dict(ext_fields or {}), body)], oneway=oneway, version=version, language=language
        )[0]

    def send_together(
        self,
        requests: list[tuple[int, dict[str, str], bytes]],
        *,
        oneway: bool = False,
        version: int = VERSION,
        language: str = "JAVA",
    ) -> list[int]:
        """Let several requests arrive in one read; gives their opaques."""
        opaques = [next(self._opaque) for _ in requests]
        frames = b"".join(
            encode_frame(RemotingCommand(code, 2 if oneway else 0, opaque, None, fields, body, language, version))
            for opaque, (code, fields, body) in zip(opaques, requests, strict=True)
        )
        self._arrive(frames)
        return opaques

    def answer(self, request: RemotingCommand, code: int = 0, *, remark: str | None = None, body: bytes = b"") -> None:
        """Let the answer to a request of the broker arrive."""
        self._arrive(encode_response_frame(request.opaque, code, {}, remark, body))

    async def asked(self) -> RemotingCommand:
        """Wait for the one request that the broker sends now, and take it."""
        await until(lambda: any(not command.is_response for command in self.received()))
        (request,) = self.pushed()
        return request

    def _arrive(self, frames: bytes) -> None:
        while frames:
            buffer = self.channel.get_buffer(-1)
            size = min(len(buffer), len(frames))
            buffer[:size] = frames[:size]
            frames = frames[size:]
            self.channel.buffer_updated(size)

    def received(self) -> list[RemotingCommand]:
        """All that the broker wrote so far and that was not taken by `reply` or `pushed`."""
        data, self.transport.written = bytes(self.transport.written), bytearray()
        self._received += self._connection.receive_data(data)
        return self._received

    def has_reply(self, opaque: int) -> bool:
        """Whether the request was answered."""
        return any(command.is_response and command.opaque == opaque for command in self.received())

    def reply(self, opaque: int) -> RemotingCommand:
        """Take the answer to a request; fails when there is none."""
        for index, command in enumerate(self.received()):
            if command.is_response and command.opaque == opaque:
                return self._received.pop(index)
        raise AssertionError(f"request {opaque} is not answered")

    def pushed(self) -> list[RemotingCommand]:
        """Take all requests that the broker sent."""
        pushed = [command for command in self.received() if not command.is_response]
        self._received = [command for command in self._received if command.is_response]
        return pushed

    def request(
        self, code: int, ext_fields: Mapping[str, str] | None = None, body: bytes = b"", *, version: int = VERSION
    ) -> RemotingCommand:
        """One request that is answered at once."""
        return self.reply(self.send(code, ext_fields, body, version=version))

    async def later(self, opaque: int) -> RemotingCommand:
        """Wait for an answer that comes out of a thread."""
        await until(lambda: self.has_reply(opaque))
        return self.reply(opaque)

    def heartbeat(self, beat: HeartbeatData) -> RemotingCommand:
        return self.request(RequestCode.HEART_BEAT, {}, beat.encode())

    def close(self) -> None:
        """The peer is gone."""
        self.channel.connection_lost(None)


class World:
    """A broker, not started, with the store, disk and clock that it has. A context manager that stops it."""

    def __init__(
        self,
        disk: MemoryDisk | None = None,
        *,
        clock: ManualClock | None = None,
        identity: IdentityConfig | None = None,
        topics: TopicsConfig | None = None,
        pop: PopConfig | None = None,
        transactions: TransactionsConfig | None = None,
        timers: TimersConfig | None = None,
        store: StoreSettings | None = None,
        limits: LimitsConfig | None = None,
        replication: ReplicationConfig | None = None,
        access: AccessHook | None = None,
        tracer: Tracer | None = None,
        until_confirmed: Callable[[int], Awaitable[None]] | None = None,
        log_file_size_bytes: int = 256 << 10,
        index: bool = False,
    ) -> None:
        self.disk = disk or MemoryDisk()
        self.clock = clock or ManualClock()
        self.config = BrokerConfig(
            identity=identity or IdentityConfig(broker_name="broker-a"),
            topics=topics or TopicsConfig(),
            pop=pop or PopConfig(),
            transactions=transactions or TransactionsConfig(),
            timers=timers or TimersConfig(),
            store=store or StoreSettings(),
            limits=limits or LimitsConfig(),
            replication=replication or ReplicationConfig(),
        )
        self.store = MessageStore.open(
            ROOT,
            StoreConfig(
                store_host=STORE_HOST,
                commit_log_file_size_bytes=log_file_size_bytes,
                consume_queue_file_units=1_000,
                reserve_ahead_bytes=64 << 10,
                message_size_bytes_max=self.config.store.max_message_size_bytes,
                hot_read_window_bytes=self.config.store.hot_window_bytes,
                index_enabled=index,
                index_slots=64,
                index_entries_max=1_000,
                disk_limits=self.config.store.disk_limits,
                retention=self.config.store.retention,
                timer=TimerConfig(file_size_bytes=4_096, horizon_ms=self.config.timers.timer_max_delay_sec * 1_000),
            ),
            now_ms=self.clock.now_ms,
            disk=self.disk,
            redispatch_tags_code=tags_code_rule(self.config.store.message_delay_level),
            background=False,
        )
        self.files: MetadataFiles = metadata_files(self.disk, ROOT)
        self.broker = Broker(
            self.config,
            self.store,
            self.files,
            store_host=STORE_HOST,
            clock=self.clock,
            chance=SeededChance(7),
            access=access,
            tracer=tracer,
            until_confirmed=until_confirmed,
        )
        self._is_stopped = False

    async def __aenter__(self) -> Self:
        await self.broker.restore()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """An orderly stop of the broker and its store."""
        if not self._is_stopped:
            self._is_stopped = True
            await self.broker.stop()
            self.store.close()

    async def kill(self) -> None:
        """As after SIGKILL: nothing more is written, the disk stays as it is, its locks are free."""
        self._is_stopped = True
        tasks = [*self.broker._tasks, *self.broker.saver._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.disk.locks.clear()

    def client(self, port: int = 40_001) -> Client:
        return Client(self.broker, ("10.0.0.9", port))

    def create_topic(self, name: str = "T", queues: int = 4) -> None:
        """A topic whose file is written already: sends to it are acknowledged at once."""
        self.broker.topics.create_for_send(name, "TBW102", queues)
        self.mark_saved()

    async def save_topic(self, name: str = "T", queues: int = 4) -> None:
        """A topic that is there again after a restart."""
        self.broker.topics.create_for_send(name, "TBW102", queues)
        await self.broker.saver.save_topics()

    def start_deliveries(self) -> None:
        """Only the delivery of delayed messages, so that hours pass in few steps of the clock."""
        self.broker._tasks = [
            asyncio.create_task(self.broker.delay.run(), name="delay"),
            asyncio.create_task(self.broker.timers.run(), name="timers"),
            asyncio.create_task(self.broker.timers.run_settling(), name="timers-settling"),
        ]

    def mark_saved(self) -> None:
        """Pretend that the topics' file is written."""
        self.broker.topics.saved(self.broker.topics.version)

    def damage(self, physical_offset: int) -> None:
        """Flip the last byte of what the disk holds of a record's body, which its CRC then tells."""
        data = self.store.record_at(physical_offset)
        assert data is not None
        body = decode_record(data).body
        inode = self.disk.files[ROOT / "commitlog" / f"{0:020}"]
        inode.data[physical_offset + data.rindex(body)] ^= 0xFF

    def records(self, topic: str, queue_id: int = 0, *, start: int = 0) -> list[Record]:
        """All messages of a queue, or those from an offset on, as they lie in the log."""
        found = []
        start = max(start, self.store.min_offset(topic, queue_id))
        for offset in range(start, self.store.max_offset(topic, queue_id)):
            unit = self.store.queue_unit(topic, queue_id, offset)
            assert unit is not None
            data = self.store.record_at(unit[0])
            assert data is not None
            found.append(decode_record(data))
        return found

    def record(self, topic: str, queue_id: int = 0) -> Record:
        """The only message of a queue."""
        (record,) = self.records(topic, queue_id)
        return record


async def until(condition: Callable[[], bool]) -> None:
    """Let tasks and threads run until it holds; fails after REAL_TIMEOUT_S."""
    async with asyncio.timeout(REAL_TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 — threads set no event
            await asyncio.sleep(0)


def send_fields(topic: str = "T", queue_id: int = 0, properties: str = "", **more: str) -> dict[str, str]:
    """Ext fields of SEND_MESSAGE_V2, as a Java client writes them."""
    return {
        "a": "P",
        "b": topic,
        "c": "TBW102",
        "d": "4",
        "e": str(queue_id),
        "f": "0",
        "g": "1795356276399",
        "h": "0",
        "i": properties,
        "j": "0",
        "k": "false",
        "m": "false",
        **more,
    }


def long_names(fields: Mapping[str, str]) -> dict[str, str]:
    """A send's fields of SEND_MESSAGE_V2 as SEND_MESSAGE has them."""
    return {LONG_NAMES[name]: value for name, value in fields.items()}


def pull_fields(topic: str = "T", group: str = "G", queue_id: int = 0, offset: int = 0, **more: str) -> dict[str, str]:
    """Ext fields of PULL_MESSAGE with its subscription in it, not to be held."""
    return {
        "consumerGroup": group,
        "topic": topic,
        "queueId": str(queue_id),
        "queueOffset": str(offset),
        "maxMsgNums": "32",
        "sysFlag": "4",
        "commitOffset": "0",
        "suspendTimeoutMillis": "0",
        "subscription": "*",
        "subVersion": "0",
        "expressionType": "TAG",
        **more,
    }


def consumer_beat(
    client_id: str = "c1",
    group: str = "G",
    topic: str = "T",
    *,
    expression: str = "*",
    expression_type: str = "TAG",
    version: int = 1,
    model: MessageModel = MessageModel.CLUSTERING,
    fingerprint: int = 0,
) -> HeartbeatData:
    """What a consumer of one group with one topic tells."""
    return HeartbeatData(
        client_id=client_id,
        consumer_data_set=[
            ConsumerData(
                group_name=group,
                consume_type=ConsumeType.CONSUME_PASSIVELY,
                message_model=model,
                consume_from_where=ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET,
                subscription_data_set=[
                    SubscriptionData(
                        topic=topic, sub_string=expression, expression_type=expression_type, sub_version=version
                    )
                ],
            )
        ],
        heartbeat_fingerprint=fingerprint,
    )


def light_beat(client_id: str, fingerprint: int) -> HeartbeatData:
    """The beat of HeartbeatV2 that carries no subscriptions."""
    return HeartbeatData(client_id=client_id, heartbeat_fingerprint=fingerprint, without_sub=True)


def producer_beat(client_id: str, *groups: str) -> HeartbeatData:
    return HeartbeatData(client_id=client_id, producer_data_set=[ProducerData(group_name=group) for group in groups])


def properties_of(record: Record) -> dict[str, str]:
    return decode_properties(record.properties)


def fields_of(reply: RemotingCommand) -> dict[str, str]:
    assert reply.ext_fields is not None
    return reply.ext_fields


def bodies_of(reply: RemotingCommand) -> list[bytes]:
    """Bodies of the messages that a pull brought."""
    return [record.body for record in decode_records(reply.body)]
