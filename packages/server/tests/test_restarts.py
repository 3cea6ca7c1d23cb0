"""When a process is started again."""

from apogeemq.server.restarts import LASTED_S, PAUSES_S, Restarts


def test_pauses_grow_and_end() -> None:
    """At once first; a process that never does well stays down at last."""
    restarts = Restarts()
    pauses = [restarts.pause_s(0.1) for _ in range(len(PAUSES_S) + 2)]
    assert pauses[0] == 0.0
    assert pauses[: len(PAUSES_S)] == sorted(PAUSES_S)
    assert pauses[len(PAUSES_S) :] == [None, None]
    assert restarts.in_a_row == len(PAUSES_S)


def test_a_process_that_did_well_is_counted_anew() -> None:
    """So that one kill a day is never one too many."""
    restarts = Restarts()
    for _ in range(100):
        assert restarts.pause_s(LASTED_S) == 0.0
    assert restarts.pause_s(LASTED_S - 1) == PAUSES_S[1]
