"""Finding stored messages by key or by physical offset."""

from apogeemq.remoting_codec.headers.base import CommandHeader, TopicRequestHeader
from apogeemq.remoting_codec.java_numbers import Int32, Int64


class QueryMessageRequestHeader(TopicRequestHeader, kw_only=True):
    """QUERY_MESSAGE (12): the store times [begin_timestamp, end_timestamp] are in ms.

    The ext field `_UNIQUE_KEY_QUERY` beside it says that `key` is a unique id.
    `index_type` and `last_key` came with 5.5.
    """

    topic: str
    key: str
    max_num: Int32
    begin_timestamp: Int64
    end_timestamp: Int64
    index_type: str | None = None
    last_key: str | None = None


class QueryMessageResponseHeader(CommandHeader, kw_only=True):
    """Answer to QUERY_MESSAGE: how far the index has come. The body holds the records found."""

    index_last_update_timestamp: Int64
    index_last_update_phyoffset: Int64


class ViewMessageRequestHeader(CommandHeader, kw_only=True):
    """VIEW_MESSAGE_BY_ID (33): `offset` is the physical offset out of an offset message id."""

    topic: str | None = None
    offset: Int64


class ViewMessageResponseHeader(CommandHeader):
    """Answer to VIEW_MESSAGE_BY_ID: no field, the record is the body."""
