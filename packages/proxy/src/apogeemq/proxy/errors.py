"""What a client is told when its request can't be done.

    ProxyError    an answer's Status: one of the API's codes and a text that names the field and says what to do
    ├── MasterAway    the broker set has no master that can be asked now; nothing was done, another one soon follows
    └── AnswerLost    the way to the broker broke before its answer; whether it was done is not known

The face turns it into the response's Status; on a Telemetry stream it ends the stream. Nothing else that goes wrong may
reach a client: what the brokers and the mesh raise becomes a ProxyError in core/status.py.
"""

from __future__ import annotations


class ProxyError(Exception):
    """A request that is refused.

    `code` is a number of apache.rocketmq.v2.Code, never OK; `message` says what was wrong, where, and what to do.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class MasterAway(ProxyError):  # noqa: N818 — a fact, like the mesh's errors
    """Nobody was asked: the master can't be reached, or says that it is none now. Nothing was stored or changed."""


class AnswerLost(ProxyError):  # noqa: N818 — the same
    """A broker was asked and can't answer any more: its stream broke, or leads to a former master and was closed."""
