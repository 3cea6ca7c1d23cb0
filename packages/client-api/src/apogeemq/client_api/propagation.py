"""W3C trace context in a message's properties, by hand: it travels whether or not OpenTelemetry is installed.

traceparent is `00-<trace id, 32 hex>-<span id, 16 hex>-<flags, 2 hex>`, lower case; flag bit 01 means sampled.
Both keys stand among the user properties, where OpenTelemetry's Java agent has them too. `TRACE_CONTEXT` is where the
official gRPC clients put a traceparent; it is read when the first is absent, and never written here.
Source: W3C Trace Context, level 1, §3.2; apache/rocketmq-apis SystemProperties.trace_context.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
TRACE_CONTEXT: Final = "TRACE_CONTEXT"

SAMPLED: Final = 0x01

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


class TraceContext(NamedTuple):
    """Where a trace stands: ids above 0, flags of one byte, and the vendors' own text, unread."""

    trace_id: int
    span_id: int
    flags: int
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether somebody records this trace."""
        return bool(self.flags & SAMPLED)


def format_traceparent(context: TraceContext) -> str:
    """A traceparent of version 00."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.flags:02x}"


def parse_traceparent(text: str, state: str = "") -> TraceContext | None:
    """The context of a traceparent; None for anything malformed, which is to be treated as absent.

    A later version than 00 is read as far as version 00 goes, as the standard asks.
    """
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    context = TraceContext(int(trace_id, 16), int(span_id, 16), int(flags, 16), state)
    if version == "ff" or (version == "00" and rest is not None) or not context.trace_id or not context.span_id:
        return None
    return context


def inject(properties: Mapping[str, str], context: TraceContext) -> Mapping[str, str]:
    """The properties with the context in them; the same ones when they carry a traceparent already (the user's)."""
    if TRACEPARENT in properties:
        return properties
    carrying = {**properties, TRACEPARENT: format_traceparent(context)}
    if context.state:
        carrying[TRACESTATE] = context.state
    return carrying


def extract(properties: Mapping[str, str]) -> TraceContext | None:
    """The context that a message's properties carry, or None."""
    text = properties.get(TRACEPARENT) or properties.get(TRACE_CONTEXT)
    return parse_traceparent(text, properties.get(TRACESTATE, "")) if text else None
