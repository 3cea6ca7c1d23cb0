"""The methods of the public API that this client calls."""

import dataclasses
from typing import Final, Generic, TypeVar

from apogeemq.proto.v2 import service_pb2
from google.protobuf.message import Message

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

SERVICE: Final = "/apache.rocketmq.v2.MessagingService"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Method(Generic[Request, Response]):
    """One method: its name on the wire and its two messages."""

    name: str
    request: type[Request]
    response: type[Response]

    @property
    def path(self) -> str:
        """As HTTP/2 has it. The service keeps its public name, whatever the generated classes are called."""
        return f"{SERVICE}/{self.name}"


QUERY_ROUTE: Final = Method("QueryRoute", service_pb2.QueryRouteRequest, service_pb2.QueryRouteResponse)
HEARTBEAT: Final = Method("Heartbeat", service_pb2.HeartbeatRequest, service_pb2.HeartbeatResponse)
SEND_MESSAGE: Final = Method("SendMessage", service_pb2.SendMessageRequest, service_pb2.SendMessageResponse)
QUERY_ASSIGNMENT: Final = Method(
    "QueryAssignment", service_pb2.QueryAssignmentRequest, service_pb2.QueryAssignmentResponse
)
RECEIVE_MESSAGE: Final = Method("ReceiveMessage", service_pb2.ReceiveMessageRequest, service_pb2.ReceiveMessageResponse)
ACK_MESSAGE: Final = Method("AckMessage", service_pb2.AckMessageRequest, service_pb2.AckMessageResponse)
CHANGE_INVISIBLE_DURATION: Final = Method(
    "ChangeInvisibleDuration",
    service_pb2.ChangeInvisibleDurationRequest,
    service_pb2.ChangeInvisibleDurationResponse,
)
FORWARD_TO_DLQ: Final = Method(
    "ForwardMessageToDeadLetterQueue",
    service_pb2.ForwardMessageToDeadLetterQueueRequest,
    service_pb2.ForwardMessageToDeadLetterQueueResponse,
)
END_TRANSACTION: Final = Method("EndTransaction", service_pb2.EndTransactionRequest, service_pb2.EndTransactionResponse)
RECALL_MESSAGE: Final = Method("RecallMessage", service_pb2.RecallMessageRequest, service_pb2.RecallMessageResponse)
NOTIFY_CLIENT_TERMINATION: Final = Method(
    "NotifyClientTermination",
    service_pb2.NotifyClientTerminationRequest,
    service_pb2.NotifyClientTerminationResponse,
)
TELEMETRY: Final = Method("Telemetry", service_pb2.TelemetryCommand, service_pb2.TelemetryCommand)
