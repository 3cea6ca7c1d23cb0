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
