"""Messages for any millisecond: what their properties say about when they are due.

A message asks by TIMER_DELAY_SEC, TIMER_DELAY_MS or TIMER_DELIVER_MS, in this order. It waits in the queue
rmq_sys_wheel_timer 0, with its real topic and queue in properties and with TIMER_OUT_MS: the slot of Java's wheel, a
second that lies wholly before its time (an exact multiple goes one slot earlier). The exact time stands beside it in a
property of ours. Source: reference broker_behaviour.md §3; ADR 0016.
"""

import re
from collections.abc import Mapping

from apogeemq.remoting_codec import message as m
from apogeemq.store.delivery_times import PROPERTY_DUE_MS

SLOT_MS = 1_000
"""timerPrecisionMs of Apache's."""
TIMER_KEYS = frozenset({m.PROPERTY_TIMER_DELAY_SEC, m.PROPERTY_TIMER_DELAY_MS, m.PROPERTY_TIMER_DELIVER_MS})

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")


def asked_deliver_ms(properties: Mapping[str, str], now_ms: int) -> int:
    """When a message with one of TIMER_KEYS wants to be delivered; perhaps in the past.

    Errors: ValueError naming the property that is no whole number.
    """
    for key, factor in ((m.PROPERTY_TIMER_DELAY_SEC, 1_000), (m.PROPERTY_TIMER_DELAY_MS, 1)):
        if key in properties:
            return now_ms + factor * _whole_number(key, properties[key])
    return _whole_number(m.PROPERTY_TIMER_DELIVER_MS, properties[m.PROPERTY_TIMER_DELIVER_MS])


def slot_ms(deliver_ms: int) -> int:
    """TIMER_OUT_MS of a message that is due then."""
    return (deliver_ms - 1) // SLOT_MS * SLOT_MS


def stored_deliver_ms(properties: Mapping[str, str]) -> int:
    """The first millisecond at which a stored timer message may be delivered.

    Exact where a property says it that agrees with the slot; else the end of the slot: at most a second late, never
    early. Errors: LookupError when there is no slot.
    """
    out_ms = properties.get(m.PROPERTY_TIMER_OUT_MS, "")
    if not _WHOLE_NUMBER.fullmatch(out_ms):
        raise LookupError("it does not say when it is due (TIMER_OUT_MS)")
    for key in (PROPERTY_DUE_MS, m.PROPERTY_TIMER_DELIVER_MS):
        exact_ms = properties.get(key, "")
        if _WHOLE_NUMBER.fullmatch(exact_ms) and slot_ms(int(exact_ms)) == int(out_ms):
            return int(exact_ms)
    return int(out_ms) + SLOT_MS


def recalled(properties: Mapping[str, str]) -> tuple[str, str] | None:
    """(topic, unique key) of the message that a stored timer message takes back; None for an ordinary one.

    Brokers write "topic+unique key" into TIMER_DEL_UNIQKEY, older clients the key alone: then the topic is its own.
    """
    name = properties.get(m.PROPERTY_TIMER_DEL_UNIQKEY)
    if name is None:
        return None
    topic = properties.get(m.PROPERTY_REAL_TOPIC, "")
    return topic, name.removeprefix(f"{topic}+")


def _whole_number(key: str, text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise ValueError(f"property {key} must be a whole number, not {text[:50]!r}")
    return int(text)
