"""What a request must look like before anything is done for it: the checks, their order, and the code of each refusal.

Every refusal names the field. Checks of several faults report the first in the order below, which is Apache's.
Source: reference grpc_v2.md §6, §7 (Apache GrpcValidator, SendMessageActivity, ReceiveMessageActivity).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from apogeemq.proto.v2.definition_pb2 import (
    GZIP,
    IDENTITY,
    SQL,
    TAG,
    Code,
    Endpoints,
    FilterExpression,
    Message,
    Settings,
    SystemProperties,
)
from apogeemq.proto.v2.service_pb2 import AckMessageRequest, ReceiveMessageRequest
from apogeemq.proxy.core.durations import milliseconds
from apogeemq.proxy.core.limits import Limits
from apogeemq.proxy.core.names import full_name, group_of, topic_of
from apogeemq.proxy.errors import ProxyError
from apogeemq.remoting_codec.message import RESERVED_PROPERTY_KEYS

MESSAGE_ID_SIZE_MAX = 255
HOST_SIZE_MAX = 255
TRACE_CONTEXT_SIZE_MAX = 1024
ADDRESSES_MAX = 128

_INT64_MAX = 2**63 - 1

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What Java calls an ISO control character; 0x01 and 0x02 are what divides stored properties."""


def has_control_characters(text: str) -> bool:
    """Whether a text can't stand in a property."""
    return _CONTROL.search(text) is not None


# ---- sends ----


def check_send(messages: Sequence[Message], now_ms: int, limits: Limits) -> str:
    """Check what is to be sent and give the topic of all of it, as brokers know it.

    Raises:
        ProxyError: code and field of the first fault found.
    """
    if not messages:
        raise ProxyError(Code.MESSAGE_CORRUPTED, "messages: there is none to send")
    if len(messages) > limits.messages_per_send_max:
        text = f"messages: {len(messages)} in one request, at most {limits.messages_per_send_max} are allowed"
        raise ProxyError(Code.PAYLOAD_TOO_LARGE, text)
    topic = topic_of(messages[0].topic, "messages[0].topic")
    for index, message in enumerate(messages[1:], 1):
        if full_name(message.topic) != topic:
            text = (
                f"messages[{index}].topic: another topic than that of messages[0]; send them in requests of their own"
            )
            raise ProxyError(Code.MESSAGE_CORRUPTED, text)
    body_size_bytes = 0
    for index, message in enumerate(messages):
        body_size_bytes += check_message(message, f"messages[{index}]", now_ms, limits)
    if body_size_bytes > limits.body_size_bytes_max:
        text = f"messages: bodies of more than {limits.body_size_bytes_max} bytes together; send fewer at once"
        raise ProxyError(Code.MESSAGE_BODY_TOO_LARGE, text)
    return topic


def check_message(message: Message, where: str, now_ms: int, limits: Limits) -> int:
    """Check one message apart from its topic; `where` stands before the field in the refusal.

    Gives the size of its body in bytes: asking a message for its body copies it.
    """
    system = message.system_properties
    body_size_bytes = len(message.body)
    _check_body(body_size_bytes, where, limits)
    _check_user_properties(message, where, limits)
    _check_tag(system, where)
    _check_keys(system, where)
    _check_properties_size(message, where, limits)
    _check_message_id(system, where)
    _check_recovery_duration(system, where, limits)
    _check_delivery_timestamp(system, where, now_ms, limits)
    _check_message_group(system, where, limits)
    _check_texts_that_become_properties(system, where)
    return body_size_bytes


def _check_body(body_size_bytes: int, where: str, limits: Limits) -> None:
    if not body_size_bytes:
        raise ProxyError(Code.MESSAGE_BODY_EMPTY, f"{where}.body: it is empty")
    if body_size_bytes > limits.body_size_bytes_max:
        text = f"{where}.body: {body_size_bytes} bytes, at most {limits.body_size_bytes_max} are allowed"
        raise ProxyError(Code.MESSAGE_BODY_TOO_LARGE, text)


def _check_user_properties(message: Message, where: str, limits: Limits) -> None:
    user_properties = message.user_properties
    count = len(user_properties)
    if not count:
        return
    if count > limits.user_properties_max:
        text = f"{where}.user_properties: {count} of them, at most {limits.user_properties_max} are allowed"
        raise ProxyError(Code.MESSAGE_PROPERTIES_TOO_LARGE, text)
    for key, value in user_properties.items():
        if not key.strip():
            problem = "a key is blank"
        elif key in RESERVED_PROPERTY_KEYS:
            problem = f"the key {key} is RocketMQ's own"
        elif has_control_characters(key) or has_control_characters(value):
            problem = f"the key or value of {key[:100]!r} has a control character"
        else:
            continue
        raise ProxyError(Code.ILLEGAL_MESSAGE_PROPERTY_KEY, f"{where}.user_properties: {problem}")


