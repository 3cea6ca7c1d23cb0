"""A controller with a real etcd and raw brokers: what each failure and each wrong message ends in."""

import asyncio
import contextlib
import functools
import itertools
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import trustme
from apogeemq.controller.app import ETCD_CHECK, HEALTH_CHECK, ControllerApp
from apogeemq.controller.config import ControllerConfig, EtcdConfig, IdentityConfig, LeasesConfig, ListenersConfig
from apogeemq.mesh.chance import SeededChance
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.config import ListenerConfig
from apogeemq.mesh.memory_network import MemoryNetwork
from apogeemq.mesh.v1 import controller_pb2 as pb
from apogeemq.mesh.v1.methods import CLEAN_BROKER, DESCRIBE_SETS, ELECT_MASTER, RECOVER_SET, SWITCH_LEARNER
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from tests.etcd_cluster import EtcdCluster
from tests.raw_broker import Join, RawBroker

pytestmark = pytest.mark.verify

WAIT_S = 15.0
TTL_S = 2
_names = itertools.count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    """One member, which the tests of this module share, each with a cluster name of its own."""
    with EtcdCluster() as cluster:
        yield cluster


class World:
    """Controllers of one cluster name, over a network in memory."""

    def __init__(self, etcd: EtcdCluster) -> None:
        self.etcd = etcd
        self.etcd_endpoint = etcd.endpoints[0]
        self.cluster = f"cluster-{next(_names)}"
        self.network = MemoryNetwork(SystemClock(), SeededChance(1))
        self.apps: list[ControllerApp] = []

    async def controller(self, tracer: Tracer | None = None, /, **etcd_settings: str | bool) -> ControllerApp:
        """Start one; the first is waited for until it is active."""
        host = f"controller-{len(self.apps)}"
        config = ControllerConfig(
            identity=IdentityConfig(cluster_name=self.cluster),
            listeners=ListenersConfig(
                mesh=ListenerConfig(host=host, port=9870), http=ListenerConfig(enabled=False, host="127.0.0.1")
            ),
            etcd=EtcdConfig(endpoints=self.etcd_endpoint, **etcd_settings),  # type: ignore[arg-type]
            leases=LeasesConfig(controller_ttl_s=TTL_S, broker_ttl_s=TTL_S),
        )
        app = ControllerApp(config, network=self.network, tracer=tracer)
        self.apps.append(app)
        await app.start()
        return app

    async def active(self) -> ControllerApp:
        """Start one and wait until it is active."""
        app = await self.controller()
        await until(lambda: app.is_active and app.health.ready)
        return app

    def broker(self, app: ControllerApp, **other: object) -> RawBroker:
        settings = {"cluster": self.cluster, **other}
        return RawBroker(self.network, app.endpoints["mesh"], **settings)  # type: ignore[arg-type]

    async def described(self, app: ControllerApp) -> pb.DescribeSetsReply:
        channel = self.network.channel(app.endpoints["mesh"])
        try:
            return await channel.unary(DESCRIBE_SETS, pb.DescribeSetsRequest(), timeout_s=WAIT_S)
        finally:
            await channel.close()

    async def elect(self, app: ControllerApp, broker_id: int = 0) -> pb.OperatorReply:
        channel = self.network.channel(app.endpoints["mesh"])
        request = pb.ElectMasterRequest(broker_name="broker-a", broker_id=broker_id)
        try:
            return await channel.unary(ELECT_MASTER, request, timeout_s=WAIT_S)
        finally:
            await channel.close()

    async def recover(self, app: ControllerApp, broker_id: int) -> pb.OperatorReply:
        channel = self.network.channel(app.endpoints["mesh"])
        request = pb.RecoverSetRequest(broker_name="broker-a", broker_id=broker_id)
        try:
            return await channel.unary(RECOVER_SET, request, timeout_s=WAIT_S)
        finally:
            await channel.close()

    async def switch(self, app: ControllerApp, broker_id: int, *, on: bool) -> pb.OperatorReply:
        channel = self.network.channel(app.endpoints["mesh"])
        request = pb.SwitchLearnerRequest(broker_name="broker-a", broker_id=broker_id, is_learner=on)
        try:
            return await channel.unary(SWITCH_LEARNER, request, timeout_s=WAIT_S)
        finally:
            await channel.close()

    async def clean(self, app: ControllerApp, broker_id: int = 0) -> pb.OperatorReply:
        channel = self.network.channel(app.endpoints["mesh"])
        request = pb.CleanBrokerRequest(broker_name="broker-a", broker_id=broker_id)
        try:
            return await channel.unary(CLEAN_BROKER, request, timeout_s=WAIT_S)
        finally:
            await channel.close()

    def key(self, rest: str) -> str:
        return f"/apogeemq/{self.cluster}/controller/{rest}"


