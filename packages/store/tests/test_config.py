"""Settings of a store."""

import pytest
from apogeemq.store.config import FlushMode, StoreConfig

HOST = bytes(8)


def test_defaults_are_apaches() -> None:
    """File sizes, limits and intervals that a Java broker has too; flush types by Apache's names."""
    config = StoreConfig(store_host=HOST)
    config.validate()
    assert config.commit_log_file_size_bytes == 1_073_741_824
    assert config.consume_queue_file_units * 20 == 6_000_000
    assert config.message_size_bytes_max == 4_194_304
    assert config.record_size_bytes_max == 4_194_304 + 65_536
    assert config.flush_interval_ms == 500
    assert FlushMode("SYNC_FLUSH") is FlushMode.SYNC
    assert config.flush_mode is FlushMode("ASYNC_FLUSH")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"store_host": b"1234"}, "store_host"),
        ({"commit_log_file_size_bytes": 5000}, "commit_log_file_size_bytes"),
        ({"commit_log_file_size_bytes": 0}, "commit_log_file_size_bytes"),
        ({"flush_interval_ms": 0}, "flush_interval_ms"),
        ({"open_files_max": -1}, "open_files_max"),
        ({"hot_read_window_bytes": -1}, "hot_read_window_bytes"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, object], name: str) -> None:
    """validate says which setting is wrong."""
    with pytest.raises(ValueError, match=name):
        StoreConfig(**{"store_host": HOST, **settings}).validate()  # type: ignore[arg-type]  # one bad setting each
