"""What a cluster must do for official gRPC clients, in any language: each scenario runs one through and judges it.

A topic and the groups named after it belong to one run of one scenario.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

from apogeemq.remoting_codec.codes import RequestCode, ResponseCode
from apogeemq.remoting_codec.message import decode_properties
from apogeemq.remoting_codec.record import Record

from tests.e2e.wire_client import WireClient, pull_all, route_of, send_fields
from tests.interop import grpc_judge
from tests.interop.deployments import Deployment
from tests.interop.driver_run import DriverRun, wait_for
from tests.interop.grpc_clients import GrpcClient
from tests.interop.grpc_events import Received, ReceiveFailed, SendFailed, Sent, Settled
from tests.interop.grpc_judge import Content

WORK_TIMEOUT_S = 180.0
SHORTEST_INVISIBLE_S = 10
"""Servers take no shorter time from a client that chooses one."""
RECOVERY_MAX_MS = 5000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def keys_of(events: Sequence[Received] | Sequence[Settled] | Sequence[Sent]) -> set[str]:
    return {event.key for event in events}


def wait_settled(runs: Sequence[DriverRun], keys: set[str]) -> None:
    """Returns when each of the consumers has acknowledged all of these."""

    wait_done([Progress(run, keys) for run in runs], unsettled_max=0)


def wait_done(waits: Sequence["Progress"], unsettled_max: int) -> None:
    """Returns when each consumer has received all of its keys, and acknowledged all but a few."""

    def is_done() -> bool:
        for wait in waits:
            wait.look()
        return not any(wait.unreceived or len(wait.unsettled) > unsettled_max for wait in waits)

    try:
        wait_for(is_done, [wait.run for wait in waits], WORK_TIMEOUT_S, "not everything was settled")
    except AssertionError as error:
        raise AssertionError("\n".join([*map(str, waits), str(error)])) from error


class Progress:
    """What a consumer has not received and not acknowledged yet; each look reads only what is new."""

    def __init__(self, run: DriverRun, keys: set[str]) -> None:
        self.run = run
        self.unreceived = set(keys)
        self.unsettled = set(keys)
        self._position = 0

    def __str__(self) -> str:
        names = [f"{what} {grpc_judge.name_some(getattr(self, what))}" for what in ("unreceived", "unsettled")]
        return f"{self.run.name}: {'; '.join(names)}"

    def look(self) -> None:
        new = self.run.events_from(self._position)
        self._position += len(new)
        self.unreceived -= {event.key for event in new if isinstance(event, Received)}
        self.unsettled -= {event.key for event in new if isinstance(event, Settled)}


def dead_letters(cluster: Deployment, group: str) -> list[Record]:
    """All dead letters of a group; none while it has no DLQ."""
    dlq = f"%DLQ%{group}"
    if route_of(cluster.namesrv, dlq) is None:
        return []
    with WireClient(cluster.broker) as wire:
        return pull_all(wire, dlq, "undertaker", 0)


# -- many messages


@dataclasses.dataclass(frozen=True)
class Rates:
    """Messages per second, from the first of a kind to the last."""

    sent: float
    simple: float
    push: float


def many_messages(
    client: GrpcClient, running: contextlib.ExitStack, topic: str, count: int, *, threads: int = 4
) -> Rates:
    """Sent by several threads; a simple and a push consumer, of a group each, get and acknowledge each message once."""
    content = Content(topic, tag="TagA", properties={"colour": "light blue"}, size_bytes=600)
    simple = running.enter_context(client.simple(topic, f"simple_{topic}", threads=threads))
    push = running.enter_context(client.push(topic, f"push_{topic}", threads=threads))
    for consumer in (simple, push):
        consumer.wait_started()
    producer = running.enter_context(
        client.produce(
            topic, count, tag=content.tag or "", property="colour=light blue", size_bytes=600, threads=threads
        )
    )
    producer.end(timeout_s=WORK_TIMEOUT_S)
    sent = producer.events(Sent)
    assert producer.events(SendFailed) == []
    assert len(keys_of(sent)) == count
    wait_settled([simple, push], keys_of(sent))
    for consumer in (simple, push):
        consumer.stop_consuming()
        assert grpc_judge.undisturbed(sent, consumer.events(object), content) == [], consumer.name
    return Rates(rate(sent), rate(simple.events(Settled)), rate(push.events(Settled)))


def rate(events: Sequence[Sent] | Sequence[Settled]) -> float:
    seconds = (max(event.at_ms for event in events) - min(event.at_ms for event in events)) / 1000
    return len(events) / max(seconds, 0.001)


# -- messages that come again


class Neglected:
    """Half of the messages are left alone at first: they come again after their invisible time, and the others never.

    The time passes by itself, so begin early and judge late.
    """

    COUNT = 40

    def __init__(self, client: GrpcClient, running: contextlib.ExitStack, topic: str) -> None:
        group = f"neglect_{topic}"
        self.consumer = running.enter_context(
            client.simple(topic, group, neglect=2, invisible_s=SHORTEST_INVISIBLE_S, threads=1)
        )
        self.consumer.wait_started()
        self.sent = client.send(topic, self.COUNT, "neglect")

    def judge(self) -> None:
        """Waits for the second deliveries."""
        wait_settled([self.consumer], keys_of(self.sent))
        self.consumer.stop_consuming()
        wanted = {f"neglect-{number}": [1, 2] if number % 2 == 0 else [1] for number in range(self.COUNT)}
        received = self.consumer.events(Received)
        assert grpc_judge.wrong_attempts(received, wanted) == []
        assert grpc_judge.received_after_settled(self.consumer.events(object)) == []
        first = {event.key: event.at_ms for event in received if event.attempt == 1}
        early = [
            f"{event.key} after {event.at_ms - first[event.key]} ms"
            for event in received
            # The server counts from where it took the message out, the driver from where it got it.
            if event.attempt == 2 and event.at_ms - first[event.key] < (SHORTEST_INVISIBLE_S - 2) * 1000
        ]
        assert early == [], "came again before its invisible time was over"


def refused_once(client: GrpcClient, running: contextlib.ExitStack, topic: str) -> None:
    """A push consumer that fails gets the same message again, unchanged but for the attempt."""
    consumer = running.enter_context(client.push(topic, f"refuse_{topic}", fail_first=1))
    consumer.wait_started()
    sent = client.send(topic, 20, "refuse", tag="TagA")
    wait_settled([consumer], keys_of(sent))
    consumer.stop_consuming()
    received = consumer.events(Received)
    assert grpc_judge.wrong_attempts(received, {event.key: [1, 2] for event in sent}) == []
    assert grpc_judge.changed(sent, received, Content(topic, tag="TagA")) == []


# -- filters and the other protocol


def tags_choose(client: GrpcClient, running: contextlib.ExitStack, topic: str) -> None:
    """`TagA || TagC` gets those and nothing of TagB, which was sent before the last of them."""
    consumers = [
        running.enter_context(client.simple(topic, f"tags_simple_{topic}", tags="TagA || TagC", threads=1)),
        running.enter_context(client.push(topic, f"tags_push_{topic}", tags="TagA || TagC")),
    ]
    for consumer in consumers:
        consumer.wait_started()
    sent = {tag: client.send(topic, 20, tag, tag=tag, threads=1) for tag in ("TagA", "TagB", "TagC")}
    chosen = sent["TagA"] + sent["TagC"]
    wait_settled(consumers, keys_of(chosen))
    for consumer in consumers:
        consumer.stop_consuming()
        assert sorted(event.key for event in consumer.events(Received)) == sorted(keys_of(chosen)), consumer.name


REMOTING_COUNT = 40


def from_remoting(cluster: Deployment, client: GrpcClient, running: contextlib.ExitStack, topic: str) -> None:
    """What a Remoting producer sent, a gRPC consumer gets with its id, keys, tag, properties and body."""
    cluster.make_topic(topic)
    consumer = running.enter_context(client.simple(topic, f"from_remoting_{topic}", threads=1))
    consumer.wait_started()
    keys = [f"remoting-{number}" for number in range(REMOTING_COUNT)]
    with WireClient(cluster.broker) as remoting:
        for number, key in enumerate(keys):
            properties = {"KEYS": key, "TAGS": "TagR", "UNIQ_KEY": f"{number:032X}", "colour": "red"}
            joined = "".join(f"{name}\x01{value}\x02" for name, value in properties.items())
            fields = send_fields(topic, number % 4, joined)
            reply = remoting.request(RequestCode.SEND_MESSAGE_V2, fields, key.encode())
            assert reply.code == ResponseCode.SUCCESS, reply
    wait_settled([consumer], set(keys))
    consumer.stop_consuming()
    sent = [Sent(key, f"{number:032X}", 1, 0) for number, key in enumerate(keys)]
    content = Content(topic, tag="TagR", properties={"colour": "red"})
    assert grpc_judge.undisturbed(sent, consumer.events(object), content) == []


def to_remoting(cluster: Deployment, client: GrpcClient, topic: str) -> None:
    """What a gRPC producer sent, a Remoting consumer pulls with its id, keys, tag, properties and body."""
    cluster.make_topic(topic)
    sent = client.send(topic, 40, "grpc", tag="TagG", property="colour=green", size_bytes=600)
    content = Content(topic, size_bytes=600)
    route = route_of(cluster.namesrv, topic)
    assert route is not None
    with WireClient(cluster.broker) as remoting:
        records = [
            record
            for queue in range(route.queue_datas[0].read_queue_nums)
            for record in pull_all(remoting, topic, f"to_remoting_{topic}", queue)
        ]
    assert sorted(record.body for record in records) == sorted(content.body(event.key) for event in sent)
    ids = {event.key: event.msg_id for event in sent}
    for record in records:
        properties = decode_properties(record.properties)
        key = properties["KEYS"]
        expected = {"UNIQ_KEY": ids[key], "TAGS": "TagG", "colour": "green"}
        assert {name: properties.get(name) for name in expected} == expected, key
        assert record.body == content.body(key)


# -- kills


class Load:
    """Producer and consumers at work without an end, to be kept at work through kills.

    Messages are invisible for the shortest time while a simple consumer holds them, so what a kill leaves in its hands
    comes again soon; what it leaves with a push consumer takes the server's own time, a minute.
    """

    WARM_UP = 200
    AFTERWARDS = 100
    INTERVAL_MS = 1
    THREADS = 2

    def __init__(
        self, cluster: Deployment, client: GrpcClient, running: contextlib.ExitStack, topic: str, *, with_push: bool
    ) -> None:
        cluster.make_topic(topic)
        self.consumers = [
            running.enter_context(
                client.simple(topic, "load_simple", threads=self.THREADS, invisible_s=SHORTEST_INVISIBLE_S)
            )
        ]
        if with_push:
            self.consumers.append(running.enter_context(client.push(topic, "load_push", threads=self.THREADS)))
        for consumer in self.consumers:
            consumer.wait_started()
        self.producer = running.enter_context(
            client.produce(topic, 1_000_000, "load", interval_ms=self.INTERVAL_MS, deadline_s=300, request_timeout_s=3)
        )
        self.runs = [self.producer, *self.consumers]
        self._kills = 0
        self._wait_progress(0, self.WARM_UP, "the load did not begin")

    def survive(self, kill: Callable[[], None], start: Callable[[], None]) -> Mapping[str, int]:
        """One kill and the start after it; how many ms later each client had its first success, by its name.

        The load has gone on for a while when it returns.
        """
        self._kills += 1
        kill()
        start()
        ready_ms = now_ms()
        self._wait_progress(ready_ms, 1, "not every client came back")
        recovery_ms = {run.name: self._successes_ms(run, ready_ms)[0] - ready_ms for run in self.runs}
        assert max(recovery_ms.values()) <= RECOVERY_MAX_MS, f"ms from the restart to the first success: {recovery_ms}"
        self._wait_progress(ready_ms, self.AFTERWARDS, "the load did not go on")
        return recovery_ms

    def end(self) -> list[Sent]:
        """Stops the producer; judges that each of its acknowledged messages was received and acknowledged.

        An acknowledgement that was under way at a kill may have been effective although no answer came, one in each
        thread of a consumer; its message was received and need not come again.
        """
        self.producer.send_line("stop")
        self.producer.end()
        sent = self.producer.events(Sent)
        waits = [Progress(run, keys_of(sent)) for run in self.consumers]
        wait_done(waits, unsettled_max=self._kills * self.THREADS)
        for consumer in self.consumers:
            consumer.stop_consuming()
            assert grpc_judge.lost(sent, consumer.events(Received)) == [], consumer.name
        return sent

    def _wait_progress(self, since_ms: int, count: int, message: str) -> None:
        def is_done() -> bool:
            return all(len(self._successes_ms(run, since_ms)) >= count for run in self.runs)

        def describe(run: DriverRun) -> str:
            failures = [event.error for event in run.events_from(0) if isinstance(event, SendFailed | ReceiveFailed)]
            return f"{run.name} {len(self._successes_ms(run, since_ms))} successes, last failure {failures[-1:]}"

        try:
            wait_for(is_done, self.runs, WORK_TIMEOUT_S, message)
        except AssertionError as error:
            raise AssertionError(f"{message}: {'; '.join(map(describe, self.runs))}\n{error}") from error

    @staticmethod
    def _successes_ms(run: DriverRun, since_ms: int) -> list[int]:
        """When it had an answer to what it is there for."""
        successes = [event for event in run.events_from(0) if isinstance(event, Sent | Settled)]
        return [event.at_ms for event in successes if event.at_ms > since_ms]
