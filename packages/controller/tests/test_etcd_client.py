"""The etcd client against real members: calls, leases and watches, while members die, freeze and come back."""

import asyncio
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import trustme
from apogeemq.controller.core.etcd import (
    Change,
    Compare,
    Delete,
    Field,
    Put,
    Read,
    Relation,
    Transaction,
    end_of_prefix,
    is_absent,
    is_same_key,
    is_unchanged,
)
from apogeemq.controller.errors import (
    Compacted,
    EtcdDenied,
    EtcdOutcomeUnknown,
    EtcdRefused,
    EtcdUnavailable,
    LeaseGone,
)
from apogeemq.controller.links.etcd.calls import Credentials
from apogeemq.controller.links.etcd.client import PAGE_KEYS, EtcdClient, boottime_ms
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.tls import ClientTls

from tests.etcd_cluster import EtcdCluster

pytestmark = pytest.mark.verify

TIMEOUT_S = 5.0


@pytest.fixture(scope="module")
def single() -> Iterator[EtcdCluster]:
    """One member, which the tests of this module share, each with keys of its own."""
    with EtcdCluster() as cluster:
        yield cluster


@pytest.fixture
def three() -> Iterator[EtcdCluster]:
    """Three members, to be killed."""
    with EtcdCluster(3) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def connected(
    cluster: EtcdCluster, *, tls: ClientTls | None = None, credentials: Credentials | None = None, first: int = 0
) -> AsyncIterator[EtcdClient]:
    """A client whose first member is `first`."""
    endpoints = [*cluster.endpoints[first:], *cluster.endpoints[:first]]
    client = EtcdClient(endpoints, clock=SystemClock(), tls=tls, credentials=credentials)
    try:
        yield client
    finally:
        await client.close()


async def put(client: EtcdClient, key: bytes, value: bytes, lease_id: int = 0) -> int:
    """Write a key whatever it was; gives the revision."""
    return (await client.transact(Transaction((), (Put(key, value, lease_id),)), timeout_s=TIMEOUT_S)).revision


async def following(changes: AsyncIterator[tuple[Change, ...]], count: int) -> list[Change]:
    """The next so many changes of a watch."""
    found: list[Change] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found += await anext(changes)
    return found


# -- transactions and reads


async def test_a_key_is_made_once(single: EtcdCluster) -> None:
    """Create if absent: of two that try, the second is told who was first; its revisions are the key's."""
    async with connected(single) as client:
        attempt = Transaction((is_absent(b"/once"),), (Put(b"/once", b"a"),), (Read(b"/once"),))
        first = await client.transact(attempt, timeout_s=TIMEOUT_S)
        second = await client.transact(attempt, timeout_s=TIMEOUT_S)
        assert (first.succeeded, first.found) == (True, ((),))
        assert not second.succeeded
        [[found]] = second.found
        assert (found.key, found.value, found.version, found.lease_id) == (b"/once", b"a", 1, 0)
        assert found.create_revision == found.mod_revision == first.revision == second.revision


async def test_a_change_is_made_only_over_what_was_read(single: EtcdCluster) -> None:
    """Compare-and-swap by revision; a key that was deleted and made again is another one."""
    async with connected(single) as client:
        made = await put(client, b"/cas", b"1")
        swap = Transaction((is_unchanged(b"/cas", made),), (Put(b"/cas", b"2"),))
        assert (await client.transact(swap, timeout_s=TIMEOUT_S)).succeeded
        assert not (await client.transact(swap, timeout_s=TIMEOUT_S)).succeeded
        again = Transaction((is_same_key(b"/cas", made),), (Delete(b"/cas"), Read(b"/cas")))
        assert (await client.transact(again, timeout_s=TIMEOUT_S)).found == ((), ())
        await put(client, b"/cas", b"3")
        assert not (await client.transact(again, timeout_s=TIMEOUT_S)).succeeded


