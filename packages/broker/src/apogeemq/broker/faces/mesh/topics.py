"""Topics and groups: QueryTopic, EnsureTopic, QueryGroup."""

import asyncio
from collections.abc import Callable, Hashable

from apogeemq.broker.core.names import AUTO_CREATE_TOPIC_KEY_TOPIC
from apogeemq.broker.core.topics import QUEUES_PER_TOPIC_MAX, TopicTable
from apogeemq.broker.faces import fields
from apogeemq.broker.service.acknowledge import Acknowledger, Verdict
from apogeemq.broker.service.groups import GroupService
from apogeemq.mesh.calls import CallInfo
from apogeemq.mesh.errors import CallRefused
from apogeemq.mesh.v1.broker_pb2 import (
    EnsureTopicReply,
    EnsureTopicRequest,
    QueryGroupReply,
    QueryGroupRequest,
    QueryTopicReply,
    QueryTopicRequest,
)
from apogeemq.remoting_codec.codes import ResponseCode

MESSAGE_TYPE_ATTRIBUTE = "message.type"
"""Where a topic's configuration says which kind of messages it takes (Apache's TopicAttributes)."""


class TopicAnswers:
    """Answers about topics and groups.

    Args:
        topics: the table.
        groups: makes groups with their retry topics.
        acknowledger: decides when a new topic may be told of.
    """

    def __init__(self, topics: TopicTable, groups: GroupService[Hashable], acknowledger: Acknowledger) -> None:
        self._topics = topics
        self._groups = groups
        self._acknowledger = acknowledger

    def query_topic(self, request: QueryTopicRequest, info: CallInfo) -> QueryTopicReply:
        """What this broker has of a topic."""
        fields.check_topic("topic", request.topic)
        topic = self._topics.get(request.topic)
        if topic is None:
            return QueryTopicReply(found=False)
        config = topic.config
        return QueryTopicReply(
            found=True,
            read_queue_nums=config.read_queue_nums,
            write_queue_nums=config.write_queue_nums,
            perm=config.perm,
            message_type=config.attributes.get(MESSAGE_TYPE_ATTRIBUTE, ""),
        )

    def ensure_topic(
        self, request: EnsureTopicRequest, info: CallInfo
    ) -> "EnsureTopicReply | asyncio.Future[EnsureTopicReply]":
        """Make a topic by the template TBW102, as a send would; the answer waits until it is in the topics' file.

        `queue_nums` 0 means as many as the template has. Refused with TOPIC_NOT_EXIST where sends may not make topics.
        """
        fields.check_topic("topic", request.topic)
        fields.check_range("queue_nums", request.queue_nums, 0, QUEUES_PER_TOPIC_MAX)
        topic = self._topics.get(request.topic)
        created = topic is None
        if topic is None:
            self._acknowledger.check_room_for_topic()
            queue_nums = request.queue_nums or self._topics.default_queue_nums
            topic = self._topics.create_for_send(request.topic, AUTO_CREATE_TOPIC_KEY_TOPIC, queue_nums)
        reply = EnsureTopicReply(created=created)
        if self._acknowledger.is_safe(topic, False):
            return reply
        future: asyncio.Future[EnsureTopicReply] = asyncio.get_running_loop().create_future()
        self._acknowledger.when_safe(topic, 0, False, _settling(future, reply, request.topic))
        return future

    def query_group(self, request: QueryGroupRequest, info: CallInfo) -> QueryGroupReply:
        """A group's settings; with `create` it is made when it may be."""
        fields.check_group("consumer_group", request.consumer_group)
        group = (
            self._groups.find_or_create(request.consumer_group)
            if request.create
            else self._groups.find(request.consumer_group)
        )
        if group is None:
            return QueryGroupReply(found=False)
        return QueryGroupReply(
            found=True,
            consume_enable=group.consume_enable,
            consume_message_orderly=group.consume_message_orderly,
            retry_max_times=group.retry_max_times,
        )


def _settling(
    future: "asyncio.Future[EnsureTopicReply]", reply: EnsureTopicReply, topic: str
) -> Callable[[Verdict], None]:
    """What tells the asker that the topic is written, or not, if it still waits."""

    def settle(verdict: Verdict) -> None:
        if future.done():
            return
        if verdict.code is ResponseCode.SUCCESS:
            future.set_result(reply)
        else:
            text = f"topic {topic} is made, but could not be written to the topics' file in time; ask again"
            future.set_exception(CallRefused(int(ResponseCode.SERVICE_NOT_AVAILABLE), text))

    return settle
