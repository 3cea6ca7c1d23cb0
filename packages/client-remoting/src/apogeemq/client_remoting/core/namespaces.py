"""Names in a namespace: what a user calls `orders` is `shop%orders` to the servers.

    user      name        %RETRY%group        %DLQ%group
    servers   ns%name     %RETRY%ns%group     %DLQ%ns%group

This is Java's first kind of namespace (`setNamespace`); to servers the whole is a name like any other. The names of
RocketMQ's own topics and groups are the same in every namespace. Source: reference remoting.md §6 and
broker_behaviour.md (system topics and groups); Apache NamespaceUtil, NamespaceUtilTest.
"""

import re
from typing import Final

_SEPARATOR: Final = "%"
_OUTER_PREFIXES: Final = ("%RETRY%", "%DLQ%")
_NAMESPACE: Final = re.compile(r"[a-zA-Z0-9_-]+")

_SYSTEM_TOPICS: Final = frozenset(
    {
        "SCHEDULE_TOPIC_XXXX",
        "RMQ_SYS_TRANS_HALF_TOPIC",
        "RMQ_SYS_TRANS_OP_HALF_TOPIC",
        "RMQ_SYS_TRACE_TOPIC",
        "TRANS_CHECK_MAX_TIME_TOPIC",
        "SELF_TEST_TOPIC",
        "OFFSET_MOVED_EVENT",
        "CHECKPOINT_TOPIC",
        "BenchmarkTest",
        "TBW102",
    }
)
_SYSTEM_PREFIXES: Final = ("rmq_sys_", "CID_RMQ_SYS_")


def check_namespace(namespace: str) -> None:
    """Raise ValueError unless `namespace` can be one; the empty one is none."""
    if namespace and _NAMESPACE.fullmatch(namespace) is None:
        raise ValueError(f"namespace is {namespace[:64]!r}; it may have a-z A-Z 0-9 _ - only")


def with_namespace(name: str, namespace: str) -> str:
    """What servers call a topic or group; names that have the namespace already stay as they are."""
    outer, inner = _split(name)
    if not namespace or name in _SYSTEM_TOPICS or name.startswith(_SYSTEM_PREFIXES):
        return name
    if inner.startswith(namespace + _SEPARATOR):
        return name
    return f"{outer}{namespace}{_SEPARATOR}{inner}"


def without_namespace(name: str, namespace: str) -> str:
    """What the user calls a topic or group of the servers; names of other namespaces stay as they are."""
    outer, inner = _split(name)
    return outer + inner.removeprefix(namespace + _SEPARATOR) if namespace else name


def _split(name: str) -> tuple[str, str]:
    """The outer prefix of retry topics and DLQs, perhaps empty, and the rest."""
    for prefix in _OUTER_PREFIXES:
        if name.startswith(prefix):
            return prefix, name.removeprefix(prefix)
    return "", name
