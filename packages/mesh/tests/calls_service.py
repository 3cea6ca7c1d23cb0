"""A service with calls of every kind, for the tests of both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

from apogeemq.mesh.calls import Answer, Call, CallInfo, CallTable, Channel
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.network import Stream
from apogeemq.mesh.v1.calls_pb2 import Frame
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from opentelemetry import trace

CHANNELS = {channel: Stream(f"/apogeemq.mesh.v1.BrokerService/{channel.value}", Frame, Frame) for channel in Channel}
ECHO = Call(1, "Echo", BytesValue, BytesValue, Channel.SEND)
WAIT = Call(2, "Wait", StringValue, StringValue, Channel.FETCH)
ACK = Call(3, "Ack", StringValue, StringValue, Channel.CONTROL, is_idempotent=True)
REFUSE = Call(4, "Refuse", StringValue, StringValue, Channel.CONTROL)
FAIL = Call(5, "Fail", StringValue, StringValue, Channel.CONTROL)
SEND_WAIT = Call(6, "SendWait", BytesValue, BytesValue, Channel.SEND)
ACK_WAIT = Call(7, "AckWait", StringValue, StringValue, Channel.CONTROL, is_idempotent=True)
WRONG = Call(8, "Wrong", StringValue, StringValue, Channel.CONTROL)
TAKE = Call(9, "Take", StringValue, StringValue, Channel.FETCH, hands_out=True)
UNKNOWN = Call(99, "Unknown", StringValue, StringValue, Channel.CONTROL)


class Service:
    """Notes what it is asked; what waits, waits for `release`."""

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self.infos: list[tuple[str, CallInfo]] = []
        self.spans: dict[str, trace.SpanContext] = {}
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.gone: list[Hashable] = []
        self.cancelled_before_gone: list[str] = []
        self.taken: list[str] = []
        self.release = asyncio.Event()
        self.table = CallTable(
            [
                Answer(ECHO, self.echo),
                Answer(WAIT, self.wait),
                Answer(ACK, self.ack),
                Answer(REFUSE, self.refuse),
                Answer(FAIL, self.fail),
                Answer(SEND_WAIT, self.send_wait),
                Answer(ACK_WAIT, self.wait_ack),
                Answer(WRONG, self.wrong),
                Answer(TAKE, self.take),
            ],
            on_owner_gone=self.owner_gone,
            tracer=tracer,
        )

    def owner_gone(self, owner: Hashable) -> None:
        self.gone.append(owner)
        self.cancelled_before_gone = list(self.cancelled)

    def echo(self, request: BytesValue, info: CallInfo) -> BytesValue:
        self.infos.append(("Echo", info))
        return request

    def ack(self, request: StringValue, info: CallInfo) -> StringValue:
        self.infos.append(("Ack", info))
        self.spans[request.value] = trace.get_current_span().get_span_context()
        return request

    def refuse(self, request: StringValue, info: CallInfo) -> StringValue:
        raise CallRefused(17, request.value)

    def fail(self, request: StringValue, info: CallInfo) -> StringValue:
        raise KeyError("secret")

    def wrong(self, request: StringValue, info: CallInfo) -> Any:
        async def later() -> None:
            return None

        return later() if request.value == "later" else None

    async def send_wait(self, request: BytesValue, info: CallInfo) -> BytesValue:
        self.started.append("send")
        await self.release.wait()
        return BytesValue()

    async def take(self, request: StringValue, info: CallInfo) -> StringValue:
        """Hand out what can be had once, after some turns of the loop."""
        for _ in range(3):
            await asyncio.sleep(0)
        self.taken.append(request.value)
        return request

    async def wait_ack(self, request: StringValue, info: CallInfo) -> StringValue:
        return await self.wait(request, info)

    async def wait(self, request: StringValue, info: CallInfo) -> StringValue:
        self.infos.append(("Wait", info))
        self.started.append(request.value)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.value)
            raise
        self.spans[request.value] = trace.get_current_span().get_span_context()
        return request
