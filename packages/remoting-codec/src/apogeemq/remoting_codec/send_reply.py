"""The successful reply to a send, written in one piece: the frame that a broker writes most often.

It is the frame that `encode_response_frame` makes of the same ext fields, which serves as its twin in the tests and for
the rare keys that need escaping. Writing it as text saves the dict, the struct and the JSON encoder: 0.9 µs, not 2.0.
"""

from struct import Struct

import msgspec
from apogeemq.remoting_codec.codes import VERSION, ResponseCode
from apogeemq.remoting_codec.command import OWN_LANGUAGE
from apogeemq.remoting_codec.framing import MARK_SIZE_BYTES, encode_response_frame

_PREFIX = Struct(">II")
_BEGIN = '{"code":0,"extFields":{"queueId":"'
_END = f',"serializeTypeCurrentRPC":"JSON","version":{VERSION}}}'


class SendReplyEncoder:
    """Writes replies to sends.

    Args:
        region: MSG_REGION of every reply.
        trace_on: its TRACE_ON.
    """

    def __init__(self, *, region: str, trace_on: bool) -> None:
        self._region = region
        self._trace_on = "true" if trace_on else "false"
        region_json = msgspec.json.encode(region).decode()
        self._middle = f'","TRACE_ON":"{self._trace_on}","MSG_REGION":{region_json},"queueOffset":"'
        self._flag = f'"}},"flag":1,"language":"{OWN_LANGUAGE}","opaque":'

    def encode(self, opaque: int, queue_id: int, queue_offset: int, message_id: str, unique_key: str) -> bytes:
        """The whole frame. `message_id` is one offset message id, or several with commas between."""
        if not (unique_key.isascii() and unique_key.isalnum()):
            fields = self.ext_fields(queue_id, queue_offset, message_id, unique_key)
            return encode_response_frame(opaque, ResponseCode.SUCCESS, fields)
        header = (
            f'{_BEGIN}{queue_id}","transactionId":"{unique_key}","msgId":"{message_id}'
            f"{self._middle}{queue_offset}{self._flag}{opaque}{_END}"
        ).encode()
        size_bytes = len(header)
        return _PREFIX.pack(MARK_SIZE_BYTES + size_bytes, size_bytes) + header

    def ext_fields(self, queue_id: int, queue_offset: int, message_id: str, unique_key: str) -> dict[str, str]:
        """The same as ext fields, for replies with another code."""
        return {
            "queueId": str(queue_id),
            "transactionId": unique_key,
            "msgId": message_id,
            "TRACE_ON": self._trace_on,
            "MSG_REGION": self._region,
            "queueOffset": str(queue_offset),
        }
