"""Tag expressions."""

import pytest
from apogeemq.broker.errors import SubscriptionParseFailed
from apogeemq.broker.filter.tags import tag_codes


@pytest.mark.parametrize("expression", [None, "", "*"])
def test_everything(expression: str | None) -> None:
    """No expression, the empty one and the star let everything through."""
    assert tag_codes(expression) is None


def test_tags_become_hash_codes() -> None:
    """TagA and TagB have the codes that a real 5.3.3 client put into its heartbeat (vectors, heartbeat)."""
    assert tag_codes("TagA || TagB") == frozenset({2598919, 2598920})
    assert tag_codes(" TagA ||") == frozenset({2598919})


def test_no_tag_at_all_is_refused() -> None:
    """An expression of separators only can't be meant."""
    with pytest.raises(SubscriptionParseFailed, match="names no tag"):
        tag_codes("||")


def test_bounds() -> None:
    """Too many tags, or a text too long, is refused with the limit."""
    with pytest.raises(SubscriptionParseFailed, match="the limit is 1000"):
        tag_codes("||".join(f"t{n}" for n in range(1001)))
    with pytest.raises(SubscriptionParseFailed, match="the limit is 65536"):
        tag_codes("x" * 65537)
