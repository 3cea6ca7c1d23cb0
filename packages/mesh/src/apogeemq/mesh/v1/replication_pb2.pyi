from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReplicationRefusal(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLICATION_REFUSAL_UNSPECIFIED: _ClassVar[ReplicationRefusal]
    REPLICATION_REFUSAL_NOT_MASTER: _ClassVar[ReplicationRefusal]
    REPLICATION_REFUSAL_OTHER_EPOCH: _ClassVar[ReplicationRefusal]
    REPLICATION_REFUSAL_WRONG_SET: _ClassVar[ReplicationRefusal]
    REPLICATION_REFUSAL_OTHER_FILE_SIZE: _ClassVar[ReplicationRefusal]
    REPLICATION_REFUSAL_INVALID: _ClassVar[ReplicationRefusal]
    REPLICATION_REFUSAL_EXPIRED: _ClassVar[ReplicationRefusal]
    REPLICATION_REFUSAL_TOO_MANY: _ClassVar[ReplicationRefusal]
    REPLICATION_REFUSAL_REPLACED: _ClassVar[ReplicationRefusal]
    REPLICATION_REFUSAL_TOO_SLOW: _ClassVar[ReplicationRefusal]
REPLICATION_REFUSAL_UNSPECIFIED: ReplicationRefusal
REPLICATION_REFUSAL_NOT_MASTER: ReplicationRefusal
REPLICATION_REFUSAL_OTHER_EPOCH: ReplicationRefusal
REPLICATION_REFUSAL_WRONG_SET: ReplicationRefusal
REPLICATION_REFUSAL_OTHER_FILE_SIZE: ReplicationRefusal
REPLICATION_REFUSAL_INVALID: ReplicationRefusal
REPLICATION_REFUSAL_EXPIRED: ReplicationRefusal
REPLICATION_REFUSAL_TOO_MANY: ReplicationRefusal
REPLICATION_REFUSAL_REPLACED: ReplicationRefusal
REPLICATION_REFUSAL_TOO_SLOW: ReplicationRefusal

class ReplicaMessage(_message.Message):
    __slots__ = ("hello", "ask_crc", "copy_from", "acknowledge")
    class Hello(_message.Message):
        __slots__ = ("cluster", "broker_name", "broker_id", "incarnation", "epoch", "is_learner", "commit_log_file_size_bytes")
        CLUSTER_FIELD_NUMBER: _ClassVar[int]
        BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
        BROKER_ID_FIELD_NUMBER: _ClassVar[int]
        INCARNATION_FIELD_NUMBER: _ClassVar[int]
        EPOCH_FIELD_NUMBER: _ClassVar[int]
        IS_LEARNER_FIELD_NUMBER: _ClassVar[int]
        COMMIT_LOG_FILE_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
        cluster: str
        broker_name: str
        broker_id: int
        incarnation: int
        epoch: int
        is_learner: bool
        commit_log_file_size_bytes: int
        def __init__(self, cluster: _Optional[str] = ..., broker_name: _Optional[str] = ..., broker_id: _Optional[int] = ..., incarnation: _Optional[int] = ..., epoch: _Optional[int] = ..., is_learner: bool = ..., commit_log_file_size_bytes: _Optional[int] = ...) -> None: ...
    class AskCrc(_message.Message):
        __slots__ = ("start", "end", "crc")
        START_FIELD_NUMBER: _ClassVar[int]
        END_FIELD_NUMBER: _ClassVar[int]
        CRC_FIELD_NUMBER: _ClassVar[int]
        start: int
        end: int
        crc: int
        def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., crc: _Optional[int] = ...) -> None: ...
    class CopyFrom(_message.Message):
        __slots__ = ("offset",)
        OFFSET_FIELD_NUMBER: _ClassVar[int]
        offset: int
        def __init__(self, offset: _Optional[int] = ...) -> None: ...
    class Acknowledge(_message.Message):
        __slots__ = ("epoch", "offset", "states")
        EPOCH_FIELD_NUMBER: _ClassVar[int]
        OFFSET_FIELD_NUMBER: _ClassVar[int]
        STATES_FIELD_NUMBER: _ClassVar[int]
        epoch: int
        offset: int
        states: int
        def __init__(self, epoch: _Optional[int] = ..., offset: _Optional[int] = ..., states: _Optional[int] = ...) -> None: ...
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ASK_CRC_FIELD_NUMBER: _ClassVar[int]
    COPY_FROM_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGE_FIELD_NUMBER: _ClassVar[int]
    hello: ReplicaMessage.Hello
    ask_crc: ReplicaMessage.AskCrc
    copy_from: ReplicaMessage.CopyFrom
    acknowledge: ReplicaMessage.Acknowledge
    def __init__(self, hello: _Optional[_Union[ReplicaMessage.Hello, _Mapping]] = ..., ask_crc: _Optional[_Union[ReplicaMessage.AskCrc, _Mapping]] = ..., copy_from: _Optional[_Union[ReplicaMessage.CopyFrom, _Mapping]] = ..., acknowledge: _Optional[_Union[ReplicaMessage.Acknowledge, _Mapping]] = ...) -> None: ...

