"""A client that goes while its messages are on their way from the broker to the proxy, over real connections."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable

import pytest
from apogeemq.proto.v2 import definition_pb2 as defs
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.remoting_codec.codes import ResponseCode

from tests.e2e.grpc_client import RawClient, Receive
from tests.e2e.process import free_port, start_all_in_one
from tests.e2e.wire_client import WireClient, send_fields

TOPIC, GROUP = "Late", "G_late"
INVISIBLE_S = 60
DEADLINE_S = 20.0
"""Much less than the invisible time: who gets the message within it need not have waited for its end."""


class Relay:
    """Stands between the proxy and the broker's mesh listener; holds back, when told, what the broker says."""

    def __init__(self) -> None:
        self.broker_port = free_port()
        self.port = 0
        self.held = b""
        self.sent_up_bytes = 0
        self._holds = False
        self._waiting: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._something_came = asyncio.Event()
        self._pumps: set[asyncio.Task[None]] = set()

    def hold(self) -> None:
        self._holds = True

    def let_go(self) -> None:
        self._holds = False
        for to_proxy, data in self._waiting:
            to_proxy.write(data)
        self._waiting.clear()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until bytes that have come make something so."""
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():
                self._something_came.clear()
                await self._something_came.wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, proxy_says: asyncio.StreamReader, to_proxy: asyncio.StreamWriter) -> None:
        broker_says, to_broker = await asyncio.open_connection("127.0.0.1", self.broker_port)
        for pump in (self._pump_up(proxy_says, to_broker), self._pump_down(broker_says, to_proxy)):
            self._pumps.add(asyncio.ensure_future(pump))

    async def _pump_up(self, proxy_says: asyncio.StreamReader, to_broker: asyncio.StreamWriter) -> None:
        while data := await proxy_says.read(1 << 16):
            self.sent_up_bytes += len(data)
            self._something_came.set()
            to_broker.write(data)
        to_broker.close()

    async def _pump_down(self, broker_says: asyncio.StreamReader, to_proxy: asyncio.StreamWriter) -> None:
        while data := await broker_says.read(1 << 16):
            if self._holds:  # and reads on: what is waited for may come behind a word of HTTP/2's own
                self.held += data
                self._waiting.append((to_proxy, data))
                self._something_came.set()
            else:
                to_proxy.write(data)
        to_proxy.close()


def receive(client: RawClient) -> Receive:
    request = v2.ReceiveMessageRequest(
        group=defs.Resource(name=GROUP),
        message_queue=defs.MessageQueue(topic=defs.Resource(name=TOPIC), id=-1, broker=defs.Broker(name="broker-a")),
        filter_expression=defs.FilterExpression(type=defs.TAG, expression="*"),
        batch_size=16,
    )
    request.invisible_duration.seconds = INVISIBLE_S
    return client.receive(request.SerializeToString(), timeout_s=DEADLINE_S)


async def bodies(receiving: Receive) -> list[bytes]:
    parts = [v2.ReceiveMessageResponse.FromString(data) async for data in receiving]
    return [part.message.body for part in parts if part.HasField("message")]


def send(address: str, body: bytes) -> None:
    """Straight to the broker, past the relay."""
    with WireClient(address) as client:
        assert client.request(310, send_fields(TOPIC), body).code == ResponseCode.SUCCESS


async def test_messages_under_way_to_who_has_gone_are_there_for_the_next(tmp_path: pathlib.Path) -> None:
    """Their answer passes the word that nobody waits for it; the proxy makes them visible again when it comes."""
    relay = Relay()
    async with relay.running():
        mesh = "broker.listeners.mesh"
        process = start_all_in_one(
            tmp_path / "data",
            log_directory=tmp_path / "logs",
            settings={f"{mesh}.port": str(relay.broker_port), f"{mesh}.advertised_port": str(relay.port)},
            arguments=["--processes"],
        )
        with process:
            listeners = (await asyncio.to_thread(process.wait_ready)).listeners
            send(listeners["broker.remoting"], b"first")
            async with (
                RawClient(listeners["proxy.grpc"], "goes") as gone,
                RawClient(listeners["proxy.grpc"], "c") as here,
            ):
                assert await bodies(receive(gone)) == [b"first"]
                relay.hold()
                receiving = receive(gone)
                reading = asyncio.ensure_future(bodies(receiving))
                send(listeners["broker.remoting"], b"under way")
                await relay.until(lambda: b"under way" in relay.held)
                sent_up_bytes = relay.sent_up_bytes
                receiving.cancel()
                await relay.until(lambda: relay.sent_up_bytes > sent_up_bytes)
                relay.let_go()
                assert await bodies(receive(here)) == [b"under way"]
                with pytest.raises(asyncio.CancelledError):
                    await reading
            process.stop()