@pytest.mark.parametrize(
    ("field", "relation", "expected", "holds"),
    [
        (Field.VALUE, Relation.EQUAL, b"m", True),
        (Field.VALUE, Relation.LESS, b"n", True),
        (Field.VALUE, Relation.NOT_EQUAL, b"m", False),
        (Field.VERSION, Relation.GREATER, 1, True),
        (Field.VERSION, Relation.GREATER, 2, False),
        (Field.LEASE_ID, Relation.EQUAL, 0, True),
        (Field.LEASE_ID, Relation.NOT_EQUAL, 0, False),
    ],
)
async def test_conditions(
    single: EtcdCluster, field: Field, relation: Relation, expected: int | bytes, holds: bool
) -> None:
    """Each field with each relation goes over as what it is."""
    async with connected(single) as client:
        await client.transact(Transaction((), (Delete(b"/conditions"),)), timeout_s=TIMEOUT_S)
        await put(client, b"/conditions", b"l")
        await put(client, b"/conditions", b"m")
        condition = Compare(b"/conditions", field, relation, expected)
        assert (await client.transact(Transaction((condition,), ()), timeout_s=TIMEOUT_S)).succeeded is holds


async def test_a_long_range_is_read_in_pages_of_one_moment(single: EtcdCluster) -> None:
    """More keys than one answer has come all, sorted, as they were at the revision that is told."""
    keys = [b"/many/%05d" % number for number in range(PAGE_KEYS + 50)]
    async with connected(single) as client:
        for start in range(0, len(keys), 100):
            puts = tuple(Put(key, b"x") for key in keys[start : start + 100])
            last = await client.transact(Transaction((), puts), timeout_s=TIMEOUT_S)
        found = await client.read(b"/many/", end_of_prefix(b"/many/"), timeout_s=TIMEOUT_S)
        assert [each.key for each in found.keys] == keys
        assert found.revision == last.revision
        assert (await client.read(b"/many/00007", timeout_s=TIMEOUT_S)).keys == (found.keys[7],)
        assert (await client.read(b"/none", timeout_s=TIMEOUT_S)).keys == ()


async def test_what_etcd_refuses_is_told_in_its_words(single: EtcdCluster) -> None:
    """A transaction that writes a key twice changes nothing."""
    async with connected(single) as client:
        twice = Transaction((), (Put(b"/twice", b"1"), Put(b"/twice", b"2")))
        with pytest.raises(EtcdRefused, match=r"INVALID_ARGUMENT.*duplicate key"):
            await client.transact(twice, timeout_s=TIMEOUT_S)
        assert (await client.read(b"/twice", timeout_s=TIMEOUT_S)).keys == ()


async def test_without_a_member_a_call_ends_in_time() -> None:
    """Nobody listens: the error names the endpoints and says that nothing was changed."""
    client = EtcdClient(["127.0.0.1:1", "127.0.0.1:2"], clock=SystemClock())
    started = time.monotonic()
    with pytest.raises(EtcdUnavailable, match=r"127\.0\.0\.1:1, 127\.0\.0\.1:2 .*within 0\.7 s.*Nothing was changed"):
        await client.transact(Transaction((), (Put(b"/x", b"x"),)), timeout_s=0.7)
    assert time.monotonic() - started >= 0.7
    await client.close()


# -- leases


async def test_a_lease_that_is_kept_outlives_its_time(single: EtcdCluster) -> None:
    """Beats keep it and its key; without them both are gone, and a beat is told so."""
    async with connected(single) as client:
        lease = await client.grant(2, timeout_s=TIMEOUT_S)
        kept = client.keep(lease)
        await put(client, b"/held", b"x", lease.lease_id)
        await asyncio.sleep(lease.ttl_s + 1.5)  # what is judged is that it is still there
        assert not kept.lost.is_set()
        assert 0 < kept.left_ms <= lease.ttl_s * 1000
        [held] = (await client.read(b"/held", timeout_s=TIMEOUT_S)).keys
        assert held.lease_id == lease.lease_id
        await kept.stop()
        revision = (await client.read(b"/held", timeout_s=TIMEOUT_S)).revision
        async with contextlib.aclosing(client.watch(b"/held", start_revision=revision + 1)) as changes:
            [gone] = await following(changes, 1)
        assert (gone.key, gone.value) == (b"/held", None)
        with pytest.raises(LeaseGone):
            await client.beat(lease.lease_id, timeout_s=TIMEOUT_S)
        with pytest.raises(LeaseGone):
            await client.seconds_left(lease.lease_id, timeout_s=TIMEOUT_S)
        with pytest.raises(LeaseGone):
            await client.revoke(lease.lease_id, timeout_s=TIMEOUT_S)


