"""Tag expressions."""

import pytest
from apogeemq.broker.errors import SubscriptionParseFailed
from apogeemq.broker.filter import tags
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
    assert tag_codes("x" * 65536) is not None
    assert tag_codes("||".join(f"t{n}" for n in range(1000))) is not None


def test_long_expressions_mean_the_same_and_are_not_kept() -> None:
    """Clients may send a different one with each pull."""
    before = tags._cached_codes.cache_info().currsize
    for number in range(10):
        expression = "||".join(f"tag-{number}-{index}" for index in range(100))
        codes = tag_codes(expression)
        assert codes is not None
        assert len(codes) == 100
    assert tags._cached_codes.cache_info().currsize == before
