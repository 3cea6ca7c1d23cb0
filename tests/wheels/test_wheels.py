"""The built wheels: what is in them, and that each service runs from its own wheels with no other service installed.

Third-party packages come from wherever pip is told to look; ours from the folder that tools/build_wheels.py filled.
"""

import collections
import collections.abc
import email.message
import email.policy
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile

import pytest

from tests.e2e.process import ManagedProcess, console_script, start_all_in_one, start_service

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILDER = ROOT / ".tools" / "bin" / "python"  # has poetry-core; ./task makes it
SERVICES = ("namesrv", "controller", "broker", "proxy")
BUILD_TIMEOUT_S = 120
INSTALL_TIMEOUT_S = 600
COMMAND_TIMEOUT_S = 60

pytestmark = pytest.mark.verify


def run(command: collections.abc.Sequence[object], *, timeout_s: float, cwd: pathlib.Path | None = None) -> str:
    """Standard output of a command that must end well; its other output is in the failure."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, cwd=cwd, check=False)
    assert done.returncode == 0, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with what the builder builds, and with a stale wheel of an earlier build gone from it."""
    out = tmp_path_factory.mktemp("dist")
    (out / "apogeemq_store-0.0.1-py3-none-any.whl").write_bytes(b"stale")
    (out / "notes.txt").write_text("not ours to touch")
    printed = run([BUILDER, ROOT / "tools" / "build_wheels.py", "--out", out], timeout_s=BUILD_TIMEOUT_S)
    built = {file.name for file in out.iterdir()} - {"notes.txt"}
    assert built == {line.split()[-1] for line in printed.splitlines()}
    assert "apogeemq_store-0.0.1-py3-none-any.whl" not in built
    assert (out / "notes.txt").exists()
    return out


@pytest.fixture(scope="module")
def wheels(dist: pathlib.Path) -> dict[str, zipfile.ZipFile]:
    """Wheel files by the name in their metadata."""
    opened = [zipfile.ZipFile(file) for file in sorted(dist.glob("*.whl"))]
    return {metadata_of(wheel)["Name"]: wheel for wheel in opened}


def metadata_of(wheel: zipfile.ZipFile) -> email.message.EmailMessage:
    return email.message_from_bytes(wheel.read(named(wheel, "METADATA")), policy=email.policy.default)


def named(wheel: zipfile.ZipFile, name: str) -> str:
    """The path of one file of the wheel's dist-info."""
    [path] = [path for path in wheel.namelist() if re.fullmatch(rf"[^/]+\.dist-info/(?:licenses/)?{name}", path)]
    return path


def test_every_package_is_built(dist: pathlib.Path) -> None:
    """A wheel and an sdist for every pyproject."""
    projects = [*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("proto/pyproject.toml")]
    assert len(list(dist.glob("*.whl"))) == len(list(dist.glob("*.tar.gz"))) == len(projects)


def test_licence_and_typed_marker_are_in_every_wheel(wheels: dict[str, zipfile.ZipFile]) -> None:
    """The licence as text and as metadata, py.typed, a description; and no __init__.py in the shared namespace."""
    licence = (ROOT / "LICENSE").read_bytes()
    for name, wheel in wheels.items():
        metadata = metadata_of(wheel)
        assert metadata["License-Expression"] == "Apache-2.0", name
        assert metadata["License-File"] == "LICENSE", name
        assert wheel.read(named(wheel, "LICENSE")) == licence, name
        assert metadata["Description-Content-Type"] == "text/markdown", name
        assert metadata.get_content().strip(), name
        assert any(path.endswith("/py.typed") for path in wheel.namelist()), name
        assert "apogeemq/__init__.py" not in wheel.namelist(), name
        assert not [path for path in wheel.namelist() if "__pycache__" in path or "/tests/" in path], name


def test_no_two_wheels_bring_the_same_file(wheels: dict[str, zipfile.ZipFile]) -> None:
    """Wheels of one namespace are installed over each other: a shared file would belong to the last one."""
    count = collections.Counter(path for wheel in wheels.values() for path in wheel.namelist())
    assert [path for path, times in count.items() if times > 1] == []


def test_wheels_ask_for_ranges_and_not_for_folders(wheels: dict[str, zipfile.ZipFile]) -> None:
    """The sibling paths of this repository stay in it."""
    for name, wheel in wheels.items():
        for line in metadata_of(wheel).get_all("Requires-Dist", []):
            assert " @ " not in line, (name, line)
            if line.startswith("apogeemq"):
                assert re.search(r">=\d[\d.]*,<\d[\d.]*", line), (name, line)


