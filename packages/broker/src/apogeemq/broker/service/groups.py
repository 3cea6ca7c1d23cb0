"""Membership: heartbeats, leaving, who is in a group, and telling members that it changed.

A group is made with its retry topic at its first heartbeat, so that its first retry finds a route
(reference client_demands.md, "First retry").

Members of a group that subscribe to different things are told in the log, at most once a minute, and listed for whoever
asks; a setting has the later one refused. Source: reference broker_behaviour.md §7.
"""

import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from apogeemq.broker.core.clients import ClientTable, Member
from apogeemq.broker.core.names import illegal_group_reason, retry_topic
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.told_subscriptions import SubscriptionDifference, describe
from apogeemq.broker.core.topics import TopicTable
from apogeemq.broker.errors import InvalidParameter, NoPermission, RequestFailed, SubscriptionGroupNotExist
from apogeemq.broker.filter.message_filter import message_filter
from apogeemq.remoting_codec.bodies import HeartbeatData, SubscriptionData, SubscriptionGroupConfig

TELL_INTERVAL_S = 60.0
"""A client that changes its mind with every heartbeat must not fill the log: a group is told of once in this time."""

LOGGED_VARIANTS_MAX = 8
"""Of how many different subscriptions in one group the log tells: each change costs by these, not by all."""

log = logging.getLogger(__name__)

C = TypeVar("C", bound=Hashable)


