"""apogeemq-client-remoting with delays, recalls and transactions, against a real server that is killed in between."""

import asyncio
import contextlib
import pathlib
import sys
from collections.abc import Iterator

import pytest
from apogeemq.client_api.errors import MessageInvalid, RecallFailed, TransactionEnded
from apogeemq.client_remoting import Message, Producer, PushConsumer, Resolution

from tests.config_files import topic_config, write_config_files
from tests.e2e.process import ManagedProcess, fixed_ports, start_all_in_one
from tests.e2e.test_client_grpc import ROOT, wait_for
from tests.e2e.test_grpc_client_kinds import WAIT_S, Books, Consumed, now_ms

DELAYED = "RemotingDelayed"
LEDGER = "RemotingLedger"
SETTINGS = {
    "broker.transactionTimeOut": "1000",
    "broker.transactionCheckInterval": "1000",
    "broker.messageDelayLevel": "1s 2s",
}


class Server:
    """An all-in-one whose broker asks after a second, and which comes back under its address."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        topics = [topic_config(name) for name in (DELAYED, LEDGER)]
        write_config_files(directory / "data" / "broker" / "config", topics)
        self.process = self._start(SETTINGS, "free")
        self._ready = self.process.wait_ready()

    @property
    def namesrv(self) -> str:
        """The name server's Remoting address."""
        return self._ready.listeners["namesrv.remoting"]

    def kill_and_start(self) -> None:
        """SIGKILL, and the next process."""
        self.process.kill()
        self.process = self._start(SETTINGS | fixed_ports(self._ready), None)
        self.process.wait_ready()

    def _start(self, settings: dict[str, str], ports: str | None) -> ManagedProcess:
        return start_all_in_one(self._directory / "data", log_directory=self._directory, settings=settings, ports=ports)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for the module."""
    server = Server(tmp_path_factory.mktemp("remoting-kinds"))
    yield server
    server.process.stop()


def consumer(server: Server, group: str, topic: str, consumed: Consumed) -> PushConsumer:
    return PushConsumer(server.namesrv, group=group, subscriptions={topic: "*"}, handler=consumed, start="earliest")


async def test_delayed_messages_come_never_early_and_recalled_ones_never(server: Server) -> None:
    """By level, by the millisecond and by a point in time; what was delivered cannot be taken back any more."""
    consumed = Consumed()
    async with (
        Producer(server.namesrv) as producer,
        consumer(server, "remoting_delayed", DELAYED, consumed),
    ):
        due_ms = {"level": now_ms() + 1_000}
        sent = await producer.send(Message(DELAYED, b"level", delay_level=1))
        with pytest.raises(MessageInvalid, match="recall_handle"):
            await producer.recall(DELAYED, sent.recall_handle)
        for delay_ms in (0, 600, 1_300):
            due_ms[str(delay_ms)] = now_ms() + delay_ms
            sent = await producer.send(Message(DELAYED, b"%d" % delay_ms, delay_ms=delay_ms))
        taken = await producer.send(Message(DELAYED, b"taken back", delivery_timestamp_ms=now_ms() + 1_000))
        assert await producer.recall(DELAYED, taken.recall_handle) == taken.message_id
        due_ms["last"] = now_ms() + 1_600
        await producer.send(Message(DELAYED, b"last", delivery_timestamp_ms=due_ms["last"]))
        await wait_for(lambda: "last" in consumed.bodies)
        with pytest.raises(RecallFailed):
            await producer.recall(DELAYED, sent.recall_handle)
    assert consumed.at_ms.keys() == due_ms.keys()
    assert all(consumed.at_ms[name] >= due_ms[name] for name in due_ms), (consumed.at_ms, due_ms)


async def test_a_message_is_delivered_if_and_only_if_its_transaction_is_committed(server: Server) -> None:
    """What an error left open is asked for until the checker knows, also by the broker that came after a killed one."""
    books, consumed = Books(), Consumed()
    async with (
        Producer(server.namesrv, group="P_books", checker=books) as producer,
        consumer(server, "remoting_ledger", LEDGER, consumed),
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
        await asyncio.to_thread(server.kill_and_start)
        await wait_for(lambda: len(books.asked) == 2)
        assert "left open" not in consumed.bodies
        books.resolutions["c"] = Resolution.COMMIT
        await wait_for(lambda: "left open" in consumed.bodies)
    assert set(consumed.bodies) == {"committed", "left open"}
    assert set(books.asked) == {(transaction.receipt.message_id, "c")}


async def test_another_process_tells_how_a_killed_ones_transaction_ended(
    server: Server, tmp_path: pathlib.Path
) -> None:
    """It is of the same group, names the topic and has a checker; that it sends nothing does not matter."""
    program: list[str | pathlib.Path] = [
        sys.executable,
        ROOT / "tests" / "e2e" / "unfinished_transaction.py",
        "remoting",
        server.namesrv,
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
        Producer(server.namesrv, topics=[LEDGER], checker=books),
        consumer(server, "remoting_heirs", LEDGER, consumed),
    ):
        await wait_for(lambda: "kept" in consumed.bodies and len(set(books.asked)) == 2)
    assert {message_id for message_id, _ in books.asked} == {line.strip() for line in begun}
    assert "dropped" not in consumed.bodies
