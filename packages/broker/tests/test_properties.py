"""What the broker reads of properties, adds to them and takes away."""

import pytest
from apogeemq.broker.core.properties import BrokerProperties, join_properties, read_properties
from apogeemq.remoting_codec.message import decode_properties
from hypothesis import given
from hypothesis import strategies as st

ADDED = "MSG_REGION\x01R\x02TRACE_ON\x01true\x02CLUSTER\x01C\x02"

# Few characters, so that separators meet often; whole properties too, so that plain texts are tried as well.
SCRAPS = st.text(alphabet="ab\x01\x02é", max_size=30)
PLAIN = st.dictionaries(st.text("abcdé", min_size=1), st.text("abcdé", min_size=1)).map(join_properties)


def completed(text: str, unique_key: str | None = None) -> bytes:
    broker = BrokerProperties(region="R", cluster="C", trace_on=True)
    return broker.complete(text, read_properties(text), unique_key)


@given(SCRAPS | PLAIN)
def test_the_fast_reader_agrees_with_the_plain_one(text: str) -> None:
    """Whatever the text, both give the same properties in the same order."""
    assert list(read_properties(text).items()) == list(decode_properties(text).items())


@given(SCRAPS | PLAIN)
def test_what_was_read_can_be_joined_again(text: str) -> None:
    """Joining never fails and loses nothing, not even a value with a separator in it."""
    assert decode_properties(join_properties(read_properties(text))) == decode_properties(text)


@given(SCRAPS | PLAIN, st.none() | st.just("KEY"))
def test_the_broker_adds_to_any_text(text: str, unique_key: str | None) -> None:
    """All that came is kept, and what the broker says of itself counts."""
    properties = decode_properties(completed(text, unique_key))
    own = decode_properties(ADDED) | ({"UNIQ_KEY": unique_key} if unique_key else {})
    assert properties == decode_properties(text) | own


def test_a_plain_text_is_only_appended_to() -> None:
    """The client's own bytes stay first and unchanged."""
    assert completed("TAGS\x01A\x02n\x011\x02") == ("TAGS\x01A\x02n\x011\x02" + ADDED).encode()
    assert completed("") == ADDED.encode()


def test_a_missing_last_separator_is_put_there() -> None:
    """Clients of 4.9 leave it out (trap 9)."""
    assert completed("TAGS\x01A") == ("TAGS\x01A\x02" + ADDED).encode()


def test_a_unique_key_is_added_when_given() -> None:
    """Ahead of what the broker says of itself."""
    assert completed("a\x01b\x02", "K") == ("a\x01b\x02UNIQ_KEY\x01K\x02" + ADDED).encode()


@pytest.mark.parametrize("key", ["MSG_REGION", "TRACE_ON", "CLUSTER"])
def test_a_message_that_is_sent_on_carries_this_brokers_words(key: str) -> None:
    """What another broker said of itself is replaced, so that no key stands there twice."""
    assert completed(f"x\x01y\x02{key}\x01other\x02") == ("x\x01y\x02" + ADDED).encode()


def test_a_receipt_handle_is_taken_out() -> None:
    """POP_CK of the delivery is no property of the message."""
    assert completed("POP_CK\x010 1 2\x02x\x01y\x02") == ("x\x01y\x02" + ADDED).encode()


def test_text_that_has_no_utf8_form_is_an_error() -> None:
    """A lone surrogate, as JSON can carry it."""
    with pytest.raises(UnicodeEncodeError):
        completed("a\x01\ud800\x02")


def test_tracing_can_be_switched_off() -> None:
    """TRACE_ON says so to clients."""
    broker = BrokerProperties(region="R", cluster="C", trace_on=False)
    assert decode_properties(broker.complete("", {}))["TRACE_ON"] == "false"
