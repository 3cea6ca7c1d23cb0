"""Popping and what becomes of handles: the service over a store in memory."""

from typing import NoReturn

import pytest
from apogeemq.broker.config import IdentityConfig, LimitsConfig, PopConfig, StoreSettings
from apogeemq.broker.core.pop import HandleResult, InitMode, PopHandle, Popped, PopRequest, RetryMark
from apogeemq.broker.errors import (
    BrokerError,
    InvalidParameter,
    NoPermission,
    RequestFailed,
    ServiceNotAvailable,
    SubscriptionParseFailed,
    SystemBusy,
    TopicNotExist,
)
from apogeemq.broker.service.pop import INVISIBLE_TIME_MS_MAX, ColdPop, NothingPopped
from apogeemq.remoting_codec.bodies import SubscriptionGroupConfig, TopicConfig
from apogeemq.remoting_codec.record import Record, decode_records
from apogeemq.store.errors import NotWritable

from packages.broker.tests.world import World, send_fields

NORMAL_ONLY = PopConfig(retry_probability_percent=0)
RETRY_FIRST = PopConfig(retry_probability_percent=100)


def request(
    topic: str = "T",
    *,
    group: str = "G",
    queue_id: int = -1,
    count_max: int = 32,
    invisible_time_ms: int = 20_000,
    init_mode: int = InitMode.MIN,
    expression_type: str | None = None,
    expression: str | None = None,
) -> PopRequest:
    return PopRequest(
        group=group,
        topic=topic,
        queue_id=queue_id,
        count_max=count_max,
        invisible_time_ms=invisible_time_ms,
        init_mode=init_mode,
        expression_type=expression_type,
        expression=expression,
    )


def send(world: World, *bodies: bytes, queue_id: int = 0, tag: str = "", topic: str = "T") -> None:
    client = world.client()
    properties = f"TAGS\x01{tag}\x02" if tag else ""
    for body in bodies:
        assert client.request(310, send_fields(topic, queue_id, properties), body).code == 0


def pop(world: World, wanted: PopRequest | None = None) -> Popped | NothingPopped | ColdPop:
    service = world.broker.popping.service
    return service.pop(service.check(wanted or request()))


def popped(world: World, wanted: PopRequest | None = None) -> Popped:
    found = pop(world, wanted)
    assert isinstance(found, Popped)
    return found


def records_of(found: Popped) -> list[Record]:
    return [record for run in found.runs for buffer in run.buffers for record in decode_records(buffer)]


def bodies_of(found: Popped) -> list[bytes]:
    return [record.body for record in records_of(found)]


def handles_of(found: Popped) -> list[PopHandle]:
    return [
        PopHandle(
            run.retry_mark,
            run.queue_id,
            offset,
            run.start_offset,
            found.pop_time_ms,
            found.invisible_time_ms,
            found.revive_queue_id,
        )
        for run in found.runs
        for offset in run.queue_offsets
    ]


def ack(world: World, *handles: PopHandle, topic: str = "T", group: str = "G") -> list[HandleResult]:
    return world.broker.popping.service.ack(group, topic, handles)


def refuse_to_append(*_: object) -> NoReturn:
    raise NotWritable("the disk failed")


async def let_it_be_over(world: World, seconds: float = 20) -> None:
    """Let the invisible time pass, and bring back what is due."""
    world.clock.advance(seconds)
    await world.broker.popping.revive._revive_due()


# -- popping -----------------------------------------------------------------------------------------------------------


