"""Handing messages out: the checks of a pull, the answer's code, what may be held until a message comes.

Source: reference broker_behaviour.md §5 (order of checks, table of results); recorded pulls of Apache 5.3.3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from apogeemq.broker.core.clients import ClientTable
from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import PERM_READ, Topic, TopicTable
from apogeemq.broker.errors import (
    InvalidParameter,
    NoPermission,
    SubscriptionNotExist,
    SubscriptionNotLatest,
)
from apogeemq.broker.filter.message_filter import MessageFilter, message_filter, read_filtered
from apogeemq.remoting_codec.bodies import SubscriptionData
from apogeemq.remoting_codec.codes import ResponseCode
from apogeemq.store.message_store import MessageStore, ReadResult, ReadStatus

PULL_COMMIT_OFFSET = 0x1
PULL_SUSPEND = 0x2
PULL_SUBSCRIPTION = 0x4

_CODES = {
    ReadStatus.FOUND: ResponseCode.SUCCESS,
    ReadStatus.NO_MATCHED_MESSAGE: ResponseCode.PULL_RETRY_IMMEDIATELY,
    ReadStatus.MESSAGE_WAS_REMOVING: ResponseCode.PULL_RETRY_IMMEDIATELY,
    ReadStatus.OFFSET_OVERFLOW_ONE: ResponseCode.PULL_NOT_FOUND,
    ReadStatus.OFFSET_FOUND_NULL: ResponseCode.PULL_NOT_FOUND,
    ReadStatus.OFFSET_TOO_SMALL: ResponseCode.PULL_OFFSET_MOVED,
    ReadStatus.OFFSET_OVERFLOW_BADLY: ResponseCode.PULL_OFFSET_MOVED,
}


class PullRequest(Protocol):
    """What a consumer wants (Apache's PullMessageRequestHeader)."""

    consumer_group: str
    topic: str
    queue_id: int
    queue_offset: int
    max_msg_nums: int
    sys_flag: int
    commit_offset: int
    suspend_timeout_millis: int
    subscription: str | None
    sub_version: int
    expression_type: str | None
    max_msg_bytes: int | None


@dataclass(slots=True, frozen=True)
class Pull:
    """A pull that passed the checks: what to read."""

    topic: Topic
    group: str
    queue_id: int
    queue_offset: int
    count_max: int
    size_bytes_max: int
    wanted: MessageFilter


@dataclass(slots=True, frozen=True)
class Pulled:
    """The answer to a pull. `buffers` are records of the log, back to back; may be views into it.

    `is_cold`: nothing was read, since that would wait for the disk: repeat with `cold_allowed` in a thread.
    """

    code: ResponseCode
    remark: str
    next_offset: int
    min_offset: int
    max_offset: int
    buffers: Sequence[bytes | memoryview]
    count: int
    size_bytes: int
    is_cold: bool = False


class FetchService:
    """Reads queues for consumers.

    Args:
        store, topics, groups, offsets, clients: what it looks at.
        permission: bits of this broker (brokerPermission).
        broker_name: for remarks.
        count_max, size_bytes_max: bounds of one answer, whatever the client asks for
            (maxTransferCountOnMessageInMemory, maxTransferBytesOnMessageInMemory). The first message always goes out.
        sql_enabled: whether SQL92 expressions are taken (enablePropertyFilter).
    """

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        groups: SubscriptionGroupTable,
        offsets: ConsumerOffsetTable,
        clients: ClientTable,  # type: ignore[type-arg]  # any kind of connection
        permission: int,
        broker_name: str,
        count_max: int,
        size_bytes_max: int,
        sql_enabled: bool,
    ) -> None:
        self._store = store
        self._topics = topics
        self._groups = groups
        self._offsets = offsets
        self._clients = clients
        self.permission = permission
        self._broker_name = broker_name
        self._count_max = count_max
        self._size_bytes_max = size_bytes_max
        self._sql_enabled = sql_enabled

    def check(self, request: PullRequest, client: str) -> Pull:
        """The checks of a pull, in Apache's order; raises BrokerError. `client` names the asker in remarks."""
        if not self.permission & PERM_READ:
            raise NoPermission(f"the broker[{self._broker_name}] pulling message is forbidden")
        known = self._groups.get(request.consumer_group)
        group = self._groups.plan(request.consumer_group) if known is None else known
        if not group.consume_enable:
            raise NoPermission(f"subscription group no permission, {request.consumer_group}")
        topic = self._topics.require(request.topic)
        if not topic.config.perm & PERM_READ:
            raise NoPermission(f"the topic[{topic.name}] pulling message is forbidden")
        if not 0 <= request.queue_id < topic.config.read_queue_nums:
            raise InvalidParameter(
                f"queueId[{request.queue_id}] is illegal, topic:[{topic.name}] "
                f"topicConfig.readQueueNums:[{topic.config.read_queue_nums}] consumer:[/{client}]"
            )
        if request.max_msg_nums <= 0:
            raise InvalidParameter(f"maxMsgNums[{request.max_msg_nums}] is illegal, it must be greater than 0")
        size_bytes_max = self._size_bytes_max
        if request.max_msg_bytes is not None and request.max_msg_bytes > 0:
            size_bytes_max = min(size_bytes_max, request.max_msg_bytes)
        wanted = self._filter(request, group.consume_broadcast_enable)
        if known is None:  # not before: a pull that is refused makes no group
            self._groups.put(group)
        return Pull(
            topic,
            request.consumer_group,
            request.queue_id,
            request.queue_offset,
            min(request.max_msg_nums, self._count_max),
            size_bytes_max,
            wanted,
        )

    def commit_offset(self, request: PullRequest) -> None:
        """Commit what the pull carries, when it says so; goes before the read (trap 15). Java's -1 means none yet."""
        if request.sys_flag & PULL_COMMIT_OFFSET and request.commit_offset >= 0:
            self._offsets.commit_told(request.topic, request.consumer_group, request.queue_id, request.commit_offset)

    def read(self, pull: Pull, *, cold_allowed: bool = False, is_over: Callable[[], bool] = lambda: False) -> Pulled:
        """Read for a checked pull. With `cold_allowed` it may wait for the disk: call it in a thread then.

        After a reset of the group's offset nothing is read, once: the answer says where to go on. `is_over` ends a look
        for what an SQL92 expression wants before all was looked at that one answer may.
        """
        if not cold_allowed:
            reset = self._offsets.take_reset(pull.topic.name, pull.group, pull.queue_id)
            if reset is not None:
                return self._moved(pull, reset)
        result = read_filtered(
            self._store,
            pull.topic.name,
            pull.queue_id,
            pull.queue_offset,
            pull.count_max,
            pull.size_bytes_max,
            pull.wanted,
            cold_allowed=cold_allowed,
            is_over=is_over,
        )
        return self._pulled(pull, result)

    def _moved(self, pull: Pull, next_offset: int) -> Pulled:
        name, queue_id = pull.topic.name, pull.queue_id
        ends = self._store.min_offset(name, queue_id), self._store.max_offset(name, queue_id)
        return Pulled(ResponseCode.PULL_OFFSET_MOVED, "OFFSET_RESET", next_offset, *ends, (), 0, 0)

    @staticmethod
    def count_handed_out(pull: Pull, pulled: Pulled) -> None:
        """Count what goes to the client. Apart from `read`, which may run in a thread."""
        pull.topic.messages_out += pulled.count
        pull.topic.bytes_out += pulled.size_bytes

    @staticmethod
    def _pulled(pull: Pull, result: ReadResult) -> Pulled:
        status = result.status
        code = _CODES.get(status)
        next_offset = result.next_offset
        if code is None:
            # An empty or unknown queue: offset 0 may wait there, any other is wrong (trap 16).
            code = ResponseCode.PULL_NOT_FOUND if pull.queue_offset == 0 else ResponseCode.PULL_OFFSET_MOVED
        return Pulled(
            code,
            status.name,
            next_offset,
            result.min_offset,
            result.max_offset,
            result.buffers,
            result.count,
            result.size_bytes,
            status is ReadStatus.COLD,
        )

    def _filter(self, request: PullRequest, broadcast_enable: bool) -> MessageFilter:
        if request.sys_flag & PULL_SUBSCRIPTION:
            return message_filter(request.expression_type, request.subscription, sql_enabled=self._sql_enabled)
        subscription = self._subscription(request, broadcast_enable)
        return message_filter(subscription.expression_type, subscription.sub_string, sql_enabled=self._sql_enabled)

    def _subscription(self, request: PullRequest, broadcast_enable: bool) -> SubscriptionData:
        group = self._clients.consumer_group(request.consumer_group)
        if group is None:
            raise SubscriptionNotExist(f"the consumer's group info not exist, group: {request.consumer_group}")
        if group.message_model == "BROADCASTING" and not broadcast_enable:
            raise NoPermission(f"the consumer group[{request.consumer_group}] can not consume by broadcast way")
        subscription = group.subscriptions.get(request.topic)
        if subscription is None:
            raise SubscriptionNotExist(
                f"the consumer's subscription not exist, group: {request.consumer_group}, topic: {request.topic}"
            )
        if subscription.sub_version < request.sub_version:
            raise SubscriptionNotLatest("the consumer's subscription not latest")
        return subscription
