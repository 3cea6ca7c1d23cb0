"""A broker with popped messages: which of them are done is told by a pointer that is no part of the log.

```
 log   5 … … 10 … … 15 … 5 again … 20 … 10 again … │ place
                 ↑ done: each one before it has its successor in the log up to the pointer's place
```
Each fifth message was popped and never acknowledged: the master stores it again some records later, and moves its
pointer. Whoever leads next goes on from the pointer that it has, so one that is ahead of the log passes messages by.
The rules (docs/ha.md): a pointer is saved, and told to replicas, once the log is confirmed up to its place; a replica
is told no sooner than it is sent the log up to there. Nobody enters the set before it has a pointer of its master, for
an older one costs time. Pointers are synced as they are written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from apogeemq.broker.core.replication import progress

from tests.simulation.broker_node import BrokerNode, MasterLink, ReplicaSession
from tests.simulation.cluster import Cluster, Settings
from tests.simulation.records import RECORD_SIZE_BYTES, decode_record
from tests.simulation.wire import Ack, CopyFrom, Hello

POPPED_EACH = 1
INVISIBLE_RECORDS = 30
WORK_MS = 25
SAVE_EACH = 3
"""Each so many rounds of work."""
AGAIN = 1_000_000_000
"""Added to the id of a message that comes again."""
UNFINISHED_RECORDS = 400
"""So many of the last ones may still wait for their successors when a run ends."""


@dataclass(frozen=True)
class Pointer:
    """Master to replica, and what is on the disk: see the module. Offsets of the log."""

    done_offset: int
    place: int


class PoppedBrokerNode(BrokerNode):
    """See the module."""

    kept = Pointer(0, 0)
    """On the disk."""

    def start(self) -> None:
        """A new process."""
        self._done_offset = 0
        self._taken: Pointer | None = None
        self._pending: dict[ReplicaSession, Pointer] = {}
        self._have_pointer: set[ReplicaSession] = set()
        self._pointers_taken = 0
        self._last_ack: Ack | None = None
        self._rounds = 0
        super().start()
        self.every(WORK_MS, self._work)

    # The rules

    def may_save(self, pointer: Pointer) -> bool:
        """Whether a pointer may be on the master's own disk."""
        return pointer.place <= min(self.disk.synced_size, self.disk.confirm_offset)

    def may_tell(self, session: ReplicaSession, pointer: Pointer) -> bool:
        """Whether a replica may have it."""
        return pointer.place <= min(session.next_offset or 0, self.disk.confirm_offset)

    def has_tables(self, session: ReplicaSession) -> bool:
        """Whether a replica has a pointer of this master: it may enter the set."""
        return session in self._have_pointer

    # As a master

    def _lead(self, epoch: int, known: progress.TakeSet) -> None:
        self._done_offset = min(self.kept.done_offset, len(self.disk.log))
        self._taken = None
        self._pending.clear()
        self._have_pointer.clear()
        super()._lead(epoch, known)

    def _work(self) -> None:
        led = self._progress
        if led is None or self._is_leaving:
            return
        if led.takes_writes:
            self._store_again(led)
        self._rounds += 1
        if self._taken is None and self._rounds % SAVE_EACH == 0:
            self._taken = Pointer(self._done_offset, len(self.disk.log))
        if self._taken is not None and self.may_save(self._taken):
            self.kept, self._taken = self._taken, None
            for session in self._replicas.values():
                if session in self._have_pointer:
                    session.send(self.kept)
        self._tell_pending()

    def _store_again(self, led: progress.Progress) -> None:
        """Of what is confirmed."""
        end = min(self.disk.confirm_offset, len(self.disk.log) - INVISIBLE_RECORDS * RECORD_SIZE_BYTES)
        for at in range(self._done_offset, end, RECORD_SIZE_BYTES):
            message_id = decode_record(bytes(self.disk.log[at : at + RECORD_SIZE_BYTES])).message_id
            if is_popped(message_id):
                self.append(AGAIN + message_id, led)
            self._done_offset = at + RECORD_SIZE_BYTES

    def _tell_pending(self) -> None:
        for session, pointer in list(self._pending.items()):
            if self.may_tell(session, pointer):
                del self._pending[session]
                session.send(pointer)

    def from_replica(self, session: ReplicaSession, message: object) -> None:
        """A replica that begins to copy gets the pointer of this moment, in its time."""
        if isinstance(message, Ack) and message.pointers:
            self._have_pointer.add(session)
        super().from_replica(session, message)
        if isinstance(message, CopyFrom):
            self._pending[session] = Pointer(self._done_offset, len(self.disk.log))
        self._tell_pending()

    def lost_replica(self, session: ReplicaSession) -> None:
        """What it was to be told, the next stream tells."""
        super().lost_replica(session)
        self._pending.pop(session, None)
        self._have_pointer.discard(session)

    # As a replica

    def from_master(self, link: MasterLink, message: object) -> None:
        """A pointer is kept, and acknowledged; or anything else."""
        if isinstance(message, Pointer) and link is self._master_link:
            self.kept = message
            self._pointers_taken += 1
            if self._last_ack is not None:
                self._to_master(self._last_ack)
        super().from_master(link, message)

    def _connect(self, master_id: int, epoch: int) -> None:
        self._pointers_taken, self._last_ack = 0, None
        super()._connect(master_id, epoch)

    def _to_master(self, message: object) -> None:
        if isinstance(message, Ack):
            message = self._last_ack = replace(message, pointers=self._pointers_taken)
        super()._to_master(message)


class TellsAtOnce(PoppedBrokerNode):
    """A replica gets the pointer of the moment in which it says hello, before the log that this speaks of."""

    def from_replica(self, session: ReplicaSession, message: object) -> None:
        """It is the first word to it."""
        super().from_replica(session, message)
        if isinstance(message, Hello) and session.hello is message:
            session.send(Pointer(self._done_offset, len(self.disk.log)))


class TellsUnconfirmed(PoppedBrokerNode):
    """Pointers go with the log, confirmed or not."""

    def may_save(self, pointer: Pointer) -> bool:
        """Once the log is synced."""
        return pointer.place <= self.disk.synced_size

    def may_tell(self, session: ReplicaSession, pointer: Pointer) -> bool:
        """Once it is sent."""
        return pointer.place <= (session.next_offset or 0)


def is_popped(message_id: int) -> bool:
    """Whether it comes again."""
    return message_id < AGAIN and message_id % POPPED_EACH == 0


def no_popped_message_is_lost(cluster: Cluster) -> None:
    """Each came again, but for the newest. Errors: InvariantBrokenError."""
    checkers = cluster.checkers
    if checkers.state.loss_epoch:
        return
    for record in checkers.confirmed_records()[:-UNFINISHED_RECORDS]:
        if is_popped(record.message_id) and not checkers.has_consumed(AGAIN + record.message_id):
            checkers.fail(f"message {record.message_id} was popped, and never came again")


POPPED = Settings(broker=PoppedBrokerNode, check=no_popped_message_is_lost)
