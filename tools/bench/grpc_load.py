"""The gRPC load: one connection with some SendMessage calls in flight, by grpc.aio, in a process of its own."""

import asyncio
import dataclasses
import itertools
import time

import grpc.aio
from apogeemq.mesh.runtime import run as run_loop
from apogeemq.proto.v2.definition_pb2 import Code

from tools.bench import grpc_frames
from tools.bench.load import Outcome, Tally
from tools.bench.progress import Progress

CALL_TIMEOUT_S = 10.0
DISTINCT_REQUESTS = 512
"""Requests are encoded before the measured time and used again: while it runs, the generator does grpc's part only."""


@dataclasses.dataclass(frozen=True)
class GrpcLoad:
    """What to send where, and whose CPU time counts. `is_proxy`: route and settings are exchanged first."""

    target: str
    topic: str
    in_flight: int
    seconds: float
    warmup_s: float
    server_pids: tuple[int, ...]
    label: str
    is_proxy: bool = True


def run(load: GrpcLoad) -> Outcome:
    """Run one load to its end."""
    return run_loop(lambda: _run(load))


async def _run(load: GrpcLoad) -> Outcome:
    async with grpc.aio.insecure_channel(load.target) as channel:
        telemetry = await _introduce(channel, load) if load.is_proxy else None
        outcome = await _send_for_a_while(channel, load)
        if telemetry is not None:
            telemetry.cancel()
        return outcome


async def _introduce(channel: grpc.aio.Channel, load: GrpcLoad) -> "grpc.aio.StreamStreamCall[bytes, bytes]":
    """Do what a client does at its start; the Telemetry stream stays open."""
    route: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(grpc_frames.QUERY_ROUTE_PATH)
    request = grpc_frames.route_request(load.topic, load.target)
    grpc_frames.check_route(await route(request, metadata=grpc_frames.METADATA, timeout=CALL_TIMEOUT_S))
    opening: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(grpc_frames.TELEMETRY_PATH)
    telemetry = opening(metadata=grpc_frames.METADATA)
    await telemetry.write(grpc_frames.settings_command(load.topic))
    await telemetry.read()
    return telemetry


async def _send_for_a_while(channel: grpc.aio.Channel, load: GrpcLoad) -> Outcome:
    send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(grpc_frames.SEND_MESSAGE_PATH)
    requests = itertools.cycle([grpc_frames.send_request(load.topic, number) for number in range(DISTINCT_REQUESTS)])
    progress = Progress(load.label)
    tally = Tally(load.server_pids)
    is_ending = False

    async def lane() -> None:
        while not is_ending:
            started_ns = time.perf_counter_ns()
            reply: bytes = await send(next(requests), metadata=grpc_frames.METADATA, timeout=CALL_TIMEOUT_S)
            ended_ns = time.perf_counter_ns()
            code, text = grpc_frames.status_of(reply)
            if code == Code.OK:
                tally.messages += 1
                tally.latencies_ns.append(ended_ns - started_ns)
            else:
                tally.errors[f"code {code}: {text[:100]}"] += 1
            progress.show(tally.messages)

    async with asyncio.TaskGroup() as lanes:
        for _ in range(load.in_flight):
            lanes.create_task(lane())
        await asyncio.sleep(load.warmup_s)
        tally = Tally(load.server_pids)
        await asyncio.sleep(load.seconds)
        outcome = tally.outcome()
        is_ending = True
    progress.end(outcome.messages, outcome.rate)
    return outcome
