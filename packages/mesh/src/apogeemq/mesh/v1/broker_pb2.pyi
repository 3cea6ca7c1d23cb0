from apogeemq.mesh.v1 import calls_pb2 as _calls_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SendStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEND_STATUS_UNSPECIFIED: _ClassVar[SendStatus]
    SEND_OK: _ClassVar[SendStatus]
    FLUSH_DISK_TIMEOUT: _ClassVar[SendStatus]
    FLUSH_SLAVE_TIMEOUT: _ClassVar[SendStatus]
    SLAVE_NOT_AVAILABLE: _ClassVar[SendStatus]

class PopInitMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POP_INIT_MIN: _ClassVar[PopInitMode]
    POP_INIT_MAX: _ClassVar[PopInitMode]

class PopStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POP_STATUS_UNSPECIFIED: _ClassVar[PopStatus]
    POP_FOUND: _ClassVar[PopStatus]
    POP_POLLING_TIMEOUT: _ClassVar[PopStatus]
    POP_POLLING_FULL: _ClassVar[PopStatus]

class RetryMark(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RETRY_MARK_NORMAL: _ClassVar[RetryMark]
    RETRY_MARK_V1: _ClassVar[RetryMark]
    RETRY_MARK_V2: _ClassVar[RetryMark]

class HandleResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HANDLE_RESULT_UNSPECIFIED: _ClassVar[HandleResult]
    HANDLE_OK: _ClassVar[HandleResult]
    HANDLE_EXPIRED: _ClassVar[HandleResult]
    HANDLE_NO_MESSAGE: _ClassVar[HandleResult]

class OffsetKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OFFSET_KIND_UNSPECIFIED: _ClassVar[OffsetKind]
    OFFSET_COMMITTED: _ClassVar[OffsetKind]
    OFFSET_MIN: _ClassVar[OffsetKind]
    OFFSET_MAX: _ClassVar[OffsetKind]
    OFFSET_BY_TIME: _ClassVar[OffsetKind]

class TransactionResolution(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRANSACTION_RESOLUTION_UNSPECIFIED: _ClassVar[TransactionResolution]
    TRANSACTION_COMMIT: _ClassVar[TransactionResolution]
    TRANSACTION_ROLLBACK: _ClassVar[TransactionResolution]

class EndTransactionResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_TRANSACTION_RESULT_UNSPECIFIED: _ClassVar[EndTransactionResult]
    END_OK: _ClassVar[EndTransactionResult]
    END_NOT_FOUND: _ClassVar[EndTransactionResult]
SEND_STATUS_UNSPECIFIED: SendStatus
SEND_OK: SendStatus
FLUSH_DISK_TIMEOUT: SendStatus
FLUSH_SLAVE_TIMEOUT: SendStatus
SLAVE_NOT_AVAILABLE: SendStatus
POP_INIT_MIN: PopInitMode
POP_INIT_MAX: PopInitMode
POP_STATUS_UNSPECIFIED: PopStatus
POP_FOUND: PopStatus
POP_POLLING_TIMEOUT: PopStatus
POP_POLLING_FULL: PopStatus
RETRY_MARK_NORMAL: RetryMark
RETRY_MARK_V1: RetryMark
RETRY_MARK_V2: RetryMark
HANDLE_RESULT_UNSPECIFIED: HandleResult
HANDLE_OK: HandleResult
HANDLE_EXPIRED: HandleResult
HANDLE_NO_MESSAGE: HandleResult
OFFSET_KIND_UNSPECIFIED: OffsetKind
OFFSET_COMMITTED: OffsetKind
OFFSET_MIN: OffsetKind
OFFSET_MAX: OffsetKind
OFFSET_BY_TIME: OffsetKind
TRANSACTION_RESOLUTION_UNSPECIFIED: TransactionResolution
TRANSACTION_COMMIT: TransactionResolution
TRANSACTION_ROLLBACK: TransactionResolution
END_TRANSACTION_RESULT_UNSPECIFIED: EndTransactionResult
END_OK: EndTransactionResult
END_NOT_FOUND: EndTransactionResult

class SendMessageRequest(_message.Message):
    __slots__ = ("topic", "queue_id", "producer_group", "flag", "sys_flag", "born_timestamp_ms", "born_host", "reconsume_times", "max_reconsume_times", "properties", "body", "batch", "default_topic", "default_topic_queue_nums")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_GROUP_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    SYS_FLAG_FIELD_NUMBER: _ClassVar[int]
    BORN_TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    BORN_HOST_FIELD_NUMBER: _ClassVar[int]
    RECONSUME_TIMES_FIELD_NUMBER: _ClassVar[int]
    MAX_RECONSUME_TIMES_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TOPIC_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_TOPIC_QUEUE_NUMS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    queue_id: int
    producer_group: str
    flag: int
    sys_flag: int
    born_timestamp_ms: int
    born_host: bytes
    reconsume_times: int
    max_reconsume_times: int
    properties: bytes
    body: bytes
    batch: bool
    default_topic: str
    default_topic_queue_nums: int
    def __init__(self, topic: _Optional[str] = ..., queue_id: _Optional[int] = ..., producer_group: _Optional[str] = ..., flag: _Optional[int] = ..., sys_flag: _Optional[int] = ..., born_timestamp_ms: _Optional[int] = ..., born_host: _Optional[bytes] = ..., reconsume_times: _Optional[int] = ..., max_reconsume_times: _Optional[int] = ..., properties: _Optional[bytes] = ..., body: _Optional[bytes] = ..., batch: bool = ..., default_topic: _Optional[str] = ..., default_topic_queue_nums: _Optional[int] = ...) -> None: ...

class SendMessageReply(_message.Message):
    __slots__ = ("status", "offset_message_id", "message_id", "queue_id", "queue_offset", "transaction_id", "recall_handle")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    RECALL_HANDLE_FIELD_NUMBER: _ClassVar[int]
    status: SendStatus
    offset_message_id: str
    message_id: str
    queue_id: int
    queue_offset: int
    transaction_id: str
    recall_handle: str
    def __init__(self, status: _Optional[_Union[SendStatus, str]] = ..., offset_message_id: _Optional[str] = ..., message_id: _Optional[str] = ..., queue_id: _Optional[int] = ..., queue_offset: _Optional[int] = ..., transaction_id: _Optional[str] = ..., recall_handle: _Optional[str] = ...) -> None: ...

class PopMessageRequest(_message.Message):
    __slots__ = ("consumer_group", "topic", "queue_id", "max_msg_nums", "invisible_time_ms", "poll_time_ms", "init_mode", "expression_type", "expression", "attempt_id", "client_id", "order")
    CONSUMER_GROUP_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_MSG_NUMS_FIELD_NUMBER: _ClassVar[int]
    INVISIBLE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    POLL_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    INIT_MODE_FIELD_NUMBER: _ClassVar[int]
    EXPRESSION_TYPE_FIELD_NUMBER: _ClassVar[int]
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    consumer_group: str
    topic: str
    queue_id: int
    max_msg_nums: int
    invisible_time_ms: int
    poll_time_ms: int
    init_mode: PopInitMode
    expression_type: str
    expression: str
    attempt_id: str
    client_id: str
    order: bool
    def __init__(self, consumer_group: _Optional[str] = ..., topic: _Optional[str] = ..., queue_id: _Optional[int] = ..., max_msg_nums: _Optional[int] = ..., invisible_time_ms: _Optional[int] = ..., poll_time_ms: _Optional[int] = ..., init_mode: _Optional[_Union[PopInitMode, str]] = ..., expression_type: _Optional[str] = ..., expression: _Optional[str] = ..., attempt_id: _Optional[str] = ..., client_id: _Optional[str] = ..., order: bool = ...) -> None: ...

class PopMessageReply(_message.Message):
    __slots__ = ("status", "pop_time_ms", "invisible_time_ms", "revive_queue_id", "rest_num", "runs")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    POP_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    INVISIBLE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REVIVE_QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    REST_NUM_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    status: PopStatus
    pop_time_ms: int
    invisible_time_ms: int
    revive_queue_id: int
    rest_num: int
    runs: _containers.RepeatedCompositeFieldContainer[PoppedRun]
    def __init__(self, status: _Optional[_Union[PopStatus, str]] = ..., pop_time_ms: _Optional[int] = ..., invisible_time_ms: _Optional[int] = ..., revive_queue_id: _Optional[int] = ..., rest_num: _Optional[int] = ..., runs: _Optional[_Iterable[_Union[PoppedRun, _Mapping]]] = ...) -> None: ...

class PoppedRun(_message.Message):
    __slots__ = ("retry_mark", "queue_id", "start_offset", "count", "records", "delivery_attempts")
    RETRY_MARK_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    retry_mark: RetryMark
    queue_id: int
    start_offset: int
    count: int
    records: bytes
    delivery_attempts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, retry_mark: _Optional[_Union[RetryMark, str]] = ..., queue_id: _Optional[int] = ..., start_offset: _Optional[int] = ..., count: _Optional[int] = ..., records: _Optional[bytes] = ..., delivery_attempts: _Optional[_Iterable[int]] = ...) -> None: ...

class TakeTransactionChecksRequest(_message.Message):
    __slots__ = ("max_nums", "poll_time_ms")
    MAX_NUMS_FIELD_NUMBER: _ClassVar[int]
    POLL_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    max_nums: int
    poll_time_ms: int
    def __init__(self, max_nums: _Optional[int] = ..., poll_time_ms: _Optional[int] = ...) -> None: ...

class TakeTransactionChecksReply(_message.Message):
    __slots__ = ("checks",)
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[TransactionCheck]
    def __init__(self, checks: _Optional[_Iterable[_Union[TransactionCheck, _Mapping]]] = ...) -> None: ...

class TransactionCheck(_message.Message):
    __slots__ = ("producer_group", "client_id", "record", "message_id", "offset_message_id")
    PRODUCER_GROUP_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    producer_group: str
    client_id: str
    record: bytes
    message_id: str
    offset_message_id: str
    def __init__(self, producer_group: _Optional[str] = ..., client_id: _Optional[str] = ..., record: _Optional[bytes] = ..., message_id: _Optional[str] = ..., offset_message_id: _Optional[str] = ...) -> None: ...

class PopHandle(_message.Message):
    __slots__ = ("retry_mark", "queue_id", "queue_offset", "start_offset", "pop_time_ms", "invisible_time_ms", "revive_queue_id")
    RETRY_MARK_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    POP_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    INVISIBLE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REVIVE_QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    retry_mark: RetryMark
    queue_id: int
    queue_offset: int
    start_offset: int
    pop_time_ms: int
    invisible_time_ms: int
    revive_queue_id: int
    def __init__(self, retry_mark: _Optional[_Union[RetryMark, str]] = ..., queue_id: _Optional[int] = ..., queue_offset: _Optional[int] = ..., start_offset: _Optional[int] = ..., pop_time_ms: _Optional[int] = ..., invisible_time_ms: _Optional[int] = ..., revive_queue_id: _Optional[int] = ...) -> None: ...

class AckMessageRequest(_message.Message):
    __slots__ = ("consumer_group", "topic", "handles")
    CONSUMER_GROUP_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    consumer_group: str
    topic: str
    handles: _containers.RepeatedCompositeFieldContainer[PopHandle]
    def __init__(self, consumer_group: _Optional[str] = ..., topic: _Optional[str] = ..., handles: _Optional[_Iterable[_Union[PopHandle, _Mapping]]] = ...) -> None: ...

class AckMessageReply(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedScalarFieldContainer[HandleResult]
    def __init__(self, results: _Optional[_Iterable[_Union[HandleResult, str]]] = ...) -> None: ...

class ChangeInvisibleTimeRequest(_message.Message):
    __slots__ = ("consumer_group", "topic", "handle", "invisible_time_ms")
    CONSUMER_GROUP_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    INVISIBLE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    consumer_group: str
    topic: str
    handle: PopHandle
    invisible_time_ms: int
    def __init__(self, consumer_group: _Optional[str] = ..., topic: _Optional[str] = ..., handle: _Optional[_Union[PopHandle, _Mapping]] = ..., invisible_time_ms: _Optional[int] = ...) -> None: ...

class ChangeInvisibleTimeReply(_message.Message):
    __slots__ = ("result", "pop_time_ms", "invisible_time_ms", "revive_queue_id")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    POP_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    INVISIBLE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    REVIVE_QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    result: HandleResult
    pop_time_ms: int
    invisible_time_ms: int
    revive_queue_id: int
    def __init__(self, result: _Optional[_Union[HandleResult, str]] = ..., pop_time_ms: _Optional[int] = ..., invisible_time_ms: _Optional[int] = ..., revive_queue_id: _Optional[int] = ...) -> None: ...

class ExtendInvisibleRequest(_message.Message):
    __slots__ = ("consumer_group", "topic", "handles", "invisible_time_ms")
    CONSUMER_GROUP_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    HANDLES_FIELD_NUMBER: _ClassVar[int]
    INVISIBLE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    consumer_group: str
    topic: str
    handles: _containers.RepeatedCompositeFieldContainer[PopHandle]
    invisible_time_ms: int
    def __init__(self, consumer_group: _Optional[str] = ..., topic: _Optional[str] = ..., handles: _Optional[_Iterable[_Union[PopHandle, _Mapping]]] = ..., invisible_time_ms: _Optional[int] = ...) -> None: ...

class ExtendInvisibleReply(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedScalarFieldContainer[HandleResult]
    def __init__(self, results: _Optional[_Iterable[_Union[HandleResult, str]]] = ...) -> None: ...

class RecallMessageRequest(_message.Message):
    __slots__ = ("topic", "recall_handle")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    RECALL_HANDLE_FIELD_NUMBER: _ClassVar[int]
    topic: str
    recall_handle: str
    def __init__(self, topic: _Optional[str] = ..., recall_handle: _Optional[str] = ...) -> None: ...

class RecallMessageReply(_message.Message):
    __slots__ = ("message_id",)
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    def __init__(self, message_id: _Optional[str] = ...) -> None: ...

class ForwardToDeadLetterQueueRequest(_message.Message):
    __slots__ = ("consumer_group", "topic", "handle", "reason")
    CONSUMER_GROUP_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    consumer_group: str
    topic: str
    handle: PopHandle
    reason: str
    def __init__(self, consumer_group: _Optional[str] = ..., topic: _Optional[str] = ..., handle: _Optional[_Union[PopHandle, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ForwardToDeadLetterQueueReply(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: HandleResult
    def __init__(self, result: _Optional[_Union[HandleResult, str]] = ...) -> None: ...

class QueryTopicRequest(_message.Message):
    __slots__ = ("topic",)
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    topic: str
    def __init__(self, topic: _Optional[str] = ...) -> None: ...

class QueryTopicReply(_message.Message):
    __slots__ = ("found", "read_queue_nums", "write_queue_nums", "perm", "message_type")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    READ_QUEUE_NUMS_FIELD_NUMBER: _ClassVar[int]
    WRITE_QUEUE_NUMS_FIELD_NUMBER: _ClassVar[int]
    PERM_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    found: bool
    read_queue_nums: int
    write_queue_nums: int
    perm: int
    message_type: str
    def __init__(self, found: bool = ..., read_queue_nums: _Optional[int] = ..., write_queue_nums: _Optional[int] = ..., perm: _Optional[int] = ..., message_type: _Optional[str] = ...) -> None: ...

class EnsureTopicRequest(_message.Message):
    __slots__ = ("topic", "queue_nums")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NUMS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    queue_nums: int
    def __init__(self, topic: _Optional[str] = ..., queue_nums: _Optional[int] = ...) -> None: ...

class EnsureTopicReply(_message.Message):
    __slots__ = ("created",)
    CREATED_FIELD_NUMBER: _ClassVar[int]
    created: bool
    def __init__(self, created: bool = ...) -> None: ...

class QueryGroupRequest(_message.Message):
    __slots__ = ("consumer_group", "create")
    CONSUMER_GROUP_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    consumer_group: str
    create: bool
    def __init__(self, consumer_group: _Optional[str] = ..., create: bool = ...) -> None: ...

class QueryGroupReply(_message.Message):
    __slots__ = ("found", "consume_enable", "consume_message_orderly", "retry_max_times")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    CONSUME_ENABLE_FIELD_NUMBER: _ClassVar[int]
    CONSUME_MESSAGE_ORDERLY_FIELD_NUMBER: _ClassVar[int]
    RETRY_MAX_TIMES_FIELD_NUMBER: _ClassVar[int]
    found: bool
    consume_enable: bool
    consume_message_orderly: bool
    retry_max_times: int
    def __init__(self, found: bool = ..., consume_enable: bool = ..., consume_message_orderly: bool = ..., retry_max_times: _Optional[int] = ...) -> None: ...

class ClientHeartbeatRequest(_message.Message):
    __slots__ = ("client_id", "language", "version", "producer_groups", "consumers")
    class ConsumerData(_message.Message):
        __slots__ = ("group", "consume_type", "message_model", "consume_from_where", "subscriptions")
        GROUP_FIELD_NUMBER: _ClassVar[int]
        CONSUME_TYPE_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_MODEL_FIELD_NUMBER: _ClassVar[int]
        CONSUME_FROM_WHERE_FIELD_NUMBER: _ClassVar[int]
        SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
        group: str
        consume_type: str
        message_model: str
        consume_from_where: str
        subscriptions: _containers.RepeatedCompositeFieldContainer[ClientHeartbeatRequest.SubscriptionData]
        def __init__(self, group: _Optional[str] = ..., consume_type: _Optional[str] = ..., message_model: _Optional[str] = ..., consume_from_where: _Optional[str] = ..., subscriptions: _Optional[_Iterable[_Union[ClientHeartbeatRequest.SubscriptionData, _Mapping]]] = ...) -> None: ...
    class SubscriptionData(_message.Message):
        __slots__ = ("topic", "expression_type", "sub_string", "sub_version")
        TOPIC_FIELD_NUMBER: _ClassVar[int]
        EXPRESSION_TYPE_FIELD_NUMBER: _ClassVar[int]
        SUB_STRING_FIELD_NUMBER: _ClassVar[int]
        SUB_VERSION_FIELD_NUMBER: _ClassVar[int]
        topic: str
        expression_type: str
        sub_string: str
        sub_version: int
        def __init__(self, topic: _Optional[str] = ..., expression_type: _Optional[str] = ..., sub_string: _Optional[str] = ..., sub_version: _Optional[int] = ...) -> None: ...
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_GROUPS_FIELD_NUMBER: _ClassVar[int]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    language: str
    version: int
    producer_groups: _containers.RepeatedScalarFieldContainer[str]
    consumers: _containers.RepeatedCompositeFieldContainer[ClientHeartbeatRequest.ConsumerData]
    def __init__(self, client_id: _Optional[str] = ..., language: _Optional[str] = ..., version: _Optional[int] = ..., producer_groups: _Optional[_Iterable[str]] = ..., consumers: _Optional[_Iterable[_Union[ClientHeartbeatRequest.ConsumerData, _Mapping]]] = ...) -> None: ...

class ClientHeartbeatReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnregisterClientRequest(_message.Message):
    __slots__ = ("client_id", "producer_groups", "consumer_groups")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_GROUPS_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_GROUPS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    producer_groups: _containers.RepeatedScalarFieldContainer[str]
    consumer_groups: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, client_id: _Optional[str] = ..., producer_groups: _Optional[_Iterable[str]] = ..., consumer_groups: _Optional[_Iterable[str]] = ...) -> None: ...

class UnregisterClientReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QueryOffsetRequest(_message.Message):
    __slots__ = ("topic", "queue_id", "kind", "consumer_group", "timestamp_ms")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_GROUP_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    queue_id: int
    kind: OffsetKind
    consumer_group: str
    timestamp_ms: int
    def __init__(self, topic: _Optional[str] = ..., queue_id: _Optional[int] = ..., kind: _Optional[_Union[OffsetKind, str]] = ..., consumer_group: _Optional[str] = ..., timestamp_ms: _Optional[int] = ...) -> None: ...

class QueryOffsetReply(_message.Message):
    __slots__ = ("found", "queue_offset")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    QUEUE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    found: bool
    queue_offset: int
    def __init__(self, found: bool = ..., queue_offset: _Optional[int] = ...) -> None: ...

class UpdateOffsetRequest(_message.Message):
    __slots__ = ("topic", "queue_id", "consumer_group", "queue_offset")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    QUEUE_ID_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_GROUP_FIELD_NUMBER: _ClassVar[int]
    QUEUE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    topic: str
    queue_id: int
    consumer_group: str
    queue_offset: int
    def __init__(self, topic: _Optional[str] = ..., queue_id: _Optional[int] = ..., consumer_group: _Optional[str] = ..., queue_offset: _Optional[int] = ...) -> None: ...

class UpdateOffsetReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EndTransactionRequest(_message.Message):
    __slots__ = ("producer_group", "queue_offset", "physical_offset", "resolution", "message_id")
    PRODUCER_GROUP_FIELD_NUMBER: _ClassVar[int]
    QUEUE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    PHYSICAL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    producer_group: str
    queue_offset: int
    physical_offset: int
    resolution: TransactionResolution
    message_id: str
    def __init__(self, producer_group: _Optional[str] = ..., queue_offset: _Optional[int] = ..., physical_offset: _Optional[int] = ..., resolution: _Optional[_Union[TransactionResolution, str]] = ..., message_id: _Optional[str] = ...) -> None: ...

class EndTransactionReply(_message.Message):
    __slots__ = ("result", "remark")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REMARK_FIELD_NUMBER: _ClassVar[int]
    result: EndTransactionResult
    remark: str
    def __init__(self, result: _Optional[_Union[EndTransactionResult, str]] = ..., remark: _Optional[str] = ...) -> None: ...
