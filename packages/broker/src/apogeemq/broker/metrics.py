"""The broker's metrics, under the names and labels of Apache's 5.x broker where it has them.

Everything is counted elsewhere in plain ints and only read here, when scraped. Source: reference metrics.tsv.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from apogeemq.broker.assembly import Broker
from apogeemq.broker.core.names import RETRY_TOPIC_PREFIX, is_system_topic
from apogeemq.broker.core.pop_records import CHECKPOINT_TAG
from apogeemq.broker.core.topics import Topic
from apogeemq.broker.core.transactions import Decision
from apogeemq.broker.faces.remoting.table import UNKNOWN_REQUEST_CODE
from apogeemq.mesh.metrics import Registry
from apogeemq.remoting_codec.aio.stats import ServerStats
from apogeemq.remoting_codec.codes import request_code_name, response_code_name
from apogeemq.store.disk_health import LATENCY_BOUNDS_S
from apogeemq.store.timer_store import TIMER_QUEUE

Samples = Iterable[tuple[Sequence[str], float]]

TIMER_BOUNDS_S = (5, 60, 300, 900, 3_600, 14_400, 28_800, 86_400)
"""What `timer_bound_s` says: 5 s, 1 min, 5 min, 15 min, 1 h, 4 h, 8 h, a day, as at Apache's (timerMetrics)."""


def register_metrics(registry: Registry, broker: Broker, servers: dict[str, ServerStats]) -> None:
    """Declare all metrics of a broker; `servers` are the counts of its Remoting listeners by name."""
    _register_messages(registry, broker)
    _register_pops(registry, broker)
    _register_transactions(registry, broker)
    _register_timers(registry, broker)
    _register_tables(registry, broker)
    _register_limits(registry, broker)
    _register_store(registry, broker)
    _register_disk(registry, broker)
    _register_requests(registry, broker, servers)


def _register_messages(registry: Registry, broker: Broker) -> None:
    identity = broker.config.identity
    own_names = frozenset({identity.cluster_name, identity.broker_name})

    def by_topic(read: Callable[[Topic], int]) -> Callable[[], Samples]:
        def samples() -> Samples:
            for topic in broker.topics:
                value = read(topic)
                if value:
                    yield (topic.name, "true" if is_system_topic(topic.name, own_names) else "false"), value

        return samples

    labels = ("topic", "is_system")
    for name, help_text, read in (
        ("rocketmq_messages_in_total", "Messages stored since start.", lambda topic: topic.messages_in),
        ("rocketmq_throughput_in_total", "Bytes of records stored since start.", lambda topic: topic.bytes_in),
        ("rocketmq_messages_out_total", "Messages handed out since start.", lambda topic: topic.messages_out),
        ("rocketmq_throughput_out_total", "Bytes of records handed out since start.", lambda topic: topic.bytes_out),
    ):
        registry.observed_counters(name, help_text, labels, by_topic(read))
    registry.observed_counters(
        "rocketmq_send_to_dlq_messages_total",
        "Messages that failed too often and went to the dead letter queue since start.",
        ("consumer_group", "topic"),
        lambda: list(broker.dead_letters.items()),
    )


