"""Which package may import which, and what each pyproject must declare for it. The table is architecture §2's.

The checkers are plain functions from a folder to a list of complaints, so that every rule is tried on planted trees
too: a rule that can't fail would hold nothing. A package that does not exist yet is simply absent; its row stands.
"""

import ast
import collections.abc
import dataclasses
import pathlib
import re
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMESPACE = "apogeemq"


@dataclasses.dataclass(frozen=True)
class Package:
    """One row of the table: where a package lives and what it may import of its siblings and of the world."""

    folder: str
    wheel: str
    module: str
    siblings: frozenset[str] = frozenset()
    third_party: frozenset[str] | None = None  # wheels it may depend on; None = what its pyproject declares
    service: bool = False
    composition: bool = False  # ships siblings for their commands and plug-ins too: may declare more than it imports


def packages_by_name(*rows: Package) -> dict[str, Package]:
    return {pathlib.PurePosixPath(row.folder).name: row for row in rows}


PACKAGES = packages_by_name(
    Package("proto", "apogeemq-proto", "apogeemq.proto", third_party=frozenset({"protobuf", "grpcio"})),
    Package(
        "packages/remoting-codec",
        "apogeemq-remoting-codec",
        "apogeemq.remoting_codec",
        third_party=frozenset({"msgspec", "lz4", "zstandard"}),
    ),
    Package(
        "packages/store",
        "apogeemq-store",
        "apogeemq.store",
        frozenset({"remoting-codec"}),
        third_party=frozenset({"msgspec"}),
    ),
    Package("packages/mesh", "apogeemq-mesh", "apogeemq.mesh"),
    Package(
        "packages/namesrv",
        "apogeemq-namesrv",
        "apogeemq.namesrv",
        frozenset({"remoting-codec", "mesh"}),
        service=True,
    ),
    Package("packages/controller", "apogeemq-controller", "apogeemq.controller", frozenset({"mesh"}), service=True),
    Package(
        "packages/broker",
        "apogeemq-broker",
        "apogeemq.broker",
        frozenset({"store", "remoting-codec", "mesh"}),
        service=True,
    ),
    Package(
        "packages/proxy",
        "apogeemq-proxy",
        "apogeemq.proxy",
        frozenset({"remoting-codec", "mesh", "proto"}),
        service=True,
    ),
    Package(
        "packages/client-api",
        "apogeemq-client-api",
        "apogeemq.client_api",
        third_party=frozenset({"opentelemetry-api"}),  # the extra `otel`
    ),
    Package(
        "packages/client-remoting",
        "apogeemq-client-remoting",
        "apogeemq.client_remoting",
        frozenset({"client-api", "remoting-codec"}),
    ),
    Package(
        "packages/client-grpc",
        "apogeemq-client-grpc",
        "apogeemq.client_grpc",
        frozenset({"client-api", "proto"}),
    ),
    Package("packages/admin", "apogeemq-admin", "apogeemq.admin", frozenset({"client-remoting", "client-grpc"})),
    Package(
        "packages/server",
        "apogeemq",
        "apogeemq.server",
        frozenset({"proto", "remoting-codec", "store", "mesh", "namesrv", "controller", "broker", "proxy"})
        | frozenset({"client-api", "client-remoting", "client-grpc", "admin"}),
        composition=True,
    ),
)

IMPORT_NAMES = {  # wheel → what it is imported as, where the two differ
    "grpcio": ("grpc",),
    "grpcio-health-checking": ("grpc_health",),
    "opentelemetry-api": ("opentelemetry",),
    "opentelemetry-sdk": ("opentelemetry.sdk",),
    "protobuf": ("google.protobuf",),
}

NO_NETWORK = frozenset({"asyncio", "grpc", "selectors", "socket", "socketserver", "ssl", "uvloop", "http", "urllib"})
NO_DISK = frozenset({"io", "mmap", "os", "pathlib", "shutil", "tempfile"})
NO_CLOCK = frozenset({"random", "sched", "secrets", "time", "uuid"})
NO_THREADS = frozenset({"multiprocessing", "signal", "subprocess", "threading"})
SHELLS = frozenset({f"{NAMESPACE}.remoting_codec.aio", f"{NAMESPACE}.mesh.grpc_network", f"{NAMESPACE}.mesh.http"})
PURE = NO_NETWORK | NO_DISK | NO_CLOCK | NO_THREADS | SHELLS
CORE_CALLS = frozenset({"open", "datetime.now", "datetime.today", "datetime.utcnow", "date.today"})

