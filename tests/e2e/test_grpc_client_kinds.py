"""apogeemq-client-grpc with every kind of message that is more than a line in a log, against a real server."""

import asyncio
import contextlib
import pathlib
import re
import sys
import time
from collections.abc import Iterator

import pytest
from apogeemq.client_api.errors import MessageInvalid, RecallFailed, TransactionEnded
from apogeemq.client_grpc import (
    Message,
    Producer,
    PushConsumer,
    ReceivedMessage,
    Reject,
    Resolution,
    Retry,
    SimpleConsumer,
)

from tests.config_files import group_config, topic_config, write_config_files
from tests.e2e.process import ManagedProcess, Ready, start_all_in_one
from tests.e2e.test_client_grpc import (
    RECOVERY_S,
    ROOT,
    readme_programs,
    receive_some,
    run_program,
    start_proxy,
    wait_for,
)
from tests.e2e.wire_client import WireClient, pull_all

WAIT_S = 30.0
DELAYED = "KindsDelayed"
LEDGER = "KindsLedger"
ORDERS, PACKERS = "KindsOrders", "kinds_packers"
SHIFTS, GUARDS = "KindsShifts", "kinds_guards"
MOVES, MOVERS = "KindsMoves", "kinds_movers"
GROUPS = ("x", "y", "z")
OF_EACH = 6
DELAYS_MS = (0, 400, 900, 1_300)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    """A server with a topic for each kind, whose broker asks after a second how a transaction ended."""
    directory = tmp_path_factory.mktemp("kinds")
    types = {DELAYED: "DELAY", ORDERS: "FIFO", SHIFTS: "FIFO", MOVES: "FIFO"}
    types |= dict.fromkeys([LEDGER, "payments", "PaidOrders"], "TRANSACTION")  # the last two: of programs for users
    topics = [topic_config(name, message_type=message_type) for name, message_type in types.items()]
    groups = [group_config(name, consumeMessageOrderly=True, retryMaxTimes=16) for name in (PACKERS, GUARDS, MOVERS)]
    write_config_files(directory / "data" / "broker" / "config", topics, groups)
    settings = {"broker.transactionTimeOut": "1000", "broker.transactionCheckInterval": "1000"}
    with start_all_in_one(directory / "data", log_directory=directory, settings=settings) as process:
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


class Consumed:
    """A handler that keeps the bodies, and when each came."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.at_ms: dict[str, int] = {}

    async def __call__(self, message: ReceivedMessage) -> None:
        self.bodies.append(message.body.decode())
        self.at_ms[self.bodies[-1]] = now_ms()


class Books:
    """A checker with a memory: the message's key tells how its transaction ended, unless nobody knows yet."""

    def __init__(self, **resolutions: Resolution) -> None:
        self.resolutions = resolutions
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, message: ReceivedMessage) -> Resolution:
        (key,) = message.keys
        self.asked.append((message.message_id, key))
        return self.resolutions.get(key, Resolution.UNKNOWN)


async def test_a_message_is_delivered_if_and_only_if_its_transaction_is_committed(proxy: str) -> None:
    """What an error left open is asked for, until the checker knows."""
    books, consumed = Books(), Consumed()
    async with (
        Producer(proxy, checker=books) as producer,
        PushConsumer(proxy, group="kinds_ledger", subscriptions={LEDGER: "*"}, handler=consumed),
    ):
        async with producer.transaction(Message(LEDGER, b"committed", keys=("a",))):
            pass
        async with producer.transaction(Message(LEDGER, b"rolled back", keys=("b",))) as transaction:
            await transaction.rollback()
            with pytest.raises(TransactionEnded):
                await transaction.commit()
        with pytest.raises(OSError, match="broke"):
            async with producer.transaction(Message(LEDGER, b"left open", keys=("c",))) as transaction:
                raise OSError("the database's connection broke")
        await wait_for(lambda: len(books.asked) == 1)
        assert "left open" not in consumed.bodies
        books.resolutions["c"] = Resolution.COMMIT
        await wait_for(lambda: "left open" in consumed.bodies)
    assert sorted(consumed.bodies) == ["committed", "left open"]
    assert set(books.asked) == {(transaction.receipt.message_id, "c")}


async def test_another_process_tells_how_a_killed_ones_transaction_ended(proxy: str, tmp_path: pathlib.Path) -> None:
    """It names the topic and has a checker; which process began the transaction does not matter."""
    program: list[str | pathlib.Path] = [
        sys.executable,
        ROOT / "tests" / "e2e" / "unfinished_transaction.py",
        "grpc",
        proxy,
        LEDGER,
    ]
    begun = []
    with contextlib.ExitStack() as processes:
        for body in ("kept", "dropped"):
            process = processes.enter_context(ManagedProcess(body, [*program, body], log_directory=tmp_path))
            begun.append(await asyncio.to_thread(process.wait_line, lambda line: True, WAIT_S, "the half message"))
            await asyncio.to_thread(process.kill)
    books, consumed = Books(kept=Resolution.COMMIT, dropped=Resolution.ROLLBACK), Consumed()
    async with (
        Producer(proxy, topics=[LEDGER], checker=books),
        PushConsumer(proxy, group="kinds_heirs", subscriptions={LEDGER: "*"}, handler=consumed),
    ):
        await wait_for(lambda: "kept" in consumed.bodies and len(set(books.asked)) == 2)
    assert {message_id for message_id, _ in books.asked} == {line.strip() for line in begun}
    assert "dropped" not in consumed.bodies