class MasterMessage(_message.Message):
    __slots__ = ("welcome", "crc_same", "chunk", "state", "refused")
    class Welcome(_message.Message):
        __slots__ = ("epoch", "entries", "min_offset", "end_offset")
        EPOCH_FIELD_NUMBER: _ClassVar[int]
        ENTRIES_FIELD_NUMBER: _ClassVar[int]
        MIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
        END_OFFSET_FIELD_NUMBER: _ClassVar[int]
        epoch: int
        entries: _containers.RepeatedCompositeFieldContainer[EpochEntry]
        min_offset: int
        end_offset: int
        def __init__(self, epoch: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[EpochEntry, _Mapping]]] = ..., min_offset: _Optional[int] = ..., end_offset: _Optional[int] = ...) -> None: ...
    class CrcSame(_message.Message):
        __slots__ = ("epoch", "is_same")
        EPOCH_FIELD_NUMBER: _ClassVar[int]
        IS_SAME_FIELD_NUMBER: _ClassVar[int]
        epoch: int
        is_same: bool
        def __init__(self, epoch: _Optional[int] = ..., is_same: bool = ...) -> None: ...
    class Chunk(_message.Message):
        __slots__ = ("epoch", "offset", "data", "written_in", "confirm_offset", "min_offset", "end_offset")
        EPOCH_FIELD_NUMBER: _ClassVar[int]
        OFFSET_FIELD_NUMBER: _ClassVar[int]
        DATA_FIELD_NUMBER: _ClassVar[int]
        WRITTEN_IN_FIELD_NUMBER: _ClassVar[int]
        CONFIRM_OFFSET_FIELD_NUMBER: _ClassVar[int]
        MIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
        END_OFFSET_FIELD_NUMBER: _ClassVar[int]
        epoch: int
        offset: int
        data: bytes
        written_in: EpochEntry
        confirm_offset: int
        min_offset: int
        end_offset: int
        def __init__(self, epoch: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., written_in: _Optional[_Union[EpochEntry, _Mapping]] = ..., confirm_offset: _Optional[int] = ..., min_offset: _Optional[int] = ..., end_offset: _Optional[int] = ...) -> None: ...
    class State(_message.Message):
        __slots__ = ("name", "data", "whole", "continues")
        NAME_FIELD_NUMBER: _ClassVar[int]
        DATA_FIELD_NUMBER: _ClassVar[int]
        WHOLE_FIELD_NUMBER: _ClassVar[int]
        CONTINUES_FIELD_NUMBER: _ClassVar[int]
        name: str
        data: bytes
        whole: bool
        continues: bool
        def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ..., whole: bool = ..., continues: bool = ...) -> None: ...
    class Refused(_message.Message):
        __slots__ = ("code", "text")
        CODE_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        code: ReplicationRefusal
        text: str
        def __init__(self, code: _Optional[_Union[ReplicationRefusal, str]] = ..., text: _Optional[str] = ...) -> None: ...
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    CRC_SAME_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    welcome: MasterMessage.Welcome
    crc_same: MasterMessage.CrcSame
    chunk: MasterMessage.Chunk
    state: MasterMessage.State
    refused: MasterMessage.Refused
    def __init__(self, welcome: _Optional[_Union[MasterMessage.Welcome, _Mapping]] = ..., crc_same: _Optional[_Union[MasterMessage.CrcSame, _Mapping]] = ..., chunk: _Optional[_Union[MasterMessage.Chunk, _Mapping]] = ..., state: _Optional[_Union[MasterMessage.State, _Mapping]] = ..., refused: _Optional[_Union[MasterMessage.Refused, _Mapping]] = ...) -> None: ...

class EpochEntry(_message.Message):
    __slots__ = ("epoch", "start_offset")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    start_offset: int
    def __init__(self, epoch: _Optional[int] = ..., start_offset: _Optional[int] = ...) -> None: ...
