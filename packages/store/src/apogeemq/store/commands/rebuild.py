"""`apogeemq-store rebuild DIR`: what is derived from the log, built anew."""

import argparse
import time
from pathlib import Path

from apogeemq.store.commands.arguments import Subcommands, add_delay_levels, add_subcommand, open_view, tags_code_of
from apogeemq.store.commands.output import write_fields
from apogeemq.store.commands.progress import progress_of
from apogeemq.store.rebuild import rebuild_index, rebuild_queues


def add_parser(subcommands: "Subcommands[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = add_subcommand(
        subcommands,
        "rebuild",
        run,
        help_text="build consume queues and index anew from the log, in place or into another directory",
        description="Build consume queues and index anew from the log, which is not touched. Interrupted, the old ones "
        "stay, or the next opening of the store puts the new ones in place.",
    )
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="build there, and leave the store as it is (default: replace its own)"
    )
    parser.add_argument(
        "--only",
        choices=("consumequeue", "index"),
        help="leave the other (default: both; the index where there is one)",
    )
    add_delay_levels(parser)


def run(options: argparse.Namespace) -> int:
    """Rebuild; return the exit code."""
    as_json = options.output == "json"
    with open_view(options, exclusive=options.to is None) as view:
        if options.only != "index":
            with progress_of(options, "building consume queues") as progress:
                report = rebuild_queues(
                    view, tags_code_of=tags_code_of(options), target=options.to, on_progress=progress
                )
            write_fields(
                {
                    "queues": report.queues,
                    "units": report.units,
                    "emptyQueuesKept": report.kept_ends,
                    "irregularRecords": report.irregular_records,
                    "logEnd": report.log_end,
                },
                as_json=as_json,
            )
        if options.only == "index" or (options.only is None and view.layout.has_index):
            with progress_of(options, "building the index") as progress:
                records = rebuild_index(
                    view, now_ms=lambda: time.time_ns() // 1_000_000, target=options.to, on_progress=progress
                )
            write_fields({"indexedRecords": records}, as_json=as_json)
    return 0
