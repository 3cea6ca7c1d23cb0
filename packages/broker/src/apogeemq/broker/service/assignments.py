"""Server-side allocation: which queues a client reads, and whether by pull or by pop.

The queues of a topic are those of all brokers. This one's own are known here; those of the others are asked of the name
servers. An answer of None means "keep what you have": the client then skips this round, and asks again in 20 s. So a
name server that is away takes no queue from anybody. Source: Apache broker/processor/QueryAssignmentProcessor;
what 5.3.3 answered (vectors pop.jsonl).
"""

import logging
from collections.abc import Hashable, Sequence
from typing import Protocol

from apogeemq.broker.core.allocation import STRATEGIES, allocate_pop, allocate_pull
from apogeemq.broker.core.clients import ClientTable
from apogeemq.broker.core.names import RETRY_TOPIC_PREFIX, illegal_group_reason, illegal_topic_reason
from apogeemq.broker.core.request_modes import RequestModeTable
from apogeemq.broker.core.topics import PERM_READ, TopicTable
from apogeemq.broker.errors import InvalidParameter, NoPermission
from apogeemq.remoting_codec.bodies import MessageModel, MessageQueue
from apogeemq.remoting_codec.client_bodies import (
    MessageQueueAssignment,
    MessageRequestMode,
    QueryAssignmentRequestBody,
    SetMessageRequestModeRequestBody,
)

log = logging.getLogger(__name__)


class OtherBrokers(Protocol):
    """What the name servers know of a topic beyond this broker."""

    async def queues(self, topic: str) -> Sequence[MessageQueue] | None:
        """Readable queues of the topic on other brokers; None when that can't be said now."""
        ...


class NoOtherBrokers:
    """For a broker without name servers: there is only this one."""

    async def queues(self, topic: str) -> Sequence[MessageQueue]:
        """None anywhere."""
        return ()


class AssignmentService:
    """Divides queues among the members of a group.

    Args:
        topics, clients, modes: the tables.
        others: queues of other brokers.
        broker_name: this one's.
        default_mode, default_share_with: for topics and groups for which none is set (defaultMessageRequestMode,
            defaultPopShareQueueNum). Retry topics are always pulled from.
        is_dividing: whether members share the queues out; each gets all otherwise (serverLoadBalancerEnable).
    """

    def __init__(
        self,
        *,
        topics: TopicTable,
        clients: ClientTable[Hashable],
        modes: RequestModeTable,
        others: OtherBrokers,
        broker_name: str,
        default_mode: MessageRequestMode,
        default_share_with: int,
        is_dividing: bool,
    ) -> None:
        self._topics = topics
        self._clients = clients
        self._modes = modes
        self._others = others
        self._broker_name = broker_name
        self._default_mode = default_mode
        self._default_share_with = default_share_with
        self._is_dividing = is_dividing

    async def query(self, request: QueryAssignmentRequestBody) -> list[MessageQueueAssignment] | None:
        """The asking client's share; None where nothing can be said and it keeps what it has."""
        reason = illegal_topic_reason(request.topic)
        if reason is not None:  # nobody has it, and no name server is asked for a text of any length
            return self._nothing(request, reason)
        others = await self._others.queues(request.topic)
        if others is None:
            return None
        mode = self._mode(request.topic, request.consumer_group)
        shared = self._share(request, [*self._own_queues(request.topic), *others], mode)
        if shared is None:
            return None
        return [MessageQueueAssignment(message_queue=queue, mode=mode.mode) for queue in shared]

    def set_mode(self, mode: SetMessageRequestModeRequestBody) -> int:
        """Say how a group gets a topic's messages; gives the version of the table that has it.

        Raises NoPermission, InvalidParameter or SystemBusy.
        """
        if mode.topic.startswith(RETRY_TOPIC_PREFIX):
            raise NoPermission("retry topic is not allowed to set mode")
        reason = illegal_topic_reason(mode.topic) or illegal_group_reason(mode.consumer_group)
        if reason is not None:
            raise InvalidParameter(reason)
        self._modes.put(mode)
        return self._modes.version

    def _mode(self, topic: str, group: str) -> SetMessageRequestModeRequestBody:
        known = self._modes.get(topic, group)
        if known is not None:
            return known
        is_retry = topic.startswith(RETRY_TOPIC_PREFIX)
        return SetMessageRequestModeRequestBody(
            topic=topic,
            consumer_group=group,
            mode=MessageRequestMode.PULL if is_retry else self._default_mode,
            pop_share_queue_num=self._default_share_with,
        )

    def _own_queues(self, topic: str) -> list[MessageQueue]:
        found = self._topics.get(topic)
        if found is None or not found.config.perm & PERM_READ:
            return []
        return [MessageQueue(topic, self._broker_name, number) for number in range(found.config.read_queue_nums)]

    def _share(
        self, request: QueryAssignmentRequestBody, queues: list[MessageQueue], mode: SetMessageRequestModeRequestBody
    ) -> list[MessageQueue] | None:
        if not queues:
            return self._nothing(request, "no broker has readable queues of this topic")
        if request.message_model is MessageModel.BROADCASTING or not self._is_dividing:
            return sorted(queues)
        group = self._clients.consumer_group(request.consumer_group)
        if group is None:
            return self._nothing(request, "the group has no live member")
        strategy = STRATEGIES.get(request.strategy_name or "")
        if strategy is None:
            known = ", ".join(STRATEGIES)
            return self._nothing(request, f"the strategy {request.strategy_name!r:.60} is none of {known}")
        client_ids = group.client_ids()
        if mode.mode is MessageRequestMode.POP:
            return allocate_pop(strategy, queues, client_ids, request.client_id, mode.pop_share_queue_num)
        return allocate_pull(strategy, queues, client_ids, request.client_id)

    @staticmethod
    def _nothing(request: QueryAssignmentRequestBody, reason: str) -> None:
        log.info("no assignment of topic %.300s to group %.300s: %s", request.topic, request.consumer_group, reason)
