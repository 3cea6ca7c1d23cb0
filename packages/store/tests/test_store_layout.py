"""The sizes of a store's files are found out from names and sizes."""

from pathlib import Path

import pytest
from apogeemq.store.errors import FileSizeImpossible
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.store_layout import find_layout

STORE = Path("/store")
GIB = 1 << 30


def disk_with(log: dict[int, int], queue: dict[int, bytes]) -> MemoryDisk:
    """Log files by their start with so many bytes; files of one queue by their start with this content."""
    disk = MemoryDisk()
    for start, size_bytes in log.items():
        disk.write_file(STORE / "commitlog" / f"{start:020d}", b"x" * size_bytes)
    for start, data in queue.items():
        disk.write_file(STORE / "consumequeue/T/0" / f"{start:020d}", data)
    return disk


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, GIB),
        ({0: 8192}, 8192),
        ({0: 7138}, GIB),  # cut behind its last record by a copying tool
        ({16384: 8192, 24576: 100}, 8192),
        ({0: 100, 8192: 100}, 8192),
        ({0: 8192, 16384: 8192}, 8192),  # one is missing in between
    ],
)
def test_log_file_size(files: dict[int, int], expected: int) -> None:
    """By the step of the names, or by the size of a single file."""
    assert find_layout(disk_with(files, {}), STORE).commit_log_file_size_bytes == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 6_000_000),
        ({0: b"u" * 160}, 6_000_000),  # cut behind its last unit
        ({0: b"u" * 160 + bytes(160)}, 320),
        ({0: b"u" * 320, 320: b"u" * 20}, 320),
        ({640: b"u" * 320}, 320),  # the front expired: the name is a multiple of the size
    ],
)
def test_queue_file_size(files: dict[int, bytes], expected: int) -> None:
    """By the names, or by a file that ends in empty units."""
    assert find_layout(disk_with({}, files), STORE).consume_queue_file_size_bytes == expected


def test_given_sizes_win() -> None:
    """Whoever knows better is believed."""
    layout = find_layout(
        disk_with({0: 4096}, {}), STORE, commit_log_file_size_bytes=8192, consume_queue_file_size_bytes=200
    )
    assert layout[:2] == (8192, 200)
    config = layout.config(message_size_bytes_max=1000)
    config.validate()
    assert (config.commit_log_file_size_bytes, config.consume_queue_file_units) == (8192, 10)


@pytest.mark.parametrize(
    ("files", "given"),
    [
        ({0: 8192}, 4096),
        ({0: 8192, 8192: 8192}, 4096),
        ({0: 8192, 8192: 8192}, 16384),
    ],
)
def test_given_sizes_that_no_file_can_have_are_refused(files: dict[int, int], given: int) -> None:
    """All files are longer, or begin closer together: a slip, not damage. Queues' files alike."""
    with pytest.raises(FileSizeImpossible, match=f"{given} bytes; leave it out"):
        find_layout(disk_with(files, {}), STORE, commit_log_file_size_bytes=given)
    queue = {start: bytes(size_bytes) for start, size_bytes in files.items()}
    with pytest.raises(FileSizeImpossible, match="consumequeue/T/0"):
        find_layout(disk_with({}, queue), STORE, consume_queue_file_size_bytes=given)


@pytest.mark.parametrize(
    "files",
    [
        {0: 8192, 8192: 4096},  # one is longer
        {4096: 4096, 6000: 4096, 12288: 4096},  # one lies where none belongs
    ],
)
def test_given_sizes_that_some_files_have_win(files: dict[int, int]) -> None:
    """The others are damage, for a check to tell of."""
    assert find_layout(disk_with(files, {}), STORE, commit_log_file_size_bytes=4096)[0] == 4096
