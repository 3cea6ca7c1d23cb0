"""`apogeemq decode`: show what clients and servers said to each other, from a capture.

On stdout one block of text for each frame, or one JSON object a line with `-o json`. Message bodies are never shown,
credentials neither. Exit codes: 0 everything was read, 1 the capture ends early or has bytes that are no frame (what
came before is shown), 2 wrong arguments or no such file.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import msgspec
from apogeemq.remoting_codec.capture import CaptureInvalid, ShownFrame, ShownMessage, read_capture

CAPTURE_SIZE_BYTES_MAX = 1 << 30
"""A larger capture is refused: it is read into memory."""


def add_parser(subcommands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subcommands.add_parser(
        "decode",
        help="show the Remoting frames of a capture",
        description="Show the Remoting frames of a capture: the raw bytes of one direction of a connection, the same "
        "in hex, or JSON lines with the member hex (and conn, dir: then answers are matched with their requests).",
    )
    parser.add_argument("capture", metavar="FILE", help="the capture; - reads stdin")
    parser.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="for people, or one JSON object a line"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Decode; return the exit code."""
    try:
        data = _read(options.capture)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"apogeemq decode: {error}\n")
        return 2
    try:
        return _write(data, sys.stdout, as_json=options.output == "json")
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _read(name: str) -> bytes:
    """The capture. Errors: OSError; ValueError when it is too large."""
    if name == "-":
        data = sys.stdin.buffer.read(CAPTURE_SIZE_BYTES_MAX + 1)
    else:
        with Path(name).open("rb") as file:
            data = file.read(CAPTURE_SIZE_BYTES_MAX + 1)
    if len(data) > CAPTURE_SIZE_BYTES_MAX:
        raise ValueError(f"{name} has more than {CAPTURE_SIZE_BYTES_MAX} bytes: cut the capture between two frames")
    return data


def _write(data: bytes, out: TextIO, *, as_json: bool) -> int:
    try:
        for frame in read_capture(data):
            out.write(msgspec.json.encode(frame).decode() if as_json else "\n".join(_lines(frame)))
            out.write("\n")
    except CaptureInvalid as error:
        out.flush()
        sys.stderr.write(f"apogeemq decode: {error}\n")
        return 1
    out.flush()
    return 0


def _lines(frame: ShownFrame) -> Iterator[str]:
    """A frame for people."""
    direction = f"{frame.direction}  " if frame.direction else ""
    yield (
        f"#{frame.number} at {frame.position}  {direction}{frame.kind} {frame.code} {frame.name}  "
        f"opaque {frame.opaque}  {frame.language} {frame.version}"
    )
    if frame.remark:
        yield f"    remark   {_one_line(frame.remark)}"
    for problem in frame.problems:
        yield f"    PROBLEM  {_one_line(problem)}"
    if frame.header:
        yield f"    header   {frame.header}"
    for name, value in frame.fields.items():
        yield f"        {_one_line(name)} = {_one_line(value)}"
    if frame.body_size_bytes:
        yield f"    body     {frame.body_size_bytes} bytes"
    if frame.body is not None:
        yield f"        {msgspec.json.encode(frame.body).decode()}"
    for message in frame.messages:
        yield f"        {_message(message)}"


def _message(message: ShownMessage) -> str:
    where = ""
    if message.topic:
        where = f"{message.topic} {message.queue_id}, offset {message.queue_offset}, at {message.physical_offset}: "
    properties = " ".join(f"{name}={_one_line(value)}" for name, value in message.properties.items())
    return f"{where}{message.body_size_bytes} bytes  {properties}"


def _one_line(text: str) -> str:
    """Text with control characters, as property separators are, made visible: a capture must not write to a terminal
    what a peer made up.
    """
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
