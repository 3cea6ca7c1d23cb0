"""Who has a store directory open, as far as this machine can tell: for the text of a refusal."""

import os
from pathlib import Path

_PROC = Path("/proc")
_ARGUMENTS_SIZE_MAX = 120


def describe_holder(directory: Path, proc: Path = _PROC) -> str:
    """Such as `process 4711 (apogeemq-broker --config …)`; "another process" when it cannot be told.

    The kernel lists locks by inode; processes of other PID namespaces (containers) do not show. Then the process id
    that the file `abort` holds is named, which may be one of that namespace.
    """
    process_ids = _holders(directory / "lock", proc)
    if process_ids:
        return " and ".join(f"process {process_id}{_arguments_of(process_id, proc)}" for process_id in process_ids)
    try:
        text = (directory / "abort").read_text(errors="replace").strip()
    except OSError:
        text = ""
    return f"another process (the file abort names {text})" if text.isdecimal() else "another process"


def _holders(lock_file: Path, proc: Path) -> list[int]:
    """Processes with an exclusive lock on the file.

    A line of /proc/locks: `1: FLOCK  ADVISORY  WRITE 4711 fd:01:263 0 EOF`; process id, device and inode at the end.
    """
    try:
        status = lock_file.stat()
        lines = (proc / "locks").read_text().splitlines()
    except OSError:
        return []
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found = {
        int(words[4]) for words in map(str.split, lines) if len(words) > 5 and words[5] == inode and "WRITE" in words
    }
    return sorted(process_id for process_id in found if process_id > 0)  # -1: a lock of an open file description


def _arguments_of(process_id: int, proc: Path) -> str:
    try:
        arguments = (
            (proc / str(process_id) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
    except OSError:
        return ""
    if len(arguments) > _ARGUMENTS_SIZE_MAX:
        arguments = arguments[:_ARGUMENTS_SIZE_MAX] + "…"
    return f" ({arguments})" if arguments else ""
