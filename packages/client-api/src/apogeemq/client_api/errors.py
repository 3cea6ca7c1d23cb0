"""Errors of both clients, one tree.

```
ClientError                     what every error of a client has: what, where, after how many attempts, what to do
├── MessageInvalid(field)       you: a message that no server can take; nothing was sent      (also a ValueError)
├── PayloadInvalid              a body that a typed topic's codec cannot read                 (also a ValueError)
├── ClientClosed                you: the client is closed, or was never started
├── NotSupported                you: this client cannot do that (yet); the hint says what can
├── LimitReached                you: as much as a client may hold is under way; some has to end first
├── TransactionEnded            you: the transaction was committed or rolled back before, or never began
├── StartFailed                 the world: the client could not start within its deadline
├── ConnectionBroken            the world: the connection went away; the outcome of what was under way is unknown
├── RouteNotFound(topic)        no server serves the topic
├── SendTimeout                 no answer in time; the message may have been stored
├── ReplyTimeout                the world: a request was sent, and no reply came in time
├── SendFailed(code, remark)    a server refused the message, and no other took it
├── EndTransactionFailed(…)     a server refused a commit or a rollback: the checker will be asked
├── RecallFailed(code, remark)  a server did not take a delayed message back
├── ReceiveFailed(code, remark) a server refused to hand out messages
└── SettleFailed(code, remark)  a server refused an ack, a retry or a commit: the message will come again
```
"You" errors are mistakes of the program and never worth a retry; "the world" ones may be gone next time.
"""

# ruff: noqa: N818 — each name says what happened; the word Error would only repeat what the root says


class ClientError(Exception):
    """Root of everything that a client raises on purpose.

    Args:
        text: what was wrong, in one sentence.
        code: the response or status code of the server that refused; None when none answered.
        code_name: what RocketMQ calls that code, such as TOPIC_NOT_EXIST; also the `error.type` of spans.
        broker: broker name or server address that the last attempt went to; None when it came to none.
        attempts: how many attempts were made, 0 when none was.
        elapsed_s: seconds from the call to the error.
        hint: what to do next, in one sentence; may be empty.
    """

    def __init__(
        self,
        text: str,
        *,
        code: int | None = None,
        code_name: str | None = None,
        broker: str | None = None,
        attempts: int = 0,
        elapsed_s: float = 0.0,
        hint: str = "",
    ) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.code_name = code_name
        self.broker = broker
        self.attempts = attempts
        self.elapsed_s = elapsed_s
        self.hint = hint

    def __str__(self) -> str:
        """The sentence, the facts in brackets, the hint: `cannot … (code 14, broker b, 3 attempts, 0.21 s). Hint.`"""
        facts = []
        if self.code is not None:
            facts.append(f"code {self.code} {self.code_name or ''}".rstrip())
        if self.broker is not None:
            facts.append(f"broker {self.broker}")
        if self.attempts:
            facts.append(f"{self.attempts} attempt{'s' if self.attempts > 1 else ''}, {self.elapsed_s:.2f} s")
        text = f"{self.text} ({', '.join(facts)})" if facts else self.text
        return f"{text}. {self.hint}" if self.hint else text


class MessageInvalid(ClientError, ValueError):
    """A message that no server can take; nothing was sent. `field` is the name of the argument at fault."""

    def __init__(self, field: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"the message's {field} {reason}", hint=hint)
        self.field = field


class PayloadInvalid(ClientError, ValueError):
    """A body that the codec of a typed topic cannot read, or a payload that it cannot write.

    A consumer rejects a message whose handler ends so: another attempt would read the same bytes.
    """


class ClientClosed(ClientError):
    """The client is closed, closing, or was not started with `async with`."""


class NotSupported(ClientError):
    """The client at hand cannot do what was asked for."""


class LimitReached(ClientError):
    """The client holds as much of this kind as it may: wait until some of it has ended."""


class TransactionEnded(ClientError):
    """The transaction is not pending: it was committed or rolled back before, or has not begun."""


class StartFailed(ClientError):
    """The client could not start within its deadline."""


class ConnectionBroken(ClientError):
    """The connection went away, or could not be opened. What was under way may or may not have happened."""


class RouteNotFound(ClientError):
    """No server serves the topic. `topic` is its name."""

    def __init__(
        self,
        topic: str,
        text: str,
        *,
        code: int | None = None,
        code_name: str | None = None,
        broker: str | None = None,
        attempts: int = 0,
        elapsed_s: float = 0.0,
        hint: str = "",
    ) -> None:
        super().__init__(
            text, code=code, code_name=code_name, broker=broker, attempts=attempts, elapsed_s=elapsed_s, hint=hint
        )
        self.topic = topic


class SendTimeout(ClientError):
    """No answer came in time. The message may have been stored: sending it again may store it twice."""


class ReplyTimeout(ClientError):
    """A request was sent and no reply came in time. It may still be handled."""


class Refused(ClientError):
    """A server answered with another code than success. `remark` is its explanation, perhaps empty."""

    def __init__(
        self,
        text: str,
        *,
        code: int,
        code_name: str | None = None,
        remark: str = "",
        broker: str | None = None,
        attempts: int = 0,
        elapsed_s: float = 0.0,
        hint: str = "",
    ) -> None:
        super().__init__(
            f"{text}: {remark}" if remark else text,
            code=code,
            code_name=code_name,
            broker=broker,
            attempts=attempts,
            elapsed_s=elapsed_s,
            hint=hint,
        )
        self.remark = remark


class SendFailed(Refused):
    """A server refused the message and no other took it."""


class EndTransactionFailed(Refused):
    """A server refused to commit or to roll back. The message stays pending, and the checker is asked about it."""


class RecallFailed(Refused):
    """A server did not take a delayed message back: it is, or will be, delivered."""


class ReceiveFailed(Refused):
    """A server refused to hand out messages."""


class SettleFailed(Refused):
    """A server refused an ack, a retry or a commit. The message stays unsettled and will be delivered again."""
