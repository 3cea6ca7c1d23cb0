"""docs/compatibility.md says what is served; the faces' tables decide it. The two must name the same request codes.

The tables are read from the sources (dictionaries whose keys are RequestCode members), so that no service is started.
"""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "compatibility.md"
SECTIONS = {"broker": "Broker, Remoting", "namesrv": "Name server, Remoting", "proxy": "Proxy, Remoting"}
GRPC_FACE = ROOT / "packages" / "proxy" / "src" / "apogeemq" / "proxy" / "faces" / "grpc" / "face.py"


def served(face: str) -> set[str]:
    """Names of the request codes that one module's tables have functions for."""
    tables = [node for node in ast.walk(ast.parse(face)) if isinstance(node, ast.Dict)]
    keys = [ast.unparse(key) for table in tables for key in table.keys if key is not None]
    return {key.removeprefix("RequestCode.") for key in keys if key.startswith("RequestCode.")}


def documented(document: str, section: str) -> set[str]:
    """Names of the request codes in the table of one section."""
    text = document.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| \d+ \| `([A-Z0-9_]+)` \|", text, re.MULTILINE))


@pytest.mark.parametrize("service", SECTIONS)
def test_the_document_names_what_is_served(service: str) -> None:
    """No request is served and not mentioned, none is mentioned and not served."""
    faces = ROOT / "packages" / service / "src" / "apogeemq" / service / "faces"
    in_code = {name for file in faces.rglob("*.py") for name in served(file.read_text(encoding="utf-8"))}
    assert in_code == documented(DOCUMENT.read_text(encoding="utf-8"), SECTIONS[service])
    assert in_code, "no table was found"


def test_the_document_names_the_grpc_methods_that_are_served() -> None:
    """The table of methods is the door's; those it has no function for are not in it."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("\n## Proxy, gRPC\n")[2].partition("\n## ")[0]
    calls = [node for node in ast.walk(ast.parse(GRPC_FACE.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if ast.unparse(call.func) in ("_Method", "_path") and call.args]
    in_code = {node.value for node in named if isinstance(node, ast.Constant)}
    assert in_code == set(re.findall(r"^\| `([A-Za-z]+)` \|", text, re.MULTILINE))
    assert "SendMessage" in in_code


def test_tables_are_found_in_code() -> None:
    """Every key of every table that is a RequestCode, and nothing else."""
    table = "TABLE = {RequestCode.HEART_BEAT: beat, **more}\n"
    face = f"{table}def f():\n    return {{RequestCode.PULL_MESSAGE: g(), 'x': 1}}\n"
    assert served(face) == {"HEART_BEAT", "PULL_MESSAGE"}
    assert served("codes = [RequestCode.HEART_BEAT]") == set()


def test_tables_are_found_in_the_document() -> None:
    """Rows of the named section only, with a number and a name."""
    rows = "| code | x |\n|---|---|\n| 34 | `HEART_BEAT` | y |\n`NOT_A_ROW` (40)\n"
    text = f"\n## A\n{rows}\n## B\n| 11 | `PULL_MESSAGE` | |\n"
    assert documented(text, "A") == {"HEART_BEAT"}
    assert documented(text, "C") == set()
