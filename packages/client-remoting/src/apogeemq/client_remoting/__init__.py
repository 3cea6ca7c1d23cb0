"""Asyncio producer and consumer for RocketMQ's Remoting protocol."""

import logging

from apogeemq.client_api import (
    JSON,
    RAW,
    TEXT,
    Message,
    Middleware,
    ReceivedMessage,
    Reject,
    Resolution,
    Retry,
    RetryLater,
    SendReceipt,
    Sql,
    Topic,
    Transaction,
    exponential,
    json,
)
from apogeemq.client_remoting.core.offsets import Start
from apogeemq.client_remoting.core.pull_schedule import FlowLimits
from apogeemq.client_remoting.core.send_retry import SendRetry
from apogeemq.client_remoting.producer import Producer
from apogeemq.client_remoting.pull_consumer import PullConsumer
from apogeemq.client_remoting.push_consumer import PushConsumer
from apogeemq.client_remoting.requests import ReplyMessage
from apogeemq.remoting_codec.bodies import MessageQueue

__all__ = [
    "JSON",
    "RAW",
    "TEXT",
    "FlowLimits",
    "Message",
    "MessageQueue",
    "Middleware",
    "Producer",
    "PullConsumer",
    "PushConsumer",
    "ReceivedMessage",
    "Reject",
    "ReplyMessage",
    "Resolution",
    "Retry",
    "RetryLater",
    "SendReceipt",
    "SendRetry",
    "Sql",
    "Start",
    "Topic",
    "Transaction",
    "exponential",
    "json",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
