"""Official Java Remoting clients, 5.x and 4.9, against a started cluster.

Every scenario must also hold against Apache's servers (`--deployment apache`); one that does not is wrong itself.
"""

import contextlib
import itertools
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence

import pytest

from tests.interop import judge
from tests.interop.conftest import NewClient
from tests.interop.deployments import DEPLOYMENTS
from tests.interop.driver_run import DriverRun, wait_for
from tests.interop.events import Abandoned, Ack, Delivery, Failure, Sent
from tests.interop.java import JavaClient, Option, settle
from tools.bench import frames, single
from tools.bench.server_process import split_address

pytestmark = pytest.mark.verify

QUEUES = 4
COUNT_PER_MODE = 2500
MODES: dict[str, dict[str, Option]] = {
    "sync": {"mode": "sync", "concurrency": 4},
    "async": {"mode": "async", "concurrency": 32},
    "oneway": {"mode": "oneway"},
    "batch": {"mode": "batch", "batch_size": 25, "concurrency": 2},
}
PATIENT: dict[str, Option] = {"retries": 0, "deadline": 180}
"""Each attempt is the driver's own, so that the number of attempts is known; none is given up before the deadline."""
QUIET_S = 2.0
"""How long after the last expected message one too many would have come: the client's pulls pause no longer."""
OFFSETS_ON_DISK_S = 3.0
"""Longer than a broker of these deployments keeps a committed offset in memory only (Apache's: 1 s, as configured)."""
TOPIC_NOT_EXIST = 17
CLIENT_NOT_FOUND_TOPIC = 10005
"""The client's own code for a topic that no name server knows."""


def deliveries_of(consumers: Iterable[DriverRun]) -> list[Delivery]:
    return list(itertools.chain.from_iterable(consumer.events(Delivery) for consumer in consumers))


def keys_of(deliveries: Iterable[Delivery]) -> set[str]:
    return {delivery.key for delivery in deliveries}


def wait_delivered(consumers: Sequence[DriverRun], expected: set[str], timeout_s: float = 120.0) -> None:
    def is_done() -> bool:
        return expected <= keys_of(deliveries_of(consumers))

    wait_for(is_done, consumers, timeout_s, f"{len(expected)} messages were not all delivered")


def start_pair(
    client: JavaClient, running: contextlib.ExitStack, topic: str, group: str, **options: Option
) -> list[DriverRun]:
    """Two settled members of a group."""
    consumers = [
        running.enter_context(client.consume(topic, group, instance=instance, hold=True, **options))
        for instance in ("a", "b")
    ]
    settle(consumers, QUEUES)
    return consumers


def committed_offsets(client: JavaClient, topic: str, group: str) -> dict[tuple[str, int], int]:
    return {(queue.broker, queue.queue_id): queue.committed for queue in client.offsets(topic, group)}


def max_offsets(client: JavaClient, topic: str) -> dict[tuple[str, int], int]:
    return {(queue.broker, queue.queue_id): queue.max for queue in client.offsets(topic)}


@pytest.mark.parametrize("consumers_start", ["before", "after"])
def test_a_group_of_two_gets_every_message_once(
    client: JavaClient, running: contextlib.ExitStack, topic: str, consumers_start: str
) -> None:
    """Sync, async, oneway and batch sends: no message lost, none twice, each from where its answer said it is."""
    group = "group_" + topic
    acks = client.send(topic, 1, prefix="first")  # creates the topic, so that a group has queues to share
    if consumers_start == "before":
        consumers = start_pair(client, running, topic, group)
    producers = [
        running.enter_context(client.produce(topic, COUNT_PER_MODE, prefix=prefix, retries=0, **mode))
        for prefix, mode in MODES.items()
    ]
    for producer in producers:
        producer.end(timeout_s=120)
        acks += producer.events(Ack)
    sent = [sent.key for producer in producers for sent in producer.events(Sent)]
    if consumers_start == "after":
        consumers = start_pair(client, running, topic, group)

    expected = {ack.key for ack in acks} | set(sent)
    assert len(acks) == 1 + 3 * COUNT_PER_MODE
    assert len(expected) == 1 + 4 * COUNT_PER_MODE
    wait_delivered(consumers, expected)
    time.sleep(QUIET_S)
    for consumer in consumers:
        consumer.stop_consuming()
    deliveries = deliveries_of(consumers)
    assert keys_of(deliveries) == expected
    assert len(deliveries) == len(expected)
    assert judge.misplaced(acks, deliveries) == frozenset()
    assert judge.renamed([ack for ack in acks if not ack.key.startswith("batch")], deliveries) == frozenset()
    assert judge.gaps(deliveries) == []
    assert all(delivery.keys == delivery.key for delivery in deliveries)
    assert all(consumer.events(Delivery) for consumer in consumers)
    assert committed_offsets(client, topic, group) == max_offsets(client, topic)