@pytest.fixture
async def world(etcd: EtcdCluster) -> AsyncIterator[World]:
    """Stopped after the test, also the controllers that it did not stop."""
    made = World(etcd)
    yield made
    for app in made.apps:
        if app.endpoints:
            await app.stop()


async def until(is_so: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    async def look() -> bool:
        return is_so()

    await eventually(look, timeout_s)


def says(app: ControllerApp, word: str) -> bool:
    """Whether the controller's health names this as what is wrong with etcd."""
    return word in app.health.checks[ETCD_CHECK].reason


async def eventually(look: Callable[[], Awaitable[bool]], timeout_s: float = WAIT_S) -> None:
    """Look again and again until it is so."""
    async with asyncio.timeout(timeout_s):
        for _ in itertools.repeat(None):
            if await look():
                return
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def pair(world: World, app: ControllerApp) -> AsyncIterator[tuple[RawBroker, RawBroker]]:
    """A master, id 1, and a slave, id 2, both in the SyncStateSet."""
    async with world.broker(app) as master, world.broker(app, code="code-2") as slave:
        assert (await master.register(address="one:1")).broker_id == 1
        assert (await slave.register(address="two:1")).broker_id == 2
        await master.until(lambda: master.beaten)
        await master.elect()
        await slave.until(lambda: slave.state.master_id == 1 and slave.beaten)
        assert not (await master.propose({1: 1, 2: 1})).HasField("refused")
        await slave.until(lambda: list(slave.state.members) == [1, 2])
        await master.until(lambda: list(master.state.members) == [1, 2])
        yield master, slave


async def test_brokers_register_are_told_and_form_a_set(world: World) -> None:
    """Ids by compare-and-swap, one master, the set as proposed; all are told, with everybody's addresses."""
    app = await world.active()
    async with pair(world, app) as (master, slave):
        assert (slave.state.master_id, slave.state.master_epoch, slave.state.set_epoch) == (1, 1, 2)
        assert {each.broker_id: each.address for each in slave.state.replicas} == {1: "one:1", 2: "two:1"}
        described = await world.described(app)
        assert (described.active, described.etcd_trouble) == (app.endpoints["mesh"], "")
        assert [(each.broker_id, each.is_alive, each.is_connected) for each in described.sets[0].brokers] == [
            (1, True, True),
            (2, True, True),
        ]
        assert [each.HasField("lag") for each in described.sets[0].brokers] == [True, True]
        assert all(0 < each.lease_left_ms <= TTL_S * 1000 for each in described.sets[0].brokers)
        [election] = described.sets[0].elections
        assert (election.master_epoch, election.master_id, election.reason) == (1, 1, "the set began")
        refused = (await slave.elect(over_epoch=1)).refused
        assert (refused.code, refused.text) == (2011, "broker 1 is master, and alive")
        refused = (await slave.propose({2: 1})).refused
        assert refused.code == 2002
        refused = (await master.propose({1: 1}, epoch=9)).refused
        assert (refused.code, refused.text) == (2000, "the master epoch is 1, not 9")
    text = app.registry.render()
    assert (
        f'election_total{{cluster="{world.cluster}",broker_set="broker-a",election_result="new_master_elected"}} 1'
        in (text)
    )
    assert 'request_total{request_type="CONTROLLER_REGISTER_BROKER",request_handle_status="success"} 2' in text
    assert "\nrole 3\n" in text


async def test_each_decision_is_a_span(world: World) -> None:
    """With what came of it: the registration, and the election that made an epoch."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = await world.controller(provider.get_tracer("controller"))
    await until(lambda: app.is_active)
    async with world.broker(app) as broker:
        await broker.register()
        await broker.elect()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["decide", "decide"]
    attributes = [span.attributes or {} for span in spans]
    assert [each["apogeemq.master_epoch"] for each in attributes] == [0, 1]
    assert {(each["apogeemq.broker_set"], each["apogeemq.outcome"]) for each in attributes} == {("broker-a", "done")}


async def test_a_state_is_told_until_it_is_known(world: World) -> None:
    """Notifications are repeated each second until the broker says that it took them in."""
    app = await world.active()
    async with world.broker(app) as broker:
        broker.knows = False
        await broker.register()
        await broker.elect()
        await broker.until(lambda: broker.told >= 3)
        assert len(broker.states) == 1
        await broker.say(Join(knows=Join.Knows(master_epoch=1, set_epoch=1)))
        await broker.until(lambda: broker.beaten)
        told, beaten = broker.told, broker.beaten
        await broker.until(lambda: broker.beaten >= beaten + 5)
        assert broker.told <= told + 1


async def test_the_next_member_follows_a_master_whose_stream_broke(world: World) -> None:
    """After the grace, in a new epoch; the one that comes back asks, and is told who is master now."""
    app = await world.active()
    async with pair(world, app) as (master, slave):
        await master.crash()
        await slave.until(lambda: slave.state.master_id == 2)
        assert (slave.state.master_epoch, list(slave.state.members)) == (2, [2])
        async with world.broker(app, incarnation=2) as again:
            answer = await again.register(broker_id=1, address="one:1", last_epoch=1)
            assert (answer.broker_id, answer.set_state.master_id, answer.set_state.master_epoch) == (1, 2, 2)
            assert (await again.elect(over_epoch=1)).set_state.master_id == 2


async def test_a_master_that_stops_cleanly_hands_over_first(world: World) -> None:
    """Nobody waits for a lease or a grace: the answer to its leave says who follows."""
    app = await world.active()
    async with pair(world, app) as (master, slave):
        answer = await master.ask(Join(leave=Join.Leave()))
        assert (answer.set_state.master_id, answer.set_state.master_epoch) == (2, 2)
        assert list(answer.set_state.members) == [2]
        await slave.until(lambda: slave.state.master_id == 2)
        keys = world.etcd.control("get", "--prefix", world.key("live/"), "--keys-only").split()
        assert keys == [world.key("live/broker-a/0000000002")]


async def test_a_broker_learns_from_its_registration_whether_it_is_a_learner(world: World) -> None:
    """As etcd has it: what was switched at run time holds after a restart, whatever the broker's own settings say."""
    app = await world.active()
    async with pair(world, app) as (_, slave):
        switched = await slave.ask(Join(set_learner=Join.SetLearner(is_learner=True)))
        assert switched.is_learner
        await slave.crash()
        async with world.broker(app, code="code-2", incarnation=2) as again:
            answer = await again.register(broker_id=2, address="two:1", last_epoch=1)
            assert (answer.broker_id, answer.is_learner) == (2, True)
            back = await again.ask(Join(set_learner=Join.SetLearner(is_learner=False)))
            assert not back.is_learner


async def test_an_operator_switches_learners_and_all_are_told(world: World) -> None:
    """A member leaves the set by it; one that is outside leaves the state as it is, and is told all the same."""
    app = await world.active()

    def is_told(broker: RawBroker, members: list[int], *, is_learner: bool) -> bool:
        flags = [each.is_learner for each in broker.state.replicas]
        return (list(broker.state.members), flags) == (members, [False, is_learner])

    async with pair(world, app) as (master, slave):
        assert list((await world.switch(app, 2, on=True)).set_state.members) == [1]
        for broker in (master, slave):
            await broker.until(functools.partial(is_told, broker, [1], is_learner=True))
        assert (await master.propose({1: 1, 2: 1})).refused.code == 2003
        set_epoch = slave.state.set_epoch
        assert not (await world.switch(app, 2, on=False)).HasField("refused")
        for broker in (master, slave):
            await broker.until(functools.partial(is_told, broker, [1], is_learner=False))
        assert slave.state.set_epoch == set_epoch
        assert not (await master.propose({1: 1, 2: 1})).HasField("refused")
        refused = (await world.switch(app, 1, on=True)).refused
        assert (refused.code, refused.text) == (2013, "it is master: elect another one first")
        assert (await world.switch(app, 9, on=True)).refused.code == 2010


async def test_a_stand_by_sends_brokers_on_and_keeps_their_leases(world: World) -> None:
    """A broker that beats to the stand-by alone outlives the active controller, and is known to the next one."""
    app = await world.active()
    standby = await world.controller()
    await until(lambda: standby.health.ready)
    async with world.broker(app) as broker, world.broker(standby) as second:
        await broker.register(address="one:1")
        await broker.until(lambda: broker.beaten)
        await broker.elect()
        refused = (
            await second.ask(Join(register=Join.Register(address="one:1", mesh_address="m:1", boot_id="boot")))
        ).refused
        assert (refused.code, refused.active) == (2007, app.endpoints["mesh"])
        assert (second.standing.is_active, second.standing.active) == (False, app.endpoints["mesh"])
        second.broker_id, second.lease_id = broker.broker_id, broker.lease_id
        second.start_beating()
        await second.until(lambda: second.state.master_id == 1)
        await broker.crash()
        begun_s = time.monotonic()
        await app.stop()
        await second.until(lambda: second.standing.is_active)
        assert time.monotonic() - begun_s < TTL_S + 1
        await until(lambda: time.monotonic() - begun_s > 2 * TTL_S, 3 * TTL_S)
        described = await world.described(standby)
        assert [(each.broker_id, each.is_alive) for each in described.sets[0].brokers] == [(1, True)]
        assert (described.sets[0].set_state.master_id, described.sets[0].set_state.master_epoch) == (1, 1)
        assert second.register_again == 0


async def test_two_brokers_that_claim_one_id(world: World) -> None:
    """The second is refused, and its beats open nothing: the first goes on as master."""
    app = await world.active()
    async with world.broker(app) as first, world.broker(app, code="other") as second:
        await first.register(address="one:1")
        await first.until(lambda: first.beaten)
        await first.elect()
        refused = (await second.register(broker_id=1, address="two:1")).refused
        assert (refused.code, refused.text) == (2014, "broker id 1 belongs to one:1")
        second.broker_id, second.lease_id = 1, first.lease_id
        second.start_beating()
        await second.until(lambda: second.register_again >= 2)
        assert second.states == []
        assert first.is_open
        copied = world.broker(app)
        async with copied:
            refused = (await copied.register(broker_id=1, address="copy:1")).refused
            assert (refused.code, refused.text) == (
                2014,
                "start 1 of broker 1 is at one:1: is this a copied directory?",
            )
        described = await world.described(app)
        assert [each.broker_id for each in described.sets[0].brokers] == [1]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Join(), "kind is not set, is newer than this controller, or is a second hello"),
        (Join(register=Join.Register(address="a:1", boot_id="b")), "mesh_address must have 1 to 255 bytes"),
        (
            Join(register=Join.Register(address="a:1", mesh_address="m:1", boot_id="b", last_epoch=2**31 - 1)),
            "last_epoch is 2147483647; it must be 0 to 2147483646",
        ),
        (Join(beat=Join.Beat(beat_id=1, broker_id=1)), "lease_id is 0; it must be 1 to 9223372036854775807"),
    ],
)
async def test_a_message_that_is_wrong_ends_the_stream(world: World, message: pb.JoinRequest, text: str) -> None:
    """With a last word that names the field; an epoch that leaves no room for the next one is wrong."""
    app = await world.active()
    async with world.broker(app) as broker:
        await broker.say(message)
        await broker.until(lambda: not broker.is_open)
        assert broker.refused is not None
        assert (broker.refused.code, broker.refused.text) == (2005, text)


