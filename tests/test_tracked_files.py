"""What no tracked file may hold: paths of one machine, hosts of package indexes; and how changelog fragments look.

The checkers are plain functions, tried on planted text as well. Without git (a downloaded archive) the files are those
that .gitignore does not leave out.
"""

import collections.abc
import fnmatch
import pathlib
import re
import shutil
import subprocess
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Written so that this file does not match itself.
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.$}~-])/(?:[w]ork|[r]oot)/|/[h]ome/[a-z]\w*/|/[U]sers/[A-Za-z]\w*/"),
    "a setting of a package index": re.compile(r"--?(?:extra-)?[i]ndex-url[= ]+\S|[i]ndex-url\s*=\s*\S+:/"),
    "a package index's host": re.compile(
        r"[p]ypi\.(?:org|python\.org)|pythonhosted[.]org|registry\.[n]pmjs|registry\.[y]arnpkg|repo1?\.[m]aven|"
        r"proxy\.[g]olang|static\.[c]rates|index\.[c]rates|mirrors?\.[a-z]+\.[a-z]+/[p]ypi"
    ),
}
FRAGMENT = re.compile(r"[a-z0-9][a-z0-9-]*\.(?:added|changed|fixed|removed)\.md")
ROOMS = frozenset(
    {
        *("proto", "remoting-codec", "store", "mesh", "namesrv", "controller", "broker", "proxy"),
        *("client-api", "client-remoting", "client-grpc", "admin", "server", "repository"),
    }
)


