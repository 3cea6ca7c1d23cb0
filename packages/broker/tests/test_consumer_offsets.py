"""Committed offsets."""

from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable


def test_the_last_word_counts() -> None:
    """A commit replaces the one before, lower ones too; queues and groups do not mix."""
    table = ConsumerOffsetTable()
    assert table.query("T", "G", 0) is None
    table.commit("T", "G", 0, 5)
    table.commit("T", "G", 0, 3)
    table.commit("T", "G", 1, 9)
    table.commit("T", "H", 0, 7)
    assert [table.query("T", "G", 0), table.query("T", "G", 1), table.query("T", "H", 0)] == [3, 9, 7]
    assert table.query("U", "G", 0) is None
    assert table.changes == 4


def test_the_form_of_the_file_comes_back() -> None:
    """What to_table gives makes an equal table; keys that are not topic@group are left out."""
    table = ConsumerOffsetTable({"StoreNormal@G_store": {0: 3}, "%RETRY%G@G": {0: 1}, "nonsense": {0: 8}})
    assert table.query("StoreNormal", "G_store", 0) == 3
    assert table.query("%RETRY%G", "G", 0) == 1
    assert table.to_table() == {"StoreNormal@G_store": {0: 3}, "%RETRY%G@G": {0: 1}}


def test_after_a_crash_no_offset_is_ahead_of_its_queue() -> None:
    """Clamping cuts offsets beyond the queue's end and leaves the others."""
    table = ConsumerOffsetTable({"T@G": {0: 10, 1: 4}})
    assert table.clamp(lambda topic, queue_id: 6) == 1
    assert table.to_table() == {"T@G": {0: 6, 1: 4}}
