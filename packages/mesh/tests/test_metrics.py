"""Metrics: what is counted, and that Prometheus reads what is rendered."""

from __future__ import annotations

import logging
import math

import pytest
from apogeemq.mesh import metrics
from apogeemq.mesh.metrics import OVERFLOW, Registry
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families


def parsed(text: str) -> dict[str, Metric]:
    """Read rendered text with Prometheus's own parser; a counter's name is without _total there."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parsed(text).values()
        for sample in family.samples
    }


def test_counter() -> None:
    """A counter's child is a plain number that its owner adds to."""
    registry = Registry()
    family = registry.counter("rocketmq_messages_in_total", "messages stored", ("topic", "message_type"))
    child = family.child(topic="orders", message_type="normal")
    child.value += 1
    child.value += 2
    assert family.child(message_type="normal", topic="orders") is child
    assert registry.render() == (
        "# HELP rocketmq_messages_in_total messages stored\n"
        "# TYPE rocketmq_messages_in_total counter\n"
        'rocketmq_messages_in_total{topic="orders",message_type="normal"} 3\n'
    )


def test_gauges() -> None:
    """A gauge is set by its owner, or read when scraped, with or without labels."""
    registry = Registry()
    registry.gauge("broker_permission", "what clients may do").child().value = 6
    registry.observed_gauge("store_bytes", "size", lambda: 2.5)
    registry.observed_gauges("lag_messages", "lag", ("group", "topic"), lambda: [(("g", "t"), 7), (("g", "u"), 0)])
    assert samples(registry.render()) == {
        ("broker_permission", ()): 6,
        ("store_bytes", ()): 2.5,
        ("lag_messages", (("group", "g"), ("topic", "t"))): 7,
        ("lag_messages", (("group", "g"), ("topic", "u"))): 0,
    }


