"""Settings of a broker, in sections. Apache's property names are accepted beside ours (the aliases).

Each field says its unit and range, and whether all brokers of a set must agree on it ("set") or it is this process's
own. Defaults are Apache's where Apache has the setting.
"""

import re
from enum import Enum
from typing import Annotated

import msgspec
from apogeemq.broker.core.delay import DEFAULT_DELAY_LEVELS, DelayLevels
from apogeemq.broker.core.subscription_groups import GROUPS_MAX
from apogeemq.broker.core.topics import QUEUES_PER_TOPIC_MAX, TOPICS_MAX
from apogeemq.mesh.addresses import split_address
from apogeemq.mesh.config import ListenerConfig, setting
from apogeemq.mesh.service_process import LogConfig
from apogeemq.remoting_codec.client_bodies import MessageRequestMode
from apogeemq.store.disk_space import DiskLimits
from apogeemq.store.retention import RetentionConfig, parse_delete_when

HEADER_SIZE_BYTES = 64 << 10
"""What a frame holds beside a message's body, at most: properties, and the other fields of its header."""

REVIVE_QUEUES_MAX = 64

REPLICAS_MAX = 64
"""Brokers of a set, as the controllers bound it."""

TIMER_MAX_DELAY_SEC_MAX = 7 * 24 * 3600 - 60
"""What the wheel of Apache's broker holds, to which a store may go back."""

_NAME = re.compile(r"[^\s/\\\x00-\x1f\x7f]*")


class FlushDiskType(Enum):
    """When a send is acknowledged: once it is in the page cache, or once it is on disk."""

    ASYNC_FLUSH = "ASYNC_FLUSH"
    SYNC_FLUSH = "SYNC_FLUSH"


class BrokerRole(Enum):
    """What a broker is in its set; Apache's values."""

    ASYNC_MASTER = "ASYNC_MASTER"
    SYNC_MASTER = "SYNC_MASTER"
    SLAVE = "SLAVE"


class IdentityConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Who this broker is."""

    cluster_name: Annotated[str, setting("brokerClusterName")] = "DefaultCluster"
    """Cluster; set."""
    broker_name: Annotated[str, setting("brokerName")] = ""
    """Name of the set that this broker belongs to; set. Empty: the host's name."""
    broker_id: Annotated[int, setting("brokerId")] = 0
    """0 is the master; a broker with brokerRole SLAVE has another one, 1 and up, of its own. In a set with controllers
    these give the ids; leave 0."""
    broker_role: Annotated[BrokerRole, setting("brokerRole")] = BrokerRole.ASYNC_MASTER
    """Without controllers (docs/ha.md, "Static roles"): ASYNC_MASTER acknowledges what it has stored, SYNC_MASTER what
    a SLAVE of the same broker_name has too. With controllers the role is theirs to decide: leave ASYNC_MASTER;
    replication.acknowledge_after says what sends wait for."""
    region_id: Annotated[str, setting("regionId")] = "DefaultRegion"
    """Shown to clients as MSG_REGION; set."""
    broker_permission: Annotated[int, setting("brokerPermission")] = 6
    """4 read, 2 write, 6 both; own."""
    namesrv_addr: Annotated[str, setting("namesrvAddr", environment=("NAMESRV_ADDR",))] = "127.0.0.1:9877"
    """Mesh endpoints of the name servers, host:port, separated by semicolons. Empty: none is told."""

    def validate(self) -> None:
        """Raise ValueError naming the setting that is out of range."""
        if self.broker_id < 0:
            raise ValueError(f"broker_id is {self.broker_id}; it must be 0 for a master, 1 and up for a slave")
        if self.broker_role is BrokerRole.SLAVE and self.broker_id == 0:
            raise ValueError("broker_role is SLAVE and broker_id is 0, the master's: set broker_id to 1 or another one")
        if self.broker_role is not BrokerRole.SLAVE and self.broker_id != 0:
            raise ValueError(
                f"broker_id is {self.broker_id} and broker_role is {self.broker_role.value}; a master's is 0: set "
                "broker_role to SLAVE, or broker_id to 0"
            )
        if self.broker_permission not in (2, 4, 6):
            raise ValueError(f"broker_permission is {self.broker_permission}; it must be 2, 4 or 6")
        if not self.cluster_name:
            raise ValueError("cluster_name must not be empty")
        for name in ("cluster_name", "broker_name", "region_id"):
            # They become names of topics, and parts of properties and receipt handles.
            if not _NAME.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must not hold white space or slashes")


