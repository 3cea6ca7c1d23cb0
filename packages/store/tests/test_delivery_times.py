"""The tags code that a unit gets when no broker says it."""

import pytest
from apogeemq.store.delivery_times import tags_code_rule

TAG_A = 2_598_919
"""Java's "TagA".hashCode()."""


@pytest.mark.parametrize(
    ("topic", "properties", "expected"),
    [
        ("T", b"TAGS\1TagA\2DELAY\x013\2", TAG_A),
        ("T", b"", 0),
        ("SCHEDULE_TOPIC_XXXX", b"TAGS\1TagA\2DELAY\x013\2", 1_000_000 + 10_000),
        ("SCHEDULE_TOPIC_XXXX", b"DELAY\x0118\2", 1_000_000 + 2 * 3_600_000),
        ("SCHEDULE_TOPIC_XXXX", b"DELAY\x0199\2", 1_000_000 + 2 * 3_600_000),
        ("SCHEDULE_TOPIC_XXXX", b"TAGS\1TagA\2", TAG_A),
        ("SCHEDULE_TOPIC_XXXX", b"DELAY\x013\2APOGEEMQ_DUE_MS\x01999999\2", 999_999),
        ("SCHEDULE_TOPIC_XXXX", b"DELAY\x013\2APOGEEMQ_DUE_MS\x01soon\2", 1_000_000 + 10_000),
        ("SCHEDULE_TOPIC_XXXX", b"TAGS\1TagA\2DELAY\1" + b"9" * 5_000 + b"\2", TAG_A),
        ("T", b"APOGEEMQ_DUE_MS\x01999999\2", 0),
    ],
)
def test_rule(topic: str, properties: bytes, expected: int) -> None:
    """The tag's hash; in the schedule topic the time at which the level's delay is over, or the record's own time."""
    assert tags_code_rule()(topic, properties, 1_000_000) == expected


def test_levels_of_ones_own() -> None:
    """As messageDelayLevel names them; anything else is refused."""
    rule = tags_code_rule("2s 1d")
    assert rule("SCHEDULE_TOPIC_XXXX", b"DELAY\x012\2", 0) == 86_400_000
    for text in ("", "1", "1s x"):
        with pytest.raises(ValueError, match="delay level"):
            tags_code_rule(text)