def _register_pops(registry: Registry, broker: Broker) -> None:
    popping = broker.popping
    identity = broker.config.identity
    own_names = frozenset({identity.cluster_name, identity.broker_name})

    def in_flight() -> Samples:
        by_topic: Counter[tuple[str, str]] = Counter()
        for (group, topic, _), count in chain(popping.log.table.in_flight(), popping.order_log.orders.in_flight()):
            by_topic[group, topic] += count
        for (group, topic), count in by_topic.items():
            is_retry = topic.startswith(RETRY_TOPIC_PREFIX)
            yield (group, topic, _text(is_retry), _text(is_system_topic(topic, own_names))), count

    def written() -> Samples:
        by_kind: Counter[tuple[str, str, str, str]] = Counter()
        for (group, topic, tag), count in list(popping.log.written.items()):
            by_kind[group, topic, "CK" if tag == CHECKPOINT_TAG else "ACK", "PUT_OK"] += count
        return list(by_kind.items())

    registry.observed_gauges(
        "rocketmq_consumer_inflight_messages",
        "Messages that are popped and not acknowledged.",
        ("consumer_group", "topic", "is_retry", "is_system"),
        in_flight,
    )
    registry.observed_counters(
        "rocketmq_pop_revive_in_message_total",
        "Checkpoints and acknowledgements written down since start.",
        ("consumer_group", "topic", "revive_message_type", "put_status"),
        written,
    )
    registry.observed_counters(
        "rocketmq_pop_revive_retry_messages_total",
        "Messages that were not acknowledged in time and went to a retry topic since start.",
        ("consumer_group", "topic", "put_status"),
        lambda: [((*key, "PUT_OK"), count) for key, count in list(popping.revive.revived.items())],
    )
    for name, help_text, read in (
        (
            "rocketmq_pop_checkpoint_buffer_size",
            "Pops of a queue with messages that are not acknowledged.",
            lambda: popping.log.table.checkpoints,
        ),
        ("apogeemq_held_pops", "Pops that wait for a message.", lambda: len(popping.polls)),
        (
            "apogeemq_popped_messages_unreadable",
            "Popped messages and revive records that could not be read any more since start.",
            lambda: popping.revive.unreadable,
        ),
    ):
        registry.observed_gauge(name, help_text, read)


def _register_transactions(registry: Registry, broker: Broker) -> None:
    transacting = broker.transacting

    def ended(decision: Decision) -> Callable[[], Samples]:
        return lambda: [
            ((topic,), count) for (topic, how), count in list(transacting.service.ended.items()) if how is decision
        ]

    registry.observed_gauges(
        "rocketmq_half_messages",
        "Half messages that are not decided, by the topic where they go.",
        ("topic",),
        lambda: [((topic,), count) for topic, count in list(transacting.table.by_topic.items())],
    )
    for name, help_text, decision in (
        ("rocketmq_commit_messages_total", "Transactions committed since start.", Decision.COMMIT),
        ("rocketmq_rollback_messages_total", "Transactions rolled back since start.", Decision.ROLLBACK),
        (
            "apogeemq_given_up_transactions_total",
            "Transactions since start whose message went to TRANS_CHECK_MAX_TIME_TOPIC, undecided.",
            Decision.GIVEN_UP,
        ),
    ):
        registry.observed_counters(name, help_text, ("topic",), ended(decision))
    registry.observed_gauge(
        "apogeemq_transaction_checks", "Questions to producers since start.", lambda: transacting.checks.asked
    )
    registry.observed_gauge(
        "apogeemq_transaction_checks_waiting",
        "Questions that proxies have not taken yet.",
        lambda: len(transacting.proxied),
    )


def _register_timers(registry: Registry, broker: Broker) -> None:
    timers, timer = broker.timers, broker.store.timer
    for name, help_text, read in (
        ("rocketmq_timing_messages", "Timer messages that wait for their time.", lambda: timer.pending_count),
        (
            "rocketmq_timer_enqueue_lag",
            "Timer messages that are stored and not taken in yet.",
            lambda: broker.store.max_offset(*TIMER_QUEUE) - timer.queue_offset,
        ),
        (
            "rocketmq_timer_dequeue_lag",
            "Timer messages whose time has come, and which are not delivered yet.",
            lambda: timers.count_due_within(0),
        ),
        (
            "apogeemq_timer_messages_undeliverable",
            "Timer messages that could not be delivered since start.",
            lambda: timers.intake.undeliverable,
        ),
        ("apogeemq_timer_messages_recalled", "Timer messages taken back since start.", lambda: timers.intake.recalls),
    ):
        registry.observed_gauge(name, help_text, read)
    registry.observed_gauges(
        "rocketmq_timer_message_snapshot",
        "Timer messages that come due within so many seconds, those that were taken back among them.",
        ("timer_bound_s",),
        lambda: [((str(bound_s),), timers.count_due_within(bound_s)) for bound_s in TIMER_BOUNDS_S],
    )
    for name, help_text, counts in (
        ("rocketmq_timer_enqueue_total", "Timer messages taken in since start.", timers.intake.taken_in),
        ("rocketmq_timer_dequeue_total", "Timer messages delivered since start.", timers.delivered),
    ):
        registry.observed_counters(name, help_text, ("topic",), _by_topic(counts))


