"""The body of a send-batch request (SEND_BATCH_MESSAGE): several messages for one topic in one frame.

Messages lie back to back, no count. All integers are big-endian.
```
total size i32 | magic i32 = 0 | crc i32 = 0 | flag i32 | body length i32 | body | properties length i16 | properties
```
Magic and CRC are not used: senders write 0, readers skip them.
Each inner message carries its own UNIQ_KEY and WAIT. What may not be in a batch (delay, retry topics) is for the broker
to refuse. Source: remoting.md §5.2 (Apache MessageDecoder.encodeMessages) and recorded batches.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from apogeemq.remoting_codec.errors import BodyInvalid, LocalProtocolError
from apogeemq.remoting_codec.message import PROPERTIES_SIZE_BYTES_MAX

BATCH_COUNT_MAX = 65_536
"""More messages than any client packs into its 4 MiB; a bound on the work that one frame may cause."""

_HEAD = struct.Struct(">iiiii")
_PROPERTIES_SIZE = struct.Struct(">h")
_FIXED_SIZE_BYTES = _HEAD.size + _PROPERTIES_SIZE.size


class BatchMessage(NamedTuple):
    """One message of a batch; the topic is that of the batch. `properties` is the flat string in UTF-8 (message.py)."""

    flag: int
    body: bytes
    properties: bytes


def encode_batch(messages: Iterable[BatchMessage]) -> bytes:
    """The batch as one body. Errors: LocalProtocolError for a flag or sizes that do not fit their fields."""
    parts: list[bytes] = []
    for message in messages:
        if len(message.properties) > PROPERTIES_SIZE_BYTES_MAX:
            raise LocalProtocolError(
                f"properties of {len(message.properties)} bytes exceed {PROPERTIES_SIZE_BYTES_MAX}"
            )
        size_bytes = _FIXED_SIZE_BYTES + len(message.body) + len(message.properties)
        try:
            head = _HEAD.pack(size_bytes, 0, 0, message.flag, len(message.body))
        except struct.error as error:
            raise LocalProtocolError(f"a field of a batched message is out of range: {error}") from error
        parts += (head, message.body, _PROPERTIES_SIZE.pack(len(message.properties)), message.properties)
    return b"".join(parts)


def decode_batch(body: bytes, *, count_max: int = BATCH_COUNT_MAX) -> list[BatchMessage]:
    """The messages of a batch, in their order; an empty body is an empty batch.

    Errors: BodyInvalid, with the place of the message, when sizes are negative, contradict each other or point beyond
    the end, or when there are more than `count_max` messages.
    """
    messages: list[BatchMessage] = []
    offset = 0
    while offset < len(body):
        if len(messages) >= count_max:
            raise BodyInvalid(f"a batch of more than {count_max} messages")
        message, offset = _decode_message(body, offset)
        messages.append(message)
    return messages


def _decode_message(body: bytes, offset: int) -> tuple[BatchMessage, int]:
    """The message that starts at `offset`, and where the next one starts."""
    if offset + _FIXED_SIZE_BYTES > len(body):
        raise BodyInvalid(f"the batch ends inside the message at {offset}")
    size_bytes, _, _, flag, body_size_bytes = _HEAD.unpack_from(body, offset)
    body_at = offset + _HEAD.size
    body_end = body_at + body_size_bytes
    if body_size_bytes < 0 or body_end + _PROPERTIES_SIZE.size > len(body):
        raise BodyInvalid(f"body length {body_size_bytes} of the batched message at {offset} does not fit")
    properties_size_bytes = _PROPERTIES_SIZE.unpack_from(body, body_end)[0]
    properties_at = body_end + _PROPERTIES_SIZE.size
    end = properties_at + properties_size_bytes
    if properties_size_bytes < 0 or end > len(body):
        raise BodyInvalid(f"properties length {properties_size_bytes} of the batched message at {offset} does not fit")
    if end - offset != size_bytes:
        raise BodyInvalid(f"the batched message at {offset} says {size_bytes} bytes, but its parts have {end - offset}")
    return BatchMessage(flag, body[body_at:body_end], body[properties_at:end]), end
