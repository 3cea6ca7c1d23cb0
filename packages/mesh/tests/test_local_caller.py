"""Calls to a service in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
from apogeemq.mesh.calls import Answer, Call, CallInfo, CallTable, Channel
from apogeemq.mesh.clock import ManualClock
from apogeemq.mesh.errors import CallRefused, ChannelClosed, DeadlineExceeded
from apogeemq.mesh.local_caller import LocalCaller
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

GREET = Call(1, "Greet", StringValue, StringValue, Channel.CONTROL)
WAIT = Call(2, "Wait", StringValue, StringValue, Channel.FETCH)
TAKE = Call(3, "Take", StringValue, StringValue, Channel.FETCH, hands_out=True)
MISSING = Call(9, "Missing", StringValue, StringValue, Channel.CONTROL)


class Service:
    """Answers at once, waits, refuses or fails, as it is asked."""

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self.clock = ManualClock()
        self.seen: list[tuple[StringValue, CallInfo]] = []
        self.current: list[SpanContext] = []
        self.cancelled: list[str] = []
        self.gone: list[object] = []
        self.taken: list[str] = []
        self.release = asyncio.Event()
        answers = [Answer(GREET, self.greet), Answer(WAIT, self.wait), Answer(TAKE, self.take)]
        self.table = CallTable(answers, on_owner_gone=self.gone.append, tracer=tracer)

    def caller(self, tracer: trace.Tracer | None = None) -> LocalCaller:
        return LocalCaller("broker-a:10921", self.table, clock=self.clock, tracer=tracer)

    def greet(self, request: StringValue, info: CallInfo) -> StringValue:
        self.seen.append((request, info))
        self.current.append(trace.get_current_span().get_span_context())
        if request.value == "refuse":
            raise CallRefused(17, "topic T does not exist; create it")
        if request.value == "fail":
            raise KeyError("secret")
        return StringValue(value=f"hello {request.value}")

    async def wait(self, request: StringValue, info: CallInfo) -> StringValue:
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.value)
            raise
        self.current.append(trace.get_current_span().get_span_context())
        if request.value == "time out inside":
            raise TimeoutError
        return StringValue(value="done")

    async def take(self, request: StringValue, info: CallInfo) -> StringValue:
        """Hand out what can be had once, after some turns of the loop; once asked a stubborn one can't be stopped."""
        if request.value == "stubborn":
            while not self.release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self.release.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        self.taken.append(request.value)
        return request


async def test_same_objects_and_what_the_answer_knows() -> None:
    """The request goes through as the object it is; the answer knows its deadline and whose call it is."""
    service = Service()
    service.clock.advance(100)
    caller = service.caller()
    request = StringValue(value="ann")
    assert (await caller.call(GREET, request, timeout_s=3.0)).value == "hello ann"
    await caller.call(GREET, request, timeout_s=5.0)
    (seen, first), (_, second) = service.seen
    assert seen is request
    assert (first.deadline, second.deadline, first.trace) == (103.0, 105.0, None)
    assert first.owner == second.owner
    assert len(asyncio.all_tasks()) == 1


