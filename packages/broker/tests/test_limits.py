"""The table "Limits and what a client is told" of docs/operations.md, held against the code: each is reached once."""

import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from apogeemq.broker.app import PROGRAM
from apogeemq.broker.config import FlushDiskType, LimitsConfig, StoreSettings
from apogeemq.broker.metrics import register_metrics
from apogeemq.mesh.metrics import Registry
from apogeemq.remoting_codec.codes import VERSION, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.send_refusals import SYSTEM_BUSY_RETRIED_VERSION_MIN

from packages.broker.tests.test_disk_limits import fill
from packages.broker.tests.test_face_replies import parties, reply_fields
from packages.broker.tests.world import Client, World, pull_fields, send_fields

DOCUMENT = Path(__file__).parents[3] / "docs" / "operations.md"
SYNC = FlushDiskType.SYNC_FLUSH
HELD = {"sysFlag": "6", "suspendTimeoutMillis": "15000"}
CLOSED_NOT_ANSWERED = {"connections_max", "frame_size_bytes_max", "write_buffer_bytes_max"}
NO_REFUSAL = {"pull_hold_s_max", "pull_messages_max", "pull_size_bytes_max"}
"""These cut an answer short."""


class Row(NamedTuple):
    """One row of the table, as it is written."""

    settings: list[str]
    defaults: list[str]
    code: int
    remark: str


def rows() -> list[Row]:
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text.split("### Limits and what a client is told")[1].split("\n## ")[0].split("\n### ")[0]
    found = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 6 and cells[1].startswith("`"):
            settings = re.findall(r"`([a-z_.]+)`", cells[1])
            code = re.search(r"\((\d+)\)", cells[3])
            assert code is not None
            found.append(Row(settings, cells[2].replace(",", "").split(" / "), int(code[1]), cells[4].strip("`")))
    return found


SETTINGS = {setting: row for row in rows() for setting in row.settings}


class Reached(NamedTuple):
    """A limit that was reached: the refusal, and the broker."""

    world: World
    refused: RemotingCommand


def limits(**changes: int) -> LimitsConfig:
    return LimitsConfig(**changes)


def new_world(limits: LimitsConfig | None = None, **store: object) -> World:
    world = World(limits=limits, store=StoreSettings(**store))  # type: ignore[arg-type]  # any of its fields
    world.create_topic()
    world.broker.groups.find_or_create("G")
    return world


def two_sends(changes: LimitsConfig, size_bytes: int = 1) -> Reached:
    world = new_world(changes, flush_disk_type=SYNC)
    client = world.client()
    client.send(310, send_fields(), b"1")
    return Reached(world, client.request(310, send_fields(), bytes(size_bytes)))


async def wait_time() -> Reached:
    world = new_world(flush_disk_type=SYNC)
    client = world.client()
    client.send(310, send_fields(), b"1")
    world.clock.advance(1.0)
    return Reached(world, client.request(310, send_fields(), b"2"))


async def disk_stall() -> Reached:
    world = new_world()
    health = world.store.disk_health
    health._running[0] = "sync", Path("/store/commitlog/0"), time.monotonic() - 100
    world.store.flush_once()
    reached = Reached(world, world.client().request(310, send_fields(), b"x"))
    del health._running[0]
    world.store.flush_once()
    return reached


async def disk_full() -> Reached:
    world = new_world()
    fill(world, 95)
    reached = Reached(world, world.client().request(310, send_fields(), b"x"))
    fill(world, 50)
    return reached


async def body_size() -> Reached:
    world = new_world(max_message_size_bytes=10)
    return Reached(world, world.client().request(310, send_fields(), bytes(11)))


async def topics() -> Reached:
    world = new_world()
    world.broker.topics.topics_max = len(world.broker.topics)
    return Reached(world, world.client().request(310, send_fields("New"), b"x"))


async def groups() -> Reached:
    world = new_world()
    world.broker.groups.groups_max = len(world.broker.groups)
    return Reached(world, world.client().request(11, pull_fields(group="New")))


