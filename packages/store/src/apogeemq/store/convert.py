"""Making a directory ready for another broker: recovered ahead of time, and for Java in Java's own meaning.

After a clean stop of ours Java opens a directory as it is. After an unclean one recovery comes first, and Java's is
blind to what only ours knows (the flushed offset, epochs, journals). So ours does the work here, then says so in the
files that Java reads.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec
from apogeemq.store.checkpoint import CheckpointFile
from apogeemq.store.config_tables import fold_journals, journaled_tables
from apogeemq.store.errors import StoreInUse
from apogeemq.store.files import RealDisk
from apogeemq.store.index_file import index_file_size_bytes
from apogeemq.store.message_store import MessageStore, RecoveryReport
from apogeemq.store.read_only_disk import ReadOnlyDisk
from apogeemq.store.recovery import RedispatchTagsCode
from apogeemq.store.store_layout import (
    COMMIT_LOG_FILE_SIZE_BYTES,
    CONSUME_QUEUE_FILE_SIZE_BYTES,
    INDEX_ENTRIES_MAX,
    INDEX_SLOTS,
    StoreLayout,
)
from apogeemq.store.store_view import OnProgress, StoreView
from apogeemq.store.timer_catch_up import catch_up


class Target(StrEnum):
    """Whose broker shall open the directory next."""

    JAVA = "java"
    APOGEEMQ = "apogeemq"


class ConversionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, and what to know."""

    recovery: RecoveryReport
    notes: list[str]
    """What the other side does not understand, or has to be told."""


def convert(
    directory: Path,
    layout: StoreLayout,
    target: Target,
    *,
    message_size_bytes_max: int,
    tags_code_of: RedispatchTagsCode,
    now_ms: Callable[[], int],
    on_progress: OnProgress | None = None,
) -> ConversionReport:
    """Recover a directory and leave it stopped in good order.

    What the journals under config/ hold goes into the tables, for Java sees no journals; and consumer offsets that are
    ahead of their queues are cut, as our broker does after a crash: nobody else will know that there was one.
    The timer's progress in its queue is moved behind what its log knows, which Java would take a second time.
    Pending timers are written into Java's wheel and log, as at every orderly stop. For Java the checkpoint's flushed
    offset becomes 0, Java's "unknown": its broker would keep ours, and if it then crashed and lost a tail, that
    would look like damage to us.
    Errors: as MessageStore.open and close; BodyInvalid, JournalDamaged.
    """
    store = MessageStore.open(
        directory,
        layout.config(message_size_bytes_max=message_size_bytes_max),
        now_ms=now_ms,
        redispatch_tags_code=tags_code_of,
        on_progress=on_progress,
        background=False,
    )
    with store:
        if target is Target.JAVA:
            catch_up(store)
        fold_journals(RealDisk(), directory / "config", store.max_offset)
    if target is Target.JAVA:
        _forget_flushed_offset(directory)
    return ConversionReport(recovery=store.recovery, notes=list(notes_for(directory, layout, target)))


def describe_conversion(view: StoreView, target: Target) -> list[str]:
    """What `convert` would do, a line each, without doing it."""
    steps = []
    if not view.is_clean:
        flushed = view.checkpoint.master_flushed_offset
        steps.append(f"recover: check the log's tail (synced up to {flushed}), complete consume queues, remove abort")
    if view.layout.has_index and not has_index_sizes(view):
        steps.append(
            f"build the index anew, its files have another size than maxHashSlotNum={view.layout.index_slots} and "
            f"maxIndexNum={view.layout.index_entries_max} make: if the broker has other settings, stop here and give "
            "--index-slots and --index-entries"
        )
    steps += [
        f"put {count} changes from its journal into config/{name}"
        for name, count in journaled_tables(ReadOnlyDisk(), view.directory / "config").items()
    ]
    if target is Target.JAVA and view.checkpoint.master_flushed_offset:
        steps.append("set the checkpoint's flushed offset to 0, which Java takes for unknown")
    return steps


def has_index_sizes(view: StoreView) -> bool:
    """Whether the index files have the size that the layout's slots and entries make."""
    expected = index_file_size_bytes(view.layout.index_slots, view.layout.index_entries_max)
    directory = view.directory / "index"
    names = [name for name in view.disk.list_dir(directory) if name.isdecimal()]
    return all(view.disk.size_of(directory / name) == expected for name in names)


def notes_for(directory: Path, layout: StoreLayout, target: Target) -> Iterator[str]:
    """What the next broker has to be told, and what it will not see."""
    if layout.commit_log_file_size_bytes != COMMIT_LOG_FILE_SIZE_BYTES:
        yield f"set mappedFileSizeCommitLog={layout.commit_log_file_size_bytes} in the broker's configuration"
    if layout.consume_queue_file_size_bytes != CONSUME_QUEUE_FILE_SIZE_BYTES:
        yield f"set mappedFileSizeConsumeQueue={layout.consume_queue_file_size_bytes} in the broker's configuration"
    if layout.index_slots != INDEX_SLOTS:
        yield f"set maxHashSlotNum={layout.index_slots} in the broker's configuration"
    if layout.index_entries_max != INDEX_ENTRIES_MAX:
        yield f"set maxIndexNum={layout.index_entries_max} in the broker's configuration"
    if target is not Target.JAVA:
        return
    copies = sorted(path.name for path in directory.glob("repair-*"))
    if copies:
        yield f"Java leaves {', '.join(copies)} alone: copies that repairs made; remove them when they are not needed"


def _forget_flushed_offset(directory: Path) -> None:
    disk = RealDisk()
    try:
        lock = disk.lock(directory / "lock")
    except BlockingIOError as error:
        raise StoreInUse(directory) from error
    try:
        file = CheckpointFile(disk, directory / "checkpoint")
        checkpoint = file.load()
        checkpoint.master_flushed_offset = 0
        file.save(checkpoint)
        file.close()
    finally:
        lock.release()
