"""What may go out of a queue without breaking an order, held against a list that knows no better."""

from dataclasses import dataclass, field

from apogeemq.broker.core.order_events import (
    Moved,
    Popped,
    Settled,
    Timed,
    decode_order_event,
    encode_order_event,
)
from apogeemq.broker.core.order_infos import order_info, queue_order
from apogeemq.broker.core.pop_orders import EVERY_ORDER, WINDOW, PopOrders, QueueOrder
from apogeemq.remoting_codec.bodies import ConsumerOrderInfoWrapper, OrderInfo
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

KEY = ("G", "T", 0)
INVISIBLE_MS = 100
GROUPS = ("", "A", "B", "C")


@dataclass
class Copy:
    """One message, as the twin sees it."""

    order: str
    popped_at: int = 0
    visible_ms: int = 0
    times: int = 0
    is_done: bool = False


@dataclass
class Twin:
    """Does by looking at everything what QueueOrder does by keeping books."""

    messages: list[Copy] = field(default_factory=list)

    def may_go(self, count_max: int, per_group_max: int, now_ms: int) -> list[int]:
        found: list[int] = []
        for offset, message in enumerate(self.messages):
            same = [each for each in self.messages if each.order == message.order and not each.is_done]
            in_hand = any(each.times and each.visible_ms > now_ms for each in same)
            before = sum(self.messages[each].order == message.order for each in found)
            is_full = message.order != "" and before == per_group_max
            if not message.is_done and not in_hand and not is_full and len(found) < count_max:
                found.append(offset)
        return found


class Queue(RuleBasedStateMachine):
    """Messages come, go out, are done with, get other times; now and then all is read back from what was written."""

    @initialize(per_group_max=st.integers(1, 3))
    def begin(self, per_group_max: int) -> None:
        self.per_group_max = per_group_max
        self.twin = Twin()
        self.orders = PopOrders()
        self.orders.begin(KEY, 0)
        self.events: list[tuple[str, bytes]] = []
        self.saved = ConsumerOrderInfoWrapper(table={})
        self.saved_at = 0
        self.now_ms = 1_000
        self.pop_time_ms = 0

    @property
    def queue(self) -> QueueOrder:
        found = self.orders.get(KEY)
        assert found is not None
        return found

    def write(self, event: Popped | Settled | Timed | Moved) -> None:
        self.events.append(encode_order_event(event))
        self.orders.apply(event)

    @rule(groups=st.lists(st.sampled_from(GROUPS), min_size=1, max_size=8))
    def send(self, groups: list[str]) -> None:
        self.twin.messages += [Copy(group) for group in groups]

    @rule(ms=st.integers(1, 150))
    def wait(self, ms: int) -> None:
        self.now_ms += ms

    @rule(count_max=st.integers(1, 6), attempt=st.sampled_from(["", "x", "y"]))
    def pop(self, count_max: int, attempt: str) -> None:
        self.look()
        chosen = self.queue.choose(count_max, self.per_group_max, self.now_ms)
        assert chosen == self.twin.may_go(count_max, self.per_group_max, self.now_ms)
        if not chosen:
            return
        self.pop_time_ms = max(self.now_ms, self.pop_time_ms + 1)
        visible_ms = self.pop_time_ms + INVISIBLE_MS
        for offset in chosen:
            message = self.twin.messages[offset]
            message.popped_at, message.visible_ms, message.times = self.pop_time_ms, visible_ms, message.times + 1
        messages = tuple((offset, self.queue.order_of(offset), self.queue.times_of(offset) + 1) for offset in chosen)
        self.write(
            Popped(
                key=KEY,
                floor=self.queue.floor,
                pop_time_ms=self.pop_time_ms,
                visible_ms=visible_ms,
                attempt_id=attempt,
                messages=messages,
            )
        )
        if attempt:
            assert set(chosen) <= set(self.queue.of_attempt(attempt, self.now_ms))

    def some(self, data: st.DataObject) -> list[int]:
        out = [offset for offset, message in enumerate(self.twin.messages) if message.times]
        return data.draw(st.lists(st.sampled_from(out), max_size=4)) if out else []

    @rule(data=st.data(), is_late=st.booleans())
    def ack(self, data: st.DataObject, is_late: bool) -> None:
        for offset in self.some(data):
            message = self.twin.messages[offset]
            pop_time_ms = message.popped_at - is_late
            if not is_late:
                message.is_done = True
            self.write(Settled(key=KEY, floor=self.queue.floor, pop_time_ms=pop_time_ms, offsets=(offset,)))

    @rule(data=st.data(), more_ms=st.integers(0, 300))
    def change(self, data: st.DataObject, more_ms: int) -> None:
        for offset in self.some(data):
            message = self.twin.messages[offset]
            if not message.is_done:
                message.visible_ms = self.now_ms + more_ms
            self.write(
                Timed(
                    key=KEY,
                    floor=self.queue.floor,
                    pop_time_ms=message.popped_at,
                    offsets=(offset,),
                    visible_ms=self.now_ms + more_ms,
                )
            )

    @rule(lag=st.integers(0, 3))
    def save(self, lag: int) -> None:
        """The file may say of a place in the log that is older than what it holds."""
        self.saved = ConsumerOrderInfoWrapper(table={"T@G": {0: order_info(self.queue)}})
        self.saved_at = max(self.saved_at, len(self.events) - lag)

    @rule()
    def start_anew(self) -> None:
        """The file, as it is read back, and the events since."""
        self.orders = PopOrders()
        for info in ConsumerOrderInfoWrapper.decode(self.saved.encode()).table.get("T@G", {}).values():
            self.orders.load(KEY, queue_order(info))
        for tag, body in self.events[self.saved_at :]:
            self.orders.apply(decode_order_event(tag, body))
        end = len(self.twin.messages)
        self.orders.restart(lambda *_: 0, lambda *_: end)
        self.orders.begin(KEY, 0)

    def look(self) -> None:
        for offset in range(self.queue.looked, len(self.twin.messages)):
            self.queue.look(offset, self.twin.messages[offset].order)

    @invariant()
    def the_position_is_the_first_that_is_not_done(self) -> None:
        undone = [offset for offset, message in enumerate(self.twin.messages) if not message.is_done]
        assert self.queue.floor == (undone[0] if undone else len(self.twin.messages))

    @invariant()
    def what_is_in_hand_is_counted(self) -> None:
        in_hand = sum(message.times > 0 and not message.is_done for message in self.twin.messages)
        assert len(self.orders) == len(self.queue.held) == in_hand


