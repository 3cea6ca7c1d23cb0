"""Errors of the codec, one tree.

```
CodecError
├── LocalProtocolError          our side asked for something the protocol cannot say; the connection is fine
└── RemoteProtocolError         the peer sent something wrong; see each class for what the receiver must do
    ├── FrameTooLarge           announced length above the bound            → close the connection
    ├── FrameInvalid            lengths or header bytes that do not fit     → close the connection
    ├── UnknownSerializeType    mark byte is neither JSON nor ROCKETMQ      → close the connection
    ├── HeaderMissing           a required header field is not there        → answer with an error, keep going
    ├── HeaderInvalid           a header field that does not parse          → answer with an error, keep going
    ├── BodyInvalid             a body that is not what its code promises   → answer with an error, keep going
    └── RecordInvalid           bytes that are not a stored record          → the reader decides
```
The first three mean that the byte stream can no longer be trusted; a broken frame never gets a reply
(Apache closes without one too).
Messages name fields, sizes and offsets, never the bytes themselves: they go to logs and to peers.
"""

# ruff: noqa: N818 — each name says what happened; the word Error would only repeat what the root says


class CodecError(Exception):
    """Root of everything that this package raises on purpose."""


class LocalProtocolError(CodecError):
    """Our own caller broke the protocol: a value that does not fit its field, a frame above the bound, too many
    pending requests.
    """


class RemoteProtocolError(CodecError):
    """The peer broke the protocol."""


class FrameTooLarge(RemoteProtocolError):
    """A frame announced more bytes than the bound. Raised before anything is allocated for it.

    Attributes: `size_bytes` of the whole frame with its length field as announced, `size_bytes_max` allowed.
    """

    def __init__(self, size_bytes: int, size_bytes_max: int) -> None:
        super().__init__(f"frame of {size_bytes} bytes exceeds the bound of {size_bytes_max} bytes")
        self.size_bytes = size_bytes
        self.size_bytes_max = size_bytes_max


class FrameInvalid(RemoteProtocolError):
    """A frame whose lengths contradict each other or whose header bytes do not parse. `reason` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid frame: {reason}")
        self.reason = reason


class UnknownSerializeType(RemoteProtocolError):
    """The top byte of the mark names a header serialisation that does not exist.

    `serialize_type` is that byte (0..255).
    """

    def __init__(self, serialize_type: int) -> None:
        super().__init__(f"unknown header serialise type {serialize_type}")
        self.serialize_type = serialize_type


class HeaderMissing(RemoteProtocolError):
    """A required header field is absent. `field` is its name on the wire."""

    def __init__(self, field: str) -> None:
        super().__init__(f"the field <{field}> is missing")
        self.field = field


class HeaderInvalid(RemoteProtocolError):
    """A header field has a value outside its type or range.

    `field` is its name on the wire, `reason` what was expected.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"the field <{field}> is invalid: {reason}")
        self.field = field
        self.reason = reason


class BodyInvalid(RemoteProtocolError):
    """A command's body does not decode as what its request code promises.

    `reason` says where and why, without the bytes.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid body: {reason}")
        self.reason = reason


class RecordInvalid(RemoteProtocolError):
    """Bytes that should be a stored record are not one.

    `reason` says which field and why; `offset` is where the record starts (bytes from the start of the buffer).
    """

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(f"invalid record at {offset}: {reason}")
        self.reason = reason
        self.offset = offset
