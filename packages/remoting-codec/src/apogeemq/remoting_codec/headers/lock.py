"""Locks on queues, for those who consume in order. What is locked is in the bodies."""

from apogeemq.remoting_codec.headers.base import RpcRequestHeader


class LockBatchMqRequestHeader(RpcRequestHeader):
    """LOCK_BATCH_MQ (41): no field of its own; the body is the LockBatchRequestBody."""


class UnlockBatchMqRequestHeader(RpcRequestHeader):
    """UNLOCK_BATCH_MQ (42): no field of its own; the body is the UnlockBatchRequestBody."""
