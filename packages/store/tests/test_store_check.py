"""A check finds what is wrong in a directory, says where, and changes nothing."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from apogeemq.remoting_codec.message import tags_code
from apogeemq.remoting_codec.record import decode_record
from apogeemq.store.config_journal import JournaledFile
from apogeemq.store.consume_queue import UNIT
from apogeemq.store.files import RealDisk
from apogeemq.store.finding import Finding, Severity
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.store_check import CheckSummary, StoreCheck, properties_fault
from apogeemq.store.store_view import StoreView

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]

VECTORS = Path(__file__).parent / "vectors_store"
QUEUES = [("TopicA", 0), ("TopicA", 1), ("TopicB", 0)]
MESSAGES = 120


@pytest.fixture
def store_dir(tmp_path: Path, open_store: OpenStore, send: Send) -> Path:
    """A store of several log files and queue files, closed."""
    store = open_store()
    for n in range(MESSAGES):
        send(store, *QUEUES[n % 3], b"%d:" % n + b"z" * (n * 7 % 300), b"TAGS\1TagA\2n\1%d\2" % n,
             tags_code=tags_code("TagA"))  # fmt: skip
    store.close()
    return tmp_path / "store"


def open_view(directory: Path) -> StoreView:
    return StoreView.open(directory, commit_log_file_size_bytes=8192, consume_queue_file_size_bytes=320)


def check(directory: Path) -> tuple[list[Finding], CheckSummary]:
    with open_view(directory) as view:
        run = StoreCheck(view)
        return list(run), run.summary


def log_file(directory: Path, start: int = 0) -> Path:
    return directory / "commitlog" / f"{start:020d}"


def change(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def fingerprint(directory: Path) -> dict[str, tuple[int, int, str]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_a_good_store_has_no_findings(store_dir: Path) -> None:
    """Every message is counted, nothing is found, no byte and no time of a file changes."""
    before = fingerprint(store_dir)
    findings, summary = check(store_dir)
    assert findings == []
    assert summary.is_fine
    assert summary.is_clean
    assert (summary.records, summary.messages, summary.topics, summary.queues) == (MESSAGES, MESSAGES, 2, 3)
    assert summary.store_timestamp_min_ms == summary.store_timestamp_max_ms == 1_700_000_000_000
    assert fingerprint(store_dir) == before


def test_java_directory_is_fine() -> None:
    """What Apache 5.3.3 wrote and stopped in good order, delivery times of delayed messages included."""
    with StoreView.open(VECTORS) as view:
        run = StoreCheck(view)
        assert list(run) == []
    summary = run.summary
    assert (summary.records, summary.messages, summary.queues, summary.log_end) == (23, 23, 8, 7138)


def test_progress_reaches_the_end(store_dir: Path) -> None:
    """Bytes done grow up to bytes in all."""
    seen: list[tuple[int, int]] = []
    with open_view(store_dir) as view:
        list(StoreCheck(view, on_progress=lambda done, total: seen.append((done, total))))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_damaged_body_is_found_and_the_rest_is_checked(store_dir: Path) -> None:
    """One record is reported with its place; the messages behind it are still counted."""
    record = decode_record(log_file(store_dir).read_bytes())
    change(log_file(store_dir), 88, b"?")
    findings, summary = check(store_dir)
    first = findings[0]
    assert (first.severity, first.physical_offset, first.position) == (Severity.DAMAGE, 0, 0)
    assert str(first.file) == "commitlog/" + "0" * 20
    assert f"{record.size_bytes} bytes" in first.found
    assert "CRC" in first.found
    assert summary.records == MESSAGES - 1
    assert not summary.is_fine


def test_a_missing_log_file_is_found(store_dir: Path) -> None:
    """The gap is named, what lies on both sides is checked."""
    log_file(store_dir, 8192).unlink()
    findings, summary = check(store_dir)
    assert findings[0].severity is Severity.DAMAGE
    assert findings[0].file.name == f"{8192:020d}"
    assert 0 < summary.records < MESSAGES
    assert any("messages are missing" in finding.found for finding in findings)


def test_a_torn_tail_after_a_crash_is_a_note(store_dir: Path) -> None:
    """What the next opening cuts off by itself is no damage; the same bytes in a store stopped in good order are."""
    end = check(store_dir)[1].log_end
    start = end - end % 8192
    change(log_file(store_dir, start), end - start, b"torn")
    findings, _ = check(store_dir)
    assert [finding.severity for finding in findings] == [Severity.DAMAGE]
    (store_dir / "abort").write_text("4711")
    findings, summary = check(store_dir)
    assert {finding.severity for finding in findings} == {Severity.NOTE}
    assert summary.is_fine
    assert summary.log_end == end
    assert "4 bytes" in findings[0].found


def test_a_log_that_ends_before_the_flushed_offset(store_dir: Path) -> None:
    """The checkpoint says that more was synced than there is: damage, crash or not."""
    end = check(store_dir)[1].log_end
    start = end - end % 8192
    last = end - (start if end > start else 0)
    change(log_file(store_dir, start), 0, bytes(last))
    (store_dir / "abort").write_text("4711")
    findings, summary = check(store_dir)
    assert summary.log_end <= start
    assert any(str(finding.file) == "checkpoint" and finding.position == 24 for finding in findings)
    assert not summary.is_fine


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (UNIT.pack(0, 200, 0), "tags code"),
        (bytes(20), "missing"),
    ],
)
def test_a_wrong_unit_is_found(store_dir: Path, unit: bytes, words: str) -> None:
    """A unit that differs from its record, and one that is not there, are derived data gone wrong."""
    path = store_dir / "consumequeue/TopicA/1" / f"{0:020d}"
    change(path, 5 * 20, unit)
    findings, summary = check(store_dir)
    assert [finding.severity for finding in findings] == [Severity.DERIVED]
    assert (findings[0].file, findings[0].position) == (path.relative_to(store_dir), 100)
    assert words in findings[0].expected + findings[0].found
    assert summary.damages == 0


def test_units_without_a_record_are_found(store_dir: Path) -> None:
    """Behind the queue's end; after a crash, where they lie behind the log's end too, they are a note."""
    queue = store_dir / "consumequeue/TopicB/0" / f"{640:020d}"
    change(queue, 8 * 20, UNIT.pack(1 << 30, 100, 0))
    findings, _ = check(store_dir)
    assert [(finding.severity, finding.position) for finding in findings] == [(Severity.DERIVED, 160)]
    (store_dir / "abort").write_text("1")
    assert {finding.severity for finding in check(store_dir)[0]} == {Severity.NOTE}


def test_a_missing_queue_file_is_found(store_dir: Path) -> None:
    """Its row has a gap, its units are missing."""
    (store_dir / "consumequeue/TopicA/0" / f"{320:020d}").unlink()
    findings, _ = check(store_dir)
    assert {finding.severity for finding in findings} == {Severity.DERIVED}
    assert any(finding.file.name == f"{320:020d}" for finding in findings)


def test_damaged_config_is_found(store_dir: Path) -> None:
    """With and without a backup that is whole; good files are not spoken of."""
    config = store_dir / "config"
    config.mkdir()
    (config / "topics.json").write_text("{damaged")
    (config / "consumerOffset.json").write_text("{damaged")
    (config / "consumerOffset.json.bak").write_text('{"offsetTable":{"T@G":{0:1}}}')
    (config / "delayOffset.json").write_text("{}")
    findings, _ = check(store_dir)
    assert [(finding.severity, finding.file.name) for finding in findings] == [
        (Severity.DAMAGE, "consumerOffset.json"),
        (Severity.DAMAGE, "topics.json"),
    ]
    assert "backup" in findings[0].advice
    assert "no whole backup" in findings[1].advice


def test_damaged_journal_is_found(store_dir: Path) -> None:
    """A change that is none, with one behind it; the same journal is fine before."""
    path = store_dir / "config/topics.json"
    path.parent.mkdir()
    file = JournaledFile(RealDisk(), path)
    file.save(b"{}")
    assert file.append(b"one")
    assert file.append(b"two")
    file.close()
    assert check(store_dir)[0] == []
    journal = path.with_suffix(".journal")
    change(journal, journal.read_bytes().index(b"one"), b"0")
    (finding,) = check(store_dir)[0]
    assert (finding.severity, str(finding.file)) == (Severity.DAMAGE, "config/topics.journal")


@pytest.mark.parametrize(
    ("properties", "is_good"),
    [
        (b"TAGS\1A\2", True),
        (b"TAGS\1A", True),
        (b"k\1a\1b\2", True),
        ("k\1ü\2".encode(), True),
        (b"k\1\xff\2", False),
        (b"TAGSA\2", False),
        (b"\1A\2", False),
        (b"a\1b\2\2c\1d\2", False),
    ],
)
def test_form_of_properties(properties: bytes, is_good: bool) -> None:
    """Key, 0x01, value, 0x02, repeated; the last 0x02 may be absent, a value may hold 0x01."""
    assert (properties_fault(properties) is None) is is_good


def test_expired_front(store_dir: Path) -> None:
    """Units whose records went with the log's first file are as they should be."""
    log_file(store_dir, 0).unlink()
    findings, summary = check(store_dir)
    assert findings == []
    assert summary.log_min_offset == 8192


