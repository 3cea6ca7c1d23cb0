"""The methods of the mesh API, version 1: each path or number tied to its messages, declared once for both sides."""

from __future__ import annotations

from apogeemq.mesh.calls import Call, Channel
from apogeemq.mesh.network import Stream, Unary
from apogeemq.mesh.v1 import broker_pb2 as broker
from apogeemq.mesh.v1.calls_pb2 import Frame
from apogeemq.mesh.v1.controller_pb2 import (
    CleanBrokerRequest,
    DescribeSetsReply,
    DescribeSetsRequest,
    ElectMasterRequest,
    JoinReply,
    JoinRequest,
    OperatorReply,
    RecoverSetRequest,
    SwitchLearnerRequest,
)
from apogeemq.mesh.v1.namesrv_pb2 import RegistrationReply, RegistrationRequest
from apogeemq.mesh.v1.replication_pb2 import MasterMessage, ReplicaMessage
from apogeemq.mesh.v1.routes_pb2 import (
    QueryClusterReply,
    QueryClusterRequest,
    QueryRoutesReply,
    QueryRoutesRequest,
    WatchReply,
    WatchRequest,
)

NAMESRV_REGISTER: Stream[RegistrationRequest, RegistrationReply] = Stream(
    "/apogeemq.mesh.v1.NamesrvService/Register", RegistrationRequest, RegistrationReply
)
"""A broker's registration; opened by the broker. See proto/apogeemq/mesh/v1/namesrv.proto for who says what when."""

QUERY_ROUTES = Unary("/apogeemq.mesh.v1.RouteService/QueryRoutes", QueryRoutesRequest, QueryRoutesReply)
QUERY_CLUSTER = Unary("/apogeemq.mesh.v1.RouteService/QueryCluster", QueryClusterRequest, QueryClusterReply)
WATCH_ROUTES: Stream[WatchRequest, WatchReply] = Stream(
    "/apogeemq.mesh.v1.RouteService/Watch", WatchRequest, WatchReply
)
"""Routes for services; see proto/apogeemq/mesh/v1/routes.proto."""

CONTROLLER_JOIN: Stream[JoinRequest, JoinReply] = Stream(
    "/apogeemq.mesh.v1.ControllerService/Join", JoinRequest, JoinReply
)
"""A broker's stream to a controller; see proto/apogeemq/mesh/v1/controller.proto for who says what when."""

DESCRIBE_SETS = Unary("/apogeemq.mesh.v1.ControllerService/DescribeSets", DescribeSetsRequest, DescribeSetsReply)
ELECT_MASTER = Unary("/apogeemq.mesh.v1.ControllerService/ElectMaster", ElectMasterRequest, OperatorReply)
CLEAN_BROKER = Unary("/apogeemq.mesh.v1.ControllerService/CleanBroker", CleanBrokerRequest, OperatorReply)
RECOVER_SET = Unary("/apogeemq.mesh.v1.ControllerService/RecoverSet", RecoverSetRequest, OperatorReply)
SWITCH_LEARNER = Unary("/apogeemq.mesh.v1.ControllerService/SwitchLearner", SwitchLearnerRequest, OperatorReply)
"""What operators ask of a controller."""

REPLICATE: Stream[ReplicaMessage, MasterMessage] = Stream(
    "/apogeemq.mesh.v1.ReplicationService/Replicate", ReplicaMessage, MasterMessage
)
"""A replica's copy of its master's log; opened by the replica. See proto/apogeemq/mesh/v1/replication.proto."""

BROKER_CHANNELS: dict[Channel, Stream[Frame, Frame]] = {
    channel: Stream(f"/apogeemq.mesh.v1.BrokerService/{channel.value}", Frame, Frame) for channel in Channel
}
"""The three streams to a broker; see proto/apogeemq/mesh/v1/broker.proto for the calls on them."""

# Numbers are for ever: a call that is no more leaves its number unused.
SEND_MESSAGE = Call(1, "SendMessage", broker.SendMessageRequest, broker.SendMessageReply, Channel.SEND)
POP_MESSAGE = Call(2, "PopMessage", broker.PopMessageRequest, broker.PopMessageReply, Channel.FETCH, hands_out=True)
ACK_MESSAGE = Call(
    3, "AckMessage", broker.AckMessageRequest, broker.AckMessageReply, Channel.CONTROL, is_idempotent=True
)
CHANGE_INVISIBLE_TIME = Call(
    4,
    "ChangeInvisibleTime",
    broker.ChangeInvisibleTimeRequest,
    broker.ChangeInvisibleTimeReply,
    Channel.CONTROL,
)
EXTEND_INVISIBLE = Call(
    5,
    "ExtendInvisible",
    broker.ExtendInvisibleRequest,
    broker.ExtendInvisibleReply,
    Channel.CONTROL,
    is_idempotent=True,
)
QUERY_TOPIC = Call(
    6, "QueryTopic", broker.QueryTopicRequest, broker.QueryTopicReply, Channel.CONTROL, is_idempotent=True
)
ENSURE_TOPIC = Call(
    7, "EnsureTopic", broker.EnsureTopicRequest, broker.EnsureTopicReply, Channel.CONTROL, is_idempotent=True
)
QUERY_GROUP = Call(
    8, "QueryGroup", broker.QueryGroupRequest, broker.QueryGroupReply, Channel.CONTROL, is_idempotent=True
)
CLIENT_HEARTBEAT = Call(
    9,
    "ClientHeartbeat",
    broker.ClientHeartbeatRequest,
    broker.ClientHeartbeatReply,
    Channel.CONTROL,
    is_idempotent=True,
)
UNREGISTER_CLIENT = Call(
    10,
    "UnregisterClient",
    broker.UnregisterClientRequest,
    broker.UnregisterClientReply,
    Channel.CONTROL,
    is_idempotent=True,
)
QUERY_OFFSET = Call(
    11, "QueryOffset", broker.QueryOffsetRequest, broker.QueryOffsetReply, Channel.CONTROL, is_idempotent=True
)
UPDATE_OFFSET = Call(
    12, "UpdateOffset", broker.UpdateOffsetRequest, broker.UpdateOffsetReply, Channel.CONTROL, is_idempotent=True
)
RECALL_MESSAGE = Call(
    13, "RecallMessage", broker.RecallMessageRequest, broker.RecallMessageReply, Channel.CONTROL, is_idempotent=True
)
FORWARD_TO_DEAD_LETTER_QUEUE = Call(
    14,
    "ForwardToDeadLetterQueue",
    broker.ForwardToDeadLetterQueueRequest,
    broker.ForwardToDeadLetterQueueReply,
    Channel.CONTROL,
    is_idempotent=True,
)
TAKE_TRANSACTION_CHECKS = Call(
    15,
    "TakeTransactionChecks",
    broker.TakeTransactionChecksRequest,
    broker.TakeTransactionChecksReply,
    Channel.FETCH,
    hands_out=True,
)
END_TRANSACTION = Call(
    16,
    "EndTransaction",
    broker.EndTransactionRequest,
    broker.EndTransactionReply,
    Channel.CONTROL,
    is_idempotent=True,
)
