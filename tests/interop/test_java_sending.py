"""Official Java Remoting clients as senders: in order, for a reply, in batches of their own, compressed, in namespaces.

Every scenario must also hold against Apache's servers (`--deployment apache`); one that does not is wrong itself.
"""

import contextlib
import time

import pytest

from tests.interop import judge
from tests.interop.driver_run import DriverRun, wait_for
from tests.interop.events import Ack, Answered, Assigned, Delivery, Failure, Refused, Replied, Unanswered
from tests.interop.group_deliveries import TIMEOUT_S, keys_of, numbered, wait_event, wait_keys
from tests.interop.java import JavaClient, Option, settle
from tests.interop.operator_client import QUEUES, Operator

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment")]

BODY_SIZE_BYTES_MAX = 1 << 20
SETTINGS = {"maxMessageSize": str(BODY_SIZE_BYTES_MAX), "messageDelayLevel": "1s 1s 1s 1s 1s 1s"}
MESSAGE_ILLEGAL = 13
NO_MESSAGE = 208
"""The client's own code for a query that found nothing."""
SHARDS = 8


# --------------------------------------------------------------------------------------------------------------------
# In order
# --------------------------------------------------------------------------------------------------------------------


def shard_of(key: str) -> int:
    """The shard of `prefix-number`, as the driver chooses it."""
    return int(key.rpartition("-")[2]) % SHARDS


def out_of_order(deliveries: list[Delivery]) -> list[tuple[str, str]]:
    """Pairs of consumed messages of one shard, the later one first, in the order in which they were consumed."""
    last: dict[int, Delivery] = {}
    found = []
    for delivery in sorted(deliveries, key=lambda delivery: delivery.received_ms):
        if delivery.verdict != "success":
            continue
        before = last.get(shard_of(delivery.key))
        if before is not None and int(before.key.rpartition("-")[2]) > int(delivery.key.rpartition("-")[2]):
            found.append((before.key, delivery.key))
        last[shard_of(delivery.key)] = delivery
    return found


def consumed_by(consumer: DriverRun) -> list[Delivery]:
    """What it took without a failure."""
    return [delivery for delivery in consumer.events(Delivery) if delivery.verdict == "success"]


