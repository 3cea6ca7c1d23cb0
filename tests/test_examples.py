"""Every example runs, against a server that was just started and with what its README says that it prints."""

import pathlib
import re
import shutil
import subprocess

import pytest

from tests.interop.deployments import AllInOne

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAVEN_TIMEOUT_S = 300
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Maven resets them even where it was told to use none

pytestmark = pytest.mark.verify


def first_program(namesrv: str) -> str:
    """Standard output of examples/java-quickstart against a name server."""
    maven = shutil.which("mvn")
    assert maven is not None, "mvn is missing: install Maven to run the Java example"
    command = [maven, "-q", "-B", "compile", "exec:java", f"-Dexec.args={namesrv}"]
    done = subprocess.run(
        command,
        cwd=ROOT / "examples" / "java-quickstart",
        capture_output=True,
        text=True,
        timeout=MAVEN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return COLOURS.sub("", done.stdout)


def test_the_first_program_in_java(tmp_path: pathlib.Path) -> None:
    """One message is sent and received, with the official client, unmodified."""
    with AllInOne(tmp_path, {}) as server:
        printed = first_program(server.namesrv)
        server.stop()
    assert re.search(r"^sent: FirstTopic \S+ queue \d+ offset 0$", printed, re.MULTILINE), printed
    assert re.search(r"^received: hello, queue$", printed, re.MULTILINE), printed
