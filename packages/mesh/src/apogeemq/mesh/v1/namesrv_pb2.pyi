from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RefusalCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_CODE_UNSPECIFIED: _ClassVar[RefusalCode]
    REFUSAL_CODE_INVALID_ARGUMENT: _ClassVar[RefusalCode]
    REFUSAL_CODE_OUT_OF_ORDER: _ClassVar[RefusalCode]
    REFUSAL_CODE_LIMIT_EXCEEDED: _ClassVar[RefusalCode]
    REFUSAL_CODE_NAME_CONFLICT: _ClassVar[RefusalCode]
    REFUSAL_CODE_FENCED_MASTER_EPOCH: _ClassVar[RefusalCode]
    REFUSAL_CODE_STALE_INCARNATION: _ClassVar[RefusalCode]
    REFUSAL_CODE_SUPERSEDED: _ClassVar[RefusalCode]
    REFUSAL_CODE_EXPIRED: _ClassVar[RefusalCode]
REFUSAL_CODE_UNSPECIFIED: RefusalCode
REFUSAL_CODE_INVALID_ARGUMENT: RefusalCode
REFUSAL_CODE_OUT_OF_ORDER: RefusalCode
REFUSAL_CODE_LIMIT_EXCEEDED: RefusalCode
REFUSAL_CODE_NAME_CONFLICT: RefusalCode
REFUSAL_CODE_FENCED_MASTER_EPOCH: RefusalCode
REFUSAL_CODE_STALE_INCARNATION: RefusalCode
REFUSAL_CODE_SUPERSEDED: RefusalCode
REFUSAL_CODE_EXPIRED: RefusalCode

