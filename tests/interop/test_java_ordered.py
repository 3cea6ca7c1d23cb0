"""Official Java Remoting clients as ordered consumers: what becomes of a message that fails, and of those behind it.

Every scenario must also hold against Apache's servers (`--deployment apache`); one that does not is wrong itself.
"""

import contextlib

import pytest

from tests.interop.driver_run import wait_for
from tests.interop.events import Delivery
from tests.interop.group_deliveries import TIMEOUT_S, numbered, wait_keys
from tests.interop.java import JavaClient
from tests.interop.operator_client import Operator

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment")]

QUEUE = 1
FAILURES = 3


def test_a_failed_message_comes_again_in_its_place_before_the_next(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """SUSPEND_CURRENT_QUEUE_A_MOMENT: the same stored message again and again, its failures counted."""
    operator.send(topic, numbered("message"), queues=[QUEUE])
    consumer = running.enter_context(client.consume(topic, group, orderly=True, fail_first=FAILURES, expect=4))
    consumer.end()
    came = [(delivery.place[1:], delivery.key, delivery.reconsume_times) for delivery in consumer.events(Delivery)]
    assert came == [
        ((QUEUE, offset), key, failures)
        for offset, key in enumerate(numbered("message"))
        for failures in range(FAILURES + 1)
    ]


def test_a_message_that_fails_too_often_lets_the_next_one_come(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """maxReconsumeTimes 1: after its second failure the client sends it to the retry topic, the broker to the DLQ."""
    operator.send(topic, numbered("message", 2), queues=[QUEUE])
    consumer = running.enter_context(client.consume(topic, group, orderly=True, fail_first=9, max_reconsume=1))
    wait_keys(numbered("message", 2), consumer)
    late = running.enter_context(client.consume(f"%DLQ%{group}", f"{group}_dlq", "dlq", expect=2))
    wait_for(lambda: len(consumer.events(Delivery)) >= 4, [consumer], TIMEOUT_S, "not each message came twice")
    late.end()
    consumer.stop_consuming()
    came = [(delivery.key, delivery.reconsume_times) for delivery in consumer.events(Delivery)]
    assert came == [(key, failures) for key in numbered("message", 2) for failures in range(2)]
    dead = sorted((delivery.queue_offset, delivery.key) for delivery in late.events(Delivery))
    assert dead == list(enumerate(numbered("message", 2)))
