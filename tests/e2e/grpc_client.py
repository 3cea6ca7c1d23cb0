"""Raw gRPC calls for tests: bytes and metadata of the test's choice, answers as statuses; and a client that behaves.

`RawClient` knows the messages' classes and grpc, nothing else of the product. `undisturbed` is the neighbour of whoever
misbehaves: it sends, receives and acknowledges all along, and any failure of it is the test's.
"""

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import grpc
import grpc.aio
from apogeemq.client_grpc import Message, Producer, SimpleConsumer
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code

SERVICE = "apache.rocketmq.v2.MessagingService"
WAIT_S = 30.0
PAUSE_S = 0.02
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each client
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 1 << 20),
]

Metadata = tuple[tuple[str, str], ...]
Stream = grpc.aio.StreamStreamCall[bytes, bytes]
Receive = grpc.aio.UnaryStreamCall[bytes, bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """One status that a client got: in a response, or as what ended a Telemetry stream."""

    code: int
    text: str

    @property
    def name(self) -> str:
        """The code's name; fails for a number that the API does not have."""
        return Code.Name(self.code)


def metadata_of(client_id: str) -> Metadata:
    """What official clients send along."""
    return (("x-mq-client-id", client_id), ("x-mq-language", "JAVA"), ("x-mq-client-version", "5.0.7"))


class RawClient:
    """One connection of one client id. Use it as a context manager."""

    def __init__(self, address: str, client_id: str) -> None:
        self.metadata = metadata_of(client_id)
        self._address = address
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.break_off()

    async def break_off(self) -> None:
        """Close the connection under whatever runs on it."""
        await self._channel.close(None)

    async def call(
        self, method: str, payload: bytes, *, metadata: Metadata | None = None, timeout_s: float = WAIT_S
    ) -> list[Outcome]:
        """Make any call, of one request, and read all of its statuses: the response's, then those of its entries.

        Raises grpc.RpcError for any end but OK, and INVALID_ARGUMENT of a Telemetry stream, which is a status.
        """
        if method == "Telemetry":
            return await self.tell([payload], metadata=metadata, timeout_s=timeout_s)
        if method == "ReceiveMessage":
            responses = [
                v2.ReceiveMessageResponse.FromString(data)
                async for data in self.receive(payload, metadata=metadata, timeout_s=timeout_s)
            ]
            return [_outcome(response) for response in responses if response.HasField("status")]
        response = await self.response(method, payload, metadata=metadata, timeout_s=timeout_s)
        return [_outcome(part) for part in (response, *getattr(response, "entries", ()))]

    async def response(
        self, method: str, payload: bytes, *, metadata: Metadata | None = None, timeout_s: float = WAIT_S
    ) -> Any:
        """Make a unary call; gives its whole response."""
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(f"/{SERVICE}/{method}")
        data = await unary(payload, metadata=self.metadata if metadata is None else metadata, timeout=timeout_s)
        return getattr(v2, f"{method}Response").FromString(data)

    def receive(self, payload: bytes, *, metadata: Metadata | None = None, timeout_s: float | None = WAIT_S) -> Receive:
        """Begin a ReceiveMessage."""
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(
            f"/{SERVICE}/ReceiveMessage"
        )
        return method(payload, metadata=self.metadata if metadata is None else metadata, timeout=timeout_s)

    async def tell(
        self, payloads: Sequence[bytes], *, metadata: Metadata | None = None, timeout_s: float = WAIT_S
    ) -> list[Outcome]:
        """Open a Telemetry stream, send commands, half-close and read to the end.

        By grpc's threads: its aio client loses the status of a stream that the server ends while it is written to.
        """
        return await asyncio.to_thread(self._tell, payloads, self.metadata if metadata is None else metadata, timeout_s)

    def _tell(self, payloads: Sequence[bytes], metadata: Metadata, timeout_s: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        with grpc.insecure_channel(self._address, options=OPTIONS) as channel:
            method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{SERVICE}/Telemetry")
            try:
                for data in method(iter(payloads), metadata=metadata, timeout=timeout_s):
                    outcomes.append(_outcome(v2.TelemetryCommand.FromString(data)))  # noqa: PERF401 — kept on an error
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                name, _, text = (error.details() or "").partition(": ")
                outcomes.append(Outcome(Code.Value(name), text))
        return outcomes

    def telemetry(self, *, metadata: Metadata | None = None, timeout_s: float | None = None) -> Stream:
        """Open a Telemetry stream."""
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(f"/{SERVICE}/Telemetry")
        return method(metadata=self.metadata if metadata is None else metadata, timeout=timeout_s)

    async def introduce(self, settings: v2.TelemetryCommand) -> Stream:
        """Send settings on a new Telemetry stream and wait for theirs; the stream stays open."""
        stream = self.telemetry()
        await stream.write(settings.SerializeToString())
        answer: Any = await stream.read()
        assert _outcome(v2.TelemetryCommand.FromString(answer)).code == Code.OK
        return stream


def _outcome(part: Any) -> Outcome:
    return Outcome(part.status.code, part.status.message)


_numbers = itertools.count(1)


@contextlib.asynccontextmanager
async def undisturbed(address: str) -> AsyncIterator[None]:
    """A good client beside the block: one message after the other is sent, received and acknowledged, none fails.

    It has been through one before the block begins, and goes through one more after its end.
    """
    number = next(_numbers)
    topic, group = f"Neighbour_{number}", f"G_Neighbour_{number}"
    is_over = asyncio.Event()
    async with (
        Producer(address) as producer,
        SimpleConsumer(address, group=group, subscriptions={topic: "*"}) as consumer,
    ):
        await _round(producer, consumer, topic)

        async def go_on() -> None:
            while not is_over.is_set():
                await _round(producer, consumer, topic)
                await asyncio.sleep(PAUSE_S)

        going_on = asyncio.ensure_future(go_on())
        try:
            yield
        finally:
            is_over.set()
            await going_on
        await _round(producer, consumer, topic)


async def _round(producer: Producer, consumer: SimpleConsumer, topic: str) -> None:
    sent = await producer.send(Message(topic, b"good"), timeout_s=WAIT_S)
    async with asyncio.timeout(WAIT_S):
        received: Sequence[str] = ()
        while sent.message_id not in received:
            messages = await consumer.receive(1, invisible_s=60, await_s=10)
            received = [message.message_id for message in messages]
            await asyncio.gather(*(consumer.ack(message) for message in messages))