def _by_topic(counts: Counter[str]) -> Callable[[], Samples]:
    return lambda: [((topic,), count) for topic, count in list(counts.items())]


def _text(value: bool) -> str:
    return "true" if value else "false"


def _register_tables(registry: Registry, broker: Broker) -> None:
    for name, help_text, read in (
        ("rocketmq_broker_permission", "4 read, 2 write, 6 both.", lambda: broker.send.permission),
        ("rocketmq_topic_number", "Topics.", lambda: len(broker.topics)),
        ("rocketmq_consumer_group_number", "Consumer groups.", lambda: len(broker.groups)),
        (
            "rocketmq_producer_connections",
            "Live members of producer groups.",
            lambda: sum(map(len, broker.clients.producer_groups.values())),
        ),
        (
            "rocketmq_consumer_connections",
            "Live members of consumer groups.",
            lambda: sum(len(group.members) for group in broker.clients.consumer_groups.values()),
        ),
        ("apogeemq_held_pulls", "Pulls that wait for a message.", lambda: len(broker.long_polling)),
        (
            "apogeemq_waiting_acknowledgements",
            "Sends that wait for the disk.",
            lambda: len(broker.topic_line) + (0 if broker.flush_line is None else len(broker.flush_line)),
        ),
    ):
        registry.observed_gauge(name, help_text, read)
    registry.observed_gauges(
        "apogeemq_consumer_group_differing_subscriptions",
        "How many different subscriptions the live members of a group have, of groups where they are not all the same.",
        ("consumer_group",),
        lambda: [
            ((group.name,), group.told.variants)
            for group in list(broker.clients.consumer_groups.values())
            if group.told.variants > 1
        ],
    )


def _register_limits(registry: Registry, broker: Broker) -> None:
    registry.observed_gauges(
        "apogeemq_requests_in_flight",
        "Requests that were taken and wait for something: the disk, a message, a client's answer.",
        ("kind",),
        lambda: [
            (("send",), broker.sends_in_flight.count),
            (("held_pull",), len(broker.long_polling)),
            (("held_pop",), len(broker.popping.polls)),
            (("sliced_pull",), len(broker.sliced_pulls)),
            (("cold_read",), len(broker.cold_reads)),
            (("client_call",), broker.calls_in_flight.count),
        ],
    )
    registry.observed_gauges(
        "apogeemq_requests_in_flight_bytes",
        "What such requests take of memory, about.",
        ("kind",),
        lambda: [
            (("send",), broker.sends_in_flight.size_bytes),
            (("held_pull",), broker.long_polling.size_bytes),
            (("client_call",), broker.calls_in_flight.size_bytes),
        ],
    )
    registry.observed_counters(
        "apogeemq_requests_refused_total",
        "Requests and calls refused since start, by the limit that was reached.",
        ("limit",),
        lambda: [((limit,), count) for limit, count in (broker.stats.refused + broker.call_stats.refused).items()],
    )