async def test_a_message_is_popped_once() -> None:
    """Two pops share the messages of all queues; then there is nothing."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 2)
        send(world, b"a", b"b", queue_id=0)
        send(world, b"c", queue_id=1)
        first = popped(world, request(count_max=2))
        second = popped(world, request(count_max=2))
        assert sorted(bodies_of(first) + bodies_of(second)) == [b"a", b"b", b"c"]
        assert (first.rest_num, second.rest_num) == (1, 0)
        assert pop(world) == NothingPopped()
        assert bodies_of(popped(world, request(group="H"))) != [], "every group has its own cursor"


async def test_pops_begin_at_another_queue_each_time() -> None:
    """So that none starves behind the others."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 3)
        for queue_id in range(3):
            send(world, b"a", b"b", queue_id=queue_id)
        order = [popped(world, request(count_max=1)).runs[0].queue_id for _ in range(6)]
        assert order == [0, 1, 2, 0, 1, 2]


async def test_one_queue_can_be_asked_for() -> None:
    """The others stay as they are."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 2)
        send(world, b"a", queue_id=0)
        send(world, b"b", queue_id=1)
        assert bodies_of(popped(world, request(queue_id=1))) == [b"b"]
        assert isinstance(pop(world, request(queue_id=1)), NothingPopped)


async def test_revive_queues_take_turns() -> None:
    """All runs of a pop share one; the next pop has the next (round robin 0..7)."""
    async with World() as world:
        world.create_topic("T", 1)
        send(world, *[b"%d" % n for n in range(10)])
        assert [popped(world, request(count_max=1)).revive_queue_id for _ in range(10)] == [*range(8), 0, 1]


async def test_tags_are_filtered_by_hash() -> None:
    """Only wanted ones are handed out and written down; the cursor passes the others."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        for number in range(6):
            send(world, b"%d" % number, tag="AB"[number % 2])
        found = popped(world, request(expression="B"))
        assert bodies_of(found) == [b"1", b"3", b"5"]
        assert list(found.runs[0].queue_offsets) == [1, 3, 5]
        assert found.runs[0].start_offset == 0
        assert isinstance(pop(world), NothingPopped), "the group said that it wants B only"


async def test_a_long_stretch_of_unwanted_messages_is_looked_through_in_steps() -> None:
    """One pop looks at a bounded number, says that there is more, and the cursor keeps what was done."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        world.store.append_batch("T", 0, 0, 0, bytes(8), [(0, b"x", b"", 7)] * 1_000)
        for _ in range(14):
            world.store.append_batch("T", 0, 0, 0, bytes(8), [(0, b"x", b"", 7)] * 1_000)
        send(world, b"wanted", tag="A")
        assert pop(world, request(expression="A")) == NothingPopped(more=True)
        assert bodies_of(popped(world, request(expression="A"))) == [b"wanted"]


async def test_an_answer_is_bounded_in_bytes() -> None:
    """The first message goes out whatever its size; what does not fit stays for the next pop."""
    async with World(pop=NORMAL_ONLY, limits=LimitsConfig(pull_size_bytes_max=1_000)) as world:
        world.create_topic("T", 2)
        send(world, b"l" * 5_000, b"s", queue_id=0)
        send(world, b"m" * 5_000, queue_id=1)
        found = popped(world)
        assert [len(body) for body in bodies_of(found)] == [5_000]
        assert found.rest_num == 2
        assert sum(len(bodies_of(popped(world))) for _ in range(2)) == 2


async def test_one_too_large_message_of_a_second_queue_stays() -> None:
    """A small one fits beside it no more: it is not popped, and not lost."""
    async with World(pop=NORMAL_ONLY, limits=LimitsConfig(pull_size_bytes_max=1_000)) as world:
        world.create_topic("T", 2)
        send(world, b"s", queue_id=0)
        send(world, b"m" * 5_000, queue_id=1)
        found = popped(world)
        assert (bodies_of(found), found.rest_num) == ([b"s"], 1)
        assert [len(body) for body in bodies_of(popped(world))] == [5_000]


@pytest.mark.parametrize(
    ("init_mode", "hot_window_bytes", "expected"),
    [(InitMode.MIN, 1 << 20, b"0"), (InitMode.MAX, 1 << 20, b"0"), (InitMode.MAX, 0, b"4")],
    ids=["oldest", "newest, but a young topic", "newest"],
)
async def test_a_new_group_begins_as_apaches_does(init_mode: int, hot_window_bytes: int, expected: bytes) -> None:
    """MIN: min offset. MAX: 0 while message 0 is in memory, else max - 1. (broker_behaviour.md §8)."""
    async with World(pop=NORMAL_ONLY, store=StoreSettings(hot_window_bytes=hot_window_bytes)) as world:
        world.create_topic("T", 1)
        send(world, *[b"%d" % number for number in range(5)])
        found = pop(world, request(init_mode=init_mode, count_max=1))
        if isinstance(found, ColdPop):
            found = world.broker.popping.service.finish_cold(found, found.read())
        assert isinstance(found, Popped)
        assert bodies_of(found) == [expected]


async def test_a_position_beyond_the_queue_is_corrected() -> None:
    """A group that stood further than its queue reaches goes on at the end."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        world.broker.offsets.commit("T", "G", 0, 50)
        assert isinstance(pop(world), NothingPopped)
        send(world, b"b")
        assert bodies_of(popped(world)) == [b"b"]


