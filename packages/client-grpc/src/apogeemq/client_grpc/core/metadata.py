"""The headers of every call. Names and layout: the public API's, as the official clients send them."""

import dataclasses
import datetime as dt

PROTOCOL = "v2"
LANGUAGE = "PYTHON"  # a Remoting LanguageCode name: with any other, registration of the client fails

Header = tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Headers:
    """What stays the same over a client's life; `of_call` adds what belongs to one call.

    Values must be printable ASCII: gRPC refuses a call with others.
    """

    client_id: str
    version: str

    def of_call(self, *, request_id: str, now_ms: int, traceparent: str | None = None) -> list[Header]:
        """The headers of one call at wall time `now_ms`."""
        headers = [
            ("x-mq-client-id", self.client_id),
            ("x-mq-language", LANGUAGE),
            ("x-mq-client-version", self.version),
            ("x-mq-protocol", PROTOCOL),
            ("x-mq-request-id", request_id),
            ("x-mq-date-time", date_time(now_ms)),
        ]
        if traceparent is not None:
            headers.append(("traceparent", traceparent))
        return headers


def date_time(now_ms: int) -> str:
    """As 20261122T190507Z."""
    moment = dt.datetime.fromtimestamp(now_ms // 1000, dt.UTC)
    return moment.strftime("%Y%m%dT%H%M%SZ")


def client_id(hostname: str, pid: int, index: int, lot: int) -> str:
    """host@pid@index@random: unique over machines, processes and the clients of one process.

    `index` counts the clients of the process, `lot` is any 64-bit number. Characters that a header can't carry become
    "-"; the host name is cut to 100 characters.
    """
    host = "".join(each if each.isascii() and (each.isalnum() or each in ".-_") else "-" for each in hostname[:100])
    return f"{host or 'localhost'}@{pid}@{index}@{lot:016x}"


class MessageIds:
    """Message ids as the API's clients make them: 17 bytes in upper-case hex.

    version 01 | origin, 6 bytes | process id, 2 bytes | seconds since 2021-01-01 UTC, 4 bytes | sequence, 4 bytes
    The official clients take a network card's address for the origin; ours takes a lot, which tells nothing.
    """

    _EPOCH_MS = 1_609_459_200_000

    def __init__(self, *, origin: int, pid: int, now_ms: int) -> None:
        age_s = max(now_ms - self._EPOCH_MS, 0) // 1000 & 0xFFFFFFFF
        self._prefix = f"01{origin & 0xFFFFFFFFFFFF:012X}{pid & 0xFFFF:04X}{age_s:08X}"
        self._sequence = 0

    def next(self) -> str:
        """An id that no other call has given or gives."""
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        return f"{self._prefix}{self._sequence:08X}"
