"""What each member of a group says it subscribes to, and whether they all say the same.

Members of one group share queues, so all must want the same messages of them: of a queue that is read by a member with
`A`, nobody gets `B`, and its offsets move on. Yet a broker can serve a group by one subscription only: that told last
(core/clients.py). So members that differ are an error of the application, mostly a half-done deployment.

Compared are topics, kinds and expressions; for tags their set, in whatever order they are written. The group's retry
topic is left out: some clients tell it and some do not. Who tells nothing at all says nothing against the others.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

from apogeemq.broker.core.names import retry_topic
from apogeemq.remoting_codec.bodies import SubscriptionData

Told: TypeAlias = frozenset[tuple[str, str]]
"""Topic and expression, of all topics that a member subscribes to."""

NOT_SUBSCRIBED = ""
"""Stands for the expression of members that do not subscribe to a topic."""


class TopicDifference(NamedTuple):
    """One topic of which members want different things: their client ids by expression."""

    topic: str
    client_ids: dict[str, list[str]]


class SubscriptionDifference(NamedTuple):
    """A group whose members differ, and in what: topics in order of their names."""

    group: str
    topics: list[TopicDifference]


class ToldSubscriptions:
    """Of one group. What is told costs by its own length, however many members there are.

    `changes` counts how often the different things that are told became others.
    """

    __slots__ = ("_by_member", "_group", "_members", "changes")

    def __init__(self, group: str) -> None:
        self._group = group
        self._by_member: dict[str, Told] = {}
        self._members: dict[Told, dict[str, None]] = {}
        self.changes = 0

    @property
    def variants(self) -> int:
        """How many different things members tell; 1 is as it should be."""
        return len(self._members)

    def tell(self, client_id: str, subscriptions: Iterable[SubscriptionData]) -> None:
        """A member says what it wants."""
        told = normalized(self._group, subscriptions)
        if self._by_member.get(client_id) == told:
            return
        self.left(client_id)
        if told:
            self._by_member[client_id] = told
            if told not in self._members:
                self._members[told] = {}
                self.changes += 1
            self._members[told][client_id] = None

    def left(self, client_id: str) -> None:
        """A member is gone."""
        told = self._by_member.pop(client_id, None)
        if told is not None:
            del self._members[told][client_id]
            if not self._members[told]:
                del self._members[told]
                self.changes += 1

    def difference(self, variants_max: int | None = None) -> SubscriptionDifference | None:
        """In what members differ; None when they agree. Of `variants_max` different things told, if there are more."""
        if self.variants < 2:
            return None
        members = dict(islice(self._members.items(), variants_max))
        return SubscriptionDifference(self._group, list(self._differing_topics(members)))

    def difference_with(
        self, client_id: str, subscriptions: Iterable[SubscriptionData]
    ) -> SubscriptionDifference | None:
        """In what a client would differ from the other members; None when from none."""
        told = normalized(self._group, subscriptions)
        others = {
            known: members
            for known, members in self._members.items()
            if known != told and (len(members) > 1 or client_id not in members)
        }
        if not told or not others:
            return None
        return SubscriptionDifference(self._group, list(self._differing_topics({**others, told: {client_id: None}})))

    @staticmethod
    def _differing_topics(members: dict[Told, dict[str, None]]) -> Iterator[TopicDifference]:
        expressions = {told: dict(told) for told in members}
        for topic in sorted({topic for told in members for topic, _ in told}):
            by_expression: dict[str, list[str]] = {}
            for told, client_ids in members.items():
                by_expression.setdefault(expressions[told].get(topic, NOT_SUBSCRIBED), []).extend(client_ids)
            if len(by_expression) > 1:
                yield TopicDifference(topic, by_expression)


def normalized(group: str, subscriptions: Iterable[SubscriptionData]) -> Told:
    """What is compared of subscriptions."""
    own = retry_topic(group)
    return frozenset((each.topic, _expression(each)) for each in subscriptions if each.topic != own)


def _expression(subscription: SubscriptionData) -> str:
    if (subscription.expression_type or "TAG") != "TAG":
        return f"{subscription.expression_type}: {subscription.sub_string}"
    tags = {tag.strip() for tag in subscription.sub_string.split("||")} - {""}
    return " || ".join(sorted(tags)) if tags else "*"


def describe(difference: SubscriptionDifference, *, client_ids_max: int = 5, topics_max: int = 5) -> str:
    """The difference as a sentence for logs and remarks, of bounded length."""
    topics = []
    for topic, by_expression in difference.topics[:topics_max]:
        sides = []
        for expression, client_ids in list(by_expression.items())[:topics_max]:
            named = ", ".join(client_id[:100] for client_id in client_ids[:client_ids_max])
            more = f" and {len(client_ids) - client_ids_max} more" if len(client_ids) > client_ids_max else ""
            wanted = f"subscribe to [{expression[:200]}]" if expression != NOT_SUBSCRIBED else "do not subscribe"
            sides.append(f"{named}{more} {wanted}")
        topics.append(f"topic {topic[:255]}: {'; '.join(sides)}")
    left_out = len(difference.topics) - topics_max
    return ". ".join(topics) + (f" (and {left_out} topics more)" if left_out > 0 else "")
