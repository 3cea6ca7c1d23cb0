"""A check follows the index beside the log; key lookup and rebuild go through the same files."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from apogeemq.store.__main__ import main
from apogeemq.store.finding import Finding, Severity
from apogeemq.store.index_file import ENTRY_SIZE_BYTES, HEADER_SIZE_BYTES
from apogeemq.store.index_query import find_by_key
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.rebuild import rebuild_index
from apogeemq.store.store_check import CheckSummary, StoreCheck
from apogeemq.store.store_view import StoreView

SLOTS, ENTRIES = 50, 60
ENTRIES_AT = HEADER_SIZE_BYTES + SLOTS * 4
ARGUMENTS = ["--commit-log-file-size", "8K", "--consume-queue-file-size", "320", "--index-slots", "50"]
ARGUMENTS += ["--index-entries", "60", "-o", "json"]
MESSAGES = 50


@pytest.fixture
def store_dir(tmp_path: Path, open_store: Callable[..., MessageStore], send: Callable[..., AppendResult]) -> Path:
    """Fifty messages with a unique key, one of their own and one of three shared ones: three index files."""
    store = open_store(index_enabled=True, index_slots=SLOTS, index_entries_max=ENTRIES)
    for n in range(MESSAGES):
        send(store, "T", n % 2, b"x" * 300, b"UNIQ_KEY\1ID%d\2KEYS\1key-%d shared-%d\2" % (n, n, n % 3))
    store.close()
    return tmp_path / "store"


def open_view(directory: Path, *, exclusive: bool = False) -> StoreView:
    return StoreView.open(
        directory,
        commit_log_file_size_bytes=8192,
        consume_queue_file_size_bytes=320,
        index_slots=SLOTS,
        index_entries_max=ENTRIES,
        exclusive=exclusive,
    )


def check(directory: Path) -> tuple[list[Finding], CheckSummary]:
    with open_view(directory) as view:
        run = StoreCheck(view)
        return list(run), run.summary


def files_of(directory: Path) -> list[Path]:
    return sorted((directory / "index").iterdir())


def test_a_good_index(store_dir: Path) -> None:
    """Every entry is met, nothing is found."""
    findings, summary = check(store_dir)
    assert findings == []
    assert summary.index_entries == 3 * MESSAGES
    assert len(files_of(store_dir)) == 3


def test_java_index(java_directory: Path) -> None:
    """The recorded directory with its index file: one entry for each key, as Java wrote them."""
    with StoreView.open(java_directory) as view:
        run = StoreCheck(view)
        assert list(run) == []
        assert run.summary.index_entries > 20
        (record,) = find_by_key(view, "StoreNormal", "shared-2")
        assert record.body == b"two keys"


@pytest.fixture
def java_directory(tmp_path: Path) -> Path:
    vectors = Path(__file__).parent / "vectors_store"
    directory = Path(shutil.copytree(vectors, tmp_path / "java"))
    for packed in (directory / "index").glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    return directory


@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes_are_found(store_dir: Path, seed: int) -> None:
    """In slots, and in hash, offset or chain of entries; the seconds of an entry are not looked at."""
    chance = Random(seed)
    path = files_of(store_dir)[0]
    original = path.read_bytes()
    for _ in range(10):
        at = chance.choice([chance.randrange(HEADER_SIZE_BYTES, ENTRIES_AT), chance.randrange(
            ENTRIES_AT + ENTRY_SIZE_BYTES, ENTRIES_AT + ENTRIES * ENTRY_SIZE_BYTES)])  # fmt: skip
        if at >= ENTRIES_AT and 12 <= (at - ENTRIES_AT) % ENTRY_SIZE_BYTES < 16:
            continue
        path.write_bytes(original[:at] + bytes([original[at] ^ 1 << chance.randrange(8)]) + original[at + 1 :])
        findings, _ = check(store_dir)
        assert {finding.severity for finding in findings} == {Severity.DERIVED}, at
        assert any("index" in str(finding.file) for finding in findings)
    path.write_bytes(original)
    assert check(store_dir)[0] == []


def test_a_missing_file_and_its_rebuild(store_dir: Path) -> None:
    """The keys of its records are counted as missing; built anew every key is found again."""
    files_of(store_dir)[-1].unlink()
    findings, _ = check(store_dir)
    assert [finding.severity for finding in findings] == [Severity.DERIVED]
    assert findings[0].found.startswith(f"{3 * MESSAGES - 2 * (ENTRIES - 1)} missing")
    with open_view(store_dir, exclusive=True) as view:
        assert rebuild_index(view, now_ms=lambda: 1_700_000_000_000) == MESSAGES
    findings, summary = check(store_dir)
    assert findings == []
    assert summary.index_entries == 3 * MESSAGES
    with open_view(store_dir) as view:
        found = [record.queue_offset * 2 + record.queue_id for record in find_by_key(view, "T", "shared-1")]
    assert found == [n for n in reversed(range(MESSAGES)) if n % 3 == 1]


def test_rebuild_gives_the_same_bytes(store_dir: Path, tmp_path: Path) -> None:
    """As the store itself wrote them, whatever the files are named."""
    with open_view(store_dir) as view:
        rebuild_index(view, now_ms=lambda: 1, target=tmp_path / "to")
    assert [path.read_bytes() for path in files_of(tmp_path / "to")] == [
        path.read_bytes() for path in files_of(store_dir)
    ]


def test_index_command(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files, messages by key, and both rebuilt."""
    assert main(["index", str(store_dir), *ARGUMENTS]) == 0
    assert [json.loads(line)["entries"] for line in capsys.readouterr().out.splitlines()] == [59, 59, 32]
    assert main(["index", str(store_dir), *ARGUMENTS, "--topic", "T", "--key", "key-7"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["uniqueKey"] == "ID7"
    with pytest.raises(SystemExit):
        main(["index", str(store_dir), "--key", "key-7"])
    assert main(["rebuild", str(store_dir), *ARGUMENTS]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"indexedRecords": MESSAGES}
    assert main(["check", str(store_dir), *ARGUMENTS]) == 0