def _check_tag(system: SystemProperties, where: str) -> None:
    if not system.HasField("tag"):
        return
    tag = system.tag
    if not tag.strip():
        problem = "it is blank; leave it out for a message without tag"
    elif "|" in tag:
        problem = "it has a |, which divides tags in a filter expression"
    elif has_control_characters(tag):
        problem = "it has a control character"
    else:
        return
    raise ProxyError(Code.ILLEGAL_MESSAGE_TAG, f"{where}.system_properties.tag: {problem}")


def _check_keys(system: SystemProperties, where: str) -> None:
    for key in system.keys:
        if not key.strip():
            raise ProxyError(Code.ILLEGAL_MESSAGE_KEY, f"{where}.system_properties.keys: a key is blank")
        if has_control_characters(key):
            text = f"{where}.system_properties.keys: {key[:100]!r} has a control character"
            raise ProxyError(Code.ILLEGAL_MESSAGE_KEY, text)


def _check_properties_size(message: Message, where: str, limits: Limits) -> None:
    system = message.system_properties
    texts = [system.tag, *system.keys]
    if message.user_properties:
        for item in message.user_properties.items():
            texts += item
    size_bytes = len("".join(texts).encode())
    if size_bytes > limits.properties_size_bytes_max:
        text = (
            f"{where}.user_properties: {size_bytes} bytes with tag and keys, "
            f"at most {limits.properties_size_bytes_max} are allowed"
        )
        raise ProxyError(Code.MESSAGE_PROPERTIES_TOO_LARGE, text)


def _check_message_id(system: SystemProperties, where: str) -> None:
    message_id = system.message_id
    if not message_id.strip():
        problem = "it is missing or blank; the client makes it"
    elif len(message_id) > MESSAGE_ID_SIZE_MAX:
        problem = f"{len(message_id)} characters, at most {MESSAGE_ID_SIZE_MAX} are allowed"
    elif has_control_characters(message_id):
        problem = "it has a control character"
    else:
        return
    raise ProxyError(Code.ILLEGAL_MESSAGE_ID, f"{where}.system_properties.message_id: {problem}")


def _check_recovery_duration(system: SystemProperties, where: str, limits: Limits) -> None:
    if not system.HasField("orphaned_transaction_recovery_duration"):
        return
    duration_ms = milliseconds(system.orphaned_transaction_recovery_duration)
    if not 0 <= duration_ms <= limits.recovery_duration_s_max * 1000:
        text = (
            f"{where}.system_properties.orphaned_transaction_recovery_duration: "
            f"{duration_ms} ms is not within 0 and {limits.recovery_duration_s_max} s"
        )
        raise ProxyError(Code.BAD_REQUEST, text)


def _check_delivery_timestamp(system: SystemProperties, where: str, now_ms: int, limits: Limits) -> None:
    if not system.HasField("delivery_timestamp"):
        return
    ahead_ms = milliseconds(system.delivery_timestamp) - now_ms
    if ahead_ms > limits.delivery_delay_s_max * 1000:
        text = (
            f"{where}.system_properties.delivery_timestamp: {ahead_ms} ms ahead, "
            f"at most {limits.delivery_delay_s_max} s are allowed"
        )
        raise ProxyError(Code.ILLEGAL_DELIVERY_TIME, text)


def _check_message_group(system: SystemProperties, where: str, limits: Limits) -> None:
    if not system.HasField("message_group"):
        return
    size_bytes = len(system.message_group.encode())
    if not system.message_group.strip():
        problem = "it is blank; leave it out for a message without order"
    elif size_bytes > limits.message_group_size_bytes_max:
        problem = f"{size_bytes} bytes, at most {limits.message_group_size_bytes_max} are allowed"
    elif has_control_characters(system.message_group):
        problem = "it has a control character"
    else:
        return
    raise ProxyError(Code.ILLEGAL_MESSAGE_GROUP, f"{where}.system_properties.message_group: {problem}")


def _check_texts_that_become_properties(system: SystemProperties, where: str) -> None:
    """Bounds that Apache has not, because its writer fails on them or they spoil the stored properties."""
    for field, text, size_max in (
        ("trace_context", system.trace_context, TRACE_CONTEXT_SIZE_MAX),
        ("born_host", system.born_host, HOST_SIZE_MAX),
    ):
        if text and (len(text.encode()) > size_max or has_control_characters(text)):
            problem = f"more than {size_max} bytes, or a control character in it"
            raise ProxyError(Code.BAD_REQUEST, f"{where}.system_properties.{field}: {problem}")
    if not 0 <= milliseconds(system.born_timestamp) <= _INT64_MAX:
        raise ProxyError(Code.BAD_REQUEST, f"{where}.system_properties.born_timestamp: not a time after 1970")
    if system.body_encoding not in (0, IDENTITY, GZIP):
        text = (
            f"{where}.system_properties.body_encoding: {int(system.body_encoding)} is not known; use IDENTITY or GZIP"
        )
        raise ProxyError(Code.BAD_REQUEST, text)


