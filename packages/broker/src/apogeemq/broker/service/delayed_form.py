"""What a message looks like while it waits for a delay level in SCHEDULE_TOPIC_XXXX, however it came there."""

from collections.abc import Callable, Mapping

from apogeemq.broker.core.delay import DelayLevels
from apogeemq.remoting_codec import message as m
from apogeemq.store.delivery_times import PROPERTY_DUE_MS


class DelayedForm:
    """Makes the properties of delayed messages.

    The store derives from them when the message is due: its level's time after the store timestamp. That does not go
    back with the clock. While the clock is behind it, the due time stands in a property of its own, so that nobody
    waits for the hours that the clock was set back.
    """

    def __init__(
        self, *, levels: DelayLevels, now_ms: Callable[[], int], store_timestamp_ms: Callable[[], int]
    ) -> None:
        """`store_timestamp_ms`: of the last record in the log."""
        self._levels = levels
        self._now_ms = now_ms
        self._store_timestamp_ms = store_timestamp_ms

    def properties(self, properties: Mapping[str, str], topic: str, queue_id: int, level: int) -> dict[str, str]:
        """Those of a message that goes to a queue of a topic when its level is over; `level` from 1 on."""
        # Not those of an earlier delay, which a consumer that sends a message on may have left there.
        delayed = {
            **properties,
            m.PROPERTY_DELAY: str(level),
            m.PROPERTY_REAL_TOPIC: topic,
            m.PROPERTY_REAL_QID: str(queue_id),
        }
        delayed.pop(PROPERTY_DUE_MS, None)
        now_ms = self._now_ms()
        if now_ms < self._store_timestamp_ms():
            delayed[PROPERTY_DUE_MS] = str(now_ms + self._levels.delay_ms(level))
        return delayed
