"""Records of the revive log: Apache's fields, tags and keys."""

import json

import pytest
from apogeemq.broker.core.pop_records import (
    AckMsg,
    BatchAckMsg,
    PopCheckPoint,
    ReviveRecord,
    decode_revive_record,
    encode_revive_record,
)

COMMON = {"t": "T", "c": "G", "q": 3, "so": 40, "pt": 1795356284062, "bn": "broker-a"}


@pytest.mark.parametrize(
    ("record", "tag", "fields", "key"),
    [
        (
            PopCheckPoint(t="T", c="G", q=3, so=40, pt=1795356284062, bn="broker-a", it=20_000, n=3, d=[0, 1, 7]),
            "ck",
            {**COMMON, "it": 20_000, "n": 3, "bm": 0, "d": [0, 1, 7], "ro": 0},
            "T@3@40@G@1795356284062@broker-a@ck",
        ),
        (
            AckMsg(t="T", c="G", q=3, so=40, pt=1795356284062, bn="broker-a", ao=41),
            "ack",
            {**COMMON, "ao": 41},
            "T@3@41@G@1795356284062@broker-a@ack",
        ),
        (
            BatchAckMsg(t="T", c="G", q=3, so=40, pt=1795356284062, bn="broker-a", aol=[40, 47]),
            "bAck",
            {**COMMON, "ao": 0, "aol": [40, 47]},
            "T@3@[40, 47]@G@1795356284062@broker-a@bAck",
        ),
    ],
)
def test_records_have_apaches_form(record: ReviveRecord, tag: str, fields: dict[str, object], key: str) -> None:
    """Field names of json_bodies.tsv (store/pop), keys of broker_behaviour.md §8."""
    written_tag, body, written_key = encode_revive_record(record)
    assert (written_tag, written_key) == (tag, key)
    assert json.loads(body) == fields
    assert decode_revive_record(tag, body) == record


def test_a_checkpoint_of_an_old_broker_has_no_distances() -> None:
    """Then the offsets follow each other; what Java writes beside is no harm."""
    body = b'{"bm":0,"bn":"b","c":"G","it":10,"n":3,"pt":5,"q":0,"reviveTime":15,"ro":7,"rp":"1","so":4,"t":"T"}'
    record = decode_revive_record("ck", body)
    assert isinstance(record, PopCheckPoint)
    assert list(record.offsets()) == [4, 5, 6]


@pytest.mark.parametrize(
    ("tag", "body"),
    [
        ("x", b"{}"),
        ("ck", b"{"),
        ("ck", b"{}"),
        ("ack", b'{"t":"T","c":"G","q":"0","so":0,"pt":0,"ao":0}'),
        ("ck", b'{"t":"T","c":"G","q":0,"so":0,"pt":0,"it":0,"n":0}'),
        ("ck", b'{"t":"T","c":"G","q":0,"so":0,"pt":0,"it":0,"n":33}'),
    ],
)
def test_what_is_no_record_is_told(tag: str, body: bytes) -> None:
    """Tags and bodies that this broker can't know."""
    with pytest.raises(ValueError, match=r"revive record|checkpoint"):
        decode_revive_record(tag, body)
