"""An error tells what was wrong, where, after how many attempts, and what to do."""

from apogeemq.client_api.errors import ClientError, ConnectionBroken, SendFailed


def test_the_text_has_the_facts_and_the_hint() -> None:
    """Sentence, facts in brackets, hint."""
    error = SendFailed(
        "the broker refused a message for topic T",
        code=14,
        code_name="SERVICE_NOT_AVAILABLE",
        remark="disk full",
        broker="broker-a",
        attempts=3,
        elapsed_s=0.214,
        hint="Look at the disk.",
    )
    assert str(error) == (
        "the broker refused a message for topic T: disk full "
        "(code 14 SERVICE_NOT_AVAILABLE, broker broker-a, 3 attempts, 0.21 s). Look at the disk."
    )
    assert error.remark == "disk full"


def test_what_is_not_known_is_left_out() -> None:
    """No empty brackets, no None."""
    assert str(ConnectionBroken("gone")) == "gone"
    assert str(ClientError("x", broker="b", attempts=1, elapsed_s=1)) == "x (broker b, 1 attempt, 1.00 s)"
