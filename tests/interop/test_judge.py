"""The judge of the interop scenarios, tried on runs made up by hand: a rule that can't fail would prove nothing."""

import msgspec
import pytest

from tests.interop import events, judge


def delivery(key: str, queue_id: int, queue_offset: int) -> events.Delivery:
    return events.Delivery(
        key=key,
        keys=key,
        tags=None,
        topic="T",
        size_bytes=1,
        msg_id="ID-" + key,
        broker="b",
        queue_id=queue_id,
        queue_offset=queue_offset,
        reconsume_times=0,
        born_ms=0,
        store_ms=0,
        received_ms=0,
        verdict="success",
    )


def ack(key: str, queue_id: int, queue_offset: int) -> events.Ack:
    return events.Ack(key, "ID-" + key, "b", queue_id, queue_offset, "SEND_OK", 1)


def test_lost_are_those_that_never_came() -> None:
    """Another message's delivery does not stand in for one."""
    assert judge.lost(["k-1", "k-2"], [delivery("k-1", 0, 0), delivery("k-3", 0, 1)]) == {"k-2"}


def test_misplaced_are_those_delivered_from_elsewhere() -> None:
    """The queue offset of the acknowledgement must be the one delivered."""
    acks = [ack("k-1", 0, 0), ack("k-2", 0, 1)]
    assert judge.misplaced(acks, [delivery("k-1", 0, 0), delivery("k-2", 0, 2)]) == {"k-2"}


def test_renamed_are_those_under_another_message_id() -> None:
    """Only a delivery from the acknowledged place can rename."""
    other = msgspec.structs.replace(ack("k-1", 0, 0), msg_id="other")
    deliveries = [delivery("k-1", 0, 0), delivery("k-2", 0, 1)]
    assert judge.renamed([other, ack("k-2", 0, 1), ack("k-3", 0, 2)], deliveries) == {"k-1"}


def test_duplicates_tell_storing_from_delivering_twice() -> None:
    """Two places of one key, and two deliveries of one place, are different faults."""
    found = judge.duplicates(
        [delivery("k-1", 0, 0), delivery("k-1", 1, 0), delivery("k-2", 0, 1), delivery("k-2", 0, 1)]
    )
    assert found == judge.Duplicates(frozenset({"k-1"}), frozenset({("b", 0, 1)}))


@pytest.mark.parametrize(("failed", "complaints"), [(True, 0), (False, 1)])
def test_storing_twice_is_excused_by_a_failed_send(failed: bool, complaints: int) -> None:
    """Only a message whose send failed once may stand at two places."""
    failures = [events.Failure("k-1", 1, None, "closed")] if failed else []
    found = judge.Duplicates(frozenset({"k-1"}), frozenset())
    assert len(judge.unexplained(found, failures, {})) == complaints


@pytest.mark.parametrize(("committed", "complaints"), [(5, 0), (6, 1)])
def test_redelivery_is_excused_from_the_committed_offset_on(committed: int, complaints: int) -> None:
    """The committed offset is the next to read, so what stands at it may come again and what is below may not."""
    found = judge.Duplicates(frozenset(), frozenset({("b", 0, 5)}))
    assert len(judge.unexplained(found, [], {("b", 0): committed})) == complaints


def test_gaps_in_a_queue() -> None:
    """Queue 1 lacks its offset 0."""
    complaints = judge.gaps([delivery("k-1", 0, 0), delivery("k-2", 0, 1), delivery("k-3", 1, 1)])
    assert [complaint[:8] for complaint in complaints] == ["('b', 1)"]


def test_order_is_judged_per_queue() -> None:
    """Queues may interleave; within one, offsets rise, and the same may come again."""
    fine = [delivery("a", 0, 0), delivery("b", 1, 0), delivery("a", 0, 0), delivery("c", 0, 1)]
    assert judge.out_of_order(fine) == []
    assert judge.out_of_order([*fine, delivery("a", 0, 0)]) == ["('b', 0, 0) after 1"]


def test_a_line_of_the_driver_becomes_an_event() -> None:
    """The first field names the event; camel-case fields become ours."""
    line = '{"queue":3,"broker":"b","min":0,"max":7,"committed":-1,"earliestMs":5,"byTime":2}'
    expected = events.QueueOffsets(queue_id=3, broker="b", min=0, max=7, committed=-1, earliest_ms=5, by_time=2)
    assert events.parse(line) == expected