async def test_a_broker_of_another_cluster_is_refused(world: World) -> None:
    """Before it can ask anything."""
    app = await world.active()
    async with world.broker(app, cluster="foreign") as broker:
        await broker.until(lambda: not broker.is_open)
        assert broker.refused is not None
        assert broker.refused.text == f"this is a controller of cluster {world.cluster!r}, not of 'foreign'"


async def test_an_epoch_from_the_future_makes_no_master_of_an_empty_etcd(world: World) -> None:
    """A set with a history that etcd does not know is not begun anew behind its back."""
    app = await world.active()
    async with world.broker(app) as broker:
        await broker.register(last_epoch=7)
        await broker.until(lambda: broker.beaten)
        refused = (await broker.elect(over_epoch=7)).refused
        assert refused.code == 2012
        assert refused.text == (
            "brokers remember epochs that etcd does not: it was emptied, and they do not remember who was in the"
            " SyncStateSet. To begin anew with one of them: `apogeemq-controller recover BROKER_NAME --from BROKER_ID`"
        )


async def test_an_etcd_that_was_wiped_elects_nobody_unless_all_members_are_there(world: World) -> None:
    """The master keeps its epoch by itself; a set begins anew, in a new epoch, when all remembered members are back."""
    app = await world.active()
    async with pair(world, app) as (master, slave):
        known = slave.state
        world.etcd.control("del", "--prefix", world.key(""))
        await master.until(lambda: master.register_again > 0)
        await until(lambda: app.is_active)
        slave.epoch, slave.end_offset = 1, 100
        await slave.register(broker_id=2, address="two:1", last_epoch=1, known=known)
        refused = (await slave.elect(over_epoch=1)).refused
        assert refused.code == 2012
        assert "of the SyncStateSet [1, 2] brokers [1] are not there: start them" in refused.text
        assert (await world.elect(app, 2)).refused.code == 2012
        assert [each.state.master_epoch for each in (master, slave)] == [1, 1]
        master.end_offset = 200
        await master.register(broker_id=1, address="one:1", last_epoch=1, known=known, end_offset=200)
        await slave.until(lambda: slave.state.master_epoch == 2)
        assert (slave.state.master_id, list(slave.state.members), slave.state.loss_epoch) == (1, [1], 0)


