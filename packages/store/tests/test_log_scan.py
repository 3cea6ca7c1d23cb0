"""The scan of a log: everything good is taken, the first bad byte ends it with a reason."""

from collections.abc import Callable
from pathlib import Path

import pytest
from apogeemq.remoting_codec.record import MAGIC_V2, Record, encode_blank, encode_record
from apogeemq.store.log_scan import LogScan, ScannedRecord
from apogeemq.store.mapped_file_queue import MappedFileQueue
from apogeemq.store.memory_disk import MemoryDisk

LOG = Path("/store/commitlog")
FILE_SIZE = 8192
HOSTS = (bytes(8), b"\1" * 20)


def record_at(physical_offset: int, body: bytes = b"body", **fields: object) -> Record:
    defaults: dict[str, object] = {
        "topic": "Topic",
        "queue_id": 3,
        "queue_offset": 0,
        "physical_offset": physical_offset,
        "born_timestamp_ms": 1,
        "born_host": HOSTS[0],
        "store_timestamp_ms": 1000 + physical_offset,
        "store_host": HOSTS[0],
        "body": body,
        "properties": b"TAGS\x01T\x02",
    }
    return Record(**{**defaults, **fields})  # type: ignore[arg-type]  # fields of any type


def scan_of(*files: bytes, start: int = 0, record_size_bytes_max: int = 5000) -> LogScan:
    disk = MemoryDisk()
    for number, content in enumerate(files):
        disk.write_file(LOG / f"{number * FILE_SIZE:020d}", content)
    row = MappedFileQueue(disk, LOG, FILE_SIZE, reserve_ahead_bytes=1, open_files_max=4)
    return LogScan(row, start, record_size_bytes_max=record_size_bytes_max)


def records_of(scan: LogScan) -> list[ScannedRecord]:
    return [record for records in scan for record in records]


