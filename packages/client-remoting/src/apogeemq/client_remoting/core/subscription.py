"""What a consumer wants of a topic: every message, those with one of some tags, or those that a SQL expression takes.

The broker compares hashes of tags only (`String.hashCode`), so the consumer compares the tags themselves once more.
SQL is the broker's alone. Source: reference broker_behaviour.md §5.
"""

from typing import Final, NamedTuple

from apogeemq.client_api.errors import NotSupported
from apogeemq.client_api.filters import Filter, Sql
from apogeemq.remoting_codec.bodies import SubscriptionData
from apogeemq.remoting_codec.message import java_string_hash

ALL: Final = "*"
_SEPARATOR: Final = "||"

TAG: Final = "TAG"
SQL92: Final = "SQL92"


class Subscription(NamedTuple):
    """One topic's subscription: the expression as the wire has it, its tags (none of them: every message that the
    broker sends), and its kind, TAG or SQL92.
    """

    topic: str
    expression: str
    tags: tuple[str, ...] = ()
    expression_type: str = TAG

    def wants(self, tag: str | None) -> bool:
        """Whether a message with this tag is wanted."""
        return not self.tags or tag in self.tags

    @property
    def codes(self) -> list[int]:
        """The tags' hashes, in their order."""
        return [java_string_hash(tag) for tag in self.tags]

    def data(self, version_ms: int) -> SubscriptionData:
        """What brokers are told of it; `version_ms` is when it was made."""
        return SubscriptionData(
            topic=self.topic,
            sub_string=self.expression,
            tags_set=list(self.tags),
            code_set=self.codes,
            sub_version=version_ms,
            expression_type=self.expression_type,
        )


def parse_subscription(topic: str, wanted: Filter) -> Subscription:
    """Read `*` (or nothing), `a || b` or a `Sql`; tags are trimmed and kept once.

    Raises NotSupported for a text that is neither.
    """
    if isinstance(wanted, Sql):
        return Subscription(topic, wanted.expression, (), SQL92)
    tags = tuple(dict.fromkeys(tag for part in wanted.split(_SEPARATOR) if (tag := part.strip())))
    if not tags or tags == (ALL,):
        return Subscription(topic, ALL)
    if any(character.isspace() for tag in tags for character in tag):
        raise NotSupported(
            f"the subscription {wanted[:100]!r} to {topic} is neither * nor tags with || between",
            hint="Write Sql(...) around a SQL expression.",
        )
    return Subscription(topic, " || ".join(tags), tags)
