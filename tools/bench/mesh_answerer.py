"""The answering side of a mesh hop: SendMessage calls over the three streams, each answered at once.

    .venv/bin/python -m tools.bench.mesh_answerer

What a call costs here and at its asker together is what the mesh costs between proxy and broker, without what either
does. It listens on a free port of loopback, says so with the ready line of our services, and ends on SIGTERM.
"""

import asyncio
import signal

from apogeemq.mesh.call_answers import call_handlers
from apogeemq.mesh.calls import Answer, CallInfo, CallTable
from apogeemq.mesh.clock import SystemClock
from apogeemq.mesh.grpc_network import GrpcNetwork
from apogeemq.mesh.runtime import run, settle_garbage_collector
from apogeemq.mesh.service_process import print_ready_line
from apogeemq.mesh.v1.broker_pb2 import SendMessageReply, SendMessageRequest
from apogeemq.mesh.v1.methods import BROKER_CHANNELS, SEND_MESSAGE


def answer(request: SendMessageRequest, info: CallInfo) -> SendMessageReply:
    """Answer as if it had been stored."""
    return SendMessageReply(message_id="7F00000100002A9F0000000000000000", queue_id=request.queue_id, queue_offset=1)


async def serve() -> None:
    """Serve until SIGTERM."""
    table = CallTable([Answer(SEND_MESSAGE, answer)])
    listening = await GrpcNetwork().serve("127.0.0.1", 0, call_handlers(BROKER_CHANNELS, table, clock=SystemClock()))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    settle_garbage_collector()
    print_ready_line("answerer", {"mesh": f"127.0.0.1:{listening.port}"})
    await ended.wait()
    await listening.stop(0)


if __name__ == "__main__":
    run(serve)
