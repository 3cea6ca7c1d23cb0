"""Transactions: ending a half message, and asking its producer how it ended."""

from apogeemq.remoting_codec.headers.base import CommandHeader, RpcRequestHeader
from apogeemq.remoting_codec.java_numbers import Int32, Int64


class EndTransactionRequestHeader(RpcRequestHeader, kw_only=True):
    """END_TRANSACTION (37), usually oneway.

    `commit_or_rollback` is the transaction type of a message's sysFlag: 8 commit, 12 roll back, 0 not known yet.
    `tran_state_table_offset` is the half message's queue offset.
    """

    topic: str | None = None
    producer_group: str
    tran_state_table_offset: Int64
    commit_log_offset: Int64
    commit_or_rollback: Int32
    from_transaction_check: bool = False
    msg_id: str
    transaction_id: str | None = None


class EndTransactionResponseHeader(CommandHeader):
    """Answer to END_TRANSACTION: no field."""


class CheckTransactionStateRequestHeader(RpcRequestHeader, kw_only=True):
    """CHECK_TRANSACTION_STATE (39), oneway from the broker to a producer; the body is the half message as stored.

    The offsets are those of the half message's newest copy; `offset_msg_id` is the offset message id of that copy.
    """

    topic: str | None = None
    tran_state_table_offset: Int64
    commit_log_offset: Int64
    msg_id: str | None = None
    transaction_id: str | None = None
    offset_msg_id: str | None = None
