"""ReceiveMessage: long polling, tags checked by text, and the order of the answer.

A receive whose broker set has no master waits for the next one, and polls there for what is left of its time: nothing
is lost with a poll whose answer was, since a message that was popped and not acknowledged comes again.

The answer is a Status, then the messages, then the delivery_timestamp; without messages the Status is
MESSAGE_NOT_FOUND. It leaves ANSWER_MARGIN_MS before the client's deadline, since some clients wait no longer than they
poll. When the client goes away in the middle of it, what it was not given is handed out again at once.
Source: reference grpc_v2.md §7, client_demands.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from apogeemq.mesh.calls import Call
from apogeemq.mesh.chance import Chance
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.network import Req, Resp
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.mesh.v1.methods import ACK_MESSAGE, CHANGE_INVISIBLE_TIME, FORWARD_TO_DEAD_LETTER_QUEUE
from apogeemq.proto.v2 import service_pb2 as v2
from apogeemq.proto.v2.definition_pb2 import Code, Resource
from apogeemq.proxy.core import receipt_handle
from apogeemq.proxy.core.context import RequestContext
from apogeemq.proxy.core.durations import milliseconds, timestamp
from apogeemq.proxy.core.handing_out import Popped, TagFilter
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.core.names import group_of, topic_of
from apogeemq.proxy.core.receipt_handle import ReceiptHandle
from apogeemq.proxy.core.renewal import INVISIBLE_TIME_MS, RenewalTable
from apogeemq.proxy.core.routes import readable_brokers
from apogeemq.proxy.core.settings import REQUEST_TIMEOUT_MS_DEFAULT, GroupPolicy
from apogeemq.proxy.core.status import OK, status
from apogeemq.proxy.core.validation import (
    Filter,
    check_attempt_id,
    check_batch_size,
    check_filter,
    check_invisible_time,
    check_time_to_poll,
    polling_time_ms,
)
from apogeemq.proxy.errors import AnswerLost, MasterAway, ProxyError
from apogeemq.proxy.ports import Routes
from apogeemq.proxy.service.background import Background
from apogeemq.proxy.service.broker_calls import BrokerCalls
from apogeemq.proxy.service.clients import ClientService
from apogeemq.proxy.service.failover import MasterWaits
from apogeemq.proxy.service.metadata import Metadata
from apogeemq.proxy.service.polling import poll

SETTINGS_WAIT_S = 1.0
ANSWER_MARGIN_MS = 500
BROKER_MARGIN_MS = 250
"""How much longer than its poll time a broker may take to answer; within the answer's margin."""

_log = logging.getLogger(__name__)


class _Receive(NamedTuple):
    """A checked request."""

    topic: str
    resource: Resource
    group: str
    broker_name: str
    filter: Filter
    batch_size: int
    invisible_time_ms: int
    poll_time_ms: int
    attempt_id: str
    auto_renew: bool


