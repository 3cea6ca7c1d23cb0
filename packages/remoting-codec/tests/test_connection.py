"""The connection without a socket: any split of the stream, bounds, broken frames, requests in flight."""

import random
from collections.abc import Iterator

import pytest
from apogeemq.remoting_codec.codes import RESPONSE_FLAG, SerializeType
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.connection import Connection, ConnectionLimits
from apogeemq.remoting_codec.errors import (
    CodecError,
    FrameInvalid,
    FrameTooLarge,
    LocalProtocolError,
    RemoteProtocolError,
    UnknownSerializeType,
)
from apogeemq.remoting_codec.framing import FRAME_SIZE_BYTES_MAX, decode_frame, encode_frame
from hypothesis import given, settings
from hypothesis import strategies as st

SMALL = ConnectionLimits(frame_size_bytes_max=4096, buffer_size_bytes_min=64, pending_requests_max=3)


def command(opaque: int, body_size_bytes: int = 0, serialize_type: int = SerializeType.JSON) -> RemotingCommand:
    body = b"x" * body_size_bytes
    return RemotingCommand(10, opaque=opaque, ext_fields={"a": "b"}, body=body, serialize_type=serialize_type)


def by_buffer(connection: Connection[str], data: bytes, sizes: Iterator[int]) -> list[RemotingCommand]:
    """Feed data as BufferedProtocol does, in reads of the given sizes (at most what the buffer takes)."""
    commands = []
    while data:
        room = connection.get_buffer(-1)
        size = min(next(sizes), len(room), len(data))
        room[:size] = data[:size]
        data = data[size:]
        commands += connection.buffer_updated(size)
    return commands


def endless(size: int) -> Iterator[int]:
    while True:
        yield size


specs = st.lists(st.tuples(st.integers(0, 700), st.sampled_from(list(SerializeType))), max_size=8)


@given(specs=specs, seed=st.integers(0, 2**32), largest=st.integers(1, 900))
def test_any_split_gives_the_same_commands(specs: list[tuple[int, SerializeType]], seed: int, largest: int) -> None:
    """However the stream is cut into reads, the same commands come out, by either way in."""
    chance = random.Random(seed)
    sent = [command(opaque, size, serialize_type) for opaque, (size, serialize_type) in enumerate(specs)]
    stream = b"".join(map(encode_frame, sent))
    connection: Connection[str] = Connection(SMALL)
    cuts = (chance.randint(1, largest) for _ in endless(0))
    assert by_buffer(connection, stream, cuts) == sent
    assert connection.buffered_size_bytes == 0
    assert connection.frames_in == len(sent)

    other: Connection[str] = Connection(SMALL)
    received = []
    while stream:
        size = chance.randint(1, largest)
        received += other.receive_data(stream[:size])
        stream = stream[size:]
    assert received == sent


def test_all_frames_of_one_read_come_in_one_list() -> None:
    """A server handles everything that one read brought together."""
    frames = [encode_frame(command(i)) for i in range(20)]
    connection: Connection[str] = Connection()
    assert [c.opaque for c in connection.receive_data(b"".join(frames)[:-1])] == list(range(19))
    assert [c.opaque for c in connection.receive_data(frames[-1][-1:])] == [19]


def test_bodies_survive_the_next_read() -> None:
    """A command's body does not change when the buffer is filled again."""
    connection: Connection[str] = Connection(SMALL)
    (first,) = connection.receive_data(encode_frame(command(1, 30)))
    connection.receive_data(b"\x00" * 4 + b"")  # a broken frame, over the place where the body was
    assert first.body == b"x" * 30


# -- bounds


def test_buffer_is_never_empty_and_never_above_the_bound() -> None:
    """While a frame of the largest size arrives byte by byte, there is room, and no more than its size is reserved."""
    connection: Connection[str] = Connection(SMALL)
    overhead = len(encode_frame(command(1)))
    frame = encode_frame(command(1, SMALL.frame_size_bytes_max - overhead))
    assert len(frame) == SMALL.frame_size_bytes_max
    for i in range(len(frame) - 1):
        room = connection.get_buffer(-1)
        assert len(room) > 0
        room[:1] = frame[i : i + 1]
        assert connection.buffer_updated(1) == []
        assert connection.buffer_capacity_bytes <= max(64, min(len(frame), 8 * (i + 1)))
    assert [c.opaque for c in connection.receive_data(frame[-1:])] == [1]


