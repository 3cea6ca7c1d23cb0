"""Keeping blocks reserved ahead of the writer, and letting go of maps that it left behind."""

import logging

from apogeemq.store.commit_log import CommitLog
from apogeemq.store.errors import DiskFull, NotWritable

_logger = logging.getLogger(__name__)


class RoomService:
    """What the thread that reserves does, callable without the thread."""

    def __init__(self, log: CommitLog) -> None:
        self._log = log
        self._is_short = False

    def prepare_once(self) -> None:
        """One round. A full disk is reported once; the writer gets DiskFull itself when it arrives there."""
        try:
            self._log.files.prepare(self._log.written_offset)
        except DiskFull as error:
            if not self._is_short:
                _logger.warning("%s: appending will fail soon", error)
            self._is_short = True
        except OSError as error:
            refusal = NotWritable(f"reserving room for the commit log failed: {error}")
            _logger.critical("%s", refusal)
            self._log.refuse(refusal)
        else:
            self._is_short = False
        self._log.files.retire(self._log.hot_from)
