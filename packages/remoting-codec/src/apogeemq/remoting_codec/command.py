"""RemotingCommand: one request or response as a value, whatever its header was written in."""

from typing import Final

import msgspec
from apogeemq.remoting_codec.acl_signature import CREDENTIALS
from apogeemq.remoting_codec.codes import (
    ONEWAY_FLAG,
    RESPONSE_FLAG,
    VERSION,
    LanguageCode,
    ResponseCode,
    SerializeType,
    request_code_name,
    response_code_name,
)
from apogeemq.remoting_codec.headers.base import CommandHeader

OWN_LANGUAGE: Final = LanguageCode.PYTHON.name
"""Language that our commands carry."""

_VALUE_CHARS_MAX = 40
_FIELDS_SHOWN_MAX = 16


class RemotingCommand(msgspec.Struct, gc=False):
    """One request or response. A value: build a new one instead of changing it.

    `code` is a request code, or a response code when `flag` has the response bit. `opaque` (int32, may be negative)
    pairs a response with its request within one connection and direction. `ext_fields` None and `{}` differ only in
    what is written. `body` is empty when the frame has none: the wire knows no difference. `language` is Apache's name
    of the sender's language and `version` its ordinal in Apache's version list (0: assume the oldest behaviour).
    `serialize_type` is how the header was or will be written.
    """

    code: int
    flag: int = 0
    opaque: int = 0
    remark: str | None = None
    ext_fields: dict[str, str] | None = None
    body: bytes = b""
    language: str = OWN_LANGUAGE
    version: int = VERSION
    serialize_type: int = SerializeType.JSON

    @property
    def is_response(self) -> bool:
        """Whether this answers a request of ours."""
        return bool(self.flag & RESPONSE_FLAG)

    @property
    def is_oneway(self) -> bool:
        """Whether the sender of this request wants no response: writing one would be a protocol error."""
        return bool(self.flag & ONEWAY_FLAG)

    def __str__(self) -> str:
        """One line for logs: bounded in length, without the body, without credentials."""
        kind, name = "request", request_code_name(self.code)
        if self.is_response:
            kind, name = "response", response_code_name(self.code)
        parts = [f"{kind} {name}({self.code})", f"opaque={self.opaque}"]
        if self.is_oneway:
            parts.append("oneway")
        parts.append(f"from {_elide(self.language)}/{self.version}")
        if self.remark is not None:
            parts.append(f"remark={_elide(self.remark)!r}")
        if self.ext_fields:
            parts.append(f"ext={{{_show_fields(self.ext_fields)}}}")
        parts.append(f"body={len(self.body)}B")
        return " ".join(parts)


def response(
    request: RemotingCommand,
    code: int,
    remark: str | None = None,
    ext_fields: dict[str, str] | CommandHeader | None = None,
    body: bytes = b"",
) -> RemotingCommand:
    """The response to `request`: its opaque, the response flag, a JSON header.

    The header is JSON whatever the request's was: Apache's servers do so too, and every client reads the type of each
    frame. Raises nothing; whether a oneway request may be answered is the caller's business (it may not).
    """
    if isinstance(ext_fields, CommandHeader):
        ext_fields = ext_fields.encode()
    return RemotingCommand(code, RESPONSE_FLAG, request.opaque, remark, ext_fields, body)


def request_code_not_supported(request: RemotingCommand) -> RemotingCommand:
    """The response to a request whose code nobody here handles, in the words of Apache's servers (recorded)."""
    remark = f" request type {request.code} not supported"
    return response(request, ResponseCode.REQUEST_CODE_NOT_SUPPORTED, remark)


def _elide(text: str) -> str:
    """Cut text to what a log line can bear."""
    return text if len(text) <= _VALUE_CHARS_MAX else f"{text[:_VALUE_CHARS_MAX]}…"


def _show_fields(ext_fields: dict[str, str]) -> str:
    """The first ext fields as `name=value`, credentials hidden."""
    shown = [
        f"{_elide(name)}={'***' if name in CREDENTIALS else repr(_elide(value))}"
        for name, value in list(ext_fields.items())[:_FIELDS_SHOWN_MAX]
    ]
    if len(ext_fields) > _FIELDS_SHOWN_MAX:
        shown.append(f"… {len(ext_fields) - _FIELDS_SHOWN_MAX} more")
    return ", ".join(shown)
