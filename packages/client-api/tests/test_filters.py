"""What a consumer can ask of a topic."""

import pytest
from apogeemq.client_api.filters import Sql


def test_an_expression_is_kept_as_it_was_written() -> None:
    """It is the broker that reads it."""
    assert str(Sql(" a  > 5 ")) == " a  > 5 "


@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_blank_expression_is_refused(blank: str) -> None:
    """Where it is written, not by a broker."""
    with pytest.raises(ValueError, match="blank"):
        Sql(blank)
