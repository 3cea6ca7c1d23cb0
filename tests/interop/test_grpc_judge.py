"""The judge of the gRPC scenarios, tried on runs made up by hand: a rule that can't fail would prove nothing."""

import hashlib

import msgspec
import pytest

from tests.interop import grpc_events, grpc_judge
from tests.interop.grpc_events import Received, Sent, Settled

CONTENT = grpc_judge.Content("T", tag="A", properties={"colour": "red"}, size_bytes=6)


def sent(key: str) -> Sent:
    return Sent(key, "ID-" + key, 1, 0)


def received(key: str, attempt: int = 1) -> Received:
    body = key.encode() + b" \x00\x01"
    digest = hashlib.sha256(body).hexdigest()
    return Received(key, "ID-" + key, "T", [key], "A", {"colour": "red"}, len(body), digest, attempt, 0)


def settled(key: str) -> Settled:
    return Settled(key, "ID-" + key, 0)


def test_a_run_in_which_all_is_well() -> None:
    """Each message once, as it was sent, and acknowledged."""
    events = [received("k-1"), settled("k-1"), received("k-2"), settled("k-2")]
    assert grpc_judge.undisturbed([sent("k-1"), sent("k-2")], events, CONTENT) == []


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([], "never received 1: k-1"),
        ([received("k-1")], "never settled 1: k-1"),
        ([received("k-1"), settled("k-1"), received("k-2")], "received and never sent 1: k-2"),
        ([received("k-1"), received("k-1"), settled("k-1")], "received more than once 1: k-1"),
    ],
)
def test_what_can_be_wrong_with_a_run(events: list[object], complaint: str) -> None:
    """One message was sent."""
    assert grpc_judge.undisturbed([sent("k-1")], events, CONTENT)[0] == complaint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("msg_id", "other"),
        ("topic", "U"),
        ("keys", []),
        ("tag", None),
        ("properties", {}),
        ("size_bytes", 5),
        ("sha256", ""),
        ("is_corrupted", True),
    ],
)
def test_every_part_of_a_message_is_compared(field: str, value: object) -> None:
    """One part differs from what was sent, and is named."""
    other = msgspec.structs.replace(received("k-1"), **{field: value})
    (complaint,) = grpc_judge.changed([sent("k-1")], [other], CONTENT)
    assert complaint.startswith(f"k-1: {field} is {value!r}, was sent as ")


def test_a_delivery_may_come_again_only_before_its_acknowledgement() -> None:
    """k-1 comes twice before, k-2 after."""
    events = [received("k-1"), received("k-1"), settled("k-1"), received("k-2"), settled("k-2"), received("k-2")]
    assert grpc_judge.received_after_settled(events) == ["received after the acknowledgement 1: k-2"]


def test_attempts_are_counted_per_message() -> None:
    """k-2 came a second time as if it were the first, k-3 not at all, and nobody sent k-4."""
    events = [received("k-1"), received("k-1", 2), received("k-2"), received("k-2"), received("k-4")]
    wanted = {"k-1": [1, 2], "k-2": [1, 2], "k-3": [1]}
    assert grpc_judge.wrong_attempts(events, wanted) == [
        "k-2: attempts [1, 1], expected [1, 2]",
        "k-3: attempts [], expected [1]",
        "k-4: attempts [1], expected []",
    ]


def test_many_names_are_cut() -> None:
    """The count is always told."""
    assert grpc_judge.name_some(f"k-{number:02}" for number in range(12)).startswith("12: k-00, k-01")
    assert grpc_judge.name_some(f"k-{number:02}" for number in range(12)).endswith("k-09, …")


def test_a_line_of_the_driver_becomes_an_event() -> None:
    """The first field names the event."""
    line = '{"settled": "k-1", "msg_id": "I", "at_ms": 7}'
    assert grpc_events.parse(line) == Settled("k-1", "I", 7)
