"""A message for each payment that is in the database, and for no other: `python payments.py [PROXY]`."""

# ruff: noqa: T201 — an example prints what it does

import asyncio
import contextlib
import pathlib
import sqlite3
import sys
import tempfile
from collections.abc import Iterator

from apogeemq.client_grpc import Message, Producer, PushConsumer, ReceivedMessage, Resolution

TOPIC = "PaidOrders"
CHECKED_WITHIN_S = 90


class Payments:
    """The local work: rows in a database of the application's own."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        with self._database() as database:
            database.execute("CREATE TABLE payments (order_number TEXT PRIMARY KEY)")

    def store(self, order_number: str) -> None:
        """Pay an order."""
        with self._database() as database:
            database.execute("INSERT INTO payments VALUES (?)", (order_number,))

    def check(self, message: ReceivedMessage) -> Resolution:
        """Whether the payment that a half message is about was stored. It blocks, and so runs in a thread.

        A row that is not there may still be on its way, from a process that is only slow: then nobody knows yet.
        """
        with self._database() as database:
            found = database.execute("SELECT 1 FROM payments WHERE order_number = ?", message.keys).fetchone()
        print(f"asked about: {message.body.decode()}")
        return Resolution.COMMIT if found else Resolution.UNKNOWN

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path)) as database, database:
            yield database


async def pay(producer: Producer, payments: Payments, order_number: str) -> None:
    """The message is stored before the row, and delivered after it."""
    message = Message(TOPIC, f"order {order_number} is paid".encode(), keys=(order_number,))
    async with producer.transaction(message):
        payments.store(order_number)
        if order_number == "2":
            raise ConnectionError("the answer of the database was lost")


async def main(proxy: str, directory: pathlib.Path) -> None:
    """Three payments: one as it should be, one whose end nobody tells, one that is taken back."""
    payments = Payments(directory / "payments.sqlite")
    received = asyncio.Queue[str]()

    async def handle(message: ReceivedMessage) -> None:
        received.put_nowait(message.body.decode())

    async with (
        Producer(proxy, topics=[TOPIC], checker=payments.check) as producer,
        PushConsumer(proxy, group="Bookkeeping", subscriptions={TOPIC: "*"}, handler=handle),
    ):
        await pay(producer, payments, "1")
        print("received:", await asyncio.wait_for(received.get(), CHECKED_WITHIN_S))
        with contextlib.suppress(ConnectionError):
            await pay(producer, payments, "2")
        async with producer.transaction(Message(TOPIC, b"order 3 is paid", keys=("3",))) as transaction:
            await transaction.rollback()
        print("received:", await asyncio.wait_for(received.get(), CHECKED_WITHIN_S))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8081", pathlib.Path(directory)))
