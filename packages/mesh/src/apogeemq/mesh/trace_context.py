"""W3C trace context, by hand: parse, format, and a cheap look into a message's properties.

traceparent is `00-<trace id, 32 hex>-<span id, 16 hex>-<flags, 2 hex>`, lower case; flag bit 01 means sampled.
tracestate is up to 32 members `key=value`, divided by commas.
Source: W3C Trace Context, level 1, §3.2 and §3.3.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
"""Metadata keys and message property keys alike."""

SAMPLED = 0x01

_FORMAT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)

TRACESTATE_SIZE_MAX = 512
"""Characters of a tracestate that are passed on, which is what the standard asks for."""

_STATE_MEMBERS_MAX = 32
_STATE_KEY = r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_STATE_VALUE = r"[ -+\--<>-~]{0,255}[!-+\--<>-~]"
_STATE_MEMBER = re.compile(rf"[ \t]*(?:(?:{_STATE_KEY})={_STATE_VALUE}[ \t]*)?")

# Message properties are key 0x01 value 0x02 key 0x01 value …
_AT_START = b"traceparent\x01"
_LATER = b"\x02traceparent\x01"
_VALUE_SIZE = 55
_FLAGS_DASH = 52
_LAST_DIGIT = 54
_ODD_DIGITS = b"13579bdf"
_DASH = ord("-")


class TraceContext(NamedTuple):
    """Where a trace stands: ids are not 0, flags are one byte."""

    trace_id: int
    span_id: int
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether somebody records this trace."""
        return bool(self.flags & SAMPLED)


def parse_traceparent(text: str) -> TraceContext | None:
    """Parse a traceparent; None for anything malformed, which is to be treated as absent.

    A later version than 00 is read as far as version 00 goes, as the standard asks.
    """
    match = _FORMAT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    context = TraceContext(int(trace_id, 16), int(span_id, 16), int(flags, 16))
    if version == "ff" or (version == "00" and rest is not None) or not context.trace_id or not context.span_id:
        return None
    return context


def legal_tracestate(text: str) -> str:
    """Give a tracestate back, or nothing for a malformed one, which is to be treated as absent.

    OpenTelemetry logs a warning for each malformed one: whoever sends them would write into our log.
    """
    if len(text) > TRACESTATE_SIZE_MAX:
        return ""
    members = text.split(",")
    keys = [member.partition("=")[0].strip(" \t") for member in members if member.strip(" \t")]
    if len(keys) > _STATE_MEMBERS_MAX or len(set(keys)) < len(keys):
        return ""
    return text if all(_STATE_MEMBER.fullmatch(member) for member in members) else ""


def format_traceparent(context: TraceContext) -> str:
    """Write a traceparent of version 00."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.flags:02x}"


def sampled_in_properties(properties: bytes) -> bool:
    """Tell whether a message's encoded properties carry a sampled trace. The hot path's check: no decoding.

    Never False for a well-formed sampled traceparent. May be True for a malformed one: trace_in_properties() decides.
    """
    if properties.startswith(_AT_START):
        at = len(_AT_START)
    else:
        at = properties.find(_LATER)
        if at < 0:
            return False
        at += len(_LATER)
    return (
        len(properties) >= at + _VALUE_SIZE
        and properties[at + _FLAGS_DASH] == _DASH
        and properties[at + _LAST_DIGIT] in _ODD_DIGITS
    )


def trace_in_properties(properties: bytes) -> TraceContext | None:
    """Read the trace context that a message's encoded properties carry, None without a well-formed one."""
    for item in properties.split(b"\x02"):
        if item.startswith(_AT_START):
            return parse_traceparent(item[len(_AT_START) :].decode("latin-1"))
    return None
