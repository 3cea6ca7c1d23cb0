"""Metrics: plain numbers on the hot path, Prometheus text when scraped.

    messages_in = registry.counter("rocketmq_messages_in_total", "messages stored", ("topic", "message_type"))
    child = messages_in.child(topic="orders", message_type="normal")   # look it up once, keep it
    child.value += 1                                                   # the hot path: one int

Rendered is the text exposition format 0.0.4. A family's name is the name of its samples (a histogram's without _bucket,
_sum and _count) and carries its unit, as Prometheus asks; Java's exporter lets TYPE lines keep the name without unit,
which boards do not read.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

CHILDREN_MAX = 10_000
"""Label combinations one family keeps; further ones are counted together under OVERFLOW."""

OVERFLOW = "__overflow__"
"""The value that every label of the child for too many combinations has."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LINES_PER_TURN = 500  # rendered before other tasks get a turn: well under a millisecond
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")

_log = logging.getLogger(__name__)


class Sampled(Protocol):
    """A child: one label combination of a family."""

    def samples(self) -> Iterable[tuple[str, str, float]]:
        """Give (suffix of the name, an extra label with its value or "", value) for each line to be shown."""
        ...


ChildT = TypeVar("ChildT", bound=Sampled)


class Value:
    """A counter's or gauge's number. A counter's owner only ever adds to it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def samples(self) -> Iterable[tuple[str, str, float]]:
        """One line: the number."""
        return (("", "", self.value),)


class Distribution:
    """A histogram's counts. `bounds` are the inclusive upper bounds of all buckets but the last, ascending."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total: float = 0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self) -> Iterable[tuple[str, str, float]]:
        """Cumulated buckets, sum and count."""
        cumulated = 0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            cumulated += count
            yield "_bucket", f'le="{_number(bound)}"', cumulated
        yield "_sum", "", self.total
        yield "_count", "", cumulated


class Family(Generic[ChildT]):
    """One metric: a name, its label names, and a child for each combination of label values seen."""

    def __init__(
        self, kind: str, name: str, help_text: str, label_names: Sequence[str], make_child: Callable[[], ChildT]
    ) -> None:
        self.kind = kind
        self.name = name
        self.help_text = help_text
        self.label_names = tuple(label_names)
        self._make_child = make_child
        self._children: dict[tuple[str, ...], ChildT] = {}
        self._overflow: ChildT | None = None

    def child(self, **labels: str) -> ChildT:
        """Return the child of these label values, making it on first use.

        Raises TypeError when the names are not the family's. Above CHILDREN_MAX new combinations share one child.
        """
        try:
            values = tuple([labels[name] for name in self.label_names])
        except KeyError:
            values = ()
        if len(values) != len(labels) or len(values) != len(self.label_names):
            raise TypeError(f"{self.name} has the labels {self.label_names}, not {tuple(labels)}")
        child = self._children.get(values)
        if child is None:
            if len(self._children) >= CHILDREN_MAX:
                return self._overflow_child()
            child = self._children[values] = self._make_child()
        return child

    def remove(self, **labels: str) -> None:
        """Forget the children that have these label values; labels not named may have any."""
        wanted = [(self.label_names.index(name), value) for name, value in labels.items()]
        for values in [values for values in self._children if all(values[at] == value for at, value in wanted)]:
            del self._children[values]

    def children(self) -> list[tuple[tuple[str, ...], ChildT]]:
        """List label values and children, the one for overflow last."""
        listed = list(self._children.items())
        if self._overflow is not None:
            listed.append((tuple(OVERFLOW for _ in self.label_names), self._overflow))
        return listed

    def _overflow_child(self) -> ChildT:
        if self._overflow is None:
            self._overflow = self._make_child()
            _log.warning("%s has %d label combinations; further ones are counted together", self.name, CHILDREN_MAX)
        return self._overflow


class _Observed:
    """A gauge or counter that is read when scraped."""

    def __init__(
        self,
        kind: str,
        name: str,
        help_text: str,
        label_names: Sequence[str],
        read: Callable[[], Iterable[tuple[Sequence[str], float]]],
    ) -> None:
        self.kind = kind
        self.name = name
        self.help_text = help_text
        self.label_names = tuple(label_names)
        self._read = read

    def children(self) -> list[tuple[tuple[str, ...], Value]]:
        listed: list[tuple[tuple[str, ...], Value]] = []
        for values, number in self._read():
            if len(listed) == CHILDREN_MAX:
                _log.warning("%s has more than %d label combinations; only those are shown", self.name, CHILDREN_MAX)
                break
            value = Value()
            value.value = number
            listed.append((tuple(values), value))
        return listed


