"""What subcommands write on standard output: a table for people, or JSON lines."""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

import msgspec

Value: TypeAlias = str | int | bool | Sequence[str] | Mapping[str, str] | None


class Column(NamedTuple):
    """A column of a table. A value that is wider than the column pushes the rest of its line to the right."""

    name: str
    """Also the key of the JSON object."""
    width: int
    """0 for the last column."""
    is_number: bool = False

    def pad(self, text: str) -> str:
        """The text as wide as the column."""
        return text.rjust(self.width) if self.is_number else text.ljust(self.width)


class Table:
    """Rows, written as they come: a long list needs no memory and can be cut by a pipe."""

    def __init__(self, columns: Sequence[Column], *, as_json: bool) -> None:
        self._columns = columns
        self._as_json = as_json
        self._is_empty = True

    def row(self, values: Mapping[str, Value]) -> None:
        """Write one. JSON has all the values, the table those that have a column."""
        is_first, self._is_empty = self._is_empty, False
        if self._as_json:
            write_json(values)
            return
        if is_first:
            self._line({column.name: column.name for column in self._columns})
        self._line({column.name: text_of(values.get(column.name)) for column in self._columns})

    def end(self) -> None:
        """Tell on standard error when there was no row: an empty output leaves one wondering."""
        if self._is_empty:
            sys.stderr.write("nothing found\n")

    def _line(self, texts: Mapping[str, str]) -> None:
        line = "  ".join(column.pad(texts[column.name]) for column in self._columns)
        sys.stdout.write(line.rstrip() + "\n")


def write_json(values: Mapping[str, Value]) -> None:
    """One object, one line."""
    sys.stdout.write(msgspec.json.encode(values).decode() + "\n")


def write_fields(values: Mapping[str, Value], *, as_json: bool) -> None:
    """One thing with many fields: a field a line, or one JSON object."""
    if as_json:
        write_json(values)
        return
    width = max(map(len, values), default=0)
    for name, value in values.items():
        sys.stdout.write(f"{name.ljust(width)}  {text_of(value)}\n".rstrip(" "))


def text_of(value: Value) -> str:
    """How people read it. What a terminal would obey (control characters in a message's properties) is escaped."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = " ".join(f"{key}={item}" for key, item in value.items())
    text = " ".join(value) if not isinstance(value, str | int) else str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def time_text(timestamp_ms: int) -> str | None:
    """Such as 2026-11-22T14:13:41.666Z; None for 0 and for times that no calendar has."""
    if timestamp_ms == 0:
        return None
    try:
        at = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{timestamp_ms % 1000:03d}Z"


def size_text(size_bytes: int) -> str:
    """Such as 12.3 MiB."""
    amount = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{size_bytes} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