class Receiving:
    """Hands messages to clients."""

    def __init__(
        self,
        routes: Routes,
        calls: BrokerCalls,
        clients: ClientService,
        metadata: Metadata,
        renewals: RenewalTable,
        waits: MasterWaits,
        background: Background,
        clock: Clock,
        chance: Chance,
        limits: Limits,
    ) -> None:
        self._routes = routes
        self._calls = calls
        self._clients = clients
        self._metadata = metadata
        self._renewals = renewals
        self._waits = waits
        self._background = background
        self._clock = clock
        self._chance = chance
        self._limits = limits

    async def receive_message(
        self, request: v2.ReceiveMessageRequest, context: RequestContext
    ) -> AsyncIterator[v2.ReceiveMessageResponse]:
        """The parts of the answer, in their order. Refusals come before the first part.

        Raises:
            ProxyError: as the request is refused, or as its brokers failed.
        """
        receive = await self._check(request, context)
        messages = await self._pop(receive, context)
        if not messages:
            yield v2.ReceiveMessageResponse(status=status(Code.MESSAGE_NOT_FOUND, "no new message"))
        else:
            undelivered = list(reversed(messages))
            try:
                yield v2.ReceiveMessageResponse(status=OK)
                while undelivered:
                    popped = undelivered.pop()
                    self._renew(receive, popped, context)
                    yield v2.ReceiveMessageResponse(message=popped.message(receive.resource))
            finally:
                if undelivered:
                    self._background.start(self._give_back(receive, undelivered))
        yield v2.ReceiveMessageResponse(delivery_timestamp=timestamp(self._clock.now_ms()))

    async def _check(self, request: v2.ReceiveMessageRequest, context: RequestContext) -> _Receive:
        """The request with its defaults filled in. The settings are waited for a little: some clients are early."""
        topic = topic_of(request.message_queue.topic, "message_queue.topic")
        group = group_of(request.group, "group")
        wanted = check_filter(request.filter_expression, "filter_expression", self._limits)
        batch_size = check_batch_size(request, self._limits)
        # Renewed messages begin with what the proxy renews from, whatever the client says.
        invisible_time_ms = INVISIBLE_TIME_MS if request.auto_renew else check_invisible_time(request, self._limits)
        attempt_id = check_attempt_id(request)
        # Before settings are waited for: a client that gives no time should read why, and one that gives just enough
        # is not refused for what our waiting took of it.
        check_time_to_poll(self._remaining_ms(context), context.client_version, self._limits)
        settings = await self._clients.settings_of(context, SETTINGS_WAIT_S)
        remaining_ms = self._remaining_ms(context)
        wanted_ms = polling_time_ms(
            request,
            remaining_ms=remaining_ms,
            request_timeout_ms=(
                milliseconds(settings.request_timeout)
                if settings is not None and settings.HasField("request_timeout")
                else REQUEST_TIMEOUT_MS_DEFAULT
            ),
            limits=self._limits,
        )
        return _Receive(
            topic=topic,
            resource=request.message_queue.topic,
            group=group,
            broker_name=request.message_queue.broker.name,
            filter=wanted,
            batch_size=batch_size,
            invisible_time_ms=invisible_time_ms,
            poll_time_ms=min(wanted_ms, remaining_ms - ANSWER_MARGIN_MS),
            attempt_id=attempt_id,
            auto_renew=request.auto_renew,
        )

    def _remaining_ms(self, context: RequestContext) -> int:
        """How long the client waits from now on."""
        return int((context.deadline - self._clock.monotonic()) * 1000)

    async def _pop(self, receive: _Receive, context: RequestContext) -> list[Popped]:
        """Messages that the client wants, at most `batch_size`; empty when none came in time."""
        until = self._clock.monotonic() + receive.poll_time_ms / 1000
        wait = self._waits.until(receive.topic, until)
        while True:
            try:
                return await self._pop_once(receive, context, until)
            except (MasterAway, AnswerLost):
                if not await wait.pause():
                    raise

    async def _pop_once(self, receive: _Receive, context: RequestContext, until: float) -> list[Popped]:
        """One poll that ends by then, in monotonic seconds.

        Raises:
            MasterAway: none of the brokers has a master now.
            AnswerLost: the poll was under way when its broker died.
        """
        broker_names = await self._brokers_to_ask(receive)
        policy = self._metadata.kept_group_policy(receive.group)
        if policy is None:
            policy = await self._metadata.group_policy(receive.group, broker_names, self._limits.broker_timeout_s)
        poll_time_ms = max(round((until - self._clock.monotonic()) * 1000), 0)
        request = mesh.PopMessageRequest(
            consumer_group=receive.group,
            topic=receive.topic,
            queue_id=-1,
            max_msg_nums=receive.batch_size,
            invisible_time_ms=receive.invisible_time_ms,
            poll_time_ms=poll_time_ms,
            init_mode=mesh.POP_INIT_MAX,
            expression_type=receive.filter.expression_type,
            expression=receive.filter.expression,
            attempt_id=receive.attempt_id,
            client_id=context.client_id,
            order=policy.is_fifo,
        )
        timeout_s = (poll_time_ms + BROKER_MARGIN_MS) / 1000

        def give_back(messages: list[Popped]) -> None:
            self._background.start(self._give_back(receive, messages))

        try:
            answers = await poll(self._calls, broker_names, request, give_back, clock=self._clock, timeout_s=timeout_s)
        except ProxyError as error:
            if error.code != Code.ILLEGAL_FILTER_EXPRESSION:
                raise
            raise ProxyError(error.code, f"filter_expression: {error.message}") from error
        if answers.is_polling_full and not answers.messages:
            text = f"as many receives of {receive.topic} wait at its broker as may; try again later"
            raise ProxyError(Code.TOO_MANY_REQUESTS, text)
        return self._wanted(receive, self._with_attempts_left(receive, policy, answers.messages))

    async def _brokers_to_ask(self, receive: _Receive) -> list[str]:
        """The broker that the client named; when it named none of the topic's, all that can be read, by lot."""
        route = await self._routes.route(receive.topic, timeout_s=self._limits.broker_timeout_s)
        readable = readable_brokers(route)
        if receive.broker_name in readable:
            return [receive.broker_name]
        if not readable:
            raise ProxyError(
                Code.FORBIDDEN, f"message_queue.topic: no readable queue of {receive.topic}; look at its permission"
            )
        self._chance.shuffle(readable)
        return readable

    def _with_attempts_left(self, receive: _Receive, policy: GroupPolicy, messages: list[Popped]) -> list[Popped]:
        """Those that may be tried once more. In order nothing goes on behind one that fails for ever: the broker, which
        counts the others out itself, is asked to move it to the group's dead letters.
        """
        attempts_max = policy.retry_max_times + 1
        if not policy.is_fifo or all(popped.record.reconsume_times < attempts_max for popped in messages):
            return messages
        for popped in messages:
            if popped.record.reconsume_times >= attempts_max:
                self._background.start(self._forward(receive, popped, attempts_max))
        return [popped for popped in messages if popped.record.reconsume_times < attempts_max]

    async def _forward(self, receive: _Receive, popped: Popped, attempts_max: int) -> None:
        request = mesh.ForwardToDeadLetterQueueRequest(
            consumer_group=receive.group,
            topic=receive.topic,
            handle=receipt_handle.to_mesh(popped.handle),
            reason=f"not acknowledged in {attempts_max} attempts",
        )
        failure = "a message that failed too often comes again from"
        await self._tell(popped.handle.broker_name, FORWARD_TO_DEAD_LETTER_QUEUE, request, failure)

    def _wanted(self, receive: _Receive, messages: list[Popped]) -> list[Popped]:
        """Those whose tag is asked for; the others are done with, for this group."""
        is_wanted = TagFilter(receive.filter.tag_expression)
        wanted = [popped for popped in messages if is_wanted(popped.record)]
        if len(wanted) < len(messages):
            others = [popped for popped in messages if not is_wanted(popped.record)]
            self._background.start(self._acknowledge(receive, others))
        return wanted

    def _renew(self, receive: _Receive, popped: Popped, context: RequestContext) -> None:
        if receive.auto_renew:
            self._renewals.add(
                context.client_id,
                receive.group,
                receive.topic,
                popped.handle,
                popped.record.reconsume_times,
                self._clock.now_ms(),
            )

    async def _acknowledge(self, receive: _Receive, messages: Sequence[Popped]) -> None:
        for broker_name in {popped.handle.broker_name for popped in messages}:
            request = mesh.AckMessageRequest(
                consumer_group=receive.group,
                topic=receive.topic,
                handles=[
                    receipt_handle.to_mesh(popped.handle)
                    for popped in messages
                    if popped.handle.broker_name == broker_name
                ],
            )
            await self._tell(broker_name, ACK_MESSAGE, request, "messages of other tags come again from")

    async def _give_back(self, receive: _Receive, messages: Sequence[Popped]) -> None:
        """Hand out again at once what nobody was given: a batch at most, all at the same time."""
        await asyncio.gather(*(self._give_back_one(receive, popped.handle) for popped in messages))

    async def _give_back_one(self, receive: _Receive, handle: ReceiptHandle) -> None:
        request = mesh.ChangeInvisibleTimeRequest(
            consumer_group=receive.group,
            topic=receive.topic,
            handle=receipt_handle.to_mesh(handle),
            invisible_time_ms=0,
        )
        failure = "a message waits for its invisible time at"
        await self._tell(handle.broker_name, CHANGE_INVISIBLE_TIME, request, failure)

    async def _tell(self, broker_name: str, call: Call[Req, Resp], request: Req, failure: str) -> None:
        """Tell a broker what nobody waits for; `failure` says what becomes of messages when it can't be told."""
        try:
            await self._calls.call(broker_name, call, request, timeout_s=self._limits.broker_timeout_s)
        except ProxyError as error:
            _log.info("%s %s: %s", failure, broker_name, error)
