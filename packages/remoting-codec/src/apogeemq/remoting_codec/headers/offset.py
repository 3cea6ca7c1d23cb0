"""Consumer offsets, and the offsets of a queue."""

from enum import Enum

from apogeemq.remoting_codec.headers.base import CommandHeader, TopicRequestHeader
from apogeemq.remoting_codec.java_numbers import Int32, Int64


class BoundaryType(Enum):
    """Which of the messages stored in the searched millisecond is meant.

    Written in upper case, as recorded from a Java client; read in any, for Apache's enum has its values in lower case.
    """

    LOWER = "LOWER"
    UPPER = "UPPER"

    @classmethod
    def _missing_(cls, value: object) -> "BoundaryType | None":
        """Accept `upper` for `UPPER`."""
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None


class QueryConsumerOffsetRequestHeader(TopicRequestHeader, kw_only=True):
    """QUERY_CONSUMER_OFFSET (14)."""

    consumer_group: str
    topic: str
    queue_id: Int32
    set_zero_if_not_found: bool | None = None


class QueryConsumerOffsetResponseHeader(CommandHeader, kw_only=True):
    """Answer to QUERY_CONSUMER_OFFSET: the committed offset."""

    offset: Int64


class UpdateConsumerOffsetRequestHeader(TopicRequestHeader, kw_only=True):
    """UPDATE_CONSUMER_OFFSET (15), usually oneway."""

    consumer_group: str
    topic: str
    queue_id: Int32
    commit_offset: Int64


class UpdateConsumerOffsetResponseHeader(CommandHeader):
    """Answer to UPDATE_CONSUMER_OFFSET: no field."""


class SearchOffsetRequestHeader(TopicRequestHeader, kw_only=True):
    """SEARCH_OFFSET_BY_TIMESTAMP (29). `timestamp` in ms; `lite_topic` came with 5.5."""

    topic: str
    queue_id: Int32
    timestamp: Int64
    boundary_type: BoundaryType | None = None
    lite_topic: str | None = None


class SearchOffsetResponseHeader(CommandHeader, kw_only=True):
    """Answer to SEARCH_OFFSET_BY_TIMESTAMP: a queue offset."""

    offset: Int64


class GetMaxOffsetRequestHeader(TopicRequestHeader, kw_only=True):
    """GET_MAX_OFFSET (30)."""

    topic: str
    queue_id: Int32
    committed: bool = True


class GetMaxOffsetResponseHeader(CommandHeader, kw_only=True):
    """Answer to GET_MAX_OFFSET: the queue offset that the next message will get."""

    offset: Int64


class GetMinOffsetRequestHeader(TopicRequestHeader, kw_only=True):
    """GET_MIN_OFFSET (31)."""

    topic: str
    queue_id: Int32


class GetMinOffsetResponseHeader(CommandHeader, kw_only=True):
    """Answer to GET_MIN_OFFSET: the queue offset of the oldest message kept."""

    offset: Int64


class GetEarliestMsgStoretimeRequestHeader(TopicRequestHeader, kw_only=True):
    """GET_EARLIEST_MSG_STORETIME (32)."""

    topic: str
    queue_id: Int32


class GetEarliestMsgStoretimeResponseHeader(CommandHeader, kw_only=True):
    """Answer to GET_EARLIEST_MSG_STORETIME: the store time in ms, -1 when the queue is empty."""

    timestamp: Int64
