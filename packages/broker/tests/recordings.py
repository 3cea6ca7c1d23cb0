"""What Apache RocketMQ 5.3.3 was asked and answered; see vectors/README.md."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.framing import LENGTH_SIZE_BYTES, decode_frame

VECTORS = Path(__file__).parent / "vectors"


class Exchange(NamedTuple):
    """A client's request and the broker's reply to it."""

    connection: int
    request: RemotingCommand
    reply: RemotingCommand


def frames(name: str) -> Iterator[tuple[int, str, RemotingCommand]]:
    """Connection, direction and command of every frame of one recording."""
    with (VECTORS / f"{name}.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            recorded = json.loads(line)
            command = decode_frame(bytes.fromhex(recorded["hex"])[LENGTH_SIZE_BYTES:])
            yield recorded["conn"], recorded["dir"], command


def exchanges(name: str, code: int) -> list[Exchange]:
    """The requests with this code that have their reply in the recording."""
    asked: dict[tuple[int, int], RemotingCommand] = {}
    found = []
    for connection, direction, command in frames(name):
        if direction == "c>s" and not command.is_response:
            asked[connection, command.opaque] = command
        elif direction == "s>c" and command.is_response:
            request = asked.pop((connection, command.opaque), None)
            if request is not None and request.code == code:
                found.append(Exchange(connection, request, command))
    return found
