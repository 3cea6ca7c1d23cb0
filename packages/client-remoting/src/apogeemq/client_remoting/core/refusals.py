"""What a broker's refusal means to a client: whether another broker may be asked, and what the user can do.

Source: reference remoting.md §5.3 (Apache retryResponseCodes: 17, 14, 1, 2, 16, 204, 205, 1500) and §2.2.
"""

from typing import Final

from apogeemq.remoting_codec.codes import ResponseCode as Code

RETRIED_ELSEWHERE: Final = frozenset(
    {
        Code.TOPIC_NOT_EXIST,
        Code.SERVICE_NOT_AVAILABLE,
        Code.SYSTEM_ERROR,
        Code.SYSTEM_BUSY,
        Code.NO_PERMISSION,
        Code.NO_BUYER_ID,
        Code.NOT_IN_CURRENT_UNIT,
        Code.GO_AWAY,
    }
)
"""Refusals of a send that another broker may not share. Nothing was stored."""

PASSING: Final = frozenset({Code.SYSTEM_BUSY, Code.SERVICE_NOT_AVAILABLE, Code.GO_AWAY})
"""Refusals that the same broker may not repeat a moment later."""

STORED: Final = frozenset({Code.FLUSH_DISK_TIMEOUT, Code.SLAVE_NOT_AVAILABLE, Code.FLUSH_SLAVE_TIMEOUT})
"""The message is stored, but not as safely as the broker is set to: sending it again would store it twice."""

_HINTS: Final[dict[int, str]] = {
    Code.SYSTEM_ERROR: "Look at the broker's log.",
    Code.SYSTEM_BUSY: "The broker is overloaded: send less at once, or add brokers.",
    Code.FLUSH_DISK_TIMEOUT: "The message is stored but not on disk yet; sending it again stores it twice.",
    Code.SLAVE_NOT_AVAILABLE: "The message is stored on the master only; sending it again stores it twice.",
    Code.FLUSH_SLAVE_TIMEOUT: "The message is stored on the master only; sending it again stores it twice.",
    Code.MESSAGE_ILLEGAL: "The message is too large, empty, or has properties that the broker does not take.",
    Code.SERVICE_NOT_AVAILABLE: "The broker takes no messages now: its disk may be full, or it is stopping.",
    Code.NO_PERMISSION: "The topic or the broker does not allow that; look at the topic's perm.",
    Code.TOPIC_NOT_EXIST: "Create the topic, or let brokers do it (autoCreateTopicEnable).",
    Code.SUBSCRIPTION_GROUP_NOT_EXIST: "Create the group, or let brokers do it (autoCreateSubscriptionGroup).",
    Code.SUBSCRIPTION_PARSE_FAILED: "Correct the expression where the remark says.",
    Code.REQUEST_CODE_NOT_SUPPORTED: "The server is no broker, or older than this client.",
}


def hint_for(code: int) -> str:
    """What to do next; empty when there is nothing to say."""
    return _HINTS.get(code, "")
