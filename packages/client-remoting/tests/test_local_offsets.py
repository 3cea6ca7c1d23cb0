"""Offsets in a file of this member's own."""

import pathlib

import pytest
from apogeemq.client_api.errors import StartFailed
from apogeemq.client_api.message import ReceivedMessage
from apogeemq.client_remoting.core.process_queue import ProcessQueue
from apogeemq.client_remoting.local_offsets import LocalOffsets
from apogeemq.remoting_codec.bodies import MessageQueue

A, B = MessageQueue("T", "a", 0), MessageQueue("T", "b", 1)
JAVA_FILE = b"""{
\t"offsetTable":{{
\t\t\t"brokerName":"a",
\t\t\t"queueId":0,
\t\t\t"topic":"T"
\t\t}:55
\t}
}"""


def file_of(directory: pathlib.Path) -> pathlib.Path:
    return directory / "G" / "offsets.json"


def in_hand(offset: int, *, is_committed: bool = False) -> ProcessQueue[ReceivedMessage]:
    return ProcessQueue(offset, is_committed=is_committed)


async def test_what_is_kept_is_there_for_the_next_one(tmp_path: pathlib.Path) -> None:
    """Of every queue; only what changed is written, and no leftovers lie about."""
    offsets = LocalOffsets(tmp_path, "G")
    await offsets.load()
    assert await offsets.committed(A) is None
    assert await offsets.commit_all([(A, in_hand(7)), (B, in_hand(3, is_committed=True))])
    assert await offsets.set(B, 9)
    again = LocalOffsets(tmp_path, "G")
    await again.load()
    assert (await again.committed(A), await again.committed(B)) == (7, 9)
    assert [path.name for path in file_of(tmp_path).parent.iterdir()] == ["offsets.json"]


async def test_an_offset_is_written_once(tmp_path: pathlib.Path) -> None:
    """Not again until it changes."""
    offsets = LocalOffsets(tmp_path, "G")
    queue = in_hand(7)
    assert await offsets.commit(A, queue)
    file_of(tmp_path).unlink()
    assert await offsets.commit(A, queue)
    assert not file_of(tmp_path).exists()


async def test_the_form_is_javas(tmp_path: pathlib.Path) -> None:
    """Its client's file is read, and ours has the same form: a map whose keys are objects."""
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_bytes(JAVA_FILE)
    offsets = LocalOffsets(tmp_path, "G")
    await offsets.load()
    assert await offsets.committed(A) == 55
    await offsets.set(A, 56)
    assert file_of(tmp_path).read_bytes() == b'{"offsetTable":{{"brokerName":"a","queueId":0,"topic":"T"}:56}}'


async def test_a_damaged_file_fails_the_start(tmp_path: pathlib.Path) -> None:
    """With its path; it is left as it is."""
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_bytes(b'{"offsetTable":')
    with pytest.raises(StartFailed, match=r"offsets\.json cannot be read"):
        await LocalOffsets(tmp_path, "G").load()
    assert file_of(tmp_path).read_bytes() == b'{"offsetTable":'


async def test_a_place_that_cannot_be_written(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """Is told in the log; the offset stays to be kept."""
    (tmp_path / "G").write_text("a file where the directory should be")
    offsets = LocalOffsets(tmp_path, "G")
    queue = in_hand(7)
    assert not await offsets.commit(A, queue)
    assert queue.uncommitted == 7
    assert "offsets are not kept in" in caplog.text
