"""What the interop tests build before they run: Java drivers, Apache's servers, an environment with our wheels.

It goes to build/interop, which git ignores. Each product is made once, and again only when what it is made from has
changed: a stamp file holds a digest of that.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "interop"
HERE = pathlib.Path(__file__).resolve().parent
BUILD_TIMEOUT_S = 600.0


class JavaMissingError(Exception):
    """This machine has no Java at all: the one reason for which a test of the Java client is skipped."""


class BuildError(AssertionError):
    """A tool that is there could not build what the tests need; the message has its output."""


def java_driver(version: str) -> str:
    """The class path of our driver with the official Remoting client of that version."""
    return build_driver(BUILD / f"java-driver-{version}", HERE / "java", version)


def java_grpc_driver(version: str) -> str:
    """The class path of our driver with the official gRPC client of that version."""
    return build_driver(BUILD / f"java-grpc-driver-{version}", HERE / "java-grpc", version)


def java_codec_driver(version: str) -> str:
    """The class path of our driver of Apache's codec, request signing and SQL92 filter of that version."""
    return build_driver(BUILD / f"java-codec-driver-{version}", HERE / "java-codec", version)


def build_driver(directory: pathlib.Path, project: pathlib.Path, version: str) -> str:
    """The class path of a driver. Two share sources, so a change of any project's makes each anew."""
    pom = project / "pom.xml"
    sources = [pom, *sorted(HERE.glob("java*/src/**/*.java"))]

    def build() -> None:
        run_maven(pom, "process-classes", f"-Drocketmq.version={version}", f"-Ddriver.directory={directory}")

    build_once(directory, digest(sources, version), build)
    return f"{directory}/classes:{directory}/lib/*"


def apache_server(version: str) -> str:
    """The class path of Apache's own name server and broker of that version."""
    directory = BUILD / f"apache-{version}"
    pom = HERE / "apache" / "pom.xml"

    def build() -> None:
        run_maven(pom, "process-resources", f"-Drocketmq.version={version}", f"-Dserver.directory={directory}")

    build_once(directory, digest([pom], version), build)
    return f"{directory}/lib/*"


def build_once(directory: pathlib.Path, wanted: str, build: Callable[[], None]) -> None:
    """Runs `build` into an empty directory unless its stamp says that it holds what is wanted already."""
    stamp = directory / "stamp"
    with locked():
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(directory, ignore_errors=True)
        build()
        stamp.write_text(wanted)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One build at a time, also between two test runs on one checkout."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def digest(files: Iterable[pathlib.Path], *words: str) -> str:
    """Changes when a file's name or content or a word changes."""
    hasher = hashlib.sha256(repr(words).encode())
    for path in files:
        hasher.update(path.name.encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()


def java_command() -> str:
    """The `java` of JAVA_HOME or of the path; JavaMissingError when there is none."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        raise JavaMissingError(f"no java in {home + '/bin (JAVA_HOME)' if home else 'PATH'}")
    return java


def run_maven(pom: pathlib.Path, phase: str, *definitions: str) -> None:
    """Maven asks its registry only for what its local repository lacks, so a second build needs no network."""
    java_command()
    maven = shutil.which("mvn")
    if maven is None:
        raise BuildError("java is there and mvn is not: install Maven to run the Java interop tests")
    run([maven, "-q", "-B", "-f", str(pom), phase, *definitions])


def run(argv: list[str]) -> None:
    """Fails with all of the command's output."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{' '.join(argv)}: not done after {BUILD_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise BuildError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
