"""What is made of the lines of clients that send and receive all the while."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.process import poll_until
from tests.interop.driver_run import DriverRun
from tests.interop.steady import Load, SteadyClients, parse
from tests.trials.stock_failover import Seen, longest_pause_s, pauses_s

LINES = """{"started":"steady","at_ms":90}
{"acked":"k-p0-0","client":"k-p0","at_ms":100,"took_ms":3}
{"failed":"k-p0-1","client":"k-p0","at_ms":200,"took_ms":3000,"error":"E: gone"}
{"acked":"k-p0-2","client":"k-p0","at_ms":300,"took_ms":3}
{"got":"k-p0-0","client":"k-c0","at_ms":110}
"""


@pytest.fixture
def clients(tmp_path: pathlib.Path) -> Iterator[SteadyClients]:
    """One producer and one consumer who said LINES."""
    run = DriverRun("k", [sys.executable, "-c", f"print({LINES!r}, end='')"], log_directory=tmp_path, parse=parse)
    with SteadyClients(run, Load("T", "k", producers=1, consumers=1)) as said:
        poll_until(lambda: len(run.lines) == LINES.count("\n"), 30, lambda: run.failure("did not print"))
        yield said


def test_each_client_has_what_it_said(clients: SteadyClients) -> None:
    """Acknowledgements and deliveries by client, with their times; failures beside; nothing twice by looking twice."""
    clients.look()
    clients.look()
    assert clients.acked == {"k-p0-0": 100, "k-p0-2": 300}
    assert clients.acked_ms == {"k-p0": [100, 300]}
    assert clients.got == {"k-c0": ["k-p0-0"]}
    assert [failure.key for failure in clients.failures] == ["k-p0-1"]


def test_all_are_on_when_the_slowest_is(clients: SteadyClients) -> None:
    """The producer was heard of at 300, the consumer at 110."""
    assert clients.are_all_on(109)
    assert not clients.are_all_on(110)


@pytest.mark.parametrize(
    ("times_ms", "pause_s"),
    [
        ([0, 900, 1000, 2400, 2500], 1.4),  # from what came at the very moment of the kill
        ([0, 700, 2400, 2500], 1.7),  # from what came last before it
        ([0, 900, 1050, 3000], 1.95),  # one more came, and then the pause
        ([0, 900, 2000, 9000], 1.1),  # what comes after the round is none of it
    ],
)
def test_a_pause_is_the_longest_time_without_anything(times_ms: list[int], pause_s: float) -> None:
    """Beginning with the last thing before the kill, until all had gone on."""
    assert longest_pause_s(times_ms, 1000, 3000) == pytest.approx(pause_s)


def test_each_client_gives_a_sample_in_each_round() -> None:
    """Two clients, two rounds."""
    times = {"a": [0, 90, 200, 1000, 1300], "b": [50, 250, 950, 1150]}
    assert pauses_s(times, [(100, 260), (1000, 1400)]) == pytest.approx([0.11, 0.3, 0.2, 0.2])


def test_figures_name_median_and_tail() -> None:
    """Of four samples the third is the median from above, and the last the tail."""
    figures = Seen("K", [3.0, 1.0, 4.0, 2.0], failed=2, twice=1).figures()
    assert (figures["samples"], figures["p50_s"], figures["p99_s"]) == (4, 3.0, 4.0)
    assert (figures["least_s"], figures["most_s"]) == (1.0, 4.0)
    assert (figures["failed"], figures["twice"]) == (2, 1)