async def test_a_revoked_lease_is_lost_to_who_keeps_it(single: EtcdCluster) -> None:
    """The next beat tells; its keys are gone at once."""
    async with connected(single) as client, connected(single) as other:
        lease = await client.grant(3, timeout_s=TIMEOUT_S)
        kept = client.keep(lease)
        await put(client, b"/revoked", b"x", lease.lease_id)
        assert await other.seconds_left(lease.lease_id, timeout_s=TIMEOUT_S) <= 3
        await other.revoke(lease.lease_id, timeout_s=TIMEOUT_S)
        assert (await client.read(b"/revoked", timeout_s=TIMEOUT_S)).keys == ()
        async with asyncio.timeout(10):
            await kept.lost.wait()
        assert kept.left_ms == 0


async def test_many_leases_are_kept_over_one_stream(single: EtcdCluster) -> None:
    """Beats of 200 leases at a time are each answered with the lease's own time."""
    async with connected(single) as client:
        leases = [await client.grant(10 + number % 7, timeout_s=TIMEOUT_S) for number in range(200)]
        beats = [client.beat(lease.lease_id, timeout_s=TIMEOUT_S) for lease in leases for _ in range(3)]
        assert await asyncio.gather(*beats) == [lease.ttl_s for lease in leases for _ in range(3)]


# -- watches


async def test_a_watch_tells_each_change_once_and_in_order(single: EtcdCluster) -> None:
    """From a past revision on: writes, a deletion, and two keys of one transaction together."""
    async with connected(single) as client:
        first = await put(client, b"/watched/a", b"1")
        await put(client, b"/other", b"x")
        both = Transaction((), (Put(b"/watched/b", b"2"), Put(b"/watched/c", b"3")))
        second = (await client.transact(both, timeout_s=TIMEOUT_S)).revision
        watch = client.watch(b"/watched/", end_of_prefix(b"/watched/"), start_revision=first)
        async with contextlib.aclosing(watch) as changes:
            told = await following(changes, 3)
            third = (await client.transact(Transaction((), (Delete(b"/watched/a"),)), timeout_s=TIMEOUT_S)).revision
            told += await following(changes, 1)
    assert [(each.key, each.value, each.mod_revision) for each in told] == [
        (b"/watched/a", b"1", first),
        (b"/watched/b", b"2", second),
        (b"/watched/c", b"3", second),
        (b"/watched/a", None, third),
    ]


async def test_a_watch_of_what_is_compacted_says_so(single: EtcdCluster) -> None:
    """Whoever asks for changes that are no longer kept must read everything anew."""
    async with connected(single) as client:
        first = await put(client, b"/compacted", b"1")
        last = await put(client, b"/compacted", b"2")
        single.control("compact", str(last))
        async with contextlib.aclosing(client.watch(b"/compacted", start_revision=first)) as changes:
            with pytest.raises(Compacted, match="compacted away"):
                await following(changes, 1)


# -- members that die, freeze and come back


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_nothing_is_lost_when_the_leader_goes(three: EtcdCluster, fault: str) -> None:
    """The member in use is the leader: a kept lease lives on, a watch misses nothing, and calls go on elsewhere."""
    leader = three.leader()
    async with connected(three, first=leader) as client:
        lease = await client.grant(5, timeout_s=TIMEOUT_S)
        kept = client.keep(lease)
        start = await put(client, b"/w/0", b"0", lease.lease_id)
        watch = client.watch(b"/w/", end_of_prefix(b"/w/"), start_revision=start)
        async with contextlib.aclosing(watch) as changes:
            told = await following(changes, 1)
            (three.kill if fault == "killed" else three.freeze)(leader)
            await reach(client)
            for number in range(1, 11):
                await make(client, b"/w/%d" % number, lease.lease_id)
            told += await following(changes, 10)
            assert [change.key for change in told] == [b"/w/%d" % number for number in range(11)]
            until_ms = boottime_ms() + 1000 * lease.ttl_s
            while boottime_ms() < until_ms:
                assert not kept.lost.is_set()
                await asyncio.sleep(0.2)
            assert len((await client.read(b"/w/", end_of_prefix(b"/w/"), timeout_s=TIMEOUT_S)).keys) == 11
        await kept.stop()


