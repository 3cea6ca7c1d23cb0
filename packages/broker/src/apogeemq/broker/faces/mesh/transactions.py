"""EndTransaction and TakeTransactionChecks: what producers behind a proxy say, and what they are asked."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from apogeemq.broker.core.transactions import Decision
from apogeemq.broker.errors import InvalidParameter, RequestFailed, TransactionNotFound
from apogeemq.broker.faces import fields
from apogeemq.broker.faces.mesh.pops import ANSWER_TIME_S
from apogeemq.broker.service.acknowledge import Acknowledger, Verdict
from apogeemq.broker.service.cold_reads import ColdReads
from apogeemq.broker.service.log_reads import LogReads
from apogeemq.broker.service.proxied_checks import ProxiedCheck, ProxiedChecks
from apogeemq.broker.service.transactions import Ended, EndRequest, TransactionService
from apogeemq.mesh.calls import CallInfo
from apogeemq.mesh.clock import Clock
from apogeemq.mesh.v1 import broker_pb2 as pb
from apogeemq.remoting_codec.codes import ResponseCode

CHECKS_PER_CALL_MAX = 32

_DECISIONS = {pb.TRANSACTION_COMMIT: Decision.COMMIT, pb.TRANSACTION_ROLLBACK: Decision.ROLLBACK}


class TransactionAnswers:
    """Answers about transactions.

    Args:
        transactions: the service.
        checks: questions to producers behind proxies.
        acknowledger: decides when an answer may go out.
        reads: knows which half messages are read without waiting for the disk.
        cold_reads: where the others are read.
        clock: for how long questions are waited for.
    """

    def __init__(
        self,
        *,
        transactions: TransactionService,
        checks: ProxiedChecks,
        acknowledger: Acknowledger,
        reads: LogReads,
        cold_reads: ColdReads,
        clock: Clock,
    ) -> None:
        self._transactions = transactions
        self._checks = checks
        self._acknowledger = acknowledger
        self._reads = reads
        self._cold_reads = cold_reads
        self._clock = clock

    def end_transaction(
        self, request: pb.EndTransactionRequest, info: CallInfo
    ) -> pb.EndTransactionReply | Coroutine[Any, Any, pb.EndTransactionReply]:
        """Commit or roll back; a coroutine only while the disk is waited for."""
        end = _checked(request)
        self._acknowledger.check_room(None, 0)
        if not self._reads.is_hot(end.physical_offset):
            return self._end_old(end)
        try:
            ended = self._transactions.end(end, self._transactions.read(end))
        except TransactionNotFound as error:
            return _not_found(error)
        if self._acknowledger.is_safe(ended.topic, wait=True):
            return pb.EndTransactionReply(result=pb.END_OK)
        return self._when_safe(ended)

    def take_transaction_checks(
        self, request: pb.TakeTransactionChecksRequest, info: CallInfo
    ) -> Coroutine[Any, Any, pb.TakeTransactionChecksReply]:
        """Questions for producers of the asker; waits for the poll time at most, and never longer than it does."""
        fields.check_range("max_nums", request.max_nums, 1, CHECKS_PER_CALL_MAX)
        fields.check_range("poll_time_ms", request.poll_time_ms, 0, fields.INT32_MAX)
        deadline = min(self._clock.monotonic() + request.poll_time_ms / 1000, info.deadline - ANSWER_TIME_S)
        return self._take(request.max_nums, deadline, info)

    async def _end_old(self, end: EndRequest) -> pb.EndTransactionReply:
        """The same for a half message that was stored long ago."""
        try:
            ended = self._transactions.end(end, await self._cold_reads.read(lambda: self._transactions.read(end)))
        except TransactionNotFound as error:
            return _not_found(error)
        return await self._when_safe(ended)

    async def _when_safe(self, ended: Ended) -> pb.EndTransactionReply:
        """The answer, once the end would be found again after a crash. Raises RequestFailed: that is not known."""
        if not self._acknowledger.is_safe(ended.topic, wait=True):
            safe: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

            def done(verdict: Verdict) -> None:
                if not safe.done():
                    safe.set_result(verdict)

            self._acknowledger.when_safe(ended.topic, ended.end_offset, True, done, None, 0)
            verdict = await safe
            if verdict.code is not ResponseCode.SUCCESS:
                raise RequestFailed(verdict.remark or f"the transaction has ended, but: {verdict.code.name}")
        return pb.EndTransactionReply(result=pb.END_OK)

    async def _take(self, count_max: int, deadline: float, info: CallInfo) -> pb.TakeTransactionChecksReply:
        taken = await self._checks.take(info.owner, count_max, deadline)
        return pb.TakeTransactionChecksReply(checks=map(_check, taken))


def _checked(request: pb.EndTransactionRequest) -> EndRequest:
    fields.check_text("producer_group", request.producer_group)
    fields.check_range("queue_offset", request.queue_offset, 0, fields.INT64_MAX)
    fields.check_range("physical_offset", request.physical_offset, 0, fields.INT64_MAX)
    fields.check_optional_text("message_id", request.message_id)
    decision = _DECISIONS.get(request.resolution)
    if decision is None:
        raise InvalidParameter(f"resolution is {request.resolution}; it must be 1 (commit) or 2 (roll back)")
    return EndRequest(
        request.producer_group, request.queue_offset, request.physical_offset, decision, request.message_id
    )


def _not_found(error: TransactionNotFound) -> pb.EndTransactionReply:
    return pb.EndTransactionReply(result=pb.END_NOT_FOUND, remark=str(error))


def _check(question: ProxiedCheck) -> pb.TransactionCheck:
    check = question.check
    return pb.TransactionCheck(
        producer_group=check.group,
        client_id=question.client_id,
        record=question.record,
        message_id=check.message_id,
        offset_message_id=check.offset_message_id,
    )
