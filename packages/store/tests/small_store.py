"""A store with files so small that a few messages meet every boundary: for tests of what survives a crash."""

from apogeemq.store.config import StoreConfig

HOST = b"\x7f\x00\x00\x01\x00\x00\x2a\x9f"
CONFIG = StoreConfig(
    store_host=HOST,
    commit_log_file_size_bytes=4096,
    consume_queue_file_units=8,
    reserve_ahead_bytes=2048,
    message_size_bytes_max=3000,
    consume_queue_tail_size_bytes_max=100,
    open_files_max=3,
    hot_read_window_bytes=6000,
)
QUEUES = [("TopicA", 0), ("TopicA", 1), ("%RETRY%group", 0)]
