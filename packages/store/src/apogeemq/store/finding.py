"""What a check found out, one fact at a time."""

from enum import StrEnum
from pathlib import Path

import msgspec


class Severity(StrEnum):
    """What a finding means for the messages."""

    DAMAGE = "damage"
    """Messages are lost or changed, or opening stops."""
    DERIVED = "derived"
    """What can be built anew from the log is wrong; reads may fail or miss messages until it is."""
    NOTE = "note"
    """Worth knowing: nothing is wrong, or the next opening puts it right by itself."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be, and what to do about it.

    `file` is relative to the store's directory; `position` is in bytes from the file's start. `physical_offset` is
    given where it is about a place in the log.
    """

    severity: Severity
    file: Path
    position: int | None = None
    physical_offset: int | None = None
    expected: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        place = str(self.file) if self.position is None else f"{self.file} at {self.position}"
        offset = "" if self.physical_offset is None else f" (physical offset {self.physical_offset})"
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.severity}: {place}{offset}: expected {self.expected}, found {self.found}{advice}"
