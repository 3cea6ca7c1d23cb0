"""What must hold after every step, seen from outside: these know all disks and etcd, and no rule of the machines.

    acknowledged   no message of class replicas is lost: every member of the SyncStateSet holds all of them
    one master     nobody else, and no other start, ever leads an epoch
    confirmed      replicas are byte-equal up to the confirm offset, and to what any reader saw; it never goes back
    queue          queue offsets in what is confirmed have no gap
    learners       never in the set, never master
    consumed       the group gets each acknowledged message at least once

A set whose last member lost power is allowed to lose (architecture §6.5), and so is one whose operator allowed unclean
elections, but only in an epoch that says so. What masters of older epochs acknowledge or show then is lost as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apogeemq.controller.core.broker_set import NEW_SET, Replica, SyncState, decode
from apogeemq.controller.core.etcd import StoredKey

from tests.simulation.controller_node import KEYS
from tests.simulation.lease_store import LeaseStore
from tests.simulation.records import RECORD_SIZE_BYTES, Record, records_of
from tests.simulation.world import InvariantBrokenError, World

if TYPE_CHECKING:
    from tests.simulation.broker_node import BrokerNode


class Checkers:
    """The invariants, and what they have to remember."""

    def __init__(self, world: World, etcd: LeaseStore) -> None:
        self.acknowledged_count = 0
        self.acknowledged_ids: list[int] = []
        """Of messages, in the order in which their senders were told; those that were allowed to be lost are not."""
        self.last_acknowledged_ms = 0
        self.longest_pause_ms = 0
        self.lost_count = 0
        self.was_unclean = False
        self.brokers: list[BrokerNode] = []
        self.state = NEW_SET
        self._world = world
        self.replicas: dict[int, Replica] = {}
        self._masters: dict[int, tuple[str, int]] = {}
        self._confirmed = bytearray()
        self._acknowledged_end = 0
        self._loss_epoch = 0
        self._last_queue_offset = -1
        self._lives_confirmed: dict[tuple[str, int], int] = {}
        self.consumed_ids: set[int] = set()
        self._consumed_expected = 0
        etcd.wrote = self._wrote

    def acknowledged(self, master: BrokerNode, message_id: int, end_offset: int) -> None:
        """A client was told that its message is safe."""
        if self._is_outdated(master):
            self.lost_count += 1
            return
        self.acknowledged_count += 1
        self.acknowledged_ids.append(message_id)
        self.longest_pause_ms = max(self.longest_pause_ms, self._world.now_ms - self.last_acknowledged_ms)
        self.last_acknowledged_ms = self._world.now_ms
        if end_offset > len(self._confirmed):
            self.fail(f"{master.name} acknowledged message {message_id} at {end_offset}, beyond what is confirmed")
        if end_offset > self._acknowledged_end:
            self._acknowledged_end = end_offset
            self._check_members()
        held = records_of(bytes(self._confirmed[end_offset - RECORD_SIZE_BYTES : end_offset]))[0]
        if held.message_id != message_id:
            self.fail(f"{master.name} acknowledged message {message_id}; confirmed at its place is {held}")

    def confirmed(self, broker: BrokerNode, offset: int) -> None:
        """A broker lets readers see its log up to here."""
        if self._is_outdated(broker):
            return
        life = (broker.name, broker.life)
        if offset < self._lives_confirmed.get(life, 0):
            self.fail(f"the confirm offset of {broker.name} went back to {offset}")
        self._lives_confirmed[life] = offset
        self._visible(broker, bytes(broker.disk.log[:offset]))

    def read(self, broker: BrokerNode) -> None:
        """A reader took all that this broker shows."""
        if not self._is_outdated(broker):
            self._visible(broker, broker.readable())

    def _is_outdated(self, broker: BrokerNode) -> bool:
        """Whether its log is of an epoch before one that was allowed to lose."""
        return broker.disk.last_epoch < self._loss_epoch

    def consumed(self, data: bytes) -> None:
        """The consumers of the one group took these."""
        self.consumed_ids.update(record.message_id for record in records_of(data))

    def expect_consumed(self) -> None:
        """From now on the group is given some time to get all that is acknowledged."""
        self._consumed_expected = self._acknowledged_end

    def check_consumed(self) -> None:
        """The time is over."""
        for record in records_of(bytes(self._confirmed[: min(self._consumed_expected, self._acknowledged_end)])):
            if record.message_id not in self.consumed_ids:
                self.fail(f"message {record.message_id} was acknowledged, and no consumer ever got it")

    def leads(self, broker: BrokerNode, epoch: int) -> None:
        """A broker begins to serve as master; one that was frozen meanwhile in an epoch that is over, to no avail."""
        me = (broker.name, broker.life)
        if self._masters.setdefault(epoch, me) != me:
            self.fail(f"{broker.name} (life {broker.life}) leads epoch {epoch}, and so did {self._masters[epoch]}")
        if epoch == self.state.master_epoch and self.replicas[broker.broker_id].is_learner:
            self.fail(f"{broker.name} is a learner and leads epoch {epoch}")
        if self._loss_epoch < self.state.loss_epoch <= epoch:
            self._allow_loss(broker)
        elif epoch == self.state.master_epoch and not self._holds_acknowledged(broker):
            self.fail(f"{broker.name} leads epoch {epoch} without acknowledged messages")

    def cut(self, broker: BrokerNode) -> None:
        """A replica cut its log."""
        self._check_members()

    def halted(self, broker: BrokerNode) -> None:
        """A replica found that its master lacks confirmed records: only after an allowed loss."""
        if self.state.loss_epoch == 0:
            self.fail(f"{broker.name} holds confirmed records that its master lacks")

    def _visible(self, broker: BrokerNode, data: bytes) -> None:
        """Whatever was seen once is what everybody sees at that place for ever."""
        common = min(len(data), len(self._confirmed))
        expired = broker.disk.min_offset
        if data[expired:common] != self._confirmed[expired:common]:
            self.fail(f"{broker.name} shows other records than were seen before, below {common}")
        for record in records_of(data[common:]):
            self._in_order(record)
        self._confirmed += data[common:]

    def _in_order(self, record: Record) -> None:
        if record.queue_offset != self._last_queue_offset + 1:
            self.fail(f"queue offset {record.queue_offset} follows {self._last_queue_offset}")
        self._last_queue_offset = record.queue_offset

    def _holds_acknowledged(self, broker: BrokerNode) -> bool:
        """But for what has expired."""
        expired, end = broker.disk.min_offset, self._acknowledged_end
        return broker.disk.log[expired:end] == self._confirmed[expired:end] and len(broker.disk.log) >= end

    def _allow_loss(self, broker: BrokerNode) -> None:
        """The epoch says that messages may be gone: somebody's power must have been."""
        if not (broker.disk.losses or self.was_unclean):
            self.fail(f"epoch {self.state.loss_epoch} says that messages may be lost, but {broker.name} lost no power")
        self._loss_epoch = self.state.loss_epoch
        kept = broker.disk.min_offset
        while self._confirmed[kept : kept + 1] and self._confirmed[kept] == (broker.log[kept : kept + 1] or b"\0")[0]:
            kept += 1
        kept = min(kept - kept % RECORD_SIZE_BYTES, len(broker.log))
        self.lost_count += max(0, self._acknowledged_end - kept) // RECORD_SIZE_BYTES
        del self._confirmed[kept:]
        self._acknowledged_end = min(self._acknowledged_end, kept)
        records = records_of(bytes(self._confirmed))
        self._last_queue_offset = records[-1].queue_offset if records else -1
        self._lives_confirmed.clear()

    def _wrote(self, stored: StoredKey) -> None:
        """etcd holds something new."""
        if stored.key == KEYS.state:
            self.state = decode(SyncState, stored)
            self._world.note(
                "etcd",
                f"state: master {self.state.master_id} epoch {self.state.master_epoch} "
                f"set {list(self.state.members)} set epoch {self.state.set_epoch}"
                + (" possible loss" if self.state.possible_loss else ""),
            )
            self._check_members()
        elif stored.key.startswith(KEYS.prefix):
            replica = decode(Replica, stored)
            self.replicas[replica.broker_id] = replica

    def _check_members(self) -> None:
        """Each member holds all that was acknowledged; but for one that lost power, which etcd does not know yet."""
        for broker in self.brokers:
            if broker.broker_id not in self.state.members:
                continue
            if self.replicas[broker.broker_id].is_learner:
                self.fail(f"{broker.name} is a learner, and in the SyncStateSet")
            knows_boot = self.replicas[broker.broker_id].boot_id == str(broker.disk.boot)
            excused = not knows_boot or self.state.possible_loss or self._loss_epoch < self.state.loss_epoch
            if not excused and not self._holds_acknowledged(broker):
                self.fail(f"{broker.name} is in the SyncStateSet and lacks acknowledged messages")

    def confirmed_records(self) -> list[Record]:
        """All that was ever confirmed."""
        return records_of(bytes(self._confirmed))

    def acknowledged_records(self) -> list[Record]:
        """What was promised to be there, but for what was allowed to be lost."""
        return records_of(bytes(self._confirmed[: self._acknowledged_end]))

    def has_consumed(self, message_id: int) -> bool:
        """Whether the group got it."""
        return message_id in self.consumed_ids

    def fail(self, text: str) -> None:
        """End the run."""
        self._world.note("", f"BROKEN: {text}")
        raise InvariantBrokenError(text)