# ---- receives ----


class Filter(NamedTuple):
    """What a consumer wants, as brokers understand it: "TAG" or "SQL92", and the expression."""

    expression_type: str
    expression: str

    @property
    def tag_expression(self) -> str:
        """Which tags may pass: all of them where SQL decides."""
        return self.expression if self.expression_type == "TAG" else "*"


def filter_of(expression: FilterExpression) -> Filter:
    """What an expression says, unchecked; tags "*" when the client named none."""
    text = expression.expression.strip()
    return Filter("SQL92", text) if expression.type == SQL else Filter("TAG", text or "*")


def check_filter(expression: FilterExpression, field: str, limits: Limits) -> Filter:
    """Give the filter; tags "*" when the client named none. SQL is read by the brokers, which refuse what is none.

    Raises:
        ProxyError ILLEGAL_FILTER_EXPRESSION: it is too long, has control characters, is no list of tags, or empty SQL.
    """
    if expression.type not in (0, TAG, SQL):
        raise ProxyError(
            Code.ILLEGAL_FILTER_EXPRESSION, f"{field}.type: {int(expression.type)} is not known; use TAG or SQL"
        )
    found = filter_of(expression)
    text = found.expression
    if not text:
        raise ProxyError(Code.ILLEGAL_FILTER_EXPRESSION, f"{field}.expression: it is empty; a SQL filter needs one")
    if len(text.encode()) > limits.filter_expression_size_bytes_max or has_control_characters(text):
        problem = f"more than {limits.filter_expression_size_bytes_max} bytes, or a control character in it"
        raise ProxyError(Code.ILLEGAL_FILTER_EXPRESSION, f"{field}.expression: {problem}")
    if expression.type != SQL and text != "*" and not all(tag.strip() for tag in text.split("||")):
        problem = f"{text[:200]!r} is not * or tags divided by ||"
        raise ProxyError(Code.ILLEGAL_FILTER_EXPRESSION, f"{field}.expression: {problem}")
    return found


def check_batch_size(request: ReceiveMessageRequest, limits: Limits) -> int:
    """How many messages are wanted, at most `receive_batch_size_max`.

    Raises:
        ProxyError BAD_REQUEST: none or fewer are wanted.
    """
    if request.batch_size < 1:
        text = f"batch_size: {request.batch_size} is not within 1 and {limits.receive_batch_size_max}"
        raise ProxyError(Code.BAD_REQUEST, text)
    return min(request.batch_size, limits.receive_batch_size_max)


def check_invisible_time(request: ReceiveMessageRequest, limits: Limits) -> int:
    """The invisible time of a receive without auto-renewal, in ms.

    Raises:
        ProxyError ILLEGAL_INVISIBLE_TIME: missing, below 10 s or above 12 h.
    """
    if not request.HasField("invisible_duration"):
        raise ProxyError(Code.ILLEGAL_INVISIBLE_TIME, "invisible_duration: it is missing, and auto_renew is not set")
    invisible_time_ms = milliseconds(request.invisible_duration)
    if not limits.invisible_time_ms_min <= invisible_time_ms <= limits.invisible_time_ms_max:
        text = (
            f"invisible_duration: {invisible_time_ms} ms is not within "
            f"{limits.invisible_time_ms_min} and {limits.invisible_time_ms_max} ms"
        )
        raise ProxyError(Code.ILLEGAL_INVISIBLE_TIME, text)
    return invisible_time_ms


def check_attempt_id(request: ReceiveMessageRequest) -> str:
    """The attempt id, empty when none was given.

    Raises:
        ProxyError BAD_REQUEST: it is too long or has control characters.
    """
    if len(request.attempt_id) > MESSAGE_ID_SIZE_MAX or has_control_characters(request.attempt_id):
        problem = f"more than {MESSAGE_ID_SIZE_MAX} characters, or a control character in it"
        raise ProxyError(Code.BAD_REQUEST, f"attempt_id: {problem}")
    return request.attempt_id


def check_time_to_poll(remaining_ms: int, client_version: str, limits: Limits) -> None:
    """Check what is left until the client's deadline.

    Raises:
        ProxyError ILLEGAL_POLLING_TIME: less than 5 s are left; BAD_REQUEST for clients before 5.0.3, which do not
            know that code.
    """
    least = limits.polling_time_ms_min
    if remaining_ms < least:
        code = Code.BAD_REQUEST if client_version < "5.0.3" else Code.ILLEGAL_POLLING_TIME
        text = f"grpc-timeout: {remaining_ms} ms are left to wait for messages, at least {least} ms are needed"
        raise ProxyError(code, text)


