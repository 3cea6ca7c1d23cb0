"""Tag expressions: `*`, nothing, or `A || B`.

The broker compares hash codes only (Java's String.hashCode, as the consume queue keeps them); the client compares the
texts again (trap 13). Source: reference broker_behaviour.md §5.
"""

from functools import lru_cache

from apogeemq.broker.errors import SubscriptionParseFailed
from apogeemq.remoting_codec.message import tags_code

EXPRESSION_SIZE_MAX = 64 * 1024
TAGS_MAX = 1_000
_CACHED_SIZE_MAX = 256


def tag_codes(expression: str | None) -> frozenset[int] | None:
    """The hash codes that an expression lets through; None lets everything through.

    Raises SubscriptionParseFailed for an expression without a single tag, or beyond its bounds.
    """
    if expression is None or expression in ("", "*"):
        return None
    # Long ones are rare, and would make the cache large in bytes.
    return _cached_codes(expression) if len(expression) <= _CACHED_SIZE_MAX else _codes(expression)


def _codes(expression: str) -> frozenset[int]:
    if len(expression) > EXPRESSION_SIZE_MAX:
        raise SubscriptionParseFailed(
            f"the tag expression has {len(expression)} characters, the limit is {EXPRESSION_SIZE_MAX}"
        )
    tags = [tag for tag in (part.strip() for part in expression.split("||")) if tag]
    if not tags:
        raise SubscriptionParseFailed(f"the tag expression {expression[:100]!r} names no tag")
    if len(tags) > TAGS_MAX:
        raise SubscriptionParseFailed(f"the tag expression names {len(tags)} tags, the limit is {TAGS_MAX}")
    return frozenset(tags_code(tag) for tag in tags)


_cached_codes = lru_cache(maxsize=4096)(_codes)
