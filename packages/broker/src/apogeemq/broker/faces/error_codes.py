"""Which response code an error becomes, and which limit it is about: the one table, for both doors."""

from typing import Final

from apogeemq.broker.errors import BrokerError
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.store.errors import (
    DiskAlmostFull,
    DiskFull,
    DiskSlow,
    MessageInvalid,
    MessageTooLarge,
    NotWritable,
    StoreClosed,
    TooManyWaiters,
)

SYSTEM_BUSY_RETRIED_VERSION_MIN: Final = 473
"""V5_3_0. From it on Java clients send a message that was refused with SYSTEM_BUSY to another broker. Those before give
up at once, but try another one after SERVICE_NOT_AVAILABLE, as all do (DefaultMQProducer.retryResponseCodes)."""


def send_refusal_code(code: int, client_version: int) -> int:
    """The code with which a client of this version takes its message elsewhere, where the refusal's code allows it."""
    if code == ResponseCode.SYSTEM_BUSY and client_version < SYSTEM_BUSY_RETRIED_VERSION_MIN:
        return ResponseCode.SERVICE_NOT_AVAILABLE
    return code


def refusal_limit(error: Exception) -> str | None:
    """The limit that an error is about: the setting, or the name of a fixed bound; None where it is about none."""
    if isinstance(error, BrokerError):
        return error.limit
    return _STORE_LIMITS.get(type(error))


_STORE_LIMITS: Final[dict[type[Exception], str]] = {
    DiskSlow: "store.disk_stall_limit_ms",
    DiskAlmostFull: "store.disk_space_warning_level_percent",
    TooManyWaiters: "limits.waiting_acknowledgements_max",
}


def refusal_remark(error: Exception) -> str:
    """What the client reads. A disk that hangs begins with the words that people look for since Apache's brokers."""
    if isinstance(error, DiskSlow):
        return f"[PC_SYNCHRONIZED]broker busy, start flow control for a while: {error}"
    return str(error)


def error_code(error: Exception) -> ResponseCode:
    """The response code of whatever a service, the codec or the store raised."""
    if isinstance(error, BrokerError):
        return error.code
    if isinstance(error, MessageTooLarge | MessageInvalid):
        return ResponseCode.MESSAGE_ILLEGAL
    if isinstance(error, TooManyWaiters | DiskSlow):
        return ResponseCode.SYSTEM_BUSY
    if isinstance(error, DiskFull | DiskAlmostFull | NotWritable | StoreClosed):
        return ResponseCode.SERVICE_NOT_AVAILABLE
    return ResponseCode.SYSTEM_ERROR
