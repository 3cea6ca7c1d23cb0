"""Cases that compare neighbours in turns: what their figures are made of, and that a backlog is there to be drained."""

import pathlib

import pytest
from apogeemq.store.config import StoreConfig
from apogeemq.store.message_store import MessageStore

from tools.bench import backlog_cases, consume_cases
from tools.bench.client_load import ClientOutcome
from tools.bench.load import Outcome
from tools.bench.store_cases import HOST, Figure


def drained(messages: int, server_cpu_s: float) -> Outcome:
    """In two seconds."""
    return Outcome(messages, 2.0, 1.0, 1.0, 1.0, {}, generator_cpu_s=1.0, server_cpu_s=server_cpu_s)


def consumed(messages: int, server_cpu_s: float) -> ClientOutcome:
    """In two seconds, with one of CPU."""
    return ClientOutcome("remoting", "uvloop", "handler", messages, 2.0, 1.0, server_cpu_s)


def by_name(figures: list[Figure]) -> dict[tuple[str, str], tuple[float, ...]]:
    return {(figure.name, figure.unit): figure.values for figure in figures}


def test_a_long_backlog_is_compared_with_its_neighbour() -> None:
    """Rate and CPU per message, round by round."""
    rounds = [(drained(1_000, 0.001), drained(800, 0.0012)), (drained(1_000, 0.002), drained(500, 0.001))]
    figures = by_name(backlog_cases.figures_of(rounds))
    assert figures["short backlog", "µs CPU"] == pytest.approx((1.0, 2.0))
    assert figures["long backlog", "µs CPU"] == pytest.approx((1.5, 2.0))
    assert figures["long : short, CPU", ""] == pytest.approx((1.5, 1.0))
    assert figures["long backlog", "messages/s"] == (400.0, 250.0)
    assert figures["long : short, rate", ""] == (0.8, 0.5)


def test_two_brokers_are_compared_in_the_same_turn() -> None:
    """Ours to Apache's; CPU of broker and client apart."""
    figures = by_name(consume_cases.figures_of([(consumed(1_000, 0.005), consumed(800, 0.04))]))
    assert figures["rate, ours : Apache's", ""] == (1.25,)
    assert figures["broker, ApogeeMQ", "µs CPU"] == pytest.approx((5.0,))
    assert figures["broker, Apache", "µs CPU"] == pytest.approx((50.0,))
    assert figures["client beside ApogeeMQ", "µs CPU"] == (1_000.0,)


def test_a_backlog_is_in_the_brokers_store(tmp_path: pathlib.Path) -> None:
    """Spread over the queues that are drained."""
    backlog_cases.append(backlog_cases.Backlog(tmp_path, "LONG", 10))
    with MessageStore.open(tmp_path, StoreConfig(store_host=HOST), now_ms=lambda: 0) as store:
        assert [store.max_offset("LONG", queue_id) for queue_id in range(5)] == [3, 3, 2, 2, 0]
