"""Committed offsets."""

import pytest
from apogeemq.broker.core.consumer_offsets import FILE_SIZE_BYTES_MAX, ConsumerOffsetTable
from apogeemq.broker.errors import SystemBusy
from apogeemq.remoting_codec.bodies import ConsumerOffsetSerializeWrapper
from apogeemq.remoting_codec.fastjson import FILE_SIZE_BYTES_MAX as READABLE_SIZE_BYTES_MAX


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
    assert table.changed == {("T", "G", 0), ("T", "G", 1), ("T", "H", 0)}


def test_the_same_offset_again_is_no_change() -> None:
    """Idle consumers commit what they have every few seconds: nothing is written for that."""
    table = ConsumerOffsetTable({"T@G": {0: 5}})
    table.commit("T", "G", 0, 5)
    assert not table.changed
    table.commit("T", "G", 0, 6)
    assert table.changed == {("T", "G", 0)}


def test_what_is_loaded_later_counts() -> None:
    """A file, then the changes of its journal; the bound counts each queue once."""
    table = ConsumerOffsetTable({"T@G": {0: 5, 1: 1}}, file_size_bytes_max=200)
    for _ in range(50):
        table.load({"T@G": {0: 7}, "U@G": {0: 1}})
    assert table.to_table() == {"T@G": {0: 7, 1: 1}, "U@G": {0: 1}}
    assert table.part([("T", "G", 1), ("U", "G", 0)]) == {"T@G": {1: 1}, "U@G": {0: 1}}
    assert not table.changed
    table.commit("U", "G", 1, 1)


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


def test_the_table_is_bounded_by_its_file() -> None:
    """New offsets are refused before the file would be too large to be read again; known ones still move."""
    table = ConsumerOffsetTable({"T@G": {0: 1}}, file_size_bytes_max=200)
    table.commit("T", "G", 1, 2**63 - 1)
    table.commit("T", "H", 0, 2**63 - 1)
    table.commit("T", "H", 1, 2**63 - 1)
    with pytest.raises(SystemBusy, match="holds 164 bytes, the limit is 200"):
        table.commit("U", "G", 0, 1)
    table.commit("T", "H", 2, 1)
    with pytest.raises(SystemBusy):
        table.commit("T", "H", 3, 1)
    table.commit("T", "G", 0, 9)
    assert table.query("T", "G", 0) == 9
    assert table.query("U", "G", 0) is None


def test_the_bound_is_counted_in_bytes_of_the_file() -> None:
    """With the longest names and largest numbers the text is no larger than what is counted."""
    table = ConsumerOffsetTable()
    for number in range(50):
        topic, group = f"%RETRY%{number}".ljust(255, "t"), str(number).ljust(120, "g")
        for queue_id in (16_383 - number, 2**31 - 1):
            table.commit(topic, group, queue_id, 2**63 - 1)
    text = ConsumerOffsetSerializeWrapper(offset_table=table.to_table()).encode(pretty=True)
    assert len(text) <= table._file_size_bytes + 1_000
    assert FILE_SIZE_BYTES_MAX + 1_000 < READABLE_SIZE_BYTES_MAX


def test_a_reset_counts_at_once_and_is_told_once() -> None:
    """What a consumer says before it was told is not heard; other queues are not concerned."""
    table = ConsumerOffsetTable({"T@G": {0: 9, 1: 9}})
    table.reset("T", "G", 0, 3)
    table.commit_told("T", "G", 0, 10)
    table.commit_told("T", "G", 1, 10)
    assert [table.query("T", "G", 0), table.query("T", "G", 1)] == [3, 10]
    assert table.changed == {("T", "G", 0), ("T", "G", 1)}
    assert table.take_reset("T", "G", 1) is None
    assert table.take_reset("T", "G", 0) == 3
    assert table.take_reset("T", "G", 0) is None
    table.commit_told("T", "G", 0, 4)
    assert table.query("T", "G", 0) == 4


def test_the_last_reset_counts() -> None:
    """Also when it is to where the group stands."""
    table = ConsumerOffsetTable({"T@G": {0: 9}})
    table.reset("T", "G", 0, 3)
    table.reset("T", "G", 0, 3)
    table.reset("T", "G", 0, 9)
    assert table.take_reset("T", "G", 0) == 9
    assert table.query("T", "G", 0) == 9
