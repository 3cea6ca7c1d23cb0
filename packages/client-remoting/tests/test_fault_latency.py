"""Brokers to avoid, and until when."""

from apogeemq.client_remoting.core.fault_latency import FaultLatency


def test_a_broker_that_failed_is_avoided_for_five_seconds() -> None:
    """And only that one."""
    faults = FaultLatency()
    faults.failed("b", 100.0)
    assert faults.is_avoided("b", 104.9)
    assert not faults.is_avoided("b", 105.0)
    assert not faults.is_avoided("a", 100.0)


def test_slow_answers_count_by_apaches_table() -> None:
    """0.55 s: 2 s; 1.8 s: 5 s; 3 s: 6 s; 5 s: 10 s; 15 s: 30 s."""
    for latency_s, avoid_s in [(0.55, 2), (1.8, 5), (3.0, 6), (5.0, 10), (15.0, 30)]:
        faults = FaultLatency()
        faults.sent("b", latency_s, 0.0)
        assert faults.is_avoided("b", avoid_s - 0.1)
        assert not faults.is_avoided("b", avoid_s)


def test_a_quick_answer_clears_a_broker() -> None:
    """It is well again."""
    faults = FaultLatency()
    faults.failed("b", 0.0)
    assert not faults.is_empty
    faults.sent("b", 0.01, 1.0)
    assert not faults.is_avoided("b", 1.0)
    assert faults.is_empty


def test_brokers_that_are_gone_are_forgotten() -> None:
    """So the table is bounded by the routes."""
    faults = FaultLatency()
    faults.failed("old", 0.0)
    faults.failed("kept", 0.0)
    faults.keep_only({"kept"})
    assert not faults.is_avoided("old", 1.0)
    assert faults.is_avoided("kept", 1.0)
