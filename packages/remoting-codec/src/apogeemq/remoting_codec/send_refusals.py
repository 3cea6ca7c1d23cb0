"""With which code a refused message is taken elsewhere by its client.

Java producers try another broker after some codes only. SYSTEM_BUSY (2) is among them since 5.3.0; before, they gave up
after it. SERVICE_NOT_AVAILABLE (14) always was. Source: Apache DefaultMQProducer.retryResponseCodes, 4.9.0 to 5.3.3.
"""

from typing import Final

from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

SYSTEM_BUSY_RETRIED_VERSION_MIN: Final = 473
"""V5_3_0."""

SEND_CODES: Final = frozenset(
    {
        RequestCode.SEND_MESSAGE,
        RequestCode.SEND_MESSAGE_V2,
        RequestCode.SEND_BATCH_MESSAGE,
        RequestCode.SEND_REPLY_MESSAGE,
        RequestCode.SEND_REPLY_MESSAGE_V2,
    }
)
"""Requests whose clients choose another broker after a refusal."""


def send_refusal_code(code: int, client_version: int) -> int:
    """The code with which a client of this version takes its message elsewhere, where the refusal's code allows it."""
    if code == ResponseCode.SYSTEM_BUSY and client_version < SYSTEM_BUSY_RETRIED_VERSION_MIN:
        return ResponseCode.SERVICE_NOT_AVAILABLE
    return code
