"""Transactions: ending a half message."""

from apogeemq.remoting_codec.headers.base import CommandHeader, Int32, Int64, RpcRequestHeader


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