def two_pulls(changes: LimitsConfig) -> Reached:
    world = new_world(changes)
    client = world.client()
    client.send(11, pull_fields() | HELD)
    return Reached(world, client.request(11, pull_fields() | HELD))


async def cold_reads() -> Reached:
    world = new_world(limits(cold_reads_max=1))
    client = world.client()
    search = {"topic": "T", "queueId": "0", "timestamp": "0"}
    first, second = client.send_together([(29, search, b""), (29, search, b"")])
    refused = client.reply(second)
    await client.later(first)
    return Reached(world, refused)


def pop(client: Client) -> int:
    client.broker.popping.service.ready = True  # nothing was popped before
    now_ms = client.broker._clock.now_ms()
    fields = {"consumerGroup": "G", "topic": "T", "queueId": "0", "maxMsgNums": "1", "invisibleTime": "10000"}
    return client.send(200050, fields | {"pollTime": "10000", "bornTime": str(now_ms), "initMode": "0"})


def two_pops(changes: LimitsConfig) -> Reached:
    world = new_world(changes)
    client = world.client()
    pop(client)
    return Reached(world, client.reply(pop(client)))


async def popped() -> Reached:
    world = new_world(limits(popped_messages_max=1))
    client = world.client()
    client.request(310, send_fields(), b"1")
    assert client.reply(pop(client)).code == 0
    return Reached(world, client.reply(pop(client)))


def two_replies(changes: LimitsConfig) -> Reached:
    world = World(limits=changes)
    _, replier = parties(world)
    replier.send(325, reply_fields(), b"1")
    return Reached(world, replier.request(325, reply_fields(), bytes(5_000)))


async def pending_transactions() -> Reached:
    world = new_world(limits(pending_transactions_max=1))
    client = world.client()
    half = send_fields("T", 0, "TRAN_MSG\x01true\x02PGROUP\x01P\x02", f="4")
    assert client.request(310, half, b"1").code == 0
    return Reached(world, client.request(310, half, b"2"))


def at_once(reach: Callable[[LimitsConfig], Reached], **changes: int) -> Callable[[], Awaitable[Reached]]:
    async def reached() -> Reached:
        return reach(limits(**changes))

    return reached


def sends_of_5000_bytes(changes: LimitsConfig) -> Reached:
    return two_sends(changes, 5_000)


REACH: dict[str, Callable[[], Awaitable[Reached]]] = {
    "limits.waiting_acknowledgements_max": at_once(two_sends, waiting_acknowledgements_max=1),
    "limits.waiting_acknowledgements_bytes_max": at_once(sends_of_5000_bytes, waiting_acknowledgements_bytes_max=5_000),
    "limits.waiting_acknowledgements_per_client_max": at_once(two_sends, waiting_acknowledgements_per_client_max=1),
    "limits.waiting_acknowledgements_per_client_bytes_max": at_once(
        sends_of_5000_bytes, waiting_acknowledgements_per_client_bytes_max=5_000
    ),
    "store.wait_time_in_send_queue_ms": wait_time,
    "store.disk_stall_limit_ms": disk_stall,
    "store.disk_space_warning_level_percent": disk_full,
    "store.max_message_size_bytes": body_size,
    "limits.topics_max": topics,
    "limits.groups_max": groups,
    "limits.held_pulls_max": at_once(two_pulls, held_pulls_max=1),
    "limits.held_pulls_per_queue_max": at_once(two_pulls, held_pulls_per_queue_max=1),
    "limits.held_pulls_per_client_max": at_once(two_pulls, held_pulls_per_client_max=1),
    "limits.held_pulls_bytes_max": at_once(two_pulls, held_pulls_bytes_max=3_000),
    "limits.cold_reads_max": cold_reads,
    "limits.held_pops_max": at_once(two_pops, held_pops_max=1),
    "limits.held_pops_per_key_max": at_once(two_pops, held_pops_per_key_max=1),
    "limits.popped_messages_max": popped,
    "limits.client_calls_max": at_once(two_replies, client_calls_max=1),
    "limits.client_calls_bytes_max": at_once(two_replies, client_calls_bytes_max=5_000),
    "limits.client_calls_per_client_max": at_once(two_replies, client_calls_per_client_max=1),
    "limits.client_calls_per_client_bytes_max": at_once(two_replies, client_calls_per_client_bytes_max=5_000),
    "limits.pending_transactions_max": pending_transactions,
}