async def test_nothing_is_handed_out_that_could_not_be_written_down() -> None:
    """The pop fails, and the cursor stays."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world.store, "append", refuse_to_append)
            with pytest.raises(NotWritable):
                pop(world)
        assert world.broker.offsets.query("T", "G", 0) == 0
        assert len(world.broker.popping.log.table) == 0


async def test_unacknowledged_messages_are_bounded() -> None:
    """One more is refused, with the limit's name; after an acknowledgement there is room."""
    async with World(pop=NORMAL_ONLY, limits=LimitsConfig(popped_messages_max=3)) as world:
        world.create_topic("T", 1)
        send(world, b"a", b"b", b"c", b"d")
        found = popped(world, request(count_max=2))
        with pytest.raises(SystemBusy, match=r"2 messages .* \(limits.popped_messages_max\) is 3"):
            pop(world, request(count_max=2))
        ack(world, *handles_of(found))
        assert popped(world, request(count_max=3)).count == 2


async def test_sql_pops_what_matches() -> None:
    """What does not match is passed by for good, as with tags; what matches can be acknowledged one by one."""
    async with World() as world:
        world.create_topic("T", 1)
        client = world.client()
        for number in range(6):
            assert client.request(310, send_fields("T", 0, f"n\x01{number}\x02"), b"%d" % number).code == 0
        found = popped(world, request(expression_type="SQL92", expression="n > 1 AND n <> 3"))
        assert bodies_of(found) == [b"2", b"4", b"5"]
        assert ack(world, *handles_of(found)) == [HandleResult.OK] * 3
        assert isinstance(pop(world, request()), NothingPopped)


# -- refusals, in Apache's order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        (request(count_max=33), InvalidParameter, "maxMsgNums"),
        (request(count_max=0), InvalidParameter, "maxMsgNums"),
        (request("Unknown"), TopicNotExist, "Unknown"),
        (request("WriteOnly"), NoPermission, "WriteOnly"),
        (request(queue_id=4), InvalidParameter, "queueId"),
        (request(queue_id=-2), InvalidParameter, "queueId"),
        (request(group="Disabled"), NoPermission, "Disabled"),
        (request(group="no good"), InvalidParameter, "group"),
        (request(init_mode=2), InvalidParameter, "initMode"),
        (request(expression_type="XPATH"), RequestFailed, "XPATH"),
        (request(expression_type="SQL92", expression="a >"), SubscriptionParseFailed, "line 1, column 4"),
        (request(expression="||"), SubscriptionParseFailed, "tag"),
        (request(invisible_time_ms=0), InvalidParameter, "invisibleTime"),
        (request(invisible_time_ms=INVISIBLE_TIME_MS_MAX + 1), InvalidParameter, "invisibleTime"),
    ],
)
async def test_refusals_say_why(wanted: PopRequest, error: type[BrokerError], words: str) -> None:
    """The field that is wrong."""
    async with World() as world:
        world.create_topic("T", 4)
        world.broker.topics.put(TopicConfig(topic_name="WriteOnly", perm=2))
        world.broker.groups._put_all([SubscriptionGroupConfig(group_name="Disabled", consume_enable=False)])
        with pytest.raises(error, match=words):
            world.broker.popping.service.check(wanted)


