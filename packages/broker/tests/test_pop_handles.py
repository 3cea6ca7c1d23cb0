"""Receipt handles and names of retry topics, as Apache's clients and brokers write them."""

import pytest
from apogeemq.broker.core.pop import (
    PopHandle,
    RetryMark,
    format_receipt_handle,
    parse_receipt_handle,
    pop_retry_topic,
)
from apogeemq.broker.errors import InvalidParameter

RECORDED = "0 1795356284062 20000 0 0 broker-t 1 1"


def test_the_recorded_handle_reads_and_writes() -> None:
    """What a 5.3.3 client sent (vectors, pop)."""
    handle = parse_receipt_handle(RECORDED)
    assert handle == PopHandle(RetryMark.NORMAL, 1, 1, 0, 1795356284062, 20_000, 0)
    assert format_receipt_handle(handle, "broker-t") == RECORDED


def test_a_proxy_appends_the_commit_log_offset() -> None:
    """A ninth field, which the broker does not need (trap 24)."""
    assert parse_receipt_handle(RECORDED + " 5397") == parse_receipt_handle(RECORDED)


@pytest.mark.parametrize(
    "text",
    ["", "x", "0 1 2 3 0 b 1", "0 1 2 3 0 b 1 x", "-1 1 2 3 0 b 1 1", RECORDED + " 1 2", "9" * 20 + RECORDED[1:]],
)
def test_handles_that_are_none_are_refused(text: str) -> None:
    """Too few or many fields, or no numbers."""
    with pytest.raises(InvalidParameter, match="extraInfo"):
        parse_receipt_handle(text)


@pytest.mark.parametrize(
    ("topic", "mark", "expected"),
    [
        ("T", RetryMark.NORMAL, "T"),
        ("T", RetryMark.V1, "%RETRY%G_T"),
        ("T", RetryMark.V2, "%RETRY%G+T"),
        ("%RETRY%G", RetryMark.V1, "%RETRY%G"),
    ],
)
def test_retry_topics_have_apaches_names(topic: str, mark: RetryMark, expected: str) -> None:
    """Reference broker_behaviour.md §2; a retry topic has none of its own."""
    assert pop_retry_topic("G", topic, mark) == expected
