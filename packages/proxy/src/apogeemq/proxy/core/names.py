"""Names of topics and groups as gRPC clients write them, and as brokers know them.

A Resource has a namespace and a name; brokers know both as one name, `namespace%name`.
Source: Apache TopicValidator, Validators, NamespaceUtil, MixAll; reference broker_behaviour.md §1, grpc_v2.md §6.
"""

from __future__ import annotations

import functools
import re

from apogeemq.proto.v2.definition_pb2 import Code, Resource
from apogeemq.proxy.errors import ProxyError

TOPIC_SIZE_MAX = 127
GROUP_SIZE_MAX = 120
RETRY_OR_DLQ_TOPIC_SIZE_MAX = 255
NAMESPACE_SEPARATOR = "%"
NAMES_KEPT = 10_000
"""Topics that were found right and are remembered as such."""

_LEGAL = re.compile(r"[%|a-zA-Z0-9_-]+")
_PREFIXES_OF_GROUP_TOPICS = ("%RETRY%", "%DLQ%")
_SYSTEM_TOPIC_PREFIX = "rmq_sys_"
_SYSTEM_GROUP_PREFIX = "CID_RMQ_SYS_"
_SYSTEM_TOPICS = frozenset(
    {
        "TBW102",
        "SCHEDULE_TOPIC_XXXX",
        "BenchmarkTest",
        "RMQ_SYS_TRANS_HALF_TOPIC",
        "RMQ_SYS_TRACE_TOPIC",
        "RMQ_SYS_TRANS_OP_HALF_TOPIC",
        "TRANS_CHECK_MAX_TIME_TOPIC",
        "SELF_TEST_TOPIC",
        "OFFSET_MOVED_EVENT",
        "CHECKPOINT_TOPIC",
    }
)


def topic_of(resource: Resource, field: str) -> str:
    """The topic as brokers know it. `field` is where it stands in the request, for the refusal.

    Raises:
        ProxyError ILLEGAL_TOPIC: blank, too long, with characters beyond `[%|a-zA-Z0-9_-]`, or the system's own.
    """
    return _checked_topic(resource.resource_namespace, resource.name, field)


@functools.lru_cache(maxsize=NAMES_KEPT)
def _checked_topic(namespace: str, name: str, field: str) -> str:
    """Check a topic, once for all its messages. Only topics that are right are kept: there is no end to wrong ones."""
    topic = _joined(namespace, name)
    reason = _reason(topic, name, topic_size_max(topic))
    if reason is None and (topic in _SYSTEM_TOPICS or topic.startswith(_SYSTEM_TOPIC_PREFIX)):
        reason = f"{topic} belongs to the system; clients use topics of their own"
    if reason is not None:
        raise ProxyError(Code.ILLEGAL_TOPIC, f"{field}: {reason}")
    return topic


def group_of(resource: Resource, field: str) -> str:
    """The consumer group as brokers know it.

    Raises:
        ProxyError ILLEGAL_CONSUMER_GROUP: for the reasons of `topic_of`.
    """
    group = full_name(resource)
    reason = _reason(group, resource.name, GROUP_SIZE_MAX)
    if reason is None and group.startswith(_SYSTEM_GROUP_PREFIX):
        reason = f"{group} belongs to the system; clients use groups of their own"
    if reason is not None:
        raise ProxyError(Code.ILLEGAL_CONSUMER_GROUP, f"{field}: {reason}")
    return group


def full_name(resource: Resource) -> str:
    """`namespace%name`, or the name alone outside of namespaces; unchecked."""
    return _joined(resource.resource_namespace, resource.name)


def _joined(namespace: str, name: str) -> str:
    return f"{namespace}{NAMESPACE_SEPARATOR}{name}" if namespace else name


def topic_size_max(topic: str) -> int:
    """How long this topic may be: those that brokers make for a group carry the group's name too."""
    return RETRY_OR_DLQ_TOPIC_SIZE_MAX if topic.startswith(_PREFIXES_OF_GROUP_TOPICS) else TOPIC_SIZE_MAX


def _reason(text: str, name: str, size_max: int) -> str | None:
    """What is wrong with a name, None when nothing is."""
    if not name.strip():
        return "the name is missing or blank"
    if not _LEGAL.fullmatch(text):
        return f"{text[:300]!r} has characters beyond [%|a-zA-Z0-9_-]"
    if len(text) > size_max:
        return f"{len(text)} characters, at most {size_max} are allowed"
    return None
