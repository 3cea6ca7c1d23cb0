"""Doing many pieces of work that wait for the disk: one after the other, or several at a time."""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Thread

DoAll = Callable[[Sequence[Callable[[], None]]], None]
"""Does all pieces of work, which must not depend on each other. Raises the error of one that failed; then others may
have been left out, but none is still being done.
"""

_THREADS_MAX = 16
_FEW = 16
"""So many are done sooner than threads would be there."""


def one_by_one(work: Sequence[Callable[[], None]]) -> None:
    """See DoAll: in the caller's thread, in order."""
    for piece in work:
        piece()


def in_threads(work: Sequence[Callable[[], None]]) -> None:
    """See DoAll: more than 16 pieces by 16 daemon threads, which end with them. A file system's journal takes the syncs
    together that come while it is busy.
    """
    if len(work) <= _FEW:
        one_by_one(work)
        return
    pieces = deque(work)
    failures: list[BaseException] = []
    threads: list[Thread] = []
    try:
        for number in range(_THREADS_MAX):
            thread = Thread(target=_do_some, args=(pieces, failures), name=f"store-sync-{number}", daemon=True)
            thread.start()
            threads.append(thread)
    finally:
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def _do_some(pieces: deque[Callable[[], None]], failures: list[BaseException]) -> None:
    """Take one piece after the other, until there is none left or somebody failed."""
    while not failures:
        try:
            piece = pieces.popleft()
        except IndexError:
            return
        try:
            piece()
        except BaseException as failure:  # noqa: BLE001 — raised again in the thread that waits
            failures.append(failure)