def test_nothing_acknowledged_is_lost_when_the_broker_is_killed(
    deployment_kind: str,
    new_client: NewClient,
    running: contextlib.ExitStack,
    topic: str,
    tmp_path: pathlib.Path,
    record_property: Callable[[str, object], None],
) -> None:
    """SIGKILL in the middle, restart on the same ports and data: duplicates only where at-least-once allows them."""
    cluster = running.enter_context(DEPLOYMENTS[deployment_kind](tmp_path / "cluster", {}))
    client = new_client(cluster)
    group = "group_" + topic
    acks = client.send(topic, 200, prefix="early")
    consumers = start_pair(client, running, topic, group)
    committed = wait_committed(client, topic, group)

    producers = [
        running.enter_context(
            client.produce(topic, COUNT_PER_MODE, prefix=prefix, interval_ms=interval_ms, **PATIENT, **MODES[prefix])
        )
        for prefix, interval_ms in (("sync", 4), ("async", 1), ("batch", 50))
    ]
    wait_for(lambda: all(len(run.events(Ack)) >= 500 for run in producers), producers, 60, "500 sends each")
    cluster.kill_broker()
    cluster.start_broker()
    for producer in producers:
        producer.end(timeout_s=200)
        assert producer.events(Abandoned) == []
        acks += producer.events(Ack)
    failures = [failure for producer in producers for failure in producer.events(Failure)]
    assert failures, "the kill came when every message was acknowledged already"

    expected = {ack.key for ack in acks}
    assert len(expected) == 200 + 3 * COUNT_PER_MODE
    wait_delivered(consumers, expected)
    time.sleep(QUIET_S)
    for consumer in consumers:
        consumer.stop_consuming()
    deliveries = deliveries_of(consumers)
    found = judge.duplicates(deliveries)
    counts = len(failures), len(found.stored_twice), len(found.redelivered)
    figures = "{} failed sends, {} stored twice, {} redelivered".format(*counts)
    record_property("kill", figures)
    print(f"{deployment_kind}: {figures}")
    assert keys_of(deliveries) == expected
    assert judge.misplaced(acks, deliveries) == frozenset()
    assert judge.renamed([ack for ack in acks if not ack.key.startswith("batch")], deliveries) == frozenset()
    assert judge.unexplained(found, failures, committed) == []
    assert judge.gaps(deliveries) == []
    assert committed_offsets(client, topic, group) == max_offsets(client, topic)
    with client.consume(topic, group, instance="c", until_idle_ms=3000) as late:
        late.end()
        assert late.events(Delivery) == []


def wait_committed(client: JavaClient, topic: str, group: str) -> dict[tuple[str, int], int]:
    """Waits until the group has committed all there is; the offsets, on the broker's disk by the time of return."""
    end = max_offsets(client, topic)
    deadline = time.monotonic() + 60
    while (committed := committed_offsets(client, topic, group)) != end:
        assert time.monotonic() < deadline, f"committed {committed}, max {end}"
    time.sleep(OFFSETS_ON_DISK_S)
    return committed


def test_a_failed_message_comes_again_through_the_retry_topic(
    client: JavaClient, running: contextlib.ExitStack, topic: str
) -> None:
    """RECONSUME_LATER sends a message back; it comes once more, later, with reconsumeTimes 1 and its identity kept."""
    acks = client.send(topic, 20, tags="TagA")
    consumer = running.enter_context(
        client.consume(topic, "group_" + topic, fail_first=1, retry_level=1, expect=20, deadline=90)
    )
    consumer.end(timeout_s=100)
    deliveries = consumer.events(Delivery)
    first = {delivery.key: delivery for delivery in deliveries if delivery.verdict == "later"}
    second = {delivery.key: delivery for delivery in deliveries if delivery.verdict == "success"}
    assert len(deliveries) == 40
    assert set(first) == set(second) == {ack.key for ack in acks}
    assert {delivery.reconsume_times for delivery in first.values()} == {0}
    assert {delivery.reconsume_times for delivery in second.values()} == {1}
    for key, again in second.items():
        assert (again.topic, again.tags, again.keys) == (topic, "TagA", key)
        assert again.msg_id == first[key].msg_id
        assert again.store_ms - first[key].received_ms >= 1000, "delay level 1 is one second, and never early"


