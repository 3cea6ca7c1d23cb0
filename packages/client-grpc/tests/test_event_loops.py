"""Both event loops, and what importing costs."""

import asyncio
import subprocess
import sys
from collections.abc import Callable

import pytest
import uvloop
from apogeemq.client_api.message import Message
from apogeemq.client_grpc import Producer, SimpleConsumer
from scripted_proxy import ScriptedProxy


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_message_goes_round(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Under asyncio's own loop and under uvloop, which uvicorn brings (rocketmq-clients#902)."""

    async def go_round() -> bytes:
        async with (
            ScriptedProxy() as proxy,
            Producer(proxy.address) as producer,
            SimpleConsumer(proxy.address, group="G", subscriptions={"T": "*"}) as consumer,
        ):
            await producer.send(Message("T", b"body"))
            (message,) = await consumer.receive()
            await consumer.ack(message)
            return message.body

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(asyncio.wait_for(go_round(), 30)) == b"body"


def test_importing_opens_nothing() -> None:
    """No file is written, no socket opened, no event loop or thread made; OpenTelemetry stays out."""
    program = """
import sys, threading
opened = []
sys.addaudithook(lambda event, arguments: opened.append((event, arguments)) if event.startswith("socket.") else None)
import apogeemq.client_grpc
assert threading.active_count() == 1
assert not [event for event, _ in opened if event in {"socket.connect", "socket.bind"}], opened
assert "opentelemetry" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)
