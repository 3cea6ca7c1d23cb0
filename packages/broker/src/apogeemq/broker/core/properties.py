"""What the broker adds to the properties of a message that comes in, and what it takes away.

Added: MSG_REGION, TRACE_ON and CLUSTER (clients see them when they pull), UNIQ_KEY where the producer gave none.
Taken away: POP_CK, and the same keys when a consumer sends on a message that it got. Source: remoting.md §5.3.
"""

from collections.abc import Mapping

from apogeemq.remoting_codec import message as m
from apogeemq.remoting_codec.message import decode_properties

_REPLACED = frozenset({m.PROPERTY_MSG_REGION, m.PROPERTY_TRACE_ON, m.PROPERTY_CLUSTER, m.PROPERTY_POP_CK})


def read_properties(text: str) -> dict[str, str]:
    """The properties of a send header as a dict. The common case is one split and one dict call.

    Agrees with `decode_properties`, which serves whatever is not of the plain form.
    """
    try:
        items: dict[str, str] = dict([item.split("\x01") for item in text.split("\x02") if item])
    except ValueError:
        return decode_properties(text)
    if "" in items or "" in items.values():
        return decode_properties(text)
    return items


def join_properties(properties: Mapping[str, str]) -> str:
    """The flat text of properties that were read from one; never fails on what a reader gave.

    Unlike `encode_properties` it lets a value hold 0x01, as peers may send: what came in must also go out.
    """
    return "".join(f"{key}\x01{value}\x02" for key, value in properties.items())


def encode_or_keep(properties: dict[str, str], stored: bytes) -> bytes:
    """The properties as bytes, or those that are stored already where the longer ones would not fit a record."""
    encoded = join_properties(properties).encode()
    return encoded if len(encoded) <= m.PROPERTIES_SIZE_BYTES_MAX else stored


class BrokerProperties:
    """Adds this broker's properties to the ones that arrive.

    Args:
        region: MSG_REGION (regionId).
        cluster: CLUSTER (brokerClusterName).
        trace_on: TRACE_ON: whether clients' trace hooks may report.
    """

    def __init__(self, *, region: str, cluster: str, trace_on: bool) -> None:
        self._added = (
            f"{m.PROPERTY_MSG_REGION}\x01{region}\x02"
            f"{m.PROPERTY_TRACE_ON}\x01{'true' if trace_on else 'false'}\x02"
            f"{m.PROPERTY_CLUSTER}\x01{cluster}\x02"
        )

    def complete(self, text: str, properties: dict[str, str], unique_key: str | None = None) -> bytes:
        """The bytes to store: `text` (whose dict is `properties`), with what the broker adds.

        `unique_key` is added when given: the producer sent none. Plain texts are only appended to, never rebuilt.
        Raises UnicodeEncodeError for a text with a lone surrogate.
        """
        added = self._added
        if unique_key is not None:
            added = f"{m.PROPERTY_UNIQ_KEY}\x01{unique_key}\x02{added}"
        if not _REPLACED.isdisjoint(properties):
            text = join_properties({key: value for key, value in properties.items() if key not in _REPLACED})
        elif text and text[-1] != "\x02":
            # Apache 4.9.8 strips the last separator (trap 9).
            text += "\x02"
        return (text + added).encode()
