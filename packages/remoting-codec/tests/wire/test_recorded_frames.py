"""Frames recorded between a real Apache RocketMQ 5.3.3 and its Java clients: decoded, encoded to the same bytes.

Each line of wire/vectors/*.jsonl is a frame with what it decodes to. Responses are paired with their requests by
(connection, opaque) to know which header they carry.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from apogeemq.remoting_codec.codes import SerializeType
from apogeemq.remoting_codec.command import RemotingCommand, request_code_not_supported
from apogeemq.remoting_codec.connection import Connection
from apogeemq.remoting_codec.errors import HeaderMissing
from apogeemq.remoting_codec.framing import decode_frame, encode_frame
from apogeemq.remoting_codec.headers import REQUEST_HEADERS, RESPONSE_HEADERS, CommandHeader

SCENARIOS = sorted((Path(__file__).parent / "vectors").glob("*.jsonl"))


@dataclass(frozen=True)
class Recorded:
    """One recorded frame."""

    scenario: str
    line: int
    connection: int
    direction: str
    header: dict[str, object]
    frame: bytes

    def __str__(self) -> str:
        return f"{self.scenario}:{self.line}"

    @property
    def handmade(self) -> bool:
        """Requests of the scenario `errors` were written with json.dumps, not by a RocketMQ client."""
        return self.scenario == "errors" and self.direction == "c>s"


def read(path: Path) -> Iterator[Recorded]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        entry = json.loads(line)
        frame = bytes.fromhex(entry["hex"])
        yield Recorded(path.stem, number, entry["conn"], entry["dir"], entry["header"], frame)


FRAMES = [recorded for path in SCENARIOS for recorded in read(path)]


def test_scenarios_are_there() -> None:
    """Every scenario whose codes this package declares was copied, frames and all."""
    assert {path.stem for path in SCENARIOS} == {
        "admin",
        "binary_consumer_offset",
        "binary_route",
        "binary_send_v2",
        "consumer_offset",
        "errors",
        "filter_sql",
        "heartbeat",
        "lock_unlock",
        "pop",
        "pull",
        "query_view",
        "recall",
        "running_info",
        "route",
        "send_back",
        "send_batch",
        "send_oneway",
        "send_v1",
        "send_v2",
        "transaction",
        "unregister",
    }
    assert len(FRAMES) > 350


@pytest.mark.parametrize("recorded", FRAMES, ids=str)
def test_decodes_to_what_was_recorded(recorded: Recorded) -> None:
    """Every header field has the value that the recording gives."""
    command = decode_frame(recorded.frame[4:])
    header = recorded.header
    ext_fields = header.get("extFields")
    assert command.code == header["code"]
    assert command.flag == header["flag"]
    assert command.opaque == header["opaque"]
    assert command.language == header["language"]
    assert command.version == header["version"]
    assert command.remark == header.get("remark")
    if command.serialize_type == SerializeType.ROCKETMQ:
        ext_fields = ext_fields or None  # the binary form has no empty map
    assert command.ext_fields == ext_fields
    header_size = int.from_bytes(recorded.frame[5:8], "big")
    assert command.body == recorded.frame[8 + header_size :]


@pytest.mark.parametrize("recorded", [r for r in FRAMES if not r.handmade], ids=str)
def test_encodes_to_the_recorded_bytes(recorded: Recorded) -> None:
    """What a RocketMQ client or server wrote is written again byte for byte."""
    assert encode_frame(decode_frame(recorded.frame[4:])) == recorded.frame


@pytest.mark.parametrize("recorded", [r for r in FRAMES if r.handmade], ids=str)
def test_handmade_requests_keep_their_meaning(recorded: Recorded) -> None:
    """A header with blanks and another key order encodes to Apache's form with the same meaning."""
    command = decode_frame(recorded.frame[4:])
    assert decode_frame(encode_frame(command)[4:]) == command


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_whole_recording_passes_through_a_connection(path: Path) -> None:
    """All frames of a file in one stream give the commands that they give one by one."""
    frames = [recorded.frame for recorded in read(path)]
    connection: Connection[None] = Connection()
    assert connection.receive_data(b"".join(frames)) == [decode_frame(frame[4:]) for frame in frames]


