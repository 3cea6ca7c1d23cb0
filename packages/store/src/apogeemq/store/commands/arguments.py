"""Arguments that subcommands share, and opening a directory as they say."""

import argparse
from collections.abc import Callable
from pathlib import Path

from apogeemq.store.delivery_times import DEFAULT_DELAY_LEVELS, tags_code_rule
from apogeemq.store.recovery import RedispatchTagsCode
from apogeemq.store.store_layout import INDEX_ENTRIES_MAX, INDEX_SLOTS
from apogeemq.store.store_view import StoreView

Subcommands = argparse._SubParsersAction  # noqa: SLF001 — argparse has no public name for what add_subparsers returns

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def add_subcommand(
    subcommands: "Subcommands[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help_text: str,
    description: str,
) -> argparse.ArgumentParser:
    """A subcommand with the arguments that all have."""
    parser = subcommands.add_parser(name, help=help_text, description=description)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the store: what has commitlog/ in it")
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "json"),
        default="table",
        help="for people, or JSON lines: one object a line, also when there is only one (default: %(default)s)",
    )
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="on standard error (default: if that is a terminal)",
    )
    sizes = parser.add_argument_group("sizes that the files were made with (default: found out from the files)")
    sizes.add_argument("--commit-log-file-size", type=size, default=0, metavar="BYTES", help="mappedFileSizeCommitLog")
    sizes.add_argument(
        "--consume-queue-file-size", type=size, default=0, metavar="BYTES", help="mappedFileSizeConsumeQueue"
    )
    sizes.add_argument(
        "--max-message-size",
        type=size,
        default=4 << 20,
        metavar="BYTES",
        help="maxMessageSize; a larger record is taken for damage (default: 4M)",
    )
    sizes.add_argument(
        "--index-slots", type=size, default=INDEX_SLOTS, metavar="N", help="maxHashSlotNum (default: 5 million)"
    )
    sizes.add_argument(
        "--index-entries", type=size, default=INDEX_ENTRIES_MAX, metavar="N", help="maxIndexNum (default: 20 million)"
    )
    parser.set_defaults(run=run)
    return parser


def add_delay_levels(parser: argparse.ArgumentParser) -> None:
    """For subcommands that have to know when delayed messages are due."""
    parser.add_argument(
        "--delay-levels",
        type=_delay_levels,
        default=DEFAULT_DELAY_LEVELS,
        metavar="LEVELS",
        help="messageDelayLevel of the broker (default: %(default)s)",
    )


def open_view(options: argparse.Namespace, *, exclusive: bool = False) -> StoreView:
    """The directory, for looking, or exclusively for a command that changes it. Errors: as StoreView.open."""
    return StoreView.open(
        options.directory,
        commit_log_file_size_bytes=options.commit_log_file_size,
        consume_queue_file_size_bytes=options.consume_queue_file_size,
        index_slots=options.index_slots,
        index_entries_max=options.index_entries,
        message_size_bytes_max=options.max_message_size,
        exclusive=exclusive,
    )


def tags_code_of(options: argparse.Namespace) -> RedispatchTagsCode:
    """The rule by which units are checked and built."""
    return tags_code_rule(options.delay_levels)


def size(text: str) -> int:
    """A number of bytes; K, M and G are powers of 1024. Errors: ArgumentTypeError."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isdecimal() or unit not in _UNITS or not int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 4096 or 64M")
    return int(number) * _UNITS[unit]


def _delay_levels(text: str) -> str:
    try:
        tags_code_rule(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