async def test_kill_9_of_the_proxy_amid_ordered_messages(server: Ready, tmp_path: pathlib.Path) -> None:
    """Nothing is lost and no group gets out of order; a group whose messages were on their way goes on at once, for the
    same question gets the same answer again.
    """
    begun: list[str] = []

    async def handle(message: ReceivedMessage) -> None:
        begun.append(message.body.decode())
        await asyncio.sleep(0.01)

    with contextlib.ExitStack() as proxies:
        first = proxies.enter_context(start_proxy(server, tmp_path / "first", "0"))
        address = (await asyncio.to_thread(first.wait_ready)).listeners["grpc"]
        async with (
            Producer(address) as producer,
            PushConsumer(address, group=MOVERS, subscriptions={MOVES: "*"}, handler=handle),
        ):
            sending = asyncio.gather(*(send_group(producer, MOVES, group, 50) for group in GROUPS))
            await wait_for(lambda: len(begun) > 30)
            await asyncio.to_thread(first.kill)
            second = proxies.enter_context(start_proxy(server, tmp_path / "second", address.rpartition(":")[2]))
            await asyncio.to_thread(second.wait_ready)
            back = time.monotonic()
            await sending
            await wait_for(lambda: len(set(begun)) == 50 * len(GROUPS))
            assert time.monotonic() - back < RECOVERY_S
    for group in GROUPS:
        assert list(dict.fromkeys(of(group, begun))) == [f"{group}{number}" for number in range(50)]


async def send_group(producer: Producer, topic: str, group: str, count: int) -> None:
    for number in range(count):
        await producer.send(Message(topic, f"{group}{number}".encode(), message_group=group), timeout_s=WAIT_S)


def test_the_readmes_transaction_is_committed(proxy: str) -> None:
    """As it stands but for the address."""
    assert re.fullmatch(r"committed [0-9A-F]{34}\n", run_program("-c", readme_programs(proxy)["transaction"]))


async def send_in_order(producer: Producer, topic: str) -> None:
    """x0 y0 z0 x1 y1 z1 …, each in the message group of its letter."""
    for number in range(OF_EACH):
        for group in GROUPS:
            await producer.send(Message(topic, f"{group}{number}".encode(), message_group=group))


def of(group: str, bodies: list[str]) -> list[str]:
    return [body for body in bodies if body.startswith(group)]


def numbered(group: str, *without: int) -> list[str]:
    return [f"{group}{number}" for number in range(OF_EACH) if number not in without]


async def test_each_message_group_is_handled_in_order_though_messages_fail(proxy: str, server: Ready) -> None:
    """One is tried three times and one is rejected: both become dead letters; a third succeeds at last. Two consumers
    share the groups.
    """
    begun: list[tuple[str, int]] = []
    handled: list[str] = []

    async def handle(message: ReceivedMessage) -> None:
        body = message.body.decode()
        begun.append((body, message.delivery_attempt))
        await asyncio.sleep(0)
        if body == "x1" or (body == "y2" and message.delivery_attempt < 3):
            raise ValueError("it does not work")
        if body == "z3":
            raise Reject("it never will")
        handled.append(body)

    consumers = [
        PushConsumer(
            proxy,
            group=PACKERS,
            subscriptions={ORDERS: "*"},
            handler=handle,
            retry=Retry(max_attempts=3, backoff=lambda attempt: 0.1),
        )
        for _ in range(2)
    ]
    async with Producer(proxy) as producer, consumers[0], consumers[1]:
        await send_in_order(producer, ORDERS)
        await wait_for(lambda: len(handled) == len(GROUPS) * OF_EACH - 2)
    assert of("x", handled) == numbered("x", 1)
    assert of("y", handled) == numbered("y")
    assert of("z", handled) == numbered("z", 3)
    for group in GROUPS:
        firsts = dict.fromkeys(body for body, _ in begun)
        assert of(group, list(firsts)) == numbered(group)
    assert [attempt for body, attempt in begun if body == "x1"] == [1, 2, 3]
    assert [attempt for body, attempt in begun if body == "y2"] == [1, 2, 3]
    assert [attempt for body, attempt in begun if body == "z3"] == [1]
    with WireClient(server.listeners["broker.remoting"]) as client:
        dead = [record.body.decode() for record in pull_all(client, f"%DLQ%{PACKERS}", "G_dead", 0)]
    assert sorted(dead) == ["x1", "z3"]


async def test_a_simple_consumer_gets_a_groups_next_message_after_the_ack(proxy: str) -> None:
    """Nothing of a message group behind one that is out; what is given back comes first again."""
    seen: list[str] = []
    async with (
        Producer(proxy) as producer,
        SimpleConsumer(proxy, group=GUARDS, subscriptions={SHIFTS: "*"}) as consumer,
    ):
        await send_in_order(producer, SHIFTS)
        while len(seen) < len(GROUPS) * OF_EACH:
            messages = await receive_some(consumer)
            assert len({message.message_group for message in messages}) == len(messages)
            for message in messages:
                if message.body == b"y1" and message.delivery_attempt == 1:
                    await consumer.change_invisible(message, 0.2)
                else:
                    await consumer.ack(message)
                    seen.append(message.body.decode())
    assert [of(group, seen) for group in GROUPS] == [numbered(group) for group in GROUPS]


def test_the_examples_payments_are_told(proxy: str) -> None:
    """As its README says that it prints."""
    printed = run_program(str(ROOT / "examples" / "client-grpc-transactions" / "payments.py"), proxy)
    expected = ["received: order 1 is paid", "asked about: order 2 is paid", "received: order 2 is paid"]
    assert printed.splitlines() == expected
