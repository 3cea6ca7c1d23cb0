"""What a broker writes down of pops, in Apache's form: records of rmq_sys_REVIVE_LOG_<cluster>.

```
tag   body (JSON)                                        key (UNIQ_KEY), joined by @
ck    {bm,bn,c,d,it,n,pt,q,ro,rp,so,t}                   topic, queue, start offset, group, pop time, broker, ck
ack   {ao,bn,c,pt,q,so,t}                                topic, queue, offset, group, pop time, broker, ack
bAck  {ao,aol,bn,c,pt,q,so,t}                            topic, queue, [offset, offset], group, pop time, broker, bAck
```
A checkpoint (ck) says that a group popped the messages so + d[i] of a queue at pt and has them until pt + it; an ack
takes messages out of it. Topics here are the real ones: a retry topic for what was popped there.
Source: reference broker_behaviour.md §8, json_bodies.tsv (store/pop).
"""

from collections.abc import Sequence

import msgspec
from apogeemq.broker.core.pop import POP_MESSAGES_MAX
from msgspec.json import Decoder

CHECKPOINT_TAG = "ck"
ACK_TAG = "ack"
BATCH_ACK_TAG = "bAck"


class RecordBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What all three have."""

    t: str
    """Topic."""
    c: str
    """Group."""
    q: int
    """Queue id."""
    so: int
    """Start offset of the pop in the queue."""
    pt: int
    """Pop time, ms since 1970."""
    bn: str = ""
    """Broker name."""


class PopCheckPoint(RecordBody, frozen=True, kw_only=True):
    """A pop of one queue. Apache's old brokers leave `d` out: then the offsets are so, so + 1, …"""

    it: int
    """Invisible time, ms."""
    n: int
    """Number of messages, 1 to 32."""
    bm: int = 0
    """Which of them are acknowledged: always 0 in the log."""
    d: list[int] | None = None
    """Offsets of the messages, from `so` on, ascending."""
    ro: int = 0
    """Offset in the revive queue: filled in when it is read."""
    rp: str | msgspec.UnsetType | None = msgspec.UNSET
    """How often it was put again."""

    def offsets(self) -> Sequence[int]:
        """Queue offsets of the messages."""
        if not self.d:
            return range(self.so, self.so + self.n)
        return [self.so + distance for distance in self.d]


class AckMsg(RecordBody, frozen=True, kw_only=True):
    """One message of a checkpoint is settled."""

    ao: int
    """Queue offset of the message."""


class BatchAckMsg(AckMsg, frozen=True, kw_only=True):
    """Several messages of a checkpoint are settled. `ao` means nothing here."""

    ao: int = 0
    aol: list[int]
    """Queue offsets of the messages."""


ReviveRecord = PopCheckPoint | AckMsg | BatchAckMsg

_encode = msgspec.json.Encoder().encode
_DECODERS: dict[str, Decoder[PopCheckPoint] | Decoder[AckMsg] | Decoder[BatchAckMsg]] = {
    CHECKPOINT_TAG: Decoder(PopCheckPoint),
    ACK_TAG: Decoder(AckMsg),
    BATCH_ACK_TAG: Decoder(BatchAckMsg),
}


def encode_revive_record(record: ReviveRecord) -> tuple[str, bytes, str]:
    """Tag, body and unique key of a record."""
    if isinstance(record, PopCheckPoint):
        tag, what = CHECKPOINT_TAG, str(record.so)
    elif isinstance(record, BatchAckMsg):
        tag, what = BATCH_ACK_TAG, str(record.aol)
    else:
        tag, what = ACK_TAG, str(record.ao)
    return tag, _encode(record), f"{record.t}@{record.q}@{what}@{record.c}@{record.pt}@{record.bn}@{tag}"


def decode_revive_record(tag: str, body: bytes) -> ReviveRecord:
    """The record that a message of the revive topic holds. Raises ValueError when it holds none."""
    decoder = _DECODERS.get(tag)
    if decoder is None:
        raise ValueError(f"a revive record has the tag {tag[:50]!r}; ck, ack and bAck are known")
    try:
        record: ReviveRecord = decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(f"a revive record with the tag {tag} can't be read: {error}") from error
    if isinstance(record, PopCheckPoint) and not 1 <= len(record.offsets()) <= POP_MESSAGES_MAX:
        raise ValueError(f"a checkpoint names {len(record.offsets())} messages; it must be 1 to {POP_MESSAGES_MAX}")
    return record
