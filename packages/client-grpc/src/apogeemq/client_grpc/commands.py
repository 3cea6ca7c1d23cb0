"""Commands that a server may send over the Telemetry stream, and what is the same for every client."""

import logging

from apogeemq.client_api.stacks import stack_dump
from apogeemq.proto.v2 import definition_pb2, service_pb2

TelemetryCommand = service_pb2.TelemetryCommand

_log = logging.getLogger(__name__)


def answer_common(command: TelemetryCommand) -> TelemetryCommand | None:
    """Answer what does not concern a message; what this client can't do is logged and left unanswered."""
    kind = command.WhichOneof("command")
    if kind == "print_thread_stack_trace_command":
        nonce = command.print_thread_stack_trace_command.nonce
        return TelemetryCommand(
            status=definition_pb2.Status(code=definition_pb2.Code.OK, message="OK"),
            thread_stack_trace=service_pb2.ThreadStackTrace(nonce=nonce, thread_stack_trace=stack_dump()),
        )
    _log.warning("the server's command %s is not for this client to answer", kind)
    return None


def verify_answer(nonce: str, code: definition_pb2.Code, text: str) -> TelemetryCommand:
    """The answer to verify_message_command: what became of the message in the handler."""
    return TelemetryCommand(
        status=definition_pb2.Status(code=code, message=text),
        verify_message_result=service_pb2.VerifyMessageResult(nonce=nonce),
    )
