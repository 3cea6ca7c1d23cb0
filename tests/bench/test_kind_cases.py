"""What the generator writes of pops and transactions, held against the frames of a recorded Java client."""

import base64
import dataclasses
import json

from apogeemq.remoting_codec.codes import RequestCode
from apogeemq.remoting_codec.command import RemotingCommand
from apogeemq.remoting_codec.record import decode_records

from packages.broker.tests import recordings
from packages.broker.tests.recordings import exchanges
from tools.bench import frames, kind_frames
from tools.bench.kind_frames import Popped, Run
from tools.bench.requests import Load, TimedSends, Transactions


def fields_of(command: RemotingCommand) -> dict[str, str]:
    return dict(command.ext_fields or {})


def sent_fields(frame: frames.Buffer) -> dict[str, str]:
    header_end, _ = frames.bounds(frame, 0)
    fields: dict[str, str] = json.loads(bytes(frame[frames.HEAD_BYTES : header_end]))["extFields"]
    return fields


def reply_of(command: RemotingCommand, slot: int = 0) -> frames.Reply:
    return frames.Reply(slot, command.code, "", fields_of(command), memoryview(b""))


def test_a_pop_is_asked_for_and_read_as_java_does() -> None:
    """The same fields but `bname`, which only clients of 5.x write; a recorded answer gives the parts of handles."""
    exchange = next(each for each in exchanges("pop", RequestCode.POP_MESSAGE) if each.reply.code == 0)
    asked = sent_fields(kind_frames.pop_request("T", "G"))
    assert set(asked) == set(fields_of(exchange.request)) - {"bname"}
    assert Popped.of(reply_of(exchange.reply)) == Popped(1795356284062, 0, (Run("0", 1, 0, (0, 1)),))


def test_a_message_is_acknowledged_as_java_does() -> None:
    """With its handle in eight parts."""
    recorded = fields_of(exchanges("pop", RequestCode.ACK_MESSAGE)[0].request)
    popped = Popped(1795356284062, 0, (Run("0", 1, 0, (0,)),))
    (ack,) = kind_frames.ack_requests("TapPop", "G_pop", "broker-t", popped)
    invisible = recorded["extraInfo"].replace(" 20000 ", f" {kind_frames.INVISIBLE_MS} ")
    assert sent_fields(ack) | {"bname": "broker-t"} == recorded | {"extraInfo": invisible}


def test_a_pop_is_acknowledged_together_as_java_does() -> None:
    """One entry for a queue, a bit for each message."""
    recorded = json.loads(bytes(exchanges("pop", RequestCode.BATCH_ACK_MESSAGE)[0].request.body))
    popped = Popped(1795356284159, 1, (Run("0", 0, 0, (0, 1)),))
    frame = kind_frames.batch_ack_request("TapPop", "G_pop", "broker-t", popped)
    body = json.loads(bytes(frame[frames.bounds(frame, 0)[0] :]))
    assert body == recorded | {"acks": [recorded["acks"][0] | {"it": kind_frames.INVISIBLE_MS}]}


def test_a_set_of_bits_skips_what_others_have() -> None:
    """Offsets 10 and 12 of a run that begins with 10 are bits 0 and 2."""
    popped = Popped(1, 0, (Run("0", 0, 10, (10, 12)),))
    frame = kind_frames.batch_ack_request("T", "G", "b", popped)
    body = json.loads(bytes(frame[frames.bounds(frame, 0)[0] :]))
    assert base64.b64decode(body["acks"][0]["b"]) == b"\x05"
    assert len(kind_frames.ack_requests("T", "G", "b", popped)) == popped.count == 2


def test_a_half_message_is_committed_with_the_next_as_java_does() -> None:
    """Oneway, with what the recorded answer told; a transaction counts as one message."""
    _, sent, reply = exchanges("transaction", RequestCode.SEND_MESSAGE_V2)[0]
    end = next(each for _, _, each in recordings.frames("transaction") if each.code == RequestCode.END_TRANSACTION)
    requests = Transactions(Load("transaction", "h", 1, "TapTrans", 1, 1, body_bytes=1))
    half = bytes(requests.next(0) or b"")
    assert sent_fields(half)["f"] == fields_of(sent)["f"]
    assert "TRAN_MSG\x01true\x02" in sent_fields(half)["i"]
    answer = frames.encode(0, fields_of(reply), frames.OPAQUE_BASE)
    assert requests.messages_in(bytearray(answer), 0) == 1
    both = bytes(requests.next(0) or b"")
    _, middle = frames.bounds(both, 0)
    assert sent_fields(both[:middle]) | {"producerGroup": "P_trans", "bname": "broker-t"} == fields_of(end)
    assert kind_frames.ONEWAY_FLAG in both[:middle]
    assert sent_fields(both[middle:])["i"] != sent_fields(half)["i"], "a unique key of its own"


def test_timer_messages_are_spread_evenly() -> None:
    """Each with its own time, the first at the beginning."""
    load = Load("timed", "h", 1, "T", 1, 2, body_bytes=1, messages=4)
    load = dataclasses.replace(load, due_from_ms=1_800_000_000_000, due_to_ms=1_800_000_000_400)
    requests = TimedSends(load)
    times: list[int] = []
    while (frame := requests.next(len(times) % 2)) is not None:
        properties = dict(pair.split("\x01") for pair in sent_fields(frame)["i"][:-1].split("\x02"))
        times.append(int(properties["TIMER_DELIVER_MS"]) - load.due_from_ms)
    assert times == [0, 100, 200, 300]


def test_bodies_are_read_from_records() -> None:
    """Of what a recorded pull of two messages brought."""
    reply = next(e.reply for e in exchanges("pop", RequestCode.POP_MESSAGE) if e.reply.code == 0)
    assert kind_frames.bodies(memoryview(reply.body)) == [r.body for r in decode_records(reply.body)]