def test_a_waiting_pull_is_answered_when_a_message_arrives(
    client: JavaClient, running: contextlib.ExitStack, topic: str
) -> None:
    """The client's pulls are held for 15 s; a message that arrives meanwhile is delivered at once."""
    client.send(topic, 4, prefix="first")
    consumer = running.enter_context(client.consume(topic, "group_" + topic))
    wait_delivered([consumer], {f"first-{number}" for number in range(4)})
    client.send(topic, 20, prefix="later", interval_ms=250)
    wait_delivered([consumer], {f"later-{number}" for number in range(20)})
    waits_ms = sorted(
        delivery.received_ms - delivery.store_ms
        for delivery in consumer.events(Delivery)
        if delivery.key.startswith("later")
    )
    consumer.stop_consuming()
    print(f"median {waits_ms[10]} ms, longest {waits_ms[-1]} ms")
    assert waits_ms[-1] < 3000


def test_offsets_are_found_by_end_and_by_time(client: JavaClient, topic: str) -> None:
    """Min, max, by store time and committed offsets of each queue, as the admin calls of the client see them."""
    before_ms = int(time.time() * 1000) - 60_000
    early = client.send(topic, 20, prefix="early")
    time.sleep(0.05)
    between_ms = int(time.time() * 1000)
    time.sleep(0.05)
    late = client.send(topic, 20, prefix="late")
    after_ms = int(time.time() * 1000) + 60_000

    early_counts = [sum(ack.queue_id == queue for ack in early) for queue in range(QUEUES)]
    counts = [sum(ack.queue_id == queue for ack in early + late) for queue in range(QUEUES)]
    queues = client.offsets(topic, timestamp_ms=between_ms)
    assert [queue.queue_id for queue in queues] == list(range(QUEUES))
    assert [queue.min for queue in queues] == [0] * QUEUES
    assert [queue.max for queue in queues] == counts
    assert [queue.by_time for queue in queues] == early_counts
    assert [queue.by_time for queue in client.offsets(topic, timestamp_ms=before_ms)] == [0] * QUEUES
    assert [queue.by_time for queue in client.offsets(topic, timestamp_ms=after_ms)] == counts
    # A group that never was has no offset (-1), or 0 while offset 0 is still in memory: RocketMQ answers both.
    assert {queue.committed for queue in queues} <= {-1, 0}


def test_pull_answers_within_at_the_end_and_outside(client: JavaClient, topic: str) -> None:
    """FOUND with the messages in order, NO_NEW_MSG at the end, OFFSET_ILLEGAL with the right offset beyond it."""
    acks = client.send(topic, 40)
    stored = {
        queue: sorted((ack.queue_offset, ack.key) for ack in acks if ack.queue_id == queue) for queue in range(QUEUES)
    }
    for whole in client.pull(topic, offset=0, max=32):
        count = len(stored[whole.queue_id])
        assert (whole.status, whole.next, whole.min, whole.max) == ("FOUND", count, 0, count)
        assert list(zip(whole.offsets, whole.keys, strict=True)) == stored[whole.queue_id]
    for part in client.pull(topic, offset=1, max=2):
        assert (part.status, part.next, part.offsets) == ("FOUND", 3, [1, 2])
    for end in client.pull(topic, beyond_max=0):
        assert (end.status, end.next) == ("NO_NEW_MSG", len(stored[end.queue_id]))
    for beyond in client.pull(topic, beyond_max=100):
        assert (beyond.status, beyond.next) == ("OFFSET_ILLEGAL", len(stored[beyond.queue_id]))


def test_the_first_send_creates_its_topic(client: JavaClient, topic: str) -> None:
    """With autoCreateTopicEnable a topic that nobody created gets the four queues that the producer asks for."""
    acks = client.send(topic, 8)
    assert {ack.status for ack in acks} == {"SEND_OK"}
    assert [queue.queue_id for queue in client.offsets(topic)] == list(range(QUEUES))


