"""The index of pending timers against a sorted list, and what it costs in memory."""

import tracemalloc
from random import Random

import pytest
from apogeemq.store.timer_index import TimerIndex


@pytest.mark.parametrize("seed", range(40))
def test_like_a_sorted_list(seed: int) -> None:
    """Puts near, far and late, a clock that goes both ways: pairs come out in order, and every question is answered."""
    chance = Random(seed)
    index, twin, now_ms = TimerIndex(), list[tuple[int, int]](), 10_000_000
    for step in range(300):
        now_ms += chance.choice([0, 1, 1000, 70_000, -30_000])
        for number in range(chance.randint(0, 4)):
            pair = (now_ms + chance.choice([-90_000, -1, 0, 1, 999, 65_536, 300_000]), step * 520 + number * 52)
            index.put(*pair)
            twin.append(pair)
        twin.sort()
        count = chance.randint(0, 5)
        expected = [pair for pair in twin if pair[0] <= now_ms][:count]
        assert index.pop_due(now_ms, count) == expected
        twin = [pair for pair in twin if pair not in expected]
        if chance.random() < 0.05:
            cut = step * 520 - chance.randint(0, 5000)
            index.drop_from(cut)
            twin = [pair for pair in twin if pair[1] < cut]
        assert sorted(index) == twin
        first_ms = index.next_ms()
        assert (first_ms is None) == (not twin)
        if first_ms is not None:
            assert twin[0][0] - 65_536 < first_ms <= twin[0][0]
        time_ms = now_ms + chance.randint(-100_000, 400_000)
        assert index.count_before(time_ms) == sum(pair[0] < time_ms for pair in twin)
        between = {pair[1] for pair in twin if time_ms <= pair[0] <= time_ms + 999}
        assert set(index.positions_between(time_ms, time_ms + 999)) == between


def test_memory() -> None:
    """30,000 timers over three days, then all of them in one minute: at most twelve bytes each once they are in."""
    for span_ms in (3 * 24 * 3_600_000, 60_000):
        index, chance = TimerIndex(), Random(1)
        tracemalloc.start()
        for position in range(30_000):
            index.put(10**12 + chance.randrange(span_ms), position * 52)
        index.pop_due(10**12 + span_ms // 2, 10)
        size_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size_bytes < 12 * 30_000 + 1_000_000  # the rest: 4,000 buckets
