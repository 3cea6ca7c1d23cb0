"""The JSON files under `config/`, written so that a crash leaves the old content or the new one."""

import logging
from pathlib import Path

from apogeemq.remoting_codec import fastjson
from apogeemq.remoting_codec.errors import BodyInvalid
from apogeemq.store.errors import NO_ROOM, DiskFull
from apogeemq.store.files import Disk, replace_file

_logger = logging.getLogger(__name__)

FILE_SIZE_BYTES_MAX = 64 << 20
"""A larger file is not read."""


class ConfigFile:
    """One JSON file and its backup, as text; what is in it is the owner's matter.

    `save` writes `<name>.tmp`, syncs it, makes the old file `<name>.bak` and the new one `<name>`; so after a crash at
    least one of the two is whole. Java's fastjson (bare integer keys) is read too, and Java's files are laid out alike.
    Blocking: call it in a thread. One thread at a time.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._is_directory_durable = False

    def load(self) -> bytes | None:
        """The JSON text; the backup's when the file is absent, empty or damaged; None when there is nothing at all.

        Errors: BodyInvalid when there are files but none can be read: starting without would forget what they say.
        """
        found = self.load_with_origin()
        return None if found is None else found[0]

    def load_with_origin(self) -> tuple[bytes, bool] | None:
        """What `load` gives, and whether it is the backup's. Errors: as `load`."""
        failure: BodyInvalid | None = None
        for path in (self._path, self._path.with_name(self._path.name + ".bak")):
            size_bytes = self._disk.size_of(path)
            if size_bytes is None:
                continue
            try:
                text = self._read(path, size_bytes)
            except BodyInvalid as error:
                _logger.warning("%s cannot be read: %s", path, error)
                failure = error
            else:
                return text, path != self._path
        if failure is not None:
            raise failure
        return None

    def save(self, text: bytes) -> None:
        """Replace the content; durable at return. Errors: DiskFull, OSError; the old content stays then."""
        try:
            replace_file(self._disk, self._path, text, backup=True)
            if not self._is_directory_durable:
                # The first file makes config/ itself: a power loss must not forget the directory's name either.
                self._disk.sync_dir(self._path.parent.parent)
                self._is_directory_durable = True
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(self._path) from error
            raise

    def _read(self, path: Path, size_bytes: int) -> bytes:
        if size_bytes > FILE_SIZE_BYTES_MAX:
            raise BodyInvalid(f"{path} has {size_bytes} bytes, more than {FILE_SIZE_BYTES_MAX}")
        text = self._disk.read_file(path)
        fastjson.loads(text, size_bytes_max=FILE_SIZE_BYTES_MAX, tolerant_size_bytes_max=FILE_SIZE_BYTES_MAX)
        return text
