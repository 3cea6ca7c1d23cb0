"""What both ApogeeMQ clients share: messages, typed topics, handlers, errors, trace propagation."""

import logging

from apogeemq.client_api.errors import (
    ClientClosed,
    ClientError,
    ConnectionBroken,
    MessageInvalid,
    NotSupported,
    PayloadInvalid,
    ReceiveFailed,
    RouteNotFound,
    SendFailed,
    SendTimeout,
    SettleFailed,
    StartFailed,
)
from apogeemq.client_api.filters import Filter, Sql
from apogeemq.client_api.handling import Handler, PlainHandler, Reject, Retry, RetryLater, exponential
from apogeemq.client_api.message import Message, ReceivedMessage, SendReceipt
from apogeemq.client_api.middleware import Middleware
from apogeemq.client_api.topics import JSON, RAW, TEXT, Codec, Topic, json

__all__ = [
    "JSON",
    "RAW",
    "TEXT",
    "ClientClosed",
    "ClientError",
    "Codec",
    "ConnectionBroken",
    "Filter",
    "Handler",
    "Message",
    "MessageInvalid",
    "Middleware",
    "NotSupported",
    "PayloadInvalid",
    "PlainHandler",
    "ReceiveFailed",
    "ReceivedMessage",
    "Reject",
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
    "exponential",
    "json",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