async def test_refusals_and_failures(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal comes as it was raised; a failure is logged and refuses without its text; so does an unknown call."""
    caller = Service().caller()
    with pytest.raises(CallRefused) as refused:
        await caller.call(GREET, StringValue(value="refuse"), timeout_s=3.0)
    assert (refused.value.code, refused.value.text) == (17, "topic T does not exist; create it")
    with caplog.at_level(logging.ERROR), pytest.raises(CallRefused) as refused:
        await caller.call(GREET, StringValue(value="fail"), timeout_s=3.0)
    assert refused.value.code == 1
    assert "secret" not in refused.value.text
    assert "secret" in caplog.text
    with pytest.raises(CallRefused) as refused:
        await caller.call(MISSING, StringValue(), timeout_s=3.0)
    assert refused.value.code == 3


async def test_waiting_answers() -> None:
    """An answer that waits is awaited."""
    service = Service()
    asking = asyncio.ensure_future(service.caller().call(WAIT, StringValue(value="a"), timeout_s=3.0))
    await service.clock.run_for(2.9)
    assert not asking.done()
    service.release.set()
    assert (await asking).value == "done"


async def test_time_out_of_its_own_is_a_failure() -> None:
    """A TimeoutError inside the answer is its failure, not the asker's deadline."""
    service = Service()
    service.release.set()
    with pytest.raises(CallRefused):
        await service.caller().call(WAIT, StringValue(value="time out inside"), timeout_s=3.0)


async def test_deadline_cancels_what_waits() -> None:
    """When the deadline passes the asker is told so and the answer is cancelled; its neighbour goes on."""
    service = Service()
    caller = service.caller()
    short = asyncio.ensure_future(caller.call(WAIT, StringValue(value="short"), timeout_s=1.0))
    long = asyncio.ensure_future(caller.call(WAIT, StringValue(value="long"), timeout_s=9.0))
    await service.clock.run_for(1.1)
    with pytest.raises(DeadlineExceeded, match=r"broker-a:10921 did not answer Wait within 1 s"):
        await short
    assert service.cancelled == ["short"]
    service.release.set()
    assert (await long).value == "done"


async def test_cancelling_the_asker_cancels_the_answer() -> None:
    """An asker that is cancelled takes its answer with it."""
    service = Service()
    asking = asyncio.ensure_future(service.caller().call(WAIT, StringValue(value="a"), timeout_s=9.0))
    await service.clock.run_for(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert service.cancelled == ["a"]


@pytest.mark.parametrize(("end", "timeout_s"), [("cancelled", 99.0), ("out of time", 5.0)])
@pytest.mark.parametrize(("after_s", "told"), [(29.0, ["stubborn"]), (31.0, [])])
async def test_an_answer_that_cannot_be_stopped(end: str, timeout_s: float, after_s: float, told: list[str]) -> None:
    """Its asker goes at once, and gets the reply late, once, if it comes soon enough."""
    service = Service()
    late: list[StringValue] = []
    ask = service.caller().call(TAKE, StringValue(value="stubborn"), timeout_s=timeout_s, on_late=late.append)
    asking = asyncio.ensure_future(ask)
    await service.clock.run_for(5.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError if end == "cancelled" else DeadlineExceeded):
        await asking
    assert service.taken == []
    await service.clock.run_for(after_s)
    service.release.set()
    await service.clock.run_for(1.0)
    assert service.taken == ["stubborn"]
    assert [reply.value for reply in late] == told


async def test_a_cancellation_at_any_turn() -> None:
    """In whichever turn of the loop the asker is cancelled: what was handed out it gets, or gets late; once."""
    service = Service()
    caller = service.caller()
    got: list[str] = []
    late: list[StringValue] = []
    for turns in range(12):
        ask = caller.call(TAKE, StringValue(value=f"{turns}"), timeout_s=9.0, on_late=late.append)
        asking = asyncio.ensure_future(ask)
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            got.append((await asking).value)
        await service.clock.run_for(0)
        assert sorted(service.taken) == sorted(got + [reply.value for reply in late])
    assert got != []
    assert late != []


async def test_failures_behind_the_asker(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that fails when nobody waits for it any more is logged, and nobody is told."""
    service = Service()

    async def fail(request: StringValue, info: CallInfo) -> StringValue:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("while it was stopped")

    table = CallTable([Answer(WAIT, fail)])
    caller = LocalCaller("broker-a", table, clock=service.clock)
    late: list[StringValue] = []
    asking = asyncio.ensure_future(caller.call(WAIT, StringValue(), timeout_s=1.0, on_late=late.append))
    await service.clock.run_for(2.0)
    assert isinstance(asking.exception(), DeadlineExceeded)
    assert "call Wait failed after it was given up" in caplog.text
    assert late == []


async def test_an_answer_that_cancels_itself_is_a_refusal() -> None:
    """Its asker, who was not cancelled, is not made to believe so."""

    async def give_up(request: StringValue, info: CallInfo) -> StringValue:
        raise asyncio.CancelledError

    caller = LocalCaller("broker-a", CallTable([Answer(WAIT, give_up)]), clock=ManualClock())
    with pytest.raises(CallRefused, match="nobody waits any more"):
        await caller.call(WAIT, StringValue(), timeout_s=1.0)


async def test_close() -> None:
    """Closing gives up what waits, tells the table once, and refuses further calls."""
    service = Service()
    caller = service.caller()
    asking = asyncio.ensure_future(caller.call(WAIT, StringValue(value="a"), timeout_s=9.0))
    await service.clock.run_for(0)
    await caller.close()
    await caller.close()
    with pytest.raises(ChannelClosed):
        await asking
    with pytest.raises(ChannelClosed):
        await caller.call(GREET, StringValue(), timeout_s=1.0)
    assert service.cancelled == ["a"]
    assert len(service.gone) == 1


async def test_spans_of_a_sampled_call() -> None:
    """A client span under the current one, a server span under that, which is current and told to the answer."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    service = Service(tracer)
    service.release.set()
    caller = service.caller(tracer)
    for call in (GREET, WAIT):
        with tracer.start_as_current_span("root") as root:
            await caller.call(call, StringValue(), timeout_s=1.0)
        server, client, _ = exporter.get_finished_spans()
        assert (server.name, client.name) == (f"apogeemq.mesh.v1.BrokerService/{call.name}",) * 2
        assert (server.kind, client.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
        assert client.parent is not None
        assert server.parent is not None
        assert client.parent.span_id == root.get_span_context().span_id
        assert client.context is not None
        assert server.parent.span_id == client.context.span_id
        assert server.context is not None
        assert service.current.pop().span_id == server.context.span_id
        exporter.clear()
    (_, info) = service.seen[0]
    assert info.trace is not None
    assert dict(client.attributes or {}) == {
        "rpc.system.name": "apogeemq",
        "rpc.method": "apogeemq.mesh.v1.BrokerService/Wait",
        "server.address": "broker-a",
        "server.port": 10921,
    }


async def test_refusal_in_spans() -> None:
    """A refused call has its code in both spans."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("root"), pytest.raises(CallRefused):
        await Service(tracer).caller(tracer).call(GREET, StringValue(value="refuse"), timeout_s=1.0)
    server, client, _ = exporter.get_finished_spans()
    for span in (server, client):
        assert (span.attributes or {})["rpc.response.status_code"] == "17"


async def test_each_side_has_its_own_tracer() -> None:
    """The asking is a span of who asks, the answering one of who answers, in one tree; either may have none."""
    exporter = InMemorySpanExporter()
    tracers: dict[str, trace.Tracer] = {}
    for name in ("apogeemq-proxy", "apogeemq-broker"):
        provider = TracerProvider(resource=Resource({"service.name": name}))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracers[name] = provider.get_tracer("test")
    proxy, broker = tracers.values()

    async def spans_of(asker: trace.Tracer | None, answerer: trace.Tracer | None) -> list[tuple[object, SpanKind]]:
        exporter.clear()
        with proxy.start_as_current_span("root") as root:
            await Service(answerer).caller(asker).call(GREET, StringValue(), timeout_s=1.0)
        *inside_out, _ = exporter.get_finished_spans()
        below = inside_out[::-1]
        own_ids = [root.get_span_context().span_id, *(span.context.span_id for span in below if span.context)]
        assert [span.parent.span_id for span in below if span.parent] == own_ids[:-1]
        return [(span.resource.attributes["service.name"], span.kind) for span in below]

    asked, answered = ("apogeemq-proxy", SpanKind.CLIENT), ("apogeemq-broker", SpanKind.SERVER)
    assert await spans_of(proxy, broker) == [asked, answered]
    assert await spans_of(proxy, None) == [asked]
    assert await spans_of(None, broker) == [answered]


@pytest.mark.parametrize("sampled", [False, True])
async def test_contexts_travel_without_a_tracer(sampled: bool) -> None:
    """Without a tracer, or for an unsampled trace, no span is made and the context reaches the answer as it is."""
    service = Service()
    context = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(int(sampled)))
    with trace.use_span(NonRecordingSpan(context)):
        await service.caller().call(GREET, StringValue(), timeout_s=1.0)
    assert service.current == [context]
    assert service.seen[0][1].trace == (context if sampled else None)