class _ObservedHistogram:
    """A histogram whose counts are kept elsewhere and read when scraped."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help_text: str,
        bounds: Sequence[float],
        label_names: Sequence[str],
        read: Callable[[], Iterable[tuple[Sequence[str], Sequence[int], float]]],
    ) -> None:
        self.name = name
        self.help_text = help_text
        self.label_names = tuple(label_names)
        self._bounds = bounds
        self._read = read

    def children(self) -> list[tuple[tuple[str, ...], Distribution]]:
        listed: list[tuple[tuple[str, ...], Distribution]] = []
        for values, counts, total in self._read():
            distribution = Distribution(self._bounds)
            distribution.counts = list(counts)
            distribution.total = total
            listed.append((tuple(values), distribution))
        return listed


class Registry:
    """All metrics of a process. `common_labels` stand on every line, such as cluster, node_type and node_id."""

    def __init__(self, common_labels: Mapping[str, str] | None = None) -> None:
        self._common = [_label(name, value) for name, value in (common_labels or {}).items()]
        self._families: dict[str, Family[Value] | Family[Distribution] | _Observed | _ObservedHistogram] = {}
        self._parts: list[Registry] = []

    def part(self) -> Registry:
        """A registry of its own that is rendered with this one, for something that ends before the process does."""
        part = Registry()
        part._common = self._common
        self._parts.append(part)
        return part

    def drop(self, part: Registry) -> None:
        """Show it no more. ValueError when it is no part of this one."""
        self._parts.remove(part)

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Family[Value]:
        """Declare a number that only grows; its name ends in _total."""
        _check_counter_name(name)
        return self._add(Family("counter", name, help_text, labels, Value))

    def gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Family[Value]:
        """Declare a number that is set as it goes up and down."""
        return self._add(Family("gauge", name, help_text, labels, Value))

    def observed_gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Declare a number that `read` gives when scraped; it must be cheap and not wait."""
        self._add(_Observed("gauge", name, help_text, (), lambda: [((), read())]))

    def observed_gauges(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        read: Callable[[], Iterable[tuple[Sequence[str], float]]],
    ) -> None:
        """Declare numbers that `read` gives when scraped, each with its label values in the order of `labels`."""
        self._add(_Observed("gauge", name, help_text, labels, read))

    def observed_counters(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        read: Callable[[], Iterable[tuple[Sequence[str], float]]],
    ) -> None:
        """Declare numbers that only grow and that `read` gives when scraped; the name ends in _total."""
        _check_counter_name(name)
        self._add(_Observed("counter", name, help_text, labels, read))

    def histogram(
        self, name: str, help_text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Family[Distribution]:
        """Declare a distribution over buckets, given by their ascending inclusive upper bounds without infinity."""
        bounds = _checked_bounds(name, buckets)
        return self._add(Family("histogram", name, help_text, labels, lambda: Distribution(bounds)))

    def observed_histograms(
        self,
        name: str,
        help_text: str,
        buckets: Sequence[float],
        labels: Sequence[str],
        read: Callable[[], Iterable[tuple[Sequence[str], Sequence[int], float]]],
    ) -> None:
        """Declare distributions that `read` gives when scraped: label values, counts of each bucket alone (one more
        than there are bounds), and the sum of the values; it must be cheap and not wait.
        """
        self._add(_ObservedHistogram(name, help_text, _checked_bounds(name, buckets), labels, read))

    def render(self) -> str:
        """Write all metrics as Prometheus text, in the order they were declared."""
        return "".join(self._lines())

    async def render_in_turns(self) -> str:
        """Do as render(), giving other tasks a turn every few hundred lines."""
        lines = []
        for line in self._lines():
            lines.append(line)
            if len(lines) % _LINES_PER_TURN == 0:
                await asyncio.sleep(0)
        return "".join(lines)

    def _add(self, family: FamilyT) -> FamilyT:
        if not _METRIC_NAME.fullmatch(family.name):
            raise ValueError(f"{family.name!r} is no metric name")
        if family.name in self._families:
            raise ValueError(f"{family.name} is declared twice")
        for label in family.label_names:
            if not _LABEL_NAME.fullmatch(label) or label == "le":
                raise ValueError(f"{family.name}: {label!r} is no label name")
        self._families[family.name] = family
        return family

    def _lines(self) -> Iterator[str]:
        for family in list(self._families.values()):
            try:
                children = family.children()
            except Exception:  # noqa: BLE001 — one broken gauge must not hide all others from whoever seeks the cause
                _log.exception("%s could not be read and is left out", family.name)
                continue
            yield f"# HELP {family.name} {_escape_help(family.help_text)}\n# TYPE {family.name} {family.kind}\n"
            for values, child in children:
                labels = self._common + [_label(*pair) for pair in zip(family.label_names, values, strict=True)]
                for suffix, extra, number in child.samples():
                    joined = ",".join([*labels, extra] if extra else labels)
                    braced = f"{{{joined}}}" if joined else ""
                    yield f"{family.name}{suffix}{braced} {_number(number)}\n"
        for part in list(self._parts):
            yield from part._lines()  # noqa: SLF001 — of the same class


FamilyT = TypeVar("FamilyT", Family[Value], Family[Distribution], _Observed, _ObservedHistogram)


def _checked_bounds(name: str, buckets: Sequence[float]) -> tuple[float, ...]:
    bounds = tuple(buckets)
    if not bounds or list(bounds) != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
        raise ValueError(f"{name}: buckets {bounds} are not finite and ascending")
    return bounds


def _check_counter_name(name: str) -> None:
    if not name.endswith("_total"):
        raise ValueError(f"{name}: the name of a counter ends in _total")


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'{name}="{escaped}"'


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))
