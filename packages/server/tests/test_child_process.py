"""One process of a topology: how it starts, ends and is heard, tried with shells in the place of services."""

import asyncio
import os
import re
import signal
from collections.abc import Mapping

import pytest
from apogeemq.mesh.errors import LifecycleError
from apogeemq.server.child_process import ChildProcess, Command, says_ready_line

READY = """echo '{"ready": true, "service": "x", "listeners": {"http": "127.0.0.1:1"}}'"""


def child(script: str, *, log_prefix: str | None = None) -> ChildProcess:
    """A process that runs this script."""
    environment: Mapping[str, str] = {"PATH": os.environ["PATH"]}
    command = Command(("/bin/sh", "-c", script), environment)
    return ChildProcess("one", "x", lambda: command, says_ready_line, log_prefix=log_prefix)


async def test_a_process_serves_until_it_is_stopped() -> None:
    """Its listeners are those of its ready line; an orderly end has exit code 0."""
    process = child(f"trap 'exit 0' TERM; {READY}; while read line; do :; done")
    await process.start()
    assert process.listeners == {"http": "127.0.0.1:1"}
    assert process.pid > 0
    await process.stop()
    assert await process.ended() == 0


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("exit 3", r"one ended with exit code 3 before it served; its own words are above"),
        ("echo hello; exec cat", r"one said b'hello\\n' where its ready line was due"),
    ],
)
async def test_a_process_that_does_not_serve_is_named(script: str, problem: str) -> None:
    """With what it did instead; it has ended then."""
    process = child(script)
    with pytest.raises(LifecycleError, match=problem):
        await process.start()
    await asyncio.wait_for(process.ended(), timeout=30)


async def test_a_program_that_is_not_there_is_named() -> None:
    """With the system's words."""
    command = Command(("/no/such/program",), {})
    process = ChildProcess("one", "x", lambda: command, says_ready_line)
    with pytest.raises(LifecycleError, match=r"one could not be run: .*No such file"):
        await process.start()


async def test_the_end_by_a_signal_is_its_exit_code() -> None:
    """As -N; and another end than 0 after SIGTERM is told."""
    process = child(f"{READY}; kill -9 $$")
    await process.start()
    assert await process.ended() == -signal.SIGKILL
    process = child(f"trap 'exit 5' TERM; {READY}; while read line; do :; done")
    await process.start()
    with pytest.raises(LifecycleError, match="one ended with exit code 5; its own words are above"):
        await process.stop()


async def test_a_start_that_is_given_up_is_no_failure_of_the_process() -> None:
    """Before it serves it may not know of signals yet, and ends by the signal itself."""
    process = child("echo begun >&2; exec cat", log_prefix="")
    starting = asyncio.create_task(process.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert process.pid == 0 or await process.ended() == -signal.SIGTERM


async def test_its_log_has_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    """Before each line, also before the last one without an end."""
    process = child(f"{READY}; printf 'first\\nsecond' >&2", log_prefix="one | ")
    await process.start()
    await process.ended()
    assert re.findall("^.+$", capfd.readouterr().err, re.MULTILINE) == ["one | first", "one | second"]
