"""Name server addresses as users write them."""

import pytest
from apogeemq.client_remoting.core.addresses import Address, parse_address, parse_addresses


def test_several() -> None:
    """With ; between, blanks around, each once."""
    assert parse_addresses("a:1; [::1]:2 ;a:1;") == (Address("a", 1), Address("::1", 2))
    assert str(parse_address("[::1]:2")) == "[::1]:2"
    assert str(parse_address("a:1")) == "a:1"


@pytest.mark.parametrize("text", ["", ";", "a", "a:", ":1", "a:0", "a:65536", "a:b", "a:¹"])
def test_no_address(text: str) -> None:
    """Is refused with what was written."""
    with pytest.raises(ValueError, match="host:port"):
        parse_addresses(text)
