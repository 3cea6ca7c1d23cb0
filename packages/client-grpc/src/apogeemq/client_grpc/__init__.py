"""Asyncio producer and consumers for RocketMQ's gRPC protocol.

```python
async with Producer("127.0.0.1:8081") as producer:
    await producer.send(Message("orders", b"7"))
```
Errors are in apogeemq.client_api.errors. Importing this package opens nothing and logs nothing: its loggers are below
`apogeemq.client_grpc`, silent until the application sets logging up.
"""

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
from apogeemq.client_grpc.core.flow import FlowLimits
from apogeemq.client_grpc.link import Tls
from apogeemq.client_grpc.producer import Producer
from apogeemq.client_grpc.push_consumer import PushConsumer
from apogeemq.client_grpc.sending import BatchPartlySent
from apogeemq.client_grpc.simple_consumer import AckAllFailed, SimpleConsumer

__all__ = [
    "JSON",
    "RAW",
    "TEXT",
    "AckAllFailed",
    "BatchPartlySent",
    "FlowLimits",
    "Message",
    "Middleware",
    "Producer",
    "PushConsumer",
    "ReceivedMessage",
    "Reject",
    "Resolution",
    "Retry",
    "RetryLater",
    "SendReceipt",
    "SimpleConsumer",
    "Sql",
    "Tls",
    "Topic",
    "Transaction",
    "exponential",
    "json",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
