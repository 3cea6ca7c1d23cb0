"""Where a queue without a committed offset is begun."""

from datetime import UTC, datetime

import pytest
from apogeemq.client_remoting.core.offsets import Boundary, Start, StartOffset, check_start, start_offset

MOMENT = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("latest", StartOffset(Boundary.MAX)),
        ("earliest", StartOffset(Boundary.MIN)),
        (MOMENT, StartOffset(Boundary.BY_TIME, 1_795_305_600_000)),
        (1_795_305_600_000, StartOffset(Boundary.BY_TIME, 1_795_305_600_000)),
    ],
)
def test_start_decides(start: Start, expected: StartOffset) -> None:
    """Exactly as it says, on queues that were there when the consumer started."""
    assert start_offset(start, is_retry_topic=False, appeared_later=False) == expected


@pytest.mark.parametrize("start", ["latest", MOMENT])
def test_what_appears_later_is_read_from_its_begin(start: Start) -> None:
    """As is the group's retry topic."""
    assert start_offset(start, is_retry_topic=False, appeared_later=True) == StartOffset(Boundary.MIN)
    assert start_offset(start, is_retry_topic=True, appeared_later=False) == StartOffset(Boundary.MIN)


@pytest.mark.parametrize(
    ("start", "word"),
    [
        ("newest", "start is 'newest'"),
        (datetime(2026, 1, 1), "without a zone"),  # noqa: DTZ001 — a naive one is what is refused
        (-1, "before 1970"),
        (True, "start is True"),
    ],
)
def test_no_start_at_all(start: Start, word: str) -> None:
    """A word that is none, a datetime without a zone, a time before all times."""
    with pytest.raises(ValueError, match=word):
        check_start(start)
