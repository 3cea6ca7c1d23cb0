"""Typed topics: a name and the codec that turns payloads into bodies and back.

```python
ORDERS = Topic("orders", json(dump=asdict, load=lambda fields: Order(**fields)))
await producer.send(ORDERS.message(Order(7), keys=("7",)))
...
order = ORDERS.payload(received)
```
A codec is any object with `encode` and `decode`; whatever they raise becomes a PayloadInvalid that names the topic.
"""

import json as _json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from apogeemq.client_api.errors import PayloadInvalid
from apogeemq.client_api.message import Message, ReceivedMessage, check_topic

T = TypeVar("T")

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
"""What JSON can say."""


class Codec(Protocol[T]):
    """Payload to body and back. Either may raise what it likes."""

    def encode(self, payload: T) -> bytes:
        """The body for a payload."""
        ...

    def decode(self, body: bytes) -> T:
        """The payload of a body."""
        ...


@dataclass(frozen=True, slots=True)
class Topic(Generic[T]):
    """A topic whose messages carry payloads of one type.

    Raises MessageInvalid for an impossible name.
    """

    name: str
    codec: Codec[T]

    def __post_init__(self) -> None:
        """Check the name where it is written, not where it is used."""
        check_topic(self.name)

    def message(
        self,
        payload: T,
        *,
        tag: str | None = None,
        keys: tuple[str, ...] = (),
        properties: Mapping[str, str] | None = None,
        message_group: str | None = None,
        delivery_timestamp_ms: int | None = None,
    ) -> Message:
        """A message with this payload. Raises PayloadInvalid, and MessageInvalid as `Message` does."""
        try:
            body = self.codec.encode(payload)
        except Exception as error:
            raise PayloadInvalid(f"the payload for topic {self.name} cannot be encoded: {error}") from error
        return Message(
            self.name,
            body,
            tag=tag,
            keys=keys,
            properties=properties or {},
            message_group=message_group,
            delivery_timestamp_ms=delivery_timestamp_ms,
        )

    def payload(self, received: ReceivedMessage) -> T:
        """The payload of a message. Raises PayloadInvalid with the message's id, never its bytes."""
        try:
            return self.codec.decode(received.body)
        except Exception as error:
            raise PayloadInvalid(
                f"the body of message {received.message_id} from topic {self.name} cannot be decoded: "
                f"{type(error).__name__}",
                hint="Let the sender use the topic's codec; a consumer moves such a message to the DLQ.",
            ) from error


class _Raw:
    """The body as it is."""

    def encode(self, payload: bytes) -> bytes:
        return payload

    def decode(self, body: bytes) -> bytes:
        return body


class _Text:
    """UTF-8, strict in both directions."""

    def encode(self, payload: str) -> bytes:
        return payload.encode()

    def decode(self, body: bytes) -> str:
        return body.decode()


class _Json(Generic[T]):
    """JSON in UTF-8, with functions between a type and plain values."""

    def __init__(self, dump: Callable[[T], JsonValue], load: Callable[[JsonValue], T]) -> None:
        self._dump = dump
        self._load = load

    def encode(self, payload: T) -> bytes:
        return _json.dumps(self._dump(payload), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    def decode(self, body: bytes) -> T:
        return self._load(_json.loads(body))


def json(*, dump: Callable[[T], JsonValue], load: Callable[[JsonValue], T]) -> Codec[T]:
    """A JSON codec for a type: `dump` makes plain values of a payload, `load` the payload of plain values."""
    return _Json(dump, load)


def _same(value: JsonValue) -> JsonValue:
    return value


RAW: Final[Codec[bytes]] = _Raw()
"""Bodies as they are."""

TEXT: Final[Codec[str]] = _Text()
"""UTF-8 text."""

JSON: Final[Codec[JsonValue]] = json(dump=_same, load=_same)
"""Plain JSON values."""
