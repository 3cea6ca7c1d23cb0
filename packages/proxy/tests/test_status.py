"""What became of calls to brokers, in the API's codes: reference grpc_v2.md §3."""

from __future__ import annotations

import pytest
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
from apogeemq.proxy.core.status import common_status, error_of, status_of_handle, status_of_send
from apogeemq.remoting_codec.codes import ResponseCode


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CallRefused(ResponseCode.SYSTEM_BUSY, "t"), Code.TOO_MANY_REQUESTS),
        (CallRefused(ResponseCode.POLLING_FULL, "t"), Code.TOO_MANY_REQUESTS),
        (CallRefused(ResponseCode.REQUEST_CODE_NOT_SUPPORTED, "t"), Code.NOT_IMPLEMENTED),
        (CallRefused(ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST, "t"), Code.CONSUMER_GROUP_NOT_FOUND),
        (CallRefused(ResponseCode.SUBSCRIPTION_PARSE_FAILED, "t"), Code.ILLEGAL_FILTER_EXPRESSION),
        (CallRefused(ResponseCode.TOPIC_NOT_EXIST, "t"), Code.TOPIC_NOT_FOUND),
        (CallRefused(ResponseCode.NO_PERMISSION, "t"), Code.FORBIDDEN),
        (CallRefused(ResponseCode.MESSAGE_ILLEGAL, "t"), Code.BAD_REQUEST),
        (CallRefused(ResponseCode.SYSTEM_ERROR, "t"), Code.INTERNAL_SERVER_ERROR),
        (CallRefused(9999, "t"), Code.INTERNAL_SERVER_ERROR),
        (CallsOverloaded("a", "calls", 1), Code.TOO_MANY_REQUESTS),
        (DeadlineExceeded("a", "SendMessage", 2.0), Code.PROXY_TIMEOUT),
        (PeerUnavailable("a", "refused"), Code.PROXY_TIMEOUT),
        (StreamLost("a", "reset"), Code.PROXY_TIMEOUT),
        (ChannelClosed("a", "channel"), Code.PROXY_TIMEOUT),
        (MessageTooLarge("Send", 2, 1), Code.PAYLOAD_TOO_LARGE),
        (MeshError("other"), Code.INTERNAL_SERVER_ERROR),
    ],
)
def test_every_failure_of_a_call_has_a_code(error: MeshError, code: Code) -> None:
    """And a text; a broker's refusal keeps its own."""
    told = error_of(error)
    assert Code.Name(told.code) == Code.Name(code)
    assert told.message
    if isinstance(error, CallRefused):
        assert told.message == "t"


def test_sends_that_are_not_safe_have_codes_of_their_own() -> None:
    """As the broker's four send statuses; one that we don't know is not taken for a success."""
    statuses = [mesh.SEND_OK, mesh.FLUSH_DISK_TIMEOUT, mesh.FLUSH_SLAVE_TIMEOUT, mesh.SLAVE_NOT_AVAILABLE]
    assert [status_of_send(status).code for status in statuses] == [
        Code.OK,
        Code.MASTER_PERSISTENCE_TIMEOUT,
        Code.SLAVE_PERSISTENCE_TIMEOUT,
        Code.HA_NOT_AVAILABLE,
    ]
    assert status_of_send(mesh.SEND_STATUS_UNSPECIFIED).code == Code.INTERNAL_SERVER_ERROR


def test_handles_are_good_or_invalid() -> None:
    """Outdated and unknown ones alike are for the client to forget."""
    results = [mesh.HANDLE_OK, mesh.HANDLE_EXPIRED, mesh.HANDLE_NO_MESSAGE, mesh.HANDLE_RESULT_UNSPECIFIED]
    assert [status_of_handle(result).code for result in results] == [Code.OK] + [Code.INVALID_RECEIPT_HANDLE] * 3


def test_entries_that_differ_make_multiple_results() -> None:
    """Entries that agree give their own code."""
    ok, bad = Status(code=Code.OK, message="OK"), Status(code=Code.BAD_REQUEST, message="b")
    assert common_status([ok, ok]) == ok
    assert common_status([bad]) == bad
    assert common_status([ok, bad]).code == Code.MULTIPLE_RESULTS