TestQueue = Queue.TestCase


def test_an_order_that_stands_still_holds_back_what_lies_a_window_beyond() -> None:
    """The number of messages that are looked at is bounded; nothing is skipped."""
    queue = QueueOrder(5)
    for offset in range(5, 5 + WINDOW):
        assert queue.has_room
        queue.look(offset, "A")
    assert not queue.has_room


def test_what_a_filter_leaves_out_is_passed_over() -> None:
    """A gap between messages that are wanted needs nobody's acknowledgement."""
    queue = QueueOrder(0)
    queue.look(2, "A")
    assert (queue.floor, queue.choose(8, 1, 0)) == (2, [2])
    queue.pass_over(9)
    assert (queue.floor, queue.looked) == (2, 9)


def test_a_position_that_was_set_forgets_what_is_in_hand() -> None:
    """An operator's word: the queue begins there."""
    orders = PopOrders()
    popped = Popped(key=KEY, floor=3, pop_time_ms=10, visible_ms=20, attempt_id="", messages=((3, "A", 1), (4, "", 1)))
    orders.apply(popped)
    assert len(orders) == 2
    queue = orders.apply(Moved(key=KEY, floor=1))
    assert (len(orders), queue.floor, queue.held) == (0, 1, {})


def test_a_file_of_apaches_blocks_the_whole_queue() -> None:
    """It does not tell message groups: until what it names is done with, or its time is over, nothing else goes out."""
    info = OrderInfo(pop_time=1_000, i=500, o=[7, 1, 2], ot={9: 2_000}, oc={9: 2}, cm=0b001, a="x")
    queue = queue_order(info)
    assert (queue.floor, sorted(queue.held)) == (8, [8, 9])
    assert {held.order for held in queue.held.values()} == {EVERY_ORDER}
    assert [queue.times_of(offset) for offset in (8, 9)] == [1, 3]
    queue.looked = 10
    queue.look(10, "A")
    assert queue.choose(8, 1, 1_600) == []
    assert queue.choose(8, 1, 2_000) == [8]
    assert queue.of_attempt("x", 1_600) == [9]


def test_what_we_write_says_in_apaches_fields_what_is_so() -> None:
    """Distances from the first offset, a bit for each that is done, when others are visible, how often they went."""
    orders = PopOrders()
    messages = ((4, "A", 1), (5, "B", 1), (6, "C", 2))
    orders.apply(Popped(key=KEY, floor=4, pop_time_ms=100, visible_ms=160, attempt_id="x", messages=messages))
    queue = orders.apply(Settled(key=KEY, floor=4, pop_time_ms=100, offsets=(5,)))
    info = order_info(queue)
    assert (info.pop_time, info.i, info.o, info.cm, info.a) == (100, 60, [4, 1, 2], 0b010, "x")
    assert (info.ot, info.oc) == ({4: 160, 6: 160}, {6: 1})
