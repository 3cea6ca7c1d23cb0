"""Asking a name server for routes."""

from apogeemq.remoting_codec.headers.base import TopicRequestHeader


class GetRouteInfoRequestHeader(TopicRequestHeader, kw_only=True):
    """GET_ROUTEINFO_BY_TOPIC (105). The answer has no header, only a body.

    `accept_standard_json_only` asks for quoted keys, as does a request version of 401 or above.
    """

    topic: str
    accept_standard_json_only: bool | None = None
