"""Every example runs, against a server that was just started and with what its README says that it prints."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.interop.deployments import AllInOne

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLE_TIMEOUT_S = 300
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Maven resets them even where it was told to use none

pytestmark = pytest.mark.verify


def standard_output(example: str, command: Sequence[str], home: pathlib.Path) -> str:
    """What an example printed before it ended with exit code 0; clients keep their logs in `home`."""
    done = subprocess.run(
        command,
        cwd=ROOT / "examples" / example,
        env={**os.environ, "HOME": os.fspath(home)},
        capture_output=True,
        text=True,
        timeout=EXAMPLE_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return COLOURS.sub("", done.stdout)


def first_program(example: str, address: str, home: pathlib.Path) -> str:
    """Standard output of the Java program of an example, with the address of a server."""
    maven = shutil.which("mvn")
    assert maven is not None, "mvn is missing: install Maven to run the Java example"
    return standard_output(example, [maven, "-q", "-B", "compile", "exec:java", f"-Dexec.args={address}"], home)


def test_the_first_program_in_java(tmp_path: pathlib.Path) -> None:
    """One message is sent and received, with the official client, unmodified."""
    with AllInOne(tmp_path, {}) as server:
        printed = first_program("java-quickstart", server.namesrv, tmp_path)
        server.stop()
    assert re.search(r"^sent: FirstTopic \S+ queue \d+ offset 0$", printed, re.MULTILINE), printed
    assert re.search(r"^received: hello, queue$", printed, re.MULTILINE), printed


def test_the_first_program_in_java_over_grpc(tmp_path: pathlib.Path) -> None:
    """The same through the proxy."""
    with AllInOne(tmp_path, {}) as server:
        printed = first_program("java-grpc-quickstart", server.grpc, tmp_path)
        server.stop()
    assert re.search(r"^sent: FirstTopic [0-9A-F]{34}$", printed, re.MULTILINE), printed
    assert re.search(r"^received: hello, queue$", printed, re.MULTILINE), printed


def test_the_first_program_in_python_over_grpc(tmp_path: pathlib.Path) -> None:
    """The same with the official Python client."""
    with AllInOne(tmp_path, {}) as server:
        command = [sys.executable, "first_program.py", server.grpc]
        printed = standard_output("python-grpc-quickstart", command, tmp_path)
        server.stop()
    assert re.search(r"^sent: FirstTopic [0-9A-F]{34}$", printed, re.MULTILINE), printed
    assert re.search(r"^received: hello, queue$", printed, re.MULTILINE), printed
