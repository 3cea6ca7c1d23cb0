"""Telling who has a directory open."""

import os
from pathlib import Path

from apogeemq.store.lock_holder import describe_holder


def fake_proc(proc: Path, lock_file: Path, line: str) -> None:
    status = lock_file.stat()
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    (proc / "4711").mkdir(parents=True)
    (proc / "4711" / "cmdline").write_bytes(b"java\0-Xmx4g\0BrokerStartup\0")
    (proc / "locks").write_text("1: POSIX  ADVISORY  WRITE 99 00:01:1 0 EOF\n" + line.replace("INODE", inode))


def test_holder_by_the_kernels_list(tmp_path: Path) -> None:
    """Process id and command line of whoever locked the file."""
    (tmp_path / "lock").touch()
    fake_proc(tmp_path / "proc", tmp_path / "lock", "2: POSIX  ADVISORY  WRITE 4711 INODE 0 0\n")
    assert describe_holder(tmp_path, tmp_path / "proc") == "process 4711 (java -Xmx4g BrokerStartup)"


def test_holder_out_of_sight(tmp_path: Path) -> None:
    """A process of another container: what abort says, or nothing."""
    (tmp_path / "lock").touch()
    fake_proc(tmp_path / "proc", tmp_path / "lock", "2: OFDLCK ADVISORY  WRITE -1 INODE 0 0\n")
    assert describe_holder(tmp_path, tmp_path / "proc") == "another process"
    (tmp_path / "abort").write_text("12")
    assert describe_holder(tmp_path, tmp_path / "proc") == "another process (the file abort names 12)"
