"""What refusals mean."""

from apogeemq.client_remoting.core.refusals import PASSING, RETRIED_ELSEWHERE, STORED, hint_for


def test_the_codes_that_apaches_producer_retries() -> None:
    """Reference remoting.md §5.3."""
    assert {int(code) for code in RETRIED_ELSEWHERE} == {17, 14, 1, 2, 16, 204, 205, 1500}
    assert PASSING <= RETRIED_ELSEWHERE


def test_what_was_stored_is_never_sent_again() -> None:
    """And its hint says so."""
    assert {int(code) for code in STORED} == {10, 11, 12}
    assert not STORED & RETRIED_ELSEWHERE
    assert all("stored" in hint_for(code) for code in STORED)
    assert hint_for(9999) == ""
