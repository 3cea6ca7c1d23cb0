"""Names of topics and groups."""

import pytest
from apogeemq.broker.core.names import illegal_group_reason, illegal_topic_reason, is_system_topic


@pytest.mark.parametrize("name", ["T", "a-b_c|d%e", "x" * 127, "%RETRY%" + "g" * 200, "%DLQ%" + "g" * 250])
def test_legal_topics(name: str) -> None:
    """Letters, digits and four signs, to 127 characters; retry and DLQ topics to 255."""
    assert illegal_topic_reason(name) is None


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "x" * 128, "%RETRY%" + "g" * 249, "a\n"])
def test_illegal_topics(name: str) -> None:
    """Anything else is refused with a reason."""
    assert illegal_topic_reason(name)


def test_groups() -> None:
    """Groups follow the same letters, to 120 characters."""
    assert illegal_group_reason("G" * 120) is None
    assert illegal_group_reason("G" * 121)
    assert illegal_group_reason("")
    assert illegal_group_reason("a/b")


def test_system_topics() -> None:
    """Fixed names, the rmq_sys_ prefix, and the names of cluster and broker."""
    assert is_system_topic("SCHEDULE_TOPIC_XXXX")
    assert is_system_topic("rmq_sys_anything")
    assert is_system_topic("DefaultCluster", frozenset({"DefaultCluster"}))
    assert not is_system_topic("DefaultCluster")
