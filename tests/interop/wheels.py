"""Our own wheels, as a user installs them: built now, in a virtual environment that has nothing else of ours."""

import functools
import pathlib
import sys
import tomllib

import msgspec

from tests.interop import build

BUILDER = build.ROOT / ".tools" / "bin" / "python"
"""Has poetry-core; ./task makes it."""


class Project(msgspec.Struct):
    """What we need of a [project] table."""

    name: str
    version: str
    dependencies: list[str] = []

    @property
    def wheel_name(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


@functools.cache
def environment(*names: str) -> pathlib.Path:
    """A virtual environment with these wheels of ours, those that they need, and third-party wheels from the index."""
    dist = build.BUILD / "dist"
    with build.locked():
        build.run([str(BUILDER), str(build.ROOT / "tools" / "build_wheels.py"), "--out", str(dist)])
    wheels = [dist / project.wheel_name for project in with_siblings(names)]
    directory = build.BUILD / "wheels"

    def install() -> None:
        build.run([sys.executable, "-m", "venv", str(directory)])
        pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # By path, so that no package of the same name in an index can take a wheel's place.
        build.run([*pip, *map(str, wheels)])

    build.build_once(directory, build.digest(wheels, sys.version), install)
    return directory


def with_siblings(names: tuple[str, ...]) -> list[Project]:
    """These packages and every package of ours that they depend on."""
    projects = {project.name: project for project in our_projects()}
    found: dict[str, Project] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in projects and name not in found:
            found[name] = projects[name]
            waiting += [requirement.split()[0] for requirement in projects[name].dependencies]
    return [found[name] for name in sorted(found)]


def our_projects() -> list[Project]:
    """The [project] table of each package in the repository."""
    paths = [*build.ROOT.glob("proto/pyproject.toml"), *build.ROOT.glob("packages/*/pyproject.toml")]
    return [msgspec.convert(tomllib.loads(path.read_text())["project"], Project) for path in paths]
