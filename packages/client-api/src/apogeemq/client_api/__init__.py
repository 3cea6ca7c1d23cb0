"""What both ApogeeMQ clients share: messages, typed topics, handlers, errors, trace propagation."""

import logging

from apogeemq.client_api.errors import (
    ClientClosed,
    ClientError,
    ConnectionBroken,
    EndTransactionFailed,
    LimitReached,
    MessageInvalid,
    NotSupported,
    PayloadInvalid,
    RecallFailed,
    ReceiveFailed,
    RouteNotFound,
    SendFailed,
    SendTimeout,
    SettleFailed,
    StartFailed,
    TransactionEnded,
)
from apogeemq.client_api.filters import Filter, Sql
from apogeemq.client_api.handling import Handler, PlainHandler, Reject, Retry, RetryLater, exponential
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt
from apogeemq.client_api.middleware import Middleware
from apogeemq.client_api.topics import JSON, RAW, TEXT, Codec, Topic, json
from apogeemq.client_api.transactions import Checker, PlainChecker, Resolution, Transaction

__all__ = [
    "JSON",
    "RAW",
    "TEXT",
    "Checker",
    "ClientClosed",
    "ClientError",
    "Codec",
    "ConnectionBroken",
    "EndTransactionFailed",
    "Filter",
    "Handler",
    "LimitReached",
    "Message",
    "MessageInvalid",
    "Middleware",
    "NotSupported",
    "PayloadInvalid",
    "PlainChecker",
    "PlainHandler",
    "RecallFailed",
    "ReceiveFailed",
    "ReceivedMessage",
    "Reject",
    "Resolution",
    "Retry",
    "RetryLater",
    "RouteNotFound",
    "SendFailed",
    "SendReceipt",
    "SendTimeout",
    "SettleFailed",
    "Sql",
    "StartFailed",
    "Topic",
    "Transaction",
    "TransactionEnded",
    "exponential",
    "json",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
