"""Make the committed protobuf stubs anew from ``proto/``; with ``--check`` only say whether they are up to date.

Runs in ``.venv-gen`` (``./task proto``, ``./task proto-check``), never in the development environment: the generator
is pinned there, so that two machines make the same bytes. A ``.proto`` file of the mesh lies at the Python path of its
stubs, hence the imports inside the stubs come out right without any rewriting. Those of the public API lie at their
wire path, as others know them; their package and imports are renamed on the way (RENAMED), because protobuf's one pool
of names per process refuses a second ``apache.rocketmq.v2`` beside the official client's.

``--check`` fails on three kinds of stub: stale (differs from what its source makes), missing (its source has none yet)
and leftover (its source is gone).
"""

from __future__ import annotations

import argparse
import importlib.resources
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "proto"
# Folder of sources below proto/ → the source root that its stubs are written under.
OUTPUTS = {
    "apogeemq/controller": ROOT / "packages" / "controller" / "src",
    "apogeemq/mesh": ROOT / "packages" / "mesh" / "src",
    "apogeemq/proto": ROOT / "proto" / "src",
}
# Folder of stubs → folder of its sources, where the two differ: the package on the wire is not the Python one.
RENAMED = {"apogeemq/proto": "apache/rocketmq"}
STUB_PATTERNS = ("*_pb2.py", "*_pb2.pyi")


class Difference(NamedTuple):
    """Paths relative to the source root, each list sorted; all empty when the stubs are up to date."""

    stale: list[Path]
    missing: list[Path]
    leftover: list[Path]


def sources(folder: str) -> list[Path]:
    """Return the ``.proto`` files that one folder of stubs is made of, sorted."""
    return sorted((SOURCES / RENAMED.get(folder, folder)).rglob("*.proto"))


def stubs(root: Path, folder: str) -> set[Path]:
    """Return the stubs below ``root/folder``, relative to ``root``."""
    return {path.relative_to(root) for pattern in STUB_PATTERNS for path in (root / folder).rglob(pattern)}


def generate(folder: str, out: Path) -> None:
    """Write the stubs of one folder of sources under ``out``; exits with protoc's own code when a source is wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        root = renamed(folder, Path(scratch)) if folder in RENAMED else SOURCES
        files = [str(path) for path in sorted((root / folder).rglob("*.proto"))]
        if not files:
            return
        well_known = Path(str(importlib.resources.files("grpc_tools"))) / "_proto"
        code = protoc.main(
            ["protoc", f"-I{root}", f"-I{well_known}", f"--python_out={out}", f"--pyi_out={out}", *files]
        )
    if code:
        raise SystemExit(code)


def renamed(folder: str, scratch: Path) -> Path:
    """Copy the sources of a renamed folder below ``scratch``, under their Python names; return ``scratch``."""
    wire = RENAMED[folder]
    for source in sources(folder):
        copy = scratch / folder / source.relative_to(SOURCES / wire)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        text = text.replace(f'import "{wire}/', f'import "{folder}/')
        text = text.replace(f"package {wire.replace('/', '.')}.", f"package {folder.replace('/', '.')}.")
        copy.write_text(text, encoding="utf-8")
    return scratch


def compare(folder: str, committed: Path) -> Difference:
    """Generate into a scratch folder and compare the bytes with what is committed under ``committed``."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh_root = Path(scratch)
        generate(folder, fresh_root)
        fresh, present = stubs(fresh_root, folder), stubs(committed, folder)
        stale = [p for p in fresh & present if (fresh_root / p).read_bytes() != (committed / p).read_bytes()]
    return Difference(sorted(stale), sorted(fresh - present), sorted(present - fresh))


def check() -> int:
    """Print every stub that is not as its source makes it; return the exit code."""
    wrong = 0
    for folder, committed in OUTPUTS.items():
        for kind, paths in compare(folder, committed)._asdict().items():
            for path in paths:
                print(f"{kind}: {path}", file=sys.stderr)
                wrong += 1
    if wrong:
        print("run ./task proto and commit what it writes", file=sys.stderr)
    return min(wrong, 1)


def write() -> int:
    """Write every stub anew and remove those whose source is gone; return the exit code."""
    for folder, committed in OUTPUTS.items():
        for leftover in compare(folder, committed).leftover:
            (committed / leftover).unlink()
        generate(folder, committed)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, then write or check; return the exit code."""
    parser = argparse.ArgumentParser(description="make the protobuf stubs from proto/")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a committed stub is not as made")
    return check() if parser.parse_args(arguments).check else write()


if __name__ == "__main__":
    raise SystemExit(main())
