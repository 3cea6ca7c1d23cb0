"""When a send is tried again, and how long after."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from apogeemq.client_remoting.core.pull_schedule import BACKOFF_FIRST_S, BACKOFF_MAX_S
from apogeemq.client_remoting.core.refusals import RETRIED_ELSEWHERE

RETRIES_DEFAULT: Final = 2
"""As Apache's retryTimesWhenSendFailed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRetry:
    """A producer's policy; the whole send, waits included, still ends within its `timeout_s`.

    Args:
        retries: attempts after the first one; 0 or more. One that reached no broker does not count.
        refusals: response codes after which another broker is tried. A code that a broker gives for a message which it
            has stored (10, 11, 12) stores it twice when it stands here, as Java's retryAnotherBrokerWhenNotStoreOK.
        after_lost_connection: whether to try again when the connection was lost before the answer; the message may be
            stored twice then.
        wait_first_s: before a broker that is overloaded or closing is followed by the next attempt; twice as long after
            each further one. Above 0.
        wait_max_s: the longest such wait, not below `wait_first_s`.

    Raises ValueError, which names the argument.
    """

    retries: int = RETRIES_DEFAULT
    refusals: AbstractSet[int] = RETRIED_ELSEWHERE
    after_lost_connection: bool = True
    wait_first_s: float = BACKOFF_FIRST_S
    wait_max_s: float = BACKOFF_MAX_S

    def __post_init__(self) -> None:
        """Refuse what is no policy."""
        if self.retries < 0:
            raise ValueError(f"retries is {self.retries}; it must be 0 or more")
        if not 0 < self.wait_first_s <= self.wait_max_s:
            raise ValueError(
                f"wait_first_s is {self.wait_first_s:g} and wait_max_s {self.wait_max_s:g}; "
                "the first must be above 0 and not above the second"
            )

    def wait_s(self, attempts: int, chance: float) -> float:
        """Seconds after the n-th attempt (from 1) was refused; `chance` in [0, 1) spreads clients by up to half."""
        wait_s = min(self.wait_first_s * 2.0 ** min(attempts - 1, 16), self.wait_max_s)
        return wait_s * (0.5 + chance / 2)
