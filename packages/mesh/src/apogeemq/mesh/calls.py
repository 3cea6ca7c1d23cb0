"""Calls that travel in batches: what both sides share, whatever carries them.

A call is declared once (number, name, message types); the answering side has a table of functions, the asking side a
`Caller`. `StreamCaller` (call_streams) carries entries over mesh streams, `LocalCaller` (local_caller) goes straight to
the table of a service in the same process: who asks does not know which.

    POP = Call(1, "PopMessage", PopMessageRequest, PopMessageReply, Channel.FETCH)
    table = CallTable([Answer(POP, pop)])
    reply = await LocalCaller("broker-a", table).call(POP, PopMessageRequest(...), timeout_s=20.0)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Protocol

from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.network import Req, Resp

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext, Tracer

BROKER_SERVICE = "apogeemq.mesh.v1.BrokerService"
"""The service whose calls these are; traces name a call "service/call"."""

# The response codes of RocketMQ that a refusal may have without any function having chosen it.
SYSTEM_ERROR = 1
SYSTEM_BUSY = 2
REQUEST_CODE_NOT_SUPPORTED = 3


class Channel(Enum):
    """Which stream a call travels on. Small acknowledgements never wait behind large bodies."""

    SEND = "Send"
    FETCH = "Fetch"
    CONTROL = "Control"


@dataclass(frozen=True, slots=True)
class Call(Generic[Req, Resp]):
    """One call. `number` is its identity on the wire, `name` what traces and logs show.

    `is_idempotent`: it may be carried out twice without harm, so it is asked again after a lost stream.
    `hands_out`: its reply takes something away from others at the answering side. Once made it is sent also to an asker
    that has given up, which can give back what is in it (`on_late` of Caller.call).
    """

    number: int
    name: str
    request_type: type[Req]
    response_type: type[Resp]
    channel: Channel
    is_idempotent: bool = False
    hands_out: bool = False


@dataclass(frozen=True, slots=True)
class CallInfo:
    """What an answering function knows about who asks.

    peer       for logs
    owner      the same for all calls of one caller until its streams are lost: membership hangs on it
    deadline   when nobody waits for the answer any more; seconds of the answering side's monotonic clock
    trace      where the asker's trace stands; None outside of a sampled one
    """

    peer: str
    owner: Hashable
    deadline: float
    trace: SpanContext | None


@dataclass(frozen=True, slots=True)
class Answer(Generic[Req, Resp]):
    """A function for a call.

    It gives the reply at once, or an awaitable where it really has to wait; a task exists only for that. It refuses
    with CallRefused. Any other exception is logged and refuses with SYSTEM_ERROR, without its text. What it awaits is
    cancelled when the asker cancels, is lost, or its deadline passes.
    """

    call: Call[Req, Resp]
    function: Callable[[Req, CallInfo], Resp | Awaitable[Resp]]


class CallTable:
    """All the calls that a service answers, and whom to tell when an owner is gone.

    `tracer` is the answering service's own: the spans in which its functions run bear its name, whoever asks and by
    whatever way, also from within the same process. Without one there are none.
    """

    def __init__(
        self,
        answers: Iterable[Answer[Any, Any]],
        *,
        on_owner_gone: Callable[[Hashable], None] = lambda owner: None,
        tracer: Tracer | None = None,
    ) -> None:
        self.by_number: dict[int, Answer[Any, Any]] = {}
        for answer in answers:
            if self.by_number.setdefault(answer.call.number, answer) is not answer:
                raise ValueError(f"two answers to call {answer.call.number}, {answer.call.name}")
        self.on_owner_gone = on_owner_gone
        self.tracer = tracer

    def missing(self, number: int) -> CallRefused:
        """Refuse a call that is not in the table."""
        return unknown_call(number)


def unknown_call(number: int) -> CallRefused:
    """Refuse a call that the table lacks: the asker is newer than the answering side."""
    return CallRefused(REQUEST_CODE_NOT_SUPPORTED, f"call {number} is not known here; update this service first")


def failed_call(name: str) -> CallRefused:
    """Refuse a call whose function failed, without the reason, which may hold what is nobody else's business."""
    return CallRefused(SYSTEM_ERROR, f"{name} failed; the reason is in the answering service's log")


def given_up_call() -> CallRefused:
    """Refuse a call whose function was cancelled, as its asker went or its time was up."""
    return CallRefused(SYSTEM_BUSY, "given up: nobody waits any more")


class Caller(Protocol):
    """Calls to one service."""

    @property
    def target(self) -> str:
        """Whom it reaches, for logs and traces."""
        ...

    async def call(
        self,
        call: Call[Req, Resp],
        request: Req,
        *,
        timeout_s: float,
        on_late: Callable[[Resp], None] | None = None,
    ) -> Resp:
        """Ask and wait. The current span's trace goes along with this very entry.

        `on_late` gets the reply when it comes after this was cancelled or has raised DeadlineExceeded: once, on the
        event loop, outside of any trace. It does not wait and does not raise. It is called for no refusal, nor later
        than late_replies.LATE_S, nor for more than LATE_MAX calls at a time, nor for what was lost with its stream.

        Raises:
            CallRefused: the other side said no.
            PeerUnavailable: not connected; nothing was sent.
            StreamLost: the stream broke after the request was sent: the outcome is unknown.
            DeadlineExceeded: no answer in `timeout_s`; the other side was told that nobody waits any more.
            MessageTooLarge: ours, never sent.
            CallsOverloaded: ours: too much waits to be sent already; never sent.
            ChannelClosed: this process closed the caller.
        """
        ...
