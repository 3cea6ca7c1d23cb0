"""`apogeemq decode`: what it prints of a capture, for people and for programs, and its exit codes."""

import json
from pathlib import Path

import pytest
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import encode_frame
from apogeemq.server.__main__ import main

VECTORS = Path(__file__).parents[2] / "remoting-codec" / "tests" / "wire" / "vectors"
SEND = RemotingCommand(
    RequestCode.GET_MAX_OFFSET, 0, 7, None, {"topic": "T\x1b[2J", "queueId": "x", "AccessKey": "who"}, b"", "JAVA", 479
)


def test_recorded_capture_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Requests, answers named after them, headers and stored messages; never a body."""
    assert main(["decode", str(VECTORS / "query_view.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "request 12 QUERY_MESSAGE" in out
    assert "response 0 SUCCESS to QUERY_MESSAGE" in out
    assert "indexLastUpdatePhyoffset = " in out
    assert "KEYS=" in out
    assert "PROBLEM" not in out


def test_recorded_capture_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object a line, as many as there are frames."""
    assert main(["decode", "-o", "json", str(VECTORS / "running_info.jsonl")]) == 0
    frames = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(frames) == len((VECTORS / "running_info.jsonl").read_text().splitlines())
    answer = next(frame for frame in frames if frame["name"] == "SUCCESS to GET_CONSUMER_RUNNING_INFO")
    assert set(answer["body"]["mqTable"]) == {
        '{"brokerName": "broker-t", "queueId": 0, "topic": "TapRun"}',
        '{"brokerName": "broker-t", "queueId": 1, "topic": "TapRun"}',
    }


@pytest.mark.parametrize("as_hex", [False, True])
def test_bytes_of_one_direction(tmp_path: Path, capsys: pytest.CaptureFixture[str], *, as_hex: bool) -> None:
    """Raw bytes and hex text are read alike; a field that does not parse is a problem, not the end."""
    stream = encode_frame(SEND) * 2
    capture = tmp_path / "capture"
    capture.write_bytes(stream.hex(" ", 4).encode() + b"\n" if as_hex else stream)
    assert main(["decode", str(capture)]) == 0
    out = capsys.readouterr().out
    assert out.count("request 30 GET_MAX_OFFSET") == 2
    assert "PROBLEM  the field <queueId>" in out


def test_credentials_and_control_characters_stay_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An access key is replaced; an escape sequence in a field is shown, not sent to the terminal."""
    capture = tmp_path / "capture"
    capture.write_bytes(encode_frame(SEND))
    assert main(["decode", str(capture)]) == 0
    out = capsys.readouterr().out
    assert "who" not in out
    assert "\x1b" not in out
    assert r"T\x1b[2J" in out


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        (b"\0\0\0\x20abc", "ends within a frame"),
        (b"\x7f\xff\xff\xffGET / HTTP/1.1", "the largest size of a frame"),
        (b"\0\0\0\x08\x05\0\0\x04abcd", "unknown header serialise type 5"),
    ],
)
def test_what_is_no_frame_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], rest: bytes, reason: str) -> None:
    """What came before is shown; the error says where it stopped and why, with exit code 1."""
    first = encode_frame(SEND)
    capture = tmp_path / "capture"
    capture.write_bytes(first + rest)
    assert main(["decode", str(capture)]) == 1
    out, err = capsys.readouterr()
    assert "#1 at 0" in out
    assert f"at {len(first)}: " in err
    assert reason in err


@pytest.mark.parametrize("text", ["{\n", '{"hex": 5}', '{"frame": "00"}'])
def test_lines_without_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """A line that holds no frame is named by its number."""
    capture = tmp_path / "capture.jsonl"
    capture.write_text(text)
    assert main(["decode", str(capture)]) == 1
    assert "at 1: the line is no JSON object" in capsys.readouterr().err


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, with the file's name."""
    assert main(["decode", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err


def test_empty_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing said, nothing shown."""
    capture = tmp_path / "capture"
    capture.write_bytes(b"")
    assert main(["decode", str(capture)]) == 0
    assert not capsys.readouterr().out
