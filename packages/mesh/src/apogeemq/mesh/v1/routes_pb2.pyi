from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QueryRoutesRequest(_message.Message):
    __slots__ = ("topics",)
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, topics: _Optional[_Iterable[str]] = ...) -> None: ...

class QueryRoutesReply(_message.Message):
    __slots__ = ("routes", "instance", "revision")
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    routes: _containers.RepeatedCompositeFieldContainer[TopicRoute]
    instance: int
    revision: int
    def __init__(self, routes: _Optional[_Iterable[_Union[TopicRoute, _Mapping]]] = ..., instance: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class TopicRoute(_message.Message):
    __slots__ = ("topic", "queues")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    topic: str
    queues: _containers.RepeatedCompositeFieldContainer[QueueData]
    def __init__(self, topic: _Optional[str] = ..., queues: _Optional[_Iterable[_Union[QueueData, _Mapping]]] = ...) -> None: ...

class QueueData(_message.Message):
    __slots__ = ("broker_name", "cluster", "read_queue_nums", "write_queue_nums", "perm", "topic_sys_flag", "addresses")
    BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    READ_QUEUE_NUMS_FIELD_NUMBER: _ClassVar[int]
    WRITE_QUEUE_NUMS_FIELD_NUMBER: _ClassVar[int]
    PERM_FIELD_NUMBER: _ClassVar[int]
    TOPIC_SYS_FLAG_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    broker_name: str
    cluster: str
    read_queue_nums: int
    write_queue_nums: int
    perm: int
    topic_sys_flag: int
    addresses: _containers.RepeatedCompositeFieldContainer[BrokerAddress]
    def __init__(self, broker_name: _Optional[str] = ..., cluster: _Optional[str] = ..., read_queue_nums: _Optional[int] = ..., write_queue_nums: _Optional[int] = ..., perm: _Optional[int] = ..., topic_sys_flag: _Optional[int] = ..., addresses: _Optional[_Iterable[_Union[BrokerAddress, _Mapping]]] = ...) -> None: ...

class BrokerAddress(_message.Message):
    __slots__ = ("broker_id", "remoting_address", "mesh_address", "zone")
    BROKER_ID_FIELD_NUMBER: _ClassVar[int]
    REMOTING_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MESH_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    broker_id: int
    remoting_address: str
    mesh_address: str
    zone: str
    def __init__(self, broker_id: _Optional[int] = ..., remoting_address: _Optional[str] = ..., mesh_address: _Optional[str] = ..., zone: _Optional[str] = ...) -> None: ...

class QueryClusterRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QueryClusterReply(_message.Message):
    __slots__ = ("brokers", "instance", "revision")
    class BrokerEntry(_message.Message):
        __slots__ = ("cluster", "broker_name", "addresses")
        CLUSTER_FIELD_NUMBER: _ClassVar[int]
        BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
        ADDRESSES_FIELD_NUMBER: _ClassVar[int]
        cluster: str
        broker_name: str
        addresses: _containers.RepeatedCompositeFieldContainer[BrokerAddress]
        def __init__(self, cluster: _Optional[str] = ..., broker_name: _Optional[str] = ..., addresses: _Optional[_Iterable[_Union[BrokerAddress, _Mapping]]] = ...) -> None: ...
    BROKERS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    brokers: _containers.RepeatedCompositeFieldContainer[QueryClusterReply.BrokerEntry]
    instance: int
    revision: int
    def __init__(self, brokers: _Optional[_Iterable[_Union[QueryClusterReply.BrokerEntry, _Mapping]]] = ..., instance: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("instance", "revision")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    instance: int
    revision: int
    def __init__(self, instance: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchReply(_message.Message):
    __slots__ = ("instance", "revision", "reset", "changed_topics")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    CHANGED_TOPICS_FIELD_NUMBER: _ClassVar[int]
    instance: int
    revision: int
    reset: bool
    changed_topics: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, instance: _Optional[int] = ..., revision: _Optional[int] = ..., reset: bool = ..., changed_topics: _Optional[_Iterable[str]] = ...) -> None: ...
