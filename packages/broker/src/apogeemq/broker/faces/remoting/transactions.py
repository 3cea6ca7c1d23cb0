"""END_TRANSACTION (37); sends CHECK_TRANSACTION_STATE (39).

A producer ends a transaction by a oneway request, of its own accord or when it is asked. It does not answer a question.
"""

from collections.abc import Hashable

from apogeemq.broker.core.clients import Member
from apogeemq.broker.core.names import TRANS_HALF_TOPIC
from apogeemq.broker.core.transactions import Decision
from apogeemq.broker.errors import RequestFailed
from apogeemq.broker.faces.remoting.disk_reads import DiskReads, write_reply
from apogeemq.broker.faces.remoting.table import Handler, RequestStats
from apogeemq.broker.service.acknowledge import Acknowledger, Verdict
from apogeemq.broker.service.log_reads import LogReads
from apogeemq.broker.service.transaction_checks import TransactionCheck
from apogeemq.broker.service.transactions import EndRequest, TransactionService
from apogeemq.remoting_codec.aio.channel import Channel, Reply
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, MessageSysFlag, RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.transaction import (
    CheckTransactionStateRequestHeader,
    EndTransactionRequestHeader,
)
from apogeemq.remoting_codec.record import Record, encode_record

_DECISIONS = {
    MessageSysFlag.TRANSACTION_COMMIT_TYPE: Decision.COMMIT,
    MessageSysFlag.TRANSACTION_ROLLBACK_TYPE: Decision.ROLLBACK,
}


class TransactionRequests:
    """Handler of the transaction family.

    Args:
        transactions: the service.
        acknowledger: decides when an answer may go out, where one is wanted.
        disk_reads: for half messages that were stored long ago.
        reads: knows which half messages are read without waiting for the disk.
        stats: counts answers.
    """

    def __init__(
        self,
        *,
        transactions: TransactionService,
        acknowledger: Acknowledger,
        disk_reads: DiskReads,
        reads: LogReads,
        stats: RequestStats,
    ) -> None:
        self._transactions = transactions
        self._acknowledger = acknowledger
        self._disk_reads = disk_reads
        self._reads = reads
        self._stats = stats

    def handlers(self) -> dict[int, Handler]:
        """Request code → function."""
        return {RequestCode.END_TRANSACTION: self.end_transaction}

    def end_transaction(self, channel: Channel, command: RemotingCommand) -> Reply:
        """A producer commits, rolls back, or does not know yet, which changes nothing."""
        header = EndTransactionRequestHeader.decode(command.ext_fields)
        if header.commit_or_rollback == MessageSysFlag.TRANSACTION_NOT_TYPE:
            return self._answer(command, ResponseCode.SUCCESS, None)
        decision = _DECISIONS.get(header.commit_or_rollback)
        if decision is None:
            raise RequestFailed(
                f"commitOrRollback is {header.commit_or_rollback}; it must be 8 (commit), 12 (roll back) or 0 (unknown)"
            )
        request = EndRequest(header.producer_group, header.tran_state_table_offset, header.commit_log_offset, decision)
        self._acknowledger.check_room(channel, 0)

        def end(half: Record) -> Reply:
            ended = self._transactions.end(request, half)
            if command.is_oneway or self._acknowledger.is_safe(ended.topic, wait=True):
                return self._answer(command, ResponseCode.SUCCESS, None)

            def done(verdict: Verdict) -> None:
                write_reply(channel, self._answer(command, verdict.code, verdict.remark))

            self._acknowledger.when_safe(ended.topic, ended.end_offset, True, done, channel, 0)
            return None

        if self._reads.is_hot(request.physical_offset):
            return end(self._transactions.read(request))
        self._disk_reads.start(channel, command, lambda: self._transactions.read(request), end)
        return None

    def _answer(self, command: RemotingCommand, code: ResponseCode, remark: str | None) -> Reply:
        self._stats.count(command.code, code)
        return None if command.is_oneway else encode_response_frame(command.opaque, code, {}, remark)


class RemotingProducers:
    """Asks producers with a Remoting connection; a ProducerWay. `broker_name` is told with each question."""

    def __init__(self, broker_name: str) -> None:
        self._broker_name = broker_name

    def reaches(self, channel: Hashable) -> bool:
        """Whether it is a connection that reads what it is sent."""
        return isinstance(channel, Channel) and not channel.closed and channel.writable

    def ask(self, member: Member[Hashable], check: TransactionCheck) -> None:
        """Send CHECK_TRANSACTION_STATE."""
        if not isinstance(member.channel, Channel):
            raise TypeError(f"{member.client_id} has no Remoting connection: ask what `reaches` says yes of")
        message = check.message
        header = CheckTransactionStateRequestHeader(
            topic=TRANS_HALF_TOPIC,
            tran_state_table_offset=message.queue_offset,
            commit_log_offset=message.physical_offset,
            msg_id=check.message_id,
            transaction_id=check.message_id,
            offset_msg_id=check.offset_message_id,
            bname=self._broker_name,
        )
        member.channel.send_oneway(
            RemotingCommand(
                code=RequestCode.CHECK_TRANSACTION_STATE,
                flag=ONEWAY_FLAG,
                ext_fields=header.encode(),
                body=encode_record(message),
            )
        )
