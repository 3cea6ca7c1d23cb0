"""Single flipped bits in a log that was synced: reported when the store opens, or harmless.

The format has a CRC over the body alone. So a flip elsewhere may change a field of a message (a tag, a timestamp, a
flag) unnoticed; but no body is ever handed out that was not stored, and no message goes missing from its queue without
a word, unless the flip hit what says which queue it belongs to.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.record import decode_records, peek_size_and_magic
from apogeemq.store.errors import RecordCorrupt
from apogeemq.store.memory_disk import MemoryDisk
from apogeemq.store.message_store import AppendResult, MessageStore

QUEUES = [("TopicA", 0), ("TopicA", 1), ("TopicB", 0)]
LOG = Path("/store/commitlog/00000000000000000000")


def bodies(store: MessageStore) -> dict[tuple[str, int], list[bytes]]:
    """All bodies of all queues, without checking CRCs, as a consumer would get them."""
    found = {}
    for queue in store.queues():
        result = store.read(*queue, store.min_offset(*queue), 100, 1 << 20, None, cold_allowed=True)
        found[queue] = [record.body for record in decode_records(b"".join(result.buffers), check_crc=False)]
    return found


@pytest.mark.parametrize("first_seed", range(0, 1000, 250))
def test_flips_are_reported_or_harmless(
    first_seed: int, open_store: Callable[..., MessageStore], send: Callable[..., AppendResult]
) -> None:
    """A thousand stores, one flipped bit each, opened as after a crash."""
    reported = 0
    for seed in range(first_seed, first_seed + 250):
        chance = Random(seed)
        disk = MemoryDisk()
        store = open_store(disk)
        for n in range(30):
            send(store, *QUEUES[n % 3], b"%d:" % n + b"z" * chance.randint(0, 100), b"TAGS\x01TagA\x02")
        expected, end = bodies(store), store.written_offset
        store.close()
        disk.write_file(Path("/store/abort"), b"1")

        at = chance.randrange(end)
        disk.files[LOG].data[at] ^= 1 << chance.randrange(8)
        try:
            again = open_store(disk)
        except RecordCorrupt:
            reported += 1
            continue
        report = again.recovery
        assert report.dropped_bytes == 0, "everything was synced: nothing may be cut off silently"
        found = bodies(again)
        if report.irregular_records:
            reported += 1
        elif found != expected:
            assert is_identity(bytes(disk.files[LOG].data), at), f"seed {seed}: byte {at}"
        known = {body for queue in expected.values() for body in queue}
        assert all(body in known for queue in found.values() for body in queue)
    assert reported > 125


def is_identity(log: bytes, at: int) -> bool:
    """Whether this byte belongs to the queue id, queue offset or topic of its record."""
    start = 0
    while True:
        size_bytes, _ = peek_size_and_magic(log, start)
        if start <= at < start + size_bytes:
            break
        start += size_bytes
    position = at - start
    body_size_bytes = int.from_bytes(log[start + 84 : start + 88], "big")
    topic_at = 88 + body_size_bytes
    return 12 <= position < 16 or 20 <= position < 28 or topic_at < position < topic_at + 7


def test_a_flipped_body_is_found_where_a_check_looks(
    open_store: Callable[..., MessageStore], send: Callable[..., AppendResult]
) -> None:
    """Reads of a store that was closed in good order do not check bodies; decoding with CRC does."""
    disk = MemoryDisk()
    store = open_store(disk)
    result = send(store, body=b"a body")
    store.close()
    disk.files[LOG].data[88] ^= 1
    again = open_store(disk)
    read = again.read("TopicTest", 0, 0, 1, 1000, None, cold_allowed=True)
    assert read.count == 1
    with pytest.raises(CodecError, match="CRC"):
        decode_records(b"".join(read.buffers))
    again.close()

    disk.write_file(Path("/store/abort"), b"1")
    with pytest.raises(RecordCorrupt, match="CRC") as raised:
        open_store(disk)
    assert raised.value.physical_offset == result.physical_offset


@pytest.mark.parametrize("crashed", [False, True])
def test_flips_in_a_consume_queue_give_no_message_that_was_not_stored(
    crashed: bool, open_store: Callable[..., MessageStore], send: Callable[..., AppendResult]
) -> None:
    """A unit points elsewhere: what is read there is a message of this queue in its place, or nothing, or an error."""
    for seed in range(250):
        chance = Random(seed)
        disk = MemoryDisk()
        store = open_store(disk)
        for n in range(30):
            send(store, *QUEUES[n % 3], b"%d:" % n + b"z" * chance.randint(0, 100), b"TAGS\x01TagA\x02")
        expected = bodies(store)
        store.close()
        if crashed:
            disk.write_file(Path("/store/abort"), b"1")
        topic, queue_id = chance.choice(QUEUES)
        units = disk.files[Path("/store/consumequeue") / topic / str(queue_id) / ("0" * 20)].data
        units[chance.randrange(10 * 20)] ^= 1 << chance.randrange(8)
        try:
            found = bodies(open_store(disk))
        except (RecordCorrupt, CodecError):
            continue
        for queue, queue_bodies in found.items():
            assert all(body in expected[queue] for body in queue_bodies), f"seed {seed}"
            assert not crashed or queue_bodies == expected[queue]
