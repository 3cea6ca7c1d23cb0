"""Whatever is wrong with a request: the documented code, a remark that names it, and nothing in the broker is changed.

Cases are generated from the declared fields of headers and bodies, so a new request or field is covered on the day it
is declared; a new request must also get a good example in bad_requests.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum

import msgspec
import pytest
from apogeemq.broker.config import StoreSettings
from apogeemq.remoting_codec.aio.channel import Channel
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand

from packages.broker.tests.bad_requests import (
    BODY_SIZE_BYTES_MAX,
    GOOD,
    HALF_OFFSET,
    BadRequest,
    body_faults,
    header_faults,
)
from packages.broker.tests.bad_values import value_faults
from packages.broker.tests.world import Client, World, consumer_beat, producer_beat, send_fields, until

REMARK_LENGTH_MAX = 1_000
"""What a peer sent must not come back at any length: remarks go to logs too."""

PAIRS = 30
"""Of faults, that are tried together for each request."""
SERVED = (
    ResponseCode.SUCCESS,
    ResponseCode.PULL_NOT_FOUND,
    ResponseCode.PULL_OFFSET_MOVED,
    ResponseCode.QUERY_NOT_FOUND,
    ResponseCode.POLLING_TIMEOUT,
)
"""Codes of answers that refuse nothing: they tell that there is nothing, or where to go on."""


def bad_requests(code: int) -> list[BadRequest]:
    return [*header_faults(code), *body_faults(code), *value_faults(code)]


class Scene:
    """A broker with a topic T with two messages in queue 0, the first one popped, a half message, a topic Other, a
    group G with member c1, which holds locks, and a producer p1; and the client that asks.
    """

    def __init__(self, world: World, *, makes_by_use: bool = True) -> None:
        self.world = world
        self.asker = world.client(40_002)
        self.member = world.client(40_001)
        for topic in ("T", "Other"):
            world.create_topic(topic)
        self.member.heartbeat(consumer_beat())
        self.member.heartbeat(producer_beat("p1", "P"))
        world.mark_saved()
        keyed = send_fields(properties="KEYS\x01k\x02"), b"x"
        for code, request in (
            (RequestCode.SEND_MESSAGE_V2, keyed),
            *((code, GOOD[code]) for code in (RequestCode.POP_MESSAGE, RequestCode.LOCK_BATCH_MQ)),
            (RequestCode.SEND_MESSAGE_V2, keyed),
        ):
            assert self.asker.request(code, *request).code == 0
        self.half_offset = world.store.written_offset
        half = send_fields(properties="TRAN_MSG\x01true\x02PGROUP\x01P\x02")
        assert self.asker.request(RequestCode.SEND_MESSAGE_V2, half, b"x").code == 0
        self.member.pushed()
        world.broker.topics.auto_create = world.broker.groups.auto_create = makes_by_use

    async def ask(self, client: Client, code: int, fields: Mapping[str, str], body: bytes) -> RemotingCommand:
        """Send a request and wait for its answer; questions that are passed on to the member are answered with 0."""
        opaque = client.send(code, self.completed(fields), body)

        def answered() -> bool:
            for question in self.member.pushed():
                if not question.is_oneway:
                    self.member.answer(question)
            return client.has_reply(opaque)

        await until(answered)
        return client.reply(opaque)

    def completed(self, fields: Mapping[str, str]) -> dict[str, str]:
        """The fields with what only this broker knows."""
        return {name: str(self.half_offset) if value == HALF_OFFSET else value for name, value in fields.items()}

    def state(self) -> dict[str, object]:
        """All that requests may change, in a form that can be compared."""
        broker = self.world.broker
        tables = {
            "topics": broker.topics,
            "groups": broker.groups,
            "offsets": broker.offsets,
            "clients": broker.clients,
            "locks": broker.queue_locks,
            "held pulls": broker.long_polling,
            "popped": broker.popping.log.table,
            "held pops": broker.popping.polls._table,
            "request modes": broker.assignments._assignments._modes,
            "dead letters": broker.dead_letters,
            "transactions": broker.transacting.table,
        }
        state = {name: plain(table) for name, table in tables.items()}
        return state | {"log": self.world.store.written_offset, "asked members": len(self.member.received())}


def plain(value: object) -> object:
    """A value with all that it is made of, as tuples and frozen sets; connections and functions by what they are."""
    if value is None or isinstance(value, int | float | str | bytes | Enum):
        return value
    if isinstance(value, Mapping):
        return tuple((plain(key), plain(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return frozenset(map(plain, value))
    if isinstance(value, list | tuple):
        return tuple(map(plain, value))
    if callable(value) or isinstance(value, Channel):
        return id(value)
    return type(value).__name__, tuple((name, plain(getattr(value, name))) for name in sorted(attributes(value)))


def attributes(value: object) -> Iterator[str]:
    """Names of an instance's attributes, wherever its class keeps them."""
    if isinstance(value, msgspec.Struct):
        yield from value.__struct_fields__
        return
    yield from getattr(value, "__dict__", ())
    for cls in type(value).__mro__:
        yield from (name for name in getattr(cls, "__slots__", ()) if hasattr(value, name))


