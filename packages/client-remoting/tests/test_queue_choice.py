"""Which queue the next message goes to."""

from apogeemq.client_remoting.core.fault_latency import FaultLatency
from apogeemq.client_remoting.core.queue_choice import QueueChoice, queue_of_group
from apogeemq.remoting_codec.bodies import MessageQueue

QUEUES = [MessageQueue("t", broker, number) for broker in ("a", "b") for number in range(2)]
NONE: frozenset[str] = frozenset()


def test_one_after_the_other() -> None:
    """Round and round, from the one after the start."""
    choice = QueueChoice(FaultLatency(), start=0)
    chosen = [choice.choose(QUEUES, NONE, 0.0) for _ in range(6)]
    assert chosen == [QUEUES[number % 4] for number in range(1, 7)]


def test_avoided_and_tried_brokers_are_passed_over() -> None:
    """Every choice is of the other broker."""
    faults = FaultLatency()
    faults.failed("a", 0.0)
    choice = QueueChoice(faults, start=0)
    assert {choice.choose(QUEUES, NONE, 1.0).broker_name for _ in range(8)} == {"b"}
    assert {choice.choose(QUEUES, NONE, 9.0).broker_name for _ in range(8)} == {"a", "b"}
    assert {choice.choose(QUEUES, frozenset("b"), 9.0).broker_name for _ in range(8)} == {"a"}


def test_an_avoided_broker_is_better_than_one_that_was_tried() -> None:
    """And any queue is better than none."""
    faults = FaultLatency()
    faults.failed("a", 0.0)
    choice = QueueChoice(faults, start=0)
    assert {choice.choose(QUEUES, frozenset("b"), 1.0).broker_name for _ in range(8)} == {"a"}
    assert choice.choose(QUEUES, frozenset("ab"), 1.0) in QUEUES


def test_a_group_has_the_queue_that_java_would_choose() -> None:
    """By the hash of its text: the absolute remainder, also of a negative one."""
    assert queue_of_group(QUEUES, "a") == QUEUES[97 % 4]
    assert queue_of_group(QUEUES, "polygenelubricants") == QUEUES[0], "its hash is -2 ** 31"
    assert queue_of_group(QUEUES[:3], "polygenelubricants") == QUEUES[2]