async def test_an_operator_recovers_a_wiped_set_from_one_broker(world: World) -> None:
    """Where members are gone for ever; the epoch is above every one reported, and says what may be lost."""
    app = await world.active()
    known = pb.SetState(members=[1, 2], master_epoch=7, set_epoch=9)
    async with world.broker(app, code="code-2", incarnation=4) as broker:
        await broker.register(broker_id=2, address="two:1", last_epoch=7, known=known)
        await broker.until(lambda: broker.beaten)
        refused = (await world.recover(app, 1)).refused
        assert (refused.code, refused.text) == (2008, "broker 1 is not registered, [2] are: start it first")
        recovered = (await world.recover(app, 2)).set_state
        assert (recovered.master_id, recovered.master_epoch, list(recovered.members)) == (2, 8, [2])
        assert (recovered.loss_epoch, recovered.possible_loss) == (8, False)
        await broker.until(lambda: broker.state.master_epoch == 8)
        assert (await world.recover(app, 2)).set_state == recovered
        assert (await broker.register(broker_id=0, address="two:1", last_epoch=8)).broker_id == 2


async def test_brokers_that_do_not_remember_their_set_are_left_as_they_are(world: World) -> None:
    """The brokers register anew; the master keeps its epoch by itself, and no other one comes up beside it."""
    app = await world.active()
    async with pair(world, app) as (master, slave):
        world.etcd.control("del", "--prefix", world.key(""))
        await master.until(lambda: master.register_again > 0)
        await until(lambda: app.is_active)
        await master.register(broker_id=1, address="one:1", last_epoch=1)
        await slave.register(broker_id=2, address="two:1", last_epoch=1)
        beaten = slave.beaten
        await slave.until(lambda: slave.beaten != beaten)
        assert (await slave.elect(over_epoch=1)).refused.code == 2012
        assert (await world.elect(app, 2)).refused.code == 2012
        described = await world.described(app)
        assert described.sets[0].set_state.master_id == 0
        assert [each.state.master_id for each in (master, slave)] == [1, 1]


