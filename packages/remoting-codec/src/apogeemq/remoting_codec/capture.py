"""Reading captures: the bytes of one or both directions of a connection, taken apart into commands that can be shown.

A capture is one of
```
raw bytes        one direction, as tcpflow or `socat -r` write it
hex text         the same as hex digits, white space anywhere
JSON lines       {"hex": frame, "conn": any, "dir": "c>s" | "s>c", …} a line: both directions, in order
```
Only in the last one can an answer be matched with its request, and hence its header and body be named.
Source: remoting.md §1, §2; the JSON lines are those of this project's recordings.
"""

import json
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from apogeemq.remoting_codec import bodies, client_bodies
from apogeemq.remoting_codec.acl_signature import CREDENTIALS
from apogeemq.remoting_codec.batch import decode_batch
from apogeemq.remoting_codec.codes import RequestCode, request_code_name, response_code_name
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.fastjson import loads
from apogeemq.remoting_codec.framing import FRAME_SIZE_BYTES_MAX, LENGTH_SIZE_BYTES, decode_frame
from apogeemq.remoting_codec.headers import REQUEST_HEADERS, RESPONSE_HEADERS
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import decode_records, format_host

_HEX_DIGITS: Final = frozenset(b"0123456789abcdefABCDEF \t\r\n")
_REQUESTS_OPEN_MAX: Final = 100_000
"""Requests without an answer that are remembered; a capture of oneway calls only must not fill the memory."""


class ShownMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message in a body; its own body only as a size."""

    topic: str = ""
    queue_id: int | None = None
    queue_offset: int | None = None
    physical_offset: int | None = None
    born_host: str = ""
    properties: dict[str, str] = {}
    body_size_bytes: int = 0


class ShownFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One frame of a capture, for people and for JSON."""

    number: int
    """From 1."""
    position: int
    """Where it begins in its stream, in bytes; in JSON lines: the number of the line."""
    direction: str = ""
    kind: str
    """request, oneway or response."""
    code: int
    name: str
    """Apache's name of the code; of a response also that of its request, where it is known."""
    opaque: int
    version: int
    language: str
    header: str = ""
    """The declared header's class."""
    fields: dict[str, str] = {}
    """Ext fields; credentials are replaced by ***."""
    remark: str = ""
    body_size_bytes: int = 0
    body: object = None
    """JSON bodies as a value."""
    messages: list[ShownMessage] = []
    problems: list[str] = []
    """What in header or body is not as its declaration says."""


