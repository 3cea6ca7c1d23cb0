"""Our gRPC client at Apache's proxy: delays, transactions and message groups, as at ours (tests/e2e)."""

import asyncio
import pathlib
import time
from collections.abc import Iterator

import pytest
from apogeemq.client_grpc import Message, Producer, PushConsumer, ReceivedMessage, Reject, Resolution, Retry

from tests.config_files import group_config, topic_config, write_config_files
from tests.interop.deployments import DEPLOYMENTS, Deployment

pytestmark = pytest.mark.verify

WAIT_S = 60.0
DELAYED, LEDGER, ORDERS, PACKERS = "OurDelayed", "OurLedger", "OurOrders", "our_packers"
SETTINGS = {  # a broker notes for 3 s which transactions were ended, before it knows them as such
    "recallMessageEnable": "true",
    "timerWheelEnable": "true",
    "transactionTimeOut": "5000",
    "transactionCheckInterval": "1000",
}
GROUPS = ("x", "y", "z")
OF_EACH = 5


def write_metadata(config_directory: pathlib.Path) -> None:
    """A topic for each kind, and a group that consumes in order."""
    types = {DELAYED: "DELAY", LEDGER: "TRANSACTION", ORDERS: "FIFO"}
    topics = [topic_config(name, message_type=message_type) for name, message_type in types.items()]
    groups = [group_config(PACKERS, consumeMessageOrderly=True, retryMaxTimes=16)]
    write_config_files(config_directory, topics, groups)


@pytest.fixture(scope="module")
def proxy(java_command: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gRPC address of Apache's proxy, in front of Apache's broker."""
    cluster: Deployment = DEPLOYMENTS["apache"](tmp_path_factory.mktemp("apache"), SETTINGS, with_proxy=True)
    write_metadata(cluster.data / "broker" / "config")
    with cluster as started:
        yield started.grpc


class Consumed:
    """A handler that keeps what it gets, and when."""

    def __init__(self) -> None:
        self.at_ms: dict[str, int] = {}

    async def __call__(self, message: ReceivedMessage) -> None:
        self.at_ms.setdefault(message.body.decode(), time.time_ns() // 1_000_000)

    async def wait(self, *bodies: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while not self.at_ms.keys() >= set(bodies):  # noqa: ASYNC110 — a condition of the test's own
                await asyncio.sleep(0.05)


async def test_delays_and_recalls(proxy: str) -> None:
    """Never early; what was taken back never comes."""
    consumed = Consumed()
    async with (
        Producer(proxy) as producer,
        PushConsumer(proxy, group="our_late", subscriptions={DELAYED: "*"}, handler=consumed),
    ):
        due_ms = time.time_ns() // 1_000_000 + 3_000
        taken = await producer.send(Message(DELAYED, b"taken back", delay_ms=4_000))
        await producer.send(Message(DELAYED, b"in time", delivery_timestamp_ms=due_ms))
        await producer.send(Message(DELAYED, b"last", delay_ms=6_000))
        assert await producer.recall(DELAYED, taken.recall_handle) == taken.message_id
        await consumed.wait("in time", "last")
    assert "taken back" not in consumed.at_ms
    assert consumed.at_ms["in time"] >= due_ms


async def test_transactions(proxy: str) -> None:
    """Committed, rolled back, and left to the checker."""
    asked: list[str] = []

    async def check(message: ReceivedMessage) -> Resolution:
        asked.append(message.message_id)
        return Resolution.COMMIT if len(asked) > 1 else Resolution.UNKNOWN

    consumed = Consumed()
    async with (
        Producer(proxy, topics=[LEDGER], checker=check) as producer,
        PushConsumer(proxy, group="our_ledger", subscriptions={LEDGER: "*"}, handler=consumed),
    ):
        async with producer.transaction(Message(LEDGER, b"committed")):
            pass
        async with producer.transaction(Message(LEDGER, b"rolled back")) as transaction:
            await transaction.rollback()
        with pytest.raises(LookupError):
            async with producer.transaction(Message(LEDGER, b"left open")) as transaction:
                raise LookupError("nobody knows")
        await consumed.wait("committed", "left open")
    assert set(asked) == {transaction.receipt.message_id}
    assert consumed.at_ms.keys() == {"committed", "left open"}


async def test_message_groups(proxy: str) -> None:
    """In order, though Apache hands out several of a group at once; a failing one is tried again before the next."""
    begun: list[tuple[str, int]] = []
    handled: list[str] = []

    async def handle(message: ReceivedMessage) -> None:
        body = message.body.decode()
        begun.append((body, message.delivery_attempt))
        if body == "z3":
            raise Reject("it never will")
        if body == "x1" or (body == "y2" and message.delivery_attempt == 1):
            raise ValueError("it does not work")
        handled.append(body)

    retry = Retry(max_attempts=2, backoff=lambda attempt: 0.1)
    async with Producer(proxy) as producer:
        for number in range(OF_EACH):
            for group in GROUPS:
                await producer.send(Message(ORDERS, f"{group}{number}".encode(), message_group=group))
    async with PushConsumer(proxy, group=PACKERS, subscriptions={ORDERS: "*"}, handler=handle, retry=retry):
        async with asyncio.timeout(WAIT_S):
            while len(handled) < len(GROUPS) * OF_EACH - 2:  # noqa: ASYNC110 — a condition of the test's own
                await asyncio.sleep(0.05)
    for group, without in (("x", {1}), ("y", set[int]()), ("z", {3})):
        expected = [f"{group}{number}" for number in range(OF_EACH) if number not in without]
        assert [body for body in handled if body[0] == group] == expected
    assert [attempt for body, attempt in begun if body == "x1"] == [1, 2]
    assert [attempt for body, attempt in begun if body == "z3"] == [1]