async def make(client: EtcdClient, key: bytes, lease_id: int) -> None:
    """Makes a key once, while the cluster finds its leader: done already, it does nothing when it is repeated."""
    attempt = Transaction((is_absent(key),), (Put(key, b"x", lease_id),))
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(EtcdOutcomeUnknown, EtcdUnavailable):
                await client.transact(attempt, timeout_s=TIMEOUT_S)
                return


async def reach(client: EtcdClient) -> None:
    """Waits until the cluster has a leader again."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(EtcdUnavailable):
                await client.read(b"/any", timeout_s=2)
                return


async def test_a_lease_is_lost_here_before_etcd_can_end_it(three: EtcdCluster) -> None:
    """The majority is gone: the holder stops believing when the lease's time has passed since its last good beat."""
    async with connected(three) as client:
        asked_ms = boottime_ms()
        lease = await client.grant(3, timeout_s=TIMEOUT_S)
        kept = client.keep(lease)
        for index in (0, 1, 2):
            three.freeze(index)
        frozen_ms = boottime_ms()
        async with asyncio.timeout(30):
            await kept.lost.wait()
        assert asked_ms + lease.ttl_s * 1000 <= boottime_ms() <= frozen_ms + lease.ttl_s * 1000 + 1000
        with pytest.raises(EtcdUnavailable):
            await client.read(b"/any", timeout_s=1)
        for index in (0, 1, 2):
            three.thaw(index)
        await reach(client)


# -- TLS and users


async def test_over_tls_a_member_must_show_the_right_certificate(tmp_path: pathlib.Path) -> None:
    """A client that trusts the authority gets through; one that trusts another, or speaks plain text, does not."""
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    paths = {name: tmp_path / name for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    certificate.cert_chain_pems[0].write_to_path(paths["cert"])
    certificate.private_key_pem.write_to_path(paths["key"])
    with EtcdCluster(tls=paths) as cluster:
        async with connected(cluster, tls=ClientTls(ca=authority.cert_pem.bytes())) as client:
            assert await put(client, b"/tls", b"x") > 0
        for tls in (ClientTls(ca=stranger.cert_pem.bytes()), None):
            async with connected(cluster, tls=tls) as client:
                with pytest.raises(EtcdUnavailable):
                    await client.read(b"/tls", timeout_s=1)


async def test_users_need_their_password() -> None:
    """With authentication on: the right user works, also after etcd has begun anew; others are denied, by name."""
    with EtcdCluster() as cluster:
        cluster.control("user", "add", "root:secret")
        cluster.control("user", "grant-role", "root", "root")
        cluster.control("user", "add", "reader:word")
        async with connected(cluster, credentials=Credentials("root", "secret")) as early:
            await put(early, b"/users", b"before")
            cluster.control("auth", "enable")
            await put(early, b"/users", b"x")
            lease = await early.grant(30, timeout_s=TIMEOUT_S)
            assert await early.beat(lease.lease_id, timeout_s=TIMEOUT_S) == lease.ttl_s
            cluster.kill(0)
            cluster.start(0)  # a simple token does not survive this
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(EtcdUnavailable):
                        [found] = (await early.read(b"/users", timeout_s=2)).keys
                        break
            assert found.value == b"x"
        for credentials, words in (
            (Credentials("root", "wrong"), "authentication failed"),
            (Credentials("reader", "word"), "permission denied"),
            (None, "user name is empty"),
        ):
            async with connected(cluster, credentials=credentials) as client:
                with pytest.raises(EtcdDenied, match=words):
                    await client.read(b"/users", timeout_s=TIMEOUT_S)
                with pytest.raises(EtcdRefused):
                    async with contextlib.aclosing(client.watch(b"/users", start_revision=1)) as changes:
                        await following(changes, 1)
    assert "secret" not in repr(Credentials("root", "secret"))
