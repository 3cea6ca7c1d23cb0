"""`apogeemq-store convert DIR --to java|apogeemq`: ready for the other broker."""

import argparse
import sys
import time

from apogeemq.store.commands.arguments import Subcommands, add_delay_levels, add_subcommand, open_view, tags_code_of
from apogeemq.store.commands.output import write_json
from apogeemq.store.commands.progress import progress_of
from apogeemq.store.convert import Target, convert, describe_conversion, notes_for


def add_parser(subcommands: "Subcommands[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = add_subcommand(
        subcommands,
        "convert",
        run,
        help_text="recover a directory and make it ready for a Java broker, or for ours",
        description="Recover a directory as an opening would, and leave it as after an orderly stop. For Java also "
        "the checkpoint is written in Java's meaning. Says what the other broker has to be told or will not see.",
    )
    parser.add_argument(
        "--to", required=True, choices=[target.value for target in Target], help="whose broker opens it next"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    add_delay_levels(parser)


def run(options: argparse.Namespace) -> int:
    """Convert; return the exit code."""
    target = Target(options.to)
    as_json = options.output == "json"
    with open_view(options) as view:
        layout, steps = view.layout, describe_conversion(view, target)
    if options.dry_run:
        _write(steps, list(notes_for(options.directory, layout, target)), as_json=as_json)
        return 0
    with progress_of(options, "recovering") as progress:
        report = convert(
            options.directory,
            layout,
            target,
            message_size_bytes_max=options.max_message_size,
            tags_code_of=tags_code_of(options),
            now_ms=lambda: time.time_ns() // 1_000_000,
            on_progress=progress,
        )
    recovery = report.recovery
    done = [f"read {recovery.scanned_bytes} bytes of the log, built {recovery.queue_units_rebuilt} consume-queue units"]
    if recovery.dropped_bytes:
        done.append(f"cut {recovery.dropped_bytes} bytes of a torn tail at physical offset {recovery.truncated_at}")
    _write(done, report.notes, as_json=as_json)
    return 0


def _write(steps: list[str], notes: list[str], *, as_json: bool) -> None:
    if as_json:
        write_json({"steps": steps, "notes": notes})
        return
    for step in steps or ["nothing to do"]:
        sys.stdout.write(f"{step}\n")
    for note in notes:
        sys.stdout.write(f"note: {note}\n")
