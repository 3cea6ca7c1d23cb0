"""Who is connected: heartbeats, leaving, silence, closed channels, bounds."""

import pytest
from apogeemq.broker.core import clients
from apogeemq.broker.core.clients import ClientTable
from apogeemq.broker.errors import SystemBusy
from apogeemq.remoting_codec.bodies import (
    ConsumeFromWhere,
    ConsumerData,
    ConsumeType,
    HeartbeatData,
    MessageModel,
    ProducerData,
    SubscriptionData,
)


def consumer(group: str, **topics: int) -> ConsumerData:
    """A consumer of a group that subscribes to topics, each with its version."""
    return ConsumerData(
        group_name=group,
        consume_type=ConsumeType.CONSUME_PASSIVELY,
        message_model=MessageModel.CLUSTERING,
        consume_from_where=ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET,
        subscription_data_set=[SubscriptionData(topic=t, sub_version=v) for t, v in topics.items()],
    )


def beat(
    client_id: str, *consumers: ConsumerData, producers: tuple[str, ...] = (), fingerprint: int = 0
) -> HeartbeatData:
    return HeartbeatData(
        client_id=client_id,
        consumer_data_set=list(consumers),
        producer_data_set=[ProducerData(group_name=name) for name in producers],
        heartbeat_fingerprint=fingerprint,
    )


def take(table: ClientTable[str], heartbeat: HeartbeatData, channel: str = "ch", now: float = 0.0) -> list[str]:
    return table.heartbeat(heartbeat, channel, now, "JAVA", 479)


def test_joining_changes_the_group_and_beating_on_does_not() -> None:
    """The first beat of a member changes its group; the same beat again does not."""
    table: ClientTable[str] = ClientTable()
    assert take(table, beat("c1", consumer("G", T=1))) == ["G"]
    assert take(table, beat("c1", consumer("G", T=1))) == []
    assert take(table, beat("c2", consumer("G", T=1)), "ch2") == ["G"]
    group = table.consumer_group("G")
    assert group is not None
    assert group.client_ids() == ["c1", "c2"]


def test_a_member_that_comes_back_over_another_channel_changes_the_group() -> None:
    """Notices must go to the new channel, and members divide anew."""
    table: ClientTable[str] = ClientTable()
    take(table, beat("c1", consumer("G", T=1)), "old")
    assert take(table, beat("c1", consumer("G", T=1)), "new") == ["G"]
    assert table.channel_closed("old") == []
    group = table.consumer_group("G")
    assert group is not None
    assert group.members["c1"].channel == "new"


def test_subscriptions_follow_the_newest_version() -> None:
    """A newer version replaces, an older one does not; topics that are no longer told disappear."""
    table: ClientTable[str] = ClientTable()
    take(table, beat("c1", consumer("G", T=5)))
    take(table, beat("c1", consumer("G", T=4)))
    group = table.consumer_group("G")
    assert group is not None
    assert group.subscriptions["T"].sub_version == 5
    assert take(table, beat("c1", consumer("G", T=6, U=6))) == ["G"]
    assert set(group.subscriptions) == {"T", "U"}
    assert take(table, beat("c1", consumer("G", U=6))) == ["G"]
    assert set(group.subscriptions) == {"U"}


def test_leaving() -> None:
    """A client leaves the groups that it names; an empty group is gone; leaving twice changes nothing."""
    table: ClientTable[str] = ClientTable()
    take(table, beat("c1", consumer("G", T=1), producers=("P",)))
    assert table.unregister("c1", None, "G") == ["G"]
    assert table.consumer_group("G") is None
    assert table.unregister("c1", None, "G") == []
    assert "P" in table.producer_groups
    assert table.unregister("c1", "P", None) == []
    assert table.producer_groups == {}


def test_a_closed_channel_takes_all_its_clients_along() -> None:
    """Producers and consumers of the channel leave, others stay."""
    table: ClientTable[str] = ClientTable()
    take(table, beat("c1", consumer("G", T=1), consumer("H", T=1), producers=("P",)), "x")
    take(table, beat("c2", consumer("G", T=1)), "y")
    assert sorted(table.channel_closed("x")) == ["G", "H"]
    assert table.producer_groups == {}
    assert list(table.consumer_groups) == ["G"]


def test_the_silent_are_dropped() -> None:
    """Who was not heard of for longer than the timeout leaves, and its channel is named."""
    table: ClientTable[str] = ClientTable(client_timeout_s=120)
    take(table, beat("old", consumer("G", T=1), producers=("P",)), "x", now=0)
    take(table, beat("young", consumer("G", T=1)), "y", now=100)
    assert table.expire(120) == ([], set())
    assert table.expire(121) == (["G"], {"x"})
    group = table.consumer_group("G")
    assert group is not None
    assert group.client_ids() == ["young"]


