"""Receipt handles: nine fields, there and back, and what is none."""

from __future__ import annotations

import contextlib

import pytest
from apogeemq.mesh.v1 import broker_pb2 as mesh
from apogeemq.proto.v2.definition_pb2 import Code
from apogeemq.proxy.core.receipt_handle import ReceiptHandle, parse, renewed, to_mesh
from apogeemq.proxy.errors import ProxyError
from hypothesis import given
from hypothesis import strategies as st

NINE = "10 1700000000000 60000 3 1 broker-a 2 12 4096"


def test_the_fields_are_where_apache_has_them() -> None:
    """start, pop time, invisible time, revive queue, retry mark, broker, queue, offset, physical offset."""
    handle = parse(NINE)
    assert handle == ReceiptHandle(
        start_offset=10,
        pop_time_ms=1_700_000_000_000,
        invisible_time_ms=60_000,
        revive_queue_id=3,
        retry_mark=mesh.RETRY_MARK_V1,
        broker_name="broker-a",
        queue_id=2,
        queue_offset=12,
        physical_offset=4096,
    )
    assert str(handle) == NINE
    assert handle.expires_at_ms == 1_700_000_060_000
    assert parse(NINE.rpartition(" ")[0]).physical_offset == 0


def test_the_broker_gets_what_it_needs_and_a_change_makes_a_new_handle() -> None:
    """The new one is a pop of this one message, under the broker's new times."""
    handle = parse(NINE)
    sent = to_mesh(handle)
    assert (sent.retry_mark, sent.queue_id, sent.queue_offset, sent.start_offset) == (1, 2, 12, 10)
    assert (sent.pop_time_ms, sent.invisible_time_ms, sent.revive_queue_id) == (1_700_000_000_000, 60_000, 3)
    changed = mesh.ChangeInvisibleTimeReply(pop_time_ms=5, invisible_time_ms=6, revive_queue_id=7)
    assert str(renewed(handle, changed)) == "12 5 6 7 1 broker-a 2 12 4096"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "1 2 3 4 0 a 6",
        NINE + " 1",
        NINE.replace("10 ", "-1 ", 1),
        NINE.replace("10 ", "1e3 ", 1),
        NINE.replace("10 ", "٣ ", 1),
        NINE.replace("10 ", "9223372036854775808 ", 1),
        NINE.replace(" 3 ", " 16384 "),
        NINE.replace(" 2 12", " 16384 12"),
        NINE.replace(" 1700000000000 ", " 0 "),
        NINE.replace(" 1 broker", " 3 broker"),
        NINE.replace("broker-a", ""),
        NINE + "0" * 600,
    ],
)
def test_what_is_no_handle_is_refused(text: str) -> None:
    """INVALID_RECEIPT_HANDLE, whatever is wrong with it."""
    with pytest.raises(ProxyError) as caught:
        parse(text)
    assert caught.value.code == Code.INVALID_RECEIPT_HANDLE


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    """It gives a handle that reads back the same, or refuses."""
    with contextlib.suppress(ProxyError):
        handle = parse(text)
        assert parse(str(handle)) == handle
