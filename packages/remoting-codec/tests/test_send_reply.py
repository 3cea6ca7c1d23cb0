"""The reply to a send, against its plain twin."""

from apogeemq.remoting_codec.framing import encode_response_frame
from apogeemq.remoting_codec.send_reply import SendReplyEncoder
from hypothesis import given
from hypothesis import strategies as st

UNIQUE_KEYS = st.text("0123456789ABCDEF", min_size=32, max_size=32)
ANY_KEYS = st.one_of(UNIQUE_KEYS, st.text(st.characters(codec="utf-8"), max_size=20))


@given(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    st.lists(UNIQUE_KEYS, min_size=1, max_size=3),
    ANY_KEYS,
    st.sampled_from(["DefaultRegion", 'a "quoted" région']),
    st.booleans(),
)
def test_it_is_the_frame_that_the_general_encoder_makes(
    opaque: int, queue_id: int, queue_offset: int, ids: list[str], unique_key: str, region: str, trace_on: bool
) -> None:
    """Byte for byte, whatever the key and the region hold."""
    message_id = ",".join(ids)
    fields = {
        "queueId": str(queue_id),
        "transactionId": unique_key,
        "msgId": message_id,
        "TRACE_ON": "true" if trace_on else "false",
        "MSG_REGION": region,
        "queueOffset": str(queue_offset),
    }
    encoder = SendReplyEncoder(region=region, trace_on=trace_on)
    assert encoder.encode(opaque, queue_id, queue_offset, message_id, unique_key) == encode_response_frame(
        opaque, 0, fields
    )
    assert encoder.ext_fields(queue_id, queue_offset, message_id, unique_key) == fields