def _register_store(registry: Registry, broker: Broker) -> None:
    store = broker.store
    for name, help_text, read in (
        (
            "rocketmq_storage_size",
            "Bytes of the commit log.",
            lambda: store.written_offset - store.min_physical_offset,
        ),
        (
            "rocketmq_storage_flush_behind_bytes",
            "Bytes stored and not yet flushed to disk.",
            lambda: store.written_offset - store.flushed_offset,
        ),
        (
            "rocketmq_storage_message_reserve_time",
            "Milliseconds since the oldest message that is still there was stored.",
            lambda: broker.message_reserve_time_ms,
        ),
        (
            "apogeemq_storage_disk_used_ratio",
            "Share of the store's disk that is used, 0 to 1.",
            lambda: store.disk_space.used_ratio,
        ),
        ("apogeemq_storage_disk_free_bytes", "Free on the store's disk.", lambda: store.disk_space.free_bytes),
        (
            "apogeemq_storage_disk_state",
            "0 enough room, 1 warned of, 2 sends are refused.",
            lambda: int(store.disk_state),
        ),
        ("apogeemq_store_writable", "1 while the store takes writes.", lambda: int(store.is_writable)),
        (
            "apogeemq_store_recovery_dropped_bytes",
            "Bytes that a crash had torn and the last start cut off.",
            lambda: store.recovery.dropped_bytes,
        ),
        (
            "apogeemq_delayed_messages_undeliverable",
            "Delayed messages that had no topic to go to since start.",
            lambda: broker.delay.undeliverable,
        ),
    ):
        registry.observed_gauge(name, help_text, read)
    registry.observed_counters(
        "apogeemq_storage_files_deleted_total",
        "Files of the commit log deleted since start, by reason: age, size, forced.",
        ("reason",),
        lambda: [((reason,), count) for reason, count in store.deleted_files.items()],
    )


def _register_disk(registry: Registry, broker: Broker) -> None:
    health = broker.store.disk_health

    def stalled_s() -> float:
        running = health.longest_running()
        return 0 if running is None else running.age_s

    registry.observed_gauge(
        "apogeemq_store_disk_longest_running_seconds",
        "For how long the disk has been busy with the oldest operation that it has not ended.",
        stalled_s,
    )
    registry.observed_histograms(
        "apogeemq_store_disk_seconds",
        "How long the disk took for syncs, writes and reservations of blocks since start.",
        LATENCY_BOUNDS_S,
        ("operation",),
        lambda: [((name,), latency.counts, latency.total_s) for name, latency in health.latencies().items()],
    )
    registry.observed_counters(
        "apogeemq_store_disk_errors_total",
        "Errors of the disk since start, by the name of the error number.",
        ("operation", "errno"),
        lambda: list(health.errors().items()),
    )


def _register_requests(registry: Registry, broker: Broker, servers: dict[str, ServerStats]) -> None:
    def requests() -> Samples:
        for (request_code, response_code), count in list(broker.stats.counts.items()):
            name = "unknown" if request_code == UNKNOWN_REQUEST_CODE else request_code_name(request_code)
            yield (name, response_code_name(response_code)), count

    registry.observed_counters(
        "apogeemq_requests_total",
        "Requests answered since start, by request and response code.",
        ("request_code", "response_code"),
        requests,
    )

    def calls() -> Samples:
        for (name, response_code), count in list(broker.call_stats.counts.items()):
            yield (name, response_code_name(response_code)), count

    registry.observed_counters(
        "apogeemq_calls_total",
        "Calls of other services answered since start, by call and response code.",
        ("call", "response_code"),
        calls,
    )

    def by_listener(read: Callable[[ServerStats], int]) -> Callable[[], Samples]:
        return lambda: [((name,), read(stats)) for name, stats in servers.items()]

    registry.observed_gauges(
        "apogeemq_connections", "Open connections.", ("listener",), by_listener(lambda s: s.connections_open)
    )
    for name, help_text, read in (
        ("apogeemq_connections_accepted_total", "Connections accepted.", lambda s: s.connections_accepted),
        ("apogeemq_connections_refused_total", "Connections refused on arrival.", lambda s: s.connections_refused),
        ("apogeemq_connections_cut_total", "Connections cut off: idle, slow or late.", lambda s: s.connections_cut),
        ("apogeemq_protocol_errors_total", "Connections closed for a broken frame.", lambda s: s.protocol_errors),
        ("apogeemq_remoting_bytes_in_total", "Bytes read.", lambda s: s.bytes_in),
        ("apogeemq_remoting_bytes_out_total", "Bytes written.", lambda s: s.bytes_out),
    ):
        registry.observed_counters(name, help_text, ("listener",), by_listener(read))
