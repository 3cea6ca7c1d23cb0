"""The load generator's frames: laid out as the protocol says, and understood by a codec that shares nothing with it."""

import json

import pytest
from apogeemq.remoting_codec.batch import decode_batch
from apogeemq.remoting_codec.framing import decode_frame
from apogeemq.remoting_codec.message import decode_properties

from tools.bench import frames


def reply(header: str, body: bytes = b"") -> bytearray:
    return bytearray(frames.prefix(len(header), len(body)) + header.encode() + body)


def test_a_frame_is_length_mark_header_and_body() -> None:
    """The length does not count itself, the mark's high byte is 0 for JSON."""
    frame = frames.encode(105, {"topic": "T1"}, 7, b"body")
    header = frame[8:-4]
    assert frame[:8] == (4 + len(header) + 4).to_bytes(4, "big") + len(header).to_bytes(4, "big")
    assert json.loads(header) == {
        "code": 105,
        "extFields": {"topic": "T1"},
        "flag": 0,
        "language": "PYTHON",
        "opaque": 7,
        "serializeTypeCurrentRPC": "JSON",
        "version": 479,
    }
    assert frame[-4:] == b"body"


def test_a_send_is_what_a_producer_sends() -> None:
    """Code 310 with one-letter fields, from which a topic can be created."""
    template = frames.send_template("T", queue_id=3, slot=5, body=b"x" * 10)
    command = decode_frame(memoryview(template.frame)[4:])
    fields = dict(command.ext_fields or {})
    properties = decode_properties(fields.pop("i"))
    fields.pop("g")  # the time of birth
    assert (command.code, command.opaque, command.body) == (310, 1_000_000_005, b"x" * 10)
    assert fields == {
        "a": "bench_producers",
        "b": "T",
        "c": "TBW102",
        "d": "4",
        "e": "3",
        "f": "0",
        "h": "0",
        "j": "0",
        "k": "false",
        "l": "0",
        "m": "false",
    }
    assert properties.keys() == {"UNIQ_KEY", "WAIT"}
    assert len(properties["UNIQ_KEY"]) == 32


def test_a_batch_is_its_messages_back_to_back() -> None:
    """Per message: total, magic 0, CRC 0, flag, body length, body, properties length, properties (remoting.md 5.2)."""
    template = frames.batch_template("T", queue_id=0, slot=0, body=b"hi", count=3)
    command = decode_frame(memoryview(template.frame)[4:])
    assert command.code == 320
    assert (command.ext_fields or {})["m"] == "true"
    properties_bytes = len("UNIQ_KEY") + 1 + 32 + 1 + len("WAIT") + 1 + len("true") + 1
    head = (22 + 2 + properties_bytes).to_bytes(4, "big") + bytes(12) + bytes.fromhex("00000002 6869")
    assert command.body.startswith(head + properties_bytes.to_bytes(2, "big") + b"UNIQ_KEY\x01")
    assert [message.body for message in decode_batch(command.body)] == [b"hi"] * 3


def test_every_message_gets_a_key_of_its_own() -> None:
    """Renewing changes the keys and nothing else."""
    template = frames.batch_template("T", queue_id=0, slot=0, body=b"hi", count=3)
    before = bytes(template.frame)
    seen = set()
    for _ in range(2):
        template.renew_keys()
        seen |= {bytes(template.frame[offset : offset + 8]) for offset in template.key_offsets}
    assert len(seen) == 6
    after = bytearray(template.frame)
    for offset in template.key_offsets:
        after[offset : offset + 8] = before[offset : offset + 8]
    assert bytes(after) == before


def test_a_pull_neither_waits_nor_commits() -> None:
    """Code 11, sysFlag 4: only the subscription bit."""
    command = decode_frame(frames.pull_request("T", "G", queue_id=2, queue_offset=77, max_messages=32, slot=1)[4:])
    fields = command.ext_fields or {}
    assert command.code == 11
    assert [fields[name] for name in ("queueId", "queueOffset", "maxMsgNums", "sysFlag")] == ["2", "77", "32", "4"]


def test_a_good_reply_is_told_without_decoding() -> None:
    """Slot and success are found by scanning the header, wherever in the buffer it stands."""
    buffer = bytearray(b"junk") + reply('{"code":0,"flag":1,"opaque":1000000042,"version":479}', b'"opaque":1')
    header_end, end = frames.bounds(buffer, 4)
    assert end == len(buffer)
    assert frames.slot_of(buffer, 4, header_end) == 42
    assert frames.is_success(buffer, 4, header_end)


@pytest.mark.parametrize("header", ['{"code":40,"flag":2,"opaque":7}', '{"code":0,"flag":1}', '{"opaque":-5,"code":0}'])
def test_what_is_no_reply_to_us_has_no_slot(header: str) -> None:
    """A server's own request, or a reply without an opaque, belongs to no slot."""
    buffer = reply(header)
    assert frames.slot_of(buffer, 0, frames.bounds(buffer, 0)[0]) < 0


@pytest.mark.parametrize("header", ['{"code":17,"opaque":1000000000}', '{"opaque":1000000000,"code":0}'])
def test_anything_else_has_to_be_decoded(header: str) -> None:
    """An error, and a success that is laid out in another order."""
    buffer = reply(header)
    assert not frames.is_success(buffer, 0, frames.bounds(buffer, 0)[0])


def test_decode_gives_code_remark_fields_and_body() -> None:
    """What the header leaves out is empty."""
    whole = frames.decode(reply('{"code":17,"extFields":{"a":"1"},"opaque":1000000003,"remark":"no"}', b"body"), 0)
    assert (whole.slot, whole.code, whole.remark) == (3, 17, "no")
    assert (whole.ext_fields, bytes(whole.body)) == ({"a": "1"}, b"body")
    bare = frames.decode(reply('{"code":0,"opaque":1000000003}'), 0)
    assert (bare.remark, bare.ext_fields, bytes(bare.body)) == ("", {}, b"")


def test_records_are_counted_by_their_sizes() -> None:
    """Each starts with its own size."""
    record = (9).to_bytes(4, "big") + b"12345"
    assert frames.count_records(memoryview(b"")) == 0
    assert frames.count_records(memoryview(record * 3)) == 3


@pytest.mark.parametrize("body", [bytes(4), (3).to_bytes(4, "big"), (9).to_bytes(4, "big") + b"1234"])
def test_a_broken_record_is_an_error(body: bytes) -> None:
    """No size, a size below its own field's, a cut record."""
    with pytest.raises(frames.BrokenFrameError):
        frames.count_records(memoryview(body))


def test_a_header_longer_than_its_frame_is_an_error() -> None:
    """The stream can't be trusted any more."""
    with pytest.raises(frames.BrokenFrameError):
        frames.bounds(bytearray(bytes.fromhex("00000004 00000001")), 0)
