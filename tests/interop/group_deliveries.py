"""What the scenarios of consumers ask of their runs: which messages came, and whether all have."""

from collections.abc import Iterable, Mapping, Sequence

from tests.interop.driver_run import DriverRun, wait_for
from tests.interop.events import Assigned, Delivery
from tests.interop.operator_client import QUEUES, Operator

TIMEOUT_S = 30.0


def numbered(prefix: str, count: int = QUEUES) -> list[str]:
    """Keys of so many messages."""
    return [f"{prefix}-{number}" for number in range(count)]


def keys_of(*consumers: DriverRun) -> list[str]:
    """The key of every delivery, sorted: one that came twice is there twice."""
    return sorted(delivery.key for consumer in consumers for delivery in consumer.events(Delivery))


def wait_keys(expected: Iterable[str], *consumers: DriverRun) -> None:
    """Waits until every one of these messages has come to one of the consumers."""
    wanted = set(expected)
    wait_for(lambda: wanted <= set(keys_of(*consumers)), consumers, TIMEOUT_S, f"not all of {sorted(wanted)} came")


def wait_event(consumer: DriverRun, kind: type[object]) -> None:
    """Waits until a run has printed such a line."""
    wait_for(lambda: bool(consumer.events(kind)), [consumer], TIMEOUT_S, f"no {kind.__name__}")


def wait_shared(consumers: Sequence[DriverRun]) -> None:
    """Waits until the members have all queues between them, each some, none two."""

    def is_shared() -> bool:
        held = [assigned[-1].queues for consumer in consumers if (assigned := consumer.events(Assigned))]
        if len(held) < len(consumers) or not all(held):
            return False
        return len(frozenset().union(*held)) == sum(map(len, held)) == QUEUES

    wait_for(is_shared, consumers, TIMEOUT_S, "the queues were not shared")


def wait_status(consumer: DriverRun, operator: Operator, topic: str, group: str, expected: Mapping[int, int]) -> None:
    """Waits until a consumer that has started tells these offsets, by queue, when it is asked."""

    def is_told() -> bool:
        return expected in operator.status(topic, group).values()

    wait_for(is_told, [consumer], TIMEOUT_S, f"does not tell the offsets {expected}")


def wait_member(consumer: DriverRun, operator: Operator, group: str) -> str:
    """Waits until the broker knows a consumer as the one member of its group; gives its client id.

    A client may have started before its first heartbeat is sent.
    """
    wait_for(lambda: len(operator.client_ids(group)) == 1, [consumer], TIMEOUT_S, "is not the group's only member")
    return operator.client_ids(group)[0]
