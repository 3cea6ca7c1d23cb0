"""`apogeemq-store repair DIR`: making a damaged store open again, with copies of all that goes."""

import argparse
import sys
from datetime import UTC, datetime

from apogeemq.store.commands.arguments import Subcommands, add_subcommand, open_view
from apogeemq.store.commands.output import Column, Table, write_json
from apogeemq.store.commands.progress import progress_of
from apogeemq.store.repair import apply_repair
from apogeemq.store.repair_plan import (
    CutLog,
    FillRange,
    LowerFlushedOffset,
    RepairMode,
    RepairStep,
    RestoreConfig,
    Unrepairable,
    describe_step,
    plan_repair,
)
from apogeemq.store.store_view import StoreView

_LOST_COLUMNS = (Column("topic", 32), Column("queueId", 7, is_number=True), Column("lost", 0))
_KINDS = {
    CutLog: "cut",
    FillRange: "fill",
    LowerFlushedOffset: "lowerFlushedOffset",
    RestoreConfig: "restoreConfig",
    Unrepairable: "unrepairable",
}


def add_parser(subcommands: "Subcommands[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = add_subcommand(
        subcommands,
        "repair",
        run,
        help_text="make a damaged store open again: cut or skip damage in the log, restore config from its backup",
        description="Make a store open again whose log or config is damaged. What is cut or overwritten is copied to "
        "DIR/repair-<time>/ first. A replica or a backup is better than any repair. Exit code 1 when something is left "
        "that cannot be repaired, or with --dry-run when there is something to repair.",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--truncate",
        action="store_const",
        dest="mode",
        const=RepairMode.TRUNCATE,
        help="end the log before the first damage: all behind it is lost, and the log is as after a crash",
    )
    mode.add_argument(
        "--skip",
        action="store_const",
        dest="mode",
        const=RepairMode.SKIP,
        help="replace damaged ranges by records that stand for nothing: only these messages are lost",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace) -> int:
    """Repair; return the exit code."""
    with open_view(options, exclusive=not options.dry_run) as view:
        mode = options.mode or RepairMode.SKIP
        with progress_of(options, "looking for damage") as progress:
            steps = plan_repair(view, mode, on_progress=progress)
        _show(view, steps, as_json=options.output == "json")
        to_do = [step for step in steps if not isinstance(step, Unrepairable)]
        left = len(to_do) < len(steps)
        if options.dry_run or not to_do:
            return 1 if steps else 0
        changes_log = any(not isinstance(step, RestoreConfig) for step in to_do)
        if changes_log and options.mode is None:
            sys.stderr.write("choose --skip or --truncate; --dry-run with each says what it costs\n")
            return 2
        if not options.yes and not _is_confirmed():
            sys.stderr.write("nothing was changed\n")
            return 2
        copies = view.directory / f"repair-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        apply_repair(view, to_do, copies)
    sys.stderr.write(f"done; what was there before lies in {copies}\n" if copies.exists() else "done\n")
    return 1 if left else 0


def _is_confirmed() -> bool:
    if not sys.stdin.isatty():
        sys.stderr.write("--yes is needed where nobody can be asked\n")
        return False
    sys.stderr.write("do it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _show(view: StoreView, steps: list[RepairStep], *, as_json: bool) -> None:
    if not as_json and not steps:
        sys.stdout.write("nothing to repair\n")
    for step in steps:
        lost = step.lost if isinstance(step, CutLog) else {}
        if as_json:
            write_json(
                {
                    "step": _KINDS[type(step)],
                    "text": describe_step(view, step),
                    "lost": {f"{topic} {queue_id}": str(count) for (topic, queue_id), count in sorted(lost.items())},
                }
            )
            continue
        sys.stdout.write(describe_step(view, step) + "\n")
        table = Table(_LOST_COLUMNS, as_json=False)
        for (topic, queue_id), count in sorted(lost.items()):
            table.row({"topic": topic, "queueId": queue_id, "lost": count})
