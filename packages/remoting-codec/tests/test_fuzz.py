"""Real frames, damaged: whatever comes in, only codec errors come out, soon, and with bounded memory.

Each recorded frame (tests/wire/vectors) is damaged in its bytes or, its lengths kept right, in its ext fields, and then
read as far as a server or a client would read it: frame, declared header, JSON body, batch or stored records.
"""

import json
import random
import signal
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import pytest
from apogeemq.remoting_codec.batch import decode_batch
from apogeemq.remoting_codec.bodies import (
    CheckClientRequestBody,
    HeartbeatData,
    LockBatchRequestBody,
    RegisterBrokerBody,
)
from apogeemq.remoting_codec.client_bodies import ConsumerRunningInfo, QueryAssignmentRequestBody
from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.errors import CodecError
from apogeemq.remoting_codec.framing import FRAME_SIZE_BYTES_MAX, decode_frame, encode_frame
from apogeemq.remoting_codec.headers import REQUEST_HEADERS, RESPONSE_HEADERS
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import decode_records
from apogeemq.remoting_codec.route import TopicRouteData

VECTORS = sorted((Path(__file__).parent / "wire" / "vectors").glob("*.jsonl"))
FRAMES_PER_RUN = 50_000
PIECE = 1_000
HANG_S = 60
MEMORY_PER_FRAME_BYTES_MAX = 1 << 20
"""A recorded frame has at most some 8 KiB; what is read out of it may be a multiple, never another order."""

READERS: dict[int, Callable[[bytes], object]] = {
    RequestCode.HEART_BEAT: HeartbeatData.decode,
    RequestCode.LOCK_BATCH_MQ: LockBatchRequestBody.decode,
    RequestCode.UNLOCK_BATCH_MQ: LockBatchRequestBody.decode,
    RequestCode.CHECK_CLIENT_CONFIG: CheckClientRequestBody.decode,
    RequestCode.QUERY_ASSIGNMENT: QueryAssignmentRequestBody.decode,
    RequestCode.REGISTER_BROKER: RegisterBrokerBody.decode,
    RequestCode.SEND_BATCH_MESSAGE: lambda body: list(decode_batch(body)),
}
"""Bodies of requests."""
ANSWER_READERS: dict[int, Callable[[bytes], object]] = {
    RequestCode.GET_ROUTEINFO_BY_TOPIC: TopicRouteData.decode,
    RequestCode.GET_CONSUMER_RUNNING_INFO: ConsumerRunningInfo.decode,
    RequestCode.PULL_MESSAGE: lambda body: list(decode_records(body)),
    RequestCode.POP_MESSAGE: lambda body: list(decode_records(body)),
    RequestCode.QUERY_MESSAGE: lambda body: list(decode_records(body)),
}
"""Bodies of answers, by the request's code."""


def recorded(without: str = "") -> list[tuple[RemotingCommand, int]]:
    """(command, request code that it is or answers) of all recorded frames that are whole, but for one scenario's."""
    found = []
    for path in VECTORS:
        if path.stem == without:
            continue
        asked: dict[tuple[int, object], int] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            try:
                command = decode_frame(bytes.fromhex(entry["hex"])[4:])
            except CodecError:
                continue
            key = (entry["conn"], command.opaque)
            if not command.is_response:
                asked[key] = command.code
            found.append((command, asked.get(key, -1)))
    return found


def read_all(frame: bytes, request_code: int) -> None:
    """What a peer does with a frame. Errors: CodecError."""
    command = decode_frame(frame)
    if command.is_response:
        header, reader = RESPONSE_HEADERS.get(request_code), ANSWER_READERS.get(request_code)
    else:
        header, reader = REQUEST_HEADERS.get(command.code), READERS.get(command.code)
    if header is not None:
        header.decode(command.ext_fields)
    properties = (command.ext_fields or {}).get("i")
    if properties is not None:
        decode_properties(properties.encode(errors="surrogatepass"))
    if reader is not None and command.body:
        reader(command.body)
    str(command)


