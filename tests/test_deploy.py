"""Every configuration file in deploy/ is read by the service that it is for: examples that no longer load teach wrong.

A file's name opens with its service: broker.toml, broker-a.properties, namesrv.toml. The service reads it with
`--print-config`, which checks everything that a start would check, and starts nothing. A `topology` is read by
`apogeemq up` so.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPTS = pathlib.Path(sys.executable).parent
SERVICES = ("namesrv", "controller", "broker", "proxy", "topology")
LOAD_TIMEOUT_S = 60


def configurations(deploy: pathlib.Path) -> list[pathlib.Path]:
    """The files that some service reads; compose files, dashboards and the like are read by others."""
    return sorted(file for file in deploy.rglob("*") if file.suffix in {".toml", ".properties", ".conf"})


def service_of(file: pathlib.Path) -> str | None:
    """Whom a configuration is for, by the first word of its name."""
    word = re.split(r"[-.]", file.name)[0]
    return word if word in SERVICES else None


def complaint(file: pathlib.Path) -> str | None:
    """What is wrong with one configuration; None when its service reads it."""
    service = service_of(file)
    if service is None:
        return f"{file.name} does not open with one of {', '.join(SERVICES)}"
    command = [str(SCRIPTS / f"apogeemq-{service}"), "--config", str(file), "--print-config"]
    if service == "topology":
        command = [str(SCRIPTS / "apogeemq"), "up", "--topology", str(file), "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, check=False)
    return None if done.returncode == 0 else f"{file.name}: {service} ended with {done.returncode}\n{done.stderr}"


def test_every_configuration_in_deploy_loads() -> None:
    """Each is read by its service without an error."""
    found = {file: complaint(file) for file in configurations(ROOT / "deploy")}
    assert {file.name: what for file, what in found.items() if what} == {}


def test_configurations_in_the_documents_load(tmp_path: pathlib.Path) -> None:
    """Each TOML and properties block of docs/operations.md is a broker's configuration that it reads."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(toml|properties)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert {kind for kind, _ in blocks} == {"toml", "properties"}
    for number, (kind, block) in enumerate(blocks):
        file = tmp_path / f"broker-{number}.{kind}"
        file.write_text(block)
        assert complaint(file) is None


def test_a_configuration_for_nobody_is_found(tmp_path: pathlib.Path) -> None:
    """A name that tells no service is a complaint, whatever is in the file; other kinds of files are not looked at."""
    (tmp_path / "compose.yml").write_text("services: {}\n")
    (tmp_path / "settings.toml").write_text("")
    [file] = configurations(tmp_path)
    assert "does not open with" in str(complaint(file))


def test_a_configuration_that_does_not_load_is_found(tmp_path: pathlib.Path) -> None:
    """A key that the service does not know is a complaint, and so is one of another service's file."""
    wrong = tmp_path / "broker-wrong.toml"
    wrong.write_text("no_such_key = 1\n")
    assert "no_such_key" in str(complaint(wrong))
    empty = tmp_path / "broker.properties"
    empty.write_text("")
    assert complaint(empty) is None


def test_a_topology_that_does_not_load_is_found(tmp_path: pathlib.Path) -> None:
    """So is a wrong setting of one of its processes, with its name."""
    wrong = tmp_path / "topology-wrong.toml"
    wrong.write_text("[broker_sets.a.members.one]\nno_such_key = 1\n")
    assert "one: no_such_key is not known" in str(complaint(wrong))