async def test_a_value_that_nobody_can_read_stops_decisions_about_its_set_alone(world: World) -> None:
    """The answer and the status name the key; another set goes on."""
    app = await world.active()
    async with pair(world, app) as (_, slave), world.broker(app, name="broker-b", code="b") as other:
        world.etcd.control("put", world.key("sets/broker-a/state"), "{")

        async def is_in_trouble() -> bool:
            return bool((await world.described(app)).sets[0].trouble)

        await eventually(is_in_trouble)
        refused = (await slave.elect(over_epoch=1)).refused
        assert refused.code == 2015
        assert "sets/broker-a/state holds no SyncState" in refused.text
        await other.register(address="three:1")
        await other.until(lambda: other.beaten)
        assert (await other.elect()).set_state.master_id == 1


async def test_operators_elect_and_clean_up(world: World) -> None:
    """Whom they name follows, also while there is a master; only the dead are forgotten."""
    app = await world.active()

    async def is_cleaned(broker_id: int) -> bool:
        return not (await world.clean(app, broker_id)).HasField("refused")

    async with pair(world, app) as (master, slave):
        master.epoch = slave.epoch = 1
        elected = await world.elect(app, 2)
        assert (elected.set_state.master_id, elected.set_state.master_epoch) == (2, 2)
        assert list(elected.set_state.members) == [1, 2]
        assert (await world.elect(app, 3)).refused.code == 2004
        refused = (await world.clean(app, 1)).refused
        assert refused.code == 2009
        assert refused.text == "brokers [1] are alive: stop them first, and wait until their leases have ended"
        await master.ask(Join(leave=Join.Leave()))
        await master.crash()
        await slave.until(lambda: list(slave.state.members) == [2])
        await eventually(lambda: is_cleaned(1))
        assert [each.broker_id for each in (await world.clean(app, 1)).set_state.replicas] == [2]
        assert (await world.clean(app, 2)).refused.code == 2009
        await slave.ask(Join(leave=Join.Leave()))
    await eventually(lambda: is_cleaned(0))
    assert world.etcd.control("get", "--prefix", world.key("sets/"), "--keys-only").strip() == ""

    async def is_forgotten() -> bool:
        return not (await world.described(app)).sets

    await eventually(is_forgotten)


