"""Encoded routes, kept until they are wrong."""

from apogeemq.namesrv.core.route_bodies import RouteBodies


class Builder:
    """Builds a body of a given size for topics that begin with T, and counts."""

    def __init__(self, size_bytes: int = 10) -> None:
        self.size_bytes = size_bytes
        self.built: list[tuple[str, bool]] = []

    def __call__(self, topic: str, standard: bool) -> bytes | None:
        self.built.append((topic, standard))
        return b"x" * self.size_bytes if topic.startswith("T") else None


def test_a_body_is_built_once_per_topic_and_form() -> None:
    """The second request for the same form is answered from the cache."""
    builder = Builder()
    bodies = RouteBodies(builder)
    for _ in range(2):
        bodies.get("TopicA", standard=True)
        bodies.get("TopicA", standard=False)
    assert builder.built == [("TopicA", True), ("TopicA", False)]


def test_unknown_topics_are_not_kept() -> None:
    """Their names come from outside; each is asked for anew."""
    builder = Builder()
    bodies = RouteBodies(builder)
    assert bodies.get("unknown", standard=True) is None
    assert bodies.get("unknown", standard=True) is None
    assert len(builder.built) == 2
    assert bodies.size_bytes == 0


def test_a_changed_topic_is_built_anew() -> None:
    """Both forms of that topic, and of no other."""
    builder = Builder()
    bodies = RouteBodies(builder)
    for topic in ("TopicA", "TopicB"):
        bodies.get(topic, standard=True)
    bodies.forget(["TopicA", "never asked for"])
    builder.built.clear()
    for topic in ("TopicA", "TopicB"):
        bodies.get(topic, standard=True)
    assert builder.built == [("TopicA", True)]


def test_everything_is_built_anew_after_a_change_of_brokers() -> None:
    """None means that any route may have changed."""
    builder = Builder()
    bodies = RouteBodies(builder)
    bodies.get("TopicA", standard=True)
    bodies.forget(None)
    assert bodies.size_bytes == 0
    bodies.get("TopicA", standard=True)
    assert len(builder.built) == 2


def test_the_least_recently_used_goes_first() -> None:
    """The bound is on the bytes of all bodies together."""
    builder = Builder(10)
    bodies = RouteBodies(builder, size_bytes_max=25)
    for topic in ("T1", "T2", "T1", "T3"):
        bodies.get(topic, standard=True)
    assert bodies.size_bytes == 20
    builder.built.clear()
    for topic in ("T1", "T3", "T2"):
        bodies.get(topic, standard=True)
    assert builder.built == [("T2", True)]


def test_a_body_above_the_bound_is_given_but_not_kept() -> None:
    """It would leave no room for any other."""
    bodies = RouteBodies(Builder(100), size_bytes_max=25)
    assert bodies.get("TopicA", standard=True) == b"x" * 100
    assert bodies.size_bytes == 0
