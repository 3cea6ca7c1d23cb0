"""apogeemq-client-grpc with every kind of message that is more than a line in a log, against a real server."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from apogeemq.client_api.errors import MessageInvalid, RecallFailed
from apogeemq.client_grpc import Message, Producer, PushConsumer, ReceivedMessage

from tests.config_files import topic_config, write_config_files
from tests.e2e.process import Ready, start_all_in_one

WAIT_S = 30.0
DELAYED = "KindsDelayed"
DELAYS_MS = (0, 400, 900, 1_300)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    """A server with a topic for each kind."""
    directory = tmp_path_factory.mktemp("kinds")
    write_config_files(directory / "data" / "broker" / "config", [topic_config(DELAYED, message_type="DELAY")])
    with start_all_in_one(directory / "data", log_directory=directory, settings={}) as process:
        yield process.wait_ready()
        process.stop()


@pytest.fixture
def proxy(server: Ready) -> str:
    """The proxy's gRPC address."""
    return server.listeners["proxy.grpc"]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_delayed_messages_come_never_early_and_recalled_ones_never(proxy: str) -> None:
    """By the millisecond and by a point in time; one that was delivered cannot be taken back any more."""
    seen: dict[str, int] = {}
    all_there = asyncio.Event()

    async def handle(message: ReceivedMessage) -> None:
        seen[message.body.decode()] = now_ms()
        if message.body == b"last":
            all_there.set()

    async with (
        Producer(proxy) as producer,
        PushConsumer(proxy, group="kinds_delayed", subscriptions={DELAYED: "*"}, handler=handle),
    ):
        due_ms = {}
        for delay_ms in DELAYS_MS:
            due_ms[str(delay_ms)] = now_ms() + delay_ms
            sent = await producer.send(Message(DELAYED, b"%d" % delay_ms, delay_ms=delay_ms))
        taken = await producer.send(Message(DELAYED, b"taken back", delivery_timestamp_ms=now_ms() + 1_000))
        assert await producer.recall(DELAYED, taken.recall_handle) == taken.message_id
        assert await producer.recall(DELAYED, taken.recall_handle) == taken.message_id
        due_ms["last"] = now_ms() + 1_600
        await producer.send(Message(DELAYED, b"last", delivery_timestamp_ms=due_ms["last"]))
        await asyncio.wait_for(all_there.wait(), WAIT_S)
        with pytest.raises(RecallFailed):
            await producer.recall(DELAYED, sent.recall_handle)
        with pytest.raises(MessageInvalid, match="delay_level"):
            await producer.send(Message(DELAYED, b"by level", delay_level=1))
    assert seen.keys() == due_ms.keys()
    assert all(seen[name] >= due_ms[name] for name in due_ms), (seen, due_ms)