def invisible(record_bytes: bytes, at: int) -> bool:
    """Whether nothing else in the store says what this byte of a record says, so that a change cannot show."""
    body_end = 88 + int.from_bytes(record_bytes[84:88], "big")
    properties_at = body_end + 1 + record_bytes[body_end] + 2
    fields = (range(16, 20), range(36, 84))  # flag; system flag … prepared transaction offset
    return any(at in field for field in fields) or at >= properties_at


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_are_found_or_invisible(store_dir: Path, seed: int) -> None:
    """Ten bits, each flipped alone in a log that was good: reported, or in a field that nothing else speaks of."""
    chance = Random(seed)
    end = check(store_dir)[1].log_end
    found = 0
    for _ in range(10):
        at = chance.randrange(end)
        path, position = log_file(store_dir, at - at % 8192), at % 8192
        original = path.read_bytes()
        record_at = 0
        while record_at + int.from_bytes(original[record_at : record_at + 4], "big") <= position:
            record_at += int.from_bytes(original[record_at : record_at + 4], "big")
        change(path, position, bytes([original[position] ^ 1 << chance.randrange(8)]))
        findings, _ = check(store_dir)
        if findings:
            found += 1
        else:
            is_filler = original[record_at + 4 : record_at + 8] == bytes.fromhex("CBD43194")
            assert (is_filler and position - record_at >= 8) or invisible(original[record_at:], position - record_at)
        path.write_bytes(original)
    assert found >= 4
