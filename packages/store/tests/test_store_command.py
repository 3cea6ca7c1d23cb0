"""`apogeemq-store` as its users see it: exit codes, tables, JSON lines, refusals."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apogeemq.store.__main__ import main
from apogeemq.store.message_store import AppendResult, MessageStore

VECTORS = Path(__file__).parent / "vectors_store"
SIZES = ["--commit-log-file-size", "8K", "--consume-queue-file-size", "320"]

HOLDER = """
import sys
from pathlib import Path
from apogeemq.store.config import StoreConfig
from apogeemq.store.message_store import MessageStore

config = StoreConfig(store_host=bytes(8), commit_log_file_size_bytes=8192, consume_queue_file_units=16)
store = MessageStore.open(Path(sys.argv[1]), config, now_ms=lambda: 1, background=False)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store_dir(tmp_path: Path, open_store: Callable[..., MessageStore], send: Callable[..., AppendResult]) -> Path:
    """Twenty messages of two queues, closed."""
    store = open_store()
    for n in range(20):
        send(store, "TopicTest", n % 2, b"secret body %d" % n, b"KEYS\1key-%d\2UNIQ_KEY\1ID%d\2" % (n, n))
    store.close()
    return tmp_path / "store"


@pytest.fixture
def held(store_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """The store, open in another process."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def flip_body(store_dir: Path) -> None:
    path = store_dir / "commitlog" / f"{0:020d}"
    data = bytearray(path.read_bytes())
    data[90] ^= 1
    path.write_bytes(data)


def test_check_of_a_good_store(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and a summary for people."""
    assert main(["check", str(store_dir), *SIZES]) == 0
    output = capsys.readouterr()
    assert "20 records, 20 of them messages of 2 queues of 1 topics" in output.out
    assert "fine: 0 damages" in output.out
    assert output.err == ""


def test_check_finds_sizes_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """The recorded Java directory, cut by copying, without any option."""
    assert main(["check", str(VECTORS), "-o", "json"]) == 0
    (summary,) = lines_of(capsys.readouterr().out)
    assert (summary["type"], summary["fine"], summary["records"]) == ("summary", True, 23)


def test_check_of_a_damaged_store(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, findings before the summary; at most as many as wanted, all of them counted."""
    flip_body(store_dir)
    assert main(["check", str(store_dir), *SIZES, "-o", "json"]) == 1
    *findings, summary = lines_of(capsys.readouterr().out)
    assert findings[0]["severity"] == "damage"
    assert findings[0]["physicalOffset"] == 0
    assert summary["damages"] + summary["deriveds"] == len(findings)
    assert main(["check", str(store_dir), *SIZES, "--max-findings", "0"]) == 1
    assert capsys.readouterr().out.startswith("19 records")


def test_progress_goes_to_standard_error(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --progress also where no terminal is."""
    assert main(["check", str(store_dir), *SIZES, "--progress", "-o", "json"]) == 0
    output = capsys.readouterr()
    assert output.err.startswith("checking: ")
    assert len(lines_of(output.out)) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["check"],
        ["nonsense", "DIR"],
        ["check", "DIR", "-o", "xml"],
        ["check", "DIR", "--commit-log-file-size", "much"],
        ["check", "DIR", "--delay-levels", "1s 2x"],
    ],
)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a usage line."""
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: apogeemq-store" in capsys.readouterr().err


def test_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that is no store, and one that is not there, are refused, and nothing is made in them."""
    assert main(["check", str(tmp_path)]) == 2
    assert "is no store" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["check", str(tmp_path / "absent")]) == 2


