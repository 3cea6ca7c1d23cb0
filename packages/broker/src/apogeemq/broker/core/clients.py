"""Who is connected: producers and consumers by group, with what they subscribe to.

A client says so in heartbeats, every 30 s. It leaves by word (UNREGISTER_CLIENT), when its channel closes, or when it
was silent for `client_timeout_s` (120 s). Whenever members or subscriptions of a consumer group change, every member is
to be told, so that they divide the queues anew; the methods give the names of the groups concerned.
Source: reference broker_behaviour.md §7.

Bounds: groups a heartbeat, subscriptions a group, members a consumer group, memberships a channel; a heartbeat beyond
one is refused whole. What happens to one channel costs by its own memberships, however many others there are.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from apogeemq.broker.core.told_subscriptions import ToldSubscriptions
from apogeemq.broker.errors import SystemBusy
from apogeemq.remoting_codec.bodies import ConsumerData, HeartbeatData, SubscriptionData

C = TypeVar("C", bound=Hashable)

GROUPS_PER_HEARTBEAT_MAX = 1_000
SUBSCRIPTIONS_PER_GROUP_MAX = 10_000
MEMBERS_PER_GROUP_MAX = 20_000
MEMBERSHIPS_PER_CHANNEL_MAX = 10_000
"""A client is one member in each of its groups. Several clients may share a channel; proxies do that."""


@dataclass(slots=True)
class Member(Generic[C]):
    """A live member of a group: the channel it talks over, and when it was heard of last (monotonic seconds)."""

    client_id: str
    channel: C
    last_seen: float
    language: str = "OTHER"
    version: int = 0


@dataclass(slots=True)
class ConsumerGroup(Generic[C]):
    """A consumer group with live members.

    `subscriptions` are the newest told, by topic: what the group is served by. `told` is what each member said.
    """

    name: str
    members: dict[str, Member[C]] = field(default_factory=dict)
    subscriptions: dict[str, SubscriptionData] = field(default_factory=dict)
    consume_type: str = ""
    message_model: str = ""
    consume_from_where: str = ""
    told: ToldSubscriptions = field(init=False)

    def __post_init__(self) -> None:
        """Nobody has told anything yet."""
        self.told = ToldSubscriptions(self.name)

    def client_ids(self) -> list[str]:
        """Ids of the live members."""
        return list(self.members)


@dataclass(slots=True, frozen=True)
class _Membership:
    is_consumer: bool
    group: str
    client_id: str


@dataclass(slots=True)
class _Channel:
    """What came over one channel: whose member is on it (a set in the order of joining), and fingerprints by client."""

    memberships: dict[_Membership, None] = field(default_factory=dict)
    fingerprints: dict[str, int] = field(default_factory=dict)


class ClientTable(Generic[C]):
    """Producer and consumer groups with live members; C is whatever stands for a connection."""

    def __init__(self, *, client_timeout_s: float = 120.0) -> None:
        self.client_timeout_s = client_timeout_s
        self.consumer_groups: dict[str, ConsumerGroup[C]] = {}
        self.producer_groups: dict[str, dict[str, Member[C]]] = {}
        self._channels: dict[C, _Channel] = {}
        self._produces_in: dict[str, dict[str, None]] = {}
        """Client id → its producer groups, in the order of joining."""

    def producer(self, client_id: str) -> Member[C] | None:
        """A live producer, whatever its groups: the one that it joined last says over which channel it talks."""
        groups = self._produces_in.get(client_id)
        return None if groups is None else self.producer_groups[next(reversed(groups))][client_id]

    def consumer_group(self, name: str) -> ConsumerGroup[C] | None:
        """The group, while it has live members."""
        return self.consumer_groups.get(name)

    def knows_fingerprint(self, client_id: str, channel: C, fingerprint: int) -> bool:
        """Whether this client told its full subscriptions, over this channel, under this fingerprint."""
        told = self._channels.get(channel)
        return told is not None and told.fingerprints.get(client_id) == fingerprint

    def check_bounds(self, beat: HeartbeatData, channel: C) -> None:
        """Raise SystemBusy when a full heartbeat is beyond a bound; changes nothing."""
        groups = len(beat.producer_data_set) + len(beat.consumer_data_set)
        if groups > GROUPS_PER_HEARTBEAT_MAX:
            raise SystemBusy(f"a heartbeat names {groups} groups, the limit is {GROUPS_PER_HEARTBEAT_MAX}")
        told = self._channels.get(channel, _Channel())
        memberships = len(told.memberships) + len(_memberships_of(beat) - told.memberships.keys())
        clients = len(told.fingerprints.keys() | {beat.client_id}) if beat.heartbeat_fingerprint else 0
        if max(memberships, clients) > MEMBERSHIPS_PER_CHANNEL_MAX:
            raise SystemBusy(
                f"{max(memberships, clients)} memberships over one connection, "
                f"the limit is {MEMBERSHIPS_PER_CHANNEL_MAX}"
            )
        for consumer in beat.consumer_data_set:
            self._check_consumer(beat.client_id, consumer)

    def heartbeat(self, beat: HeartbeatData, channel: C, now: float, language: str, version: int) -> list[str]:
        """Take a full heartbeat in; gives the consumer groups whose members or subscriptions changed by it.

        Raises SystemBusy, with nothing changed, when the beat is beyond a bound.
        """
        self.check_bounds(beat, channel)
        for producer in beat.producer_data_set:
            members = self.producer_groups.setdefault(producer.group_name, {})
            self._put(members, _Membership(False, producer.group_name, beat.client_id), channel, now, language, version)
        changed = []
        for consumer in beat.consumer_data_set:
            group = self.consumer_groups.get(consumer.group_name)
            if group is None:
                group = self.consumer_groups[consumer.group_name] = ConsumerGroup(consumer.group_name)
            membership = _Membership(True, group.name, beat.client_id)
            group.told.tell(beat.client_id, consumer.subscription_data_set)
            is_new = self._put(group.members, membership, channel, now, language, version)
            if self._update_settings(group, consumer) or is_new:
                changed.append(group.name)
        if beat.heartbeat_fingerprint:
            self._channels.setdefault(channel, _Channel()).fingerprints[beat.client_id] = beat.heartbeat_fingerprint
        return changed

    def renew(self, client_id: str, channel: C, now: float) -> None:
        """Take a light heartbeat in (no subscriptions): the client lives, nothing else changed."""
        told = self._channels.get(channel)
        for membership in () if told is None else told.memberships:
            if membership.client_id == client_id:
                self._members(membership)[client_id].last_seen = now

    def unregister(self, client_id: str, producer_group: str | None, consumer_group: str | None) -> list[str]:
        """A client leaves a producer group, a consumer group, or both; gives the consumer groups that changed."""
        leaving = []
        if producer_group is not None and client_id in self.producer_groups.get(producer_group, {}):
            leaving.append(_Membership(False, producer_group, client_id))
        group = self.consumer_groups.get(consumer_group or "")
        if group is not None and client_id in group.members:
            leaving.append(_Membership(True, group.name, client_id))
        return self._remove(leaving)

    def channel_closed(self, channel: C) -> list[str]:
        """All that spoke over a channel leave; gives the consumer groups that changed."""
        told = self._channels.pop(channel, None)
        return [] if told is None else self._remove(list(told.memberships))

    def expire(self, now: float) -> tuple[list[str], set[C]]:
        """Remove the silent; gives the consumer groups that changed, and the channels they were silent on."""
        silent: set[C] = set()
        leaving = []
        for channel, told in self._channels.items():
            for membership in told.memberships:
                if now - self._members(membership)[membership.client_id].last_seen > self.client_timeout_s:
                    silent.add(channel)
                    leaving.append(membership)
        return self._remove(leaving), silent

    def _check_consumer(self, client_id: str, consumer: ConsumerData) -> None:
        subscriptions = len(consumer.subscription_data_set)
        if subscriptions > SUBSCRIPTIONS_PER_GROUP_MAX:
            raise SystemBusy(
                f"group {consumer.group_name} subscribes to {subscriptions} topics, "
                f"the limit is {SUBSCRIPTIONS_PER_GROUP_MAX}"
            )
        group = self.consumer_groups.get(consumer.group_name)
        if group is not None and client_id not in group.members and len(group.members) >= MEMBERS_PER_GROUP_MAX:
            raise SystemBusy(f"group {group.name} has {len(group.members)} members, its limit")

    def _put(
        self,
        members: dict[str, Member[C]],
        membership: _Membership,
        channel: C,
        now: float,
        language: str,
        version: int,
    ) -> bool:
        """Add a member or renew it; gives whether it is new, or new on this channel."""
        known = members.get(membership.client_id)
        members[membership.client_id] = Member(membership.client_id, channel, now, language, version)
        if known is None and not membership.is_consumer:
            self._produces_in.setdefault(membership.client_id, {})[membership.group] = None
        if known is not None and known.channel == channel:
            return False
        if known is not None:
            self._forget(known.channel, membership)
        self._channels.setdefault(channel, _Channel()).memberships[membership] = None
        return True

    @staticmethod
    def _update_settings(group: ConsumerGroup[C], consumer: ConsumerData) -> bool:
        """The newest word counts; gives whether the subscriptions changed."""
        group.consume_type = consumer.consume_type
        group.message_model = consumer.message_model
        group.consume_from_where = consumer.consume_from_where
        return _update_subscriptions(group.subscriptions, consumer.subscription_data_set)

    def _members(self, membership: _Membership) -> dict[str, Member[C]]:
        if membership.is_consumer:
            return self.consumer_groups[membership.group].members
        return self.producer_groups[membership.group]

    def _remove(self, leaving: Iterable[_Membership]) -> list[str]:
        """Take members out, and groups that are empty then; gives the consumer groups concerned."""
        changed: dict[str, None] = {}
        for membership in leaving:
            members = self._members(membership)
            self._forget(members.pop(membership.client_id).channel, membership)
            if membership.is_consumer:
                changed[membership.group] = None
                self.consumer_groups[membership.group].told.left(membership.client_id)
            else:
                self._forget_producer(membership)
            if not members:
                del (self.consumer_groups if membership.is_consumer else self.producer_groups)[membership.group]
        return list(changed)

    def _forget_producer(self, membership: _Membership) -> None:
        groups = self._produces_in[membership.client_id]
        del groups[membership.group]
        if not groups:
            del self._produces_in[membership.client_id]

    def _forget(self, channel: C, membership: _Membership) -> None:
        told = self._channels.get(channel)
        if told is not None:
            told.memberships.pop(membership, None)


def _memberships_of(beat: HeartbeatData) -> set[_Membership]:
    producers = {_Membership(False, producer.group_name, beat.client_id) for producer in beat.producer_data_set}
    return producers | {_Membership(True, consumer.group_name, beat.client_id) for consumer in beat.consumer_data_set}


def _update_subscriptions(known: dict[str, SubscriptionData], told: Iterable[SubscriptionData]) -> bool:
    """Newer versions replace; topics that are not told any more disappear. Gives whether anything changed by that."""
    changed = False
    topics = set()
    for subscription in told:
        topics.add(subscription.topic)
        before = known.get(subscription.topic)
        if before is None or subscription.sub_version > before.sub_version:
            known[subscription.topic] = subscription
            changed = changed or before is None or subscription.sub_string != before.sub_string
    for topic in [topic for topic in known if topic not in topics]:
        del known[topic]
        changed = True
    return changed