def test_every_sdist_builds_the_same_wheel(
    dist: pathlib.Path, wheels: dict[str, zipfile.ZipFile], tmp_path: pathlib.Path
) -> None:
    """Unpacked alone, without its siblings' folders beside it, an sdist builds what the repository builds."""
    build = "import sys; from poetry.core.masonry import api; print(api.build_wheel(sys.argv[1]))"
    for sdist in sorted(dist.glob("*.tar.gz")):
        with tarfile.open(sdist) as archive:
            archive.extractall(tmp_path / "unpacked", filter="data")
        folder = tmp_path / "unpacked" / sdist.name.removesuffix(".tar.gz")
        out = tmp_path / "rebuilt"
        out.mkdir(exist_ok=True)
        name = run([BUILDER, "-c", build, out], timeout_s=BUILD_TIMEOUT_S, cwd=folder).split()[-1]
        with zipfile.ZipFile(out / name) as rebuilt:
            original = wheels[metadata_of(rebuilt)["Name"]]
            assert rebuilt.read(named(rebuilt, "RECORD")) == original.read(named(original, "RECORD")), sdist.name


def test_each_service_has_its_own_command(wheels: dict[str, zipfile.ZipFile]) -> None:
    """apogeemq-namesrv in the wheel of that name, and so on; the all-in-one's is `apogeemq`."""
    for name in ["apogeemq", *(f"apogeemq-{service}" for service in SERVICES)]:
        if name in wheels:
            commands = wheels[name].read(named(wheels[name], "entry_points.txt")).decode()
            assert re.search(rf"^{name} *=", commands, re.MULTILINE), commands


def install(directory: pathlib.Path, dist: pathlib.Path, *wheels: str) -> pathlib.Path:
    """A fresh environment with some of our wheels and what they ask for; the folder of the environment."""
    venv.create(directory, with_pip=True)
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    run(
        [
            directory / "bin" / "python",
            "-m",
            "pip",
            "install",
            *quiet,
            "--find-links",
            dist,
            *(f"{wheel}==0.1.0" for wheel in wheels),
        ],
        timeout_s=INSTALL_TIMEOUT_S,
    )
    return directory


