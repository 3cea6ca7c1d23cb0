"""The transaction id that a gRPC producer gets with its half message, and gives back when it ends the transaction.

```
v1 half message's queue offset, its physical offset, broker      four words, separated by spaces
```
It has all that is needed to find the half message, so that any proxy and any worker of one may end the transaction;
nothing is remembered here, and nothing expires but the half message itself. Whoever makes one up ends nothing: the
broker compares the topic (the producer group) and the message id. Source: reference grpc_v2.md §8, where Apache's proxy
gives out the message id and remembers the rest for 30 s.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.errors import ProxyError

TRANSACTION_ID_SIZE_MAX = 512
"""Two numbers and a broker name fit; what is longer is not ours."""

_VERSION = "v1"
_NUMBER = re.compile(r"[0-9]{1,19}")
_INT64_MAX = 2**63 - 1


class TransactionId(NamedTuple):
    """Where a half message is: in the half topic, in the log, at which broker."""

    queue_offset: int
    physical_offset: int
    broker_name: str

    def __str__(self) -> str:
        return f"{_VERSION} {self.queue_offset} {self.physical_offset} {self.broker_name}"


def parse(text: str) -> TransactionId:
    """The parts of a transaction id as a client sent it.

    Raises:
        ProxyError INVALID_TRANSACTION_ID: it is none of ours.
    """
    words = text.split(" ", 3) if len(text) <= TRANSACTION_ID_SIZE_MAX else []
    if len(words) != 4 or words[0] != _VERSION or not words[3]:
        raise invalid("it does not have the four words of a transaction id; send back what the send was answered with")
    return TransactionId(_number(words[1]), _number(words[2]), words[3])


def invalid(reason: str) -> ProxyError:
    """What a client is told of a transaction id that ends nothing."""
    return ProxyError(Code.INVALID_TRANSACTION_ID, f"transaction_id: {reason}")


def _number(word: str) -> int:
    if not _NUMBER.fullmatch(word) or int(word) > _INT64_MAX:
        raise invalid(f"{word!r} is not a number from 0 to {_INT64_MAX}")
    return int(word)
