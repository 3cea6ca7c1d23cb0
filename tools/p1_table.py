"""The table of P1 requests in packages/broker/README.md: `python -m tools.p1_table` says whether it is as it should be,
with `--write` it is made anew.

    packages/broker/tests/p1_requests.toml    which requests there are, and which tests prove them
    packages/broker/src, faces/remoting       what the broker serves and sends
                         │
                         ▼
    packages/broker/README.md                 between the two marks

Exit status: 0 when the README has the table and all named tests exist, 1 otherwise.
"""

import argparse
import ast
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

ROOT = Path(__file__).resolve().parents[1]
BROKER = Path("packages/broker")
README = BROKER / "README.md"
REQUESTS = BROKER / "tests" / "p1_requests.toml"
FACES = BROKER / "src" / "apogeemq" / "broker" / "faces" / "remoting"
JAVA = Path("tests/interop")

BEGIN = "<!-- made by python -m tools.p1_table --write -->"
END = "<!-- end of the table -->"
HEAD = (
    "| code | request | direction | here | proved by | with Apache's clients |",
    "|---|---|---|---|---|---|",
)


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request of priority P1.

    `tests` and `java` are names as pytest has them (file::function), below packages/broker/tests and tests/interop;
    those that begin with packages/ are below the root. `elsewhere` says whose it is when it is not the broker's.
    """

    code: int
    name: str
    direction: str
    elsewhere: str = ""
    tests: tuple[str, ...] = ()
    java: tuple[str, ...] = ()


def load_requests(root: Path = ROOT) -> list[Request]:
    """All P1 requests, by number."""
    tables = tomllib.loads((root / REQUESTS).read_text(encoding="utf-8"))
    return sorted(msgspec.convert(tables["request"], list[Request]), key=lambda request: request.code)


# -- what the broker does ----------------------------------------------------------------------------------------------

Use = Literal["served", "sent"]


def uses(source: str) -> Iterator[tuple[str, Use]]:
    """Names of request codes in one module: keys of a table of functions are served, codes of a command are sent."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            yield from ((name, "served") for key in node.keys if (name := _request_name(key)))
        elif isinstance(node, ast.Call):
            codes = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            yield from ((name, "sent") for code in codes if (name := _request_name(code)))


def _request_name(node: ast.expr | None) -> str:
    """The name behind RequestCode, or nothing."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "RequestCode":
        return node.attr
    return ""


def uses_of(root: Path = ROOT) -> dict[str, Use]:
    """What the broker does with each request; what it serves is said to be served, although it may send it on."""
    found: dict[str, Use] = {}
    for file in sorted((root / FACES).glob("*.py")):
        for name, use in uses(file.read_text(encoding="utf-8")):
            if found.get(name) != "served":
                found[name] = use
    return found


# -- the table ---------------------------------------------------------------------------------------------------------


def table(requests: Sequence[Request], known: dict[str, Use]) -> str:
    """The lines between the marks."""
    return "\n".join((*HEAD, *(_row(request, known.get(request.name)) for request in requests)))


def _row(request: Request, use: Use | None) -> str:
    cells = (
        str(request.code),
        f"`{request.name}`",
        request.direction,
        request.elsewhere or use or _missing(request),
        _tests(request.tests or () if use or request.elsewhere else ("test_p1_requests.py::test_what_is_not_served",)),
        _tests(request.java),
    )
    return f"| {' | '.join(cells)} |"


def _missing(request: Request) -> str:
    return "not sent" if request.direction.startswith("broker") else "refused: 3"


def _tests(names: Sequence[str]) -> str:
    return "<br>".join(f"`{name}`" for name in names)


def with_table(readme: str, lines: str) -> str:
    """The README with these lines between its marks. ValueError: it has not both, once."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"{README} needs the lines {BEGIN!r} and {END!r}, once each")
    return f"{before}{begin}\n{lines}\n{end}{after}"


# -- the tests ---------------------------------------------------------------------------------------------------------


def complaints(requests: Sequence[Request], known: dict[str, Use], root: Path = ROOT) -> list[str]:
    """What is wrong with the file of requests: tests that are not there, and requests that no test proves."""
    found = []
    for request in requests:
        named = [(BROKER / "tests", name) for name in request.tests] + [(JAVA, name) for name in request.java]
        found += [f"{request.name}: there is no {name}" for folder, name in named if not is_there(name, folder, root)]
        if not request.tests and (request.name in known or request.elsewhere):
            found.append(f"{request.name}: {REQUESTS} names no test")
    return found


def is_there(name: str, folder: Path, root: Path = ROOT) -> bool:
    """Whether a test is there: file::function."""
    path, _, function = name.partition("::")
    file = root / path if path.startswith("packages/") else root / folder / path
    if not file.is_file():
        return False
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function for node in body)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the README, or write its table."""
    parser = argparse.ArgumentParser(description="the table of P1 requests in packages/broker/README.md")
    parser.add_argument("--write", action="store_true", help="make the table anew")
    write = parser.parse_args(arguments).write
    requests, known = load_requests(), uses_of()
    found = complaints(requests, known)
    readme = (ROOT / README).read_text(encoding="utf-8")
    wanted = with_table(readme, table(requests, known))
    if write:
        (ROOT / README).write_text(wanted, encoding="utf-8")
    elif wanted != readme:
        found.append(f"the table in {README} is not up to date: python -m tools.p1_table --write")
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
