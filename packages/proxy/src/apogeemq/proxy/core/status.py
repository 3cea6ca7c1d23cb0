"""What went wrong, in the API's codes: the only place where a broker's or the mesh's word becomes a Status.

Source: reference grpc_v2.md §3 (Apache ResponseBuilder and its tests), client_demands.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from apogeemq.mesh.errors import (
    CallRefused,
    CallsOverloaded,
    ChannelClosed,
    DeadlineExceeded,
    MeshError,
    MessageTooLarge,
    PeerUnavailable,
    StreamLost,
)
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.proto.v2.definition_pb2 import Code, Status
from apogeemq.proxy.errors import AnswerLost, MasterAway, ProxyError
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.remoting_codec.roles import is_not_master

OK = Status(code=Code.OK, message="OK")
"""Shared: who puts it into a response copies it."""

_CODE_OF_REFUSAL: dict[int, Code] = {
    ResponseCode.SYSTEM_BUSY: Code.TOO_MANY_REQUESTS,
    ResponseCode.POLLING_FULL: Code.TOO_MANY_REQUESTS,
    ResponseCode.FLOW_CONTROL: Code.TOO_MANY_REQUESTS,
    ResponseCode.REQUEST_CODE_NOT_SUPPORTED: Code.NOT_IMPLEMENTED,
    ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST: Code.CONSUMER_GROUP_NOT_FOUND,
    ResponseCode.SUBSCRIPTION_PARSE_FAILED: Code.ILLEGAL_FILTER_EXPRESSION,
    ResponseCode.TOPIC_NOT_EXIST: Code.TOPIC_NOT_FOUND,
    ResponseCode.NO_PERMISSION: Code.FORBIDDEN,
    ResponseCode.MESSAGE_ILLEGAL: Code.BAD_REQUEST,
    ResponseCode.INVALID_PARAMETER: Code.BAD_REQUEST,
    ResponseCode.ILLEGAL_OPERATION: Code.BAD_REQUEST,
    ResponseCode.FLUSH_DISK_TIMEOUT: Code.MASTER_PERSISTENCE_TIMEOUT,
    ResponseCode.NO_MESSAGE: Code.INVALID_RECEIPT_HANDLE,
    ResponseCode.SERVICE_NOT_AVAILABLE: Code.INTERNAL_SERVER_ERROR,
}

_TIMER_REFUSAL = "timer message illegal"
"""What the remark of any broker begins with, ours and Apache's, that can't keep a message until its time."""

_STATUS_OF_SEND: dict[mesh.SendStatus, tuple[Code, str]] = {
    mesh.FLUSH_DISK_TIMEOUT: (
        Code.MASTER_PERSISTENCE_TIMEOUT,
        "stored in memory, but not known to be on the broker's disk in time",
    ),
    mesh.FLUSH_SLAVE_TIMEOUT: (
        Code.SLAVE_PERSISTENCE_TIMEOUT,
        "stored at the master, but not known to be at its replicas in time",
    ),
    mesh.SLAVE_NOT_AVAILABLE: (Code.HA_NOT_AVAILABLE, "stored at the master, but no replica follows it closely"),
}


def status(code: int, message: str) -> Status:
    """A Status of this code and text."""
    return Status(code=Code.Name(code), message=message)


def status_of(error: ProxyError) -> Status:
    """The Status that tells a client of a refusal."""
    return status(error.code, error.message)


def common_status(statuses: Sequence[Status]) -> Status:
    """The Status of a response whose entries have these: theirs when all have one code, else MULTIPLE_RESULTS.

    Of several texts with one code the first one is told. `statuses` is not empty.
    """
    first = statuses[0]
    if all(each.code == first.code for each in statuses):
        return first
    return status(Code.MULTIPLE_RESULTS, "the entries differ; look at the status of each")


def error_of(error: MeshError) -> ProxyError:
    """What a client is told of a call to a broker that failed, for any error that `Caller.call` raises."""
    match error:
        case CallRefused() if is_not_master(error.code, error.text):
            return MasterAway(Code.INTERNAL_SERVER_ERROR, error.text)
        case CallRefused():
            code = _CODE_OF_REFUSAL.get(error.code, Code.INTERNAL_SERVER_ERROR)
            return ProxyError(code, error.text)
        case CallsOverloaded():
            return ProxyError(Code.TOO_MANY_REQUESTS, str(error))
        case DeadlineExceeded():
            return ProxyError(Code.PROXY_TIMEOUT, str(error))
        case MessageTooLarge():
            return ProxyError(Code.PAYLOAD_TOO_LARGE, str(error))
        case PeerUnavailable():
            return MasterAway(Code.PROXY_TIMEOUT, f"{error}; try again")
        case StreamLost() | ChannelClosed():
            return AnswerLost(Code.PROXY_TIMEOUT, f"{error}; whether it was done is not known")
    return ProxyError(Code.INTERNAL_SERVER_ERROR, str(error))


def error_of_send(error: CallRefused) -> ProxyError:
    """The same for a send that was refused: a broker's horizon may be nearer than what a proxy lets through."""
    if error.code == ResponseCode.MESSAGE_ILLEGAL and error.text.startswith(_TIMER_REFUSAL):
        return ProxyError(Code.ILLEGAL_DELIVERY_TIME, error.text)
    return error_of(error)


def status_of_send(send_status: mesh.SendStatus) -> Status:
    """The Status of a message that a broker took, by how safe it is there."""
    if send_status == mesh.SEND_OK:
        return OK
    unknown = (Code.INTERNAL_SERVER_ERROR, f"the broker answered with the unknown send status {send_status}")
    return status(*_STATUS_OF_SEND.get(send_status, unknown))


def status_of_handle(result: mesh.HandleResult) -> Status:
    """The Status of one receipt handle, by what its broker said."""
    if result == mesh.HANDLE_OK:
        return OK
    if result == mesh.HANDLE_EXPIRED:
        return status(
            Code.INVALID_RECEIPT_HANDLE,
            "receipt_handle: its time is over or a newer one replaced it; the message is handed out again",
        )
    return status(Code.INVALID_RECEIPT_HANDLE, "receipt_handle: there is no such message in its queue")