FLOORS = {"core": 0, "service": 1, "faces": 2, "links": 2, "app": 3, "__main__": 3}


@dataclasses.dataclass(frozen=True)
class Import:
    """One name that a file imports: `from a.b import c` is a.b.c, wherever in the file it stands."""

    file: pathlib.Path
    line: int
    name: str
    at_start: bool  # runs when the module is imported: not in a function, not for type checkers only, not in a try

    def at(self, root: pathlib.Path) -> str:
        return f"{self.file.relative_to(root)}:{self.line}"


class _Imports(ast.NodeVisitor):
    """Every import of a file: at its top, in functions, under TYPE_CHECKING, and by importlib with a literal name."""

    def __init__(self, file: pathlib.Path, module: str) -> None:
        self.found: list[Import] = []
        self._file = file
        self._package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        self._depth = 0

    def _add(self, node: ast.stmt | ast.expr, name: str) -> None:
        self.found.append(Import(self._file, node.lineno, name, at_start=self._depth == 0))

    def _deeper(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._deeper(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._deeper(node)

    def visit_Try(self, node: ast.Try) -> None:
        self._deeper(node)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            self._deeper(node)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self._absolute("." * node.level + (node.module or ""))
        for alias in node.names:
            self._add(node, base if alias.name == "*" else f"{base}.{alias.name}")

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in {"import_module", "__import__"} and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                self._add(node, self._absolute(argument.value))
        self.generic_visit(node)

    def _absolute(self, name: str) -> str:
        relative = name.lstrip(".")
        level = len(name) - len(relative)
        if level == 0:
            return name
        parts = self._package.split(".")
        base = ".".join(parts[: len(parts) - level + 1])
        return f"{base}.{relative}" if relative else base


def python_files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


def imports_of(source: pathlib.Path, file: pathlib.Path) -> list[Import]:
    """The imports of one file below `source`, the folder that is on the import path."""
    parts = list(file.relative_to(source).with_suffix("").parts)
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    visitor = _Imports(file, module)
    visitor.visit(ast.parse(file.read_text(encoding="utf-8"), str(file)))
    return visitor.found


def modules_of(root: pathlib.Path) -> dict[str, str]:
    """Dotted name of every module and folder below a package's src → the package's name; absent ones by the table."""
    owners = {row.module: name for name, row in PACKAGES.items()}
    for name, row in PACKAGES.items():
        source = root / row.folder / "src"
        for file in python_files(source / NAMESPACE) if source.is_dir() else []:
            parts = file.relative_to(source).with_suffix("").parts
            for length in range(2, len(parts) + 1):
                owners.setdefault(".".join(parts[:length]), name)
    return owners


def owner_of(name: str, owners: collections.abc.Mapping[str, str]) -> str | None:
    """The package whose module `name` is or lies in, by the longest module that is known."""
    while name:
        if name in owners:
            return owners[name]
        name = name.rpartition(".")[0]
    return None


def sibling_imports(root: pathlib.Path, package: str) -> collections.abc.Iterator[tuple[Import, str | None]]:
    """What a package's sources import below the namespace, with the package that owns it; its own modules left out."""
    owners = modules_of(root)
    source = root / PACKAGES[package].folder / "src"
    for file in python_files(source):
        for each in imports_of(source, file):
            if each.name.split(".")[0] == NAMESPACE:
                owner = owner_of(each.name, owners)
                if owner != package:
                    yield each, owner


def check_directions(root: pathlib.Path) -> list[str]:
    """Imports of a sibling that the table does not allow."""
    complaints = []
    for package, row in PACKAGES.items():
        for each, owner in sibling_imports(root, package):
            if owner is None:
                complaints.append(f"{each.at(root)} imports {each.name}, which no package of the table owns")
            elif owner not in row.siblings:
                complaints.append(f"{each.at(root)} {package} imports {owner} ({each.name}); it may not")
    return complaints


@dataclasses.dataclass(frozen=True)
class Declared:
    """The dependencies that a pyproject declares: wheel names."""

    required: frozenset[str]
    optional: frozenset[str]
    paths: dict[str, str]


def declared(pyproject: pathlib.Path) -> Declared:
    """Read what a package's wheel will require, and where Poetry takes its siblings from in this repository."""
    data = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = data["project"]
    optional = [line for extra in project.get("optional-dependencies", {}).values() for line in extra]
    poetry = data.get("tool", {}).get("poetry", {}).get("dependencies", {})
    return Declared(
        frozenset(wheel_name(line) for line in project.get("dependencies", [])),
        frozenset(wheel_name(line) for line in optional),
        {name: entry["path"] for name, entry in poetry.items() if isinstance(entry, dict) and "path" in entry},
    )


def wheel_name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def present(root: pathlib.Path) -> list[str]:
    return [name for name, row in PACKAGES.items() if (root / row.folder / "pyproject.toml").is_file()]


def check_declared_siblings(root: pathlib.Path) -> list[str]:
    """Declared siblings are the imported ones, in the wheel's requirements and in Poetry's paths alike."""
    wheels = {row.wheel: name for name, row in PACKAGES.items()}
    complaints = []
    for package in present(root):
        row = PACKAGES[package]
        pyproject = root / row.folder / "pyproject.toml"
        deps = declared(pyproject)
        named = {wheels[wheel] for wheel in deps.required | deps.optional if wheel in wheels}
        imported = {owner for _, owner in sibling_imports(root, package) if owner is not None}
        complaints += [f"{package} imports {each} and does not declare it" for each in sorted(imported - named)]
        if row.composition:
            complaints += [f"{package} declares {each}; it may not" for each in sorted(named - row.siblings)]
        else:
            complaints += [f"{package} declares {each} and does not import it" for each in sorted(named - imported)]
        paths = {wheels.get(wheel, wheel): (pyproject.parent / path).resolve() for wheel, path in deps.paths.items()}
        expected = {each: (root / PACKAGES[each].folder).resolve() for each in named}
        complaints += [
            f"{package}: the path of {each} in [tool.poetry.dependencies] is not its folder"
            for each in sorted(expected.keys() | paths.keys())
            if expected.get(each) != paths.get(each)
        ]
    return complaints


def check_third_party(root: pathlib.Path) -> list[str]:
    """What comes from outside is declared; what is only in an extra is imported lazily; the small ones stay small."""
    wheels = {row.wheel for row in PACKAGES.values()}
    complaints = []
    for package in present(root):
        row = PACKAGES[package]
        deps = declared(root / row.folder / "pyproject.toml")
        if row.third_party is not None:
            extra = (deps.required | deps.optional) - wheels - row.third_party
            complaints += [f"{package} depends on {each}; it may not" for each in sorted(extra)]
        required, optional = import_names(deps.required), import_names(deps.optional)
        source = root / row.folder / "src"
        for each in (found for file in python_files(source) for found in imports_of(source, file)):
            top = each.name.split(".")[0]
            if top in {NAMESPACE, *sys.stdlib_module_names} or is_below(each.name, required):
                continue
            if not is_below(each.name, optional):
                complaints.append(f"{each.at(root)} {package} imports {each.name} and does not declare it")
            elif each.at_start:
                complaints.append(f"{each.at(root)} {package} needs {each.name}, of an extra, to be imported at all")
    return complaints


def import_names(wheels: collections.abc.Iterable[str]) -> set[str]:
    return {name for wheel in wheels for name in IMPORT_NAMES.get(wheel, (wheel.replace("-", "_"),))}


def is_below(name: str, roots: collections.abc.Collection[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in roots)


def pure_rooms(root: pathlib.Path) -> collections.abc.Iterator[tuple[pathlib.Path, pathlib.Path, frozenset[str]]]:
    """(source folder, file, what it must not import): the cores, the codec outside its shell, the store."""
    for package, row in PACKAGES.items():
        source = root / row.folder / "src"
        room = source.joinpath(*row.module.split("."))
        for file in python_files(room):
            inside = file.relative_to(room).parts
            if row.service and "core" in inside[:-1]:
                yield source, file, PURE
            elif package == "remoting-codec" and inside[0] != "aio":
                yield source, file, PURE - {"io"}
            elif package == "store":
                yield source, file, NO_NETWORK


def check_pure_rooms(root: pathlib.Path) -> list[str]:
    """Time, chance, disk and network come in from outside: who must not reach for them does not."""
    complaints = []
    for source, file, forbidden in pure_rooms(root):
        complaints += [
            f"{each.at(root)} imports {each.name}"
            for each in imports_of(source, file)
            if is_below(each.name, forbidden)
        ]
        if forbidden >= PURE:
            complaints += [
                f"{file.relative_to(root)}:{node.lineno} calls {ast.unparse(node.func)}"
                for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
                if isinstance(node, ast.Call) and is_core_call(ast.unparse(node.func))
            ]
    return complaints


def is_core_call(called: str) -> bool:
    return any(called == each or (called.endswith(f".{each}") and each != "open") for each in CORE_CALLS)


def check_floors(root: pathlib.Path) -> list[str]:
    """Inside a service: app → faces, links → service → core; never upward."""
    complaints = []
    for row in PACKAGES.values():
        source = root / row.folder / "src"
        room = source.joinpath(*row.module.split("."))
        for file in python_files(room) if row.service else []:
            floor = FLOORS.get(file.relative_to(room).with_suffix("").parts[0])
            for each in imports_of(source, file):
                if floor is None or not is_below(each.name, {row.module}):
                    continue
                other = each.name.removeprefix(row.module).strip(".").split(".")[0]
                if FLOORS.get(other, -1) > floor:
                    complaints.append(f"{each.at(root)} imports {each.name}, a floor above it")
    return complaints


def check_namespace(root: pathlib.Path) -> list[str]:
    """The namespace is shared by many wheels (PEP 420): whoever gave it an __init__.py would hide all the others."""
    folders = [root / row.folder / "src" for row in PACKAGES.values()]
    return [
        f"{file.relative_to(root)} must not exist"
        for folder in folders
        for file in folder.glob(f"{NAMESPACE}/__init__.py*")
    ]


CHECKS = (
    check_directions,
    check_declared_siblings,
    check_third_party,
    check_pure_rooms,
    check_floors,
    check_namespace,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_this_repository_keeps_the_rule(check: collections.abc.Callable[[pathlib.Path], list[str]]) -> None:
    """No check has anything to complain about here."""
    assert check(ROOT) == []


def test_the_table_has_every_package_of_this_repository() -> None:
    """A new folder with a pyproject needs a row: else no rule would hold for it."""
    found = {file.parent for file in [*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("proto/pyproject.toml")]}
    assert found <= {ROOT / row.folder for row in PACKAGES.values()}


def test_no_service_may_import_a_service() -> None:
    """The table itself has no arrow between services, and its arrows have no circle."""
    services = {name for name, row in PACKAGES.items() if row.service}
    assert services == {"namesrv", "controller", "broker", "proxy"}
    for name, row in PACKAGES.items():
        if row.service:
            assert not row.siblings & services, name
    done: set[str] = set()
    while len(done) < len(PACKAGES):
        ready = {name for name, row in PACKAGES.items() if name not in done and row.siblings <= done}
        assert ready, f"a circle among {sorted(PACKAGES.keys() - done)}"
        done |= ready


def plant(root: pathlib.Path, package: str, files: dict[str, str], *, pyproject: str | None = None) -> None:
    """Lay a package down: `files` by their path below src; by default its pyproject declares nothing."""
    row = PACKAGES[package]
    folder = root / row.folder
    folder.mkdir(parents=True, exist_ok=True)
    text = pyproject if pyproject is not None else f'[project]\nname = "{row.wheel}"\nversion = "0.1.0"\n'
    (folder / "pyproject.toml").write_text(text)
    for path, content in files.items():
        file = folder / "src" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


@pytest.mark.parametrize(
    "line",
    [
        "import apogeemq.namesrv.route_table",
        "from apogeemq import namesrv",
        "from apogeemq.namesrv import route_table",
        "from ..namesrv import route_table",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from apogeemq.namesrv import route_table",
        "def late():\n    import apogeemq.namesrv",
        "import importlib\nrooms = importlib.import_module('apogeemq.namesrv')",
        "from importlib import import_module\nrooms = import_module('..namesrv', __package__)",
        "rooms = __import__('apogeemq.namesrv')",
        "try:\n    import apogeemq.namesrv as rooms\nexcept ImportError:\n    rooms = None",
    ],
)
def test_a_service_that_imports_another_is_found(tmp_path: pathlib.Path, line: str) -> None:
    """However the import is written, an arrow outside the table is a complaint; the target may be there or not."""
    plant(tmp_path, "broker", {"apogeemq/broker/app.py": line})
    assert len(check_directions(tmp_path)) == 1
    plant(tmp_path, "namesrv", {"apogeemq/namesrv/route_table.py": ""})
    [complaint] = check_directions(tmp_path)
    assert "broker imports namesrv" in complaint


def test_an_import_of_a_room_that_nobody_owns_is_found(tmp_path: pathlib.Path) -> None:
    """A sibling outside the table is a complaint of its own, not silently fine."""
    plant(tmp_path, "broker", {"apogeemq/broker/app.py": "import apogeemq.drawer"})
    assert "no package of the table owns" in check_directions(tmp_path)[0]


def test_the_deepest_known_module_decides_who_is_imported(tmp_path: pathlib.Path) -> None:
    """apogeemq.admin.v1 may belong to the stubs while apogeemq.admin is the admin package."""
    plant(tmp_path, "proto", {"apogeemq/admin/v1/admin_pb2.py": ""})
    plant(tmp_path, "admin", {"apogeemq/admin/__init__.py": ""})
    plant(tmp_path, "proxy", {"apogeemq/proxy/faces/grpc.py": "from apogeemq.admin.v1 import admin_pb2"})
    assert check_directions(tmp_path) == []
    plant(tmp_path, "proxy", {"apogeemq/proxy/faces/grpc.py": "import apogeemq.admin"})
    assert "proxy imports admin" in check_directions(tmp_path)[0]


def test_allowed_arrows_raise_no_complaint(tmp_path: pathlib.Path) -> None:
    """Own modules, allowed siblings and the world are all fine."""
    text = "import json\nfrom . import core\nfrom apogeemq.store import files\nfrom apogeemq.mesh.clock import Clock"
    plant(tmp_path, "broker", {"apogeemq/broker/app.py": text})
    assert check_directions(tmp_path) == []


STORE = """
[project]
name = "apogeemq-store"
version = "0.1.0"
dependencies = ["apogeemq-remoting-codec (>=0.1.0,<0.2)", "msgspec (>=0.19,<1)"]
[tool.poetry.dependencies]
apogeemq-remoting-codec = { path = "../remoting-codec", develop = true }
"""


def test_declared_and_imported_siblings_must_agree(tmp_path: pathlib.Path) -> None:
    """Too few, too many, and a path that leads elsewhere are each found."""
    uses = {"apogeemq/store/record.py": "from apogeemq.remoting_codec import record\nimport msgspec"}
    plant(tmp_path, "store", uses, pyproject=STORE)
    assert check_declared_siblings(tmp_path) == []
    plant(tmp_path, "store", {"apogeemq/store/record.py": ""}, pyproject=STORE)
    assert check_declared_siblings(tmp_path) == ["store declares remoting-codec and does not import it"]
    plant(tmp_path, "store", uses)
    assert check_declared_siblings(tmp_path) == ["store imports remoting-codec and does not declare it"]
    plant(tmp_path, "store", uses, pyproject=STORE.replace("../remoting-codec", "../mesh"))
    assert "is not its folder" in check_declared_siblings(tmp_path)[0]
    plant(tmp_path, "store", uses, pyproject=STORE.partition("[tool")[0])
    assert "is not its folder" in check_declared_siblings(tmp_path)[0]


def test_the_all_in_one_may_ship_what_it_does_not_import(tmp_path: pathlib.Path) -> None:
    """The server brings the store for its command: a declared sibling without an import, which is fine there only."""
    pyproject = STORE.replace('"apogeemq-store"', '"apogeemq"')
    plant(tmp_path, "server", {"apogeemq/server/app.py": ""}, pyproject=pyproject)
    assert check_declared_siblings(tmp_path) == []


def test_third_party_imports_are_declared_and_extras_are_lazy(tmp_path: pathlib.Path) -> None:
    """An undeclared import, an eager import of an extra, and a dependency that the room may not have are found."""
    plant(tmp_path, "store", {"apogeemq/store/files.py": "import msgspec\nimport os.path"}, pyproject=STORE)
    assert check_third_party(tmp_path) == []
    plant(tmp_path, "store", {"apogeemq/store/files.py": "import numpy"}, pyproject=STORE)
    assert "imports numpy and does not declare it" in check_third_party(tmp_path)[0]
    plant(tmp_path, "store", {}, pyproject=STORE.replace("msgspec", "grpcio"))
    assert "store depends on grpcio; it may not" in check_third_party(tmp_path)

    codec = '[project]\nname = "x"\nversion = "0.1.0"\n[project.optional-dependencies]\nlz4 = ["lz4 (>=4,<5)"]\n'
    module = "apogeemq/remoting_codec/compression.py"
    plant(tmp_path, "store", {"apogeemq/store/files.py": ""}, pyproject=STORE)
    plant(tmp_path, "remoting-codec", {module: "def pack():\n    import lz4.frame"}, pyproject=codec)
    assert check_third_party(tmp_path) == []
    plant(tmp_path, "remoting-codec", {module: "import lz4.frame"}, pyproject=codec)
    assert "of an extra" in check_third_party(tmp_path)[0]


def test_a_wheel_that_is_imported_under_another_name_is_known(tmp_path: pathlib.Path) -> None:
    """protobuf is google.protobuf; another google package is not covered by it."""
    pyproject = '[project]\nname = "apogeemq-proto"\nversion = "0.1.0"\ndependencies = ["protobuf (>=6.31.1,<8)"]\n'
    stub = "apogeemq/wire/v2/service_pb2.py"
    plant(tmp_path, "proto", {stub: "from google.protobuf import descriptor"}, pyproject=pyproject)
    assert check_third_party(tmp_path) == []
    plant(tmp_path, "proto", {stub: "from google.cloud import storage"}, pyproject=pyproject)
    assert len(check_third_party(tmp_path)) == 1


@pytest.mark.parametrize(
    ("package", "module", "text"),
    [
        ("broker", "core/pop.py", "import time"),
        ("broker", "core/pop.py", "import asyncio"),
        ("broker", "core/pop.py", "def when():\n    from random import random"),
        ("broker", "core/pop.py", "from pathlib import Path"),
        ("broker", "core/pop.py", "text = open('x').read()"),
        ("broker", "core/pop.py", "import datetime\nnow = datetime.datetime.now()"),
        ("broker", "core/pop.py", "from apogeemq.remoting_codec.aio.server import Channel"),
        ("namesrv", "core/deeper/route.py", "import socket"),
        ("controller", "core/elect.py", "import grpc"),
        ("remoting-codec", "framing.py", "import asyncio"),
        ("store", "files.py", "import socket"),
    ],
)
def test_a_core_that_reaches_for_the_world_is_found(
    tmp_path: pathlib.Path, package: str, module: str, text: str
) -> None:
    """Clock, chance, disk and network in a core, the network in codec and store."""
    room = PACKAGES[package].module.replace(".", "/")
    plant(tmp_path, package, {f"{room}/{module}": text})
    assert len(check_pure_rooms(tmp_path)) == 1


@pytest.mark.parametrize(
    ("package", "module", "text"),
    [
        ("broker", "core/pop.py", "import heapq\ntable.open('x')"),
        ("broker", "faces/remoting.py", "import asyncio\nimport time"),
        ("remoting-codec", "aio/server.py", "import asyncio"),
        ("store", "files.py", "import os, mmap, time"),
        ("mesh", "core/clock.py", "import time"),
    ],
)
def test_shells_may_reach_for_the_world(tmp_path: pathlib.Path, package: str, module: str, text: str) -> None:
    """The rule ends where the shell begins."""
    room = PACKAGES[package].module.replace(".", "/")
    plant(tmp_path, package, {f"{room}/{module}": text})
    assert check_pure_rooms(tmp_path) == []


def test_an_upward_import_inside_a_service_is_found(tmp_path: pathlib.Path) -> None:
    """core → service, service → faces and faces → app are complaints; the other way round is fine."""
    rooms = {
        "apogeemq/broker/core/topics.py": "import heapq",
        "apogeemq/broker/service/send.py": "from ..core import topics",
        "apogeemq/broker/faces/remoting.py": "from apogeemq.broker.service import send",
        "apogeemq/broker/app.py": "from . import faces, links, config",
    }
    plant(tmp_path, "broker", rooms)
    assert check_floors(tmp_path) == []
    for module, upward in {
        "core/topics.py": "from apogeemq.broker.service import send",
        "service/send.py": "from ..faces import remoting",
        "faces/remoting.py": "from .. import app",
    }.items():
        plant(tmp_path, "broker", {**rooms, f"apogeemq/broker/{module}": upward})
        [complaint] = check_floors(tmp_path)
        assert module in complaint


def test_an_init_file_in_the_namespace_is_found(tmp_path: pathlib.Path) -> None:
    """One is enough to hide every other wheel of the namespace."""
    plant(tmp_path, "store", {"apogeemq/store/__init__.py": ""})
    assert check_namespace(tmp_path) == []
    plant(tmp_path, "store", {"apogeemq/__init__.py": ""})
    assert check_namespace(tmp_path) == ["packages/store/src/apogeemq/__init__.py must not exist"]
