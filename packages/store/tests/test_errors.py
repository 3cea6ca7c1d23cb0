"""Errors carry their facts as attributes and as text."""

from pathlib import Path

import pytest
from apogeemq.store import errors


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.StoreInUse(Path("/s")), "another store has /s open"),
        (errors.LayoutInvalid(Path("/s/f"), "too large"), "/s/f: too large"),
        (errors.EpochInvalid(Path("/s/f"), "its CRC"), "/s/f: its CRC"),
        (errors.RecordCorrupt(77, "its CRC"), "the record at physical offset 77 is corrupt: its CRC"),
        (errors.OffsetOutOfRange(9, 10, 20), "physical offset 9 is outside [10, 20)"),
        (errors.MessageTooLarge("body", 9, 8), "body of 9 bytes exceeds the limit of 8 bytes"),
        (errors.MessageInvalid("no topic"), "the message cannot be stored: no topic"),
        (errors.DiskFull(Path("/s/f")), "no room on the disk for /s/f"),
        (
            errors.DiskSlow("sync", Path("/s/f"), 5000),
            (
                "the disk hangs: one sync of /s/f takes longer than 5000 ms (limit: disk_stall_limit_ms). "
                "Nothing more is stored until it has ended; try again then"
            ),
        ),
        (errors.NotWritable("EIO"), "the store is not writable: EIO"),
        (errors.ChunkMisplaced(5, 9), "a chunk begins at 5, but the log received so far ends at 9"),
        (errors.LogDiverged(5, "no"), "the record at physical offset 5 belongs to another log: no"),
        (errors.LogTruncated(5), "the log was cut at 5: what lay behind it is gone"),
        (errors.BelowConfirmOffset(5, 9), "the log cannot be cut at 5: it is confirmed up to 9"),
        (errors.TooManyWaiters(3), "3 sends already wait for a flush"),
        (errors.StoreClosed(), "the store is closed"),
    ],
)
def test_text_says_what_happened(error: errors.StoreError, text: str) -> None:
    """One sentence with the values in it; everything is a StoreError."""
    assert isinstance(error, errors.StoreError)
    assert str(error) == text
