"""The link to the controllers: whom it goes to, what it asks whom, and what it makes of their answers."""

from __future__ import annotations

from collections.abc import Callable

from apogeemq.broker.core.replication.progress import Member, Propose
from apogeemq.broker.core.replication.role import Told
from apogeemq.broker.core.replication.set_view import Registration, ReplicaInSet, SetView
from apogeemq.broker.links.beats import Beats
from apogeemq.broker.links.controllers import OPEN_AGAIN_S, ControllersLink, ControllerStream
from apogeemq.mesh.v1 import controller_pb2 as pb

REGISTRATION = Registration(
    broker_id=0,
    address="b:10911",
    mesh_address="b:10921",
    boot_id="boot",
    clean_stop=True,
    lost_unsynced=False,
    last_epoch=2,
    end_offset=300,
    priority=7,
    is_learner=False,
)
STATE = pb.SetState(
    master_id=1,
    master_epoch=4,
    members=[1, 2],
    set_epoch=9,
    replicas=[
        pb.SetState.Replica(broker_id=1, address="a:1", mesh_address="a:2", incarnation=3),
        pb.SetState.Replica(broker_id=2, address="b:1", mesh_address="b:2", incarnation=1, is_learner=True),
    ],
    possible_loss=True,
)
VIEW = SetView(
    Told(1, 4, frozenset({1, 2}), 9),
    {1: ReplicaInSet("a:1", "a:2", 3, is_learner=False), 2: ReplicaInSet("b:1", "b:2", 1, is_learner=True)},
    possible_loss=True,
)


class Stream:
    """A stream that a test ends, and answers on."""

    def __init__(self, target: str, on_message: Callable[[pb.JoinReply], None], on_end: Callable[[str], None]) -> None:
        self.target = target
        self.say = on_message
        self.end = on_end
        self.sent: list[pb.JoinRequest] = []
        self.is_closed = False

    def send(self, message: pb.JoinRequest) -> None:
        self.sent.append(message)

    async def close(self) -> None:
        self.is_closed = True

    def kinds(self) -> list[str | None]:
        return [each.WhichOneof("kind") for each in self.sent]

    def stands(self, *, is_active: bool, active: str = "") -> None:
        self.say(pb.JoinReply(standing=pb.JoinReply.Standing(is_active=is_active, active=active)))


