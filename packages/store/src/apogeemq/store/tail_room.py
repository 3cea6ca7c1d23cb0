"""Bounds on what an append leaves in memory: units of its queue, keys for the index."""

from collections.abc import Callable
from pathlib import Path

from apogeemq.store.commit_log import CommitLog
from apogeemq.store.config import StoreConfig
from apogeemq.store.consume_queue import ConsumeQueue, ConsumeQueues
from apogeemq.store.errors import NO_ROOM, DiskFull, NotWritable
from apogeemq.store.index_files import IndexFiles


class TailRoom:
    """Writes tails that have reached their bound. Usually the thread for queues is earlier."""

    def __init__(self, log: CommitLog, queues: ConsumeQueues, index: IndexFiles | None, config: StoreConfig) -> None:
        self._log = log
        self._queues = queues
        self._index = index
        self.queue_size_bytes_max = config.consume_queue_tail_size_bytes_max
        self.index_size_bytes_max = config.index_tail_size_bytes_max

    def make(self, queue: ConsumeQueue) -> None:
        """Have room for another message of this queue. To be called before each append.

        Errors, with nothing stored: DiskFull; NotWritable, which is final.
        """
        if len(queue.tail) >= self.queue_size_bytes_max:
            self._write("a consume queue", queue.directory, lambda: self._queues.drain(queue))
        if (index := self._index) is not None and len(index.tail) >= self.index_size_bytes_max:
            self._write("the index", index.directory, index.write_some)

    def _write(self, what: str, directory: Path, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(directory) from error
            refusal = NotWritable(f"writing {what} failed: {error}")
            self._log.refuse(refusal)
            raise refusal from error
