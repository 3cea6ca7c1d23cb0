from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("hello", "register", "beat", "ask_election", "change_set", "set_learner", "knows", "leave")
    class Hello(_message.Message):
        __slots__ = ("cluster", "broker_name", "check_code", "incarnation")
        CLUSTER_FIELD_NUMBER: _ClassVar[int]
        BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
        CHECK_CODE_FIELD_NUMBER: _ClassVar[int]
        INCARNATION_FIELD_NUMBER: _ClassVar[int]
        cluster: str
        broker_name: str
        check_code: str
        incarnation: int
        def __init__(self, cluster: _Optional[str] = ..., broker_name: _Optional[str] = ..., check_code: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...
    class Register(_message.Message):
        __slots__ = ("request_id", "broker_id", "address", "mesh_address", "boot_id", "clean_stop", "lost_unsynced", "last_epoch", "end_offset", "priority", "is_learner", "known_members", "known_master_epoch", "known_set_epoch")
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        BROKER_ID_FIELD_NUMBER: _ClassVar[int]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        MESH_ADDRESS_FIELD_NUMBER: _ClassVar[int]
        BOOT_ID_FIELD_NUMBER: _ClassVar[int]
        CLEAN_STOP_FIELD_NUMBER: _ClassVar[int]
        LOST_UNSYNCED_FIELD_NUMBER: _ClassVar[int]
        LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
        END_OFFSET_FIELD_NUMBER: _ClassVar[int]
        PRIORITY_FIELD_NUMBER: _ClassVar[int]
        IS_LEARNER_FIELD_NUMBER: _ClassVar[int]
        KNOWN_MEMBERS_FIELD_NUMBER: _ClassVar[int]
        KNOWN_MASTER_EPOCH_FIELD_NUMBER: _ClassVar[int]
        KNOWN_SET_EPOCH_FIELD_NUMBER: _ClassVar[int]
        request_id: int
        broker_id: int
        address: str
        mesh_address: str
        boot_id: str
        clean_stop: bool
        lost_unsynced: bool
        last_epoch: int
        end_offset: int
        priority: int
        is_learner: bool
        known_members: _containers.RepeatedScalarFieldContainer[int]
        known_master_epoch: int
        known_set_epoch: int
        def __init__(self, request_id: _Optional[int] = ..., broker_id: _Optional[int] = ..., address: _Optional[str] = ..., mesh_address: _Optional[str] = ..., boot_id: _Optional[str] = ..., clean_stop: bool = ..., lost_unsynced: bool = ..., last_epoch: _Optional[int] = ..., end_offset: _Optional[int] = ..., priority: _Optional[int] = ..., is_learner: bool = ..., known_members: _Optional[_Iterable[int]] = ..., known_master_epoch: _Optional[int] = ..., known_set_epoch: _Optional[int] = ...) -> None: ...
    class Beat(_message.Message):
        __slots__ = ("beat_id", "lease_id", "broker_id", "epoch", "end_offset")
        BEAT_ID_FIELD_NUMBER: _ClassVar[int]
        LEASE_ID_FIELD_NUMBER: _ClassVar[int]
        BROKER_ID_FIELD_NUMBER: _ClassVar[int]
        EPOCH_FIELD_NUMBER: _ClassVar[int]
        END_OFFSET_FIELD_NUMBER: _ClassVar[int]
        beat_id: int
        lease_id: int
        broker_id: int
        epoch: int
        end_offset: int
        def __init__(self, beat_id: _Optional[int] = ..., lease_id: _Optional[int] = ..., broker_id: _Optional[int] = ..., epoch: _Optional[int] = ..., end_offset: _Optional[int] = ...) -> None: ...
    class AskElection(_message.Message):
        __slots__ = ("request_id", "over_epoch")
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        OVER_EPOCH_FIELD_NUMBER: _ClassVar[int]
        request_id: int
        over_epoch: int
        def __init__(self, request_id: _Optional[int] = ..., over_epoch: _Optional[int] = ...) -> None: ...
    class ChangeSet(_message.Message):
        __slots__ = ("request_id", "master_epoch", "set_epoch", "members")
        class Member(_message.Message):
            __slots__ = ("broker_id", "incarnation")
            BROKER_ID_FIELD_NUMBER: _ClassVar[int]
            INCARNATION_FIELD_NUMBER: _ClassVar[int]
            broker_id: int
            incarnation: int
            def __init__(self, broker_id: _Optional[int] = ..., incarnation: _Optional[int] = ...) -> None: ...
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        MASTER_EPOCH_FIELD_NUMBER: _ClassVar[int]
        SET_EPOCH_FIELD_NUMBER: _ClassVar[int]
        MEMBERS_FIELD_NUMBER: _ClassVar[int]
        request_id: int
        master_epoch: int
        set_epoch: int
        members: _containers.RepeatedCompositeFieldContainer[JoinRequest.ChangeSet.Member]
        def __init__(self, request_id: _Optional[int] = ..., master_epoch: _Optional[int] = ..., set_epoch: _Optional[int] = ..., members: _Optional[_Iterable[_Union[JoinRequest.ChangeSet.Member, _Mapping]]] = ...) -> None: ...
    class SetLearner(_message.Message):
        __slots__ = ("request_id", "is_learner")
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        IS_LEARNER_FIELD_NUMBER: _ClassVar[int]
        request_id: int
        is_learner: bool
        def __init__(self, request_id: _Optional[int] = ..., is_learner: bool = ...) -> None: ...
    class Knows(_message.Message):
        __slots__ = ("master_epoch", "set_epoch")
        MASTER_EPOCH_FIELD_NUMBER: _ClassVar[int]
        SET_EPOCH_FIELD_NUMBER: _ClassVar[int]
        master_epoch: int
        set_epoch: int
        def __init__(self, master_epoch: _Optional[int] = ..., set_epoch: _Optional[int] = ...) -> None: ...
    class Leave(_message.Message):
        __slots__ = ("request_id",)
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        request_id: int
        def __init__(self, request_id: _Optional[int] = ...) -> None: ...
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    ASK_ELECTION_FIELD_NUMBER: _ClassVar[int]
    CHANGE_SET_FIELD_NUMBER: _ClassVar[int]
    SET_LEARNER_FIELD_NUMBER: _ClassVar[int]
    KNOWS_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    hello: JoinRequest.Hello
    register: JoinRequest.Register
    beat: JoinRequest.Beat
    ask_election: JoinRequest.AskElection
    change_set: JoinRequest.ChangeSet
    set_learner: JoinRequest.SetLearner
    knows: JoinRequest.Knows
    leave: JoinRequest.Leave
    def __init__(self, hello: _Optional[_Union[JoinRequest.Hello, _Mapping]] = ..., register: _Optional[_Union[JoinRequest.Register, _Mapping]] = ..., beat: _Optional[_Union[JoinRequest.Beat, _Mapping]] = ..., ask_election: _Optional[_Union[JoinRequest.AskElection, _Mapping]] = ..., change_set: _Optional[_Union[JoinRequest.ChangeSet, _Mapping]] = ..., set_learner: _Optional[_Union[JoinRequest.SetLearner, _Mapping]] = ..., knows: _Optional[_Union[JoinRequest.Knows, _Mapping]] = ..., leave: _Optional[_Union[JoinRequest.Leave, _Mapping]] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("standing", "answer", "beaten", "set_state", "register_again", "refused")
    class Standing(_message.Message):
        __slots__ = ("is_active", "active")
        IS_ACTIVE_FIELD_NUMBER: _ClassVar[int]
        ACTIVE_FIELD_NUMBER: _ClassVar[int]
        is_active: bool
        active: str
        def __init__(self, is_active: bool = ..., active: _Optional[str] = ...) -> None: ...
    class Answer(_message.Message):
        __slots__ = ("request_id", "refused", "broker_id", "lease_id", "lease_ttl_ms", "set_state", "is_learner")
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        REFUSED_FIELD_NUMBER: _ClassVar[int]
        BROKER_ID_FIELD_NUMBER: _ClassVar[int]
        LEASE_ID_FIELD_NUMBER: _ClassVar[int]
        LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
        SET_STATE_FIELD_NUMBER: _ClassVar[int]
        IS_LEARNER_FIELD_NUMBER: _ClassVar[int]
        request_id: int
        refused: Refused
        broker_id: int
        lease_id: int
        lease_ttl_ms: int
        set_state: SetState
        is_learner: bool
        def __init__(self, request_id: _Optional[int] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., broker_id: _Optional[int] = ..., lease_id: _Optional[int] = ..., lease_ttl_ms: _Optional[int] = ..., set_state: _Optional[_Union[SetState, _Mapping]] = ..., is_learner: bool = ...) -> None: ...
    class Beaten(_message.Message):
        __slots__ = ("beat_id", "lease_ttl_ms")
        BEAT_ID_FIELD_NUMBER: _ClassVar[int]
        LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
        beat_id: int
        lease_ttl_ms: int
        def __init__(self, beat_id: _Optional[int] = ..., lease_ttl_ms: _Optional[int] = ...) -> None: ...
    class RegisterAgain(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    STANDING_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    BEATEN_FIELD_NUMBER: _ClassVar[int]
    SET_STATE_FIELD_NUMBER: _ClassVar[int]
    REGISTER_AGAIN_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    standing: JoinReply.Standing
    answer: JoinReply.Answer
    beaten: JoinReply.Beaten
    set_state: SetState
    register_again: JoinReply.RegisterAgain
    refused: Refused
    def __init__(self, standing: _Optional[_Union[JoinReply.Standing, _Mapping]] = ..., answer: _Optional[_Union[JoinReply.Answer, _Mapping]] = ..., beaten: _Optional[_Union[JoinReply.Beaten, _Mapping]] = ..., set_state: _Optional[_Union[SetState, _Mapping]] = ..., register_again: _Optional[_Union[JoinReply.RegisterAgain, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ...) -> None: ...

class SetState(_message.Message):
    __slots__ = ("master_id", "master_epoch", "members", "set_epoch", "replicas", "possible_loss", "loss_epoch")
    class Replica(_message.Message):
        __slots__ = ("broker_id", "address", "mesh_address", "incarnation", "is_learner")
        BROKER_ID_FIELD_NUMBER: _ClassVar[int]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        MESH_ADDRESS_FIELD_NUMBER: _ClassVar[int]
        INCARNATION_FIELD_NUMBER: _ClassVar[int]
        IS_LEARNER_FIELD_NUMBER: _ClassVar[int]
        broker_id: int
        address: str
        mesh_address: str
        incarnation: int
        is_learner: bool
        def __init__(self, broker_id: _Optional[int] = ..., address: _Optional[str] = ..., mesh_address: _Optional[str] = ..., incarnation: _Optional[int] = ..., is_learner: bool = ...) -> None: ...
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    MASTER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    SET_EPOCH_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    POSSIBLE_LOSS_FIELD_NUMBER: _ClassVar[int]
    LOSS_EPOCH_FIELD_NUMBER: _ClassVar[int]
    master_id: int
    master_epoch: int
    members: _containers.RepeatedScalarFieldContainer[int]
    set_epoch: int
    replicas: _containers.RepeatedCompositeFieldContainer[SetState.Replica]
    possible_loss: bool
    loss_epoch: int
    def __init__(self, master_id: _Optional[int] = ..., master_epoch: _Optional[int] = ..., members: _Optional[_Iterable[int]] = ..., set_epoch: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[SetState.Replica, _Mapping]]] = ..., possible_loss: bool = ..., loss_epoch: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("code", "text", "active")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    code: int
    text: str
    active: str
    def __init__(self, code: _Optional[int] = ..., text: _Optional[str] = ..., active: _Optional[str] = ...) -> None: ...

class DescribeSetsRequest(_message.Message):
    __slots__ = ("broker_name",)
    BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
    broker_name: str
    def __init__(self, broker_name: _Optional[str] = ...) -> None: ...

class DescribeSetsReply(_message.Message):
    __slots__ = ("cluster", "controller", "active", "etcd_trouble", "sets")
    class BrokerSet(_message.Message):
        __slots__ = ("broker_name", "set_state", "brokers", "trouble", "elections")
        BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
        SET_STATE_FIELD_NUMBER: _ClassVar[int]
        BROKERS_FIELD_NUMBER: _ClassVar[int]
        TROUBLE_FIELD_NUMBER: _ClassVar[int]
        ELECTIONS_FIELD_NUMBER: _ClassVar[int]
        broker_name: str
        set_state: SetState
        brokers: _containers.RepeatedCompositeFieldContainer[DescribeSetsReply.Seen]
        trouble: str
        elections: _containers.RepeatedCompositeFieldContainer[DescribeSetsReply.Election]
        def __init__(self, broker_name: _Optional[str] = ..., set_state: _Optional[_Union[SetState, _Mapping]] = ..., brokers: _Optional[_Iterable[_Union[DescribeSetsReply.Seen, _Mapping]]] = ..., trouble: _Optional[str] = ..., elections: _Optional[_Iterable[_Union[DescribeSetsReply.Election, _Mapping]]] = ...) -> None: ...
    class Election(_message.Message):
        __slots__ = ("master_epoch", "master_id", "previous_id", "members", "reason", "age_ms")
        MASTER_EPOCH_FIELD_NUMBER: _ClassVar[int]
        MASTER_ID_FIELD_NUMBER: _ClassVar[int]
        PREVIOUS_ID_FIELD_NUMBER: _ClassVar[int]
        MEMBERS_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        AGE_MS_FIELD_NUMBER: _ClassVar[int]
        master_epoch: int
        master_id: int
        previous_id: int
        members: _containers.RepeatedScalarFieldContainer[int]
        reason: str
        age_ms: int
        def __init__(self, master_epoch: _Optional[int] = ..., master_id: _Optional[int] = ..., previous_id: _Optional[int] = ..., members: _Optional[_Iterable[int]] = ..., reason: _Optional[str] = ..., age_ms: _Optional[int] = ...) -> None: ...
    class Seen(_message.Message):
        __slots__ = ("broker_id", "is_alive", "is_connected", "epoch", "end_offset", "lease_left_ms", "lag")
        BROKER_ID_FIELD_NUMBER: _ClassVar[int]
        IS_ALIVE_FIELD_NUMBER: _ClassVar[int]
        IS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
        EPOCH_FIELD_NUMBER: _ClassVar[int]
        END_OFFSET_FIELD_NUMBER: _ClassVar[int]
        LEASE_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
        LAG_FIELD_NUMBER: _ClassVar[int]
        broker_id: int
        is_alive: bool
        is_connected: bool
        epoch: int
        end_offset: int
        lease_left_ms: int
        lag: int
        def __init__(self, broker_id: _Optional[int] = ..., is_alive: bool = ..., is_connected: bool = ..., epoch: _Optional[int] = ..., end_offset: _Optional[int] = ..., lease_left_ms: _Optional[int] = ..., lag: _Optional[int] = ...) -> None: ...
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    ETCD_TROUBLE_FIELD_NUMBER: _ClassVar[int]
    SETS_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    controller: str
    active: str
    etcd_trouble: str
    sets: _containers.RepeatedCompositeFieldContainer[DescribeSetsReply.BrokerSet]
    def __init__(self, cluster: _Optional[str] = ..., controller: _Optional[str] = ..., active: _Optional[str] = ..., etcd_trouble: _Optional[str] = ..., sets: _Optional[_Iterable[_Union[DescribeSetsReply.BrokerSet, _Mapping]]] = ...) -> None: ...

class ElectMasterRequest(_message.Message):
    __slots__ = ("broker_name", "broker_id")
    BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
    BROKER_ID_FIELD_NUMBER: _ClassVar[int]
    broker_name: str
    broker_id: int
    def __init__(self, broker_name: _Optional[str] = ..., broker_id: _Optional[int] = ...) -> None: ...

class CleanBrokerRequest(_message.Message):
    __slots__ = ("broker_name", "broker_id")
    BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
    BROKER_ID_FIELD_NUMBER: _ClassVar[int]
    broker_name: str
    broker_id: int
    def __init__(self, broker_name: _Optional[str] = ..., broker_id: _Optional[int] = ...) -> None: ...

class RecoverSetRequest(_message.Message):
    __slots__ = ("broker_name", "broker_id")
    BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
    BROKER_ID_FIELD_NUMBER: _ClassVar[int]
    broker_name: str
    broker_id: int
    def __init__(self, broker_name: _Optional[str] = ..., broker_id: _Optional[int] = ...) -> None: ...

class SwitchLearnerRequest(_message.Message):
    __slots__ = ("broker_name", "broker_id", "is_learner")
    BROKER_NAME_FIELD_NUMBER: _ClassVar[int]
    BROKER_ID_FIELD_NUMBER: _ClassVar[int]
    IS_LEARNER_FIELD_NUMBER: _ClassVar[int]
    broker_name: str
    broker_id: int
    is_learner: bool
    def __init__(self, broker_name: _Optional[str] = ..., broker_id: _Optional[int] = ..., is_learner: bool = ...) -> None: ...

class OperatorReply(_message.Message):
    __slots__ = ("refused", "set_state")
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    SET_STATE_FIELD_NUMBER: _ClassVar[int]
    refused: Refused
    set_state: SetState
    def __init__(self, refused: _Optional[_Union[Refused, _Mapping]] = ..., set_state: _Optional[_Union[SetState, _Mapping]] = ...) -> None: ...
