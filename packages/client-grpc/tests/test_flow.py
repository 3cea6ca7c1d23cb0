"""What a push consumer may hold."""

import pytest
from apogeemq.client_grpc.core.flow import FlowLimits, Load


def test_both_limits_close_the_door() -> None:
    """Many small messages, or few large ones; settling opens it again."""
    load = Load(FlowLimits(messages_max=3, bytes_max=100))
    load.add(10)
    assert load.room == 2
    load.add(90)
    assert load.room == 0
    load.remove(90)
    load.add(1)
    load.add(1)
    assert load.room == 0
    load.remove(1)
    assert load.room == 1


def test_a_batch_may_go_beyond() -> None:
    """Room is never negative."""
    load = Load(FlowLimits(messages_max=1, bytes_max=100))
    load.add(0)
    load.add(0)
    assert load.room == 0


@pytest.mark.parametrize(("messages_max", "bytes_max"), [(0, 1), (1, 0)])
def test_limits_of_zero_are_refused(messages_max: int, bytes_max: int) -> None:
    """Nothing would ever come."""
    with pytest.raises(ValueError, match="1 or more"):
        FlowLimits(messages_max, bytes_max)
