"""A broker with topics: its table is no part of the log, and whoever takes over has to have it all the same.

```
 stream   Welcome │ whole table │ chunk │ chunk │ new topic │ chunk with its first message │ …
```
A topic travels in the stream before the first message that needs it (architecture §6.10): a replica that acknowledged
the message has the topic. Each few messages have a topic of their own, made with the first of them. Tables are synced
as they are written; another master's whole table takes the place of what was there.
"""

from __future__ import annotations

from dataclasses import dataclass

from apogeemq.broker.core.replication import progress

from tests.simulation.broker_node import BrokerNode, MasterLink, ReplicaSession
from tests.simulation.cluster import Settings
from tests.simulation.wire import Hello

MESSAGES_PER_TOPIC = 4
TABLES_MS = 1_000


@dataclass(frozen=True)
class Topics:
    """Master to replica: topics that it has from now on; all of them, or some more."""

    names: frozenset[int]
    is_whole: bool


def topic_of(message_id: int) -> int:
    """Its topic, named by a number."""
    return message_id // MESSAGES_PER_TOPIC


class TopicBrokerNode(BrokerNode):
    """See the module."""

    topics: frozenset[int] = frozenset()

    def send(self, message_id: int) -> bool:
        """The first message of a topic makes it, on a master that takes writes."""
        takes_writes = self._progress is not None and self._progress.takes_writes and not self._is_leaving
        if takes_writes and topic_of(message_id) not in self.topics:
            self.topics |= {topic_of(message_id)}
            self.tell_topic(topic_of(message_id))
        return super().send(message_id)

    def tell_topic(self, topic: int) -> None:
        """Let the replicas know of a new one: by the rule, at once."""
        self.tell(Topics(frozenset({topic}), is_whole=False))

    def tell(self, topics: Topics) -> None:
        """To each replica, behind what was sent before."""
        for session in self._replicas.values():
            session.send(topics)

    def from_replica(self, session: ReplicaSession, message: object) -> None:
        """Whoever says hello gets the whole table before anything else."""
        super().from_replica(session, message)
        if isinstance(message, Hello) and session.hello is message:
            self.greet(session)

    def greet(self, session: ReplicaSession) -> None:
        """The first word to a replica."""
        session.send(Topics(self.topics, is_whole=True))

    def from_master(self, link: MasterLink, message: object) -> None:
        """Topics, or anything else."""
        if isinstance(message, Topics) and link is self._master_link:
            self.topics = message.names | (frozenset() if message.is_whole else self.topics)
        super().from_master(link, message)

    def _lead(self, epoch: int, known: progress.TakeSet) -> None:
        super()._lead(epoch, known)
        if epoch < self._checkers.state.master_epoch:
            return
        needed = {topic_of(record.message_id) for record in self._checkers.acknowledged_records()}
        if not needed <= self.topics:
            self._checkers.fail(f"{self.name} leads epoch {epoch} and lacks the topics {sorted(needed - self.topics)}")


class TablesNowAndThen(TopicBrokerNode):
    """A replica has the tables of a while ago, as if it asked for them on a timer."""

    def start(self) -> None:
        """A new process."""
        super().start()
        self.every(TABLES_MS, lambda: self.tell(Topics(self.topics, is_whole=True)))

    def tell_topic(self, topic: int) -> None:
        """Later."""

    def greet(self, session: ReplicaSession) -> None:
        """Later, too."""


TOPICS = Settings(broker=TopicBrokerNode)
