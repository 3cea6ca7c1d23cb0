"""What a consumer wants of a topic: every message, or those with one of some tags.

The broker compares hashes of tags only (`String.hashCode`), so the consumer compares the tags themselves once more.
Source: reference broker_behaviour.md §5.
"""

from typing import Final, NamedTuple

from apogeemq.client_api.errors import NotSupported
from apogeemq.remoting_codec.message import java_string_hash

ALL: Final = "*"
_SEPARATOR: Final = "||"


class Subscription(NamedTuple):
    """One topic's subscription: the expression as the wire has it, and its tags (none of them: every message)."""

    topic: str
    expression: str
    tags: tuple[str, ...]

    def wants(self, tag: str | None) -> bool:
        """Whether a message with this tag is wanted."""
        return not self.tags or tag in self.tags

    @property
    def codes(self) -> list[int]:
        """The tags' hashes, in their order."""
        return [java_string_hash(tag) for tag in self.tags]


def parse_subscription(topic: str, expression: str) -> Subscription:
    """Read `*` (or nothing) or `a || b`; tags are trimmed and kept once. Raises NotSupported for anything like SQL."""
    tags = tuple(dict.fromkeys(tag for part in expression.split(_SEPARATOR) if (tag := part.strip())))
    if not tags or tags == (ALL,):
        return Subscription(topic, ALL, ())
    if any(character.isspace() for tag in tags for character in tag):
        raise NotSupported(
            f"the subscription {expression[:100]!r} to {topic} is neither * nor tags with || between",
            hint="SQL expressions are not served by this client; filter by tags.",
        )
    return Subscription(topic, " || ".join(tags), tags)