class AcknowledgeAfter(Enum):
    """In a broker set: what a send's acknowledgement waits for, beside the disk."""

    REPLICAS = "REPLICAS"
    """All of the SyncStateSet hold the message: no failover loses it."""
    LOCAL = "LOCAL"
    """MAY LOSE ON FAILOVER: this broker has stored it."""


class ReplicationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Broker sets whose master the controllers elect (docs/ha.md)."""

    enabled: Annotated[bool, setting("enableControllerMode")] = False
    """Whether this broker belongs to such a set; else it is a master by itself; set."""
    controllers: Annotated[str, setting("controllerAddr")] = "127.0.0.1:9870"
    """Mesh endpoints of the controllers, host:port, separated by semicolons; set."""
    priority: Annotated[int, setting("brokerElectionPriority")] = 2**31 - 1
    """Among equals the broker with the lowest becomes master, 0 to 2147483647; own."""
    learner: Annotated[bool, setting("asyncLearner")] = False
    """Of a new broker: whether it only copies, and is never in the SyncStateSet nor elected; own. The controllers keep
    it from then on."""
    min_in_sync_replicas: Annotated[int, setting("minInSyncReplicas")] = 2
    """With fewer brokers in the SyncStateSet, the master included, sends are refused; set. 1 MAY LOSE ON FAILOVER: the
    set may shrink to its master alone. Apache's default is 1."""
    in_sync_replicas: Annotated[int, setting("inSyncReplicas")] = 1
    """The same, by Apache's other name for it: the higher of both counts; set."""
    acknowledge_after: AcknowledgeAfter = AcknowledgeAfter.REPLICAS
    """What acknowledgements wait for; set."""
    replica_timeout_ms: Annotated[int, setting("slaveTimeout")] = 3_000
    """After this a send that waits for replicas is answered FLUSH_SLAVE_TIMEOUT; own."""

    has_slaves: bool = False
    """Whether brokers with brokerRole SLAVE may copy this ASYNC_MASTER; a SYNC_MASTER's may always. Own."""
    ha_max_gap_not_in_sync_bytes: Annotated[int, setting("haMaxGapNotInSync")] = 256 << 20
    """SYNC_MASTER: a slave that lacks more of the log is not waited for; without one that is near enough sends are
    answered SLAVE_NOT_AVAILABLE. Own."""

    slave_read_enable: Annotated[bool, setting("slaveReadEnable")] = False
    """Whether consumers that are far behind are told to pull from a slave (whichBrokerWhenConsumeSlowly of the group;
    else its brokerId); own."""
    access_message_in_memory_max_ratio: Annotated[int, setting("accessMessageInMemoryMaxRatio")] = 40
    """Far behind: by more bytes of log than this share of the machine's memory, 0 to 100 percent; own."""

    @property
    def in_sync_min(self) -> int:
        """The higher of both."""
        return max(self.min_in_sync_replicas, self.in_sync_replicas)

    @property
    def targets(self) -> list[str]:
        """The controllers, one by one."""
        return [target.strip() for target in self.controllers.replace(",", ";").split(";") if target.strip()]

    def validate(self) -> None:
        """Raise ValueError naming the setting that is out of range."""
        if self.enabled and not self.targets:
            raise ValueError("controllers must name at least one controller, host:port")
        for target in self.targets:
            split_address(target)
        if not 0 <= self.priority <= 2**31 - 1:
            raise ValueError(f"priority is {self.priority}; it must be 0 to 2147483647")
        for name in ("min_in_sync_replicas", "in_sync_replicas"):
            if not 1 <= getattr(self, name) <= REPLICAS_MAX:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 to {REPLICAS_MAX}")
        if self.ha_max_gap_not_in_sync_bytes <= 0:
            raise ValueError(
                f"ha_max_gap_not_in_sync_bytes is {self.ha_max_gap_not_in_sync_bytes}; it must be greater than 0"
            )
        if not 0 <= self.access_message_in_memory_max_ratio <= 100:
            raise ValueError(
                f"access_message_in_memory_max_ratio is {self.access_message_in_memory_max_ratio}; it must be 0 to 100"
            )
        if self.replica_timeout_ms <= 0:
            raise ValueError(f"replica_timeout_ms is {self.replica_timeout_ms}; it must be greater than 0")


class ListenersConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where this broker listens. Own."""

    remoting: Annotated[
        ListenerConfig, setting(inside={"listenPort": "port", "bindAddress": "host", "brokerIP1": "advertised_host"})
    ] = ListenerConfig(port=10911)
    """Remoting clients. Its advertised address is what clients and message ids get, the latter also when it is off."""
    vip: ListenerConfig = ListenerConfig(enabled=False, port=10909)
    """The same services on a second port: the fast port of clients with sendMessageWithVIPChannel (port - 2)."""
    mesh: ListenerConfig = ListenerConfig(port=10921)
    """Proxies."""
    http: ListenerConfig = ListenerConfig(host="127.0.0.1", port=10931)
    """/healthz, /readyz, /metrics."""

    def validate(self) -> None:
        """Raise ValueError for a broker that nobody could talk to."""
        if not self.remoting.enabled and not self.mesh.enabled:
            raise ValueError("remoting.enabled and mesh.enabled are false; nobody could reach this broker")
        if self.vip.enabled and not self.remoting.enabled:
            raise ValueError("vip.enabled is true and remoting.enabled false; it is the second port of that listener")


class TopicsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Topics, groups, and how pulls wait."""

    auto_create_topic_enable: Annotated[bool, setting("autoCreateTopicEnable")] = True
    """Whether a send makes its topic; set."""
    auto_create_subscription_group: Annotated[bool, setting("autoCreateSubscriptionGroup")] = True
    """Whether a consumer makes its group; set."""
    default_topic_queue_nums: Annotated[int, setting("defaultTopicQueueNums")] = 8
    """Queues of the template TBW102, 1 to 16384; set."""
    trace_on: Annotated[bool, setting("traceOn")] = True
    """Told to clients as TRACE_ON; set."""
    long_polling_enable: Annotated[bool, setting("longPollingEnable")] = True
    """Whether pulls are held as long as clients ask for; own."""
    short_polling_time_ms: Annotated[int, setting("shortPollingTimeMills")] = 1_000
    """How long they are held otherwise; own."""
    use_server_side_reset_offset: Annotated[bool, setting("useServerSideResetOffset")] = True
    """Whether a reset of offsets is done here, to be told to consumers at their next pull; else they do it; set."""
    property_filter_enable: Annotated[bool, setting("enablePropertyFilter")] = True
    """Whether consumers may filter by SQL92; own. Apache's default is off."""
    store_reply_message_enable: Annotated[bool, setting("storeReplyMessageEnable")] = True
    """Whether a copy of each reply (request-reply) is kept in the topic <cluster>_REPLY_TOPIC; own."""
    refuse_differing_subscriptions: bool = False
    """Whether heartbeats of a consumer are refused that subscribes to something else than its group's others; set."""

    def validate(self) -> None:
        """Raise ValueError naming the setting that is out of range."""
        if not 1 <= self.default_topic_queue_nums <= QUEUES_PER_TOPIC_MAX:
            raise ValueError(f"default_topic_queue_nums is {self.default_topic_queue_nums}; it must be 1 to 16384")


class PopConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Popping, and how the broker divides queues for clients that let it. Set, but for the chance."""

    revive_queue_num: Annotated[int, setting("reviveQueueNum")] = 8
    """Queues of the topic where pops are written down, 1 to 64. It may be raised, not lowered."""
    retry_probability_percent: Annotated[int, setting("popFromRetryProbability")] = 20
    """How often messages that come again are popped before new ones, 0 to 100; own."""
    retry_topic_v2: Annotated[bool, setting("enableRetryTopicV2")] = False
    """Whether they lie in %RETRY%group+topic instead of %RETRY%group_topic."""
    retrieve_retry_topic_v1: Annotated[bool, setting("retrieveMessageFromPopRetryTopicV1")] = True
    """With retry_topic_v2: whether those in %RETRY%group_topic are popped too."""
    message_group_in_flight_max: int = 1
    """Of one message group, in ordered pops: messages that are out and not acknowledged, 1 to 32; own. With 1 nothing
    follows a message before it is acknowledged, whatever the consumer does; more is faster for long groups."""
    default_message_request_mode: Annotated[MessageRequestMode, setting("defaultMessageRequestMode")] = (
        MessageRequestMode.PULL
    )
    """How a group gets a topic's messages where nothing was set for the two."""
    default_pop_share_queue_num: Annotated[int, setting("defaultPopShareQueueNum")] = -1
    """With how many others a member then shares the queues that it pops; 0 or less: with all."""
    server_load_balancer_enable: Annotated[bool, setting("serverLoadBalancerEnable")] = True
    """Whether members that ask for their share get one; each gets all queues otherwise."""

    def validate(self) -> None:
        """Raise ValueError naming the setting that is out of range."""
        if not 1 <= self.revive_queue_num <= REVIVE_QUEUES_MAX:
            raise ValueError(f"revive_queue_num is {self.revive_queue_num}; it must be 1 to {REVIVE_QUEUES_MAX}")
        if not 1 <= self.message_group_in_flight_max <= 32:
            raise ValueError(f"message_group_in_flight_max is {self.message_group_in_flight_max}; it must be 1 to 32")
        if not 0 <= self.retry_probability_percent <= 100:
            raise ValueError(f"retry_probability_percent is {self.retry_probability_percent}; it must be 0 to 100")


class TransactionsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Transactions; set, as the next master asks on."""

    reject_transaction_message: Annotated[bool, setting("rejectTransactionMessage")] = False
    """Whether half messages are refused."""
    transaction_timeout_ms: Annotated[int, setting("transactionTimeOut")] = 6_000
    """A producer that has not ended its transaction is asked after this."""
    check_interval_ms: Annotated[int, setting("transactionCheckInterval")] = 30_000
    """It is asked again this long after the first question, then after twice as long, and so on."""
    check_interval_ms_max: int = 300_000
    """But at the latest after this."""
    check_max: Annotated[int, setting("transactionCheckMax")] = 15
    """After so many questions the message goes to TRANS_CHECK_MAX_TIME_TOPIC."""
    pending_hours_max: int = 72
    """And after this long where no producer of the group is connected; meanwhile nothing is asked."""

    def validate(self) -> None:
        """Raise ValueError naming the setting that is out of range."""
        for name in (
            "transaction_timeout_ms",
            "check_interval_ms",
            "check_interval_ms_max",
            "check_max",
            "pending_hours_max",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0")


class TimersConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Messages for any millisecond (TIMER_…); set, as the next master delivers them."""

    timer_wheel_enable: Annotated[bool, setting("timerWheelEnable")] = True
    """Whether they are taken. Those that wait are delivered all the same."""
    timer_max_delay_sec: Annotated[int, setting("timerMaxDelaySec")] = 3 * 24 * 3600
    """How far ahead they may be due, 1 to 604740; beyond that a send is refused."""
    recall_message_enable: Annotated[bool, setting("recallMessageEnable")] = True
    """Whether producers may take them back. Apache's default is off."""

    def validate(self) -> None:
        """Raise ValueError naming the setting that is out of range."""
        if not 1 <= self.timer_max_delay_sec <= TIMER_MAX_DELAY_SEC_MAX:
            raise ValueError(
                f"timer_max_delay_sec is {self.timer_max_delay_sec}; it must be 1 to {TIMER_MAX_DELAY_SEC_MAX}"
            )


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The store and the files beside it. Own, but for the delay levels."""

    path: Annotated[str, setting("storePathRootDir")] = "./store"
    """Root directory: commitlog/, consumequeue/, config/ and so on."""
    flush_disk_type: Annotated[FlushDiskType, setting("flushDiskType")] = FlushDiskType.ASYNC_FLUSH
    """When a send is acknowledged: ASYNC_FLUSH in the page cache (a power failure may lose it), SYNC_FLUSH on disk."""
    sync_flush_timeout_ms: Annotated[int, setting("syncFlushTimeout")] = 5_000
    """SYNC_FLUSH: after this a send is answered FLUSH_DISK_TIMEOUT."""
    flush_interval_ms: Annotated[int, setting("flushIntervalCommitLog")] = 500
    """ASYNC_FLUSH: how often the log is flushed."""
    commit_log_file_size_bytes: Annotated[int, setting("mappedFileSizeCommitLog")] = 1 << 30
    """A multiple of 4096."""
    consume_queue_file_size_bytes: Annotated[int, setting("mappedFileSizeConsumeQueue")] = 6_000_000
    """A multiple of 20."""
    message_index_enable: Annotated[bool, setting("messageIndexEnable")] = True
    """Whether messages can be found by key."""
    max_hash_slot_num: Annotated[int, setting("maxHashSlotNum")] = 5_000_000
    """Hash slots of an index file, from 1. All files of a store must have been made with the same."""
    max_index_num: Annotated[int, setting("maxIndexNum")] = 20_000_000
    """Keys in an index file, from 2; the same holds."""
    max_message_size_bytes: Annotated[int, setting("maxMessageSize")] = 4 << 20
    """Largest body."""
    wait_time_in_send_queue_ms: Annotated[int, setting("waitTimeMillsInSendQueue")] = 1_000
    """Sends are refused while the first one that waits for the disk has waited longer. Apache's default is 200."""
    fast_failure_enable: Annotated[bool, setting("brokerFastFailureEnable")] = True
    """Whether they are."""
    disk_stall_limit_ms: Annotated[int, setting("osPageCacheBusyTimeOutMills")] = 5_000
    """Sends are refused with SYSTEM_BUSY while the disk takes longer for one sync, write or reservation. Apache's
    default, for what it can see of that, is 1,000."""
    hot_window_bytes: int = 256 << 20
    """Messages this close to the end of the log are read from memory; older ones in a thread."""
    message_delay_level: Annotated[str, setting("messageDelayLevel")] = DEFAULT_DELAY_LEVELS
    """Delay levels; set."""
    flush_consumer_offset_interval_ms: Annotated[int, setting("flushConsumerOffsetInterval")] = 5_000
    """How often committed offsets are written."""
    flush_delay_offset_interval_ms: Annotated[int, setting("flushDelayOffsetInterval")] = 1_000
    """How often delay progress is written. Apache's default is 10 s; what lies between is delivered again."""
    delete_when: Annotated[str, setting("deleteWhen")] = "04"
    """Local hours, 00 to 23 and semicolons between, in which expired files of the log are deleted."""
    file_reserved_time_hours: Annotated[int, setting("fileReservedTime")] = 72
    """A file is expired this long after its last message."""
    disk_max_used_space_percent: Annotated[int, setting("diskMaxUsedSpaceRatio")] = 75
    """On a disk fuller than this, expired files go at any hour. 1 to 100; 100: never."""
    disk_space_clean_forcibly_percent: Annotated[int, setting("diskSpaceCleanForciblyRatio")] = 85
    """On a disk fuller than this, the oldest files go, expired or not, and the log warns. 1 to 100; 100: never."""
    clean_file_forcibly_enable: Annotated[bool, setting("cleanFileForciblyEnable")] = True
    """Whether files go that are not expired."""
    disk_space_warning_level_percent: Annotated[int, setting("diskSpaceWarningLevelRatio")] = 90
    """On a disk fuller than this, sends are refused. 1 to 100; 100: never. (Apache takes 90 for whatever is more.)"""
    disk_warn_free_bytes: int = 256 << 20
    """On a disk with less free, the log warns; 0: never."""
    disk_refuse_free_bytes: int = 64 << 20
    """On a disk with less free, sends are refused; 0: never."""
    commit_log_size_bytes_max: int = 0
    """The log's files together may have this size, else the oldest go, expired or not; 0: any size."""
    delete_file_batch_max: Annotated[int, setting("deleteFileBatchMax")] = 10
    """Files of the log that go in one round."""
    clean_resource_interval_ms: Annotated[int, setting("cleanResourceInterval")] = 10_000
    """From one round to the next."""

    @property
    def retention(self) -> RetentionConfig:
        """What is deleted when, for the store. Raises ValueError when `delete_when` is no list of hours."""
        return RetentionConfig(
            delete_when=parse_delete_when(self.delete_when),
            file_reserved_ms=self.file_reserved_time_hours * 3_600_000,
            disk_max_used_ratio=self.disk_max_used_space_percent / 100,
            disk_clean_forcibly_ratio=self.disk_space_clean_forcibly_percent / 100,
            clean_file_forcibly=self.clean_file_forcibly_enable,
            log_size_bytes_max=self.commit_log_size_bytes_max,
            delete_file_batch_max=self.delete_file_batch_max,
            round_interval_ms=self.clean_resource_interval_ms,
        )

    @property
    def disk_limits(self) -> DiskLimits:
        """When the disk is too full, for the store."""
        return DiskLimits(
            warn_used_ratio=self.disk_space_clean_forcibly_percent / 100,
            refuse_used_ratio=self.disk_space_warning_level_percent / 100,
            warn_free_bytes=self.disk_warn_free_bytes,
            refuse_free_bytes=self.disk_refuse_free_bytes,
        )

    def validate(self) -> None:
        """Raise ValueError naming the setting that is out of range."""
        DelayLevels(self.message_delay_level)
        if self.consume_queue_file_size_bytes <= 0 or self.consume_queue_file_size_bytes % 20:
            raise ValueError(
                f"consume_queue_file_size_bytes is {self.consume_queue_file_size_bytes}; it must be a multiple of 20"
            )
        if self.commit_log_file_size_bytes <= 0 or self.commit_log_file_size_bytes % 4096:
            raise ValueError(
                f"commit_log_file_size_bytes is {self.commit_log_file_size_bytes}; it must be a multiple of 4096"
            )
        if not self.path:
            raise ValueError("path must not be empty")
        try:
            parse_delete_when(self.delete_when)
        except ValueError as error:
            raise ValueError(f"delete_when: {error}") from error
        for name in (
            "disk_max_used_space_percent",
            "disk_space_clean_forcibly_percent",
            "disk_space_warning_level_percent",
        ):
            if not 1 <= getattr(self, name) <= 100:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 to 100")
        for name in ("hot_window_bytes", "disk_warn_free_bytes", "disk_refuse_free_bytes", "commit_log_size_bytes_max"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        for name in (
            "sync_flush_timeout_ms",
            "flush_interval_ms",
            "wait_time_in_send_queue_ms",
            "disk_stall_limit_ms",
            "max_hash_slot_num",
            "max_index_num",
            "max_message_size_bytes",
            "flush_consumer_offset_interval_ms",
            "flush_delay_offset_interval_ms",
            "file_reserved_time_hours",
            "delete_file_batch_max",
            "clean_resource_interval_ms",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0")


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds; each refusal names the one that was reached. Own."""

    connections_max: int = 20_000
    """Connections of one listener."""
    frame_size_bytes_max: int = 16 << 20
    """Largest Remoting frame; at most 16 MiB."""
    write_buffer_bytes_max: int = 64 << 20
    """What may wait to be written to one connection; a reader slower than that is cut off."""
    slow_reader_s: float = 10.0
    """How long a connection may stand at that bound."""
    idle_s: Annotated[float, setting("serverChannelMaxIdleTimeSeconds")] = 120.0
    """A silent connection is closed after this."""
    client_timeout_s: float = 120.0
    """A client without heartbeat is dropped after this."""
    topics_max: int = TOPICS_MAX
    """Topics."""
    groups_max: int = GROUPS_MAX
    """Consumer groups."""
    waiting_acknowledgements_max: int = 20_000
    """Sends that wait for the disk, in all."""
    waiting_acknowledgements_bytes_max: int = 256 << 20
    """What they may take of memory."""
    waiting_acknowledgements_per_client_max: int = 10_000
    """Sends of one connection that wait for the disk. Proxies bound their own clients."""
    waiting_acknowledgements_per_client_bytes_max: int = 64 << 20
    """And their memory."""
    held_pulls_max: int = 100_000
    """Pulls that wait for a message, in all."""
    held_pulls_per_queue_max: int = 10_000
    """And on one queue."""
    held_pulls_per_client_max: int = 10_000
    """And of one connection."""
    held_pulls_bytes_max: int = 256 << 20
    """What they may take of memory; an ordinary one takes some 2.3 KiB."""
    pull_hold_s_max: float = 60.0
    """The longest wait of a pull, whatever the client asks for."""
    pull_messages_max: Annotated[int, setting("maxTransferCountOnMessageInMemory")] = 32
    """Messages in one answer."""
    pull_size_bytes_max: Annotated[int, setting("maxTransferBytesOnMessageInMemory")] = 262_144
    """Bytes in one answer; the first message always goes out."""
    held_pops_max: Annotated[int, setting("maxPopPollingSize")] = 100_000
    """Pops that wait for a message, in all."""
    held_pops_per_key_max: Annotated[int, setting("popPollingSize")] = 1_024
    """And of one topic, group and queue."""
    popped_messages_max: int = 1_000_000
    """Messages that are popped and not acknowledged; some 200 bytes of memory each."""
    pending_transactions_max: int = 200_000
    """Half messages that are not decided; some 600 bytes of memory each."""
    cold_reads_max: int = 64
    """Reads of old messages that may wait for the disk at a time."""
    client_calls_max: int = 1_000
    """Questions to connected clients that wait for their answer at a time: replies on their way, operators' calls."""
    client_calls_bytes_max: int = 256 << 20
    """What they may take of memory."""
    client_calls_per_client_max: int = 500
    """Such questions that one connection had asked."""
    client_calls_per_client_bytes_max: int = 64 << 20
    """And their memory."""
    client_call_s: float = 10.0
    """How long each may take."""

    def validate(self) -> None:
        """Raise ValueError naming the setting that is out of range."""
        for name in self.__struct_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0")
        for name, value_max in (
            ("frame_size_bytes_max", 16 << 20),
            # The tables must fit into files that can be read again (64 MiB).
            ("topics_max", TOPICS_MAX),
            ("groups_max", GROUPS_MAX),
        ):
            if getattr(self, name) > value_max:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at most {value_max}")


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a broker."""

    identity: IdentityConfig = IdentityConfig()
    replication: ReplicationConfig = ReplicationConfig()
    listeners: ListenersConfig = ListenersConfig()
    topics: TopicsConfig = TopicsConfig()
    pop: PopConfig = PopConfig()
    transactions: TransactionsConfig = TransactionsConfig()
    timers: TimersConfig = TimersConfig()
    store: StoreSettings = StoreSettings()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()

    @property
    def is_static(self) -> bool:
        """Whether this broker has a part in a set without controllers, beyond being a master by itself."""
        if self.replication.enabled:
            return False
        return self.replication.has_slaves or self.identity.broker_role is not BrokerRole.ASYNC_MASTER

    def validate(self) -> None:
        """Raise ValueError for sections that do not go together."""
        if self.replication.enabled and not self.listeners.mesh.enabled:
            raise ValueError(
                "replication.enabled needs listeners.mesh.enabled: the set's brokers copy by that listener"
            )
        self._check_role()
        body, frame = self.store.max_message_size_bytes, self.limits.frame_size_bytes_max
        if body + HEADER_SIZE_BYTES > frame:
            raise ValueError(
                f"store.max_message_size_bytes is {body}; with {HEADER_SIZE_BYTES} for the header it must fit into "
                f"limits.frame_size_bytes_max, which is {frame}"
            )

    def _check_role(self) -> None:
        identity = self.identity
        role = identity.broker_role
        if self.replication.enabled and role is not BrokerRole.ASYNC_MASTER:
            raise ValueError(
                f"identity.broker_role is {role.value} and replication.enabled is true: the controllers decide who is "
                "master; leave ASYNC_MASTER (and broker_id 0), or set replication.enabled to false"
            )
        if self.is_static and not self.listeners.mesh.enabled:
            raise ValueError(
                f"identity.broker_role {role.value} needs listeners.mesh.enabled: slaves copy by that listener"
            )
        if role is BrokerRole.SLAVE and not identity.namesrv_addr.strip(" ,;"):
            raise ValueError("identity.broker_role is SLAVE: set namesrv_addr, a slave finds its master there")


IGNORED_PROPERTIES = frozenset(
    {
        "fetchNamesrvAddrByAddressServer",
        "rocketmqHome",
        "storePathCommitLog",
        "storePathConsumeQueue",
        "storePathIndex",
        "storeCheckpoint",
        "abortFile",
    }
)
"""Properties of Apache's stock broker.conf that are read and have no effect in this version."""
