"""`apogeemq-store queue DIR`: consume queues, and the units of one."""

import argparse
import sys
from itertools import islice

from apogeemq.store.commands.arguments import Subcommands, add_subcommand, open_view
from apogeemq.store.commands.output import Column, Table, time_text
from apogeemq.store.errors import LayoutInvalid
from apogeemq.store.queue_query import queue_facts, queue_units
from apogeemq.store.store_view import StoreView

_QUEUE_COLUMNS = (
    Column("topic", 32),
    Column("queueId", 7, is_number=True),
    Column("minOffset", 12, is_number=True),
    Column("maxOffset", 12, is_number=True),
    Column("first", 24),
    Column("last", 0),
)
_UNIT_COLUMNS = (
    Column("queueOffset", 12, is_number=True),
    Column("physicalOffset", 14, is_number=True),
    Column("size", 8, is_number=True),
    Column("tagsCode", 0),
)


def add_parser(subcommands: "Subcommands[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = add_subcommand(
        subcommands,
        "queue",
        run,
        help_text="list consume queues with their offsets and times, or the units of one",
        description="List consume queues; with --topic and --queue the units of one. Exit code 1 when files of a "
        "queue are missing.",
    )
    parser.add_argument("--topic", help="only this topic")
    parser.add_argument("--queue", type=int, metavar="ID", help="the units of this queue; needs --topic")
    parser.add_argument("--from", dest="begin", type=int, default=0, metavar="N", help="first queue offset")
    parser.add_argument("--count", type=int, metavar="N", help="stop after so many units")
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """List; return the exit code."""
    if options.queue is not None and options.topic is None:
        options.usage_error("--queue needs --topic")
    with open_view(options) as view:
        return _list_queues(view, options) if options.queue is None else _list_units(view, options)


def _list_queues(view: StoreView, options: argparse.Namespace) -> int:
    table, code = Table(_QUEUE_COLUMNS, as_json=options.output == "json"), 0
    for facts in queue_facts(view):
        if isinstance(facts, LayoutInvalid):
            sys.stderr.write(f"{facts}\n")
            code = 1
        elif options.topic in (None, facts.topic):
            table.row(
                {
                    "topic": facts.topic,
                    "queueId": facts.queue_id,
                    "minOffset": facts.min_offset,
                    "maxOffset": facts.max_offset,
                    "first": time_text(facts.store_timestamp_min_ms),
                    "last": time_text(facts.store_timestamp_max_ms),
                }
            )
    table.end()
    return code


def _list_units(view: StoreView, options: argparse.Namespace) -> int:
    table = Table(_UNIT_COLUMNS, as_json=options.output == "json")
    for unit in islice(queue_units(view, options.topic, options.queue, options.begin), options.count):
        table.row(
            {
                "queueOffset": unit.queue_offset,
                "physicalOffset": unit.physical_offset,
                "size": "padding" if unit.is_padding else unit.size_bytes,
                "tagsCode": unit.tags_code,
            }
        )
    table.end()
    return 0
