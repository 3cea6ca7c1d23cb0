"""`apogeemq-store records DIR`: messages as they lie in the log."""

import argparse
import base64
import sys
from datetime import UTC, datetime

from apogeemq.remoting_codec.message import PROPERTY_KEYS, PROPERTY_TAGS, PROPERTY_UNIQ_KEY, decode_properties
from apogeemq.remoting_codec.message_id import encode_offset_message_id
from apogeemq.remoting_codec.record import Record, format_host
from apogeemq.store.commands.arguments import Subcommands, add_subcommand, open_view
from apogeemq.store.commands.output import Column, Table, Value, time_text, write_fields
from apogeemq.store.commands.progress import progress_of
from apogeemq.store.errors import RecordCorrupt
from apogeemq.store.log_walk import BadRange
from apogeemq.store.record_query import RecordFilter, find_records, offset_of_message_id, record_at
from apogeemq.store.store_view import StoreView

COLUMNS = (
    Column("physicalOffset", 14, is_number=True),
    Column("size", 8, is_number=True),
    Column("topic", 24),
    Column("queueId", 7, is_number=True),
    Column("queueOffset", 11, is_number=True),
    Column("stored", 24),
    Column("tags", 12),
    Column("keys", 0),
)


def add_parser(subcommands: "Subcommands[argparse.ArgumentParser]") -> None:
    """Declare the subcommand."""
    parser = add_subcommand(
        subcommands,
        "records",
        run,
        help_text="list messages as they lie in the log, by offset, topic, key, id or time; or one in full",
        description="List records in the order of the log. All filters must hold. Exit code 1 when damage was met on "
        "the way, or the one record that was asked for is not there. Bodies are left out unless --body is given.",
    )
    parser.add_argument("--offset", type=int, metavar="N", help="one record in full: the one that begins there")
    parser.add_argument("--id", metavar="ID", help="unique key, or offset message id")
    parser.add_argument("--from", dest="begin", type=int, default=0, metavar="N", help="first physical offset")
    parser.add_argument("--to", dest="end", type=int, metavar="N", help="last physical offset")
    parser.add_argument("--topic", help="only this topic")
    parser.add_argument("--queue", type=int, metavar="ID", help="only this queue id")
    parser.add_argument("--key", help="only with this word among their keys")
    parser.add_argument("--from-time", type=time_ms, default=0, metavar="TIME", help="stored then or later")
    parser.add_argument("--to-time", type=time_ms, metavar="TIME", help="stored then or earlier")
    parser.add_argument("--count", type=int, metavar="N", help="stop after so many")
    parser.add_argument("--body", action="store_true", help="with bodies: as text, or as base64 where they are none")


def run(options: argparse.Namespace) -> int:
    """List; return the exit code."""
    with open_view(options) as view:
        if options.offset is not None:
            return _show_one(view, options.offset, options)
        if options.id is not None and (physical_offset := offset_of_message_id(view, options.id)) is not None:
            return _show_one(view, physical_offset, options)
        return _list(view, options)


def _list(view: StoreView, options: argparse.Namespace) -> int:
    wanted = RecordFilter(
        physical_offset_min=options.begin,
        physical_offset_max=options.end,
        topic=options.topic,
        queue_id=options.queue,
        key=options.key,
        unique_key=options.id,
        store_timestamp_min_ms=options.from_time,
        store_timestamp_max_ms=options.to_time,
    )
    table = Table(COLUMNS, as_json=options.output == "json")
    code, count = 0, 0
    with progress_of(options, "reading") as progress:
        for found in find_records(view, wanted, on_progress=progress):
            if options.count is not None and count >= options.count:
                break
            if isinstance(found, BadRange):
                sys.stderr.write(f"no records in [{found.start}, {found.end}): {found.problem}\n")
                code = 1
                continue
            count += 1
            table.row(record_values(found, with_body=options.body))
    table.end()
    return code


def _show_one(view: StoreView, physical_offset: int, options: argparse.Namespace) -> int:
    try:
        record, code = record_at(view, physical_offset), 0
    except RecordCorrupt as error:
        sys.stderr.write(f"{error}\n")
        try:
            record, code = record_at(view, physical_offset, check_crc=False), 1
        except RecordCorrupt:
            return 1
    write_fields(record_values(record, with_body=options.body), as_json=options.output == "json")
    return code


def record_values(record: Record, *, with_body: bool) -> dict[str, Value]:
    """A record's fields by RocketMQ's names."""
    properties = decode_properties(record.properties)
    values: dict[str, Value] = {
        "physicalOffset": record.physical_offset,
        "size": record.size_bytes,
        "topic": record.topic,
        "queueId": record.queue_id,
        "queueOffset": record.queue_offset,
        "stored": time_text(record.store_timestamp_ms),
        "storeTimestamp": record.store_timestamp_ms,
        "tags": properties.get(PROPERTY_TAGS),
        "keys": properties.get(PROPERTY_KEYS),
        "uniqueKey": properties.get(PROPERTY_UNIQ_KEY),
        "offsetMessageId": encode_offset_message_id(record.store_host, record.physical_offset),
        "bornTimestamp": record.born_timestamp_ms,
        "bornHost": format_host(record.born_host),
        "storeHost": format_host(record.store_host),
        "flag": record.flag,
        "sysFlag": record.sys_flag,
        "reconsumeTimes": record.reconsume_times,
        "preparedTransactionOffset": record.prepared_transaction_offset,
        "bodyCRC": record.body_crc,
        "bodySize": len(record.body),
        "properties": properties,
    }
    if with_body:
        try:
            values["body"] = record.body.decode()
        except UnicodeDecodeError:
            values["bodyBase64"] = base64.b64encode(record.body).decode()
    return values


def time_ms(text: str) -> int:
    """Milliseconds since 1970, or ISO 8601 (UTC unless it says otherwise). Errors: ArgumentTypeError."""
    if text.isdecimal():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, such as 2026-11-22T14:13:41") from error
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