def test_shards_stay_in_order_when_members_come_and_go(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """Each shard goes to one queue; one member at a time has it, also when one of two leaves in the middle.

    A member that leaves in order gives its queues back, and what it had consumed does not come again.
    """
    operator.send(topic, numbered("first"))
    acks = client.send(topic, 200, mode="ordered", shards=SHARDS, prefix="early")
    assert all(len({ack.queue_id for ack in acks if shard_of(ack.key) == shard}) == 1 for shard in range(SHARDS))
    # Held until they see each other: a client of 4.9 that passes a queue on, and ends soon after, keeps it locked.
    options: dict[str, Option] = {"orderly": True, "fail_first": 1, "hold": True}
    leaving, staying = pair = [
        running.enter_context(client.consume(topic, group, instance=instance, **options)) for instance in ("a", "b")
    ]
    settle(pair, QUEUES)
    wait_for(lambda: len(leaving.events(Delivery)) >= 20, [leaving], TIMEOUT_S, "nothing came")
    leaving.stop_consuming()
    late = client.send(topic, 40, mode="ordered", shards=SHARDS, prefix="later")
    expected = {ack.key for ack in [*acks, *late]} | set(numbered("first"))

    def consumed() -> list[Delivery]:
        return [*consumed_by(leaving), *consumed_by(staying)]

    wait_for(lambda: expected <= {delivery.key for delivery in consumed()}, [staying], 60, "not all was consumed")
    staying.stop_consuming()
    for prefix in ("early", "later"):
        assert out_of_order([delivery for delivery in consumed() if delivery.key.startswith(prefix)]) == []
    assert len(consumed()) == len(expected), "nothing came again"


@pytest.mark.usefixtures("only_newest")
def test_the_queues_of_a_killed_member_are_handed_over(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """When its locks are over, in the middle of its work: the other one goes on where offsets were committed.

    Each of the two consumes each shard in order; what the dead one had not committed comes again, and nothing is lost.
    """
    operator.send(topic, numbered("first"))
    options: dict[str, Option] = {"orderly": True, "fail_first": 1, "hold": True}
    dying, staying = pair = [
        running.enter_context(client.consume(topic, group, instance=instance, **options)) for instance in ("a", "b")
    ]
    settle(pair, QUEUES)
    expected = set(numbered("message", 120))
    producer = running.enter_context(client.produce(topic, 120, mode="ordered", shards=SHARDS, interval_ms=40))
    wait_for(lambda: len(consumed_by(dying)) >= 10, [dying], TIMEOUT_S, "nothing came")
    dying.kill()
    killed_ms = int(time.time() * 1000)
    assert len(producer.events(Ack)) < 120, "the kill came when everything was sent already"
    producer.end()

    def has_all() -> bool:
        return expected <= {delivery.key for run in pair for delivery in consumed_by(run)}

    wait_for(has_all, [staying], 120, "the queues were not taken")
    staying.stop_consuming()
    for run in pair:
        assert out_of_order([delivery for delivery in consumed_by(run) if delivery.key in expected]) == []
    lost_queues = dying.events(Assigned)[-1].queues
    taken_over = [each for each in staying.events(Delivery) if f"{each.broker}:{each.queue_id}" in lost_queues]
    # A lock lasts for 60 s from its last renewal, which the client does every 20 s.
    assert min(delivery.received_ms for delivery in taken_over) - killed_ms > 30_000


# --------------------------------------------------------------------------------------------------------------------
# With a reply
# --------------------------------------------------------------------------------------------------------------------


def check_replies(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str, **options: Option
) -> None:
    operator.send(topic, numbered("old"))  # requests of nobody: the replier can't answer them, and goes on
    replier = running.enter_context(client.replier(topic, group))
    outcomes = client.request(topic, 20, **options)
    assert sorted(outcomes, key=lambda outcome: outcome.key) == sorted(
        (Answered(f"request-{number}", f"re: request-{number}") for number in range(20)), key=lambda each: each.key
    )
    assert {reply.status for reply in replier.events(Replied)} == {"SEND_OK"}
    replier.stop_consuming()


def test_a_request_gets_its_reply(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """Each its own, over the topic there and over the broker back; all at once."""
    check_replies(client, running, operator, topic, group, **{"async": True})


@pytest.mark.usefixtures("not_5_3_3")
def test_a_request_that_blocks_gets_its_reply(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """One after the other. The client of 5.3.3 gives up within milliseconds, at Apache's broker as well."""
    check_replies(client, running, operator, topic, group)


def test_a_request_that_nobody_answers_ends_in_time(client: JavaClient, operator: Operator, topic: str) -> None:
    """By the client's own clock."""
    operator.send(topic, numbered("old"))
    began = time.monotonic()
    assert client.request(topic, 1, wait_ms=1_000) == [Unanswered("request-0", "RequestTimeoutException")]
    assert time.monotonic() - began < TIMEOUT_S


# --------------------------------------------------------------------------------------------------------------------
# Batches, compression
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("since_5")
def test_the_client_makes_batches_of_single_sends(
    client: JavaClient,
    running: contextlib.ExitStack,
    operator: Operator,
    topic: str,
    group: str,
    deployment_kind: str,
) -> None:
    """Each message is where its acknowledgement says, with its own key and id, once."""
    operator.send(topic, numbered("first"))
    acks = client.send(topic, 200, mode="async", concurrency=64, accumulate=True)
    consumer = running.enter_context(client.consume(topic, group, expect=200 + QUEUES))
    consumer.end()
    deliveries = [delivery for delivery in consumer.events(Delivery) if not delivery.key.startswith("first")]
    assert sorted(delivery.key for delivery in deliveries) == sorted(f"message-{number}" for number in range(200))
    assert all(delivery.keys == delivery.key for delivery in deliveries)
    assert {ack.status for ack in acks} == {"SEND_OK"}
    assert judge.misplaced(acks, deliveries) == frozenset()
    assert len({delivery.place for delivery in deliveries}) == 200
    if deployment_kind != "apache":  # whose messages of a batch have other ids than their senders know
        assert judge.renamed(acks, deliveries) == frozenset()


def check_compression(
    client: JavaClient, running: contextlib.ExitStack, topic: str, group: str, compress_type: str
) -> None:
    acks = client.send(topic, 4, size_bytes=20_000, compress_over=100, compress_type=compress_type)
    consumer = running.enter_context(client.consume(topic, group, expect=4))
    consumer.end()
    deliveries = consumer.events(Delivery)
    assert {delivery.size_bytes for delivery in deliveries} == {20_000}
    assert judge.misplaced(acks, deliveries) == frozenset()


def test_compressed_bodies_come_back_as_they_were(
    client: JavaClient, running: contextlib.ExitStack, topic: str, group: str
) -> None:
    """The broker stores what it gets and hands it out."""
    check_compression(client, running, topic, group, "ZLIB")


@pytest.mark.usefixtures("since_5")
@pytest.mark.parametrize("compress_type", ["LZ4", "ZSTD"])
def test_newer_compressions_come_back_too(
    client: JavaClient, running: contextlib.ExitStack, topic: str, group: str, compress_type: str
) -> None:
    """The algorithm is three bits of the system flag, which go the same way."""
    check_compression(client, running, topic, group, compress_type)


# --------------------------------------------------------------------------------------------------------------------
# With names of fields written out
# --------------------------------------------------------------------------------------------------------------------


def test_headers_with_long_names_are_served_alike(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """SEND_MESSAGE (10), as clients in other languages send; also when each queue began (32)."""
    began_ms = int(time.time() * 1000) - 1_000
    operator.send(topic, numbered("old"))
    acks = client.send(topic, 8, prefix="long", long_headers=True)
    consumer = running.enter_context(client.consume(topic, group, expect=8 + QUEUES))
    consumer.end()
    assert judge.misplaced(acks, consumer.events(Delivery)) == frozenset()
    assert judge.renamed(acks, consumer.events(Delivery)) == frozenset()
    earliest = [queue.earliest_ms for queue in client.offsets(topic)]
    assert all(began_ms <= stored_ms <= time.time() * 1000 for stored_ms in earliest), earliest


# --------------------------------------------------------------------------------------------------------------------
# Namespaces
# --------------------------------------------------------------------------------------------------------------------


def wait_retried(consumer: DriverRun, wanted: set[str]) -> None:
    """Waits until these, and no others, were consumed after their first failure."""

    def is_done() -> bool:
        return wanted <= {delivery.key for delivery in consumer.events(Delivery) if delivery.verdict == "success"}

    wait_for(is_done, [consumer], 60, "not all was consumed")
    assert set(keys_of(consumer)) == wanted


def test_namespaces_do_not_see_each_other(
    client: JavaClient, running: contextlib.ExitStack, topic: str, group: str
) -> None:
    """The same topic and group in two of them: messages and retries stay in theirs, and names are as they were told."""
    names = ("blue", "green")
    consumers = []
    for name in names:
        client.send(topic, 8, prefix=name, namespace=name)
        options: dict[str, Option] = {"fail_first": 1, "retry_level": 1, "namespace": name}
        consumers.append(running.enter_context(client.consume(topic, group, instance=name, **options)))
    for name, consumer in zip(names, consumers, strict=True):
        wait_retried(consumer, {f"{name}-{number}" for number in range(8)})
        consumer.stop_consuming()
        deliveries = consumer.events(Delivery)
        assert {delivery.topic for delivery in deliveries} == {topic}
        assert sorted(delivery.reconsume_times for delivery in deliveries) == [0] * 8 + [1] * 8


def test_what_fails_too_often_stays_in_its_namespace(
    client: JavaClient, running: contextlib.ExitStack, topic: str, group: str
) -> None:
    """Its DLQ has the namespace's name before the group's, and holds this namespace's message alone."""
    client.send(topic, 1, prefix="blue", namespace="blue")
    client.send(topic, 1, prefix="green", namespace="green")
    consumer = running.enter_context(
        client.consume(topic, group, fail_first=9, retry_level=1, max_reconsume=1, namespace="blue")
    )

    def came_twice() -> bool:
        return [delivery.reconsume_times for delivery in consumer.events(Delivery)] == [0, 1]

    wait_for(came_twice, [consumer], TIMEOUT_S, "the message did not come twice")
    dead = running.enter_context(client.consume(f"%DLQ%blue%{group}", f"{group}_dlq", "dlq", expect=1))
    dead.end()
    assert keys_of(dead) == ["blue-0"]
    consumer.stop_consuming()


@pytest.mark.usefixtures("since_5")
def test_a_namespace_of_version_2_is_a_field_that_brokers_pass_over(
    client: JavaClient, running: contextlib.ExitStack, topic: str, group: str
) -> None:
    """Names stay as they are: clients of two namespaces share a topic, and failures come again."""
    for name in ("blue", "green"):
        client.send(topic, 4, prefix=name, namespace_v2=name)
    options: dict[str, Option] = {"fail_first": 1, "retry_level": 1, "namespace_v2": "blue"}
    consumer = running.enter_context(client.consume(topic, group, instance="a", **options))
    wait_retried(consumer, {f"{name}-{number}" for name in ("blue", "green") for number in range(4)})
    consumer.stop_consuming()


# --------------------------------------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"size_bytes": BODY_SIZE_BYTES_MAX + 1, "max_body": 8 << 20, "compress_over": 8 << 20}, MESSAGE_ILLEGAL),
        ({"property_bytes": 32_768}, MESSAGE_ILLEGAL),
    ],
)
def test_what_is_too_large_is_refused(
    client: JavaClient, operator: Operator, topic: str, options: dict[str, Option], code: int
) -> None:
    """With the code that makes no client try again; nothing is stored."""
    operator.send(topic, numbered("first"))
    with client.produce(topic, 1, deadline=0, retries=2, **options) as producer:
        producer.end(expected_exit_code=2)
        assert [failure.code for failure in producer.events(Failure)] == [code]
    assert [queue.max for queue in client.offsets(topic)] == [1] * QUEUES


def test_a_topic_of_the_system_takes_no_message(client: JavaClient) -> None:
    """Nobody sends past the delay levels' own queue."""
    with client.produce("SCHEDULE_TOPIC_XXXX", 1, deadline=0, retries=0) as producer:
        producer.end(expected_exit_code=2)
        (failure,) = producer.events(Failure)
    assert "SCHEDULE_TOPIC_XXXX" in failure.error


# --------------------------------------------------------------------------------------------------------------------
# Looking messages up
# --------------------------------------------------------------------------------------------------------------------


def test_a_message_is_found_by_its_keys_and_ids(client: JavaClient, operator: Operator, topic: str) -> None:
    """By key, by unique key, by the id that names its place; by key only in its time; a stranger's by none."""
    before_ms = int(time.time() * 1000) - 1_000
    place_id = operator.send_one(topic, "placed-0")
    acks = client.send(topic, 8, prefix="sent")
    after_ms = int(time.time() * 1000) + 1_000
    wanted = acks[3]
    by_key, no_key = client.query(topic, key=f"{wanted.key},stranger", begin_ms=before_ms, end_ms=after_ms)
    by_id, placed, no_id = client.query(topic, id=f"{wanted.msg_id},{place_id},{stranger_of(wanted.msg_id)}")
    (too_late,) = client.query(topic, key=wanted.key, begin_ms=0, end_ms=before_ms - 60_000)
    for message in (by_key, by_id):
        assert isinstance(message, Delivery), message
        # A message that was looked up names no broker.
        assert (message.key, message.place[1:], message.msg_id) == (wanted.key, wanted.place[1:], wanted.msg_id)
    assert isinstance(placed, Delivery), placed
    assert placed.key == "placed-0"
    for refused in (no_key, no_id, too_late):
        assert isinstance(refused, Refused), refused
        assert refused.code == NO_MESSAGE


def stranger_of(unique_key: str) -> str:
    """A unique key of the same process and time that no message has: its last two bytes are a count."""
    return unique_key[:-4] + "FFFF"


# --------------------------------------------------------------------------------------------------------------------
# Tracing as the clients do it
# --------------------------------------------------------------------------------------------------------------------


def test_clients_write_and_read_the_trace_topic(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """What was sent and consumed is told in RMQ_SYS_TRACE_TOPIC, found there by the message's id.

    Both clients stay up until it is told: at its end a client waits for what waits in its dispatcher's two queues, but
    not for what is between them or on its way, and 4.9.8 loses that now and then.
    """
    operator.send(topic, numbered("first"))
    producer = running.enter_context(client.produce(topic, 1, prefix="traced", trace=True, interval_ms=600_000))
    wait_event(producer, Ack)
    (ack,) = producer.events(Ack)
    consumer = running.enter_context(client.consume(topic, group, trace=True))
    wait_keys([ack.key], consumer)
    deadline = time.monotonic() + TIMEOUT_S
    kinds: set[str] = set()
    while not {"Pub", "SubBefore", "SubAfter"} <= kinds:
        assert time.monotonic() < deadline, f"only {kinds} are told"
        found = client.query("RMQ_SYS_TRACE_TOPIC", key=ack.msg_id)
        kinds = {kind for message in found if isinstance(message, Delivery) for kind in trace_kinds(message)}
    consumer.stop_consuming()


def trace_kinds(message: Delivery) -> list[str]:
    """What a trace message tells of: its parts begin with a word and 0x01, and end with 0x02."""
    return [part.partition("\x01")[0] for part in message.key.split("\x02") if part]