class GroupService(Generic[C]):
    """Who is connected, in which group.

    Args:
        clients, groups, topics: the tables.
        notify: tells one member over its channel that a consumer group changed (NOTIFY_CONSUMER_IDS_CHANGED).
        monotonic: seconds.
        sql_enabled: whether SQL92 expressions are taken (enablePropertyFilter).
        refuse_differing: whether a member that subscribes to something else than the others is refused.
    """

    def __init__(
        self,
        *,
        clients: ClientTable[C],
        groups: SubscriptionGroupTable,
        topics: TopicTable,
        notify: Callable[[C, str], None],
        monotonic: Callable[[], float],
        sql_enabled: bool,
        refuse_differing: bool,
    ) -> None:
        self._clients = clients
        self._groups = groups
        self._topics = topics
        self._notify = notify
        self._monotonic = monotonic
        self._sql_enabled = sql_enabled
        self._refuse_differing = refuse_differing
        self._differing: dict[str, int] = {}
        """Groups of which the log says that members differ, at which state of what was told."""
        self._told_s: dict[str, float] = {}
        """When the log said so last, of groups where that is not long ago."""

    def heartbeat(self, beat: HeartbeatData, channel: C, language: str, version: int) -> bool:
        """Take a heartbeat in. Gives whether the client must send its full subscriptions (again): IS_SUB_CHANGE.

        A light beat (withoutSub, HeartbeatV2) only renews, and only where its fingerprint is known.
        """
        now = self._monotonic()
        if beat.without_sub:
            if not self._clients.knows_fingerprint(beat.client_id, channel, beat.heartbeat_fingerprint):
                return True
            self._clients.renew(beat.client_id, channel, now)
            return False
        self._clients.check_bounds(beat, channel)  # this and the next before any group or topic is made for it
        self._check_groups(beat)
        if self._refuse_differing:
            self._check_agreement(beat)
        for consumer in beat.consumer_data_set:
            # An unknown group that may not be made is a member without settings: the client learns it on its pull.
            self.find_or_create(consumer.group_name)
        self._tell(self._clients.heartbeat(beat, channel, now, language, version))
        for consumer in beat.consumer_data_set:
            self._watch_agreement(consumer.group_name)
        return True

    def differing_subscriptions(self) -> list[SubscriptionDifference]:
        """The groups whose live members subscribe to different things, and in what they differ."""
        found = [group.told.difference() for group in self._clients.consumer_groups.values()]
        return [difference for difference in found if difference is not None]

    def check_subscription(self, subscription: SubscriptionData) -> None:
        """Whether pulls with this subscription will be understood. Raises as they would: SubscriptionParseFailed,
        RequestFailed.
        """
        message_filter(subscription.expression_type, subscription.sub_string, sql_enabled=self._sql_enabled)

    def find(self, group_name: str) -> SubscriptionGroupConfig | None:
        """A group's settings, or None."""
        return self._groups.get(group_name)

    def find_or_create(self, group_name: str) -> SubscriptionGroupConfig | None:
        """A group's settings; it is made, with its retry topic, when it is unknown. None when it may not be made.

        Raises InvalidParameter (the name is not legal) or SystemBusy (there are too many).
        """
        try:
            group = self._groups.find_or_create(group_name)
        except SubscriptionGroupNotExist:
            return None
        if group.retry_queue_nums > 0:
            self._topics.create_for_group(retry_topic(group.group_name), group.retry_queue_nums)
        return group

    def unregister(self, client_id: str, producer_group: str | None, consumer_group: str | None) -> None:
        """A client leaves one group of each kind, or one of them."""
        self._tell(self._clients.unregister(client_id, producer_group, consumer_group))

    def channel_closed(self, channel: C) -> None:
        """Whoever spoke over this channel is gone."""
        self._tell(self._clients.channel_closed(channel))

    def expire(self) -> set[C]:
        """Drop the silent; gives their channels, for the face to close."""
        changed, silent = self._clients.expire(self._monotonic())
        self._tell(changed)
        return silent

    def consumer_ids(self, group_name: str) -> list[str]:
        """Client ids of a group's live members. An empty group is an error (code 1), not an empty list (trap 18)."""
        group = self._clients.consumer_group(group_name)
        if group is None:
            raise RequestFailed(f"no consumer for this group, {group_name[:300]}")
        return group.client_ids()

    def member(self, group_name: str, client_id: str) -> Member[C]:
        """One live member of a group. RequestFailed (1), in Apache's words, when it is not there."""
        group = self._clients.consumer_group(group_name)
        member = None if group is None else group.members.get(client_id)
        if member is None:
            raise RequestFailed(f"The Consumer <{group_name[:300]}> <{client_id[:300]}> not online")
        return member

    def members(self, group_name: str) -> list[Member[C]]:
        """All live members of a group. RequestFailed (1) when there are none."""
        group = self._clients.consumer_group(group_name)
        if group is None:
            raise RequestFailed(f"No Any Consumer online in the consumer group: [{group_name[:300]}]")
        return list(group.members.values())

    def _tell(self, changed_groups: list[str]) -> None:
        for name in changed_groups:
            self._watch_agreement(name)
            config = self._groups.get(name)
            group = self._clients.consumer_group(name)
            if group is None or (config is not None and not config.notify_consumer_ids_changed_enable):
                continue
            for member in list(group.members.values()):
                self._notify(member.channel, name)

    def _check_groups(self, beat: HeartbeatData) -> None:
        """Raise InvalidParameter where one of the groups can't be, SystemBusy where it is one too many."""
        for consumer in beat.consumer_data_set:
            if self._groups.get(consumer.group_name) is not None:
                continue
            reason = illegal_group_reason(consumer.group_name)
            if reason is not None:
                raise InvalidParameter(reason)
            if self._groups.auto_create:
                self._groups.plan(consumer.group_name)

    def _check_agreement(self, beat: HeartbeatData) -> None:
        for consumer in beat.consumer_data_set:
            group = self._clients.consumer_group(consumer.group_name)
            if group is None:
                continue
            difference = group.told.difference_with(beat.client_id, consumer.subscription_data_set)
            if difference is not None:
                raise NoPermission(
                    f"all members of consumer group {group.name} must subscribe to the same "
                    f"(topics.refuse_differing_subscriptions). {describe(difference)}. "
                    "Stop the members with the old subscriptions first, or use another group"
                )

    def _watch_agreement(self, name: str) -> None:
        """Log when members of a group begin to differ, differ in something else, and agree again."""
        group = self._clients.consumer_group(name)
        if group is None or group.told.variants < 2:
            if self._differing.pop(name, None) is not None:
                log.info("the members of consumer group %s subscribe to the same again", name)
        elif self._differing.get(name) != group.told.changes and self._may_tell(name):
            self._differing[name] = group.told.changes
            difference = group.told.difference(LOGGED_VARIANTS_MAX)
            if difference is not None:
                log.warning(
                    "the members of consumer group %s differ, and some will miss messages; the group is served by what "
                    "was told last. %s",
                    name,
                    describe(difference),
                )

    def _may_tell(self, name: str) -> bool:
        """Whether the log was silent about a group long enough; then it counts as told now. Else the next heartbeat
        asks again.
        """
        now = self._monotonic()
        self._told_s = {group: told for group, told in self._told_s.items() if now - told < TELL_INTERVAL_S}
        if name in self._told_s:
            return False
        self._told_s[name] = now
        return True