def test_buffer_shrinks_after_a_large_frame() -> None:
    """What a large frame needed is given back at once."""
    connection: Connection[str] = Connection(SMALL)
    connection.receive_data(encode_frame(command(1, 2000)))
    assert connection.buffer_capacity_bytes == 64


@pytest.mark.parametrize("announced", [4096 - 3, 2**24, 0x16030100, 2**31 - 1, 2**32 - 1])
def test_frame_above_the_bound_is_refused_on_its_length(announced: int) -> None:
    """Four bytes are enough to refuse; nothing is reserved. A TLS hello looks like such a length, too."""
    connection: Connection[str] = Connection(SMALL)
    assert connection.receive_data(announced.to_bytes(4, "big")) == []
    assert isinstance(connection.failure, FrameTooLarge)
    assert connection.failure.size_bytes == announced + 4
    assert connection.failure.size_bytes_max == 4096
    assert connection.buffer_capacity_bytes == 64


def test_default_bound_is_apaches() -> None:
    """16 MiB with the length field are taken, one byte more is not."""
    connection: Connection[str] = Connection()
    connection.receive_data((FRAME_SIZE_BYTES_MAX - 4).to_bytes(4, "big"))
    assert connection.failure is None
    connection = Connection()
    connection.receive_data((FRAME_SIZE_BYTES_MAX - 3).to_bytes(4, "big"))
    assert isinstance(connection.failure, FrameTooLarge)


@pytest.mark.parametrize(
    "limits",
    [
        {"frame_size_bytes_max": 7},
        {"frame_size_bytes_max": FRAME_SIZE_BYTES_MAX + 1},
        {"buffer_size_bytes_min": 7},
        {"pending_requests_max": 0},
    ],
    ids=lambda limits: next(iter(limits)),
)
def test_limits_are_checked(limits: dict[str, int]) -> None:
    """Limits that cannot work are refused where they are made."""
    with pytest.raises(ValueError, match=next(iter(limits))):
        ConnectionLimits(**limits)


# -- broken frames


@pytest.mark.parametrize(
    ("broken", "failure"),
    [
        (b"\x00\x00\x00\x03", FrameInvalid),
        (b"\x00\x00\x00\x00", FrameInvalid),
        (b"\x00\x00\x00\x04\x00\x00\x00\x01", FrameInvalid),
        (b"\x00\x00\x00\x06\x02\x00\x00\x02{}", UnknownSerializeType),
        (b"\x00\x00\x00\x06\x00\x00\x00\x02{}", FrameInvalid),
        (b"\xff\xff\xff\xff", FrameTooLarge),
    ],
)
def test_good_commands_before_a_broken_frame_are_returned(broken: bytes, failure: type[RemoteProtocolError]) -> None:
    """The failure is remembered, raised by every later call, and nothing after it is read."""
    connection: Connection[str] = Connection(SMALL)
    good = encode_frame(command(1)) + encode_frame(command(2))
    received = connection.receive_data(good + broken + encode_frame(command(3)))
    assert [c.opaque for c in received] == [1, 2]
    assert type(connection.failure) is failure
    for _ in range(2):
        with pytest.raises(failure):
            connection.receive_data(encode_frame(command(4)))
        with pytest.raises(failure):
            connection.buffer_updated(0)
    assert len(connection.get_buffer(-1)) > 0


def mutate(chance: random.Random, frame: bytes) -> bytes:
    """One of the things that go wrong with bytes: flips, cuts, repeats, wild lengths."""
    data = bytearray(frame)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(5):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.randrange(256)
            case 2:
                del data[at : at + chance.randint(1, 8)]
            case 3:
                data[at:at] = chance.randbytes(chance.randint(1, 8))
            case _:
                data[chance.choice([0, 4, at]) :][:4] = chance.randbytes(4)
        if not data:
            return bytes(chance.randbytes(8))
    return bytes(data)


