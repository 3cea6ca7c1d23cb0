"""Who is connected: producers and consumers by group, with what they subscribe to.

A client says so in heartbeats, every 30 s. It leaves by word (UNREGISTER_CLIENT), when its channel closes, or when it
was silent for `client_timeout_s` (120 s). Whenever members or subscriptions of a consumer group change, every member is
to be told, so that they divide the queues anew; the methods give the names of the groups concerned.
Source: reference broker_behaviour.md §7.

Bounds: groups a heartbeat, subscriptions a group, members a group; a heartbeat beyond one is refused whole.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from apogeemq.broker.errors import SystemBusy
from apogeemq.remoting_codec.bodies import ConsumerData, HeartbeatData, SubscriptionData

C = TypeVar("C", bound=Hashable)

GROUPS_PER_HEARTBEAT_MAX = 1_000
SUBSCRIPTIONS_PER_GROUP_MAX = 10_000
MEMBERS_PER_GROUP_MAX = 20_000


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
    """A consumer group with live members. `subscriptions` are the newest told, by topic."""

    name: str
    members: dict[str, Member[C]] = field(default_factory=dict)
    subscriptions: dict[str, SubscriptionData] = field(default_factory=dict)
    consume_type: str = ""
    message_model: str = ""
    consume_from_where: str = ""

    def client_ids(self) -> list[str]:
        """Ids of the live members."""
        return list(self.members)


class ClientTable(Generic[C]):
    """Producer and consumer groups with live members; C is whatever stands for a connection."""

    def __init__(self, *, client_timeout_s: float = 120.0) -> None:
        self.client_timeout_s = client_timeout_s
        self.consumer_groups: dict[str, ConsumerGroup[C]] = {}
        self.producer_groups: dict[str, dict[str, Member[C]]] = {}
        self._fingerprints: dict[tuple[str, C], int] = {}

    def consumer_group(self, name: str) -> ConsumerGroup[C] | None:
        """The group, while it has live members."""
        return self.consumer_groups.get(name)

    def knows_fingerprint(self, client_id: str, channel: C, fingerprint: int) -> bool:
        """Whether this client told its full subscriptions, over this channel, under this fingerprint."""
        return self._fingerprints.get((client_id, channel)) == fingerprint

    def heartbeat(self, beat: HeartbeatData, channel: C, now: float, language: str, version: int) -> list[str]:
        """Take a full heartbeat in; gives the consumer groups whose members or subscriptions changed by it.

        Raises SystemBusy, with nothing changed, when the beat is beyond a bound.
        """
        self._check_bounds(beat)
        for producer in beat.producer_data_set:
            members = self.producer_groups.setdefault(producer.group_name, {})
            members[beat.client_id] = Member(beat.client_id, channel, now, language, version)
        changed = []
        for consumer in beat.consumer_data_set:
            member = Member(beat.client_id, channel, now, language, version)
            if self._update_consumer(consumer, member):
                changed.append(consumer.group_name)
        if beat.heartbeat_fingerprint:
            self._fingerprints[beat.client_id, channel] = beat.heartbeat_fingerprint
        return changed

    def renew(self, client_id: str, channel: C, now: float) -> None:
        """Take a light heartbeat in (no subscriptions): the client lives, nothing else changed."""
        for members in self._all_members():
            member = members.get(client_id)
            if member is not None and member.channel == channel:
                member.last_seen = now

    def unregister(self, client_id: str, producer_group: str | None, consumer_group: str | None) -> list[str]:
        """A client leaves a producer group, a consumer group, or both; gives the consumer groups that changed."""
        if producer_group is not None:
            members = self.producer_groups.get(producer_group)
            if members is not None:
                members.pop(client_id, None)
                if not members:
                    del self.producer_groups[producer_group]
        if consumer_group is not None:
            group = self.consumer_groups.get(consumer_group)
            if group is not None and group.members.pop(client_id, None) is not None:
                self._drop_if_empty(group)
                return [consumer_group]
        return []

    def channel_closed(self, channel: C) -> list[str]:
        """All that spoke over a channel leave; gives the consumer groups that changed."""
        self._fingerprints = {key: value for key, value in self._fingerprints.items() if key[1] != channel}
        return self._remove(lambda member: member.channel == channel)

    def expire(self, now: float) -> tuple[list[str], set[C]]:
        """Remove the silent; gives the consumer groups that changed, and the channels they were silent on."""
        silent: set[C] = set()
        for members in self._all_members():
            for member in members.values():
                if now - member.last_seen > self.client_timeout_s:
                    silent.add(member.channel)
        if not silent:
            return [], silent
        return self._remove(lambda member: now - member.last_seen > self.client_timeout_s), silent

    def _check_bounds(self, beat: HeartbeatData) -> None:
        groups = len(beat.producer_data_set) + len(beat.consumer_data_set)
        if groups > GROUPS_PER_HEARTBEAT_MAX:
            raise SystemBusy(f"a heartbeat names {groups} groups, the limit is {GROUPS_PER_HEARTBEAT_MAX}")
        for consumer in beat.consumer_data_set:
            subscriptions = len(consumer.subscription_data_set)
            if subscriptions > SUBSCRIPTIONS_PER_GROUP_MAX:
                raise SystemBusy(
                    f"group {consumer.group_name} subscribes to {subscriptions} topics, "
                    f"the limit is {SUBSCRIPTIONS_PER_GROUP_MAX}"
                )
            group = self.consumer_groups.get(consumer.group_name)
            if (
                group is not None
                and beat.client_id not in group.members
                and len(group.members) >= MEMBERS_PER_GROUP_MAX
            ):
                raise SystemBusy(f"group {group.name} has {len(group.members)} members, its limit")

    def _update_consumer(self, consumer: ConsumerData, member: Member[C]) -> bool:
        group = self.consumer_groups.get(consumer.group_name)
        if group is None:
            group = self.consumer_groups[consumer.group_name] = ConsumerGroup(consumer.group_name)
        group.consume_type = consumer.consume_type
        group.message_model = consumer.message_model
        group.consume_from_where = consumer.consume_from_where
        known = group.members.get(member.client_id)
        group.members[member.client_id] = member
        changed = known is None or known.channel != member.channel
        return self._update_subscriptions(group, consumer.subscription_data_set) or changed

    @staticmethod
    def _update_subscriptions(group: ConsumerGroup[C], told: Iterable[SubscriptionData]) -> bool:
        changed = False
        topics = set()
        for subscription in told:
            topics.add(subscription.topic)
            known = group.subscriptions.get(subscription.topic)
            if known is None or subscription.sub_version > known.sub_version:
                group.subscriptions[subscription.topic] = subscription
                changed = changed or known is None or subscription.sub_string != known.sub_string
        for topic in [topic for topic in group.subscriptions if topic not in topics]:
            del group.subscriptions[topic]
            changed = True
        return changed

    def _all_members(self) -> list[dict[str, Member[C]]]:
        return [*self.producer_groups.values(), *(group.members for group in self.consumer_groups.values())]

    def _remove(self, leaves: Callable[[Member[C]], bool]) -> list[str]:
        for name, members in list(self.producer_groups.items()):
            for client_id in [client_id for client_id, member in members.items() if leaves(member)]:
                del members[client_id]
            if not members:
                del self.producer_groups[name]
        changed = []
        for group in list(self.consumer_groups.values()):
            leaving = [client_id for client_id, member in group.members.items() if leaves(member)]
            for client_id in leaving:
                del group.members[client_id]
            if leaving:
                changed.append(group.name)
                self._drop_if_empty(group)
        return changed

    def _drop_if_empty(self, group: ConsumerGroup[C]) -> None:
        if not group.members:
            del self.consumer_groups[group.name]