def test_a_light_beat_renews_whom_it_knows() -> None:
    """A beat without subscriptions counts only under the fingerprint told before, over the same channel."""
    table: ClientTable[str] = ClientTable(client_timeout_s=120)
    take(table, beat("c", consumer("G", T=1), fingerprint=7), "x", now=0)
    assert table.knows_fingerprint("c", "x", 7)
    assert not table.knows_fingerprint("c", "x", 8)
    assert not table.knows_fingerprint("c", "y", 7)
    table.renew("c", "x", 100)
    assert table.expire(200) == ([], set())
    table.channel_closed("x")
    assert not table.knows_fingerprint("c", "x", 7)


def test_bounds_refuse_the_whole_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many groups, subscriptions or members: refused with the limit, nothing changed."""
    monkeypatch.setattr(clients, "GROUPS_PER_HEARTBEAT_MAX", 2)
    monkeypatch.setattr(clients, "SUBSCRIPTIONS_PER_GROUP_MAX", 2)
    monkeypatch.setattr(clients, "MEMBERS_PER_GROUP_MAX", 1)
    table: ClientTable[str] = ClientTable()
    with pytest.raises(SystemBusy, match="3 groups, the limit is 2"):
        take(table, beat("c", producers=("A", "B", "C")))
    with pytest.raises(SystemBusy, match="3 topics, the limit is 2"):
        take(table, beat("c", consumer("G", T=1, U=1, V=1)))
    assert table.consumer_groups == {}
    assert table.producer_groups == {}
    take(table, beat("c1", consumer("G", T=1)))
    with pytest.raises(SystemBusy, match="1 members, its limit"):
        take(table, beat("c2", consumer("G", T=1)))
    take(table, beat("c1", consumer("G", T=1)))


def test_memberships_of_a_channel_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients and groups are told over one connection; those that are known already may beat on."""
    monkeypatch.setattr(clients, "MEMBERSHIPS_PER_CHANNEL_MAX", 3)
    table: ClientTable[str] = ClientTable()
    take(table, beat("c1", consumer("G", T=1), producers=("P", "Q")))
    with pytest.raises(SystemBusy, match="4 memberships over one connection, the limit is 3"):
        take(table, beat("c2", producers=("P",)))
    assert list(table.producer_groups["P"]) == ["c1"]
    take(table, beat("c1", consumer("G", T=1), producers=("P", "Q")))
    take(table, beat("c2", producers=("P",)), "another")
    table.unregister("c1", "Q", None)
    take(table, beat("c2", producers=("R",)))


def test_fingerprints_of_a_channel_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats without any group are remembered for their fingerprints only, and not without end."""
    monkeypatch.setattr(clients, "MEMBERSHIPS_PER_CHANNEL_MAX", 2)
    table: ClientTable[str] = ClientTable()
    for client_id in ("c1", "c2", "c1"):
        take(table, beat(client_id, fingerprint=7))
    with pytest.raises(SystemBusy, match="3 memberships over one connection"):
        take(table, beat("c3", fingerprint=7))
    assert not table.knows_fingerprint("c3", "ch", 7)


def test_a_member_that_moved_is_not_renewed_over_its_old_channel() -> None:
    """What comes over a channel counts for who is on it now."""
    table: ClientTable[str] = ClientTable(client_timeout_s=120)
    take(table, beat("c", consumer("G", T=1)), "old", now=0)
    take(table, beat("c", consumer("G", T=1)), "new", now=0)
    table.renew("c", "old", 100)
    table.renew("c", "unheard of", 100)
    assert table.expire(121) == (["G"], {"new"})


def test_what_happens_to_one_channel_costs_by_its_own_members() -> None:
    """Ten thousand others are not looked at when one closes or beats (they would hold the event loop each time)."""
    table: ClientTable[str] = ClientTable()
    for number in range(10_000):
        take(table, beat(f"c{number}", consumer("G", T=1)), f"ch{number}")

    class Untouchable(dict[str, object]):
        def values(self) -> object:  # type: ignore[override]  # nobody may ask
            raise AssertionError("all members were looked at")

        items = __iter__ = values  # type: ignore[assignment]  # nor in these ways

    group = table.consumer_groups["G"]
    group.members = Untouchable(group.members)  # type: ignore[assignment]  # see above
    table.renew("c5", "ch5", 1)
    assert table.channel_closed("ch7") == ["G"]
    assert len(group.members) == 9_999


def test_a_producer_is_found_by_its_id() -> None:
    """Over the channel of the group that it joined last; not when it left all of them, and never a consumer."""
    table: ClientTable[str] = ClientTable()
    take(table, beat("p1", consumer("G", T=1), producers=("A", "B")), "ch1")
    take(table, beat("p1", producers=("C",)), "ch2")
    take(table, beat("c1", consumer("G", T=1)), "ch3")
    assert [table.producer("c1"), table.producer("nobody")] == [None, None]

    def channel() -> str | None:
        producer = table.producer("p1")
        return None if producer is None else producer.channel

    assert channel() == "ch2"
    table.unregister("p1", "C", None)
    assert channel() == "ch1"
    table.unregister("p1", "B", None)
    assert channel() == "ch1"
    table.channel_closed("ch1")
    assert channel() is None
