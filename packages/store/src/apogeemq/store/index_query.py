"""The index of a store that is not open: its files, and what they say of a key."""

from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from apogeemq.remoting_codec.record import Record
from apogeemq.store.errors import OffsetOutOfRange, RecordCorrupt
from apogeemq.store.index_file import IndexFile
from apogeemq.store.index_files import IndexFiles
from apogeemq.store.key_hash import keys_of
from apogeemq.store.record_query import record_at
from apogeemq.store.store_view import StoreView

_END_OF_TIME_MS = (1 << 63) - 1


def index_paths(view: StoreView) -> list[Path]:
    """The index files, oldest first."""
    directory = view.directory / "index"
    return [directory / name for name in view.disk.list_dir(directory) if name.isdecimal()]


def index_files(view: StoreView) -> Iterator[tuple[IndexFile, bool]]:
    """Each file, and whether its header can be true of what else is in it."""
    for path in index_paths(view):
        file = IndexFile(view.disk, path, view.layout.index_slots, view.layout.index_entries_max)
        is_sane = file.load()
        yield file, is_sane
        file.release()


def find_by_key(view: StoreView, topic: str, key: str) -> Iterator[Record]:
    """Records of a topic that have the key, newest first, as the index finds them."""
    index = IndexFiles(
        view.disk,
        view.directory / "index",
        slots=view.layout.index_slots,
        entries_max=view.layout.index_entries_max,
        lock=Lock(),
        now_ms=lambda: 0,  # no file is made
    )
    index.load(clean=True, sure_timestamp_ms=None)
    wanted = key.encode(errors="replace")
    for physical_offset in index.candidates(topic, key, 0, _END_OF_TIME_MS):
        try:
            record = record_at(view, physical_offset, check_crc=False)
        except (OffsetOutOfRange, RecordCorrupt):
            continue  # expired, or damage that check reports
        if record.topic == topic and wanted in keys_of(record.properties):
            yield record
    index.close()