def test_mutated_frames_raise_only_codec_errors() -> None:
    """5,000 damaged frames: commands or a CodecError come out, and no buffer passes its bound."""
    chance = random.Random(20261122)
    texts = {"topic": "T", "properties": "KEYS\x01k\x02", "queueId": "3", "n": "é💡"}
    originals = [
        encode_frame(RemotingCommand(310, 2, 7, "remark", texts, b"body" * 20, "JAVA", 479, serialize_type))
        for serialize_type in SerializeType
    ]
    failures: dict[str, int] = {}
    for _ in range(5000):
        stream = mutate(chance, chance.choice(originals)) + chance.choice(originals)
        connection: Connection[str] = Connection(SMALL)
        sizes = (chance.randint(1, 200) for _ in endless(0))
        try:
            by_buffer(connection, stream, sizes)
        except CodecError as error:
            failures[type(error).__name__] = failures.get(type(error).__name__, 0) + 1
        assert connection.buffer_capacity_bytes <= SMALL.frame_size_bytes_max
    assert {"FrameTooLarge", "FrameInvalid", "UnknownSerializeType"} == set(failures)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_as_a_frame(data: bytes) -> None:
    """No bytes make the decoder of frames raise anything but a RemoteProtocolError."""
    for serialize_type in (0, 1):
        mark = (serialize_type << 24 | max(len(data) - 4, 0)).to_bytes(4, "big")
        for frame in (data, mark + data):
            try:
                decode_frame(frame)
            except RemoteProtocolError:
                continue


# -- requests in flight


def reply(opaque: int) -> RemotingCommand:
    return RemotingCommand(0, RESPONSE_FLAG, opaque)


def test_response_finds_its_request_once() -> None:
    """A response is matched by its opaque; a second one with the same opaque finds nobody."""
    connection: Connection[str] = Connection(SMALL)
    connection.register_request(5, 10.0, "five")
    connection.register_request(-6, 10.0, "minus six")
    assert connection.match_response(reply(-6)) == "minus six"
    assert connection.match_response(reply(-6)) is None
    assert connection.match_response(reply(5)) == "five"
    assert connection.unmatched_responses == 1
    assert connection.pending_requests == 0


def test_requests_in_flight_are_bounded() -> None:
    """One more than the bound is refused, and taken once another is done."""
    connection: Connection[str] = Connection(SMALL)
    for opaque in range(3):
        connection.register_request(opaque, 10.0, "")
    with pytest.raises(LocalProtocolError, match="3 requests"):
        connection.register_request(3, 10.0, "")
    connection.forget_request(0)
    connection.register_request(3, 10.0, "")


def test_one_opaque_is_in_flight_once() -> None:
    """Two requests with one opaque could not be told apart."""
    connection: Connection[str] = Connection(SMALL)
    connection.register_request(1, 10.0, "first")
    with pytest.raises(LocalProtocolError, match="opaque 1"):
        connection.register_request(1, 10.0, "second")
    assert connection.match_response(reply(1)) == "first"


def test_requests_expire_at_their_deadline() -> None:
    """A request is late from its deadline on, and late once."""
    connection: Connection[str] = Connection(SMALL)
    connection.register_request(1, 10.0, "a")
    connection.register_request(2, 5.0, "b")
    connection.register_request(3, 7.5, "c")
    assert connection.next_deadline() == 5.0
    assert connection.expire(4.99) == []
    assert connection.expire(7.5) == ["b", "c"]
    assert connection.next_deadline() == 10.0
    assert connection.match_response(reply(2)) is None
    assert connection.expire(11.0) == ["a"]
    assert connection.next_deadline() is None


def test_lost_connection_gives_back_every_waiter() -> None:
    """Nobody waits for a response that cannot come."""
    connection: Connection[str] = Connection(SMALL)
    connection.register_request(1, 10.0, "a")
    connection.register_request(2, 5.0, "b")
    assert connection.abandon_requests() == ["a", "b"]
    assert connection.pending_requests == 0


def test_opaques_count_up_wrap_and_skip_what_is_in_flight() -> None:
    """An opaque is a positive int32 that no request in flight has."""
    connection: Connection[str] = Connection(SMALL)
    assert [connection.next_opaque() for _ in range(3)] == [1, 2, 3]
    connection.register_request(1, 10.0, "")
    connection._last_opaque = 2**31 - 2
    assert [connection.next_opaque() for _ in range(3)] == [2**31 - 1, 2, 3]
