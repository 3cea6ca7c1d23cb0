"""What every package folder has: version, README, changelog, typed marker, tests, licence, and ranges that hold.

The checkers are plain functions from a folder to a list of complaints, tried on planted trees as well.
"""

import pathlib
import re
import tomllib
import typing

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+")
SIBLING = re.compile(r"(?P<wheel>apogeemq(?:-[a-z-]+)?) *(?:\[[a-z0-9, ]+\] *)?\((?P<range>[^)]*)\)$")


def projects(root: pathlib.Path) -> list[pathlib.Path]:
    """Every package folder there is: packages/*, and proto once it has a pyproject."""
    return sorted(file.parent for file in [*root.glob("packages/*/pyproject.toml"), *root.glob("proto/pyproject.toml")])


def load(folder: pathlib.Path) -> dict[str, typing.Any]:
    """A package's pyproject as tables."""
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def check_files(root: pathlib.Path) -> list[str]:
    """README and changelog speak of this package and this version; the wheel is typed; there are tests."""
    complaints = []
    for folder in projects(root):
        where = folder.relative_to(root)
        project = load(folder)["project"]
        name, version = project["name"], project["version"]
        if not VERSION.fullmatch(version):
            complaints.append(f"{where}: version {version!r} is not three numbers")
        if not text_of(folder / "README.md").startswith(f"# {name}\n"):
            complaints.append(f"{where}/README.md does not open with '# {name}'")
        headings = re.findall(r"^## .*$", text_of(folder / "CHANGELOG.md"), re.MULTILINE)
        if not any(version in VERSION.findall(heading) for heading in headings):
            complaints.append(f"{where}/CHANGELOG.md has no '## ' heading with {version}")
        if not list(folder.glob("src/apogeemq/**/py.typed")):
            complaints.append(f"{where} has no py.typed below src/apogeemq")
        if not list(folder.glob("tests/**/test_*.py")):
            complaints.append(f"{where} has no tests")
    return complaints


