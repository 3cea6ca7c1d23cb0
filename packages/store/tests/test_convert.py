"""A directory is recovered ahead of time and left as the other broker wants it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from apogeemq.store.checkpoint import Checkpoint, CheckpointFile
from apogeemq.store.convert import Target, convert, describe_conversion
from apogeemq.store.delivery_times import tags_code_rule
from apogeemq.store.files import RealDisk
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.store_check import StoreCheck
from apogeemq.store.store_layout import StoreLayout
from apogeemq.store.store_view import StoreView

NOW_MS = 1_700_000_000_000
LAYOUT = StoreLayout(8192, 320)


@pytest.fixture
def crashed(tmp_path: Path, open_store: Callable[..., MessageStore], send: Callable[..., AppendResult]) -> Path:
    """A store that was not closed: abort is there, units are missing, a torn record ends the log."""
    store = open_store()
    for n in range(30):
        send(store, queue_id=n % 2, body=b"x" * 600)
    end = store.written_offset
    store.close()
    directory = tmp_path / "store"
    (directory / "abort").write_text("4711")
    log = directory / "commitlog" / f"{end - end % 8192:020d}"
    data = bytearray(log.read_bytes())
    data[end % 8192 : end % 8192 + 4] = b"torn"
    log.write_bytes(data)
    (directory / "consumequeue/TopicTest/1" / f"{0:020d}").write_bytes(bytes(320))
    return directory


def checkpoint_of(directory: Path) -> Checkpoint:
    file = CheckpointFile(RealDisk(), directory / "checkpoint")
    try:
        return file.load()
    finally:
        file.close()


@pytest.mark.parametrize("target", Target)
def test_after_a_crash(crashed: Path, target: Target, open_store: Callable[..., MessageStore]) -> None:
    """The tail is cut, queues are whole, abort is gone; for Java the flushed offset is unknown."""
    before = checkpoint_of(crashed)
    assert before.master_flushed_offset > 0
    report = convert(
        crashed, LAYOUT, target, message_size_bytes_max=4096, tags_code_of=tags_code_rule(), now_ms=lambda: NOW_MS
    )
    assert report.recovery.dropped_bytes == 4
    assert not (crashed / "abort").exists()
    with StoreView.open(crashed, commit_log_file_size_bytes=8192, consume_queue_file_size_bytes=320) as view:
        check = StoreCheck(view)
        assert list(check) == []
        assert check.summary.messages == 30
    after = checkpoint_of(crashed)
    assert after.master_flushed_offset == (0 if target is Target.JAVA else before.master_flushed_offset)
    assert after.physic_timestamp_ms == after.logics_timestamp_ms == 1_700_000_000_000
    assert open_store(directory=crashed).max_offset("TopicTest", 1) == 15


def test_what_the_other_broker_has_to_be_told(crashed: Path) -> None:
    """File sizes that are not the usual ones, and what Java does not read."""
    (crashed / "repair-20261122T000000Z").mkdir()
    with StoreView.open(crashed, commit_log_file_size_bytes=8192, consume_queue_file_size_bytes=320) as view:
        steps = describe_conversion(view, Target.JAVA)
        assert [step.split()[0] for step in steps] == ["recover:", "set"]
        assert len(describe_conversion(view, Target.APOGEEMQ)) == 1
    notes = convert(
        crashed, LAYOUT, Target.JAVA, message_size_bytes_max=4096, tags_code_of=tags_code_rule(), now_ms=lambda: NOW_MS
    ).notes
    assert any("mappedFileSizeCommitLog=8192" in note for note in notes)
    assert any("mappedFileSizeConsumeQueue=320" in note for note in notes)
    assert any("repair-20261122T000000Z" in note for note in notes)
