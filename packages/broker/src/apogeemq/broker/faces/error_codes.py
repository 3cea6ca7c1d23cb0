"""Which response code an error becomes: the one table, for both doors."""

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