def text_of(file: pathlib.Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def check_metadata(root: pathlib.Path) -> list[str]:
    """Licence, Python range, build back-end and readme are the same everywhere: one promise to users."""
    expected = {"license": "Apache-2.0", "requires-python": ">=3.11,<4.0", "readme": "README.md"}
    complaints = []
    for folder in projects(root):
        data = load(folder)
        where = folder.relative_to(root)
        complaints += [
            f"{where}: {key} is {data['project'].get(key)!r}, not {value!r}"
            for key, value in expected.items()
            if data["project"].get(key) != value
        ]
        if data.get("build-system", {}).get("build-backend") != "poetry.core.masonry.api":
            complaints.append(f"{where} is not built by poetry-core")
        if not data["project"].get("description"):
            complaints.append(f"{where} has no description")
    return complaints


def check_sibling_ranges(root: pathlib.Path) -> list[str]:
    """The range that a wheel asks of a sibling covers the one beside it: else the two can't be installed together."""
    versions = {load(folder)["project"]["name"]: load(folder)["project"]["version"] for folder in projects(root)}
    complaints = []
    for folder in projects(root):
        where = folder.relative_to(root)
        project = load(folder)["project"]
        optional = [line for extra in project.get("optional-dependencies", {}).values() for line in extra]
        for line in [*project.get("dependencies", []), *optional]:
            if not line.startswith("apogeemq"):
                continue
            match = SIBLING.match(line)
            if match is None:
                complaints.append(f"{where}: {line!r} has no range in parentheses")
            elif match["wheel"] not in versions:
                complaints.append(f"{where}: {match['wheel']} is no package of this repository")
            elif not covers(match["range"], versions[match["wheel"]]):
                complaints.append(f"{where}: {line} does not cover {match['wheel']} {versions[match['wheel']]}")
    return complaints


def covers(version_range: str, version: str) -> bool:
    """Whether a range of the one form in use, >=A,<B, holds the version and is bounded above."""
    match = re.fullmatch(r">=([\d.]+), *<([\d.]+)", version_range)
    return match is not None and numbers(match[1]) <= numbers(version) < numbers(match[2])


def numbers(version: str) -> tuple[int, int, int]:
    parts = [int(part) for part in version.split(".")]
    major, minor, patch = [*parts, 0, 0][:3]
    return major, minor, patch


def check_workspace(root: pathlib.Path) -> list[str]:
    """The root pyproject installs every package that exists, editable, from its folder."""
    dependencies = load(root)["tool"]["poetry"]["dependencies"]
    listed = {entry["path"]: entry for entry in dependencies.values() if isinstance(entry, dict) and "path" in entry}
    complaints = []
    for folder in projects(root):
        path = folder.relative_to(root).as_posix()
        if path not in listed:
            complaints.append(f"{path} is not among the root pyproject's dependencies")
        elif not listed[path].get("develop"):
            complaints.append(f"{path} is not installed editable")
    return complaints


def test_files_of_the_packages() -> None:
    """Version, README, changelog, py.typed and tests are there."""
    assert check_files(ROOT) == []


def test_metadata_of_the_packages() -> None:
    """Licence, Python range and build back-end are the same in all."""
    assert check_metadata(ROOT) == []


def test_ranges_on_siblings() -> None:
    """Every wheel's range covers the sibling that lies beside it."""
    assert check_sibling_ranges(ROOT) == []


def test_workspace_has_every_package() -> None:
    """Set-up installs all of them."""
    assert check_workspace(ROOT) == []


PYPROJECT = """
[project]
name = "apogeemq-store"
version = "0.1.0"
description = "d"
readme = "README.md"
requires-python = ">=3.11,<4.0"
license = "Apache-2.0"
dependencies = ["apogeemq-codec (>=0.1.0,<0.2)", "msgspec (>=0.19,<1)"]
[build-system]
build-backend = "poetry.core.masonry.api"
"""
CODEC = '[project]\nname = "apogeemq-codec"\nversion = "0.1.4"\n'


def plant(root: pathlib.Path) -> pathlib.Path:
    """A package that nobody complains about, and the sibling it needs."""
    for path, text in {
        "pyproject.toml": PYPROJECT,
        "README.md": "# apogeemq-store\n",
        "CHANGELOG.md": "# Changelog\n\n## Unreleased (0.1.0)\n",
        "src/apogeemq/store/py.typed": "",
        "tests/test_store.py": "",
        "../codec/pyproject.toml": CODEC,
    }.items():
        file = root / "packages" / "store" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root / "packages" / "store"


def complaints_of_store(complaints: list[str]) -> list[str]:
    return [complaint for complaint in complaints if complaint.startswith("packages/store")]


def test_a_whole_package_raises_no_complaint(tmp_path: pathlib.Path) -> None:
    """The planted package passes every check before something is taken away from it."""
    plant(tmp_path)
    for check in (check_files, check_metadata, check_sibling_ranges):
        assert complaints_of_store(check(tmp_path)) == []


@pytest.mark.parametrize("missing", ["README.md", "CHANGELOG.md", "src/apogeemq/store/py.typed", "tests/test_store.py"])
def test_a_missing_file_is_found(tmp_path: pathlib.Path, missing: str) -> None:
    """Each file of the list, taken away, is one complaint."""
    (plant(tmp_path) / missing).unlink()
    assert len(complaints_of_store(check_files(tmp_path))) == 1


def test_a_changelog_of_another_version_is_found(tmp_path: pathlib.Path) -> None:
    """0.1.0 is not named by a heading that says 10.1.0."""
    (plant(tmp_path) / "CHANGELOG.md").write_text("# Changelog\n\n## 10.1.0 (2026-11-22)\n0.1.0\n")
    assert "CHANGELOG.md has no" in complaints_of_store(check_files(tmp_path))[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Apache-2.0", "MIT"),
        (">=3.11,<4.0", ">=3.9"),
        ("poetry.core.masonry.api", "setuptools.build_meta"),
        ('description = "d"', 'description = ""'),
        ('readme = "README.md"', ""),
    ],
)
def test_other_metadata_is_found(tmp_path: pathlib.Path, before: str, after: str) -> None:
    """A licence, Python range, readme or back-end of its own is one complaint."""
    pyproject = plant(tmp_path) / "pyproject.toml"
    pyproject.write_text(PYPROJECT.replace(before, after))
    assert len(complaints_of_store(check_metadata(tmp_path))) == 1


@pytest.mark.parametrize(
    "requirement",
    [
        "apogeemq-codec (>=0.2.0,<0.3)",
        "apogeemq-codec (>=0.1.5,<0.2)",
        "apogeemq-codec (>=0.1.0)",
        "apogeemq-codec",
        "apogeemq-gone (>=0.1.0,<0.2)",
    ],
)
def test_a_range_that_does_not_hold_is_found(tmp_path: pathlib.Path, requirement: str) -> None:
    """Too new, too old, unbounded, absent, or of a package that is not there."""
    pyproject = plant(tmp_path) / "pyproject.toml"
    pyproject.write_text(PYPROJECT.replace("apogeemq-codec (>=0.1.0,<0.2)", requirement))
    assert len(complaints_of_store(check_sibling_ranges(tmp_path))) == 1


@pytest.mark.parametrize(
    ("version_range", "version", "expected"),
    [
        (">=0.1.0,<0.2", "0.1.0", True),
        (">=0.1.0,<0.2", "0.1.99", True),
        (">=0.1.0,<0.2", "0.2.0", False),
        (">=0.9.0,<0.10", "0.10.0", False),
        (">=1,<2", "1.10.3", True),
        (">=0.1.0", "0.1.0", False),
    ],
)
def test_ranges_compare_numbers(version_range: str, version: str, *, expected: bool) -> None:
    """Parts are numbers, not text, and a range without an upper end covers nothing."""
    assert covers(version_range, version) is expected


def test_a_package_outside_the_workspace_is_found(tmp_path: pathlib.Path) -> None:
    """Not listed, and listed without develop."""
    plant(tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.poetry.dependencies]\napogeemq-codec = { path = "packages/codec", develop = false }\n'
    )
    assert check_workspace(tmp_path) == [
        "packages/codec is not installed editable",
        "packages/store is not among the root pyproject's dependencies",
    ]
