"""Work that is done one after the other, and work that is done by several threads at a time."""

import errno
from collections.abc import Callable
from threading import Barrier, Lock, active_count, get_ident

import pytest
from apogeemq.store.side_by_side import DoAll, in_threads, one_by_one


class Pieces:
    """Pieces of work that note their numbers."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.threads: set[int] = set()
        self._lock = Lock()

    def piece(self, number: int) -> Callable[[], None]:
        def do() -> None:
            with self._lock:
                self.done.append(number)
                self.threads.add(get_ident())

        return do


def fail() -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("do_all", [one_by_one, in_threads])
@pytest.mark.parametrize("count", [0, 1, 16, 17, 1000])
def test_each_piece_is_done_once(do_all: DoAll, count: int) -> None:
    """However many there are; and no thread is left."""
    before = active_count()
    pieces = Pieces()
    do_all([pieces.piece(number) for number in range(count)])
    assert sorted(pieces.done) == list(range(count))
    assert active_count() == before


@pytest.mark.parametrize(("do_all", "count"), [(one_by_one, 100), (in_threads, 16)])
def test_in_order_by_the_caller(do_all: DoAll, count: int) -> None:
    """One after the other, which few pieces are in any case."""
    pieces = Pieces()
    do_all([pieces.piece(number) for number in range(count)])
    assert pieces.done == list(range(count))
    assert pieces.threads == {get_ident()}


def test_several_at_a_time() -> None:
    """Sixteen pieces that wait for each other come to an end."""
    barrier = Barrier(16)
    met: list[int] = []

    def meet() -> None:
        met.append(barrier.wait(30))

    in_threads([meet] * 32)
    assert sorted(met) == sorted([*range(16), *range(16)])


@pytest.mark.parametrize("do_all", [one_by_one, in_threads])
@pytest.mark.parametrize("at", [0, 50, 99])
def test_an_error_is_raised_where_the_work_was_given(do_all: DoAll, at: int) -> None:
    """Once nothing is being done any more."""
    before = active_count()
    pieces = Pieces()
    work = [pieces.piece(number) for number in range(100)]
    work[at] = fail
    with pytest.raises(OSError, match="Input/output"):
        do_all(work)
    assert active_count() == before
    assert set(pieces.done) <= set(range(100)) - {at}


def test_nobody_begins_another_piece_after_an_error() -> None:
    """When every piece fails, there are no more failures than threads."""
    attempts: list[int] = []

    def attempt() -> None:
        attempts.append(1)
        fail()

    with pytest.raises(OSError, match="Input/output"):
        in_threads([attempt] * 1000)
    assert len(attempts) <= 16
