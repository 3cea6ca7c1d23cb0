"""W3C trace context, and the cheap look into message properties."""

from __future__ import annotations

import unittest.mock

import pytest
from apogeemq.mesh.trace_context import (
    TraceContext,
    format_traceparent,
    legal_tracestate,
    parse_traceparent,
    sampled_in_properties,
    trace_in_properties,
)
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# The example of the W3C recommendation.
EXAMPLE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EXAMPLE_CONTEXT = TraceContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 1)
UNSAMPLED = EXAMPLE[:-2] + "00"

HEX = st.text("0123456789abcdef", min_size=1, max_size=34)
TRACEPARENTS = st.one_of(
    st.builds(TraceContext, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255)).map(
        format_traceparent
    ),
    st.builds("-".join, st.lists(HEX, min_size=3, max_size=5)),
    st.text(max_size=60),
)


def test_example_of_the_standard() -> None:
    """The recommendation's example is parsed and written back."""
    context = parse_traceparent(EXAMPLE)
    assert context == EXAMPLE_CONTEXT
    assert context.sampled
    assert format_traceparent(context) == EXAMPLE
    unsampled = parse_traceparent(UNSAMPLED)
    assert unsampled is not None
    assert not unsampled.sampled


@pytest.mark.parametrize(
    "text",
    [
        "",
        EXAMPLE[:-1],
        EXAMPLE + "0",
        EXAMPLE + "-extra",
        EXAMPLE.upper(),
        "ff" + EXAMPLE[2:],
        "00-" + "0" * 32 + EXAMPLE[35:],
        EXAMPLE[:36] + "0" * 16 + "-01",
        EXAMPLE.replace("-", "_"),
        EXAMPLE + "\n",
        " " + EXAMPLE,
    ],
)
def test_malformed_is_absent(text: str) -> None:
    """Anything the standard does not allow is treated as if it were not there."""
    assert parse_traceparent(text) is None


def test_later_version_is_read_as_far_as_known() -> None:
    """A higher version may say more after what version 00 says."""
    assert parse_traceparent("cc" + EXAMPLE[2:] + "-what-the-future-brings") == EXAMPLE_CONTEXT
    assert parse_traceparent("cc" + EXAMPLE[2:]) == EXAMPLE_CONTEXT
    assert parse_traceparent("cc" + EXAMPLE[2:] + ".x") is None


@given(TRACEPARENTS)
def test_parses_what_opentelemetry_parses(text: str) -> None:
    """For any text our parser finds the same context as OpenTelemetry's, which trims blanks around it first."""
    carrier = TraceContextTextMapPropagator().extract({"traceparent": text})
    theirs = trace.get_current_span(carrier).get_span_context()
    ours = parse_traceparent(text.strip())
    if theirs.is_valid:
        assert ours == (theirs.trace_id, theirs.span_id, int(theirs.trace_flags))
    else:
        assert ours is None


def encode(properties: dict[str, str]) -> bytes:
    """Encode as RocketMQ does: key 0x01 value 0x02 …"""
    return "".join(f"{key}\x01{value}\x02" for key, value in properties.items()).encode()


TYPICAL = {"UNIQ_KEY": "7F00000100002A139A5600000000", "KEYS": "order-4711", "TAGS": "created", "WAIT": "true"}


@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize(("traceparent", "sampled"), [(EXAMPLE, True), (UNSAMPLED, False), (EXAMPLE[:-2] + "03", True)])
def test_sampled_in_properties(traceparent: str, sampled: bool, at_start: bool) -> None:
    """The flag is found wherever the property stands, with or without the closing separator that 4.9 omits."""
    mine = {"traceparent": traceparent}
    encoded = encode(mine | TYPICAL if at_start else TYPICAL | mine)
    assert sampled_in_properties(encoded) is sampled
    assert sampled_in_properties(encoded.removesuffix(b"\x02")) is sampled
    assert trace_in_properties(encoded) == parse_traceparent(traceparent)


def test_no_trace_in_properties() -> None:
    """No property, another key that ends alike, or a value that mentions it: no trace."""
    for properties in (TYPICAL, {}, {"x-traceparent": EXAMPLE}, {"KEYS": "traceparent " + EXAMPLE}):
        encoded = encode(properties)
        assert not sampled_in_properties(encoded)
        assert trace_in_properties(encoded) is None


@given(st.dictionaries(st.sampled_from(["a", "KEYS", "traceparent", "xtraceparent"]), TRACEPARENTS))
def test_the_cheap_check_never_misses_a_sampled_trace(properties: dict[str, str]) -> None:
    """Whenever the full parse finds a sampled trace, the cheap check says yes, and it never raises."""
    clean = {key: value.replace("\x01", "").replace("\x02", "") for key, value in properties.items()}
    encoded = encode(clean)
    found = trace_in_properties(encoded)
    if found is not None:
        assert sampled_in_properties(encoded) is found.sampled
    else:
        sampled_in_properties(encoded)


@given(st.binary(max_size=200))
def test_any_bytes_are_looked_at_safely(properties: bytes) -> None:
    """Whatever a client sends as properties, looking for a trace raises nothing."""
    sampled_in_properties(properties)
    trace_in_properties(properties)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a=1",
        "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        "a=1, b=2 ,,c=x y",
        "0t@sys=v",
        "a*/-_=~!",
        "k=" + "v" * 256,
    ],
)
def test_legal_tracestates_are_passed_on(text: str) -> None:
    """As they are: the standard's example, empty members, blanks around members and within values."""
    assert legal_tracestate(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("=", "a", "a=", "=1", "A=1", "0t=v", "a=1=2", "a=\u00fc", "a=1,a=2", "k=" + "v" * 257, "a=\x01"),
        ",".join(f"k{number}=v" for number in range(33)),
        "a=1," + "," * 510,
    ],
)
def test_malformed_tracestates_are_absent(text: str) -> None:
    """Nothing of them is passed on."""
    assert legal_tracestate(text) == ""


STATE_CHARACTERS = st.sampled_from("ab0=,@ \t-*/_~;A\u00fc")


@given(st.text(STATE_CHARACTERS, max_size=40))
def test_opentelemetry_warns_of_nothing_that_is_legal(text: str) -> None:
    """Its parser is the twin: what we pass on it reads without a word, what it reads otherwise we do not pass on."""
    with unittest.mock.patch("opentelemetry.trace.span._logger.warning") as warning:
        trace.TraceState.from_header([legal_tracestate(text)])
        assert not warning.called
        kept = trace.TraceState.from_header([text])
    if kept:
        assert legal_tracestate(text) == text
