"""A gRPC server that answers every call at once with a fixed reply, through the proxy's own door.

    .venv/bin/python -m tools.bench.grpc_echo

What a SendMessage costs here is the door's; what it costs more at a proxy is the proxy's and the broker's. It listens
on a free port of loopback, says so with the ready line that our services print, and ends on SIGTERM.
"""

import asyncio
import signal

from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.runtime import run, settle_garbage_collector
from apogeemq.mesh.service_process import print_ready_line
from apogeemq.proxy.faces.grpc.door import GrpcioDoor
from apogeemq.proxy.faces.grpc.port import DoorCall, DoorLimits, Handlers, TcpAddress

from tools.bench.grpc_frames import SEND_MESSAGE_PATH, canned_reply


async def serve() -> None:
    """Serve until SIGTERM."""
    reply = canned_reply()

    async def echo(call: DoorCall, request: bytes) -> bytes:
        return reply

    door = GrpcioDoor(DoorLimits(), clock=SystemClock())
    listening = await door.serve(TcpAddress("127.0.0.1", 0), Handlers(unary={SEND_MESSAGE_PATH: echo}))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    settle_garbage_collector()
    print_ready_line("echo", {"grpc": f"127.0.0.1:{listening.port}"})
    await ended.wait()
    await listening.stop(1.0)


if __name__ == "__main__":
    run(serve)
