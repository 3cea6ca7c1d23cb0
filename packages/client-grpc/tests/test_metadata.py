"""Headers and ids, as the public API wants them."""

import re

import pytest
from apogeemq.client_grpc.core.metadata import Headers, MessageIds, client_id, date_time

NOW_MS = 1_795_374_307_123  # 2026-11-22T19:05:07.123Z


def test_every_call_says_who_asks() -> None:
    """Language and protocol are words that servers check; the trace goes along where there is one."""
    headers = Headers("id", "0.1.0")
    assert headers.of_call(request_id="r", now_ms=NOW_MS) == [
        ("x-mq-client-id", "id"),
        ("x-mq-language", "PYTHON"),
        ("x-mq-client-version", "0.1.0"),
        ("x-mq-protocol", "v2"),
        ("x-mq-request-id", "r"),
        ("x-mq-date-time", "20261122T190507Z"),
    ]
    assert headers.of_call(request_id="r", now_ms=NOW_MS, traceparent="00-1-2-01")[-1] == ("traceparent", "00-1-2-01")


def test_the_date_is_in_utc() -> None:
    """Seconds are cut off, not rounded."""
    assert date_time(0) == "19700101T000000Z"
    assert date_time(999) == "19700101T000000Z"


@pytest.mark.parametrize(
    ("hostname", "expected"),
    [
        ("box-1.example", "box-1.example@7@0@00000000000000ff"),
        ("Büro PC@home", "B-ro-PC-home@7@0@00000000000000ff"),
        ("", "localhost@7@0@00000000000000ff"),
    ],
)
def test_a_client_id_fits_into_a_header(hostname: str, expected: str) -> None:
    """host@pid@index@random, whatever the host is called."""
    assert client_id(hostname, 7, 0, 255) == expected
    assert client_id("x" * 1000, 7, 0, 255) == f"{'x' * 100}@7@0@00000000000000ff"


def test_message_ids_have_the_apis_layout() -> None:
    """Version 01, origin, process id, seconds since 2021, sequence: 34 digits, no two alike."""
    ids = MessageIds(origin=0xABCDEF, pid=0x12345, now_ms=1_609_459_200_000 + 16_000)
    first, second = ids.next(), ids.next()
    assert first == "01" + "000000ABCDEF" + "2345" + "00000010" + "00000001"
    assert second[:-1] == first[:-1]
    assert second[-1] == "2"
    assert re.fullmatch(r"[0-9A-F]{34}", first)
