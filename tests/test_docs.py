"""Documents that can go stale unnoticed: links, ./task commands, files they name, numbers of RocketMQ's codes.

The checkers are plain functions, tried on planted text as well.
"""

import enum
import pathlib
import re

import pytest
from apogeemq.remoting_codec.codes import RequestCode, ResponseCode

ROOT = pathlib.Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
TASK = re.compile(r"(?<![\w/])\./task +([a-z][a-z-]*)")
OWN_FILE = re.compile(r"`((?:tests|tools|docs|deploy|packages|examples)/[\w./-]+\.[a-z]+)[`: ]")


def documents(root: pathlib.Path) -> list[pathlib.Path]:
    """Every Markdown file of the repository proper."""
    folders = ("docs", "packages", "examples", "deploy", "changelog.d", "proto")
    found = [*root.glob("*.md"), *(file for folder in folders for file in (root / folder).rglob("*.md"))]
    skipped = {"node_modules", "target", ".venv"}
    return sorted(file for file in found if not skipped & set(file.relative_to(root).parts))


def check_links(file: pathlib.Path, text: str) -> list[str]:
    """Relative links lead to a file that is there, and to a heading that it has."""
    complaints = []
    for match in LINK.finditer(FENCE.sub("", text)):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path) if path else file
        if not target.exists():
            complaints.append(f"{file.name} links to {link}, which is not there")
        elif anchor and anchor not in anchors(text if target == file else target.read_text(encoding="utf-8")):
            complaints.append(f"{file.name} links to {link}; no such heading")
    return complaints


def anchors(text: str) -> set[str]:
    """The anchors that repository hosts make of a document's headings."""
    headings = re.findall(r"^#+ +(.*?) *$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check_tasks(text: str, tasks: set[str]) -> list[str]:
    """Every ./task command that a document names is one."""
    return [f"./task {name} is no task" for name in TASK.findall(text) if name not in tasks]


def tasks_of(taskfile: str) -> set[str]:
    """Names of the tasks in a Taskfile: the keys one step below `tasks:`."""
    return set(re.findall(r"^  ([a-z][a-z-]*):", taskfile.partition("\ntasks:\n")[2], re.MULTILINE))


def check_own_files(text: str, *folders: pathlib.Path) -> list[str]:
    """Files that a document names in code style are there, below one of the folders that it may mean."""
    named = OWN_FILE.findall(text)
    return [f"{path} is not there" for path in named if not any((folder / path).exists() for folder in folders)]


def check_codes(text: str) -> list[str]:
    """A number and a name that stand together, as `NAME` (n) or | n | `NAME` |, belong together."""
    pairs = [(name, number) for name, number in re.findall(r"`([A-Z][A-Z0-9_]+)` \((\d+)\)", text)]
    pairs += [(name, number) for number, name in re.findall(r"^\| (\d+) \| `([A-Z][A-Z0-9_]+)` \|", text, re.MULTILINE)]
    return [f"{name} is not {number}" for name, number in pairs if int(number) not in numbers_of(name)]


def numbers_of(name: str) -> set[int]:
    tables: tuple[type[enum.IntEnum], ...] = (RequestCode, ResponseCode)
    return {int(table[name]) for table in tables if name in table.__members__}


@pytest.mark.parametrize("file", documents(ROOT), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_document(file: pathlib.Path) -> None:
    """Its links, commands, files and code numbers hold."""
    text = file.read_text(encoding="utf-8")
    tasks = tasks_of((ROOT / "Taskfile.yml").read_text(encoding="utf-8"))
    assert check_links(file, text) == []
    assert check_tasks(text, tasks) == []
    assert check_own_files(text, ROOT, file.parent) == []
    assert check_codes(text) == []


def test_the_two_commands_of_the_readme_are_there() -> None:
    """A newcomer finds how to start it and how to test it."""
    named = set(TASK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"up", "test"} <= named


def test_a_dead_link_is_found(tmp_path: pathlib.Path) -> None:
    """A missing file and a missing heading; other sites, code blocks and good links are left alone."""
    (tmp_path / "other.md").write_text("# Other page\n## What's `new`, and why\n")
    file = tmp_path / "page.md"
    good = "# Here\n[a](other.md) [b](other.md#whats-new-and-why) [c](#here) [d](https://x.test/y)\n```\n[e](gone.md)\n```\n"
    file.write_text(good)
    assert check_links(file, good) == []
    assert check_links(file, "[a](gone.md)") == ["page.md links to gone.md, which is not there"]
    assert check_links(file, "![a](gone.png)") == ["page.md links to gone.png, which is not there"]
    assert check_links(file, "[a](other.md#old)") == ["page.md links to other.md#old; no such heading"]
    assert check_links(file, "# Here\n[a](#there)") == ["page.md links to #there; no such heading"]


def test_a_task_that_is_none_is_found() -> None:
    """Tasks are the keys below tasks:, not those of env: or of a task."""
    tasks = tasks_of('version: "3"\nenv:\n  HOME: x\ntasks:\n  up:\n    desc: serve\n  proto-check:\n    cmds: []\n')
    assert tasks == {"up", "proto-check"}
    assert check_tasks("./task up -- --data X, then ./task serve", tasks) == ["./task serve is no task"]


def test_a_file_that_is_gone_is_found(tmp_path: pathlib.Path) -> None:
    """Named in code style, below a folder of this repository."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("")
    assert check_own_files("`tests/test_a.py` and `tests/e2e`, `src/x.py`", tmp_path) == []
    assert check_own_files("`tests/test_b.py --rounds 5`", tmp_path) == ["tests/test_b.py is not there"]
    package = tmp_path / "packages" / "store"
    (package / "tests").mkdir(parents=True)
    (package / "tests" / "test_b.py").write_text("")
    assert check_own_files("`tests/test_b.py`", tmp_path, package) == []


def test_a_wrong_code_is_found() -> None:
    """Request and response codes, in running text and in tables (numbers from Apache's RequestCode, ResponseCode)."""
    assert check_codes("| 310 | `SEND_MESSAGE_V2` | `NO_PERMISSION` (16)\n| 3 | x |") == []
    assert check_codes("| 311 | `SEND_MESSAGE_V2` |") == ["SEND_MESSAGE_V2 is not 311"]
    assert check_codes("`NO_PERMISSION` (17)") == ["NO_PERMISSION is not 17"]
    assert check_codes("`NO_SUCH_NAME` (17)") == ["NO_SUCH_NAME is not 17"]