def test_an_unknown_topic_is_refused_without_auto_creation(
    deployment_kind: str, new_client: NewClient, running: contextlib.ExitStack, topic: str, tmp_path: pathlib.Path
) -> None:
    """The client finds no route, and a broker that is asked all the same says TOPIC_NOT_EXIST."""
    settings = {"autoCreateTopicEnable": "false"}
    cluster = running.enter_context(DEPLOYMENTS[deployment_kind](tmp_path / "cluster", settings))
    with new_client(cluster).produce(topic, 1, deadline=1) as producer:
        producer.end(expected_exit_code=2)
        assert {failure.code for failure in producer.events(Failure)} == {CLIENT_NOT_FOUND_TOPIC}
        assert [given_up.key for given_up in producer.events(Abandoned)] == ["message-0"]
    host, port = split_address(cluster.broker)
    reply = single.exchange(host, port, frames.send_template(topic, queue_id=0, slot=0, body=b"x").frame)
    assert reply.code == TOPIC_NOT_EXIST
    assert topic in reply.remark


def test_tags_choose_messages(client: JavaClient, running: contextlib.ExitStack, topic: str) -> None:
    """A subscription `TagA || TagC` gets those and nothing of TagB."""
    for tag in ("TagA", "TagB", "TagC"):
        client.send(topic, 20, prefix=tag, tags=tag)
    consumer = running.enter_context(client.consume(topic, "group_" + topic, tags="TagA || TagC", expect=40))
    consumer.end()
    expected = {f"{tag}-{number}" for tag in ("TagA", "TagC") for number in range(20)}
    assert keys_of(consumer.events(Delivery)) == expected
    assert len(consumer.events(Delivery)) == len(expected)


def test_orderly_consumers_see_each_queue_in_order(
    client: JavaClient, running: contextlib.ExitStack, topic: str
) -> None:
    """Queues are locked to one member each, and a message that fails at first holds back those behind it."""
    group = "group_" + topic
    client.send(topic, 4, prefix="first")
    consumers = start_pair(client, running, topic, group, orderly=True, fail_first=1)
    acks = client.send(topic, 40, mode="async", concurrency=8)
    expected = {ack.key for ack in acks} | {f"first-{number}" for number in range(4)}

    def is_done() -> bool:
        return expected <= {delivery.key for delivery in deliveries_of(consumers) if delivery.verdict == "success"}

    wait_for(is_done, consumers, 90, "not every message was consumed")
    for consumer in consumers:
        consumer.stop_consuming()
        assert judge.out_of_order(consumer.events(Delivery)) == []
    assert judge.gaps(deliveries_of(consumers)) == []


@pytest.mark.parametrize("size_bytes", [4095, 4096, 1_000_000])
def test_large_bodies_arrive_whole(
    client: JavaClient, running: contextlib.ExitStack, topic: str, size_bytes: int
) -> None:
    """The client compresses from 4096 bytes on, and the broker stores and hands out what it got."""
    client.send(topic, 8, size_bytes=size_bytes)
    consumer = running.enter_context(client.consume(topic, "group_" + topic, expect=8))
    consumer.end()
    assert {delivery.size_bytes for delivery in consumer.events(Delivery)} == {size_bytes}


def test_an_orderly_stop_keeps_everything(
    deployment_kind: str, new_client: NewClient, running: contextlib.ExitStack, topic: str, tmp_path: pathlib.Path
) -> None:
    """SIGTERM ends every process with code 0; messages and committed offsets are there after the next start."""
    cluster = running.enter_context(DEPLOYMENTS[deployment_kind](tmp_path / "cluster", {}))
    client = new_client(cluster)
    group = "group_" + topic
    client.send(topic, 100, prefix="before")
    running.enter_context(client.consume(topic, group, expect=100)).end()
    cluster.stop()
    cluster.start()
    client.send(topic, 100, prefix="after")
    # Not "until nothing comes for a while": a client whose subscription changed while its heartbeat was on the way is
    # refused (25) for some queues and asks again only 3 s later, more than once on a busy machine.
    consumer = running.enter_context(client.consume(topic, group, instance="b", expect=100))
    consumer.end()
    assert keys_of(consumer.events(Delivery)) == {f"after-{number}" for number in range(100)}
    assert sum(max_offsets(client, topic).values()) == 200
