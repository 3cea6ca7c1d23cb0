"""The official Java client at work: starts the driver of tests/interop/java and hands out what it prints."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from tests.interop import events
from tests.interop.driver_run import DriverRun, wait_for

VERSIONS = ("5.5.0", "5.3.3", "4.9.8")
"""The newest first."""
JVM_OPTIONS = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",  # its file is named by process id, and a clash, as between containers, is told on stdout
    # A group settles within a second or two rather than within the client's default of 20 s.
    "-Drocketmq.client.rebalance.waitInterval=1000",
)
SETTLE_TIMEOUT_S = 60.0

Option = str | int | bool


@dataclasses.dataclass(frozen=True)
class JavaClient:
    """The official Remoting client, built for one version, talking to the cluster behind one name server."""

    java: str
    class_path: str
    namesrv: str
    log_directory: pathlib.Path

    def start(self, name: str, command: str, options: Mapping[str, Option]) -> DriverRun:
        """Starts one sub-command; an option `size_bytes=10` becomes `--size-bytes 10`, a True one a bare word."""
        # The two lines of clients call the directory of their log files differently.
        logs = [
            f"-D{name}={self.log_directory / 'client'}" for name in ("rocketmq.client.logRoot", "rocketmq.log.root")
        ]
        # Where members that get every message keep their offsets.
        offsets = f"-Drocketmq.client.localOffsetStoreDir={self.log_directory / 'offsets'}"
        argv = [self.java, *JVM_OPTIONS, *logs, offsets, "-cp", self.class_path, "apogeemq.interop.Driver", command]
        for key, value in {"namesrv": self.namesrv, **options}.items():
            argv.append("--" + key.replace("_", "-"))
            argv += [] if value is True else [str(value)]
        return DriverRun(name, argv, log_directory=self.log_directory, parse=events.parse)

    def produce(self, topic: str, count: int, **options: Option) -> DriverRun:
        """Starts a producer. Its keys are `<prefix>-0` to `<prefix>-<count-1>`."""
        prefix = str(options.get("prefix", "message"))
        defaults: dict[str, Option] = {"topic": topic, "group": "interop_producers", "count": count, "prefix": prefix}
        return self.start(f"produce-{prefix}", "produce", {**defaults, **options})

    def consume(self, topic: str, group: str, instance: str = "a", **options: Option) -> DriverRun:
        """Starts a member of a consumer group and waits until it has started."""
        consumer = self.begin_consuming(topic, group, instance, **options)
        consumer.wait_started()
        return consumer

    def begin_consuming(self, topic: str, group: str, instance: str = "a", **options: Option) -> DriverRun:
        """The same without the wait: for several at a time, or one that may not start."""
        defaults: dict[str, Option] = {"topic": topic, "group": group, "instance": instance, "deadline": 300}
        return self.start(f"consume-{instance}", "consume", {**defaults, **options})

    def lite_pull(self, topic: str, group: str, **options: Option) -> DriverRun:
        """Starts a lite pull consumer and waits until it has started."""
        consumer = self.start("lite-pull", "lite-pull", {"topic": topic, "group": group, **options})
        consumer.wait_started()
        return consumer

    def replier(self, topic: str, group: str) -> DriverRun:
        """Starts a consumer that answers every request, and waits until it has started."""
        replier = self.start("reply", "reply", {"topic": topic, "group": group})
        replier.wait_started()
        return replier

    def request(self, topic: str, count: int, **options: Option) -> list[events.Answered | events.Unanswered]:
        """Sends requests, `request-0` and so on, and waits for what becomes of each."""
        defaults: dict[str, Option] = {"topic": topic, "group": "interop_requesters", "count": count}
        with self.start("request", "request", {**defaults, **options}) as run:
            run.end()
            return [*run.events(events.Answered), *run.events(events.Unanswered)]

    def query(self, topic: str, **options: Option) -> list[events.Delivery | events.Refused]:
        """Looks messages up by `key` or `id`, several with commas between: what was found, then why the rest not."""
        with self.start("query", "query", {"topic": topic, "group": "interop_lookers", **options}) as run:
            run.end()
            return [*run.events(events.Delivery), *run.events(events.Refused)]

    def transact(self, topic: str, group: str, count: int, **options: Option) -> DriverRun:
        """Starts a transactional producer; keys as of `produce`, what it decides in the driver's `say` and `answer`."""
        instance = str(options.get("instance", "transactor"))
        defaults: dict[str, Option] = {"topic": topic, "group": group, "count": count}
        return self.start(f"transact-{instance}", "transact", {**defaults, **options})

    def delay(self, topic: str, by: str, after: Iterable[int], **options: Option) -> list[object]:
        """Sends messages that wait, and takes back those of `recall`; waits for what becomes of each.

        `by` and `after` as of the driver; keys are `<by>-0` and so on.
        """
        defaults: dict[str, Option] = {"topic": topic, "group": "interop_delayers", "by": by, "prefix": by}
        numbers = ",".join(str(value) for value in after)
        with self.start(f"delay-{by}", "delay", {**defaults, "after": numbers, **options}) as run:
            run.end()
            return run.events_from(0)

    def offsets(self, topic: str, group: str = "interop_nobody", **options: Option) -> list[events.QueueOffsets]:
        """The offsets of each queue of a topic, by queue id."""
        with self.start("offsets", "offsets", {"topic": topic, "group": group, **options}) as run:
            run.end()
            return run.events(events.QueueOffsets)

    def pull(self, topic: str, **options: Option) -> list[events.Pulled]:
        """One pull from each queue of a topic, by queue id."""
        with self.start("pull", "pull", {"topic": topic, "group": "interop_pullers", **options}) as run:
            run.end()
            return run.events(events.Pulled)

    def send(self, topic: str, count: int, **options: Option) -> list[events.Ack]:
        """Produces and waits until every message is acknowledged."""
        with self.produce(topic, count, **options) as run:
            run.end()
            return run.events(events.Ack)


def settle(consumers: Sequence[DriverRun], queues: int) -> None:
    """Lets the members of a group, all started with `hold`, take their queues once each sees all of the others.

    Returns when they have all `queues` of the topic between them: each queue once, each member some.
    """

    def see_each_other() -> bool:
        seen = [consumer.events(events.Members) for consumer in consumers]
        return all(members and members[-1].count == len(consumers) for members in seen)

    def have_all() -> bool:
        held = [assigned[-1].queues for consumer in consumers if (assigned := consumer.events(events.Assigned))]
        if len(held) < len(consumers) or not all(held):
            return False
        return len(frozenset().union(*held)) == sum(map(len, held)) == queues

    wait_for(see_each_other, consumers, SETTLE_TIMEOUT_S, "the members of the group did not see each other")
    for consumer in consumers:
        consumer.resume()
    wait_for(have_all, consumers, SETTLE_TIMEOUT_S, "the queues were not all taken")
