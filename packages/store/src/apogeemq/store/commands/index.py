"""`apogeemq-store index DIR`: index files, and messages by key."""

import argparse
import sys
from itertools import islice

from apogeemq.store.commands.arguments import Subcommands, add_subcommand, open_view
from apogeemq.store.commands.output import Column, Table, time_text
from apogeemq.store.commands.records import COLUMNS as RECORD_COLUMNS
from apogeemq.store.commands.records import record_values
from apogeemq.store.index_query import find_by_key, index_files
from apogeemq.store.store_view import StoreView

_FILE_COLUMNS = (
    Column("file", 18),
    Column("entries", 10, is_number=True),
    Column("usedSlots", 10, is_number=True),
    Column("beginOffset", 14, is_number=True),
    Column("endOffset", 14, is_number=True),
    Column("begin", 24),
    Column("end", 0),
)


def add_parser(subcommands: "Subcommands[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = add_subcommand(
        subcommands,
        "index",
        run,
        help_text="list index files, or find messages by key through them",
        description="List index files; with --topic and --key the messages that have the key, newest first. Exit code "
        "1 when a file's header does not fit it.",
    )
    parser.add_argument("--topic", help="the topic that the key belongs to; needs --key")
    parser.add_argument("--key", help="a word of KEYS, or a unique key; needs --topic")
    parser.add_argument("--count", type=int, default=64, metavar="N", help="stop after so many (default: %(default)s)")
    parser.add_argument("--body", action="store_true", help="with bodies (JSON only)")
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """List; return the exit code."""
    if (options.topic is None) != (options.key is None):
        options.usage_error("--topic and --key go together")
    with open_view(options) as view:
        return _list_files(view, options) if options.key is None else _find(view, options)


def _list_files(view: StoreView, options: argparse.Namespace) -> int:
    table, code = Table(_FILE_COLUMNS, as_json=options.output == "json"), 0
    for file, is_sane in index_files(view):
        header = file.header
        table.row(
            {
                "file": file.path.name,
                "entries": header.count - 1,
                "usedSlots": header.used_slots,
                "beginOffset": header.begin_physical_offset,
                "endOffset": header.end_physical_offset,
                "begin": time_text(header.begin_timestamp_ms),
                "end": time_text(header.end_timestamp_ms),
            }
        )
        if not is_sane:
            sys.stderr.write(f"{file.path}: the header does not fit the file; apogeemq-store rebuild --only index\n")
            code = 1
    return code


def _find(view: StoreView, options: argparse.Namespace) -> int:
    table = Table(RECORD_COLUMNS, as_json=options.output == "json")
    for record in islice(find_by_key(view, options.topic, options.key), options.count):
        table.row(record_values(record, with_body=options.body))
    table.end()
    return 0
