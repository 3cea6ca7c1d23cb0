"""END_TRANSACTION (37), and CHECK_TRANSACTION_STATE (39) to producers that come by the proxy.

5.x clients name the broker (`bname`). Older ones know it by its address only, which here is the proxy's: then brokers
are asked one after another, and the one that has the half message knows it by its unique key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from apogeemq.mesh.v1.broker_pb2 import (
    END_OK,
    TRANSACTION_COMMIT,
    TRANSACTION_ROLLBACK,
    EndTransactionRequest,
    TransactionCheck,
)
from apogeemq.mesh.v1.methods import END_TRANSACTION
from apogeemq.proxy.faces.remoting.face import Answer, Function
from apogeemq.proxy.faces.remoting.producers import ProducerRequests
from apogeemq.proxy.ports import Brokers
from apogeemq.proxy.service.orphans import Delivery
from apogeemq.remoting_codec.aio.channel import Channel
from apogeemq.remoting_codec.codes import ONEWAY_FLAG, MessageSysFlag, RequestCode, ResponseCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import HeaderInvalid
from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.headers.transaction import (
    CheckTransactionStateRequestHeader,
    EndTransactionRequestHeader,
)
from apogeemq.remoting_codec.record import Record

HALF_TOPIC = "RMQ_SYS_TRANS_HALF_TOPIC"
"""What a broker names as the topic of its questions."""

_RESOLUTIONS = {
    MessageSysFlag.TRANSACTION_COMMIT_TYPE: TRANSACTION_COMMIT,
    MessageSysFlag.TRANSACTION_ROLLBACK_TYPE: TRANSACTION_ROLLBACK,
}


class TransactionRequests:
    """Answers to END_TRANSACTION. `all_brokers` are the names of those behind the proxy."""

    def __init__(self, brokers: Brokers, all_brokers: Callable[[], Sequence[str]], *, timeout_s: float) -> None:
        self._brokers = brokers
        self._all_brokers = all_brokers
        self._timeout_s = timeout_s

    def functions(self) -> Mapping[int, Function]:
        """Request code → function."""
        return {RequestCode.END_TRANSACTION: self.end_transaction}

    async def end_transaction(self, channel: Channel, command: RemotingCommand) -> Answer:
        """A producer commits, rolls back, or does not know yet, which changes nothing."""
        header = EndTransactionRequestHeader.decode(command.ext_fields)
        if header.commit_or_rollback == MessageSysFlag.TRANSACTION_NOT_TYPE:
            return _answer(command, ResponseCode.SUCCESS, None)
        resolution = _RESOLUTIONS.get(header.commit_or_rollback)
        if resolution is None:
            raise HeaderInvalid(
                "commitOrRollback", f"{header.commit_or_rollback} is not 8 (commit), 12 (roll back) or 0"
            )
        request = EndTransactionRequest(
            producer_group=header.producer_group,
            queue_offset=header.tran_state_table_offset,
            physical_offset=header.commit_log_offset,
            resolution=resolution,
        )
        if header.bname:
            return await self._end(command, [header.bname], request)
        request.message_id = header.transaction_id or header.msg_id
        return await self._end(command, self._all_brokers(), request)

    async def _end(
        self, command: RemotingCommand, broker_names: Sequence[str], request: EndTransactionRequest
    ) -> Answer:
        """Ask one after another until one has the half message."""
        remark = "this proxy knows no broker"
        for broker_name in broker_names:
            caller = self._brokers.caller(broker_name)
            reply = await caller.call(END_TRANSACTION, request, timeout_s=self._timeout_s)
            if reply.result == END_OK:
                return _answer(command, ResponseCode.SUCCESS, None)
            remark = reply.remark
        return _answer(command, ResponseCode.SYSTEM_ERROR, remark)


class RemotingProducers:
    """The door of Remoting producers: whom brokers' questions about transactions are passed on to."""

    def __init__(self, producers: ProducerRequests, all_brokers: Callable[[], Sequence[str]]) -> None:
        self._producers = producers
        self._all_brokers = all_brokers

    def broker_names(self) -> Collection[str]:
        """All brokers, since all are told of each producer; none while there is no producer."""
        return self._all_brokers() if self._producers.connected else ()

    def ask(self, broker_name: str, check: TransactionCheck, record: Record) -> Delivery:
        """Ask the client that the broker chose, else another one of the group."""
        members = self._producers.connected.get(check.producer_group, {})
        chosen = members.get(check.client_id)
        channels = [channel for channel in (chosen, *members.values()) if channel is not None and not channel.closed]
        channel = next((channel for channel in channels if channel.writable), None)
        if channel is None:
            return Delivery.BUSY if channels else Delivery.NOBODY
        header = CheckTransactionStateRequestHeader(
            topic=HALF_TOPIC,
            tran_state_table_offset=record.queue_offset,
            commit_log_offset=record.physical_offset,
            msg_id=check.message_id,
            transaction_id=check.message_id,
            offset_msg_id=check.offset_message_id,
            bname=broker_name,
        )
        channel.send_oneway(
            RemotingCommand(
                code=RequestCode.CHECK_TRANSACTION_STATE,
                flag=ONEWAY_FLAG,
                ext_fields=header.encode(),
                body=check.record,
            )
        )
        return Delivery.DELIVERED


def _answer(command: RemotingCommand, code: ResponseCode, remark: str | None) -> Answer:
    return code, encode_response_frame(command.opaque, code, {}, remark)
