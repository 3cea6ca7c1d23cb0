"""Unique keys: the codec's own, written faster."""

from datetime import UTC, datetime

from apogeemq.client_remoting.core.unique_keys import UniqueKeys
from apogeemq.remoting_codec.message_id import create_unique_key, decode_unique_key, month_start_of

ADDRESS = bytes([10, 0, 0, 7])


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


def keys() -> UniqueKeys:
    return UniqueKeys(
        address=ADDRESS,
        process_id=70_000,
        instance_hash=0xCAFE,
        month_start=lambda now_ms: month_start_of(now_ms, UTC),
    )


def test_the_same_as_the_codecs() -> None:
    """Byte for byte, with the counter going up."""
    made, now_ms = keys(), ms(2026, 11, 22, 19, 5)
    expected = [
        create_unique_key(
            address=ADDRESS,
            process_id=70_000,
            instance_hash=0xCAFE,
            now_ms=now_ms,
            month_start_ms=ms(2026, 11, 1),
            counter=counter,
        )
        for counter in (1, 2)
    ]
    assert [made.next(now_ms), made.next(now_ms)] == expected


def test_a_new_month_begins() -> None:
    """The time in the key counts from its start, also when the clock goes back over it."""
    made = keys()
    for moment, elapsed_ms in [
        (ms(2026, 11, 30, 23, 59, 59), 30 * 86_400_000 - 1000),
        (ms(2026, 12, 1, 0, 0, 1), 1000),
        (ms(2026, 11, 30, 23, 59, 59), 30 * 86_400_000 - 1000),
    ]:
        assert decode_unique_key(made.next(moment)).elapsed_ms == elapsed_ms


def test_the_counter_wraps() -> None:
    """After 65,536 keys."""
    made = keys()
    counters = [decode_unique_key(made.next(ms(2026, 1, 1))).counter for _ in range(65_537)]
    assert sorted(counters[:-1]) == list(range(65_536))
    assert counters[-1] == 1
