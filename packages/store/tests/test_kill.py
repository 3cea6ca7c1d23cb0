"""A real process on a real disk, killed with SIGKILL while it sends; what it had acknowledged must be there."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from apogeemq.remoting_codec.record import decode_records
from apogeemq.store.config import StoreConfig
from apogeemq.store.message_store import MessageStore, ReadStatus

WRITER = """
import sys, time
from pathlib import Path
from apogeemq.store.config import StoreConfig
from apogeemq.store.config import StoreConfig
from apogeemq.store.message_store import MessageStore

config = StoreConfig(
    store_host=bytes(8), commit_log_file_size_bytes=1 << 20, consume_queue_file_units=1000, reserve_ahead_bytes=1 << 19,
    flush_interval_ms=20, consume_queue_sync_interval_ms=100,
)
store = MessageStore.open(Path(sys.argv[1]), config, now_ms=lambda: time.time_ns() // 1_000_000)
number = sum(store.max_offset("Kill", queue_id) for queue_id in range(4))
while True:
    result = store.append("Kill", number % 4, 0, 0, 1, bytes(8), 0, 0, b"%d " % number + b"k" * (number % 700), b"", 0)
    number += 1
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""
CONFIG = StoreConfig(
    store_host=bytes(8), commit_log_file_size_bytes=1 << 20, consume_queue_file_units=1000, reserve_ahead_bytes=1 << 19
)


def opened(directory: Path) -> MessageStore:
    """The store that the writer left."""
    return MessageStore.open(directory, CONFIG, now_ms=lambda: time.time_ns() // 1_000_000, background=False)


def numbers_of(store: MessageStore, queue_id: int) -> list[int]:
    """The numbers that the bodies of a queue begin with."""
    numbers: list[int] = []
    at = 0
    while (result := store.read("Kill", queue_id, at, 500, 1 << 20, None, cold_allowed=True)).count:
        assert result.status is ReadStatus.FOUND
        for record in decode_records(b"".join(result.buffers)):
            number = int(record.body.partition(b" ")[0])
            assert record.body == b"%d " % number + b"k" * (number % 700)
            numbers.append(number)
        at = result.next_offset
    return numbers


def kill_again_and_again(directory: Path, rounds: int, seed: int) -> None:
    """Send, SIGKILL, reopen, on one directory: every number once, in order, up to the last one heard."""
    chance = Random(seed)
    heard = 0
    for _ in range(rounds):
        heard = kill_after(heard + chance.randint(1, 1_500), directory)
        store = opened(directory)
        assert not store.recovery.clean
        total = sum(store.max_offset("Kill", queue_id) for queue_id in range(4))
        assert total >= heard
        for queue_id in range(4):
            assert numbers_of(store, queue_id) == list(range(queue_id, total, 4))
        heard = total
        store.close()


def kill_after(messages: int, directory: Path) -> int:
    """Start a writer, and kill it once it has acknowledged so many; gives what it had acknowledged."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        heard = 0
        for line in process.stdout:
            heard = int(line)
            if heard >= messages:
                break
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        return max([heard, *(int(line) for line in rest[:-1])])


def test_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    """Ten kills."""
    kill_again_and_again(tmp_path / "s", 10, seed=1)