def test_data_directory_instead_of_its_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who gives the directory of `apogeemq up` is told which one within is the store."""
    (tmp_path / "broker" / "commitlog").mkdir(parents=True)
    assert main(["check", str(tmp_path)]) == 2
    assert f"{tmp_path / 'broker'} is one" in capsys.readouterr().err


def test_size_that_no_file_has(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped size is refused: a sound store is not called damaged, and nothing is repaired by it."""
    for command in (["check"], ["repair", "--skip", "--yes"], ["rebuild"]):
        assert main([command[0], str(store_dir), *command[1:], "--commit-log-file-size", "4K"]) == 2
        assert "4096 bytes; leave it out" in capsys.readouterr().err
    assert main(["check", str(store_dir), *SIZES]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["queue", "--topic", "absent"],
        ["queue", "--topic", "absent", "--queue", "0"],
        ["index", "--topic", "absent", "--key", "k"],
        ["records", "--topic", "absent"],
    ],
)
def test_nothing_found(store_dir: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """No output is explained on standard error, and no fault."""
    assert main([arguments[0], str(store_dir), *arguments[1:], *SIZES]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "nothing found\n")


def test_directory_in_use(store_dir: Path, held: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Refused with the process that has it and what to do."""
    assert main(["check", str(store_dir), *SIZES]) == 2
    refusal = capsys.readouterr().err
    assert f"in use by process {held.pid} (" in refusal
    assert "stop it first" in refusal


def test_directory_that_cannot_be_written(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As on a read-only mount: the lock file may be absent or unwritable, and stays so."""
    (store_dir / "lock").unlink()
    files = [path for path in store_dir.rglob("*") if path.is_file()]
    directories = [path for path in (store_dir, *store_dir.rglob("*")) if path.is_dir()]
    for path in files:
        path.chmod(0o444)
    for path in directories:
        path.chmod(0o555)
    try:
        assert main(["check", str(store_dir), *SIZES]) == 0
        assert not (store_dir / "lock").exists()
    finally:
        for path in directories:
            path.chmod(0o755)


def test_closed_pipe_and_interrupt(store_dir: Path) -> None:
    """A reader that goes ends the command quietly; so does Ctrl-C."""
    command = [sys.executable, "-m", "apogeemq.store", "check", str(store_dir), *SIZES]
    read_end, write_end = os.pipe()
    os.close(read_end)
    with subprocess.Popen(command, stdout=write_end, stderr=subprocess.PIPE, text=True) as process:
        os.close(write_end)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (141, "")

    stop = "import signal, sys; from apogeemq.store import __main__ as m; from apogeemq.store.commands import check\n"
    stop += "check.open_view = lambda options: signal.raise_signal(signal.SIGINT)\nsys.exit(m.main(sys.argv[1:]))"
    interrupted = subprocess.run(
        [sys.executable, "-c", stop, *command[3:]], capture_output=True, text=True, check=False
    )
    assert (interrupted.returncode, interrupted.stderr) == (130, "interrupted\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version names the package."""
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith("apogeemq-store ")


# -- records and queue -----------------------------------------------------------------------------------------------


def test_records_as_table_hold_no_bodies(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a record below the head; bodies only when asked for."""
    assert main(["records", str(store_dir), *SIZES, "--count", "3"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["physicalOffset", "size", "topic"]
    assert [row.split()[-1] for row in rows] == ["key-0", "key-1", "key-2"]
    assert main(["records", str(store_dir), *SIZES, "-o", "json"]) == 0
    output = capsys.readouterr().out
    assert "secret" not in output
    assert len(lines_of(output)) == 20
    assert main(["records", str(store_dir), *SIZES, "-o", "json", "--body", "--key", "key-7"]) == 0
    (record,) = lines_of(capsys.readouterr().out)
    assert (record["body"], record["queueId"], record["properties"]["KEYS"]) == ("secret body 7", 1, "key-7")


def test_one_record_in_full(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By offset or id; exit code 1 when it is not there or damaged, which is said."""
    assert main(["records", str(store_dir), *SIZES, "--id", "ID3", "-o", "json"]) == 0
    (record,) = lines_of(capsys.readouterr().out)
    for argument in (["--offset", str(record["physicalOffset"])], ["--id", record["offsetMessageId"]]):
        assert main(["records", str(store_dir), *SIZES, *argument, "--body"]) == 0
        text = capsys.readouterr().out
        assert "secret body 3" in text
        assert "key-3" in text
    assert main(["records", str(store_dir), *SIZES, "--offset", "1"]) == 1
    assert "no record's head" in capsys.readouterr().err
    flip_body(store_dir)
    assert main(["records", str(store_dir), *SIZES, "--offset", "0", "-o", "json"]) == 1
    output = capsys.readouterr()
    assert "CRC" in output.err
    assert lines_of(output.out)[0]["keys"] == "key-0"
    assert main(["records", str(store_dir), *SIZES, "-o", "json"]) == 1
    output = capsys.readouterr()
    assert len(lines_of(output.out)) == 19
    assert output.err.startswith("no records in [0, ")


def test_times_are_read(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Milliseconds or ISO 8601; the clock of the test stood at 2023-11-14T22:13:20Z."""
    for time, count in (("1700000000000", 20), ("2023-11-14T22:13:20Z", 20), ("2023-11-14T22:13:21", 0)):
        assert main(["records", str(store_dir), *SIZES, "-o", "json", "--from-time", time]) == 0
        assert len(lines_of(capsys.readouterr().out)) == count
    with pytest.raises(SystemExit):
        main(["records", str(store_dir), "--to-time", "yesterday"])


def test_queues(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list, the units of one, and a usage error."""
    assert main(["queue", str(store_dir), *SIZES, "-o", "json"]) == 0
    assert [(line["topic"], line["queueId"], line["minOffset"], line["maxOffset"]) for line in
            lines_of(capsys.readouterr().out)] == [("TopicTest", 0, 0, 10), ("TopicTest", 1, 0, 10)]  # fmt: skip
    arguments = ["queue", str(store_dir), *SIZES, "--topic", "TopicTest", "--queue", "1", "--from", "8"]
    assert main([*arguments, "-o", "json"]) == 0
    assert [line["queueOffset"] for line in lines_of(capsys.readouterr().out)] == [8, 9]
    with pytest.raises(SystemExit):
        main(["queue", str(store_dir), "--queue", "1"])
    (store_dir / "consumequeue/TopicTest/1" / f"{640:020d}").write_bytes(b"")
    assert main(["queue", str(store_dir), *SIZES]) == 1
    assert "missing between" in capsys.readouterr().err


def test_what_a_terminal_would_obey_is_escaped(
    tmp_path: Path,
    open_store: Callable[..., MessageStore],
    send: Callable[..., AppendResult],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Escape sequences in properties come out as text."""
    store = open_store()
    send(store, properties=b"KEYS\1\x1b[2Jgone\2")
    store.close()
    assert main(["records", str(tmp_path / "store"), *SIZES]) == 0
    assert capsys.readouterr().out.endswith("\\x1b[2Jgone\n")


# -- rebuild ---------------------------------------------------------------------------------------------------------


def test_rebuild(store_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In place and elsewhere; a second build into one place is refused, and so is a damaged log."""
    (store_dir / "consumequeue/TopicTest/1" / f"{0:020d}").unlink()
    assert main(["rebuild", str(store_dir), *SIZES, "-o", "json"]) == 0
    (report,) = lines_of(capsys.readouterr().out)
    assert (report["queues"], report["units"]) == (2, 20)
    assert main(["check", str(store_dir), *SIZES]) == 0
    for code in (0, 2):
        assert main(["rebuild", str(store_dir), *SIZES, "--to", str(tmp_path / "to")]) == code
    flip_body(store_dir)
    capsys.readouterr()
    assert main(["rebuild", str(store_dir), *SIZES]) == 1
    assert "physical offset 0 is corrupt" in capsys.readouterr().err


def test_rebuild_of_a_store_in_use(store_dir: Path, held: subprocess.Popen[str]) -> None:
    """Refused, whether it would change the store or not."""
    assert held.poll() is None
    assert main(["rebuild", str(store_dir), *SIZES]) == 2
    assert main(["rebuild", str(store_dir), *SIZES, "--to", str(store_dir / "to")]) == 2


# -- repair and convert ----------------------------------------------------------------------------------------------


def test_repair_asks_before_it_changes_anything(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a choice, without --yes where nobody can be asked, and with --dry-run nothing happens."""
    flip_body(store_dir)
    before = {path: path.read_bytes() for path in store_dir.rglob("*") if path.is_file()}
    command = ["repair", str(store_dir), *SIZES]
    assert main([*command, "--dry-run"]) == 1
    assert "fill [0, " in capsys.readouterr().out
    assert main([*command, "--dry-run", "--truncate", "-o", "json"]) == 1
    steps = lines_of(capsys.readouterr().out)
    assert [step["step"] for step in steps] == ["cut", "lowerFlushedOffset"]
    assert steps[0]["lost"] == {"TopicTest 0": "9", "TopicTest 1": "10"}
    assert main(command) == 2
    assert "choose --skip or --truncate" in capsys.readouterr().err
    assert main([*command, "--skip"]) == 2
    assert "--yes is needed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in store_dir.rglob("*") if path.is_file()} == before


def test_repair(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Afterwards a check finds nothing, and the damaged bytes lie in a directory of their own."""
    flip_body(store_dir)
    assert main(["repair", str(store_dir), *SIZES, "--skip", "--yes"]) == 0
    (copies,) = store_dir.glob("repair-*")
    assert str(copies) in capsys.readouterr().err
    assert [path.name for path in (copies / "commitlog").iterdir()] == ["0" * 20]
    assert main(["check", str(store_dir), *SIZES]) == 0
    assert main(["repair", str(store_dir), *SIZES, "--skip"]) == 0
    assert "nothing to repair" in capsys.readouterr().out


def test_convert(store_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says what it would do, does it, and says what Java has to be told."""
    (store_dir / "abort").write_text("1")
    command = ["convert", str(store_dir), *SIZES, "--to", "java"]
    assert main([*command, "--dry-run"]) == 0
    assert "recover: check the log's tail" in capsys.readouterr().out
    assert (store_dir / "abort").exists()
    assert main([*command, "-o", "json"]) == 0
    (report,) = lines_of(capsys.readouterr().out)
    assert any("mappedFileSizeCommitLog=8192" in note for note in report["notes"])
    assert not (store_dir / "abort").exists()
    assert main(["check", str(store_dir), *SIZES]) == 0


@pytest.mark.parametrize("command", [["repair", "--skip", "--yes"], ["convert", "--to", "java"]])
def test_a_store_in_use_is_not_changed(store_dir: Path, held: subprocess.Popen[str], command: list[str]) -> None:
    """Exit code 2, as for looking."""
    assert held.poll() is None
    assert main([command[0], str(store_dir), *SIZES, *command[1:]]) == 2
