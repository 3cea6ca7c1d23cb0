"""Logging set-up: one handler on stderr, as text for people or as JSON lines for collectors.

Three rules hold whatever is logged: bytes given as arguments appear only by their size (message bodies stay out of
logs), known secrets are masked, and in text no message can forge a line of its own.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO

import msgspec

MESSAGE_CHARACTERS_MAX = 8192
"""Longer messages are cut, and say so."""

_MASK = "******"
_SECRET_CHARACTERS_MIN = 4  # masking shorter ones would garble every line
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")

FieldSource = Callable[[], Mapping[str, str]]


def setup_logging(
    level: str = "INFO",
    *,
    json: bool = False,
    stream: TextIO | None = None,
    secrets: Iterable[str] = (),
    fields: FieldSource | None = None,
) -> None:
    """Let everything at `level` or above go to `stream` (stderr). Called again, it replaces what it set up before.

    `fields` is asked for each record's further fields, such as the current trace's ids. Raises ValueError for an
    unknown level.
    """
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(_JsonFormatter(secrets, fields) if json else _TextFormatter(secrets, fields))
    root = logging.getLogger()
    root.setLevel(level.upper())
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be told from those that others have put on the root logger."""


class _Formatter(logging.Formatter):
    """What both forms share: the message within the rules."""

    def __init__(self, secrets: Iterable[str], fields: FieldSource | None) -> None:
        super().__init__()
        self._fields = fields
        masked = sorted({secret for secret in secrets if len(secret) >= _SECRET_CHARACTERS_MIN}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, masked))) if masked else None

    def fields(self) -> Mapping[str, str]:
        return self._fields() if self._fields is not None else {}

    def message(self, record: logging.LogRecord) -> str:
        args = record.args
        if isinstance(args, tuple):
            text = str(record.msg) % tuple(map(_without_bytes, args)) if args else str(record.msg)
        elif args:
            text = str(record.msg) % {key: _without_bytes(value) for key, value in args.items()}
        else:
            text = str(record.msg)
        if len(text) > MESSAGE_CHARACTERS_MAX:
            text = f"{text[:MESSAGE_CHARACTERS_MAX]}… ({len(text)} characters)"
        return self.masked(text)

    def exception(self, record: logging.LogRecord) -> str | None:
        if record.exc_info and record.exc_info[0] is not None:
            return self.masked(self.formatException(record.exc_info))
        return None

    def masked(self, text: str) -> str:
        return self._secrets.sub(_MASK, text) if self._secrets else text


class _TextFormatter(_Formatter):
    """`2026-11-22T16:00:00.123Z WARNING apogeemq.mesh.http: message [trace_id=…]`, a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        message = _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), self.message(record))
        extra = " ".join(f"{key}={value}" for key, value in self.fields().items())
        line = f"{_time(record)} {record.levelname:7} {record.name}: {message}" + (f" [{extra}]" if extra else "")
        exception = self.exception(record)
        return line if exception is None else f"{line}\n{exception}"


class _JsonFormatter(_Formatter):
    """One JSON object a line: time, level, logger, message, further fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": self.message(record),
            **self.fields(),
        }
        exception = self.exception(record)
        if exception is not None:
            entry["exception"] = exception
        return msgspec.json.encode(entry).decode()


def _time(record: logging.LogRecord) -> str:
    """Give the record's time in UTC with milliseconds, as in RFC 3339."""
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _without_bytes(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    return value
