"""Topics and groups: what is made when, and what is refused."""

from collections.abc import Callable

import pytest
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import PLANNED, Topic, TopicTable
from apogeemq.broker.errors import InvalidParameter, SubscriptionGroupNotExist, SystemBusy, TopicNotExist
from apogeemq.remoting_codec.bodies import DataVersion, TopicConfig


def topics(*, auto_create: bool = True, topics_max: int = 100) -> TopicTable:
    table = TopicTable(now_ms=lambda: 1000, auto_create=auto_create, default_queue_nums=8, topics_max=topics_max)
    table.ensure_built_in("C", "b", 18)
    return table


@pytest.mark.parametrize(("asked", "made"), [(4, 4), (8, 8), (99, 8), (0, 1), (-3, 1)])
def test_a_send_makes_its_topic_from_the_template(asked: int, made: int) -> None:
    """As many queues as asked, never more than TBW102 has; readable and writable, without INHERIT."""
    topic = topics().create_for_send("T", "TBW102", asked)
    assert (topic.config.read_queue_nums, topic.config.write_queue_nums, topic.config.perm) == (made, made, 6)


def test_no_topic_without_a_template_that_may_be_inherited() -> None:
    """An unknown template, one without INHERIT, or no template at all (auto creation off): 17."""
    for table, template in (
        (topics(), "Unknown"),
        (topics(), "SELF_TEST_TOPIC"),
        (topics(auto_create=False), "TBW102"),
    ):
        with pytest.raises(TopicNotExist, match=r"topic\[T\] not exist, apply first please!"):
            table.create_for_send("T", template, 4)


def test_illegal_names_are_refused() -> None:
    """A name with other characters, or too long, is never made."""
    with pytest.raises(InvalidParameter, match="illegal characters"):
        topics().create_for_send("a b", "TBW102", 4)
    with pytest.raises(InvalidParameter, match="longer than topic max length 255"):
        topics().create_for_group("%RETRY%" + "g" * 250, 1)


def test_a_groups_topic_is_made_once() -> None:
    """The retry topic stays what it is."""
    table = topics()
    made = table.create_for_group("%RETRY%G", 1)
    assert table.create_for_group("%RETRY%G", 5) is made


def test_a_planned_topic_is_made_when_it_is_kept() -> None:
    """Until then it is nowhere; what somebody made meanwhile stays; a topic of the table is kept already."""
    table = topics()
    before = table.version
    plans: tuple[Callable[[], Topic], ...] = (
        lambda: table.plan_for_send("T", "TBW102", 4),
        lambda: table.plan_for_group("%RETRY%G", 2),
    )
    for plan in plans:
        first, second = plan(), plan()
        assert (table.get(first.name), table.version, first.version) == (None, before, PLANNED)
        made = table.keep(first)
        assert (table.get(first.name), made.config, made.version) == (made, first.config, before + 1)
        assert table.keep(second) is made
        assert table.keep(made) is made
        assert table.version == before + 1, "nothing changed by the second one"
        before = table.version


def test_built_in_topics_are_apaches() -> None:
    """Names and queue numbers as in reference broker_behaviour.md §1, for what this version has."""
    table = topics()
    sizes = {topic.name: topic.config.write_queue_nums for topic in table}
    assert sizes == {
        "SELF_TEST_TOPIC": 1,
        "TBW102": 8,
        "BenchmarkTest": 1024,
        "C": 16,
        "b": 1,
        "OFFSET_MOVED_EVENT": 1,
        "SCHEDULE_TOPIC_XXXX": 18,
        "rmq_sys_wheel_timer": 1,
        "RMQ_SYS_TRACE_TOPIC": 1,
        "C_REPLY_TOPIC": 1,
        "RMQ_SYS_TRANS_HALF_TOPIC": 1,
        "RMQ_SYS_TRANS_OP_HALF_TOPIC": 1,
        "rmq_sys_REVIVE_LOG_C": 8,
    }


def test_every_change_moves_the_versions_and_tells() -> None:
    """The DataVersion counts, listeners hear of the changed topics, a new configuration keeps the counters."""
    table = topics()
    heard: list[list[Topic]] = []
    table.on_change(heard.append)
    before = table.data_version
    topic = table.put(TopicConfig(topic_name="T"))
    topic.messages_in = 5
    assert table.put(TopicConfig(topic_name="T", perm=4)) is topic
    assert topic.messages_in == 5
    assert table.data_version == DataVersion(state_version=0, timestamp=1000, counter=before.counter + 2)
    assert [[t.name for t in changed] for changed in heard] == [["T"], ["T"]]
    assert topic.version == table.version > table.saved_version
    table.saved(table.version)
    assert topic.version <= table.saved_version


def test_the_number_of_topics_is_bounded() -> None:
    """One more is refused with the limit; changing an existing one is not."""
    table = topics(topics_max=14)
    table.put(TopicConfig(topic_name="T"))
    table.put(TopicConfig(topic_name="T", perm=4))
    with pytest.raises(SystemBusy, match=r"already has 14 topics, its limit \(limits.topics_max\) is 14"):
        table.put(TopicConfig(topic_name="U"))


def test_a_topic_shows_itself_as_apache_does() -> None:
    """The form in remarks, as recorded from 5.3.3 (vectors, send_v2)."""
    config = TopicConfig(
        topic_name="TapNormal", read_queue_nums=2, write_queue_nums=2, attributes={"message.type": "NORMAL"}
    )
    assert str(Topic(config, 0)) == (
        "TopicConfig [topicName=TapNormal, readQueueNums=2, writeQueueNums=2, perm=RW-, "
        "topicFilterType=SINGLE_TAG, topicSysFlag=0, order=false, attributes={message.type=NORMAL}]"
    )


def test_groups_are_made_by_use_when_allowed() -> None:
    """Made with Apache's defaults; 26 when creation is off; bounded; names checked."""
    groups = SubscriptionGroupTable(now_ms=lambda: 1, auto_create=True, groups_max=1)
    group = groups.find_or_create("G")
    assert (group.retry_max_times, group.retry_queue_nums, group.consume_enable) == (16, 1, True)
    assert groups.find_or_create("G") is group
    with pytest.raises(SystemBusy, match="its limit"):
        groups.find_or_create("H")
    with pytest.raises(InvalidParameter, match="illegal characters"):
        groups.find_or_create("a b")
    closed = SubscriptionGroupTable(now_ms=lambda: 1, auto_create=False)
    with pytest.raises(SubscriptionGroupNotExist, match=r"subscription group \[G\] does not exist"):
        closed.find_or_create("G")
    closed.ensure_predefined()
    assert closed.get("TOOLS_CONSUMER") is not None
