"""What can go wrong between two service processes, and at start.

    MeshError
    ├── PeerUnavailable      no connection could be made, or a unary call's connection broke
    ├── StreamLost           an open stream broke: what was in flight has an unknown outcome
    ├── DeadlineExceeded     no answer in time: the outcome is unknown
    ├── PeerRefused          the peer answered "no": code and message are its own
    ├── CallRefused          the same for one call among many on a stream; the code is RocketMQ's
    ├── MessageTooLarge      ours: the message was never sent
    ├── CallsOverloaded      ours: too much waits to be sent to this peer already
    └── ChannelClosed        ours: the channel, stream or server was closed by this process
    ConfigError              a setting is wrong: key, where it came from, what is allowed
    LifecycleError           a component did not start or stop in time

The first five are the world's doing, the next three this process's.
"""

# ruff: noqa: N818 — these are facts ("the stream is lost") and read better in `except` without a suffix

from __future__ import annotations

from enum import IntEnum


class RefusalCode(IntEnum):
    """Why a peer refused a call. The numbers are gRPC's status codes, so that they mean the same on any network."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class MeshError(Exception):
    """Root of everything a mesh call or stream can raise."""


class PeerUnavailable(MeshError):
    """The peer at `target` could not be reached.

    For a stream: it was never opened, nothing was handled. For a unary call: the connection failed before or during
    the call, so a call that is not idempotent may have been carried out.
    """

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(f"{target} is unavailable: {reason}")
        self.target = target
        self.reason = reason


class StreamLost(MeshError):
    """An open stream broke, or the peer cancelled it. Whether the last messages sent were handled is unknown."""

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(f"stream with {peer} was lost: {reason}")
        self.peer = peer
        self.reason = reason


class DeadlineExceeded(MeshError):
    """No answer within `timeout_s` seconds. The peer may still have carried the call out."""

    def __init__(self, target: str, path: str, timeout_s: float) -> None:
        super().__init__(f"{target} did not answer {path} within {timeout_s:g} s")
        self.target = target
        self.path = path
        self.timeout_s = timeout_s


class PeerRefused(MeshError):
    """The peer refused. Raised by a handler to refuse, and raised at the caller with the same code and message."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class CallRefused(MeshError):
    """One call was refused. Raised by an answering function to refuse, and raised at the caller with the same values.

    `code` is one of RocketMQ's response codes; `text` says what was wrong, where, and what to do.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class CallsOverloaded(MeshError):
    """A bound on what may wait to be sent to a peer is reached; this call was never sent."""

    def __init__(self, target: str, what: str, limit: int) -> None:
        super().__init__(f"{what} to {target} are at their limit of {limit}; try again later, or elsewhere")
        self.target = target
        self.limit = limit


class MessageTooLarge(MeshError):
    """A message to be sent is above the bound; it was not sent and the stream or channel stays usable."""

    def __init__(self, path: str, size_bytes: int, size_bytes_max: int) -> None:
        super().__init__(f"message of {size_bytes} bytes on {path} is above the bound of {size_bytes_max} bytes")
        self.path = path
        self.size_bytes = size_bytes
        self.size_bytes_max = size_bytes_max


class ChannelClosed(MeshError):
    """This process closed the channel, cancelled the stream or ended its sending side before the call."""

    def __init__(self, peer: str, what: str) -> None:
        super().__init__(f"{what} with {peer} was closed by this process")
        self.peer = peer


class ConfigError(Exception):
    """A setting can't be used. The text names it, where it came from, what is wrong and what may have been meant.

    `key` is the name as it was written, `origin` a file with line or key, a variable or a flag.
    """

    def __init__(self, key: str, problem: str, *, origin: str | None = None, nearest: str | None = None) -> None:
        text = f"{key} {problem}"
        if nearest is not None:
            text += f"; did you mean {nearest}?"
        if origin is not None:
            text += f" [{origin}]"
        super().__init__(text)
        self.key = key
        self.problem = problem
        self.origin = origin
        self.nearest = nearest


class LifecycleError(Exception):
    """Component `component` did not start or stop as it should."""

    def __init__(self, component: str, problem: str) -> None:
        super().__init__(f"{component} {problem}")
        self.component = component
        self.problem = problem