async def test_a_broker_that_may_not_be_read_refuses() -> None:
    """brokerPermission without its read bit."""
    async with World(identity=IdentityConfig(broker_name="broker-a", broker_permission=2)) as world:
        world.create_topic()
        with pytest.raises(NoPermission, match="broker-a"):
            world.broker.popping.service.check(request())


async def test_before_the_log_is_read_back_everything_is_refused() -> None:
    """Else a message could be handed out a second time."""
    world = World()
    world.create_topic()
    handle = PopHandle(RetryMark.NORMAL, 0, 0, 0, 1, 1, 0)
    service = world.broker.popping.service
    for ask in (
        lambda: service.check(request()),
        lambda: service.ack("G", "T", [handle]),
        lambda: service.extend("G", "T", [handle], 1),
        lambda: service.change_invisible("G", "T", handle, 1),
    ):
        with pytest.raises(ServiceNotAvailable):
            ask()
    await world.stop()


# -- handles -----------------------------------------------------------------------------------------------------------


async def test_what_is_acknowledged_does_not_come_again() -> None:
    """Twice is as good as once; the others of the pop come again."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a", b"b", b"c")
        first, second, third = handles_of(popped(world))
        assert ack(world, second) == [HandleResult.OK]
        assert ack(world, second, second) == [HandleResult.OK, HandleResult.OK]
        await let_it_be_over(world)
        assert bodies_of(popped(world)) == [b"a", b"c"]
        assert ack(world, first, second, third) == [HandleResult.EXPIRED] * 3


async def test_handles_of_nothing() -> None:
    """A queue or an offset that does not exist, another pop's time, another group."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        (handle,) = handles_of(popped(world))
        assert ack(world, handle._replace(queue_offset=1)) == [HandleResult.NO_MESSAGE]
        assert ack(world, handle._replace(queue_id=7)) == [HandleResult.NO_MESSAGE]
        assert ack(world, handle._replace(pop_time_ms=handle.pop_time_ms - 1)) == [HandleResult.EXPIRED]
        assert ack(world, handle, topic="Unknown") == [HandleResult.NO_MESSAGE]
        assert ack(world, handle) == [HandleResult.OK]


async def test_a_time_is_over_at_its_end() -> None:
    """The broker's clock alone decides, to the millisecond."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a", b"b")
        first, second = handles_of(popped(world))
        world.clock.advance(19.999)
        assert ack(world, first) == [HandleResult.OK]
        world.clock.advance(0.001)
        assert ack(world, second) == [HandleResult.EXPIRED]


async def test_a_changed_time_has_a_new_handle() -> None:
    """The old one is dead at once (trap 24); the new one counts from now."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        (old,) = handles_of(popped(world))
        changed = world.broker.popping.service.change_invisible("G", "T", old, 30_000)
        assert changed.result is HandleResult.OK
        new = old._replace(pop_time_ms=changed.pop_time_ms, invisible_time_ms=30_000)
        assert new.pop_time_ms > old.pop_time_ms, "even within one millisecond"
        assert ack(world, old) == [HandleResult.EXPIRED]
        world.clock.advance(29)
        assert ack(world, new) == [HandleResult.OK]
        assert world.broker.popping.service.change_invisible("G", "T", new, 1).result is HandleResult.EXPIRED


