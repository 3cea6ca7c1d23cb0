"""What a client is doing at the moment, for an operator who asks through a server."""

import asyncio
import io
import sys
import threading
import traceback
from typing import Final

DUMP_SIZE_MAX: Final = 1024 * 1024
TASKS_MAX: Final = 1000


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