async def test_etcd_that_does_not_answer_changes_nothing_and_says_so(world: World) -> None:
    """Frozen for longer than the lease: nobody is elected meanwhile, the reason is told, and all goes on after it."""
    app = await world.active()
    async with pair(world, app) as (master, slave):
        world.etcd.freeze(0)
        try:
            await until(lambda: not app.health.checks[ETCD_CHECK].serving and not app.is_active)
            assert "no etcd member of" in app.health.checks[ETCD_CHECK].reason
            assert (await world.described(app)).etcd_trouble.startswith("no etcd member of")
            assert (await slave.elect(over_epoch=1)).refused.code == 2007
        finally:
            world.etcd.thaw(0)
        await until(lambda: app.is_active and app.health.ready)
        assert [each.state.master_epoch for each in (master, slave)] == [1, 1]


async def test_a_wrong_password_is_told_and_nothing_is_campaigned_for() -> None:
    """The controller runs, is not ready, and says why."""
    with EtcdCluster() as etcd:
        for words in ("user add root:secret", "user grant-role root root", "auth enable"):
            etcd.control(*words.split())
        world = World(etcd)
        app = await world.controller(user="root", password="wrong")
        try:
            await until(lambda: "authentication failed" in app.health.checks[ETCD_CHECK].reason)
            await until(lambda: "authentication failed" in app.health.checks[HEALTH_CHECK].reason)
            assert not app.is_active
            refused = (await world.elect(app)).refused
            assert (refused.code, refused.text) == (2007, "another controller is active: none yet")
        finally:
            await app.stop()
        app = await world.controller(user="root", password="secret")
        await until(lambda: app.is_active and app.health.ready)
        await app.stop()


async def test_a_full_etcd_takes_no_decision_and_ends_nothing() -> None:
    """Health, status and each refusal say so; streams, leases and the active one stay; all goes on after the disarm."""
    with EtcdCluster(options={"--quota-backend-bytes": str(2 << 20)}) as etcd:
        world = World(etcd)
        app = await world.active()
        try:
            async with pair(world, app) as (master, slave):
                for number in itertools.count():
                    if not await asyncio.to_thread(etcd.fill, f"/other/{number}", 100_000):
                        break
                await until(lambda: not app.health.checks[ETCD_CHECK].serving)
                told = "etcd has raised NOSPACE: its database is full and takes no changes: compact and defragment it"
                assert app.health.checks[ETCD_CHECK].reason.startswith(told)
                assert (await world.described(app)).etcd_trouble.startswith(told)
                refused = (await world.elect(app, 2)).refused
                assert refused.code == 2015
                assert "database space exceeded" in refused.text
                before = (master.beaten, slave.beaten)
                await until(lambda: master.beaten > before[0] + 10 and slave.beaten > before[1] + 10)
                assert (app.is_active, master.is_open, slave.is_open) == (True, True, True)
                assert (master.register_again, slave.register_again) == (0, 0)

                await asyncio.to_thread(etcd.control, "del", "--prefix", "/other/")
                await asyncio.to_thread(etcd.compact)
                await asyncio.to_thread(etcd.control, "defrag")
                await asyncio.to_thread(etcd.control, "alarm", "disarm")
                await until(lambda: app.health.ready)
                assert (await world.described(app)).etcd_trouble == ""
                elected = (await world.elect(app, 2)).set_state
                assert (elected.master_id, elected.master_epoch, list(elected.members)) == (2, 2, [1, 2])
        finally:
            await app.stop()