class RegistrationRequest(_message.Message):
    __slots__ = ("hello", "full_state", "delta", "beat", "unregister")
    class Hello(_message.Message):
        __slots__ = ("identity", "data_version")
        IDENTITY_FIELD_NUMBER: _ClassVar[int]
        DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
        identity: BrokerIdentity
        data_version: DataVersion
        def __init__(self, identity: _Optional[_Union[BrokerIdentity, _Mapping]] = ..., data_version: _Optional[_Union[DataVersion, _Mapping]] = ...) -> None: ...
    class FullState(_message.Message):
        __slots__ = ("first", "last", "data_version", "topics")
        FIRST_FIELD_NUMBER: _ClassVar[int]
        LAST_FIELD_NUMBER: _ClassVar[int]
        DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
        TOPICS_FIELD_NUMBER: _ClassVar[int]
        first: bool
        last: bool
        data_version: DataVersion
        topics: _containers.RepeatedCompositeFieldContainer[TopicConfig]
        def __init__(self, first: bool = ..., last: bool = ..., data_version: _Optional[_Union[DataVersion, _Mapping]] = ..., topics: _Optional[_Iterable[_Union[TopicConfig, _Mapping]]] = ...) -> None: ...
    class Delta(_message.Message):
        __slots__ = ("base", "data_version", "changed", "removed")
        BASE_FIELD_NUMBER: _ClassVar[int]
        DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
        CHANGED_FIELD_NUMBER: _ClassVar[int]
        REMOVED_FIELD_NUMBER: _ClassVar[int]
        base: DataVersion
        data_version: DataVersion
        changed: _containers.RepeatedCompositeFieldContainer[TopicConfig]
        removed: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, base: _Optional[_Union[DataVersion, _Mapping]] = ..., data_version: _Optional[_Union[DataVersion, _Mapping]] = ..., changed: _Optional[_Iterable[_Union[TopicConfig, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ...) -> None: ...
    class Beat(_message.Message):
        __slots__ = ("data_version",)
        DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
        data_version: DataVersion
        def __init__(self, data_version: _Optional[_Union[DataVersion, _Mapping]] = ...) -> None: ...
    class Unregister(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FULL_STATE_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    UNREGISTER_FIELD_NUMBER: _ClassVar[int]
    hello: RegistrationRequest.Hello
    full_state: RegistrationRequest.FullState
    delta: RegistrationRequest.Delta
    beat: RegistrationRequest.Beat
    unregister: RegistrationRequest.Unregister
    def __init__(self, hello: _Optional[_Union[RegistrationRequest.Hello, _Mapping]] = ..., full_state: _Optional[_Union[RegistrationRequest.FullState, _Mapping]] = ..., delta: _Optional[_Union[RegistrationRequest.Delta, _Mapping]] = ..., beat: _Optional[_Union[RegistrationRequest.Beat, _Mapping]] = ..., unregister: _Optional[_Union[RegistrationRequest.Unregister, _Mapping]] = ...) -> None: ...

class RegistrationReply(_message.Message):
    __slots__ = ("accepted", "need_full", "refused", "topics_left_out")
    class Accepted(_message.Message):
        __slots__ = ("data_version",)
        DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
        data_version: DataVersion
        def __init__(self, data_version: _Optional[_Union[DataVersion, _Mapping]] = ...) -> None: ...
    class NeedFull(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Refused(_message.Message):
        __slots__ = ("code", "text")
        CODE_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        code: RefusalCode
        text: str
        def __init__(self, code: _Optional[_Union[RefusalCode, str]] = ..., text: _Optional[str] = ...) -> None: ...
    class TopicsLeftOut(_message.Message):
        __slots__ = ("count", "examples")
        class Topic(_message.Message):
            __slots__ = ("topic_name", "reason")
            TOPIC_NAME_FIELD_NUMBER: _ClassVar[int]
            REASON_FIELD_NUMBER: _ClassVar[int]
            topic_name: str
            reason: str
            def __init__(self, topic_name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...
        COUNT_FIELD_NUMBER: _ClassVar[int]
        EXAMPLES_FIELD_NUMBER: _ClassVar[int]
        count: int
        examples: _containers.RepeatedCompositeFieldContainer[RegistrationReply.TopicsLeftOut.Topic]
        def __init__(self, count: _Optional[int] = ..., examples: _Optional[_Iterable[_Union[RegistrationReply.TopicsLeftOut.Topic, _Mapping]]] = ...) -> None: ...
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    NEED_FULL_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    TOPICS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    accepted: RegistrationReply.Accepted
    need_full: RegistrationReply.NeedFull
    refused: RegistrationReply.Refused
    topics_left_out: RegistrationReply.TopicsLeftOut
    def __init__(self, accepted: _Optional[_Union[RegistrationReply.Accepted, _Mapping]] = ..., need_full: _Optional[_Union[RegistrationReply.NeedFull, _Mapping]] = ..., refused: _Optional[_Union[RegistrationReply.Refused, _Mapping]] = ..., topics_left_out: _Optional[_Union[RegistrationReply.TopicsLeftOut, _Mapping]] = ...) -> None: ...

class DataVersion(_message.Message):
    __slots__ = ("state_version", "timestamp_ms", "counter")
    STATE_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    state_version: int
    timestamp_ms: int
    counter: int
    def __init__(self, state_version: _Optional[int] = ..., timestamp_ms: _Optional[int] = ..., counter: _Optional[int] = ...) -> None: ...

class BrokerIdentity(_message.Message):
    __slots__ = ("cluster", "broker_name", "broker_id", "incarnation", "remoting_address", "mesh_address", "zone", "master_epoch")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
    BROKER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    REMOTING_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MESH_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    MASTER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    broker_name: str
    broker_id: int
    incarnation: int
    remoting_address: str
    mesh_address: str
    zone: str
    master_epoch: int
    def __init__(self, cluster: _Optional[str] = ..., broker_name: _Optional[str] = ..., broker_id: _Optional[int] = ..., incarnation: _Optional[int] = ..., remoting_address: _Optional[str] = ..., mesh_address: _Optional[str] = ..., zone: _Optional[str] = ..., master_epoch: _Optional[int] = ...) -> None: ...

class TopicConfig(_message.Message):
    __slots__ = ("topic_name", "read_queue_nums", "write_queue_nums", "perm", "topic_sys_flag")
    TOPIC_NAME_FIELD_NUMBER: _ClassVar[int]
    READ_QUEUE_NUMS_FIELD_NUMBER: _ClassVar[int]
    WRITE_QUEUE_NUMS_FIELD_NUMBER: _ClassVar[int]
    PERM_FIELD_NUMBER: _ClassVar[int]
    TOPIC_SYS_FLAG_FIELD_NUMBER: _ClassVar[int]
    topic_name: str
    read_queue_nums: int
    write_queue_nums: int
    perm: int
    topic_sys_flag: int
    def __init__(self, topic_name: _Optional[str] = ..., read_queue_nums: _Optional[int] = ..., write_queue_nums: _Optional[int] = ..., perm: _Optional[int] = ..., topic_sys_flag: _Optional[int] = ...) -> None: ...
