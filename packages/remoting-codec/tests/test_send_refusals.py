"""The code with which a refused message is taken elsewhere: by versions of Apache's clients."""

import pytest
from apogeemq.remoting_codec.send_refusals import send_refusal_code

V4_9_8, V5_2_0, V5_3_0_SNAPSHOT, V5_3_0, V5_3_3 = 409, 453, 472, 473, 479
RETRIED_BEFORE_5_3_0 = (1, 14, 16, 17, 204, 205)


@pytest.mark.parametrize("version", [0, V4_9_8, V5_2_0, V5_3_0_SNAPSHOT])
def test_older_clients_are_told_what_they_retry(version: int) -> None:
    """14 for 2; no other code is touched: a refusal for good stays one."""
    assert send_refusal_code(2, version) == 14
    for code in (*RETRIED_BEFORE_5_3_0, 10, 13, 29, 215):
        assert send_refusal_code(code, version) == code


@pytest.mark.parametrize("version", [V5_3_0, V5_3_3, 600])
def test_newer_clients_are_told_what_it_is(version: int) -> None:
    """They retry after 2 as well."""
    for code in (2, *RETRIED_BEFORE_5_3_0, 13):
        assert send_refusal_code(code, version) == code
