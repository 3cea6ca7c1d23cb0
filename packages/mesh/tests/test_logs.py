"""Log lines: form, and what never appears in them."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import re

import pytest
from apogeemq.mesh import logs
from apogeemq.mesh.logs import setup_logging

_log = logging.getLogger("apogeemq.test")


pytestmark = pytest.mark.usefixtures("root_logger")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def _log_failure(error: Exception, message: str, *args: object) -> None:
    """Log as an except clause does."""
    try:
        raise error
    except type(error):
        _log.exception(message, *args)


def test_text_line(stream: io.StringIO) -> None:
    """A text line has the time in UTC with milliseconds, level, logger and message."""
    setup_logging(stream=stream)
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    _log.warning("disk is %d %% full", 91)
    match = re.fullmatch(r"(\S+)Z WARNING apogeemq\.test: disk is 91 % full\n", stream.getvalue())
    assert match
    assert dt.datetime.fromisoformat(match[1] + "+00:00") >= before
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", match[1])


def test_json_line(stream: io.StringIO) -> None:
    """A JSON line holds the same as an object, with the further fields and the traceback."""
    setup_logging(json=True, stream=stream, fields=lambda: {"trace_id": "abc"})
    _log_failure(ValueError("two\nlines"), "it %s", "broke\n")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["exception"].startswith("Traceback")
    assert entry["exception"].endswith("ValueError: two\nlines")
    del entry["exception"], entry["time"]
    assert entry == {"level": "ERROR", "logger": "apogeemq.test", "message": "it broke\n", "trace_id": "abc"}


def test_text_has_fields_and_traceback(stream: io.StringIO) -> None:
    """In text the further fields stand in brackets and the traceback below."""
    setup_logging(stream=stream, fields=lambda: {"trace_id": "abc"})
    _log_failure(ValueError("cause"), "it broke")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR   apogeemq.test: it broke [trace_id=abc]")
    assert rest[-1] == "ValueError: cause"


def test_level(stream: io.StringIO) -> None:
    """What is below the level is not logged; the level's case does not matter, an unknown one is refused."""
    setup_logging("warning", stream=stream)
    _log.info("quiet")
    _log.warning("loud")
    assert stream.getvalue().count("\n") == 1
    with pytest.raises(ValueError, match="NONSENSE"):
        setup_logging("nonsense", stream=stream)


def test_setting_up_again_replaces(stream: io.StringIO) -> None:
    """A second set-up leaves one handler of ours, and those of others alone."""
    theirs = logging.NullHandler()
    logging.getLogger().addHandler(theirs)
    first = io.StringIO()
    setup_logging(stream=first)
    setup_logging(stream=stream)
    _log.warning("once")
    assert (first.getvalue(), stream.getvalue().count("once")) == ("", 1)
    assert theirs in logging.getLogger().handlers


@pytest.mark.parametrize("json_lines", [True, False])
def test_bytes_appear_only_by_size(stream: io.StringIO, json_lines: bool) -> None:
    """Message bodies given as arguments stay out of the log, whatever kind of bytes they are."""
    setup_logging(json=json_lines, stream=stream)
    _log.warning("body %s %r %s of %s", b"private", bytearray(b"private"), memoryview(b"private"), "topic")
    _log.warning("body %(body)s", {"body": b"private"})
    assert "private" not in stream.getvalue()
    assert "body <7 bytes> '<7 bytes>' <7 bytes> of topic" in stream.getvalue()
    assert "body <7 bytes>" in stream.getvalue().splitlines()[1]


@pytest.mark.parametrize("json_lines", [True, False])
def test_secrets_are_masked(stream: io.StringIO, json_lines: bool) -> None:
    """Known secrets appear neither in messages nor in tracebacks; empty or very short ones are not looked for."""
    setup_logging(json=json_lines, stream=stream, secrets=["hunter2", "hunter2-longer", "", "e"])
    _log_failure(ValueError("with hunter2"), "login %s and %s", "hunter2-longer", "hunter2")
    assert "hunter2" not in stream.getvalue()
    assert "login ****** and ******" in stream.getvalue()


def test_no_message_forges_a_line(stream: io.StringIO) -> None:
    """Line ends and control characters in a text message are written as escapes."""
    setup_logging(stream=stream)
    _log.warning("client id %s", "x\n2026-01-01T00:00:00.000Z INFO forged\r\x1b[31m\u2028")
    (line,) = stream.getvalue().splitlines()
    assert r"x\n2026-01-01T00:00:00.000Z INFO forged\r\x1b[31m\u2028" in line


def test_long_messages_are_cut(stream: io.StringIO) -> None:
    """A message longer than the bound is cut, and its length is told."""
    setup_logging(stream=stream)
    _log.warning("%s", "x" * (logs.MESSAGE_CHARACTERS_MAX + 1))
    assert stream.getvalue().endswith(f"xx… ({logs.MESSAGE_CHARACTERS_MAX + 1} characters)\n")


def test_percent_signs_without_arguments(stream: io.StringIO) -> None:
    """A message without arguments is taken as it is."""
    setup_logging(stream=stream)
    _log.warning("100 %")
    assert stream.getvalue().endswith(": 100 %\n")