def tracked_files(root: pathlib.Path) -> list[pathlib.Path]:
    """The files that a clone has; from the ignore file's patterns where there is no git."""
    if (root / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
        files = [root / name for name in listed.decode().split("\0") if name]
        return [file for file in files if file.is_file()]
    lines = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = [".git", *(line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#"))]
    return sorted(file for file in walk(root, patterns) if file.is_file())


def walk(folder: pathlib.Path, ignored: collections.abc.Sequence[str]) -> collections.abc.Iterator[pathlib.Path]:
    """Files below a folder; what an ignored name stands on top of is not entered."""
    for entry in folder.iterdir():
        if any(fnmatch.fnmatch(entry.name, pattern) for pattern in ignored):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from walk(entry, ignored)
        else:
            yield entry


def check_text(text: str) -> list[str]:
    """Lines of a text that hold something forbidden, each with what it is."""
    return [
        f"line {number} has {what}: {match[0]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in FORBIDDEN.items()
        for match in pattern.finditer(line)
    ]


def check_files(root: pathlib.Path) -> list[str]:
    """Every tracked text file; bytes that are no UTF-8 (recorded frames, pictures) are not text."""
    complaints = []
    for file in tracked_files(root):
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        complaints += [f"{file.relative_to(root)} {complaint}" for complaint in check_text(text)]
    return complaints


def check_lock(text: str) -> list[str]:
    """The lock file names no index: each package comes from wherever pip is told to look, or from its folder here."""
    packages = tomllib.loads(text)["package"]
    return [
        f"{package['name']} comes from {package['source'].get('url')}"
        for package in packages
        if package.get("source", {"type": "directory"})["type"] != "directory"
    ]


def check_fragment(name: str, text: str) -> list[str]:
    """A changelog fragment's name and its opening."""
    complaints = []
    if not FRAGMENT.fullmatch(name):
        complaints.append(f"{name} is not <issue>.<added|changed|fixed|removed>.md")
    if text.partition(":")[0] not in ROOMS:
        complaints.append(f"{name} does not open with a package and a colon")
    return complaints


def test_no_tracked_file_names_a_machine_or_an_index() -> None:
    """A clone works on any machine, with any index."""
    assert check_files(ROOT) == []


def test_nothing_tracked_is_a_link() -> None:
    """A link to a folder of one machine hangs in the air on the next; a link into the repository is of no use to it."""
    if not ((ROOT / ".git").exists() and shutil.which("git")):
        assert [file for file in walk(ROOT, [".git", ".venv", ".tools", "build"]) if file.is_symlink()] == []
        return
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line for line in listed.splitlines() if line.startswith("120000")] == []


def test_the_lock_file_names_no_index() -> None:
    """poetry.lock has folders and hashes only."""
    assert check_lock((ROOT / "poetry.lock").read_text(encoding="utf-8")) == []


def test_changelog_fragments() -> None:
    """Every file in changelog.d but its README follows the naming."""
    fragments = [file for file in (ROOT / "changelog.d").iterdir() if file.name not in {"README.md", ".gitkeep"}]
    assert [complaint for file in fragments for complaint in check_fragment(file.name, file.read_text())] == []


def test_there_is_something_to_check() -> None:
    """The list of files is the repository's and not an empty one."""
    names = {file.relative_to(ROOT).as_posix() for file in tracked_files(ROOT)}
    assert {"pyproject.toml", "poetry.lock", "task", "Taskfile.yml"} <= names


@pytest.mark.parametrize(
    "line",
    [
        "see /wo" + "rk/shared/architecture.md",
        "'/ro" + "ot/.cache'",
        "cd /ho" + "me/jane/apogeemq",
        "/Us" + "ers/jane/apogeemq",
        "pip install --index-" + "url https://example.test/simple x",
        "pip install --extra-index-" + "url=https://example.test/simple x",
        "index-" + "url = https://example.test/simple",
        "https://py" + "pi.org/simple",
        "files.python" + "hosted.org",
        "https://registry.np" + "mjs.org/x",
        "https://repo1.ma" + "ven.org/maven2",
    ],
)
def test_a_forbidden_line_is_found(line: str) -> None:
    """Each kind of machine path and index, alone in a line."""
    assert len(check_text(f"first\n{line}\n")) == 1
    assert check_text(f"first\n{line}\n")[0].startswith("line 2 has")


@pytest.mark.parametrize(
    "line",
    [
        "url=$(pip config get global.index-" + "url)",
        "data under ./wo" + "rk/store",
        "$HOME/ro" + "ot/x and ~/wo" + "rk/x",
        "the store's ro" + "ot/checkpoint",
        "/ho" + "me is a folder",
        "pip finds it in the index it is told to use",
    ],
)
def test_a_harmless_line_is_left_alone(line: str) -> None:
    """Relative paths and words that only look alike are fine."""
    assert check_text(line) == []


def test_an_index_in_the_lock_file_is_found() -> None:
    """A source of type legacy is an index; one of type directory is a sibling."""
    local = '[[package]]\nname = "a"\n[package.source]\ntype = "directory"\nurl = "packages/a"\n'
    remote = '[[package]]\nname = "b"\n[package.source]\ntype = "legacy"\nurl = "https://example.test/simple"\n'
    assert check_lock(local + '[[package]]\nname = "c"\n') == []
    assert check_lock(local + remote) == ["b comes from https://example.test/simple"]


@pytest.mark.parametrize("name", ["fixed.md", "12.fix.md", "12.fixed.txt", "12_a.fixed.md", "Fix TLS.fixed.md"])
def test_a_fragment_with_another_name_is_found(name: str) -> None:
    """Issue or short name, kind, .md."""
    assert check_fragment(name, "broker: text") != []


def test_a_fragment_without_its_package_is_found() -> None:
    """Its first word says whom it concerns."""
    assert check_fragment("12.fixed.md", "broker: text") == []
    [complaint] = check_fragment("12.fixed.md", "The broker no longer")
    assert complaint == "12.fixed.md does not open with a package and a colon"


def test_without_git_the_ignore_file_decides(tmp_path: pathlib.Path) -> None:
    """In an unpacked archive, folders and patterns of .gitignore are left out, at any depth."""
    (tmp_path / ".gitignore").write_text("# kept off\n.venv/\n/dist/\n*.egg-info/\n")
    for path in [".venv/x.py", "dist/a.whl", "packages/a/b.egg-info/c", "packages/a/x.py", "task"]:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    names = [file.relative_to(tmp_path).as_posix() for file in tracked_files(tmp_path)]
    assert names == [".gitignore", "packages/a/x.py", "task"]
