"""Official Java Remoting clients as consumers: what they choose, where they begin, and how a group shares its queues.

Every scenario must also hold against Apache's servers (`--deployment apache`); one that does not is wrong itself.
"""

import contextlib
import pathlib
import time

import pytest

from tests.e2e.process import poll_until
from tests.interop.conftest import NewClient
from tests.interop.deployments import DEPLOYMENTS
from tests.interop.driver_run import DriverRun, wait_for
from tests.interop.events import Committed, Delivery, Pulled, Pulling, Refused, Sought, Suspended
from tests.interop.group_deliveries import TIMEOUT_S, keys_of, numbered, wait_event, wait_keys, wait_shared
from tests.interop.java import JavaClient, Option
from tests.interop.operator_client import QUEUES, Operator

pytestmark = [pytest.mark.verify, pytest.mark.usefixtures("one_deployment")]

SUBSCRIPTION_PARSE_FAILED = 23
POP_INVISIBLE_S = 5.0
"""How long a popped message is hidden, as the driver asks."""
QUIET_S = 1.5
"""How long after it was due one message too many would have come."""
SETTINGS = {
    "enablePropertyFilter": "true",  # Apache's default is false
    "messageDelayLevel": "1s 5s 2s 3s 5s 5s 5s 5s 5s 5s",  # a first retry of default level (3) after 2 s, not after 10
}


def start_all(
    client: JavaClient, running: contextlib.ExitStack, topic: str, group: str, instances: str, **options: Option
) -> list[DriverRun]:
    """Members of a group, started at a time."""
    consumers = [
        running.enter_context(client.begin_consuming(topic, group, instance, **options)) for instance in instances
    ]
    for consumer in consumers:
        consumer.wait_started()
    return consumers


# --------------------------------------------------------------------------------------------------------------------
# What they choose
# --------------------------------------------------------------------------------------------------------------------


