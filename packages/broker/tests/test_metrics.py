"""What a broker shows under /metrics."""

import errno
from collections.abc import Mapping

import pytest
from apogeemq.broker.config import FlushDiskType, IdentityConfig, StoreSettings
from apogeemq.broker.metrics import register_metrics
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.metrics import Registry
from apogeemq.mesh.v1 import broker_pb2 as pb
from apogeemq.mesh.v1 import methods
from apogeemq.remoting_codec.aio.stats import ServerStats
from apogeemq.remoting_codec.codes import ResponseCode
from prometheus_client.parser import text_string_to_metric_families

from packages.broker.tests.mesh_asking import Asker
from packages.broker.tests.test_pop import NORMAL_ONLY, ack, handles_of, let_it_be_over, popped, send
from packages.broker.tests.test_transactions import COMMIT, ROLLBACK, end, halves, send_half
from packages.broker.tests.world import World, consumer_beat, fields_of, producer_beat, pull_fields, send_fields, until

APACHE_NAMES = {
    "rocketmq_messages_in_total",
    "rocketmq_messages_out_total",
    "rocketmq_throughput_in_total",
    "rocketmq_throughput_out_total",
    "rocketmq_send_to_dlq_messages_total",
    "rocketmq_consumer_inflight_messages",
    "rocketmq_pop_revive_in_message_total",
    "rocketmq_pop_revive_retry_messages_total",
    "rocketmq_pop_checkpoint_buffer_size",
    "rocketmq_half_messages",
    "rocketmq_commit_messages_total",
    "rocketmq_rollback_messages_total",
    "rocketmq_timing_messages",
    "rocketmq_timer_enqueue_lag",
    "rocketmq_timer_dequeue_lag",
    "rocketmq_timer_message_snapshot",
    "rocketmq_timer_enqueue_total",
    "rocketmq_timer_dequeue_total",
    "rocketmq_broker_permission",
    "rocketmq_topic_number",
    "rocketmq_consumer_group_number",
    "rocketmq_producer_connections",
    "rocketmq_consumer_connections",
    "rocketmq_storage_size",
    "rocketmq_storage_flush_behind_bytes",
    "rocketmq_storage_message_reserve_time",
}
"""As in reference metrics.tsv (Apache 5.x)."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(world: World, servers: Mapping[str, ServerStats] | None = None) -> Samples:
    """All samples as Prometheus' own parser reads them, by name and labels."""
    registry = Registry({"cluster": "C"})
    register_metrics(registry, world.broker, dict(servers or {}))
    return {
        (sample.name, frozenset(sample.labels.items()) - {("cluster", "C")}): sample.value
        for family in text_string_to_metric_families(registry.render())
        for sample in family.samples
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


NONE: frozenset[tuple[str, str]] = frozenset()


async def test_names_are_apaches_or_our_own() -> None:
    """Nothing is called rocketmq_… that is not in Apache's list, and every name of it that we have is there."""
    async with World() as world:
        world.create_topic()
        world.client().request(310, send_fields(), b"x")
        world.client().request(11, pull_fields())
        popped(world)
        world.broker.popping.revive.revived["G", "T"] += 1
        world.broker.dead_letters["G", "T"] += 1
        world.broker.timers.intake.taken_in["T"] += 1
        world.broker.timers.delivered["T"] += 1
        for decision in (COMMIT, ROLLBACK):
            send_half(world.client())
            end(world.client(), halves(world)[-1], decision)
        send_half(world.client())
        names = {name for name, _ in scrape(world, {"remoting": ServerStats()})}
        assert {name for name in names if name.startswith("rocketmq_")} == APACHE_NAMES
        assert all(name.startswith(("rocketmq_", "apogeemq_")) for name in names)


async def test_popped_messages_are_shown() -> None:
    """How many are in flight, what was written down of them, what came again."""
    async with World(pop=NORMAL_ONLY) as world:
        world.create_topic("T", 2)
        send(world, b"a", b"b", queue_id=0)
        send(world, b"c", queue_id=1)
        first, *_ = handles_of(popped(world))
        ack(world, first)
        in_flight = labels(consumer_group="G", topic="T", is_retry="false", is_system="false")
        samples = scrape(world)
        assert samples["rocketmq_consumer_inflight_messages", in_flight] == 2
        assert samples["rocketmq_pop_checkpoint_buffer_size", NONE] == 2
        kinds = {"consumer_group": "G", "topic": "T", "put_status": "PUT_OK"}
        assert samples["rocketmq_pop_revive_in_message_total", labels(**kinds, revive_message_type="CK")] == 2
        assert samples["rocketmq_pop_revive_in_message_total", labels(**kinds, revive_message_type="ACK")] == 1
        await let_it_be_over(world)
        popped(world)
        samples = scrape(world)
        assert samples["rocketmq_pop_revive_retry_messages_total", labels(**kinds)] == 2
        again = labels(consumer_group="G", topic="%RETRY%G_T", is_retry="true", is_system="false")
        assert samples["rocketmq_consumer_inflight_messages", again] == 2


async def test_transactions_are_counted_by_topic() -> None:
    """What is pending, what was committed, what was rolled back."""
    async with World() as world:
        world.create_topic()
        client = world.client()
        for number in range(4):
            send_half(client, key=f"U{number}")
        first, second, third, _ = halves(world)
        end(client, first, COMMIT)
        end(client, second, COMMIT)
        end(client, third, ROLLBACK)
        samples = scrape(world)
        topic = labels(topic="T")
        assert samples["rocketmq_half_messages", topic] == 1
        assert samples["rocketmq_commit_messages_total", topic] == 2
        assert samples["rocketmq_rollback_messages_total", topic] == 1
        assert ("apogeemq_given_up_transactions_total", topic) not in samples


async def test_timer_messages_are_counted() -> None:
    """What waits, until when; what was taken in, delivered, taken back."""
    async with World() as world:
        world.create_topic()
        world.start_deliveries()
        client = world.client()
        for delay_s in (2, 30, 100_000):
            sent = client.request(310, send_fields(properties=f"TIMER_DELAY_SEC\x01{delay_s}\x02"), b"x")
        await world.clock.run_for(3)
        handle = fields_of(sent)["recallHandle"]
        assert client.request(370, {"producerGroup": "P", "topic": "T", "recallHandle": handle}).code == 0
        await until(lambda: world.broker.timers.intake.recalls == 1)
        samples = scrape(world)
        topic = labels(topic="T")
        assert samples["rocketmq_timer_enqueue_total", topic] == 3
        assert samples["rocketmq_timer_dequeue_total", topic] == 1
        assert samples["rocketmq_timing_messages", NONE] == 1
        assert samples["rocketmq_timer_enqueue_lag", NONE] == samples["rocketmq_timer_dequeue_lag", NONE] == 0
        assert samples["apogeemq_timer_messages_recalled", NONE] == 1
        within = [samples["rocketmq_timer_message_snapshot", labels(timer_bound_s=bound)] for bound in ("5", "60")]
        assert within == [0, 1]


async def test_messages_are_counted_by_topic() -> None:
    """Those of the system are marked as such; a topic without traffic has no line."""
    async with World() as world:
        world.create_topic()
        world.create_topic("Quiet")
        client = world.client()
        for _ in range(3):
            client.request(310, send_fields(), b"x")
        client.request(310, send_fields(properties="DELAY\x011\x02"), b"x")
        client.request(11, pull_fields() | {"maxMsgNums": "2"})
        samples = scrape(world)
        user = labels(topic="T", is_system="false")
        assert samples["rocketmq_messages_in_total", user] == 3
        assert samples["rocketmq_messages_out_total", user] == 2
        size = world.records("T")[0].physical_offset
        assert size == 0
        record_bytes = world.store.record_at(0)
        assert record_bytes is not None
        assert samples["rocketmq_throughput_in_total", user] == 3 * len(record_bytes)
        assert samples["rocketmq_throughput_out_total", user] == 2 * len(record_bytes)
        assert samples["rocketmq_messages_in_total", labels(topic="SCHEDULE_TOPIC_XXXX", is_system="true")] == 1
        assert not [key for key in samples if ("topic", "Quiet") in key[1]]


async def test_the_brokers_own_names_are_the_systems() -> None:
    """Topics called like the cluster and the broker."""
    async with World(identity=IdentityConfig(cluster_name="C1", broker_name="b1")) as world:
        world.mark_saved()
        client = world.client()
        for topic in ("C1", "b1"):
            client.request(310, send_fields(topic), b"x")
        samples = scrape(world)
        for topic in ("C1", "b1"):
            assert samples["rocketmq_messages_in_total", labels(topic=topic, is_system="true")] == 1


async def test_tables_and_connections_are_counted() -> None:
    """Topics, groups, live members, and what waits."""
    async with World() as world:
        world.create_topic()
        client = world.client()
        client.heartbeat(consumer_beat("c1"))
        client.heartbeat(consumer_beat("c2"))
        client.heartbeat(producer_beat("p1", "P", "Q"))
        client.send(11, pull_fields() | {"sysFlag": "6", "suspendTimeoutMillis": "15000"})
        samples = scrape(world)
        assert samples["rocketmq_topic_number", NONE] == len(world.broker.topics)
        assert samples["rocketmq_consumer_group_number", NONE] == len(world.broker.groups)
        assert samples["rocketmq_consumer_connections", NONE] == 2
        assert samples["rocketmq_producer_connections", NONE] == 2
        assert samples["rocketmq_broker_permission", NONE] == 6
        assert samples["apogeemq_held_pulls", NONE] == 1


async def test_the_store_is_shown() -> None:
    """Its size, what is not flushed yet, whether it takes writes, and who waits for it."""
    async with World(store=StoreSettings(flush_disk_type=FlushDiskType.SYNC_FLUSH)) as world:
        world.create_topic()
        world.client().send(310, send_fields(), b"x")
        samples = scrape(world)
        assert samples["rocketmq_storage_size", NONE] == world.store.written_offset > 0
        assert samples["rocketmq_storage_flush_behind_bytes", NONE] == world.store.written_offset
        assert samples["apogeemq_waiting_acknowledgements", NONE] == 1
        assert samples["apogeemq_store_writable", NONE] == 1
        assert samples["apogeemq_store_recovery_dropped_bytes", NONE] == 0
        world.store.flush_once()
        assert scrape(world)["rocketmq_storage_flush_behind_bytes", NONE] == 0


async def test_the_disk_is_shown() -> None:
    """How long it took, what it refused, and that nothing is under way."""
    async with World() as world:
        world.create_topic()
        before = scrape(world)["apogeemq_store_disk_seconds_count", labels(operation="sync")]
        world.client().send(310, send_fields(), b"x")
        world.store.flush_once()
        samples = scrape(world)
        assert samples["apogeemq_store_disk_seconds_count", labels(operation="sync")] > before
        assert samples["apogeemq_store_disk_longest_running_seconds", NONE] == 0
        world.store.disk_health.note_error("read", OSError(errno.EIO, "broken"))
        name = "apogeemq_store_disk_errors_total"
        assert scrape(world)[name, labels(operation="read", errno="EIO")] == 1


async def test_requests_are_counted_by_name_and_result() -> None:
    """Unknown codes share one line, whatever their numbers."""
    async with World() as world:
        client = world.client()
        client.request(11, pull_fields("Missing"))
        for code in (9_998, 9_999):
            client.request(code)
        samples = scrape(world)
        pulls = labels(request_code="PULL_MESSAGE", response_code="TOPIC_NOT_EXIST")
        unknown = labels(request_code="unknown", response_code=ResponseCode.REQUEST_CODE_NOT_SUPPORTED.name)
        assert samples["apogeemq_requests_total", pulls] == 1
        assert samples["apogeemq_requests_total", unknown] == 2


async def test_calls_are_counted_by_name_and_result() -> None:
    """What proxies ask, answered and refused."""
    async with World() as world:
        asker = Asker(world)
        await asker.ask(methods.QUERY_TOPIC, pb.QueryTopicRequest(topic="T"))
        with pytest.raises(CallRefused):
            await asker.ask(methods.QUERY_TOPIC, pb.QueryTopicRequest())
        samples = scrape(world)
        assert samples["apogeemq_calls_total", labels(call="QueryTopic", response_code="SUCCESS")] == 1
        assert samples["apogeemq_calls_total", labels(call="QueryTopic", response_code="INVALID_PARAMETER")] == 1


async def test_each_listener_has_its_lines() -> None:
    """Connections and bytes."""
    async with World() as world:
        remoting, vip = ServerStats(), ServerStats()
        remoting.connections_open, remoting.bytes_in, vip.protocol_errors = 3, 1_000, 2
        samples = scrape(world, {"remoting": remoting, "vip": vip})
        assert samples["apogeemq_connections", labels(listener="remoting")] == 3
        assert samples["apogeemq_remoting_bytes_in_total", labels(listener="remoting")] == 1_000
        assert samples["apogeemq_protocol_errors_total", labels(listener="vip")] == 2
        assert samples["apogeemq_connections_cut_total", labels(listener="vip")] == 0


async def test_undeliverable_and_dead_messages_are_shown() -> None:
    """Somebody should look at those."""
    async with World() as world:
        world.broker.delay.undeliverable = 2
        world.broker.dead_letters["G", "T"] += 3
        samples = scrape(world)
        assert samples["apogeemq_delayed_messages_undeliverable", NONE] == 2
        assert samples["rocketmq_send_to_dlq_messages_total", labels(consumer_group="G", topic="T")] == 3
