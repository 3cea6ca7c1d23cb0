"""What the store's tests share: a clock that stands still, small stores on any disk, a directory of Java's."""

import gzip
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apogeemq.store.config import StoreConfig
from apogeemq.store.files import Disk
from apogeemq.store.message_store import AppendResult, MessageStore

VECTORS = Path(__file__).parent / "vectors_store"
JAVA_SIZES_BYTES = {"index/20261122141341752": 420_000_040, "timerwheel": 38_707_200}
"""What the gzipped files of the vector measured, before they were cut behind their last used byte."""
HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"


@pytest.fixture
def clock() -> list[int]:
    """The time in ms; a test moves it by assigning to clock[0]."""
    return [1_700_000_000_000]


@pytest.fixture
def open_store(clock: list[int], tmp_path: Path) -> Iterator[Callable[..., MessageStore]]:
    """Open a store with 8 KiB log files and 16-unit queue files, without threads, on tmp_path or another disk.

    Keywords: `disk`, `directory`, `redispatch_tags_code`, `on_progress`, `background`; any other one is a setting.
    Whatever is still open at the end is closed.
    """
    opened: list[MessageStore] = []

    def open_it(disk: Disk | None = None, directory: Path | None = None, **keywords: object) -> MessageStore:
        arguments = {
            name: keywords.pop(name)
            for name in ("redispatch_tags_code", "on_progress", "background")
            if name in keywords
        }
        settings: dict[str, object] = {
            "store_host": HOST,
            "commit_log_file_size_bytes": 8192,
            "consume_queue_file_units": 16,
            "reserve_ahead_bytes": 4096,
            "message_size_bytes_max": 4096,
            **keywords,
        }
        store = MessageStore.open(
            directory or (tmp_path / "store" if disk is None else Path("/store")),
            StoreConfig(**settings),  # type: ignore[arg-type]  # settings of any field
            now_ms=lambda: clock[0],
            disk=disk,
            **{"background": False, **arguments},  # type: ignore[arg-type]  # the three above
        )
        opened.append(store)
        return store

    yield open_it
    for store in opened:
        if store.is_writable:
            store.close()


@pytest.fixture
def send() -> Callable[..., AppendResult]:
    """Append a message; only the store is required."""

    def append(
        store: MessageStore,
        topic: str = "TopicTest",
        queue_id: int = 0,
        body: bytes = b"body",
        properties: bytes = b"",
        *,
        tags_code: int | None = 0,
        sys_flag: int = 0,
        flag: int = 0,
        born_host: bytes = HOST,
    ) -> AppendResult:
        return store.append(topic, queue_id, flag, sys_flag, 1, born_host, 0, 0, body, properties, tags_code)

    return append


@pytest.fixture
def java_directory(tmp_path: Path) -> Path:
    """A copy of the directory that Java wrote, gzipped files unpacked to their real (sparse) sizes."""
    directory = Path(shutil.copytree(VECTORS, tmp_path / "java", ignore=shutil.ignore_patterns("*.gz")))
    for name, size_bytes in JAVA_SIZES_BYTES.items():
        with gzip.open(VECTORS / f"{name}.gz") as packed, (directory / name).open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
            unpacked.truncate(size_bytes)
    with (directory / "timerlog" / "00000000000000000000").open("r+b") as log:
        log.truncate(100 << 20)
    return directory
