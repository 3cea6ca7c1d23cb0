"""gRPC does not survive a fork: a child gets an error at once, where it would hang for ever."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, sys
import grpc.aio
from scripted_proxy import ScriptedProxy
from apogeemq.client_api.errors import ClientClosed
from apogeemq.client_api.message import Message
from apogeemq.client_grpc import Producer

async def parent():
    async with ScriptedProxy() as proxy, Producer(proxy.address) as producer:
        await producer.send(Message("T", b"body"))
        child = os.fork()
        if child == 0:
            code = 2
            try:
                code = in_child(producer, proxy.address)
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        await producer.send(Message("T", b"body"))
        return os.waitstatus_to_exitcode(status)

def in_child(producer, address):
    asyncio._set_running_loop(None)
    async def old():
        await producer.send(Message("T", b"body"))
    async def new():
        async with Producer(address):
            pass
    for use in (old, new):
        try:
            asyncio.new_event_loop().run_until_complete(use())
        except ClientClosed as error:
            assert "forked" in str(error), error
        else:
            return 1
    return 0

sys.exit(asyncio.run(parent()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_process_gets_an_error_instead_of_hanging() -> None:
    """With its parent's producer and with one of its own; the parent's goes on working."""
    environ = {**os.environ, "PYTHONPATH": os.path.dirname(__file__), "GRPC_ENABLE_FORK_SUPPORT": "0"}  # noqa: PTH120
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