def test_the_table_has_every_limit() -> None:
    """Each is reached below; each bound of the settings is among them, or closes a connection, or refuses nothing."""
    assert set(SETTINGS) == set(REACH)
    bounds = {name for name in LimitsConfig.__struct_fields__ if name.endswith("_max")}
    told = {name.removeprefix("limits.") for name in SETTINGS}
    assert bounds - CLOSED_NOT_ANSWERED - NO_REFUSAL <= told
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"limits.{name}" in text for name in CLOSED_NOT_ANSWERED)


def test_the_table_has_the_defaults() -> None:
    """As the settings have them, in their units."""
    config = PROGRAM.load_config().value
    for row in rows():
        for setting, default in zip(row.settings, row.defaults, strict=True):
            section, name = setting.split(".")
            assert (setting, default) == (setting, str(getattr(getattr(config, section), name)))


@pytest.mark.parametrize("limit", REACH)
async def test_a_refusal_is_the_documented_one(limit: str) -> None:
    """Its code, what the table says of its remark, the limit's name with its value, and one count under that name."""
    row = SETTINGS[limit]
    world, refused = await REACH[limit]()
    async with world:
        assert refused.code == row.code
        remark = refused.remark or ""
        assert row.remark in remark
        assert limit.partition(".")[2] in remark or re.search(r"maxMessageSize|diskSpaceWarningLevelRatio", remark)
        assert re.search(r"\d", remark)
        assert dict(world.broker.stats.refused) == {limit: 1}


async def test_what_is_in_flight_and_refused_is_measured() -> None:
    """Gauges by kind, a counter by limit; both go back when the disk has answered."""
    world, _ = two_sends(limits(waiting_acknowledgements_max=1))
    async with world:
        registry = Registry()
        register_metrics(registry, world.broker, {})
        text = registry.render()
        assert 'apogeemq_requests_in_flight{kind="send"} 1' in text
        assert 'apogeemq_requests_in_flight_bytes{kind="send"} 1025' in text
        assert 'apogeemq_requests_refused_total{limit="limits.waiting_acknowledgements_max"} 1' in text
        world.broker.acknowledger._flush_line.reached(1 << 40)  # type: ignore[union-attr]  # it is SYNC_FLUSH
        assert 'apogeemq_requests_in_flight{kind="send"} 0' in registry.render()


@pytest.mark.parametrize(
    ("version", "code"),
    [
        (0, ResponseCode.SERVICE_NOT_AVAILABLE),
        (409, ResponseCode.SERVICE_NOT_AVAILABLE),  # V4_9_8
        (SYSTEM_BUSY_RETRIED_VERSION_MIN - 1, ResponseCode.SERVICE_NOT_AVAILABLE),
        (SYSTEM_BUSY_RETRIED_VERSION_MIN, ResponseCode.SYSTEM_BUSY),
        (VERSION, ResponseCode.SYSTEM_BUSY),
    ],
)
async def test_every_java_client_takes_a_refused_message_elsewhere(version: int, code: ResponseCode) -> None:
    """Clients before 5.3.0 give up after SYSTEM_BUSY; the words are the same. Pulls are answered alike to all."""
    world = new_world(limits(waiting_acknowledgements_max=1, held_pulls_max=1), flush_disk_type=SYNC)
    async with world:
        client = world.client()
        client.send(310, send_fields(), b"1")
        refused = client.request(310, send_fields(), b"2", version=version)
        assert (refused.code, "waiting_acknowledgements_max" in str(refused.remark)) == (code, True)
        client.send(11, pull_fields() | {**HELD, "queueId": "1"})
        again = client.request(11, pull_fields() | {**HELD, "queueId": "1"}, version=version)
        assert again.code == ResponseCode.FLOW_CONTROL
