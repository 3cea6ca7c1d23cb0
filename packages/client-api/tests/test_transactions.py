"""A transaction ends once, as it was told; a checker's answer is always one of three."""

import logging
from collections.abc import Awaitable, Callable

import pytest
from apogeemq.client_api.errors import ConnectionBroken, MessageInvalid, NotSupported, TransactionEnded
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt
from apogeemq.client_api.tracing import Tracing
from apogeemq.client_api.transactions import Checker, Checks, Half, PlainChecker, Resolution, Transaction

RECEIPT = SendReceipt("ID", "t", "b", 0, 7, "TX")
HALF = ReceivedMessage(
    message_id="ID",
    topic="t",
    body=b"x",
    tag=None,
    keys=(),
    properties={},
    message_group=None,
    born_timestamp_ms=0,
    born_host="127.0.0.1:1",
    store_timestamp_ms=0,
    broker_name="b",
    queue_id=0,
    queue_offset=7,
    delivery_attempt=1,
    group="",
)


class Server:
    """Stores half messages and keeps how they were ended; the first `broken` ends do not reach it."""

    def __init__(self, broken: int = 0) -> None:
        self.begun = 0
        self.ends: list[Resolution] = []
        self._broken = broken

    async def begin(self) -> Half:
        self.begun += 1
        return Half(RECEIPT, self._end)

    async def _end(self, resolution: Resolution) -> None:
        if self._broken:
            self._broken -= 1
            raise ConnectionBroken("gone")
        self.ends.append(resolution)


async def test_a_block_without_an_error_commits() -> None:
    """After its last line, and once; the receipt is there from the first on."""
    server = Server()
    async with Transaction(server.begin) as transaction:
        assert (transaction.receipt, transaction.is_pending, server.ends) == (RECEIPT, True, [])
    assert (transaction.is_pending, server.ends) == (False, [Resolution.COMMIT])


async def test_an_error_leaves_the_end_to_the_checker() -> None:
    """It passes through: whether the local work was done, nobody here knows."""
    server = Server()
    with pytest.raises(KeyError):
        async with Transaction(server.begin):
            raise KeyError("row")
    assert (server.begun, server.ends) == (1, [])


async def test_who_knows_better_rolls_back() -> None:
    """In the block or in an `except` around it; nothing is committed on leaving."""
    server = Server()
    async with Transaction(server.begin) as transaction:
        await transaction.rollback()
    transaction = Transaction(server.begin)
    with pytest.raises(KeyError):
        async with transaction:
            raise KeyError("row")
    await transaction.rollback()
    assert server.ends == [Resolution.ROLLBACK] * 2


async def test_a_transaction_begins_and_ends_once() -> None:
    """Whatever comes too early, too late or twice is refused; the server sees nothing of it."""
    server = Server()
    transaction = Transaction(server.begin)
    for too_early in (transaction.commit, transaction.rollback):
        with pytest.raises(TransactionEnded, match="has not begun"):
            await too_early()
    assert await transaction.begin() == RECEIPT
    with pytest.raises(TransactionEnded, match="began before"):
        await transaction.begin()
    await transaction.rollback()
    for too_late in (transaction.commit, transaction.rollback):
        with pytest.raises(TransactionEnded, match="message ID has ended before"):
            await too_late()
    assert (server.begun, server.ends) == (1, [Resolution.ROLLBACK])


async def test_an_end_that_did_not_get_through_may_be_repeated() -> None:
    """The transaction is pending as long as no end has succeeded."""
    server = Server(broken=1)
    transaction = Transaction(server.begin)
    await transaction.begin()
    with pytest.raises(ConnectionBroken):
        await transaction.commit()
    assert transaction.is_pending
    await transaction.commit()
    assert server.ends == [Resolution.COMMIT]


def checks(checker: Checker | PlainChecker | None) -> Checks:
    return Checks(checker, Tracing(None, client_id="c"))


async def commit(_message: ReceivedMessage) -> Resolution:
    return Resolution.COMMIT


def roll_back(_message: ReceivedMessage) -> Resolution:
    return Resolution.ROLLBACK


def hand_back(message: ReceivedMessage) -> Awaitable[Resolution]:
    return commit(message)


@pytest.mark.parametrize(
    ("checker", "resolution"),
    [(commit, Resolution.COMMIT), (roll_back, Resolution.ROLLBACK), (hand_back, Resolution.COMMIT)],
)
async def test_a_checker_is_asked(checker: Checker | PlainChecker, resolution: Resolution) -> None:
    """Be it a coroutine function, a plain one, or one that gives a coroutine."""
    assert await checks(checker).resolve(HALF) is resolution


async def fail(_message: ReceivedMessage) -> Resolution:
    raise OSError("no database")


def shrug(_message: ReceivedMessage) -> None:
    """Forgets to answer."""


@pytest.mark.parametrize(("checker", "told"), [(fail, "no database"), (shrug, "gave NoneType"), (None, "no checker")])
async def test_no_answer_of_use_is_unknown(
    checker: Callable[[ReceivedMessage], Resolution] | None, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the reason and the message's id in the log: the server asks again."""
    with caplog.at_level(logging.WARNING, "apogeemq.client_api"):
        assert await checks(checker).resolve(HALF) is Resolution.UNKNOWN
    assert told in caplog.text
    assert "message ID" in caplog.text


def test_what_cannot_be_in_a_transaction() -> None:
    """Is refused by name, as is a producer that could never be asked."""
    with pytest.raises(NotSupported, match="no checker"):
        checks(None).require(Message("t", b"x"))
    checks(commit).require(Message("t", b"x"))
    for field, message in {
        "message_group": Message("t", b"x", message_group="g"),
        "delivery_timestamp_ms": Message("t", b"x", delivery_timestamp_ms=1),
        "delay_ms": Message("t", b"x", delay_ms=1),
        "delay_level": Message("t", b"x", delay_level=1),
    }.items():
        with pytest.raises(MessageInvalid) as caught:
            checks(commit).require(message)
        assert caught.value.field == field
