"""A broker process: the shipped machines, with a shell around them that has a disk and talks to all others."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from apogeemq.broker.core.replication import follower, progress, role
from apogeemq.controller.core import requests
from apogeemq.controller.core.broker_set import SyncState
from apogeemq.store.epoch_file import EpochEntry

from tests.simulation.controller_node import ControllerNode
from tests.simulation.controller_node import Session as ControllerSession
from tests.simulation.disk import LogDisk
from tests.simulation.network import Network, Stream
from tests.simulation.records import RECORD_SIZE_BYTES, Record, decode_record, encode_record
from tests.simulation.wire import (
    Ack,
    Answered,
    Ask,
    AskCrc,
    Beat,
    Consumed,
    CopyFrom,
    CrcSame,
    Hello,
    KnowsState,
    LeaseGone,
    Notify,
    Welcome,
)
from tests.simulation.world import Process, World

if TYPE_CHECKING:
    from tests.simulation.checkers import Checkers

TICK_MS = 100
BEAT_MS = 500
SYNC_MS = 600
POINTER_MS = 250
LEAVING_MS = 400
REGISTER_AGAIN_MS = 500
CHUNK_RECORDS_MAX = 8
PULL_RECORDS_MAX = 64
MIN_IN_SYNC = 2


class Machines:
    """The classes of the machines that a broker runs; a mutant puts others in their place."""

    progress: type[progress.Progress] = progress.Progress
    follower: type[follower.Follower] = follower.Follower
    role: type[role.RoleOfBroker] = role.RoleOfBroker


class BrokerNode(Process):
    """One broker of the set."""

    def __init__(
        self, world: World, name: str, network: Network, checkers: Checkers, machines: Machines, *, is_learner: bool
    ) -> None:
        super().__init__(world, name)
        self.disk = LogDisk()
        self.broker_id = 0
        self.is_learner = is_learner
        self.peers: dict[int, BrokerNode] = {}
        self.controllers: list[ControllerNode] = []
        self._network = network
        self._checkers = checkers
        self._machines = machines

    def start(self) -> None:
        """A new process on the disk as it is."""
        self.begin_life()
        self.disk.recover()
        self.note(f"starts, log up to {len(self.disk.log)}, epochs {[tuple(each) for each in self.disk.entries]}")
        self._links: dict[str, ControllerLink] = {}
        self._is_registered = False
        self._is_leaving = False
        self._lease_id = 0
        self._request_count = 0
        self._register_due_ms = 0
        self._role: role.RoleOfBroker | None = None
        self._follower = self._machines.follower()
        self._master_link: MasterLink | None = None
        self._replicas: dict[int, ReplicaSession] = {}
        self._progress: progress.Progress | None = None
        self._waiting: list[tuple[int, int]] = []
        self._pointer_offset = self.safe_pointer(self.disk.pointer_offset, len(self.disk.log))
        self.every(TICK_MS, self._tick)
        self.every(BEAT_MS, self._beat)
        self.every(SYNC_MS, self.disk.sync)
        self.every(POINTER_MS, self._save_pointer)

    def stop(self, *, power: bool = False, clean: bool = False) -> None:
        """Killed; or its machine loses power; or it stops in order, with everything synced."""
        if clean:
            self.disk.sync()
        self.disk.was_clean = clean
        self.end_life()
        lost = self.disk.lose_power(self.world.chance) if power else 0
        self.note(f"loses power, and {lost} bytes" if power else "stops cleanly" if clean else "is killed")
        self._network.dies(self)

    def leave(self) -> None:
        """Stop in order: no more sends, a word to the controllers, and a while in which others can take over."""
        self.note("leaves")
        self._is_leaving = True
        self._post(requests.Leave(0, self.broker_id, self.disk.starts))
        self.world.after(LEAVING_MS, self.run(lambda: self.stop(clean=True)))

    def meet_again(self) -> None:
        """A replica says hello anew: it has something else to say of itself."""
        if self.is_up and self._master_link is not None:
            self._master_link.close()

    @property
    def is_leading(self) -> bool:
        """Whether it serves as master."""
        return self.is_up and self._progress is not None

    @property
    def is_halted(self) -> bool:
        """Whether it waits for a person."""
        return self.is_up and self._follower.phase is follower.Phase.HALTED

    @property
    def is_copying(self) -> bool:
        """Whether it continues its master's log."""
        return self.is_up and self._follower.phase is follower.Phase.COPYING

    def break_streams(self) -> None:
        """Those of its replicas end."""
        for session in list(self._replicas.values()):
            session.close()

    @property
    def log(self) -> bytes:
        """All of it."""
        return bytes(self.disk.log)

    def readable(self) -> bytes:
        """What a reader gets to see."""
        return bytes(self.disk.log[: self.disk.confirm_offset])

    # Clients

    def pull(self) -> bytes:
        """What comes next for the one group that consumes; its progress is kept here."""
        self._pointer_offset = max(self._pointer_offset, self.disk.min_offset)
        data = self.readable()[self._pointer_offset : self._pointer_offset + PULL_RECORDS_MAX * RECORD_SIZE_BYTES]
        if data:
            self._pointer_offset += len(data)
            for session in self._replicas.values():
                session.send(Consumed(self._pointer_offset))
        return data

    def safe_pointer(self, offset: int, held_offset: int) -> int:
        """A progress pointer is never ahead of the log that it depends on (architecture §5): ahead means loss."""
        return min(offset, held_offset)

    def _save_pointer(self) -> None:
        self.disk.pointer_offset = self.safe_pointer(self._pointer_offset, self.disk.synced_size)

    def send(self, message_id: int) -> bool:
        """A client sends, and is told by the checkers when it is acknowledged. False: it is refused."""
        if self._progress is None or not self._progress.takes_writes or self._is_leaving:
            return False
        self._waiting.append((self.append(message_id, self._progress), message_id))
        self._acknowledge()
        return True

    def append(self, message_id: int, led: progress.Progress) -> int:
        """Store a record as the master, and have it copied; gives where it ends."""
        log = self.disk.log
        queue_offset = decode_record(bytes(log[-RECORD_SIZE_BYTES:])).queue_offset + 1 if log else 0
        self.disk.append(encode_record(Record(message_id, queue_offset, led.epoch)))
        end_offset = len(log)
        self._advance(progress.Written(end_offset))
        self._feed_all()
        return end_offset

    # Controllers

    def _tick(self) -> None:
        for controller in self.controllers:
            if controller.name not in self._links and controller.is_up and self._reaches(controller):
                self._links[controller.name] = ControllerLink(self, controller)
        if not self._is_registered and self.now_ms >= self._register_due_ms and self._links:
            self._register_due_ms = self.now_ms + REGISTER_AGAIN_MS
            self._register()
        if self._role is not None:
            self._play(self._role.step(role.Tick(), self.now_ms))
        self._follow(follower.Tick())
        if self._progress is not None:
            self._advance(progress.Tick())

    def _reaches(self, other: Process) -> bool:
        return self._network.passes(self.name, other.name) and self._network.passes(other.name, self.name)

    def _register(self) -> None:
        for link in self._links.values():
            self._request_count += 1
            link.send(
                Ask(
                    requests.Register(
                        self._request_count,
                        self.broker_id,
                        self.name,
                        f"{self.name}:10911",
                        self.disk.starts,
                        str(self.disk.boot),
                        clean_stop=self.disk.was_clean,
                        lost_unsynced=self.disk.lost_unsynced,
                        last_epoch=self.disk.last_epoch,
                        end_offset=len(self.disk.log),
                        is_learner=self.is_learner,
                        known_master_epoch=self.disk.known.master_epoch,
                        known_set_epoch=self.disk.known.set_epoch,
                        known_members=self.disk.known.members,
                    )
                )
            )

    def _beat(self) -> None:
        if not self._is_registered:
            return
        epoch = self.disk.last_epoch
        beat = Beat(self.broker_id, self.disk.starts, self._lease_id, epoch, len(self.disk.log))
        for link in self._links.values():
            link.send(beat)
        for session in self._replicas.values():
            session.feed(sign_of_life=True)

    def from_controller(self, message: object) -> None:
        """A controller says something."""
        match message:
            case Answered(_, requests.Accepted(broker_id, state), lease_id) if lease_id:
                self._registered(broker_id, state, lease_id)
            case Answered(_, requests.Accepted(_, state)) | Notify(state):
                self._told(state)
            case Answered(_, requests.Refused(code, text)) if code != 2007:
                self.note(f"is refused: {code.name}: {text}")
            case LeaseGone():
                self._is_registered = False
            case _:
                pass

    def _registered(self, broker_id: int, state: SyncState, lease_id: int) -> None:
        if self.broker_id not in {0, broker_id}:
            self.note(f"is broker {self.broker_id}, and passes over the late answer that it is broker {broker_id}")
            return
        self._is_registered, self._lease_id = True, lease_id
        self.broker_id = broker_id
        self.peers[broker_id] = self
        if self._role is None:
            self._role = self._machines.role(broker_id, self.disk.last_epoch)
        self._beat()
        self._told(state)

    def lost_controller(self, name: str) -> None:
        """A stream to a controller ended."""
        self._links.pop(name, None)

    def _told(self, state: SyncState) -> None:
        if self._role is not None:
            self.disk.known = self.disk.known.hearing(state.master_epoch, state.set_epoch, state.members)
            told = role.Told(state.master_id, state.master_epoch, frozenset(state.members), state.set_epoch)
            self._play(self._role.step(told, self.now_ms))

    # Role

    def _play(self, effects: tuple[role.Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case role.SaveEpoch(epoch):
                    self.disk.add_entry(EpochEntry(epoch, len(self.disk.log)))
                    assert self._role is not None
                    self._play(self._role.step(role.EpochSaved(epoch), self.now_ms))
                case role.Lead(epoch, members, set_epoch):
                    self._lead(epoch, progress.TakeSet(members, set_epoch))
                case role.TakeSet(members, set_epoch):
                    self._advance(progress.TakeSet(members, set_epoch))
                case role.StopLeading():
                    self._stop_leading()
                case role.Follow(master_id, epoch):
                    self.note(f"follows broker {master_id} in epoch {epoch}")
                    self._follow(follower.Follow(master_id, epoch))
                case role.Knows(master_epoch, set_epoch):
                    for link in self._links.values():
                        link.send(KnowsState(self.broker_id, master_epoch, set_epoch))
                case role.AskElection(over_epoch):
                    self._post(requests.AskElection(0, self.broker_id, over_epoch))

    def _post(self, request: requests.Request) -> None:
        """Beside the streams: lost, late, doubled, in any order."""
        for link in self._links.values():
            self._network.post(self, link.controller, link.deliver(Ask(request)))

    def _lead(self, epoch: int, known: progress.TakeSet) -> None:
        self.note(f"leads epoch {epoch} with set {sorted(known.members)} from offset {len(self.disk.log)}")
        self._follow(follower.Stop())
        self._checkers.leads(self, epoch)
        self._progress = self._machines.progress(
            epoch,
            progress.Member(self.broker_id, self.disk.starts),
            known,
            end_offset=len(self.disk.log),
            confirm_offset=self.disk.confirm_offset,
            min_in_sync=MIN_IN_SYNC,
            now_ms=self.now_ms,
        )
        self._advance(progress.Tick())

    def _stop_leading(self) -> None:
        self.note("leads no longer")
        self._progress = None
        self._waiting.clear()
        for session in list(self._replicas.values()):
            session.close()
        self._replicas.clear()

    def _advance(self, event: progress.Event) -> None:
        if self._progress is None:
            return
        for effect in self._progress.step(event, self.now_ms):
            match effect:
                case progress.Confirm(offset):
                    self._set_confirm(offset)
                case progress.Propose(epoch, set_epoch, members):
                    self.note(f"proposes set {[each.broker_id for each in members]} from {set_epoch} in epoch {epoch}")
                    proposed = {each.broker_id for each in members}
                    self.disk.known = self.disk.known.hearing(epoch, set_epoch, proposed | self._progress.members)
                    wanted = tuple(requests.Member(each.broker_id, each.incarnation) for each in members)
                    self._post(requests.ChangeSet(0, self.broker_id, epoch, set_epoch, wanted))
        self._acknowledge()

    def _acknowledge(self) -> None:
        assert self._progress is not None
        while self._waiting and self._progress.may_acknowledge(self._waiting[0][0]):
            end_offset, message_id = self._waiting.pop(0)
            self._checkers.acknowledged(self, message_id, end_offset)

    def _set_confirm(self, offset: int) -> None:
        if offset > self.disk.confirm_offset:
            self.disk.confirm_offset = offset
            self._checkers.confirmed(self, offset)

    # As a master

    def welcome(self, stream: Callable[[], Stream]) -> ReplicaSession:
        """A replica's stream arrives."""
        return ReplicaSession(self, stream)

    def from_replica(self, session: ReplicaSession, message: object) -> None:
        """A replica says something."""
        if self._progress is None:
            session.close()
            return
        match message:
            case Hello(epoch, broker_id) if epoch == self._progress.epoch:
                session.hello = message
                self._replicas[broker_id] = session
                session.send(Welcome(epoch, self.disk.entries, self.disk.min_offset, len(self.disk.log)))
            case Hello():
                session.close()
            case AskCrc(start, _, _) if start < self.disk.min_offset:
                session.close()
            case AskCrc(start, end, crc):
                ours = zlib.crc32(self.disk.log[start:end]) if end <= len(self.disk.log) else None
                session.send(CrcSame(self._progress.epoch, ours == crc))
            case CopyFrom(offset):
                session.next_offset = offset
                session.feed()
            case Ack(epoch, offset):
                assert session.hello is not None
                who = progress.Member(session.hello.broker_id, session.hello.incarnation)
                has_tables = self.has_tables(session)
                self._advance(progress.Acknowledged(epoch, who, offset, session.hello.is_learner, has_tables))

    def has_tables(self, session: ReplicaSession) -> bool:
        """Whether a replica has stored what belongs to the log and is no part of it; here there is nothing such."""
        return True

    def chunk_from(self, offset: int) -> follower.Chunk | None:
        """The next piece of the log for a replica; it never crosses the end of an epoch."""
        if self._progress is None or offset < self.disk.min_offset:
            return None
        entry = [each for each in self.disk.entries if each.start_offset <= offset][-1]
        ends = [each.start_offset for each in self.disk.entries if each.start_offset > offset]
        end = min([len(self.disk.log), offset + CHUNK_RECORDS_MAX * RECORD_SIZE_BYTES, *ends])
        data = bytes(self.disk.log[offset:end])
        return follower.Chunk(self._progress.epoch, offset, data, entry, self._progress.confirm_offset)

    def _feed_all(self) -> None:
        for session in self._replicas.values():
            session.feed()

    def lost_replica(self, session: ReplicaSession) -> None:
        """A replica's stream ended."""
        if session.hello is not None and self._replicas.get(session.hello.broker_id) is session:
            del self._replicas[session.hello.broker_id]

    # As a replica

    def _follow(self, event: follower.Event) -> None:
        for effect in self._follower.step(event, self.now_ms):
            match effect:
                case follower.Connect(master_id, epoch):
                    self._connect(master_id, epoch)
                case follower.Compare(start, end):
                    self._to_master(AskCrc(start, end, zlib.crc32(self.disk.log[start:end])))
                case follower.Cut(offset):
                    self.note(f"cuts its log from {len(self.disk.log)} to {offset}")
                    self.disk.cut(offset)
                    self._pointer_offset = self.safe_pointer(self._pointer_offset, offset)
                    self._checkers.cut(self)
                case follower.StartOver(offset):
                    self.note(f"starts over at {offset}")
                    self.disk.clear(offset)
                    self._pointer_offset = self.safe_pointer(self._pointer_offset, offset)
                case follower.Copy(offset):
                    self._to_master(CopyFrom(offset))
                case follower.SaveEpoch(entry):
                    self.disk.add_entry(entry)
                case follower.Append(offset, data):
                    if offset != len(self.disk.log):
                        raise AssertionError(f"{self.name} appends at {offset}, its log ends at {len(self.disk.log)}")
                    self.disk.append(data)
                case follower.SetConfirm(offset):
                    self._set_confirm(offset)
                case follower.Acknowledge(epoch, offset):
                    self._to_master(Ack(epoch, offset))
                case follower.Halt(confirm_offset, common_offset):
                    self.note(f"halts: confirmed up to {confirm_offset}, in common {common_offset}")
                    self._checkers.halted(self)

    def _connect(self, master_id: int, epoch: int) -> None:
        if self._master_link is not None:
            self._master_link.close()
        master = self.peers.get(master_id)
        self._master_link = None
        if master is None or not master.is_up or not self._reaches(master):
            return
        self._master_link = MasterLink(self, master)
        self._to_master(Hello(epoch, self.broker_id, self.disk.starts, self.is_learner))

    def _to_master(self, message: object) -> None:
        if self._master_link is not None:
            self._master_link.send(message)

    def from_master(self, link: MasterLink, message: object) -> None:
        """The master says something; streams that were given up are passed over."""
        if link is not self._master_link:
            return
        match message:
            case Welcome(epoch, entries, min_offset, end_offset):
                disk = self.disk
                log = follower.Log(disk.entries, disk.min_offset, len(disk.log), disk.confirm_offset)
                self._follow(follower.Met(epoch, entries, min_offset, end_offset, log))
            case CrcSame(epoch, is_same):
                self._follow(follower.Compared(epoch, is_same))
            case follower.Chunk():
                self._follow(message)
            case Consumed(offset):
                self._pointer_offset = self.safe_pointer(offset, self.disk.confirm_offset)

    def lost_master(self, link: MasterLink) -> None:
        """The stream to the master ended."""
        if link is self._master_link:
            self._master_link = None
            self._follow(follower.Broken())


class ControllerLink:
    """A broker's stream to a controller, at the broker's end."""

    def __init__(self, broker: BrokerNode, controller: ControllerNode) -> None:
        self.controller = controller
        self._broker = broker
        self._session: ControllerSession = controller.accept(lambda: self._stream)
        self._stream = broker._network.open(broker, controller, self, self._session)

    def send(self, message: object) -> None:
        """To the controller."""
        self._stream.send(self._broker, message)

    def deliver(self, message: object) -> Callable[[], None]:
        """What a message beside the stream does when it arrives."""
        return lambda: self._session.received(message)

    def received(self, message: object) -> None:
        """From the controller."""
        self._broker.from_controller(message)

    def broken(self) -> None:
        """The stream ended."""
        self._broker.lost_controller(self.controller.name)


class MasterLink:
    """A replica's stream to its master, at the replica's end."""

    def __init__(self, broker: BrokerNode, master: BrokerNode) -> None:
        self._broker = broker
        self._stream: Stream
        session = master.welcome(lambda: self._stream)
        self._stream = broker._network.open(broker, master, self, session)

    def send(self, message: object) -> None:
        """To the master."""
        self._stream.send(self._broker, message)

    def close(self) -> None:
        """Give it up."""
        self._stream.close()

    def received(self, message: object) -> None:
        """From the master."""
        self._broker.from_master(self, message)

    def broken(self) -> None:
        """The stream ended."""
        self._broker.lost_master(self)


class ReplicaSession:
    """A replica's stream, at the master's end."""

    def __init__(self, master: BrokerNode, stream: Callable[[], Stream]) -> None:
        self.hello: Hello | None = None
        self.next_offset: int | None = None
        self._master = master
        self._stream = stream

    def send(self, message: object) -> None:
        """To the replica."""
        self._stream().send(self._master, message)

    def close(self) -> None:
        """End the stream."""
        self._stream().close()

    def feed(self, *, sign_of_life: bool = False) -> None:
        """Send what the replica does not have yet."""
        while self.next_offset is not None:
            chunk = self._master.chunk_from(self.next_offset)
            if chunk is None or not (chunk.data or sign_of_life):
                return
            self.send(chunk)
            self.next_offset += len(chunk.data)
            sign_of_life = sign_of_life and bool(chunk.data)

    def received(self, message: object) -> None:
        """From the replica."""
        self._master.from_replica(self, message)

    def broken(self) -> None:
        """The stream ended."""
        self._master.lost_replica(self)
