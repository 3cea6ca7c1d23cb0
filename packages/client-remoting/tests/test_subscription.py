"""Subscriptions: every message, those of some tags, or SQL."""

import pytest
from apogeemq.client_api.errors import NotSupported
from apogeemq.client_api.filters import Sql
from apogeemq.client_remoting.core.subscription import Subscription, parse_subscription


@pytest.mark.parametrize("expression", ["*", "", " * ", "||"])
def test_every_message(expression: str) -> None:
    """Also of no tag."""
    subscription = parse_subscription("t", expression)
    assert subscription == Subscription("t", "*", ())
    assert subscription.wants(None)
    assert subscription.wants("a")


def test_some_tags() -> None:
    """Trimmed, each once; the hashes are Java's ("Aa" and "BB" are its famous collision)."""
    subscription = parse_subscription("t", "Aa||BB ||  Aa")
    assert subscription == Subscription("t", "Aa || BB", ("Aa", "BB"))
    assert subscription.codes == [2112, 2112]
    assert subscription.wants("BB")
    assert not subscription.wants("C#")  # hashes to 2112 as well, so the broker lets it through
    assert not subscription.wants(None)


def test_sql_in_a_plain_text_is_told_so() -> None:
    """Rather than taken for a tag."""
    with pytest.raises(NotSupported, match="Sql"):
        parse_subscription("t", "a > 5")


def test_sql() -> None:
    """Goes to the broker as it was written; the client lets every message through that the broker sends."""
    subscription = parse_subscription("t", Sql("a > 5 || b"))
    assert subscription == Subscription("t", "a > 5 || b", (), "SQL92")
    assert subscription.codes == []
    assert subscription.wants(None)