def test_a_sql92_expression_chooses_messages(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """By user properties and tags: numbers compared as numbers, and a message without the property left out."""
    for number in range(12):
        properties = {"a": str(number), "region": "north" if number % 2 else "south", "TAGS": f"Tag{number % 3}"}
        operator.send_one(topic, f"message-{number}", properties, queue_id=number % QUEUES)
    operator.send(topic, ["bare"])
    sql = "(a BETWEEN 3 AND 10 AND region = 'north') OR (TAGS IN ('Tag0') AND a < 1)"
    consumer = running.enter_context(client.consume(topic, group, sql=sql))
    for queue_id in range(QUEUES):
        operator.send_one(topic, f"end-{queue_id}", {"a": "5", "region": "north"}, queue_id=queue_id)
    expected = [*numbered("end"), *(f"message-{number}" for number in (0, 3, 5, 7, 9))]
    wait_keys(expected, consumer)  # the client's threads hand out a queue's messages side by side
    consumer.stop_consuming()
    assert keys_of(consumer) == expected


def test_an_invalid_sql92_expression_is_refused_at_the_start(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """The client asks the broker whether it understands the expression, and does not start."""
    operator.send(topic, ["first"])
    consumer = running.enter_context(client.begin_consuming(topic, group, sql="a > > 3"))
    consumer.end()
    (refused,) = consumer.events(Refused)
    assert refused.code == SUBSCRIPTION_PARSE_FAILED
    assert refused.error, "no reason"


# --------------------------------------------------------------------------------------------------------------------
# How they pull
# --------------------------------------------------------------------------------------------------------------------


def test_a_pull_that_finds_nothing_for_its_tags_moves_on(client: JavaClient, operator: Operator, topic: str) -> None:
    """NO_MATCHED_MSG with the next offset behind all that was looked at."""
    operator.send(topic, numbered("message", 8), tags="TagA")
    for pulled in client.pull(topic, offset=0, tags="TagB"):
        assert (pulled.status, pulled.next, pulled.max, pulled.keys) == ("NO_MATCHED_MSG", 2, 2, [])


def test_a_blocking_pull_waits_for_a_message(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str
) -> None:
    """pullBlockIfNotFound at the queue's end is answered when a message comes, not at its time limit of 20 s."""
    operator.send(topic, ["first"], queues=[2])
    options: dict[str, Option] = {"topic": topic, "group": "interop_pullers", "beyond_max": 0, "queue": 2}
    puller = running.enter_context(client.start("pull", "pull", {**options, "block": True}))
    wait_event(puller, Pulling)
    time.sleep(0.5)  # what is judged is a wait
    assert puller.events(Pulled) == []
    operator.send(topic, ["second"], queues=[2])
    sent = time.monotonic()
    puller.end()
    (pulled,) = puller.events(Pulled)
    assert (pulled.status, pulled.keys, pulled.offsets, pulled.next) == ("FOUND", ["second"], [1], 2)
    assert time.monotonic() - sent < 10


def test_lite_pull_with_auto_commit(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """subscribe(): all messages once, and what was polled is committed without a word."""
    operator.send(topic, numbered("message", 8))
    # It commits at the first poll that comes a second after the last commit.
    consumer = running.enter_context(client.lite_pull(topic, group, until_idle_ms=1500))
    consumer.end()
    assert operator.committed(topic, group) == dict.fromkeys(range(QUEUES), 2)
    assert keys_of(consumer) == numbered("message", 8)


def test_lite_pull_with_manual_commit(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """What was polled and not committed comes again to the next one; what was committed does not."""
    operator.send(topic, numbered("message", 8))
    first = running.enter_context(client.lite_pull(topic, group, manual=True))
    wait_keys(numbered("message", 8), first)
    first.stop_consuming()
    assert operator.committed(topic, group) in ({}, dict.fromkeys(range(QUEUES), 0))
    second = running.enter_context(client.lite_pull(topic, group, manual=True))
    wait_keys(numbered("message", 8), second)
    second.send_line("commit")
    wait_event(second, Committed)
    second.stop_consuming()
    assert operator.committed(topic, group) == dict.fromkeys(range(QUEUES), 2)
    assert keys_of(second) == numbered("message", 8)


def test_lite_pull_with_queues_of_its_own_and_a_seek(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """assign() and seek(): every queue from its beginning, and then again from the offset that was asked for.

    It seeks when all has come: a stock client may hand out what a pull brings that was under way when it sought.
    """
    messages, later = numbered("message", 12), numbered("later", 4)
    operator.send(topic, messages)
    consumer = running.enter_context(client.lite_pull(topic, group, assign=True))
    wait_keys(messages, consumer)
    consumer.send_line("seek 2")
    wait_event(consumer, Sought)
    operator.send(topic, later)  # behind what comes again, in each queue
    wait_keys(later, consumer)
    consumer.stop_consuming()
    assert keys_of(consumer) == sorted([*messages, *messages[8:], *later])


# --------------------------------------------------------------------------------------------------------------------
# How a group shares
# --------------------------------------------------------------------------------------------------------------------


def test_broadcasting_members_each_get_every_message(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """A member that was away goes on where it was, by offsets of its own; the broker keeps none."""
    operator.send(topic, numbered("early", 8))
    first, second = start_all(client, running, topic, group, "ab", broadcast=True)
    wait_keys(numbered("early", 8), first)
    first.stop_consuming()
    operator.send(topic, numbered("late", 8))
    (again,) = start_all(client, running, topic, group, "a", broadcast=True)
    wait_keys(numbered("late", 8), again)
    wait_keys([*numbered("early", 8), *numbered("late", 8)], second)
    operator.send(topic, numbered("end"))
    for consumer in (again, second):
        wait_keys(numbered("end"), consumer)
    assert keys_of(first) == numbered("early", 8)
    assert keys_of(again) == sorted(numbered("late", 8) + numbered("end"))
    assert keys_of(second) == sorted(numbered("early", 8) + numbered("late", 8) + numbered("end"))
    assert operator.committed(topic, group) == {}


def shares_of(java_version: str) -> dict[str, Option]:
    """Makes a client ask the broker for its share of the queues; one of 4.9 can't, and takes it itself."""
    return {} if java_version.startswith("4.") else {"broker_shares": True}


def test_the_broker_tells_members_their_queues(
    client: JavaClient, java_version: str, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """QUERY_ASSIGNMENT: two members share the queues and get each message once; then one has them all."""
    operator.send(topic, ["first"])
    consumers = start_all(client, running, topic, group, "ab", **shares_of(java_version))
    wait_shared(consumers)
    operator.send(topic, numbered("message", 40))
    wait_keys(numbered("message", 40), *consumers)
    operator.send(topic, numbered("end"))
    wait_keys(numbered("end"), *consumers)
    deliveries = [key for key in keys_of(*consumers) if key != "first"]
    assert deliveries == sorted(numbered("message", 40) + numbered("end"))
    assert all(len(keys_of(consumer)) >= 10 for consumer in consumers)
    consumers[0].stop_consuming()
    wait_shared(consumers[1:])


def test_the_broker_tells_members_to_pop(
    client: JavaClient, java_version: str, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """SET_MESSAGE_REQUEST_MODE: the same clients pop instead, and get each message once. One of 4.9 pulls as ever.

    Of members that pull, two may get the first message: the one had its queue alone, and had not committed yet.
    """
    pops = not java_version.startswith("4.")
    operator.send(topic, ["first"])
    operator.let_pop(topic, group)
    consumers = start_all(client, running, topic, group, "ab", properties=True, **shares_of(java_version))
    wait_keys(["first"], *consumers)
    if not pops:
        wait_shared(consumers)
    operator.send(topic, numbered("message", 40))
    wait_keys(numbered("message", 40), *consumers)
    operator.send(topic, numbered("end"))
    wait_keys(numbered("end"), *consumers)
    came = keys_of(*consumers)
    assert came.count("first") <= (1 if pops else 2)
    assert [key for key in came if key != "first"] == sorted(numbered("message", 40) + numbered("end"))
    for consumer in consumers:
        assert {"POP_CK" in (delivery.properties or {}) for delivery in consumer.events(Delivery)} <= {pops}


@pytest.mark.usefixtures("since_5", "only_newest")
def test_popped_messages_come_again_unless_they_are_acknowledged(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """A failure makes the client ask for the message again after a while (2 s); success takes it away for good."""
    operator.send(topic, numbered("message"))
    operator.let_pop(topic, group)
    consumer = running.enter_context(client.consume(topic, group, fail_first=1, broker_shares=True))
    wait_for(lambda: keys_of(consumer) == sorted(2 * numbered("message")), [consumer], TIMEOUT_S, "did not come again")
    time.sleep(POP_INVISIBLE_S + QUIET_S)  # what is judged is that nothing comes
    assert keys_of(consumer) == sorted(2 * numbered("message"))
    deliveries = {verdict: sorted_by_key(consumer, verdict) for verdict in ("later", "success")}
    assert [delivery.reconsume_times for delivery in deliveries["later"]] == [0] * 4
    for first, again in zip(deliveries["later"], deliveries["success"], strict=True):
        assert (again.key, again.topic, again.reconsume_times) == (first.key, topic, 1)
        assert again.received_ms - first.received_ms >= 2000


def sorted_by_key(consumer: DriverRun, verdict: str) -> list[Delivery]:
    deliveries = [delivery for delivery in consumer.events(Delivery) if delivery.verdict == verdict]
    return sorted(deliveries, key=lambda delivery: delivery.key)


# --------------------------------------------------------------------------------------------------------------------
# What fails
# --------------------------------------------------------------------------------------------------------------------


def test_what_fails_too_often_goes_to_the_dead_letter_topic(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """maxReconsumeTimes 1: two deliveries, then it lies in %DLQ%group with what it had, and with where it came from."""
    operator.send_one(topic, "bad", {"TAGS": "TagA", "colour": "blue"})
    consumer = running.enter_context(
        client.consume(topic, group, fail_first=9, retry_level=1, max_reconsume=1, properties=True)
    )

    def came_twice() -> bool:
        return [delivery.reconsume_times for delivery in consumer.events(Delivery)] == [0, 1]

    wait_for(came_twice, [consumer], TIMEOUT_S, "the message did not come twice")
    late = running.enter_context(client.consume(f"%DLQ%{group}", f"{group}_dlq", "dlq", expect=1, properties=True))
    late.end()
    first, again = consumer.events(Delivery)
    assert again.store_ms - first.received_ms >= 1000
    (dead,) = late.events(Delivery)
    assert (dead.key, dead.keys, dead.tags, dead.queue_offset) == ("bad", "bad", "TagA", 0)
    assert dead.properties is not None
    assert dead.properties["colour"] == "blue"
    assert dead.properties["RETRY_TOPIC"] == topic


def test_the_first_retry_of_a_new_group_comes_when_its_delay_says(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """Level 3, here 2 s. It is stored then, and delivered once the client knows the retry topic's route.

    The client asked for that route just before the heartbeat that makes the topic, and asks again after its
    pollNameServerInterval, here 3 s after its start.
    """
    operator.send(topic, ["message"])
    poll_ms = 3000
    consumer = running.enter_context(client.consume(topic, group, fail_first=1, expect=1, poll_namesrv_ms=poll_ms))
    consumer.end()
    first, again = consumer.events(Delivery)
    due_ms = first.received_ms + 2000
    print(
        f"due after 2000 ms: stored {again.store_ms - due_ms} ms later, delivered {again.received_ms - due_ms} ms later"
    )
    assert 0 <= again.store_ms - due_ms < 800
    assert again.received_ms - due_ms < poll_ms + 1500, "later than by one poll and one rebalance"


def test_suspended_consumers_get_nothing_until_they_are_resumed(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """What came meanwhile is delivered then, each message once."""
    operator.send(topic, numbered("early", 4))
    consumer = running.enter_context(client.consume(topic, group))
    wait_keys(numbered("early", 4), consumer)
    consumer.send_line("suspend")
    wait_event(consumer, Suspended)
    # A pull that is under way still delivers what it brings: one message in each queue ends it.
    operator.send(topic, numbered("on_the_way", 4))
    time.sleep(1.0)
    operator.send(topic, numbered("late", 8))
    time.sleep(1.0)  # what is judged is that nothing comes
    assert not [key for key in keys_of(consumer) if key.startswith("late")]
    consumer.resume()
    wait_keys([*numbered("on_the_way", 4), *numbered("late", 8)], consumer)
    operator.send(topic, numbered("end"))
    wait_keys(numbered("end"), consumer)
    assert keys_of(consumer) == sorted(
        [*numbered("early", 4), *numbered("on_the_way", 4), *numbered("late", 8), *numbered("end")]
    )


# --------------------------------------------------------------------------------------------------------------------
# Where a new group begins
# --------------------------------------------------------------------------------------------------------------------

LOG_FILE_SIZE_BYTES = 1 << 20
LIMITED = {
    "mappedFileSizeCommitLog": str(LOG_FILE_SIZE_BYTES),
    "cleanResourceInterval": "200",
    "store.commit_log_size_bytes_max": str(LOG_FILE_SIZE_BYTES),
}
SHORT_LIVED = {
    "mappedFileSizeCommitLog": str(LOG_FILE_SIZE_BYTES),
    "cleanResourceInterval": "200",
    "fileReservedTime": "0",
    "deleteWhen": ";".join(f"{hour:02}" for hour in range(24)),
}
"""The same for Apache's, which has no limit by size, and which looks for the first time a minute after its start."""


def test_a_new_group_begins_where_its_consumer_says(
    deployment_kind: str, new_client: NewClient, running: contextlib.ExitStack, topic: str, tmp_path: pathlib.Path
) -> None:
    """FIRST_OFFSET gets everything, LAST_OFFSET what is sent from now on, TIMESTAMP what was stored since that time.

    On a topic whose first messages were deleted: on a younger one every group begins at 0.
    """
    settings = SHORT_LIVED if deployment_kind == "apache" else LIMITED
    cluster = running.enter_context(DEPLOYMENTS[deployment_kind](tmp_path / "cluster", settings))
    client = new_client(cluster)
    operator = running.enter_context(Operator(cluster.broker))
    operator.send(topic, numbered("deleted"))
    for number in range(4):
        operator.send_one("filler", f"filler-{number}", size_bytes=LOG_FILE_SIZE_BYTES // 3)
    operator.send(topic, numbered("early"))
    time.sleep(1.1)  # the client's time has whole seconds
    starts: dict[str, dict[str, Option]] = {
        "FIRST_OFFSET": {},
        "LAST_OFFSET": {},
        "TIMESTAMP": {"from_time": time.strftime("%Y%m%d%H%M%S")},
    }
    operator.send(topic, numbered("late"))
    poll_until(
        lambda: all(operator.min_offset(topic, queue_id) == 1 for queue_id in range(QUEUES)),
        90,
        lambda: AssertionError("the first messages were not deleted"),
    )
    consumers = {
        start: running.enter_context(client.begin_consuming(topic, start, start, **{"from": start}, **more))
        for start, more in starts.items()
    }
    for consumer in consumers.values():
        wait_shared([consumer])  # a queue is taken once it is known where to begin
    operator.send(topic, numbered("end"))
    early, late, end = numbered("early"), numbered("late"), numbered("end")
    expected = {
        "FIRST_OFFSET": sorted(early + late + end),
        "LAST_OFFSET": end,
        "TIMESTAMP": sorted(late + end),
    }
    for start, consumer in consumers.items():
        wait_keys(expected[start], consumer)
    assert {start: keys_of(consumer) for start, consumer in consumers.items()} == expected


def test_a_new_group_on_a_young_topic_begins_at_its_start(
    client: JavaClient, running: contextlib.ExitStack, operator: Operator, topic: str, group: str
) -> None:
    """LAST_OFFSET too, while the topic's first messages are in the broker's memory: so RocketMQ answers."""
    operator.send(topic, numbered("message", 4))
    consumer = running.enter_context(client.consume(topic, group, **{"from": "LAST_OFFSET"}))
    wait_keys(numbered("message", 4), consumer)