def installed(environment: pathlib.Path) -> set[str]:
    """Names of our wheels in an environment."""
    listed = run(
        [environment / "bin" / "python", "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
        timeout_s=COMMAND_TIMEOUT_S,
    )
    return {package["name"] for package in json.loads(listed) if package["name"].startswith("apogeemq")}


def get(url: str) -> int:
    """Status of a GET on loopback."""
    with urllib.request.urlopen(url, timeout=COMMAND_TIMEOUT_S) as answer:
        return int(answer.status)


@pytest.fixture(scope="module")
def alone(
    request: pytest.FixtureRequest, dist: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, pathlib.Path]:
    """(service, an environment with that service's wheels only)."""
    service = str(request.param)
    return service, install(tmp_path_factory.mktemp(service), dist, f"apogeemq-{service}")


CLOSURES = {
    "namesrv": {"apogeemq-namesrv", "apogeemq-mesh", "apogeemq-remoting-codec"},
    "controller": {"apogeemq-controller", "apogeemq-mesh"},
    "broker": {"apogeemq-broker", "apogeemq-mesh", "apogeemq-remoting-codec", "apogeemq-store"},
    "proxy": {"apogeemq-proxy", "apogeemq-mesh", "apogeemq-remoting-codec", "apogeemq-proto"},
}
LISTENERS = {
    "namesrv": {"remoting", "mesh", "http"},
    "controller": {"mesh", "http"},
    "broker": {"remoting", "mesh", "http"},
    "proxy": {"grpc", "remoting", "http"},
}
CLIENTS = {
    "client-remoting": (
        {"apogeemq-client-remoting", "apogeemq-client-api", "apogeemq-remoting-codec"},
        "namesrv.remoting",
        ', start="earliest"',
    ),
    "client-grpc": ({"apogeemq-client-grpc", "apogeemq-client-api", "apogeemq-proto"}, "proxy.grpc", ""),
}
"""Wheel → the wheels of ours that it brings, which listener its programs are given, further arguments of a consumer."""


@pytest.mark.parametrize("alone", CLOSURES, indirect=True)
class TestServiceAlone:
    """One service from its own wheels, in an environment that has no other service."""

    def test_brings_its_siblings_and_no_other_service(self, alone: tuple[str, pathlib.Path]) -> None:
        """Exactly the wheels of architecture §2's arrows."""
        service, environment = alone
        assert installed(environment) == CLOSURES[service]

    def test_help(self, alone: tuple[str, pathlib.Path]) -> None:
        """`--help` names the options that operators need."""
        service, environment = alone
        printed = run([console_script(f"apogeemq-{service}", environment), "--help"], timeout_s=COMMAND_TIMEOUT_S)
        assert {"--config", "--set", "--print-config"} <= set(re.findall(r"--[a-z-]+", printed))

    def test_starts_serves_and_stops(self, alone: tuple[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
        """Ready line, an answer on /healthz, and exit code 0 after SIGTERM."""
        service, environment = alone
        config = tmp_path / f"{service}.toml"
        config.write_text("")
        settings = {
            **{f"listeners.{name}.port": "0" for name in LISTENERS[service]},
            **({"store.path": str(tmp_path / "store")} if service == "broker" else {}),
        }
        started = start_service(
            service, config=config, settings=settings, log_directory=tmp_path, environment=environment
        )
        with started as process:
            listeners = process.wait_ready().listeners
            assert LISTENERS[service] <= listeners.keys()
            assert get(f"http://{listeners['http']}/healthz") == 200
            process.stop()


FIRST_PROGRAM = """
import asyncio, sys
from apogeemq.client_api.message import Message
from {module} import Producer, PushConsumer

async def main(address: str) -> None:
    async with Producer(address) as producer:
        await producer.send(Message("{topic}", b"from a wheel"))
    async with PushConsumer(address, group="G_{topic}", subscriptions={{"{topic}": "*"}}{options}) as consumer:
        async for message in consumer:
            print(message.body.decode())
            await consumer.ack(message)
            break

asyncio.run(asyncio.wait_for(main(sys.argv[1]), 50))
print(sorted(name for name in sys.modules if name.startswith(("uvloop", "opentelemetry"))))
"""


@pytest.mark.parametrize("wheel", CLIENTS)
def test_a_client_installs_and_works_alone(wheel: str, dist: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """From its wheel in an empty environment, with no telemetry there, it sends and consumes."""
    closure, listener, options = CLIENTS[wheel]
    environment = install(tmp_path / "environment", dist, f"apogeemq-{wheel}")
    assert installed(environment) == closure
    program = tmp_path / "first.py"
    module = f"apogeemq.{wheel.replace('-', '_')}"
    program.write_text(FIRST_PROGRAM.format(module=module, topic=wheel, options=options))
    with start_all_in_one(tmp_path / "data", log_directory=tmp_path, settings={}) as server:
        address = server.wait_ready().listeners[listener]
        printed = run([environment / "bin" / "python", "-I", program, address], timeout_s=COMMAND_TIMEOUT_S)
        server.stop()
    assert printed.splitlines() == ["from a wheel", "[]"]


def test_the_store_alone_checks_a_directory(dist: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """`apogeemq-store check` from the store's wheel: what Java wrote is fine; with one byte changed it exits with 1."""
    environment = install(tmp_path / "environment", dist, "apogeemq-store")
    assert installed(environment) == {"apogeemq-store", "apogeemq-remoting-codec"}
    command: list[str | pathlib.Path] = [console_script("apogeemq-store", environment), "check", "-o", "json"]
    vectors = ROOT / "packages" / "store" / "tests" / "vectors_store"
    store = pathlib.Path(shutil.copytree(vectors, tmp_path / "store", ignore=shutil.ignore_patterns("*.gz")))
    summary = json.loads(run([*command, store], timeout_s=COMMAND_TIMEOUT_S).splitlines()[-1])
    assert (summary["fine"], summary["records"], summary["endOffset"]) == (True, 23, 7138)
    log = store / "commitlog" / "00000000000000000000"
    data = bytearray(log.read_bytes())
    data[data.index(b"two keys", data.index(b"normal 7"))] ^= 1  # in a body, which has a checksum
    log.write_bytes(data)
    argv = [*map(str, command), str(store)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    assert done.returncode == 1
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert findings[0]["physicalOffset"] == 2402


class TestProxyWithABrokerInside:
    """proxyMode=LOCAL: the proxy's wheel knows no broker, and finds one that is installed beside it."""

    def test_without_the_wheel_the_error_names_it(self, dist: pathlib.Path, tmp_path: pathlib.Path) -> None:
        """Exit code 2, with the setting that asks for a broker and the wheel that has it."""
        environment = install(tmp_path / "environment", dist, "apogeemq-proxy")
        command = [str(console_script("apogeemq-proxy", environment)), "--set", "proxyMode=LOCAL"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
        assert done.returncode == 2
        assert "proxyMode" in done.stderr
        assert "apogeemq-broker" in done.stderr

    def test_with_the_wheel_one_process_serves(self, dist: pathlib.Path, tmp_path: pathlib.Path) -> None:
        """A message goes in by gRPC and comes out, with no other broker there."""
        environment = install(tmp_path / "environment", dist, "apogeemq-proxy", "apogeemq-broker", "apogeemq-namesrv")
        names = tmp_path / "namesrv.toml"
        names.write_text("")
        anywhere = {f"listeners.{name}.port": "0" for name in LISTENERS["namesrv"]}
        with start_service(
            "namesrv", config=names, settings=anywhere, log_directory=tmp_path, environment=environment
        ) as namesrv:
            address = namesrv.wait_ready().listeners["mesh"]
            broker = tmp_path / "broker.properties"
            ports = "".join(f"listeners.{name}.port=0\n" for name in LISTENERS["broker"])
            broker.write_text(f"{ports}namesrvAddr={address}\nstorePathRootDir={tmp_path / 'store'}\n")
            config = tmp_path / "proxy.properties"
            config.write_text(f"proxyMode=LOCAL\nbrokerConfigPath={broker}\nnamesrvAddr={address}\n")
            settings = {f"listeners.{name}.port": "0" for name in LISTENERS["proxy"]} | {"topics.auto_create": "true"}
            with start_service(
                "proxy", config=config, settings=settings, log_directory=tmp_path, environment=environment
            ) as proxy:
                program = tmp_path / "first.py"
                program.write_text(FIRST_PROGRAM.format(module="apogeemq.client_grpc", topic="Inside", options=""))
                printed = run(
                    [sys.executable, program, proxy.wait_ready().listeners["grpc"]], timeout_s=COMMAND_TIMEOUT_S
                )
                assert printed.splitlines()[0] == "from a wheel"
                proxy.stop()
            namesrv.stop()


class TestNamesrvWithAControllerInside:
    """enableControllerInNamesrv: the name server's wheel knows no controller, and finds one installed beside it."""

    def test_without_the_wheel_the_error_names_it(self, dist: pathlib.Path, tmp_path: pathlib.Path) -> None:
        """Exit code 2, with the setting that asks for a controller and the wheel that has it."""
        environment = install(tmp_path / "environment", dist, "apogeemq-namesrv")
        command = [str(console_script("apogeemq-namesrv", environment)), "--set", "enableControllerInNamesrv=true"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
        assert done.returncode == 2
        assert "enableControllerInNamesrv" in done.stderr
        assert "apogeemq-controller" in done.stderr

    def test_with_the_wheel_one_process_has_both(self, dist: pathlib.Path, tmp_path: pathlib.Path) -> None:
        """The controller answers at its own listener; without etcd it says so, and the name server serves."""
        environment = install(tmp_path / "environment", dist, "apogeemq-namesrv", "apogeemq-controller")
        inside = tmp_path / "controller.toml"
        inside.write_text('[etcd]\nendpoints = "127.0.0.1:1"\n[listeners.mesh]\nport = 0\n[listeners.http]\nport = 0\n')
        config = tmp_path / "namesrv.properties"
        config.write_text(f"enableControllerInNamesrv=true\ncontroller.config_path={inside}\n")
        settings = {f"listeners.{name}.port": "0" for name in LISTENERS["namesrv"]}
        with start_service(
            "namesrv", config=config, settings=settings, log_directory=tmp_path, environment=environment
        ) as process:
            listeners = process.wait_ready().listeners
            assert get(f"http://{listeners['http']}/readyz") == 200
            assert get(f"http://{listeners['controller.http']}/healthz") == 200
            command = [console_script("apogeemq-controller", environment), "status"]
            printed = run([*command, "--controller", listeners["controller.mesh"]], timeout_s=COMMAND_TIMEOUT_S)
            assert printed.startswith("cluster DefaultCluster, active controller none")
            process.stop()


@pytest.fixture(scope="module")
def all_in_one(dist: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An environment with the `apogeemq` wheel and all that it asks for."""
    return install(tmp_path_factory.mktemp("server"), dist, "apogeemq")


class TestAllInOne:
    """The `apogeemq` wheel: every service in one process."""

    def test_brings_every_package(self, all_in_one: pathlib.Path, wheels: dict[str, zipfile.ZipFile]) -> None:
        """Nothing that was built is missing from it."""
        assert installed(all_in_one) == set(wheels)

    def test_help(self, all_in_one: pathlib.Path) -> None:
        """`apogeemq --help` knows `up`."""
        assert "up" in run([console_script("apogeemq", all_in_one), "--help"], timeout_s=COMMAND_TIMEOUT_S).split()

    def test_up_serves_and_stops(self, all_in_one: pathlib.Path, tmp_path: pathlib.Path) -> None:
        """`apogeemq up` on free ports is ready, and exits 0 after SIGTERM."""
        command = [
            str(console_script("apogeemq", all_in_one)),
            "up",
            "--data",
            str(tmp_path / "data"),
            "--ports",
            "free",
        ]
        with ManagedProcess("up", command, log_directory=tmp_path) as process:
            listeners = process.wait_ready().listeners
            assert {"namesrv.remoting", "broker.remoting", "proxy.grpc", "proxy.remoting"} <= listeners.keys()
            process.stop()