def damaged(chance: random.Random, command: RemotingCommand) -> bytes:
    """The frame without its length field, with one to four things wrong."""
    fields = dict(command.ext_fields or {})
    body = command.body
    if fields and chance.random() < 0.4:
        for _ in range(chance.randint(1, 3)):
            name = chance.choice(list(fields))
            fields[name] = chance.choice(ODD_TEXTS)
            if chance.random() < 0.3:
                del fields[name]
                if not fields:
                    break
    if body and chance.random() < 0.4:
        body = flipped(chance, body)
    frame = encode_frame(
        RemotingCommand(
            command.code,
            command.flag,
            command.opaque,
            command.remark,
            fields,
            body,
            command.language,
            command.version,
            command.serialize_type,
        )
    )[4:]
    return flipped(chance, frame) if chance.random() < 0.6 else frame


ODD_TEXTS = [
    "",
    "-1",
    "2147483648",
    "9" * 30,
    "1e5",
    "NaN",
    "true",
    "\x01\x02",
    "\x02\x01\x01",
    "%",
    "💡" * 9,
    "[]",
    "{}",
]


def flipped(chance: random.Random, data: bytes) -> bytes:
    """Bytes changed, cut out, put in, or lengths gone wild."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out))
        match chance.randrange(6):
            case 0:
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                out[at] = chance.choice(b'\x00\xff{}[]",:')
            case 2:
                del out[at : at + chance.randint(1, 8)]
            case 3:
                out[at:at] = chance.randbytes(chance.randint(1, 8))
            case 4:
                out[at : at + 4] = chance.choice([b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff"])
            case _:
                del out[at:]
        if not out:
            return b"\0"
    return bytes(out)


@contextmanager
def no_hang() -> Iterator[None]:
    """Fail when the block does not end: an alarm interrupts even a loop that never gives up control."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"reading {PIECE} frames takes longer than {HANG_S} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def run(frames: int, seed: int) -> Counter[str]:
    """Read that many damaged frames; how many ended how. Anything but a CodecError escapes."""
    chance = random.Random(seed)
    originals = recorded()
    outcomes: Counter[str] = Counter()
    for _ in range(0, frames, PIECE):
        with no_hang():
            for _ in range(PIECE):
                command, request_code = chance.choice(originals)
                frame = damaged(chance, command)
                assert len(frame) < FRAME_SIZE_BYTES_MAX
                try:
                    read_all(frame, request_code)
                except CodecError as error:
                    outcomes[type(error).__name__] += 1
                else:
                    outcomes["read"] += 1
    return outcomes


def test_originals_are_read() -> None:
    """Undamaged, every frame that a client or a server of Apache's wrote is read to its end; refusals lack headers."""
    for command, request_code in recorded(without="errors"):
        if not command.is_response or command.code == 0:
            read_all(encode_frame(command)[4:], request_code)


def test_damaged_frames_raise_only_codec_errors() -> None:
    """50,000 of them; each kind of error was met, and some damage does no harm."""
    outcomes = run(FRAMES_PER_RUN, 20261122)
    assert sum(outcomes.values()) == FRAMES_PER_RUN
    assert set(outcomes) >= {
        "read",
        "FrameInvalid",
        "UnknownSerializeType",
        "HeaderMissing",
        "HeaderInvalid",
        "BodyInvalid",
    }


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_a_million_damaged_frames_raise_only_codec_errors(seed: int) -> None:
    """Ten times 100,000, each run with damage of its own."""
    assert sum(run(100_000, seed).values()) == 100_000


@pytest.mark.parametrize("seed", range(3))
def test_damage_never_makes_memory_grow(seed: int) -> None:
    """No frame, whatever lengths it claims, makes its reader allocate more than a small multiple of what it has."""
    chance = random.Random(seed)
    originals = recorded()
    tracemalloc.start()
    try:
        for _ in range(1_000):
            command, request_code = chance.choice(originals)
            frame = damaged(chance, command)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            with suppress(CodecError):
                read_all(frame, request_code)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < MEMORY_PER_FRAME_BYTES_MAX
    finally:
        tracemalloc.stop()
