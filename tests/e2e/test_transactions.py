"""Transactions of gRPC clients over real processes: a proxy is killed between the half message and its end."""

import asyncio
import contextlib
import pathlib
from collections.abc import Iterator

import pytest
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code

from tests.config_files import QUEUES, topic_config, write_config_files
from tests.e2e.grpc_client import RawClient, Stream
from tests.e2e.http_client import metric
from tests.e2e.process import Ready, start_all_in_one
from tests.e2e.test_client_grpc import start_proxy
from tests.e2e.wire_client import WireClient, pull_all

NAME = "Ledger"
TOPIC = defs.Resource(name=NAME)
WAIT_S = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    """A server whose broker asks after a second, with a topic for transactions."""
    directory = tmp_path_factory.mktemp("transactions")
    topics = [topic_config(NAME, message_type="TRANSACTION")]
    write_config_files(directory / "data" / "broker" / "config", topics)
    settings = {"broker.transactionTimeOut": "1000", "broker.transactionCheckInterval": "1000"}
    with start_all_in_one(directory / "data", log_directory=directory, settings=settings) as process:
        yield process.wait_ready()
        process.stop()


async def send_half(client: RawClient, key: str) -> str:
    """Gives the transaction id."""
    system = defs.SystemProperties(message_id=key, message_type=defs.TRANSACTION)
    request = v2.SendMessageRequest(messages=[defs.Message(topic=TOPIC, system_properties=system, body=key.encode())])
    response = await client.response("SendMessage", request.SerializeToString())
    assert response.status.code == Code.OK, response.status
    handle: str = response.entries[0].transaction_id
    return handle


async def end(
    client: RawClient,
    key: str,
    handle: str,
    resolution: defs.TransactionResolution = defs.COMMIT,
    source: defs.TransactionSource = defs.SOURCE_CLIENT,
) -> int:
    """Gives the status code."""
    request = v2.EndTransactionRequest(
        topic=TOPIC, message_id=key, transaction_id=handle, resolution=resolution, source=source
    )
    code: int = (await client.response("EndTransaction", request.SerializeToString())).status.code
    return code


async def introduced(client: RawClient) -> Stream:
    """The stream of a producer of the topic."""
    settings = defs.Settings(client_type=defs.PRODUCER, publishing=defs.Publishing(topics=[TOPIC]))
    return await client.introduce(v2.TelemetryCommand(settings=settings))


async def question_on(stream: Stream) -> v2.RecoverOrphanedTransactionCommand:
    """The next one."""
    data = await asyncio.wait_for(stream.read(), WAIT_S)
    command = v2.TelemetryCommand.FromString(data)  # type: ignore[arg-type]  # bytes, unless the stream has ended
    assert command.HasField("recover_orphaned_transaction_command")
    return command.recover_orphaned_transaction_command


def delivered(server: Ready) -> list[str]:
    """Bodies of all that consumers can see."""
    with WireClient(server.listeners["broker.remoting"]) as client:
        return sorted(
            record.body.decode()
            for queue_id in range(QUEUES)
            for record in pull_all(client, NAME, "G_ledger", queue_id)
        )


async def test_kill_9_of_the_proxy_between_half_message_and_end(server: Ready, tmp_path: pathlib.Path) -> None:
    """Another proxy commits and rolls back what the first one took; its producer is asked about what nobody ended."""
    with contextlib.ExitStack() as proxies:
        first, second = (
            proxies.enter_context(start_proxy(server, tmp_path / name, "0")) for name in ("first", "second")
        )
        addresses = [(await asyncio.to_thread(proxy.wait_ready)).listeners["grpc"] for proxy in (first, second)]
        async with RawClient(addresses[0], "dying") as dying:
            await introduced(dying)
            handles = {key: await send_half(dying, key) for key in ("committed", "rolled-back", "orphan")}
            first.kill()
        async with RawClient(addresses[1], "heir") as heir:
            assert await end(heir, "committed", handles["committed"]) == Code.OK
            assert await end(heir, "rolled-back", handles["rolled-back"], defs.ROLLBACK) == Code.OK
            assert await end(heir, "orphan", handles["committed"]) == Code.INVALID_TRANSACTION_ID
            stream = await introduced(heir)
            question = await question_on(stream)
            message = question.message
            assert (message.topic, message.body, message.system_properties.message_id) == (TOPIC, b"orphan", "orphan")
            assert await end(heir, "orphan", question.transaction_id, source=defs.SOURCE_SERVER_CHECK) == Code.OK
            assert await end(heir, "orphan", handles["orphan"], defs.ROLLBACK) == Code.INVALID_TRANSACTION_ID
            stream.cancel()
        http = second.wait_ready().listeners["http"]
        assert await asyncio.to_thread(metric, http, "apogeemq_proxy_transaction_checks_total", result="delivered") >= 1
    assert await asyncio.to_thread(delivered, server) == ["committed", "orphan"]


async def test_a_producer_is_asked_until_it_knows(server: Ready) -> None:
    """It says nothing at first; each question names a newer copy, and each of the ids ends the transaction."""
    async with RawClient(server.listeners["proxy.grpc"], "patient") as client:
        stream = await introduced(client)
        handle = await send_half(client, "patience")
        first, second = await question_on(stream), await question_on(stream)
        assert len({handle, first.transaction_id, second.transaction_id}) == 3
        for one in (first.transaction_id, handle):
            assert await end(client, "patience", one) == Code.OK
        stream.cancel()
    assert "patience" in await asyncio.to_thread(delivered, server)