def test_histogram() -> None:
    """Buckets have inclusive upper bounds and are cumulated; sum and count belong to them."""
    registry = Registry()
    latency = registry.histogram("rocketmq_rpc_latency_milliseconds", "latency", (1, 3, 5.5), ("code",))
    child = latency.child(code="send_message")
    for value in (0.5, 1, 2, 5.5, 6):
        child.observe(value)
    name = "rocketmq_rpc_latency_milliseconds"

    def bucket(bound: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        return f"{name}_bucket", (("code", "send_message"), ("le", bound))

    code = (("code", "send_message"),)
    assert samples(registry.render()) == {
        bucket("1"): 2,
        bucket("3"): 3,
        bucket("5.5"): 4,
        bucket("+Inf"): 5,
        (f"{name}_sum", code): 15,
        (f"{name}_count", code): 5,
    }


def test_observed_histogram() -> None:
    """Counts that are kept elsewhere are cumulated when scraped, as they are at that moment."""
    registry = Registry()
    counts = [1, 0, 2]
    registry.observed_histograms("disk_seconds", "disk", (0.5, 2), ("operation",), lambda: [(("sync",), counts, 7.5)])
    counts[1] = 3
    sync = ("operation", "sync")
    assert samples(registry.render()) == {
        ("disk_seconds_bucket", (("le", "0.5"), sync)): 1,
        ("disk_seconds_bucket", (("le", "2"), sync)): 4,
        ("disk_seconds_bucket", (("le", "+Inf"), sync)): 6,
        ("disk_seconds_sum", (sync,)): 7.5,
        ("disk_seconds_count", (sync,)): 6,
    }
    with pytest.raises(ValueError, match="ascending"):
        registry.observed_histograms("other_seconds", "disk", (2, 0.5), (), list)


@given(st.lists(st.floats(-1e6, 1e6)), st.sets(st.floats(-1e6, 1e6), min_size=1))
def test_histogram_counts_as_a_plain_count_does(values: list[float], bounds: set[float]) -> None:
    """For any values and bounds each bucket holds the number of values up to its bound."""
    registry = Registry()
    child = registry.histogram("h", "", sorted(bounds)).child()
    for value in values:
        child.observe(value)
    shown = {labels: count for suffix, labels, count in child.samples() if suffix == "_bucket"}
    expected = [sum(value <= bound for value in values) for bound in sorted(bounds)] + [len(values)]
    assert list(shown.values()) == expected


def test_families_say_what_they_are() -> None:
    """HELP and TYPE lines reach the parser under the samples' own names, in the order of declaration."""
    registry = Registry()
    registry.counter("a_total", "counts\nthings \\ stuff")
    registry.gauge("b", "shows")
    registry.histogram("c_seconds", "spreads", (1,))
    families = parsed(registry.render())
    assert {name: (family.type, family.documentation) for name, family in families.items()} == {
        "a": ("counter", "counts\nthings \\ stuff"),
        "b": ("gauge", "shows"),
        "c_seconds": ("histogram", "spreads"),
    }


@given(st.text(max_size=30))
def test_any_label_value_survives(value: str) -> None:
    """Backslashes, quotes, line ends and everything else in a label value come back from the parser."""
    registry = Registry({"cluster": value})
    registry.gauge("g", "h", ("label",)).child(label=value).value = 1
    ((_, labels),) = samples(registry.render())
    assert labels == (("cluster", value), ("label", value))


@pytest.mark.parametrize("number", [0, -3, 2**60, 0.1, 1e300, math.inf, -math.inf])
def test_any_number_survives(number: float) -> None:
    """Whole, small, huge and infinite numbers come back from the parser unchanged."""
    registry = Registry()
    registry.gauge("g", "h").child().value = number
    assert samples(registry.render()) == {("g", ()): number}


def test_not_a_number_survives() -> None:
    """NaN is written as Prometheus reads it."""
    registry = Registry()
    registry.gauge("g", "h").child().value = math.nan
    assert math.isnan(samples(registry.render())["g", ()])


def test_common_labels_stand_on_every_line() -> None:
    """Cluster and node stand on all samples, histograms' buckets included."""
    registry = Registry({"cluster": "c", "node_id": "broker-a"})
    registry.counter("a_total", "").child().value += 1
    registry.histogram("b", "", (1,), ("x",)).child(x="y").observe(1)
    for _, labels in samples(registry.render()):
        assert {("cluster", "c"), ("node_id", "broker-a")} <= set(labels)


def test_label_combinations_are_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Above the bound new combinations share one child, known ones keep theirs, and the log says so once."""
    monkeypatch.setattr(metrics, "CHILDREN_MAX", 3)
    registry = Registry()
    family = registry.counter("a_total", "", ("topic",))
    with caplog.at_level(logging.WARNING):
        for number in range(10):
            family.child(topic=f"t{number}").value += 1
        family.child(topic="t0").value += 1
    shown = {dict(labels)["topic"]: value for (_, labels), value in samples(registry.render()).items()}
    assert shown == {"t0": 2, "t1": 1, "t2": 1, OVERFLOW: 7}
    assert len(caplog.records) == 1
    assert "a_total has 3 label combinations" in caplog.text


def test_observed_gauges_are_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What a callback gives beyond the bound is not shown, and the log says so."""
    monkeypatch.setattr(metrics, "CHILDREN_MAX", 2)
    registry = Registry()
    registry.observed_gauges("g", "", ("n",), lambda: [((str(n),), n) for n in range(5)])
    assert len(samples(registry.render())) == 2
    assert "g has more than 2" in caplog.text


def test_removed_children_are_not_shown() -> None:
    """A deleted topic's children go, whatever their other labels."""
    registry = Registry()
    family = registry.counter("a_total", "", ("topic", "group"))
    for topic in ("t", "u"):
        for group in ("g", "h"):
            family.child(topic=topic, group=group).value += 1
    family.remove(topic="t")
    assert {dict(labels)["topic"] for _, labels in samples(registry.render())} == {"u"}


def test_broken_gauge_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """A callback that fails is logged and left out; the rest is rendered."""
    registry = Registry()
    registry.observed_gauge("broken", "", lambda: 1 // 0)
    registry.gauge("whole", "").child().value = 1
    assert samples(registry.render()) == {("whole", ()): 1}
    assert "broken could not be read" in caplog.text


async def test_rendering_in_turns_gives_the_same() -> None:
    """The rendering that yields to other tasks writes the same text."""
    registry = Registry()
    family = registry.counter("a_total", "", ("n",))
    for number in range(2000):
        family.child(n=str(number)).value = number
    assert await registry.render_in_turns() == registry.render()


def test_wrong_declarations() -> None:
    """Names that Prometheus does not know, doubles, and wrong buckets are our own mistakes, found when declared."""
    registry = Registry()
    with pytest.raises(ValueError, match="ends in _total"):
        registry.counter("a", "")
    with pytest.raises(ValueError, match="no metric name"):
        registry.gauge("a-b", "")
    with pytest.raises(ValueError, match="no label name"):
        registry.gauge("a", "", ("__x",))
    with pytest.raises(ValueError, match="no label name"):
        registry.histogram("a", "", (1,), ("le",))
    with pytest.raises(ValueError, match="ascending"):
        registry.histogram("a", "", (2, 1))
    with pytest.raises(ValueError, match="finite"):
        registry.histogram("a", "", (1, math.inf))
    registry.gauge("a", "")
    with pytest.raises(ValueError, match="declared twice"):
        registry.counter("a_total", "") and registry.gauge("a", "")


def test_wrong_labels() -> None:
    """A child needs exactly the family's labels."""
    family = Registry().counter("a_total", "", ("topic",))
    for labels in ({}, {"tpoic": "x"}, {"topic": "x", "group": "y"}):
        with pytest.raises(TypeError, match=r"a_total has the labels \('topic',\)"):
            family.child(**labels)


def test_a_part_is_shown_until_it_is_dropped() -> None:
    """Under the same common labels; another part may have the same names after it."""
    registry = Registry({"cluster": "c"})
    registry.gauge("always", "text").child().value = 1
    for number in (2, 3):
        part = registry.part()
        part.gauge("now", "text").child().value = number
        assert f'now{{cluster="c"}} {number}\n' in registry.render()
        registry.drop(part)
        assert "now" not in registry.render()
    assert 'always{cluster="c"} 1\n' in registry.render()
