"""Results as a table for people or as JSON for machines, with what one must know of the machine to read them."""

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence

from tools.bench.cases import CaseResult, MemoryResult, StartResult
from tools.bench.load import Outcome

Value = str | int | float | bool | None | Sequence["Value"] | Mapping[str, "Value"]

HEADINGS = ("case", "msg/s", "p50 ms", "p99 ms", "server µs/msg", "errors", "generator CPU", "ceiling msg/s")


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """Where and beside what a run took place; load averages are those of 1, 5 and 15 minutes."""

    server: str
    cores: int
    python: str
    kernel: str
    loadavg_before: tuple[float, float, float]
    loadavg_after: tuple[float, float, float]

    @classmethod
    def of(cls, server: str, loadavg_before: tuple[float, float, float]) -> "Surroundings":
        """Made at the end of a run."""
        return cls(
            server=server,
            cores=os.cpu_count() or 1,
            python=platform.python_version(),
            kernel=platform.release(),
            loadavg_before=loadavg_before,
            loadavg_after=os.getloadavg(),
        )

    def text(self) -> str:
        """One line to put under a table."""
        before, after = self.loadavg_before[0], self.loadavg_after[0]
        return (
            f"{self.server}; {self.cores} cores, Python {self.python}, Linux {self.kernel}; "
            f"load average {before:.2f} before, {after:.2f} after"
        )


def cases_table(results: Sequence[CaseResult]) -> str:
    """One line a case, and below it what went wrong in it."""
    rows = [HEADINGS]
    notes = []
    for result in results:
        outcome, ceiling = result.outcome, result.ceiling
        rows.append(
            (
                result.case.name,
                f"{outcome.rate:,.0f}",
                f"{outcome.p50_ms:.3f}",
                f"{outcome.p99_ms:.3f}",
                "-" if outcome.server_cpu_us is None else f"{outcome.server_cpu_us:.1f}",
                str(outcome.error_count),
                f"{outcome.generator_share:.0%}",
                "-" if ceiling is None else f"{ceiling.rate:,.0f}",
            )
        )
        notes += [f"{result.case.name}: {count} × {error}" for error, count in outcome.errors.items()]
    return "\n".join([*align(rows), *notes])


def memory_text(result: MemoryResult) -> str:
    """Both halves and the server's memory beside them."""
    return "\n".join(
        [
            f"stored  {outcome_text(result.stored)}",
            f"drained {outcome_text(result.drained)}",
            f"RssAnon before {mib(result.before_kib)}, after {mib(result.stored_kib)} and {mib(result.drained_kib)}",
            f"RssAnon min {mib(result.min_kib)}, max {mib(result.max_kib)}",
        ]
    )


def start_text(result: StartResult) -> str:
    """The runs, the quickest first."""
    return "\n".join(
        [
            "ready line after       " + ", ".join(f"{seconds:.2f}" for seconds in sorted(result.ready_s)) + " s",
            "first send accepted at " + ", ".join(f"{seconds:.2f}" for seconds in sorted(result.first_send_s)) + " s",
            f"idle: RSS {mib(result.idle_rss_kib)}, of it anonymous {mib(result.idle_rss_anon_kib)}",
        ]
    )


def outcome_text(outcome: Outcome) -> str:
    """How much, how fast, and what went wrong."""
    errors = [f"{count} × {error}" for error, count in outcome.errors.items()] or ["no errors"]
    return "; ".join([f"{outcome.messages:,} at {outcome.rate:,.0f} msg/s", *errors])


def mib(size_kib: int) -> str:
    """A size for people."""
    return f"{size_kib / 1024:.1f} MiB"


def as_json(name: str, result: object, surroundings: Surroundings) -> str:
    """A result of dataclasses with the rates that they compute."""
    document = {"measurement": name, "surroundings": plain(surroundings), "result": plain(result)}
    return json.dumps(document, indent=2)


def plain(value: object) -> Value:
    """Dataclasses and their properties as mappings, everything else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        names += [name for name, member in vars(type(value)).items() if isinstance(member, property)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    assert value is None or isinstance(value, str | int | float), type(value)
    return value


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *padded[1:]]))
    return lines
