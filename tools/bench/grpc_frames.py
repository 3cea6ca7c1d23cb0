"""The bytes of the gRPC cases: one SendMessage of 1 KiB with what an official client sends beside it, and its reply."""

import time

from apogeemq.proto.v2.definition_pb2 import (
    Address,
    AddressScheme,
    ClientType,
    Code,
    Encoding,
    Endpoints,
    Message,
    MessageType,
    Publishing,
    Resource,
    Settings,
    Status,
    SystemProperties,
)
from apogeemq.proto.v2.service_pb2 import (
    QueryRouteRequest,
    QueryRouteResponse,
    SendMessageRequest,
    SendMessageResponse,
    SendResultEntry,
    TelemetryCommand,
)

SERVICE = "/apache.rocketmq.v2.MessagingService"
SEND_MESSAGE_PATH = f"{SERVICE}/SendMessage"
QUERY_ROUTE_PATH = f"{SERVICE}/QueryRoute"
TELEMETRY_PATH = f"{SERVICE}/Telemetry"
BODY = b"x" * 1024
METADATA = (
    ("x-mq-client-id", "bench@1@0@generator"),
    ("x-mq-language", "PYTHON"),
    ("x-mq-client-version", "5.0.0"),
    ("x-mq-protocol", "v2"),
    ("x-mq-request-id", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    ("x-mq-namespace", ""),
    ("x-mq-date-time", "20261122T120000Z"),
)


def send_request(topic: str, number: int) -> bytes:
    """One message, with the id that its sender gave it."""
    system = SystemProperties(
        tag="bench",
        message_id=f"01{number:030X}",
        body_encoding=Encoding.IDENTITY,
        message_type=MessageType.NORMAL,
        born_host="generator",
    )
    system.born_timestamp.FromMilliseconds(time.time_ns() // 1_000_000)
    message = Message(topic=Resource(name=topic), system_properties=system, body=BODY)
    return SendMessageRequest(messages=[message]).SerializeToString()


def route_request(topic: str, target: str) -> bytes:
    """Ask for the topic's route, which makes the topic where that is allowed."""
    host, _, port = target.rpartition(":")
    endpoints = Endpoints(scheme=AddressScheme.IPv4, addresses=[Address(host=host, port=int(port))])
    return QueryRouteRequest(topic=Resource(name=topic), endpoints=endpoints).SerializeToString()


def check_route(reply: bytes) -> None:
    """Raise RuntimeError when there is no route: what is measured afterwards would be refusals."""
    status = QueryRouteResponse.FromString(reply).status
    if status.code != Code.OK:
        raise RuntimeError(f"no route: code {status.code}: {status.message}")


def settings_command(topic: str) -> bytes:
    """What a producer says of itself before anything else."""
    publishing = Publishing(topics=[Resource(name=topic)])
    return TelemetryCommand(
        settings=Settings(client_type=ClientType.PRODUCER, publishing=publishing)
    ).SerializeToString()


def canned_reply() -> bytes:
    """A reply as long as a proxy's: status, one entry with its ids."""
    status = Status(code=Code.OK, message="OK")
    entry = SendResultEntry(status=status, message_id="01" + "A" * 30, transaction_id="01" + "A" * 30, offset=4711)
    return SendMessageResponse(status=status, entries=[entry]).SerializeToString()


def status_of(reply: bytes) -> tuple[int, str]:
    """The code and text of a SendMessage's reply."""
    status = SendMessageResponse.FromString(reply).status
    return status.code, status.message
