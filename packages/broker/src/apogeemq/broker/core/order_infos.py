"""Queues that are popped in order ↔ their entries in config/consumerOrderInfo.json.

Java's fields hold what Java can know: one list of offsets, which are acknowledged, when the others are visible. So an
Apache broker that takes the directory over keeps blocking what is in hand. Our own field has the rest, and comes first;
Java drops it when it writes the file, and then its fields say what is so.
Source: Apache ConsumerOrderInfoManager.OrderInfo 5.3; reference json_bodies.tsv.
"""

from apogeemq.broker.core.pop_orders import EVERY_ORDER, Held, QueueOrder
from apogeemq.remoting_codec.bodies import OrderedQueue, OrderInfo

OFFSETS_MAX = 63
"""Of Java's list: it has a bit for each in one signed long."""


def order_info(queue: QueueOrder) -> OrderInfo:
    """The entry of a queue."""
    held = queue.held
    own = OrderedQueue(
        floor=queue.floor,
        held=[
            (offset, each.order, each.pop_time_ms, each.visible_ms, each.times, each.attempt_id)
            for offset, each in sorted(held.items())
        ],
        acked=sorted(queue.acked),
    )
    if not held:
        return OrderInfo(ordered_queue=own)
    offsets = sorted([*held, *queue.acked])[:OFFSETS_MAX]
    last = max(held.values(), key=lambda each: each.pop_time_ms)
    return OrderInfo(
        pop_time=last.pop_time_ms,
        i=last.visible_ms - last.pop_time_ms,
        o=[offsets[0], *(offset - offsets[0] for offset in offsets[1:])],
        ot={offset: held[offset].visible_ms for offset in offsets if offset in held},
        oc={offset: held[offset].times - 1 for offset in offsets if offset in held and held[offset].times > 1},
        l=last.pop_time_ms,
        cm=sum(1 << index for index, offset in enumerate(offsets) if offset in queue.acked),
        a=last.attempt_id or None,
        ordered_queue=own,
    )


def queue_order(info: OrderInfo) -> QueueOrder:
    """The queue of an entry."""
    own = info.ordered_queue
    if own is not None:
        held = {
            offset: Held(order, pop_time_ms, visible_ms, times, attempt_id)
            for offset, order, pop_time_ms, visible_ms, times, attempt_id in own.held
        }
        return QueueOrder(own.floor, held=held, acked=set(own.acked))
    first = info.o[0] if info.o else 0
    offsets = [first, *(first + distance for distance in info.o[1:])] if info.o else []
    acked = {offset for index, offset in enumerate(offsets) if info.cm >> index & 1}
    queue = QueueOrder(first, acked=acked)
    for offset in offsets:
        if offset not in acked:
            visible_ms = info.ot.get(offset, info.pop_time + (info.i or 0))
            times = info.oc.get(offset, 0) + 1
            queue.held[offset] = Held(EVERY_ORDER, info.pop_time, visible_ms, times, info.a or "")
    queue.advance()
    return queue