class Cut:
    """A way to etcd that can be closed: connections are cut then, and new ones refused."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, onward}
        await asyncio.gather(self._copy(reader, onward), self._copy(there, writer))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()


async def test_a_watch_that_is_behind_a_compaction_reads_everything_anew(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A stand-by that was cut off while keys were written, deleted and compacted away knows what holds now."""
    app = await world.active()
    way = Cut(world.etcd.endpoints[0])
    await way.open()
    world.etcd_endpoint = f"127.0.0.1:{way.port}"
    standby = await world.controller()
    await until(lambda: standby.health.ready)

    async def seen() -> dict[str, tuple[int, int]]:
        sets = (await world.described(standby)).sets
        return {each.broker_name: (each.set_state.master_id, each.set_state.master_epoch) for each in sets}

    async def sees(what: dict[str, tuple[int, int]]) -> bool:
        return await seen() == what

    async with pair(world, app), world.broker(app, name="broker-b", code="b") as other:
        await other.register(address="three:1")
        await eventually(lambda: sees({"broker-a": (1, 1), "broker-b": (0, 0)}))
        await way.close()
        assert (await world.elect(app, 2)).set_state.master_epoch == 2
        await other.ask(Join(leave=Join.Leave()))
        await other.crash()
        world.etcd.control("del", world.key("sets/broker-b/replicas/0000000001"))
        world.etcd.compact()
        assert await sees({"broker-a": (1, 1), "broker-b": (0, 0)})
        await way.open()
        await eventually(lambda: sees({"broker-a": (2, 2)}))
        assert "compacted away" in caplog.text
        await until(lambda: standby.health.ready)
    await standby.stop()
    await way.close()


async def test_etcd_is_spoken_to_by_tls_as_the_settings_say(tmp_path: pathlib.Path) -> None:
    """With the authority and a certificate all works; a wrong authority, or none shown, is named where one looks."""
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = {name: tmp_path / name for name in ("ca", "cert", "key", "stranger")}
    authority.cert_pem.write_to_path(paths["ca"])
    stranger.cert_pem.write_to_path(paths["stranger"])
    certificate.cert_chain_pems[0].write_to_path(paths["cert"])
    certificate.private_key_pem.write_to_path(paths["key"])
    own = {"cert_path": str(paths["cert"]), "key_path": str(paths["key"])}
    options = {"--client-cert-auth": "true", "--trusted-ca-file": str(paths["ca"])}
    with EtcdCluster(tls=paths, options=options) as etcd:
        world = World(etcd)
        for settings, word in (
            ({"ca_path": str(paths["stranger"]), **own}, "CERTIFICATE_VERIFY_FAILED"),
            ({"ca_path": str(paths["ca"])}, "BAD_CERTIFICATE"),
        ):
            app = await world.controller(tls=True, **settings)
            await until(functools.partial(says, app, word))
            assert f"{world.etcd_endpoint} takes no connection" in app.health.checks[ETCD_CHECK].reason
            assert "Check etcd.tls, etcd.ca_path, and the" in (await world.described(app)).etcd_trouble
            assert not app.is_active
            await app.stop()
        app = await world.controller(tls=True, ca_path=str(paths["ca"]), **own)
        await until(lambda: app.is_active and app.health.ready)
        async with world.broker(app) as broker:
            await broker.register()
            await broker.until(lambda: broker.beaten)
        await app.stop()
