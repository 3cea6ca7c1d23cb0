"""W3C trace context in properties. The first example is the one of the standard (§3.2.2.5)."""

import pytest
from apogeemq.client_api.propagation import TraceContext, extract, format_traceparent, inject, parse_traceparent

EXAMPLE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CONTEXT = TraceContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 1)


def test_the_standards_example() -> None:
    """Read and written."""
    assert parse_traceparent(EXAMPLE) == CONTEXT
    assert format_traceparent(CONTEXT) == EXAMPLE
    assert CONTEXT.sampled
    assert not CONTEXT._replace(flags=0).sampled


@pytest.mark.parametrize(
    "text",
    [
        "",
        EXAMPLE.upper(),
        EXAMPLE + "-more",
        EXAMPLE[:-1],
        "ff" + EXAMPLE[2:],
        EXAMPLE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        EXAMPLE.replace("b7ad6b7169203331", "0" * 16),
    ],
)
def test_what_is_malformed_counts_as_absent(text: str) -> None:
    """As the standard asks."""
    assert parse_traceparent(text) is None
    assert extract({"traceparent": text}) is None


def test_a_later_version_is_read_as_far_as_this_one_goes() -> None:
    """Its further fields are ignored."""
    assert parse_traceparent("01" + EXAMPLE[2:] + "-future") == CONTEXT


def test_a_context_travels_in_the_properties() -> None:
    """With the vendors' state, which is passed on unread."""
    stateful = CONTEXT._replace(state="vendor=1")
    carried = inject({"colour": "red"}, stateful)
    assert carried == {"colour": "red", "traceparent": EXAMPLE, "tracestate": "vendor=1"}
    assert extract(carried) == stateful


def test_the_users_own_context_is_not_replaced() -> None:
    """The same mapping comes back."""
    own = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-00"}
    assert inject(own, CONTEXT) is own


def test_the_official_grpc_clients_place_is_read_too() -> None:
    """When there is no traceparent."""
    assert extract({"TRACE_CONTEXT": EXAMPLE}) == CONTEXT
    assert extract({}) is None
