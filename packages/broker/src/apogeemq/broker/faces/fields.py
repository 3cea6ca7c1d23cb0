"""Bounds on the fields of requests. Whatever breaks one is refused with INVALID_PARAMETER (29), which names the field.

What only a table can know (whether a topic exists, how many queues it has) is judged behind this, by the services.
"""

from apogeemq.broker.core.names import illegal_group_reason
from apogeemq.broker.core.topics import QUEUES_PER_TOPIC_MAX
from apogeemq.broker.errors import InvalidParameter

TOPIC_LENGTH_MAX = 255
"""Retry topics may be this long, ordinary ones 127: the topic table sees to that when one is made."""

TEXT_LENGTH_MAX = 255
"""Ids of clients, names of languages and types."""

EXPRESSION_LENGTH_MAX = 4_096
"""A filter expression."""

INT32_MAX = (1 << 31) - 1
INT64_MAX = (1 << 63) - 1


def check_text(field: str, value: str, length_max: int = TEXT_LENGTH_MAX) -> None:
    """Refuse a text that is missing or too long."""
    if not value:
        raise InvalidParameter(f"{field} is empty")
    check_optional_text(field, value, length_max)


def check_optional_text(field: str, value: str, length_max: int = TEXT_LENGTH_MAX) -> None:
    """Refuse a text that is too long."""
    if len(value) > length_max:
        raise InvalidParameter(f"{field} has {len(value)} characters; at most {length_max} are allowed")


def check_topic(field: str, value: str) -> None:
    """Refuse a topic that is missing or too long for any topic."""
    check_text(field, value, TOPIC_LENGTH_MAX)


def check_group(field: str, value: str) -> None:
    """Refuse what can't be the name of a consumer group."""
    reason = illegal_group_reason(value)
    if reason is not None:
        raise InvalidParameter(f"{field}: {reason}")


def check_range(field: str, value: int, low: int, high: int) -> None:
    """Refuse a number outside of low..high, both included."""
    if not low <= value <= high:
        raise InvalidParameter(f"{field} is {value}; it must be within {low}..{high}")


def check_queue_id(field: str, value: int) -> None:
    """Refuse what is no topic's queue."""
    check_range(field, value, 0, QUEUES_PER_TOPIC_MAX - 1)


def check_count(field: str, count: int, low: int, high: int) -> None:
    """Refuse a list with too few or too many entries."""
    if not low <= count <= high:
        raise InvalidParameter(f"{field} has {count} entries; it must have {low} to {high}")
