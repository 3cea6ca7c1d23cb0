"""Which queue a message group's messages go to."""

import pytest
from apogeemq.proxy.core.queue_choice import QueueChooser, java_string_hash, jump_hash
from apogeemq.proxy.core.routes import WritableQueue

# Printed by Java 17 and Guava 32.0.1: text, String.hashCode, Hashing.consistentHash with 1, 2, 4, 8, 16, 100 buckets.
JAVA = [
    ("", 0, (0, 0, 0, 0, 0, 0)),
    ("a", 97, (0, 0, 0, 0, 0, 29)),
    ("orders-1", 1234322249, (0, 1, 3, 4, 15, 84)),
    ("orders-2", 1234322250, (0, 1, 3, 4, 8, 41)),
    ("grüße", 98768023, (0, 0, 0, 6, 8, 30)),
    ("𝄞", 1772394, (0, 0, 3, 7, 11, 43)),
    ("zzzzzzzzzzzzzzzz", -509494784, (0, 1, 3, 3, 10, 64)),
]


@pytest.mark.parametrize(("message_group", "hash_code", "buckets"), JAVA)
def test_a_group_goes_where_apaches_proxy_sends_it(
    message_group: str, hash_code: int, buckets: tuple[int, ...]
) -> None:
    """Java's hash of the text, Guava's consistent hash of that: a cluster that moves over keeps its order."""
    assert java_string_hash(message_group) == hash_code
    assert tuple(jump_hash(hash_code, count) for count in (1, 2, 4, 8, 16, 100)) == buckets


def test_no_other_queue_is_tried_for_a_group() -> None:
    """Its order lies in one queue: when that one's broker fails, the send fails."""
    queues = [WritableQueue(name, queue_id) for name in ("a", "b") for queue_id in range(2)]
    chosen = QueueChooser.choose_for_group("orders-1", queues)
    assert chosen == WritableQueue("b", 1)
    assert QueueChooser.choose_for_group("orders-1", queues, {"b"}) is None