def row_of(count: int) -> tuple[bytes, list[Record]]:
    """Records back to back, of all host families and both versions."""
    log, records = b"", []
    for number in range(count):
        born_host, store_host = HOSTS[number % 2], HOSTS[number // 2 % 2]
        record = record_at(
            len(log),
            b"b" * (number % 50),
            queue_offset=0,
            born_host=born_host,
            store_host=store_host,
            sys_flag=(0x10 if len(born_host) == 20 else 0) | (0x20 if len(store_host) == 20 else 0),
            topic="t" * 200 if number % 5 == 0 else "Topic",
            **({"magic": MAGIC_V2} if number % 5 == 0 else {}),
        )
        records.append(record)
        log += encode_record(record)
    return log, records


def test_all_records_are_taken() -> None:
    """Of every host family and version, with what the queues need of them."""
    log, records = row_of(20)
    scan = scan_of(log)
    assert records_of(scan) == [
        ScannedRecord(
            record.physical_offset,
            record.size_bytes,
            record.queue_id,
            record.queue_offset,
            record.sys_flag,
            record.store_timestamp_ms,
            record.topic.encode(),
            record.properties,
        )
        for record in records
    ]
    assert scan.end == len(log)
    assert scan.problem == "there are only zeros"
    assert scan.last_timestamp_ms == records[-1].store_timestamp_ms


@pytest.mark.parametrize("piece_size", [91, 100, 1000, 4096])
def test_pieces_cut_records_anywhere(monkeypatch: pytest.MonkeyPatch, piece_size: int) -> None:
    """Whatever is read at a time, also less than a record, the records are the same."""
    log, records = row_of(20)
    monkeypatch.setattr("apogeemq.store.log_scan._PIECE_SIZE_BYTES", piece_size)
    scan = scan_of(log)
    assert [record.physical_offset for record in records_of(scan)] == [record.physical_offset for record in records]
    assert scan.end == len(log)


def test_scan_goes_on_in_the_next_file() -> None:
    """A blank filler leads to the next file's first record; an empty log of two full files has no problem."""
    first = encode_record(record_at(0))
    filled = first + encode_blank(FILE_SIZE - len(first))
    scan = scan_of(filled, encode_record(record_at(FILE_SIZE)))
    assert [record.physical_offset for record in records_of(scan)] == [0, FILE_SIZE]
    full = scan_of(filled)
    assert len(records_of(full)) == 1
    assert (full.end, full.problem) == (FILE_SIZE, None)


def test_scan_begins_anywhere() -> None:
    """At any record's start."""
    log, records = row_of(10)
    scan = scan_of(log, start=records[7].physical_offset)
    assert len(records_of(scan)) == 3


def test_progress_is_told() -> None:
    """(scanned, total at most), from 0."""
    log, _ = row_of(5)
    disk = MemoryDisk()
    disk.write_file(LOG / f"{0:020d}", log)
    row = MappedFileQueue(disk, LOG, FILE_SIZE, reserve_ahead_bytes=1, open_files_max=4)
    told: list[tuple[int, int]] = []
    scan = LogScan(row, 0, record_size_bytes_max=5000, on_progress=lambda done, total: told.append((done, total)))
    records_of(scan)
    assert told == [(0, FILE_SIZE)]


GOOD = encode_record(record_at(0, b"body"))


def changed(at: int, data: bytes) -> bytes:
    return GOOD[:at] + data + GOOD[at + len(data) :]


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (lambda at: bytes(100), "only zeros"),
        (lambda at: b"\xff" * 100, "its magic is 0xFFFFFFFF"),
        (lambda at: encode_blank(100), "blank filler of 100 bytes does not end with the file"),
        (lambda at: changed(0, (90).to_bytes(4, "big")), "its size is 90"),
        (lambda at: changed(0, (5001).to_bytes(4, "big")), "its size is 5001"),
        (lambda at: changed(0, b"\xff\xff\xff\xff"), "its size is -1"),
        (lambda at: changed(36, b"\0\0\0\x30") + bytes(50), "its"),
        (lambda at: changed(84, b"\x7f\xff\xff\xff"), "its body length is 2147483647"),
        (lambda at: changed(84, b"\xff\xff\xff\xff"), "its body length is -1"),
        (lambda at: changed(92, b"\0"), "its topic length is 0"),
        (lambda at: changed(92, b"\x7f"), "its topic length is 127"),
        (lambda at: changed(92, b"\x04"), "its lengths do not add up"),
        (lambda at: GOOD, "it says that it lies at 0"),
        (lambda at: encode_record(record_at(at))[:-1] + b"\0" * 50, "its properties end in zeros"),
        (lambda at: encode_record(record_at(at))[:-1] + b"x" + b"\0" * 50, None),
        (lambda at: encode_record(record_at(at)).replace(b"body", b"bodx"), "the CRC of its body differs"),
        (lambda at: encode_record(record_at(at, queue_offset=2)), "it cannot be number 2 of queue 3"),
        (lambda at: encode_record(record_at(at, queue_offset=-1)), "it cannot be number -1"),
        (lambda at: encode_record(record_at(at, queue_id=-1)), "it cannot be number 0 of queue -1"),
    ],
)
def test_first_bad_record_ends_the_scan(second: Callable[[int], bytes], problem: str | None) -> None:
    """Records before it are taken; `end` is where the bad one begins; the reason says what is wrong with it.

    The one case without a problem differs in the last byte of the properties, which nothing covers.
    """
    scan = scan_of(GOOD + second(len(GOOD)))
    taken = len(records_of(scan))
    assert scan.problem is not None
    if problem is None:
        assert taken == 2
    else:
        assert taken == 1
        assert scan.end == len(GOOD)
        assert problem in scan.problem


def test_file_without_filler_is_bad() -> None:
    """Fewer than eight bytes before the end of a file cannot be."""
    first = record_at(0, b"")
    body = b"x" * (FILE_SIZE - first.size_bytes - 5)
    scan = scan_of(encode_record(record_at(0, body)), bytes(FILE_SIZE), record_size_bytes_max=FILE_SIZE)
    assert len(records_of(scan)) == 1
    assert scan.end == FILE_SIZE - 5
    assert scan.problem == "the file ends 5 bytes later without a blank filler"


def test_reader_can_take_back_the_last_record() -> None:
    """stop_at ends the scan there, with the reader's reason."""
    log, records = row_of(3)
    scan = scan_of(log)
    records_of(scan)
    scan.stop_at(records[1].physical_offset, "no")
    assert (scan.end, scan.problem) == (records[1].physical_offset, "no")
    assert records_of(scan) == []
