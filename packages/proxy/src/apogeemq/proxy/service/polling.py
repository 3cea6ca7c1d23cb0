"""Long polling: one pop at the broker that a client names, or one at each of several at once.

With several brokers each is asked for its share of the batch. The first that has messages ends the wait: what others
popped by then is handed out too, and the rest of the polls is cancelled. What was popped beyond the batch, or for a
client that went away meanwhile, or in a reply that comes when its poll was cancelled or out of time already, is given
back, so that nothing waits for its invisible time without need.

Where the batch is smaller than the number of brokers, a share of it would be less than one message. There the brokers
are first asked one after another for what they have, without waiting, so that a busy topic gives nothing back all the
time; only when none has anything do all polls wait at once, for one message each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from apogeemq.mesh.clock import Clock
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import POP_MESSAGE
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.handing_out import Popped, popped_messages
from apogeemq.proxy.errors import ProxyError
from apogeemq.proxy.service.broker_calls import BrokerCalls
from apogeemq.remoting_codec.errors import RecordInvalid

_TURNS_FOR_STRAGGLERS = 3
"""Event loop turns that answers get which arrived together with the first one."""

QUICK_TIMEOUT_S = 0.25
"""For a pop that does not wait. A broker that is slower is asked again with the others."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Answers:
    """What the brokers said: messages in the order of the brokers, and whether one had no room for another poll."""

    messages: list[Popped] = field(default_factory=list)
    is_polling_full: bool = False


_Polls = dict[asyncio.Task[mesh.PopMessageReply], str]
"""The broker that each one asks."""

_GiveBack = Callable[[list[Popped]], None]


async def poll(
    calls: BrokerCalls,
    broker_names: Sequence[str],
    request: mesh.PopMessageRequest,
    give_back: _GiveBack,
    *,
    clock: Clock,
    timeout_s: float,
) -> Answers:
    """Pop at these brokers, at least one, at most `max_msg_nums` messages together.

    `timeout_s` is longer than the request's poll time. `give_back` gets messages that nobody will be given, also when
    this has ended already.

    Raises:
        ProxyError: no broker could be asked; of the first one. Of several, those that can are enough.
    """
    wanted = request.max_msg_nums
    if wanted < len(broker_names):
        began = clock.monotonic()
        at_once = await _what_is_there(calls, broker_names, request, give_back)
        if at_once.messages:
            return at_once
        spent_s = clock.monotonic() - began
        request.poll_time_ms = max(request.poll_time_ms - int(spent_s * 1000), 0)
        timeout_s = max(timeout_s - spent_s, QUICK_TIMEOUT_S)
    request.max_msg_nums = max(1, wanted // len(broker_names))
    polls: _Polls = {
        asyncio.ensure_future(_pop(calls, name, request, give_back, timeout_s)): name for name in broker_names
    }
    try:
        await _until_one_has_messages(set(polls))
        await _end(set(polls))
    except asyncio.CancelledError:
        give_back(_collect(polls)[0].messages)  # of those that have ended; what others still get, they give back
        await _end(set(polls))
        raise
    answers, errors = _collect(polls)
    if len(errors) == len(polls):
        raise errors[0]
    if len(answers.messages) > wanted:
        give_back(answers.messages[wanted:])
        del answers.messages[wanted:]
    return answers


async def _pop(
    calls: BrokerCalls, broker_name: str, request: mesh.PopMessageRequest, give_back: _GiveBack, timeout_s: float
) -> mesh.PopMessageReply:
    """Pop at one broker; what it hands out too late is given back."""

    def on_late(reply: mesh.PopMessageReply) -> None:
        try:
            messages = list(popped_messages(broker_name, reply))
        except RecordInvalid as error:
            _log.error("%s handed out, late, bytes that are no records: %s", broker_name, error)
            return
        if messages:
            _log.debug("%s handed out %d messages too late; they are given back", broker_name, len(messages))
            give_back(messages)

    return await calls.call(broker_name, POP_MESSAGE, request, timeout_s=timeout_s, on_late=on_late)


async def _what_is_there(
    calls: BrokerCalls, broker_names: Sequence[str], request: mesh.PopMessageRequest, give_back: _GiveBack
) -> Answers:
    """The messages of the first broker that has any now; a broker that can't be asked counts as having none."""
    quick = mesh.PopMessageRequest()
    quick.CopyFrom(request)
    quick.poll_time_ms = 0
    for broker_name in broker_names:
        try:
            reply = await _pop(calls, broker_name, quick, give_back, QUICK_TIMEOUT_S)
            messages = list(popped_messages(broker_name, reply))
        except (ProxyError, RecordInvalid) as error:
            _log.debug("%s was not asked for what it has: %s", broker_name, error)
            continue
        if messages:
            return Answers(messages)
    return Answers()


async def _until_one_has_messages(polls: set[asyncio.Task[mesh.PopMessageReply]]) -> None:
    pending = polls
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if any(task.exception() is None and task.result().runs for task in done):
            break
    for _ in range(_TURNS_FOR_STRAGGLERS if pending else 0):
        await asyncio.sleep(0)


async def _end(polls: set[asyncio.Task[mesh.PopMessageReply]]) -> None:
    """Cancel what still waits, and wait until it has ended."""
    for task in polls:
        task.cancel()
    await asyncio.wait(polls)


def _collect(polls: _Polls) -> tuple[Answers, list[ProxyError]]:
    """Sort out what has come."""
    answers = Answers()
    errors: list[ProxyError] = []
    for task, broker_name in polls.items():
        if not task.done() or task.cancelled():
            continue
        try:
            reply = task.result()
            answers.messages += popped_messages(broker_name, reply)
            answers.is_polling_full |= reply.status == mesh.POP_POLLING_FULL
        except ProxyError as error:
            errors.append(error)
        except RecordInvalid as error:
            _log.error("%s handed out bytes that are no records: %s", broker_name, error)
            text = f"{broker_name} handed out a damaged record: {error}"
            errors.append(ProxyError(Code.INTERNAL_SERVER_ERROR, text))
    return answers, errors
