"""What a broker refuses, and why.

BrokerError (code, remark)
├── TopicNotExist            17   no such topic, and it may not be made
├── NoPermission             16   permission bits, system topics, kinds of messages that are switched off
├── MessageIllegal           13   a size, a property or a name that no retry will mend
├── InvalidParameter         29   a queue id out of range, an illegal topic text
├── SubscriptionGroupNotExist 26  no such group, and it may not be made
├── SubscriptionNotExist     24   the group has no live consumer, or none that subscribes to this topic
├── SubscriptionNotLatest    25   the broker knows an older subscription than the pull carries
├── SubscriptionParseFailed  23   a filter expression that can't be read
├── QueryNotFound            22   no committed offset
├── ConsumerNotOnline       206   the group has no live consumer to be told something
├── ConsumerTimeout         207   a client did not answer a question that was passed on to it
├── NoMessage               208   a queue that has no such message
├── PollingFull             209   as many pops wait as may
├── PollingTimeout          210   nothing to pop came in time
├── SystemBusy                2   a limit is reached; the client may try again, here or elsewhere
├── FlowControl             215   as many pulls wait as may; the client pulls again in a moment
├── IllegalOperation        604   a recall of what this broker does not keep, or keeps no longer
├── ServiceNotAvailable      14   the store takes no writes now
├── InSyncReplicasNotEnough   1   the SyncStateSet is smaller than the settings ask for
├── RequestNotSupported       3   nothing serves this request
├── TransactionNotFound       1   an end of a transaction that names no pending half message
└── RequestFailed             1   anything else, in words (Apache's SYSTEM_ERROR)

Services raise these; the faces turn them into replies. Remarks follow Apache's words where clients or people look for
them.
"""

# ruff: noqa: N818 — each name says what happened, most in Apache's words; the word Error would only repeat the root

from typing import ClassVar

from apogeemq.remoting_codec.codes import ResponseCode


class BrokerError(Exception):
    """A request is refused. `code` is Apache's response code; `str(error)` is the remark that the client gets."""

    code: ClassVar[ResponseCode] = ResponseCode.SYSTEM_ERROR

    def __init__(self, remark: str = "", *, limit: str | None = None) -> None:
        super().__init__(remark)
        self.limit = limit
        """The setting, or the name of the fixed bound, whose limit this is; refusals are counted by it."""

    @property
    def remark(self) -> str:
        """The sentence for the client: what was wrong, where, and what to do."""
        return str(self)


class TopicNotExist(BrokerError):
    """The topic is unknown here and may not be made."""

    code = ResponseCode.TOPIC_NOT_EXIST


class NoPermission(BrokerError):
    """The broker, the topic or the group does not allow it."""

    code = ResponseCode.NO_PERMISSION


class MessageIllegal(BrokerError):
    """The message itself can't be taken, now or later."""

    code = ResponseCode.MESSAGE_ILLEGAL


class InvalidParameter(BrokerError):
    """A parameter is outside its range."""

    code = ResponseCode.INVALID_PARAMETER


class SubscriptionGroupNotExist(BrokerError):
    """The consumer group is unknown here and may not be made."""

    code = ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST


class SubscriptionNotExist(BrokerError):
    """No live member of the group subscribes to the topic."""

    code = ResponseCode.SUBSCRIPTION_NOT_EXIST


class SubscriptionNotLatest(BrokerError):
    """The broker's subscription is older than the one that the client pulls with."""

    code = ResponseCode.SUBSCRIPTION_NOT_LATEST


class SubscriptionParseFailed(BrokerError):
    """The filter expression can't be read."""

    code = ResponseCode.SUBSCRIPTION_PARSE_FAILED


class QueryNotFound(BrokerError):
    """Nothing is committed for this group and queue."""

    code = ResponseCode.QUERY_NOT_FOUND


class ConsumerNotOnline(BrokerError):
    """Nobody of the group is there to be told."""

    code = ResponseCode.CONSUMER_NOT_ONLINE


class ConsumerTimeout(BrokerError):
    """A client did not answer in time what the broker asked it for somebody."""

    code = ResponseCode.CONSUME_MSG_TIMEOUT


class NoMessage(BrokerError):
    """The queue has no such message, and never had."""

    code = ResponseCode.NO_MESSAGE


class PollingFull(BrokerError):
    """A pop found nothing, and as many wait already as may."""

    code = ResponseCode.POLLING_FULL


class PollingTimeout(BrokerError):
    """A pop found nothing in its poll time."""

    code = ResponseCode.POLLING_TIMEOUT


class SystemBusy(BrokerError):
    """A limit is reached. The remark names it with its value; the client may try again, here or at another broker."""

    code = ResponseCode.SYSTEM_BUSY


class FlowControl(BrokerError):
    """A pull found nothing, and as many wait already as may. Clients pull again: Java's in 20 ms, others in 3 s."""

    code = ResponseCode.FLOW_CONTROL


class IllegalOperation(BrokerError):
    """A recall handle that is none, is another broker's or topic's, or whose message is due already."""

    code = ResponseCode.ILLEGAL_OPERATION


class ServiceNotAvailable(BrokerError):
    """The store takes no writes: full disk, failed disk, or closing."""

    code = ResponseCode.SERVICE_NOT_AVAILABLE


class InSyncReplicasNotEnough(BrokerError):
    """Too few replicas hold the log: nothing is stored, the client may try another broker."""

    code = ResponseCode.SYSTEM_ERROR


class RequestNotSupported(BrokerError):
    """Nothing here serves this request."""

    code = ResponseCode.REQUEST_CODE_NOT_SUPPORTED


class RequestFailed(BrokerError):
    """Anything else, in words."""

    code = ResponseCode.SYSTEM_ERROR


class TransactionNotFound(RequestFailed):
    """No pending transaction is what its producer names; Apache's broker has no code of its own for that."""