class Heard:
    """ControllerEvents that are kept."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def registered(self, request_id: int, broker_id: int, lease_id: int, view: SetView) -> None:
        self.events.append(("registered", request_id, broker_id, lease_id, view))

    def accepted(self, request_id: int, view: SetView) -> None:
        self.events.append(("accepted", request_id, view))

    def refused(self, request_id: int, code: int, text: str) -> None:
        self.events.append(("refused", request_id, code, text))

    def told(self, view: SetView) -> None:
        self.events.append(("told", view))

    def register_again(self) -> None:
        self.events.append(("register again",))


class World:
    """A link over such streams."""

    def __init__(self, *targets: str) -> None:
        self.heard = Heard()
        self.streams: list[Stream] = []
        self.beats = Beats(end_offset=lambda: 0, epoch=lambda: 0, boot_time=lambda: 0.0)
        self.link = ControllersLink(
            targets,
            cluster="C",
            broker_name="broker-a",
            check_code="code",
            incarnation=5,
            beats=self.beats,
            events=self.heard,
            open_stream=self._open,
        )

    def _open(
        self,
        target: str,
        hello: pb.JoinRequest,
        due: Callable[[], pb.JoinRequest | None],
        on_message: Callable[[pb.JoinReply], None],
        on_end: Callable[[str], None],
    ) -> ControllerStream:
        assert due == self.beats.make
        stream = Stream(target, on_message, on_end)
        stream.send(hello)
        self.streams.append(stream)
        return stream

    @property
    def targets(self) -> list[str]:
        return [each.target for each in self.streams]


async def test_it_says_hello_to_two() -> None:
    """A broker beats to two controllers, however many there are (architecture §6.2)."""
    world = World("c1", "c2", "c3")
    await world.link.tick(0.0)
    await world.link.tick(0.1)
    assert world.targets == ["c1", "c2"]
    hello = world.streams[0].sent[0].hello
    assert (hello.cluster, hello.broker_name, hello.check_code, hello.incarnation) == ("C", "broker-a", "code", 5)


async def test_a_stream_that_ended_is_opened_again_after_a_while() -> None:
    """0.5 s after its last attempt; the other one stays."""
    world = World("c1", "c2")
    await world.link.tick(0.0)
    world.streams[0].end("gone")
    await world.link.tick(OPEN_AGAIN_S - 0.1)
    assert world.targets == ["c1", "c2"]
    assert world.streams[0].is_closed
    await world.link.tick(OPEN_AGAIN_S)
    assert world.targets == ["c1", "c2", "c1"]
    world.streams[0].stands(is_active=True)
    assert world.link.active == ""


async def test_the_active_one_is_asked() -> None:
    """Whatever changes the set goes to it alone, and nowhere while there is none; what is known goes to both."""
    world = World("c1", "c2")
    assert world.link.register(REGISTRATION) == 0
    await world.link.tick(0.0)
    assert world.link.leave() == 0
    world.streams[0].stands(is_active=False, active="c2")
    world.streams[1].stands(is_active=True, active="c2")
    assert world.link.active == "c2"
    assert world.link.register(REGISTRATION) > 0
    world.link.ask_election(4)
    world.link.propose(Propose(4, 9, (Member(1, 3), Member(2, 1))))
    world.link.knows(4, 9)
    assert world.link.leave() > 0
    assert world.streams[0].kinds() == ["hello", "knows"]
    assert world.streams[1].kinds() == ["hello", "register", "ask_election", "change_set", "knows", "leave"]
    register, change = world.streams[1].sent[1].register, world.streams[1].sent[3].change_set
    assert (register.address, register.mesh_address, register.boot_id) == ("b:10911", "b:10921", "boot")
    assert (register.clean_stop, register.last_epoch, register.end_offset, register.priority) == (True, 2, 300, 7)
    assert (change.master_epoch, change.set_epoch) == (4, 9)
    assert [(each.broker_id, each.incarnation) for each in change.members] == [(1, 3), (2, 1)]


async def test_it_goes_to_an_active_one_that_it_was_not_told_of() -> None:
    """In the place of the second: the others agree that it is neither of them."""
    world = World("c1", "c2", "c3")
    await world.link.tick(0.0)
    world.streams[0].stands(is_active=False, active="c3")
    await world.link.tick(0.1)
    assert world.targets == ["c1", "c2", "c3"]
    assert world.streams[1].is_closed
    world.streams[2].stands(is_active=True, active="c3")
    assert world.link.active == "c3"


async def test_answers_find_their_meaning() -> None:
    """A registration's has a lease; one to an earlier registration is passed over, as its lease is not used."""
    world = World("c1")
    await world.link.tick(0.0)
    stream = world.streams[0]
    stream.stands(is_active=True)
    late = world.link.register(REGISTRATION)
    now = world.link.register(REGISTRATION)
    for request_id, lease_id in ((late, 70), (now, 71)):
        stream.say(
            pb.JoinReply(
                answer=pb.JoinReply.Answer(request_id=request_id, broker_id=2, lease_id=lease_id, set_state=STATE)
            )
        )
    stream.say(pb.JoinReply(set_state=STATE))
    leave = world.link.leave()
    stream.say(pb.JoinReply(answer=pb.JoinReply.Answer(request_id=leave, broker_id=2, set_state=STATE)))
    refused = pb.Refused(code=2007, text="not me")
    stream.say(pb.JoinReply(answer=pb.JoinReply.Answer(request_id=9, refused=refused)))
    stream.say(pb.JoinReply(register_again=pb.JoinReply.RegisterAgain()))
    stream.say(pb.JoinReply(refused=pb.Refused(code=2005, text="another cluster")))
    assert world.heard.events == [
        ("registered", now, 2, 71, VIEW),
        ("told", VIEW),
        ("accepted", leave, VIEW),
        ("refused", 9, 2007, "not me"),
        ("register again",),
        ("refused", 0, 2005, "another cluster"),
    ]


async def test_beats_are_answered() -> None:
    """What Beaten says makes the lease good."""
    world = World("c1")
    await world.link.tick(0.0)
    world.beats.take_lease(2, 77)
    made = world.beats.make()
    assert made is not None
    beaten = pb.JoinReply.Beaten(beat_id=made.beat.beat_id, lease_ttl_ms=3_000)
    world.streams[0].say(pb.JoinReply(beaten=beaten))
    assert world.beats.is_lease_good


async def test_it_closes_every_stream() -> None:
    """Those that are open, and those that had ended."""
    world = World("c1", "c2")
    await world.link.tick(0.0)
    world.streams[0].end("gone")
    await world.link.close()
    assert [each.is_closed for each in world.streams] == [True, True]
