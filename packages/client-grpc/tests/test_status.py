"""What codes mean to a client."""

import pytest
from apogeemq.client_api.errors import RouteNotFound, SendFailed
from apogeemq.client_grpc.core.status import (
    code_name,
    hint,
    is_fine,
    is_worth_another_attempt,
    no_route,
    refusal,
)
from apogeemq.proto.v2 import definition_pb2

Code = definition_pb2.Code
WORTH_IT = {
    "REQUEST_TIMEOUT",
    "TOO_MANY_REQUESTS",
    "INTERNAL_ERROR",
    "INTERNAL_SERVER_ERROR",
    "HA_NOT_AVAILABLE",
    "PROXY_TIMEOUT",
    "MASTER_PERSISTENCE_TIMEOUT",
    "SLAVE_PERSISTENCE_TIMEOUT",
    "FAILED_TO_CONSUME_MESSAGE",
}


@pytest.mark.parametrize("name", Code.keys())
def test_only_what_may_pass_is_tried_again(name: str) -> None:
    """Of all codes of the API: the server's failures and its limits, never a mistake of the caller's."""
    if name in {"CODE_UNSPECIFIED", "OK", "MULTIPLE_RESULTS", "VERIFY_FIFO_MESSAGE_UNSUPPORTED"}:
        return
    assert is_worth_another_attempt(Code.Value(name)) == (name in WORTH_IT)


def test_ok_and_multiple_results_are_fine() -> None:
    """The second means: look at the entries."""
    assert is_fine(definition_pb2.Status(code=Code.OK))
    assert is_fine(definition_pb2.Status(code=Code.MULTIPLE_RESULTS))
    assert not is_fine(definition_pb2.Status(code=Code.MESSAGE_NOT_FOUND))
    assert not is_fine(definition_pb2.Status())


def test_a_refusal_tells_everything() -> None:
    """Code, its name, the server's words, and what to do."""
    status = definition_pb2.Status(code=Code.MESSAGE_BODY_TOO_LARGE, message="body: 5 MiB")
    error = refusal(SendFailed, "not sent", status, broker="b", attempts=2, elapsed_s=0.5)
    assert (error.code, error.code_name, error.remark, error.broker) == (
        41301,
        "MESSAGE_BODY_TOO_LARGE",
        "body: 5 MiB",
        "b",
    )
    assert str(error) == (
        "not sent: body: 5 MiB (code 41301 MESSAGE_BODY_TOO_LARGE, broker b, 2 attempts, 0.50 s). "
        "Send less in one message, or store the content elsewhere and send where it is."
    )


def test_a_missing_route_is_an_error_of_its_own() -> None:
    """It names the topic, so that a program can make it."""
    error = no_route("T", definition_pb2.Status(code=Code.TOPIC_NOT_FOUND, message="none"))
    assert isinstance(error, RouteNotFound)
    assert (error.topic, error.code) == ("T", 40402)


def test_a_code_from_the_future_is_shown_as_a_number() -> None:
    """Newer servers may know more than this client."""
    assert code_name(49999) == "code 49999"
    assert hint(49999) == ""