class CaptureInvalid(CodecError):  # noqa: N818 — as the other errors of this package
    """From `position` on (a byte, or a line) the capture holds no frames; `reason` says why."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"at {position}: {reason}")
        self.position = position
        self.reason = reason


def read_capture(data: bytes) -> Iterator[ShownFrame]:
    """The frames of a capture. Errors, after those that could be read: CaptureInvalid."""
    start = data.lstrip()[:1]
    if start == b"{":
        return _shown(_frames_of_lines(data))
    if start and _HEX_DIGITS.issuperset(data):
        try:
            data = bytes.fromhex(data.decode())
        except ValueError as error:
            raise CaptureInvalid(len(data), "an odd number of hex digits") from error
    return _shown(_frames_of_stream(data))


class _Taken(msgspec.Struct):
    """A frame without its length field, and where it was."""

    position: int
    frame: bytes
    connection: object = None
    direction: str = ""


def _frames_of_stream(data: bytes) -> Iterator[_Taken]:
    at = 0
    while at < len(data):
        size_bytes = int.from_bytes(data[at : at + LENGTH_SIZE_BYTES], "big")
        end = at + LENGTH_SIZE_BYTES + size_bytes
        if at + LENGTH_SIZE_BYTES <= len(data) and size_bytes > FRAME_SIZE_BYTES_MAX:
            raise CaptureInvalid(at, f"{size_bytes} is above {FRAME_SIZE_BYTES_MAX}, the largest size of a frame")
        if end > len(data):
            raise CaptureInvalid(at, f"the capture ends within a frame, after {len(data) - at} bytes of it")
        yield _Taken(at, data[at + LENGTH_SIZE_BYTES : end])
        at = end


def _frames_of_lines(data: bytes) -> Iterator[_Taken]:
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            frame = bytes.fromhex(entry["hex"])
        except (ValueError, KeyError, TypeError) as error:
            raise CaptureInvalid(number, 'the line is no JSON object with a member "hex"') from error
        yield _Taken(number, frame[LENGTH_SIZE_BYTES:], str(entry.get("conn", "")), str(entry.get("dir", "")))


def _shown(taken: Iterator[_Taken]) -> Iterator[ShownFrame]:
    requests: dict[tuple[object, str, int], int] = {}
    for number, one in enumerate(taken, 1):
        try:
            command = decode_frame(one.frame)
        except CodecError as error:
            raise CaptureInvalid(one.position, str(error)) from error
        asked: int | None = None
        if command.is_response:
            asked = requests.pop((one.connection, _other(one.direction), command.opaque), None)
        elif not command.is_oneway and len(requests) < _REQUESTS_OPEN_MAX:
            requests[one.connection, one.direction, command.opaque] = command.code
        yield _show(number, one, command, asked)


def _other(direction: str) -> str:
    return direction[::-1].replace("<", ">") if ">" in direction else direction


def _show(number: int, taken: _Taken, command: RemotingCommand, asked: int | None) -> ShownFrame:
    request_code = asked if command.is_response else command.code
    name = request_code_name(command.code)
    kind = "oneway" if command.is_oneway else "request"
    if command.is_response:
        kind = "response"
        name = response_code_name(command.code)
        if asked is not None:
            name = f"{name} to {request_code_name(asked)}"
    headers = RESPONSE_HEADERS if command.is_response else REQUEST_HEADERS
    header = None if request_code is None else headers.get(request_code)
    fields = command.ext_fields or {}
    problems = []
    is_refusal = command.is_response and command.code != 0
    if header is not None and not is_refusal:
        try:
            header.decode(fields)
        except CodecError as error:
            problems.append(str(error))
    body: object = None
    messages: list[ShownMessage] = []
    if command.body and request_code is not None and not is_refusal:
        try:
            body, messages = _read_body(request_code, command.is_response, command.body)
        except CodecError as error:
            problems.append(f"body: {error}")
    return ShownFrame(
        number=number,
        position=taken.position,
        direction=taken.direction,
        kind=kind,
        code=command.code,
        name=name,
        opaque=command.opaque,
        version=command.version,
        language=command.language,
        header=header.__name__ if header is not None else "",
        fields={key: "***" if key in CREDENTIALS else value for key, value in fields.items()},
        remark=command.remark or "",
        body_size_bytes=len(command.body),
        body=body,
        messages=messages,
        problems=problems,
    )


_RECORDS_IN_ANSWER: Final = frozenset(
    {
        RequestCode.PULL_MESSAGE,
        RequestCode.LITE_PULL_MESSAGE,
        RequestCode.POP_MESSAGE,
        RequestCode.POP_LITE_MESSAGE,
        RequestCode.QUERY_MESSAGE,
        RequestCode.VIEW_MESSAGE_BY_ID,
    }
)
_RECORD_IN_REQUEST: Final = frozenset({RequestCode.CHECK_TRANSACTION_STATE, RequestCode.CONSUME_MESSAGE_DIRECTLY})
_MESSAGE_ITSELF: Final = frozenset(
    {
        RequestCode.SEND_MESSAGE,
        RequestCode.SEND_MESSAGE_V2,
        RequestCode.SEND_REPLY_MESSAGE,
        RequestCode.SEND_REPLY_MESSAGE_V2,
        RequestCode.PUSH_REPLY_MESSAGE_TO_CLIENT,
    }
)
"""Their bodies are what somebody sends: shown by their size only."""

_TYPED: Final[dict[tuple[int, bool], Callable[[bytes], object]]] = {
    (RequestCode.REGISTER_BROKER, False): bodies.RegisterBrokerBody.decode,
    (RequestCode.HEART_BEAT, False): bodies.HeartbeatData.decode,
    (RequestCode.GET_CONSUMER_RUNNING_INFO, True): client_bodies.ConsumerRunningInfo.decode,
}
"""(request code, is the answer) → the reader of bodies that are more than plain JSON, or worth a check."""


def _read_body(request_code: int, is_response: bool, body: bytes) -> tuple[object, list[ShownMessage]]:
    """(JSON value, messages). Errors: CodecError."""
    if request_code in _RECORDS_IN_ANSWER if is_response else request_code in _RECORD_IN_REQUEST:
        return None, [
            ShownMessage(
                topic=record.topic,
                queue_id=record.queue_id,
                queue_offset=record.queue_offset,
                physical_offset=record.physical_offset,
                born_host=format_host(record.born_host),
                properties=decode_properties(record.properties),
                body_size_bytes=len(record.body),
            )
            for record in decode_records(body)
        ]
    if request_code in _MESSAGE_ITSELF:
        return None, []
    if request_code == RequestCode.SEND_BATCH_MESSAGE:
        return None, [
            ShownMessage(properties=decode_properties(message.properties), body_size_bytes=len(message.body))
            for message in decode_batch(body)
        ]
    check = _TYPED.get((request_code, is_response))
    if check is not None:
        check(body)
    if body[:1] not in (b"{", b"["):
        return None, []
    return _plain(loads(body)), []


def _plain(value: object) -> object:
    """Fastjson's object and integer keys as text, so that the value is JSON again."""
    if isinstance(value, dict):
        return {_key_text(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _key_text(key: object) -> str:
    if isinstance(key, str):
        return key
    return str(key) if isinstance(key, int) else json.dumps(dict(key), ensure_ascii=False)  # type: ignore[call-overload]
