"""`apogeemq-store check DIR`: everything that can be verified, and what to do about what is wrong."""

import argparse
import sys

from apogeemq.store.commands.arguments import Subcommands, add_delay_levels, add_subcommand, open_view, tags_code_of
from apogeemq.store.commands.output import size_text, time_text, write_json
from apogeemq.store.commands.progress import progress_of
from apogeemq.store.finding import Finding
from apogeemq.store.store_check import CheckSummary, StoreCheck


def add_parser(subcommands: "Subcommands[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = add_subcommand(
        subcommands,
        "check",
        run,
        help_text="verify every record, every unit of the consume queues, checkpoint and config; changes nothing",
        description="Verify a store and say what is wrong, where, and what to do. Changes nothing. Exit code 0 when "
        "nothing is wrong (notes do not count), 1 when something is.",
    )
    parser.add_argument(
        "--max-findings",
        type=int,
        default=1000,
        metavar="N",
        help="print so many at most; all are counted (default: %(default)s)",
    )
    add_delay_levels(parser)


def run(options: argparse.Namespace) -> int:
    """Check; return the exit code."""
    as_json = options.output == "json"
    with open_view(options) as view, progress_of(options, "checking") as progress:
        check = StoreCheck(view, tags_code_of=tags_code_of(options), on_progress=progress)
        for number, finding in enumerate(check):
            if number < options.max_findings:
                _write_finding(finding, as_json=as_json)
    _write_summary(check.summary, as_json=as_json)
    return 0 if check.summary.is_fine else 1


def _write_finding(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "type": "finding",
                "severity": finding.severity.value,
                "file": str(finding.file),
                "position": finding.position,
                "physicalOffset": finding.physical_offset,
                "expected": finding.expected,
                "found": finding.found,
                "advice": finding.advice,
            }
        )
    else:
        sys.stdout.write(f"{finding}\n")


def _write_summary(summary: CheckSummary, *, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "type": "summary",
                "fine": summary.is_fine,
                "clean": summary.is_clean,
                "minOffset": summary.log_min_offset,
                "endOffset": summary.log_end,
                "records": summary.records,
                "recordBytes": summary.record_bytes,
                "messages": summary.messages,
                "topics": summary.topics,
                "queues": summary.queues,
                "indexEntries": summary.index_entries,
                "storeTimestampMin": summary.store_timestamp_min_ms,
                "storeTimestampMax": summary.store_timestamp_max_ms,
                "damages": summary.damages,
                "deriveds": summary.deriveds,
                "notes": summary.notes,
            }
        )
        return
    first, last = time_text(summary.store_timestamp_min_ms), time_text(summary.store_timestamp_max_ms)
    write = sys.stdout.write
    write(f"{summary.records} records, {summary.messages} of them messages of ")
    write(f"{summary.queues} queues of {summary.topics} topics; {size_text(summary.record_bytes)}, ")
    write(f"physical offsets {summary.log_min_offset} to {summary.log_end}\n")
    if summary.records:
        write(f"stored between {first} and {last}\n")
    write(f"{'fine' if summary.is_fine else 'NOT fine'}: {summary.damages} damages, ")
    write(f"{summary.deriveds} in what can be built anew, {summary.notes} notes\n")
