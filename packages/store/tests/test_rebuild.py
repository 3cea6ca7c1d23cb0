"""Consume queues built anew from the log: the same bytes as before, in place of the old ones only when complete."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from apogeemq.remoting_codec.message import tags_code
from apogeemq.store.delivery_times import tags_code_rule
from apogeemq.store.errors import RecordCorrupt
from apogeemq.store.files import RealDisk
from apogeemq.store.message_store import AppendResult, MessageStore
from apogeemq.store.rebuild import RebuildReport, rebuild_queues
from apogeemq.store.store_check import StoreCheck
from apogeemq.store.store_view import StoreView

from packages.store.tests.stopping_disk import Stopped, StoppingDisk

OpenStore = Callable[..., MessageStore]
Send = Callable[..., AppendResult]

VECTORS = Path(__file__).parent / "vectors_store"


@pytest.fixture
def store_dir(tmp_path: Path, open_store: OpenStore, send: Send) -> Path:
    """Forty messages of two topics, closed."""
    store = open_store()
    for n in range(40):
        send(
            store, "TopicA" if n % 3 else "TopicB", n % 2, b"x" * 300, b"TAGS\1t%d\2" % n, tags_code=tags_code(f"t{n}")
        )
    store.close()
    return tmp_path / "store"


def open_view(directory: Path, *, exclusive: bool = True) -> StoreView:
    return StoreView.open(
        directory, commit_log_file_size_bytes=8192, consume_queue_file_size_bytes=320, exclusive=exclusive
    )


def rebuild(directory: Path, disk: RealDisk | None = None, target: Path | None = None) -> RebuildReport:
    with open_view(directory, exclusive=target is None) as view:
        return rebuild_queues(view, tags_code_of=tags_code_rule(), target=target, disk=disk)


def is_fine(directory: Path) -> bool:
    with open_view(directory, exclusive=False) as view:
        check = StoreCheck(view)
        list(check)
        return check.summary.is_fine and check.summary.messages == 40


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


def test_the_same_bytes_as_before(store_dir: Path) -> None:
    """In place, whatever the old queues held; nothing else in the store changes."""
    before = contents(store_dir)
    for path in (store_dir / "consumequeue/TopicA/1").iterdir():
        path.write_bytes(b"?" * 320)
    shutil.rmtree(store_dir / "consumequeue/TopicB")
    report = rebuild(store_dir)
    assert (report.queues, report.units, report.irregular_records) == (4, 40, 0)
    assert contents(store_dir) == before


def test_another_directory_as_target(store_dir: Path, tmp_path: Path) -> None:
    """The store stays as it is; what is there already is not overwritten."""
    before = contents(store_dir)
    rebuild(store_dir, target=tmp_path / "to")
    assert contents(tmp_path / "to/consumequeue") == contents(store_dir / "consumequeue")
    assert contents(store_dir) == before
    with pytest.raises(FileExistsError):
        rebuild(store_dir, target=tmp_path / "to")


def test_java_queues_come_out_as_java_wrote_them(tmp_path: Path) -> None:
    """Delivery times of delayed messages included."""
    with StoreView.open(VECTORS) as view:
        report = rebuild_queues(view, tags_code_of=tags_code_rule(), target=tmp_path / "to")
    assert report.units == 23
    java, built = contents(VECTORS / "consumequeue"), contents(tmp_path / "to/consumequeue")
    assert java.keys() == built.keys()
    assert all(built[name].rstrip(b"\0") == java[name].rstrip(b"\0") for name in java)


@pytest.mark.parametrize("end", [7, 16, 40])
def test_queues_whose_messages_all_expired_go_on_where_they_were(
    store_dir: Path, open_store: OpenStore, send: Send, end: int
) -> None:
    """The log cannot tell their next queue offset, the old files can."""
    queue = store_dir / "consumequeue/Old/0"
    queue.mkdir(parents=True)
    first = (end - 1) * 20 // 320 * 320
    units = (end * 20 - first) // 20
    (queue / f"{first:020d}").write_bytes((b"\0" * 8 + b"\0\0\1\0" + b"\0" * 8) * units + bytes(320 - units * 20))
    log = store_dir / "commitlog"
    (log / f"{0:020d}").unlink()
    report = rebuild(store_dir)
    assert report.kept_ends == 1
    store = open_store()
    assert (store.min_offset("Old", 0), store.max_offset("Old", 0)) == (end, end)
    assert send(store, "Old", 0).queue_offset == end


def test_interrupted_anywhere(store_dir: Path, tmp_path: Path, open_store: OpenStore) -> None:
    """After a stop at any step the store opens with whole queues, and nothing of the work is left lying about."""
    damaged = store_dir / "consumequeue/TopicA/1" / f"{0:020d}"
    calls = 0
    while True:
        copy = Path(shutil.copytree(store_dir, tmp_path / f"copy{calls}"))
        (copy / damaged.relative_to(store_dir)).write_bytes(b"\0" * 11 + b"\1" + b"\0" * 308)
        try:
            rebuild(copy, StoppingDisk(calls))
        except Stopped:
            names = {path.name for path in copy.iterdir()}
            is_committed = not names >= {"consumequeue", "consumequeue.rebuilding"}
            open_store(directory=copy).close()
            assert {path.name for path in copy.iterdir()} == {"checkpoint", "commitlog", "consumequeue", "lock"}
            # Before the commit the old queues stay; they were damaged, and nothing claims otherwise.
            assert is_fine(copy) or not is_committed
            assert contents(copy / "consumequeue").keys() == contents(store_dir / "consumequeue").keys()
            rebuild(copy)
            assert is_fine(copy)
            calls += 1
            continue
        break
    assert calls > 8
    assert is_fine(copy)


def test_a_damaged_log_is_refused(store_dir: Path) -> None:
    """Queues built around damage would hide it: repair comes first; the old queues stay."""
    log = store_dir / "commitlog" / f"{0:020d}"
    data = bytearray(log.read_bytes())
    data[100] ^= 1
    log.write_bytes(data)
    before = contents(store_dir / "consumequeue")
    with pytest.raises(RecordCorrupt) as raised:
        rebuild(store_dir)
    assert raised.value.physical_offset == 0
    assert contents(store_dir / "consumequeue") == before