def small_world() -> World:
    """Where large messages need not be large, and keys are found."""
    return World(store=StoreSettings(max_message_size_bytes=BODY_SIZE_BYTES_MAX), index=True)


Judge = Callable[[BadRequest, RemotingCommand], str | None]
"""Says what is wrong with an answer."""


def misses_its_fault(bad: BadRequest, reply: RemotingCommand) -> str | None:
    """It must have the documented code, and name the fault."""
    remark = reply.remark or ""
    if reply.code != bad.code:
        return f"answered {reply.code} {remark[:200]!r} instead of {bad.code}"
    if bad.named.lower() not in remark.lower():
        return f"{remark[:200]!r} does not name {bad.named!r}"
    return says_too_much(bad, reply)


def says_too_much(bad: BadRequest, reply: RemotingCommand) -> str | None:
    """It must not repeat the request, nor tell of a bug."""
    remark = reply.remark or ""
    if len(remark) > REMARK_LENGTH_MAX:
        return f"the remark has {len(remark)} characters: {remark[:100]!r}"
    if "internal error" in remark:
        return f"the remark tells of a bug: {remark[:200]!r}"
    return None


def refuses_nothing(bad: BadRequest, reply: RemotingCommand) -> str | None:
    """It must be a refusal, with a reason."""
    if reply.code in SERVED or not reply.remark:
        return f"answered {reply.code} {reply.remark!r}"
    return says_too_much(bad, reply)


async def complaints(
    code: int, requests: Iterable[BadRequest], judge: Judge, *, makes_by_use: bool = True
) -> list[str]:
    """What is wrong when one broker gets these requests over one connection, with an answer and oneway."""
    requests = list(requests)
    found = []
    async with small_world() as world:
        scene = Scene(world, makes_by_use=makes_by_use)
        before = scene.state()
        for bad in requests:
            reply = await scene.ask(scene.asker, code, bad.fields, bad.body)
            wrong = judge(bad, reply)
            if wrong is not None:
                found.append(f"{bad.fault}: {wrong}")
            scene.asker.send(code, scene.completed(bad.fields), bad.body, oneway=True)
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        assert scene.asker.received() == [], "a oneway request was answered"
        assert scene.asker.channel.close_reason is None
        is_changed = scene.state() != before
    return found + (await culprits(code, requests, makes_by_use=makes_by_use) if is_changed else [])


async def culprits(code: int, requests: list[BadRequest], *, makes_by_use: bool) -> list[str]:
    """Which of the requests change something, looked for one by one."""
    found = ["something is changed:"]
    async with small_world() as world:
        scene = Scene(world, makes_by_use=makes_by_use)
        before = scene.state()
        for bad in requests:
            await scene.ask(scene.asker, code, bad.fields, bad.body)
            after = scene.state()
            if after != before:
                found.append(f"{bad.fault} changed {[name for name in after if after[name] != before[name]]}")
            before = after
    return found


def pairs(code: int) -> Iterator[BadRequest]:
    """Requests with two faults, the same at each run."""
    good, good_body = GOOD[code]
    refused = [bad for bad in bad_requests(code) if bad.code not in SERVED]
    chance = random.Random(code)
    for _ in range(PAIRS if refused else 0):
        first, second = chance.choices(refused, k=2)
        changed = {name: value for name, value in second.fields.items() if good.get(name) != value}
        missing = good.keys() - (first.fields.keys() & second.fields.keys())
        fields = {name: value for name, value in {**first.fields, **changed}.items() if name not in missing}
        body = second.body if first.body == good_body else first.body
        yield BadRequest(code, fields, body, f"{first.fault} and {second.fault}", first.code, "")


def report(code: int, found: list[str]) -> str:
    return f"{RequestCode(code).name}, {len(found)} complaints:\n" + "\n".join(found)


async def test_every_served_request_has_an_example() -> None:
    """A new one must be added to bad_requests."""
    async with World() as world:
        assert world.broker.remoting.codes == set(GOOD)


@pytest.mark.parametrize("code", GOOD)
async def test_the_good_request_is_served(code: int) -> None:
    """So what is refused below is refused for its fault."""
    async with small_world() as world:
        scene = Scene(world)
        world.broker.saver.start()  # some answers wait for a table's file
        reply = await scene.ask(scene.asker, code, *GOOD[code])
        assert reply.code == 0, reply.remark


@pytest.mark.parametrize("code", GOOD)
async def test_a_bad_request_is_named_and_changes_nothing(code: int) -> None:
    """Every one that is generated for this code."""
    found = await complaints(code, bad_requests(code), misses_its_fault)
    assert not found, report(code, found)


@pytest.mark.parametrize("code", GOOD)
async def test_two_faults_at_once_are_no_better_than_one(code: int) -> None:
    """Whichever is seen first, the other one has done nothing."""
    found = await complaints(code, pairs(code), refuses_nothing)
    assert not found, report(code, found)


@pytest.mark.parametrize("code", GOOD)
async def test_a_broker_that_makes_nothing_by_use_is_left_alone_too(code: int) -> None:
    """Without automatic creation of topics and groups there are other refusals, and just as little happens."""
    found = await complaints(code, bad_requests(code), says_too_much, makes_by_use=False)
    assert not found, report(code, found)
