"""What a server's status means to a client: go on, try again elsewhere, or tell the user what to do."""

from typing import Final, TypeVar

from apogeemq.client_api.errors import ClientError, Refused, RouteNotFound
from apogeemq.proto.v2 import definition_pb2

Code = definition_pb2.Code

_NAMES: Final[dict[int, str]] = {number: name for name, number in Code.items()}
_FINE: Final = frozenset({Code.OK, Code.MULTIPLE_RESULTS})

# Mistakes of the caller stay mistakes wherever they are sent; of these codes another attempt may fare better.
_WORTH_ANOTHER_ATTEMPT: Final = frozenset({Code.REQUEST_TIMEOUT, Code.TOO_MANY_REQUESTS})
_NEVER: Final = frozenset({Code.NOT_IMPLEMENTED, Code.UNSUPPORTED, Code.VERSION_UNSUPPORTED})

_HINTS: Final[dict[int, str]] = {
    Code.ILLEGAL_TOPIC: "Use letters, digits, - and _, and none of the system's own names.",
    Code.ILLEGAL_CONSUMER_GROUP: "Use letters, digits, - and _ in the group's name.",
    Code.ILLEGAL_INVISIBLE_TIME: "Apache's proxy takes 10 s to 12 h on receive, and up to 12 h on change_invisible.",
    Code.ILLEGAL_DELIVERY_TIME: "The broker limits how far ahead a message may be delayed.",
    Code.INVALID_RECEIPT_HANDLE: "The invisible time was over before; the message comes again.",
    Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE: "The topic's message.type does not allow this kind of message.",
    Code.INVALID_TRANSACTION_ID: "The transaction has ended otherwise, or was given up after too many questions.",
    Code.UNRECOGNIZED_CLIENT_TYPE: "The proxy does not know this client (any more); it is told again by itself.",
    Code.UNAUTHORIZED: "Check the access key, its secret, and what its policies allow.",
    Code.FORBIDDEN: "Check the topic's permission and that it has readable or writable queues.",
    Code.TOPIC_NOT_FOUND: "Create the topic first, or check its name and the cluster.",
    Code.CONSUMER_GROUP_NOT_FOUND: "Create the consumer group first, or check its name.",
    Code.MESSAGE_BODY_TOO_LARGE: "Send less in one message, or store the content elsewhere and send where it is.",
    Code.MESSAGE_BODY_EMPTY: "This server takes no empty bodies.",
    Code.MESSAGE_PROPERTIES_TOO_LARGE: "Tag, keys and properties take 16 KiB together at most.",
    Code.TOO_MANY_REQUESTS: "The server is at a limit; slow down or add brokers.",
    Code.NOT_IMPLEMENTED: "This server cannot do that; a newer one may.",
    Code.PROXY_TIMEOUT: "The proxy got no answer from a broker in time; look at the broker's log.",
    Code.MASTER_PERSISTENCE_TIMEOUT: "The message is in memory, and was not flushed to disk in time.",
    Code.SLAVE_PERSISTENCE_TIMEOUT: "The message is at the master, and a replica did not confirm it in time.",
    Code.HA_NOT_AVAILABLE: "The message is at the master, and no replica is there to confirm it.",
}


def is_fine(status: definition_pb2.Status) -> bool:
    """True when the answer can be used; where it has entries, each has a status of its own."""
    return status.code in _FINE


def is_worth_another_attempt(code: int) -> bool:
    """True for what another queue, another broker or a moment later may answer differently.

    The server's failures are (500xx), except those that say that it never can; of the caller's mistakes (4xxxx) none.
    """
    return code in _WORTH_ANOTHER_ATTEMPT or (code >= Code.INTERNAL_ERROR and code not in _NEVER)


def code_name(code: int) -> str:
    """A code's name in the API; a number for one that this client does not know."""
    return _NAMES.get(code, f"code {code}")


def hint(code: int) -> str:
    """What to do about a code; empty when there is nothing to add to its name."""
    return _HINTS.get(code, "")


RefusedT = TypeVar("RefusedT", bound=Refused)


def refusal(
    kind: type[RefusedT],
    text: str,
    status: definition_pb2.Status,
    *,
    broker: str | None = None,
    attempts: int = 0,
    elapsed_s: float = 0.0,
) -> RefusedT:
    """The error for a refusing status: what was tried, the server's code and words, what to do."""
    return kind(
        text,
        code=status.code,
        code_name=code_name(status.code),
        remark=status.message,
        broker=broker,
        attempts=attempts,
        elapsed_s=elapsed_s,
        hint=hint(status.code),
    )


def no_route(topic: str, status: definition_pb2.Status, *, broker: str | None = None) -> ClientError:
    """The error for a topic whose route was refused."""
    return RouteNotFound(
        topic,
        f"no route for topic {topic}: {status.message}",
        code=status.code,
        code_name=code_name(status.code),
        broker=broker,
        attempts=1,
        hint=hint(status.code),
    )
