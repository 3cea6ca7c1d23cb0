"""Commands that a server may send over the Telemetry stream, and what is the same for every client."""

import asyncio
import io
import logging
import sys
import threading
import traceback
from typing import Final

from apogeemq.proto.v2 import definition_pb2, service_pb2

TelemetryCommand = service_pb2.TelemetryCommand

DUMP_SIZE_MAX: Final = 1024 * 1024
TASKS_MAX: Final = 1000

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
    if kind == "recover_orphaned_transaction_command":
        _log.warning(
            "the server asks for the outcome of transaction %s: this client has no transactions, it stays pending",
            command.recover_orphaned_transaction_command.transaction_id,
        )
    else:
        _log.warning("the server's command %s is not known to this client and stays unanswered", kind)
    return None


def verify_answer(nonce: str, code: definition_pb2.Code, text: str) -> TelemetryCommand:
    """The answer to verify_message_command: what became of the message in the handler."""
    return TelemetryCommand(
        status=definition_pb2.Status(code=code, message=text),
        verify_message_result=service_pb2.VerifyMessageResult(nonce=nonce),
    )


def stack_dump() -> str:
    """The stacks of all threads and of the event loop's tasks, up to 1 MiB of text."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    out = io.StringIO()
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 — the documented way to see other threads
        out.write(f"thread {names.get(ident, ident)}\n")
        out.writelines(traceback.format_stack(frame))
    for task in list(asyncio.all_tasks())[:TASKS_MAX]:
        out.write(f"task {task.get_name()}\n")
        for frame in task.get_stack():  # frames of compiled code have no line: the traceback module chokes on them
            out.write(f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}\n")
    return out.getvalue()[:DUMP_SIZE_MAX]
