"""`apogeemq-store rebuild DIR`: what is derived from the log, built anew."""

import argparse
from pathlib import Path

from apogeemq.store.commands.arguments import Subcommands, add_delay_levels, add_subcommand, open_view, tags_code_of
from apogeemq.store.commands.output import write_fields
from apogeemq.store.commands.progress import progress_of
from apogeemq.store.rebuild import rebuild_queues


def add_parser(subcommands: "Subcommands[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = add_subcommand(
        subcommands,
        "rebuild",
        run,
        help_text="build consume queues anew from the log, in place or into another directory",
        description="Build consume queues anew from the log alone. The log is not touched. Interrupted, the old ones "
        "stay, or the next opening of the store puts the new ones in place.",
    )
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="build there, and leave the store as it is (default: replace its own)"
    )
    add_delay_levels(parser)


def run(options: argparse.Namespace) -> int:
    """Rebuild; return the exit code."""
    with open_view(options, exclusive=options.to is None) as view, progress_of(options, "rebuilding") as progress:
        report = rebuild_queues(view, tags_code_of=tags_code_of(options), target=options.to, on_progress=progress)
    write_fields(
        {
            "queues": report.queues,
            "units": report.units,
            "emptyQueuesKept": report.kept_ends,
            "irregularRecords": report.irregular_records,
            "logEnd": report.log_end,
        },
        as_json=options.output == "json",
    )
    return 0
