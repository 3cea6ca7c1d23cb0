"""Asyncio producer and consumers for RocketMQ's gRPC protocol.

```python
async with Producer("127.0.0.1:8081") as producer:
    await producer.send(Message("orders", b"7"))
```
Messages, handlers' words (Retry, RetryLater, Reject) and errors come from apogeemq.client_api. Importing this package
opens nothing and logs nothing: its loggers are below `apogeemq.client_grpc`, silent until the application sets them up.
"""

import logging

from apogeemq.client_grpc.link import Tls
from apogeemq.client_grpc.producer import BatchPartlySent, Producer
from apogeemq.client_grpc.push_consumer import PushConsumer
from apogeemq.client_grpc.simple_consumer import AckAllFailed, SimpleConsumer

__all__ = ["AckAllFailed", "BatchPartlySent", "Producer", "PushConsumer", "SimpleConsumer", "Tls"]

logging.getLogger(__name__).addHandler(logging.NullHandler())
