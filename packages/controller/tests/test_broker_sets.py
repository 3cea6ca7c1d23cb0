"""The watch of a controller where etcd forgets what was to come, or refuses: a stand-in for etcd tells it so."""

import asyncio
from collections.abc import AsyncGenerator

from apogeemq.controller.core.broker_set import Replica, SetKeys, SyncState, encode
from apogeemq.controller.core.election import Refusal
from apogeemq.controller.core.etcd import Change, Found, Lease, Outcome, StoredKey, Transaction
from apogeemq.controller.core.requests import Refused
from apogeemq.controller.core.set_rules import SetRules
from apogeemq.controller.errors import Compacted, EtcdDenied, EtcdError, EtcdUnavailable
from apogeemq.controller.metrics import ControllerMetrics
from apogeemq.controller.service.broker_sets import WATCH_AGAIN_S, BrokerSets
from apogeemq.controller.service.set_runner import Ports
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.metrics import Registry
from opentelemetry.trace import NoOpTracer

KEYS = SetKeys("c", "broker-a")
STATE = SyncState(master_id=1, master_epoch=5, members=(1,), set_epoch=9)
REPLICA = Replica(1, "code", "host:10911", 1, "boot")
ALL = {KEYS.active: b"one:9870", KEYS.state: encode(STATE), KEYS.replica(1): encode(REPLICA), KEYS.live(1): b""}


class ScriptedEtcd:
    """Gives reads in turn, an error or keys, and after each good one a watch that ends with the next of `ends`."""

    def __init__(self, reads: list[dict[bytes, bytes] | EtcdError], ends: list[EtcdError]) -> None:
        self._reads = reads
        self._ends = ends
        self._revision = 10
        self.watched_from: list[int] = []

    async def read(self, key: bytes, range_end: bytes = b"", *, timeout_s: float) -> Found:
        answer = self._reads.pop(0)
        if isinstance(answer, EtcdError):
            raise answer
        self._revision += 10
        keys = (StoredKey(each, value, 5, self._revision, 1) for each, value in sorted(answer.items()))
        return Found(self._revision, tuple(keys))

    async def watch(
        self, key: bytes, range_end: bytes = b"", *, start_revision: int
    ) -> AsyncGenerator[tuple[Change, ...], None]:
        self.watched_from.append(start_revision)
        yield (Change(SetKeys("c", "broker-b").live(7), b"", 5, start_revision),)
        if self._ends:
            raise self._ends.pop(0)
        await asyncio.Event().wait()

    async def transact(self, transaction: Transaction, *, timeout_s: float) -> Outcome:
        raise EtcdUnavailable(["etcd:2379"], timeout_s, "this test has no transactions")

    async def grant(self, ttl_s: int, *, timeout_s: float) -> Lease:
        return Lease(1, ttl_s, 0)

    async def beat(self, lease_id: int, *, timeout_s: float) -> int:
        return 3

    async def alarms(self, *, timeout_s: float) -> frozenset[str]:
        return frozenset()

    async def revoke(self, lease_id: int, *, timeout_s: float) -> None:
        return None


class World:
    """The sets of one controller over a scripted etcd."""

    def __init__(self, etcd: ScriptedEtcd, *, sets_max: int = 10) -> None:
        self.clock = ManualClock()
        self.standings: list[str] = []
        self.troubles: list[str] = []
        ports = Ports(
            etcd,
            self.clock,
            lambda: int(self.clock.monotonic() * 1000),
            NoOpTracer(),
            ControllerMetrics(Registry(), "c"),
            call_timeout_s=3.0,
            broker_ttl_s=3,
        )
        self.sets = BrokerSets(
            "c", SetRules(), ports, sets_max=sets_max, on_standing=self._note, on_watch=self.troubles.append
        )

    def _note(self) -> None:
        self.standings.append(self.sets.active_name)

    async def watch(self) -> None:
        """Let the watch run until it has nothing more to do but wait."""
        task = asyncio.create_task(self.sets.watch())
        await self.clock.run_for(2 * WATCH_AGAIN_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_went_during_a_compaction_is_noticed() -> None:
    """Everything is read anew: keys that were known and are not there any more have gone, the active one's too."""
    left = {key: ALL[key] for key in (KEYS.state, KEYS.replica(1))}
    etcd = ScriptedEtcd([ALL, left], [Compacted(15)])
    world = World(etcd)
    await world.watch()
    runner = world.sets.by_name["broker-a"]
    assert etcd.watched_from == [21, 31]
    assert world.standings == ["one:9870", ""]
    assert (runner.state, runner.replicas) == (STATE, (REPLICA,))
    assert world.troubles == ["", ""]


async def test_a_set_that_is_deleted_is_forgotten() -> None:
    """Also where that was told by its absence alone."""
    world = World(ScriptedEtcd([ALL, {}], [Compacted(15)]))
    await world.watch()
    runner = world.sets.by_name["broker-a"]
    assert (runner.replicas, runner.is_empty) == ((), True)


async def test_a_refused_watch_is_told_and_tried_again() -> None:
    """A user without the right to read: the text of etcd reaches whoever asks whether the controller is ready."""
    denied = EtcdDenied("PERMISSION_DENIED", "etcdserver: permission denied")
    world = World(ScriptedEtcd([denied, ALL], []))
    await world.watch()
    assert world.troubles == [str(denied), ""]
    assert world.sets.active_name == "one:9870"


async def test_more_broker_sets_than_may_be_are_refused() -> None:
    """What etcd holds already is kept, whatever its number."""
    world = World(ScriptedEtcd([ALL], []), sets_max=1)
    await world.watch()
    assert set(world.sets.by_name) == {"broker-a", "broker-b"}
    refused = world.sets.of("broker-x")
    assert isinstance(refused, Refused)
    assert (refused.code, "limits.broker_sets_max" in refused.text) == (Refusal.INVALID_REQUEST, True)
    assert world.sets.of("broker-a") is world.sets.by_name["broker-a"]
