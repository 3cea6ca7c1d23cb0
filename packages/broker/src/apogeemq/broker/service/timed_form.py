"""What a message looks like while it waits for its millisecond in rmq_sys_wheel_timer, and which may wait at all."""

from collections.abc import Callable, Mapping

from apogeemq.broker.core.timed import asked_deliver_ms, slot_ms
from apogeemq.broker.errors import MessageIllegal, RequestFailed, SystemBusy
from apogeemq.remoting_codec import message as m
from apogeemq.store.delivery_times import PROPERTY_DUE_MS
from apogeemq.store.errors import MessageInvalid, TooManyTimers
from apogeemq.store.timer_store import TimerStore


class TimedForm:
    """Checks messages with TIMER_… and makes the properties of those that wait.

    Args:
        timer: knows the horizon, and how many may wait.
        now_ms: wall time.
        is_enabled: whether such messages are taken (timerWheelEnable).
    """

    def __init__(self, *, timer: TimerStore, now_ms: Callable[[], int], is_enabled: bool) -> None:
        self._timer = timer
        self._now_ms = now_ms
        self._is_enabled = is_enabled

    def properties(self, properties: Mapping[str, str], topic: str, queue_id: int) -> dict[str, str] | None:
        """Those of a message that goes to a queue of a topic when its time comes; None: it has come, send it now.

        Errors: RequestFailed where timers are off; MessageIllegal for a time that can't be read or is beyond the
        horizon, and for a recall that comes too late; SystemBusy while as many wait as may.
        """
        if not self._is_enabled:
            raise RequestFailed("accurate timer message is not enabled, timerWheelEnable is false")
        now_ms = self._now_ms()
        try:
            deliver_ms = asked_deliver_ms(properties, now_ms)
        except ValueError as error:
            raise MessageIllegal(str(error)) from error
        if deliver_ms <= now_ms:
            if m.PROPERTY_TIMER_DEL_UNIQKEY in properties:
                raise MessageIllegal("timer message illegal, a message that is due now can't be recalled any more")
            return None
        try:
            self._timer.check_time(deliver_ms, now_ms)
        except MessageInvalid as error:
            raise MessageIllegal(f"timer message illegal, {error}", limit="timers.timer_max_delay_sec") from error
        except TooManyTimers as error:
            raise SystemBusy(f"timer message is under flow control, {error}", limit="pending timers") from error
        return {
            **properties,
            m.PROPERTY_TIMER_OUT_MS: str(slot_ms(deliver_ms)),
            m.PROPERTY_REAL_TOPIC: topic,
            m.PROPERTY_REAL_QID: str(queue_id),
            PROPERTY_DUE_MS: str(deliver_ms),
        }