def polling_time_ms(
    request: ReceiveMessageRequest,
    *,
    remaining_ms: int,
    request_timeout_ms: int,
    limits: Limits,
) -> int:
    """How long a receive may wait for messages, if check_time_to_poll had nothing against it.

    Asked for by long_polling_timeout, else what is left without half a request timeout; within 5 and 20 s.
    `remaining_ms` is what is left until the client's deadline.
    """
    least, most = limits.polling_time_ms_min, limits.polling_time_ms_max
    if request.HasField("long_polling_timeout"):
        wanted_ms = milliseconds(request.long_polling_timeout)
    else:
        wanted_ms = remaining_ms - request_timeout_ms // 2
    return min(max(wanted_ms, least), most, remaining_ms)


# ---- acknowledgements and invisible times ----


def check_ack(request: AckMessageRequest, limits: Limits) -> tuple[str, str]:
    """Check all but the handles; give group and topic as brokers know them.

    Raises:
        ProxyError: ILLEGAL_TOPIC, ILLEGAL_CONSUMER_GROUP, or BAD_REQUEST for no or too many entries.
    """
    topic, group = topic_of(request.topic, "topic"), group_of(request.group, "group")
    if not 1 <= len(request.entries) <= limits.entries_per_ack_max:
        text = f"entries: {len(request.entries)} of them, not within 1 and {limits.entries_per_ack_max}"
        raise ProxyError(Code.BAD_REQUEST, text)
    return group, topic


def check_changed_invisible_time(invisible_time_ms: int | None, limits: Limits) -> int:
    """The invisible time that a message is to get from now on, in ms; 0 hands it out again at once.

    Raises:
        ProxyError ILLEGAL_INVISIBLE_TIME: missing, negative or above 12 h.
    """
    if invisible_time_ms is None:
        raise ProxyError(Code.ILLEGAL_INVISIBLE_TIME, "invisible_duration: it is missing")
    if not 0 <= invisible_time_ms <= limits.invisible_time_ms_max:
        text = f"invisible_duration: {invisible_time_ms} ms is not within 0 and {limits.invisible_time_ms_max} ms"
        raise ProxyError(Code.ILLEGAL_INVISIBLE_TIME, text)
    return invisible_time_ms


# ---- clients ----


def check_endpoints(endpoints: Endpoints, field: str) -> None:
    """Check where a client says it reached us: answers send it back there.

    Raises:
        ProxyError ILLEGAL_ACCESS_POINT: no address, too many, or one without host or with an impossible port.
    """
    if not 1 <= len(endpoints.addresses) <= ADDRESSES_MAX:
        text = f"{field}.addresses: {len(endpoints.addresses)} of them, not within 1 and {ADDRESSES_MAX}"
        raise ProxyError(Code.ILLEGAL_ACCESS_POINT, text)
    for address in endpoints.addresses:
        if not address.host.strip() or len(address.host) > HOST_SIZE_MAX or has_control_characters(address.host):
            problem = f"{address.host[:100]!r} is not a host"
            raise ProxyError(Code.ILLEGAL_ACCESS_POINT, f"{field}.addresses.host: {problem}")
        if not 1 <= address.port <= 65_535:
            raise ProxyError(Code.ILLEGAL_ACCESS_POINT, f"{field}.addresses.port: {address.port} is not a port")


def check_settings(settings: Settings, limits: Limits) -> None:
    """Check a client's settings.

    Raises:
        ProxyError BAD_REQUEST: neither publishing nor subscription, more topics than a client may name, or more bytes.
        ProxyError: as the topics, the group and the filter expressions are refused elsewhere.
    """
    size_bytes = settings.ByteSize()
    if size_bytes > limits.settings_size_bytes_max:
        text = f"settings: {size_bytes} bytes, at most {limits.settings_size_bytes_max} are allowed"
        raise ProxyError(Code.BAD_REQUEST, text)
    kind = settings.WhichOneof("pub_sub")
    if kind is None:
        raise ProxyError(Code.BAD_REQUEST, "settings: neither publishing nor subscription is set")
    named = settings.publishing.topics if kind == "publishing" else settings.subscription.subscriptions
    if len(named) > limits.topics_per_client_max:
        text = f"settings.{kind}: {len(named)} topics, at most {limits.topics_per_client_max} are allowed"
        raise ProxyError(Code.BAD_REQUEST, text)
    if kind == "publishing":
        for topic in settings.publishing.topics:
            topic_of(topic, "settings.publishing.topics")
        return
    group_of(settings.subscription.group, "settings.subscription.group")
    for entry in settings.subscription.subscriptions:
        topic_of(entry.topic, "settings.subscription.subscriptions.topic")
        check_filter(entry.expression, "settings.subscription.subscriptions.expression", limits)
