"""Acknowledgements that wait."""

import pytest
from apogeemq.broker.errors import SystemBusy
from apogeemq.broker.service.durability import AcknowledgementLine, Outcome


def line_with(*targets: int, waiting_max: int = 10) -> tuple[AcknowledgementLine, list[tuple[int, Outcome]]]:
    line = AcknowledgementLine(waiting_max=waiting_max, what="the disk")
    seen: list[tuple[int, Outcome]] = []
    for target in targets:
        line.add(target, float(target), lambda outcome, target=target: seen.append((target, outcome)))  # type: ignore[misc]  # default binds the number
    return line, seen


def test_one_flush_lets_all_go_that_it_covers() -> None:
    """Those at or below the reached offset are done, in order; the others wait on."""
    line, seen = line_with(10, 20, 30)
    line.reached(9)
    assert seen == []
    line.reached(20)
    assert seen == [(10, Outcome.DONE), (20, Outcome.DONE)]
    assert len(line) == 1


def test_who_waits_too_long_times_out() -> None:
    """The deadline ends a wait once, and a later flush does not end it again."""
    line, seen = line_with(10, 20)
    line.expire(9.9)
    line.expire(10.0)
    line.reached(99)
    assert seen == [(10, Outcome.TIMEOUT), (20, Outcome.DONE)]


def test_a_failed_flush_fails_all() -> None:
    """Nobody is left waiting for what can't happen."""
    line, seen = line_with(10, 20)
    line.fail()
    assert seen == [(10, Outcome.FAILED), (20, Outcome.FAILED)]
    assert len(line) == 0


def test_a_full_line_refuses_with_its_limit() -> None:
    """The refusal comes before anything is stored and names the limit and its value."""
    line, _ = line_with(10, waiting_max=2)
    line.check_room()
    line.add(20, 1.0, lambda outcome: None)
    with pytest.raises(SystemBusy, match="wait for the disk, the limit is 2"):
        line.check_room()