async def test_a_time_of_zero_makes_it_visible_now() -> None:
    """And the old handle stays dead when the message lies in the retry topic already."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        (old,) = handles_of(popped(world))
        world.broker.popping.service.change_invisible("G", "T", old, 0)
        await let_it_be_over(world, 0.001)
        assert ack(world, old) == [HandleResult.EXPIRED]
        assert bodies_of(popped(world)) == [b"a"]


async def test_an_extended_message_keeps_its_handle() -> None:
    """Its original handle acknowledges, long after its own time; a second time too."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a", b"b")
        first, second = handles_of(popped(world))
        world.clock.advance(15)
        assert world.broker.popping.service.extend("G", "T", [first], 60_000) == [HandleResult.OK]
        await let_it_be_over(world, 59)
        assert bodies_of(popped(world)) == [b"b"]
        assert ack(world, first, second) == [HandleResult.OK, HandleResult.EXPIRED]
        assert ack(world, first) == [HandleResult.OK]


async def test_extending_never_takes_time_away() -> None:
    """Less than there is left changes nothing, and writes nothing."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        (handle,) = handles_of(popped(world))
        before = world.store.written_offset
        assert world.broker.popping.service.extend("G", "T", [handle], 5_000) == [HandleResult.OK]
        assert world.store.written_offset == before
        world.clock.advance(19)
        assert ack(world, handle) == [HandleResult.OK]


async def test_what_is_over_cannot_be_extended() -> None:
    """Not even before it was brought back."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a")
        (handle,) = handles_of(popped(world))
        world.clock.advance(20)
        service = world.broker.popping.service
        assert service.extend("G", "T", [handle], 5_000) == [HandleResult.EXPIRED]
        assert service.change_invisible("G", "T", handle, 5_000).result is HandleResult.EXPIRED
        with pytest.raises(InvalidParameter, match="invisibleTime"):
            service.extend("G", "T", [handle], 0)


# -- retry topics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "order"), [(NORMAL_ONLY, [b"new", b"old"]), (RETRY_FIRST, [b"old", b"new"])], ids=["last", "first"]
)
async def test_what_comes_again_is_popped_first_or_last(config: PopConfig, order: list[bytes]) -> None:
    """By chance (popFromRetryProbability); the other part follows in the same answer."""
    async with World(pop=config) as world:
        world.create_topic("T", 1)
        send(world, b"old")
        popped(world)
        await let_it_be_over(world)
        send(world, b"new")
        found = popped(world)
        assert bodies_of(found) == order
        assert {run.retry_mark for run in found.runs} == {RetryMark.NORMAL, RetryMark.V1}
        assert ack(world, *handles_of(found)) == [HandleResult.OK] * 2


async def test_what_comes_again_is_not_filtered() -> None:
    """It was wanted when it was popped first; a subscription that changed must not lose it."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 1)
        send(world, b"a", tag="A")
        popped(world, request(expression="A"))
        await let_it_be_over(world)
        assert bodies_of(popped(world, request(expression="B"))) == [b"a"]


async def test_the_second_kind_of_retry_topic() -> None:
    """%RETRY%group+topic gets new failures; what still lies in the first kind is popped too."""
    async with World(pop=PopConfig(retry_probability_percent=0)) as world:
        await world.save_topic("T", 1)
        send(world, b"a")
        popped(world)
        await let_it_be_over(world)
        await world.stop()
        disk, clock = world.disk, world.clock
    async with World(disk, clock=clock, pop=PopConfig(retry_probability_percent=0, retry_topic_v2=True)) as world:
        send(world, b"b")
        first = popped(world)
        assert [(run.retry_mark, run.queue_id) for run in first.runs] == [(RetryMark.NORMAL, 0), (RetryMark.V1, 0)]
        await let_it_be_over(world)
        assert [record.body for record in world.records("%RETRY%G+T")] == [b"b"]
        assert [record.body for record in world.records("%RETRY%G_T")] == [b"a", b"a"]