# -- headers

# Ext fields that stand beside a declared header: hooks and answers without a header class add them.
BESIDE_HEADERS = {"_UNIQUE_KEY_QUERY", "IS_SUB_CHANGE", "IS_SUPPORT_HEART_BEAT_V2", "MSG_REGION", "ReqT", "TRACE_ON"}


def requests_by_connection() -> dict[tuple[str, int, object], RemotingCommand]:
    return {
        (r.scenario, r.connection, r.header["opaque"]): decode_frame(r.frame[4:])
        for r in FRAMES
        if r.direction == "c>s" and not decode_frame(r.frame[4:]).is_response
    }


REQUESTS = requests_by_connection()


def header_class(recorded: Recorded, command: RemotingCommand) -> type[CommandHeader] | None:
    """The declared header of a recorded command, as far as its request is known and has one."""
    if not command.is_response:
        return REQUEST_HEADERS.get(command.code)
    request = REQUESTS.get((recorded.scenario, recorded.connection, command.opaque))
    return None if request is None else RESPONSE_HEADERS.get(request.code)


def with_declared_header() -> list[tuple[Recorded, RemotingCommand, type[CommandHeader]]]:
    """Every recorded command with a header: not those of errors.jsonl, and no refusals, which carry none."""
    found = []
    for recorded in FRAMES:
        command = decode_frame(recorded.frame[4:])
        cls = header_class(recorded, command)
        refusal = command.is_response and command.code != 0 and not declared_part(command)
        if cls is not None and not recorded.handmade and not refusal:
            found.append((recorded, command, cls))
    return found


def declared_part(command: RemotingCommand) -> dict[str, str]:
    return {name: value for name, value in (command.ext_fields or {}).items() if name not in BESIDE_HEADERS}


@pytest.mark.parametrize(("recorded", "command", "cls"), with_declared_header(), ids=lambda value: str(value)[:40])
def test_declared_header_encodes_to_the_recorded_ext_fields(
    recorded: Recorded, command: RemotingCommand, cls: type[CommandHeader]
) -> None:
    """Through its declared class every header comes back as recorded, apart from the fields named above."""
    assert cls.decode(command.ext_fields).encode() == declared_part(command)


def test_every_declared_request_of_the_recordings_was_checked() -> None:
    """The recordings reach all request codes with a header except those that were never recorded: replies, resets of
    offsets told to clients, one group's settings, lite pulls, notifications and lite topics."""
    seen = {command.code for _, command, _ in with_declared_header() if not command.is_response}
    assert set(REQUEST_HEADERS) - seen == {220, 324, 325, 326, 352, 361, 200054, 200055, 200070, 200071, 200073}


@pytest.mark.parametrize(("line", "field"), [(7, "consumerGroup"), (9, "topic")], ids=["pull", "route"])
def test_recorded_requests_without_fields_name_the_field(line: int, field: str) -> None:
    """Where Apache answers with a Java exception's text, the missing field has a name here."""
    recorded = next(r for r in FRAMES if r.scenario == "errors" and r.line == line)
    command = decode_frame(recorded.frame[4:])
    with pytest.raises(HeaderMissing, match=f"<{field}>"):
        REQUEST_HEADERS[command.code].decode(command.ext_fields)


def test_unknown_code_is_answered_as_recorded() -> None:
    """A request code that nobody serves gets Apache's answer, but for the sender's language."""
    request, answer = (decode_frame(r.frame[4:]) for r in FRAMES if r.scenario == "errors" and r.line in (1, 2))
    ours = request_code_not_supported(request)
    assert (ours.language, answer.language) == ("PYTHON", "JAVA")
    assert msgspec.structs.replace(ours, language="JAVA") == answer
