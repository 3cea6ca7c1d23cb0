"""Ids that the broker gives."""

import pytest
from apogeemq.broker.core.message_ids import MessageIds
from apogeemq.remoting_codec.message_id import (
    decode_unique_key,
    encode_offset_message_id,
    month_start_of,
    unique_key_created_ms,
)
from apogeemq.remoting_codec.record import encode_host
from hypothesis import given
from hypothesis import strategies as st

NOV_2026_MS = 1_795_356_276_399
HOST_4 = encode_host("127.0.0.2", 20911)
HOST_6 = encode_host("fd00::2", 20911)


def ids(host: bytes = HOST_4, *, now_ms: list[int] | None = None) -> MessageIds:
    time = now_ms or [NOV_2026_MS]
    return MessageIds(store_host=host, process_id=0x1234, instance_hash=0xAABBCCDD, now_ms=lambda: time[0])


def test_an_offset_message_id_is_apaches() -> None:
    """As recorded from a broker at 127.0.0.2:20911 (vectors, send_v2)."""
    assert ids().offset_message_id(0x1D8) == "7F000002000051AF00000000000001D8"


@given(st.integers(0, 2**63 - 1), st.sampled_from([HOST_4, HOST_6]))
def test_it_equals_the_codecs(physical_offset: int, host: bytes) -> None:
    """The short way gives what the plain one does, for both kinds of addresses."""
    assert ids(host).offset_message_id(physical_offset) == encode_offset_message_id(host, physical_offset)


@pytest.mark.parametrize(("host", "digits"), [(HOST_4, 32), (HOST_6, 56)])
def test_a_unique_key_can_be_read_back(host: bytes, digits: int) -> None:
    """Clients find address, process and time in it (trap 12)."""
    key = ids(host).unique_key()
    assert len(key) == digits
    read = decode_unique_key(key)
    assert (read.address, read.process_id, read.instance_hash) == (host[:-4], 0x1234, 0xAABBCCDD)
    assert unique_key_created_ms(read, NOV_2026_MS) == NOV_2026_MS


def test_keys_differ() -> None:
    """Within one millisecond too."""
    made = ids()
    assert len({made.unique_key() for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize("step_ms", [-40 * 86_400_000, -1, 0, 29_999, 30_000, 59_999, 60_000, 40 * 86_400_000])
def test_the_time_stays_right_when_the_clock_moves(step_ms: int) -> None:
    """Over the end of a month, which is 30 s away, and back by weeks: the month that was kept does no harm."""
    now = [month_start_of(NOV_2026_MS + 10 * 86_400_000) - 30_000]
    made = ids(now_ms=now)
    made.unique_key()
    now[0] += step_ms
    assert unique_key_created_ms(decode_unique_key(made.unique_key()), now[0]) == now[0]
