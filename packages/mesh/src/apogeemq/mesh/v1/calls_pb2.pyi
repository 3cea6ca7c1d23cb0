from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EntryKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTRY_KIND_UNSPECIFIED: _ClassVar[EntryKind]
    ENTRY_REQUEST: _ClassVar[EntryKind]
    ENTRY_REPLY: _ClassVar[EntryKind]
    ENTRY_REFUSAL: _ClassVar[EntryKind]
    ENTRY_CANCEL: _ClassVar[EntryKind]
    ENTRY_PIECE: _ClassVar[EntryKind]
ENTRY_KIND_UNSPECIFIED: EntryKind
ENTRY_REQUEST: EntryKind
ENTRY_REPLY: EntryKind
ENTRY_REFUSAL: EntryKind
ENTRY_CANCEL: EntryKind
ENTRY_PIECE: EntryKind

class Frame(_message.Message):
    __slots__ = ("entries", "credit_bytes")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    credit_bytes: int
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., credit_bytes: _Optional[int] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("id", "kind", "method", "timeout_ms", "traceparent", "tracestate", "payload", "total_size_bytes", "code", "text")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    id: int
    kind: EntryKind
    method: int
    timeout_ms: int
    traceparent: str
    tracestate: str
    payload: bytes
    total_size_bytes: int
    code: int
    text: str
    def __init__(self, id: _Optional[int] = ..., kind: _Optional[_Union[EntryKind, str]] = ..., method: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., payload: _Optional[bytes] = ..., total_size_bytes: _Optional[int] = ..., code: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...
