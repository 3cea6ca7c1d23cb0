"""QUERY_MESSAGE and VIEW_MESSAGE_BY_ID over a whole broker."""

from collections.abc import AsyncIterator

import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.record import decode_records

from packages.broker.tests.world import Client, World, send_fields


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A broker with one topic."""
    async with World(index=True) as world:
        world.create_topic()
        yield world


def send(client: Client, key: str, unique_key: str, body: bytes = b"body") -> None:
    """One message, stored."""
    fields = send_fields(properties=f"KEYS\x01{key}\x02UNIQ_KEY\x01{unique_key}\x02")
    assert client.request(RequestCode.SEND_MESSAGE_V2, fields, body).code == ResponseCode.SUCCESS


async def query(client: Client, **more: str) -> RemotingCommand:
    """Ask as a Java client does, over all times."""
    fields = {"topic": "T", "maxNum": "32", "beginTimestamp": "0", "endTimestamp": str((1 << 63) - 1), **more}
    return await client.later(client.send(RequestCode.QUERY_MESSAGE, fields))


def bodies(reply: RemotingCommand) -> list[bytes]:
    """Of the records in an answer."""
    return [record.body for record in decode_records(reply.body)]


async def test_messages_are_found_by_key(world: World) -> None:
    """Whole records back to back, newest first; the header tells the last record of the index."""
    client = world.client()
    for n in range(3):
        send(client, "order common", f"id-{n}", b"body %d" % n)
    reply = await query(client, key="common")
    assert reply.code == ResponseCode.SUCCESS
    assert bodies(reply) == [b"body 2", b"body 1", b"body 0"]
    last = world.records("T")[-1]
    assert reply.ext_fields == {
        "indexLastUpdateTimestamp": str(last.store_timestamp_ms),
        "indexLastUpdatePhyoffset": str(last.physical_offset),
    }
    assert bodies(await query(client, key="common", maxNum="2")) == [b"body 2", b"body 1"]


async def test_messages_are_found_by_unique_key(world: World) -> None:
    """With _UNIQUE_KEY_QUERY the request's maxNum does not count."""
    client = world.client()
    send(client, "order", "id-1")
    reply = await query(client, key="id-1", maxNum="0", _UNIQUE_KEY_QUERY="true")
    assert bodies(reply) == [b"body"]


async def test_times_are_those_of_storing(world: World) -> None:
    """Both ends belong to the range."""
    client = world.client()
    send(client, "order", "id-1")
    time_ms = world.records("T")[0].store_timestamp_ms
    for begin_ms, end_ms, is_found in (
        (time_ms, time_ms, True),
        (time_ms + 1, time_ms + 9, False),
        (0, time_ms - 1, False),
    ):
        reply = await query(client, key="order", beginTimestamp=str(begin_ms), endTimestamp=str(end_ms))
        assert reply.code == (ResponseCode.SUCCESS if is_found else ResponseCode.QUERY_NOT_FOUND)


@pytest.mark.parametrize("more", [{"key": "other"}, {"key": "order", "topic": "U"}])
async def test_nothing_found(world: World, more: dict[str, str]) -> None:
    """Code 22 with Apache's remark, and the header all the same."""
    client = world.client()
    send(client, "order", "id-1")
    reply = await query(client, **more)
    assert (reply.code, reply.body) == (ResponseCode.QUERY_NOT_FOUND, b"")
    assert reply.remark == "can not find message, maybe time range not correct"
    assert set(reply.ext_fields or {}) == {"indexLastUpdateTimestamp", "indexLastUpdatePhyoffset"}


async def test_without_an_index_nothing_is_found() -> None:
    """messageIndexEnable=false."""
    async with World() as world:
        world.create_topic()
        client = world.client()
        send(client, "order", "id-1")
        assert (await query(client, key="order")).code == ResponseCode.QUERY_NOT_FOUND


async def test_a_number_that_is_none_is_refused(world: World) -> None:
    """At least one message must be asked for."""
    client = world.client()
    reply = client.request(
        RequestCode.QUERY_MESSAGE,
        {"topic": "T", "key": "k", "maxNum": "0", "beginTimestamp": "0", "endTimestamp": "1"},
    )
    assert reply.code == ResponseCode.INVALID_PARAMETER
    assert "maxNum[0]" in (reply.remark or "")


async def test_a_message_is_found_by_offset(world: World) -> None:
    """The record as it lies in the log; no record begins in its middle."""
    client = world.client()
    send(client, "order", "id-1")
    record = world.records("T")[0]
    reply = await client.later(client.send(RequestCode.VIEW_MESSAGE_BY_ID, {"offset": str(record.physical_offset)}))
    assert reply.code == ResponseCode.SUCCESS
    assert decode_records(reply.body) == [record]
    reply = await client.later(client.send(RequestCode.VIEW_MESSAGE_BY_ID, {"offset": str(record.physical_offset + 1)}))
    assert reply.code == ResponseCode.SYSTEM_ERROR
    assert reply.remark == f"can not find message by the offset, {record.physical_offset + 1}"
