"""Popping: messages are handed out for a time, by the broker's own cursor, to whoever asks first.

A pop reads on from the group's committed offset in each queue, writes a checkpoint into the revive log, and moves the
offset. Acknowledging, changing and extending write further records there. What happens to a message whose time is over
is `revive`'s matter. Nothing here waits; `pop_waits` does.

The order of the steps makes a crash harmless: nothing is handed out without its checkpoint in the log, and the offset
follows the checkpoint, so that what is popped can't be forgotten, and a replay of the checkpoints brings the offset up.
Source: reference broker_behaviour.md §8; traps 24.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from apogeemq.broker.core.consumer_offsets import ConsumerOffsetTable
from apogeemq.broker.core.names import RETRY_TOPIC_PREFIX
from apogeemq.broker.core.pop import (
    ORDER_REVIVE_QUEUE_ID,
    POP_MESSAGES_MAX,
    Changed,
    HandleResult,
    InitMode,
    PopHandle,
    Popped,
    PoppedRun,
    PopRequest,
    RetryMark,
    pop_retry_topic,
)
from apogeemq.broker.core.pop_table import Checkpoint, QueueKey
from apogeemq.broker.core.subscription_groups import SubscriptionGroupTable
from apogeemq.broker.core.topics import PERM_READ, Topic, TopicTable
from apogeemq.broker.errors import InvalidParameter, NoPermission, ServiceNotAvailable, SystemBusy
from apogeemq.broker.filter.message_filter import (
    EVERYTHING,
    MessageFilter,
    message_filter,
    read_filtered,
    slice_time,
)
from apogeemq.broker.service.offsets import is_young
from apogeemq.broker.service.ordered_pops import ColdRead, OrderedPop, OrderedPops
from apogeemq.broker.service.revive_log import ReviveLog
from apogeemq.remoting_codec.record import peek_head
from apogeemq.store.errors import StoreError
from apogeemq.store.message_store import MessageStore, ReadResult, ReadStatus

INVISIBLE_TIME_MS_MAX = 3 * 24 * 3_600_000
"""Apache's bound for any delay (timerMaxDelaySec)."""

_READS_PER_POP_MAX = 16
"""Reads that found nothing to hand out, in one pop; each looks at up to 800 messages for a wanted tag."""

_READING_S_MAX = 0.001
"""How long one pop looks for what it wants before the loop has its turn."""


@dataclass(slots=True, frozen=True)
class Pop:
    """A pop that passed the checks."""

    topic: Topic
    group: str
    queue_id: int
    count_max: int
    invisible_time_ms: int
    init_mode: int
    wanted: MessageFilter
    retry_topics: tuple[tuple[RetryMark, str], ...]
    order: bool = False
    attempt_id: str = ""
    only_looks: bool = False
    """Nothing is to be taken: for `PopService.look`."""


class Source(NamedTuple):
    """A queue that a pop looks at."""

    mark: RetryMark
    key: QueueKey
    wanted: MessageFilter


@dataclass(slots=True, frozen=True)
class NothingPopped:
    """No queue had anything. `more`: some were not looked through to their end: ask again, after a turn of the loop."""

    more: bool = False


@dataclass(slots=True, frozen=True)
class ColdPop:
    """The next messages have to be fetched from the disk: call `read` in a thread, then `finish_cold`.

    Until then (or `release_cold`) the queue is busy: other pops of the group pass it by.
    """

    pop: Pop
    source: Source
    start: int
    read: Callable[[], ReadResult]
    in_order: ColdRead | None = None


@dataclass(slots=True)
class _Basket:
    """What one pop has taken so far, and what it may still take."""

    pop_time_ms: int
    count_left: int
    size_bytes_left: int
    reading_end: float
    reads_left: int = _READS_PER_POP_MAX
    revive_queue_id: int = -1
    rest_num: int = 0
    more: bool = False
    runs: list[PoppedRun] = field(default_factory=list)
    cold: ColdPop | None = None


class PopService:
    """Pops, acknowledges, and changes invisible times.

    Args:
        store, topics, groups, offsets: what it looks at.
        log: where it writes down what it did; its table holds what is popped and not acknowledged.
        ordered: pops in order, and the handles of those.
        now_ms: wall clock.
        monotonic: seconds.
        randrange: chance, for how often the retry topic comes first.
        permission: bits of this broker (brokerPermission).
        size_bytes_max: bytes of one pop; the first message always goes out.
        retry_topic_marks: the kinds of retry topics to look at; new messages go to the first kind.
        retry_first_percent: popFromRetryProbability.
        hot_window_bytes: how near the end of the log counts as in memory.
        messages_max: popped and not acknowledged messages of this broker; more are refused.
        sql_enabled: whether SQL92 expressions are taken (enablePropertyFilter).
    """

    def __init__(
        self,
        *,
        store: MessageStore,
        topics: TopicTable,
        groups: SubscriptionGroupTable,
        offsets: ConsumerOffsetTable,
        log: ReviveLog,
        ordered: OrderedPops,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        randrange: Callable[[int], int],
        permission: int,
        size_bytes_max: int,
        retry_topic_marks: Sequence[RetryMark],
        retry_first_percent: int,
        hot_window_bytes: int,
        messages_max: int,
        sql_enabled: bool,
    ) -> None:
        self._store = store
        self._topics = topics
        self._groups = groups
        self._offsets = offsets
        self._log = log
        self._table = log.table
        self._ordered = ordered
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._randrange = randrange
        self.permission = permission
        self._size_bytes_max = size_bytes_max
        self._retry_topic_marks = tuple(retry_topic_marks)
        self._retry_first_percent = retry_first_percent
        self._hot_window_bytes = hot_window_bytes
        self._messages_max = messages_max
        self._sql_enabled = sql_enabled
        self._busy: set[QueueKey] = set()
        self._next_start = 0
        self.ready = False
        """Whether the table holds what the revive log says; until then every request is refused."""

    # -- popping -------------------------------------------------------------------------------------------------------

    def check(self, request: PopRequest, *, only_looks: bool = False) -> Pop:
        """The checks of a pop, in Apache's order. Raises BrokerError.

        NoPermission (16), InvalidParameter (29), TopicNotExist (17), SubscriptionGroupNotExist (26),
        SubscriptionParseFailed (23).
        """
        self._check_ready()
        if not self.permission & PERM_READ:
            raise NoPermission(f"the broker[{self._log.broker_name}] pop message is forbidden")
        if not 0 < request.count_max <= POP_MESSAGES_MAX:
            raise InvalidParameter(f"maxMsgNums[{request.count_max}] is illegal, it must be 1 to {POP_MESSAGES_MAX}")
        topic = self._topics.require(request.topic)
        if not topic.config.perm & PERM_READ:
            raise NoPermission(f"the topic[{topic.name}] pop message is forbidden")
        if not -1 <= request.queue_id < topic.config.read_queue_nums:
            raise InvalidParameter(
                f"queueId[{request.queue_id}] is illegal, topic:[{topic.name}] "
                f"topicConfig.readQueueNums:[{topic.config.read_queue_nums}] consumer:[/{request.client}]"
            )
        known = self._groups.get(request.group)
        group = self._groups.plan(request.group) if known is None else known
        if not group.consume_enable:
            raise NoPermission(f"subscription group no permission, {request.group}")
        if request.init_mode not in tuple(InitMode):
            raise InvalidParameter(f"initMode[{request.init_mode}] is illegal, it must be 0 (MIN) or 1 (MAX)")
        wanted = message_filter(request.expression_type, request.expression, sql_enabled=self._sql_enabled)
        _check_invisible_time(request.invisible_time_ms, minimum_ms=1)
        if known is None:  # not before: a pop that is refused makes no group
            self._groups.put(group)
        return Pop(
            topic,
            request.group,
            request.queue_id,
            request.count_max,
            request.invisible_time_ms,
            request.init_mode,
            wanted,
            () if request.order else self._retry_topics(request.group, topic.name),
            request.order,
            request.attempt_id,
            only_looks,
        )

    def pop(self, pop: Pop) -> Popped | NothingPopped | ColdPop:
        """Take messages, as many as there are and as are wanted; never waits.

        Raises SystemBusy when too many messages are un-acknowledged, StoreError when nothing could be written down (and
        nothing is popped).
        """
        self._check_room(pop.count_max)
        if pop.order:
            return self._pop_in_order(pop)
        basket = self._basket(pop)
        for source in self._sources(pop):
            self._take(pop, source, basket)
            if basket.cold is not None:
                return basket.cold
        return self._popped(pop, basket)

    def look(self, pop: Pop) -> bool:
        """Whether a pop would find something; takes nothing, and moves no cursor.

        Where wanted messages are rare, or lie on the disk, one look does not tell: that counts as something.
        """
        if pop.order:
            return self._ordered.has_message(self._in_order(pop, self._look_at))
        return any(self._has_one(pop, source) for source in self._sources(pop))

    def _has_one(self, pop: Pop, source: Source) -> bool:
        """In one queue."""
        _, topic, queue_id = source.key
        start = self._look_at(source)
        if start >= self._store.max_offset(topic, queue_id) or source.key in self._busy:
            return False
        is_over = slice_time(self._monotonic, _READING_S_MAX)
        result = self._read(source, start, 1, self._size_bytes_max, is_over=is_over)
        has_looked_at_all = result.next_offset >= self._store.max_offset(topic, queue_id)
        return result.status in (ReadStatus.FOUND, ReadStatus.COLD) or not has_looked_at_all

    def _look_at(self, source: Source) -> int:
        """Where the group would begin, without beginning there."""
        group, topic, queue_id = source.key
        committed = self._offsets.query(topic, group, queue_id)
        return self._store.min_offset(topic, queue_id) if committed is None else committed

    def _in_order(self, pop: Pop, position: Callable[[Source], int]) -> OrderedPop:
        return OrderedPop(
            group=pop.group,
            topic=pop.topic.name,
            queues=self._queues(pop),
            count_max=pop.count_max,
            invisible_time_ms=pop.invisible_time_ms,
            attempt_id=pop.attempt_id,
            wanted=pop.wanted,
            position=lambda key: position(Source(RetryMark.NORMAL, key, pop.wanted)),
        )

    def _pop_in_order(self, pop: Pop) -> Popped | NothingPopped | ColdPop:
        return self._popped_in_order(pop, self._ordered.pop(self._ordered_pop(pop)))

    def _ordered_pop(self, pop: Pop) -> OrderedPop:
        return self._in_order(pop, lambda source: self._cursor(source, pop.init_mode))

    def _popped_in_order(self, pop: Pop, outcome: Popped | ColdRead | bool) -> Popped | NothingPopped | ColdPop:
        if isinstance(outcome, bool):
            return NothingPopped(outcome)
        if isinstance(outcome, ColdRead):
            source = Source(RetryMark.NORMAL, outcome.key, pop.wanted)
            return ColdPop(pop, source, outcome.start, outcome.read, outcome)
        for run in outcome.runs:
            pop.topic.messages_out += run.count
            pop.topic.bytes_out += sum(map(len, run.buffers))
        return outcome

    def finish_cold(self, cold: ColdPop, result: ReadResult) -> Popped | NothingPopped | ColdPop:
        """Go on with what a thread has read; in order that may lead to more that is to be read. Raises as `pop`."""
        self.release_cold(cold)
        self._check_room(cold.pop.count_max)
        if cold.in_order is not None:
            return self._popped_in_order(
                cold.pop, self._ordered.go_on(self._ordered_pop(cold.pop), cold.in_order, result)
            )
        basket = self._basket(cold.pop)
        start = self._cursor(cold.source, cold.pop.init_mode)
        # Somebody may have set the group's position elsewhere meanwhile: then this was read for nothing.
        if start == cold.start:
            if result.status is ReadStatus.FOUND:
                self._hand_out(cold.pop, cold.source, start, result, basket)
            else:
                self._commit(cold.source.key, result.next_offset)
        basket.more = True
        return self._popped(cold.pop, basket)

    def release_cold(self, cold: ColdPop) -> None:
        """The queue is not busy any more."""
        self._busy.discard(cold.source.key)

    def _basket(self, pop: Pop) -> _Basket:
        return _Basket(self._now_ms(), pop.count_max, self._size_bytes_max, self._monotonic() + _READING_S_MAX)

    def _retry_topics(self, group: str, topic: str) -> tuple[tuple[RetryMark, str], ...]:
        if topic.startswith(RETRY_TOPIC_PREFIX):
            return ()
        return tuple((mark, pop_retry_topic(group, topic, mark)) for mark in self._retry_topic_marks)

    def _sources(self, pop: Pop) -> Iterator[Source]:
        """The queues to look at, in order: the retry topics sometimes first, else last; the topic's in turn."""
        # Not filtered: what lies there was wanted when it was popped first, and must not be lost now.
        retries = [Source(mark, (pop.group, topic, 0), EVERYTHING) for mark, topic in pop.retry_topics]
        retry_first = bool(retries) and self._randrange(100) < self._retry_first_percent
        if retry_first:
            yield from retries
        for queue_id in self._queues(pop):
            yield Source(RetryMark.NORMAL, (pop.group, pop.topic.name, queue_id), pop.wanted)
        if not retry_first:
            yield from retries

    def _queues(self, pop: Pop) -> Iterable[int]:
        """The topic's queues to look at, beginning with another one each time."""
        if pop.queue_id >= 0:
            return (pop.queue_id,)
        queues = pop.topic.config.read_queue_nums
        start = self._next_start % queues
        self._next_start += 1
        return chain(range(start, queues), range(start))  # by one: mostly the first few have enough

    def _take(self, pop: Pop, source: Source, basket: _Basket) -> None:
        """Take from one queue what still fits."""
        _, topic, queue_id = source.key
        end = self._store.max_offset(topic, queue_id)
        if end == 0 and (source.mark is not RetryMark.NORMAL or pop.init_mode == InitMode.MIN):
            return  # never used: the group will begin at 0 whenever that is
        start = self._cursor(source, pop.init_mode)
        if start == end or source.key in self._busy:
            return
        while basket.count_left > 0 and basket.size_bytes_left > 0:
            if basket.reads_left == 0:
                basket.more = True
                break
            result = self._read(
                source,
                start,
                basket.count_left,
                basket.size_bytes_left,
                is_over=lambda: self._monotonic() >= basket.reading_end,
            )
            if result.status is ReadStatus.FOUND:
                self._hand_out(pop, source, start, result, basket)
                return
            if result.status is ReadStatus.COLD:
                if not basket.runs:
                    basket.cold = self._cold(pop, source, start)
                break
            if result.next_offset == start:
                return
            basket.reads_left = 0 if self._monotonic() >= basket.reading_end else basket.reads_left - 1
            start = result.next_offset
            self._commit(source.key, start)
        basket.rest_num += max(0, end - start)

    def _read(
        self,
        source: Source,
        start: int,
        count_max: int,
        size_bytes_max: int,
        *,
        cold_allowed: bool = False,
        is_over: Callable[[], bool] = lambda: False,
    ) -> ReadResult:
        _, topic, queue_id = source.key
        return read_filtered(
            self._store,
            topic,
            queue_id,
            start,
            count_max,
            size_bytes_max,
            source.wanted,
            cold_allowed=cold_allowed,
            is_over=is_over,
        )

    def _cold(self, pop: Pop, source: Source, start: int) -> ColdPop:
        self._busy.add(source.key)
        is_over = slice_time(self._monotonic, _READING_S_MAX)  # a thread that computes stops the loop as well
        return ColdPop(
            pop,
            source,
            start,
            lambda: self._read(source, start, pop.count_max, self._size_bytes_max, cold_allowed=True, is_over=is_over),
        )

    def _hand_out(self, pop: Pop, source: Source, start: int, result: ReadResult, basket: _Basket) -> None:
        """Write the checkpoint of what was read, move the cursor, and put it into the basket."""
        rest = result.max_offset - result.next_offset
        if basket.runs and result.size_bytes > basket.size_bytes_left:
            basket.rest_num += result.max_offset - start  # one large message, which would be alone in an answer
            return
        offsets = _offsets(start, result)
        if not basket.runs:
            basket.revive_queue_id = self._log.choose_queue()
        try:
            self._log.check_point(
                source.key, start, basket.pop_time_ms, pop.invisible_time_ms, basket.revive_queue_id, offsets
            )
        except StoreError:
            if not basket.runs:
                raise
            basket.count_left = 0  # what was taken before goes out
            return
        self._commit(source.key, result.next_offset)
        basket.rest_num += rest
        basket.count_left -= result.count
        basket.size_bytes_left -= result.size_bytes
        basket.runs.append(PoppedRun(source.mark, source.key[2], start, result.count, result.buffers, offsets))
        topic = pop.topic if source.mark is RetryMark.NORMAL else self._topics.get(source.key[1])
        if topic is not None:
            topic.messages_out += result.count
            topic.bytes_out += result.size_bytes

    def _popped(self, pop: Pop, basket: _Basket) -> Popped | NothingPopped:
        if not basket.runs:
            return NothingPopped(basket.more)
        return Popped(basket.pop_time_ms, pop.invisible_time_ms, basket.revive_queue_id, basket.rest_num, basket.runs)

    def _cursor(self, source: Source, init_mode: int) -> int:
        """Where the group stands in a queue. It stands where it begins from its first pop on."""
        group, topic, queue_id = source.key
        self._offsets.take_reset(topic, group, queue_id)  # this pop begins there: nobody else has to be told
        committed = self._offsets.query(topic, group, queue_id)
        if committed is not None:
            return committed
        store = self._store
        if init_mode == InitMode.MIN or topic.startswith(RETRY_TOPIC_PREFIX):
            start = store.min_offset(topic, queue_id)
        elif is_young(store, topic, queue_id, self._hot_window_bytes):
            start = 0
        else:
            start = max(store.max_offset(topic, queue_id) - 1, 0)
        self._commit(source.key, start)
        return start

    def _commit(self, key: QueueKey, queue_offset: int) -> None:
        group, topic, queue_id = key
        self._offsets.commit(topic, group, queue_id, queue_offset)

    # -- handles -------------------------------------------------------------------------------------------------------

    def has_queue(self, topic: str, queue_id: int) -> bool:
        """Whether a real topic has this queue. TopicNotExist (17) for an unknown topic."""
        config = self._topics.require(topic).config
        return 0 <= queue_id < max(config.read_queue_nums, config.write_queue_nums)

    def has_offset(self, topic: str, queue_id: int, queue_offset: int) -> bool:
        """Whether an offset lies in a queue, its end included."""
        return self._store.min_offset(topic, queue_id) <= queue_offset <= self._store.max_offset(topic, queue_id)

    def was_acknowledged(self, group: str, topic: str, handle: PopHandle) -> bool:
        """Whether a handle's message was acknowledged with it, as far as that is still known."""
        self._check_ready()
        key = _key(group, topic, handle)
        if _is_ordered(handle):
            return self._ordered.was_acknowledged(key, handle)
        return self._was_acknowledged(key, handle, self._now_ms())

    def ack(self, group: str, topic: str, handles: Sequence[PopHandle]) -> list[HandleResult]:
        """Acknowledge messages; one result per handle, in order.

        `topic` is the one that was popped. Raises StoreError when it could not be written down for all: repeat it.
        """
        self._check_ready()
        now_ms = self._now_ms()
        in_order: dict[QueueKey, list[PopHandle]] = {}
        for handle in filter(_is_ordered, handles):
            in_order.setdefault(_key(group, topic, handle), []).append(handle)
        settled = {key: iter(self._ordered.ack(key, of_queue)) for key, of_queue in in_order.items()}
        results = []
        taken: dict[Checkpoint, dict[int, None]] = {}
        for handle in handles:
            key = _key(group, topic, handle)
            if _is_ordered(handle):
                results.append(self._settled(key, handle, next(settled[key])))
                continue
            checkpoint = self._live(key, handle, now_ms)
            if checkpoint is not None:
                taken.setdefault(checkpoint, {})[handle.queue_offset] = None
                results.append(HandleResult.OK)
            elif self._was_acknowledged(key, handle, now_ms):
                results.append(HandleResult.OK)
            else:
                results.append(self._dead(key, handle))
        for checkpoint, offsets in taken.items():
            self._log.acknowledge(checkpoint, list(offsets))
        return results

    def change_invisible(self, group: str, topic: str, handle: PopHandle, invisible_time_ms: int) -> Changed:
        """Give a message a new time from now on, under a new handle; the old one is dead. 0 makes it visible now.

        Raises InvalidParameter for a time out of range; StoreError, and nothing has changed.
        """
        self._check_ready()
        _check_invisible_time(invisible_time_ms, minimum_ms=0)
        now_ms = self._now_ms()
        key = _key(group, topic, handle)
        if _is_ordered(handle):
            changed = self._ordered.change_invisible(key, handle, invisible_time_ms)
            return Changed(self._dead(key, handle)) if changed is None else changed
        checkpoint = self._live(key, handle, now_ms)
        if checkpoint is None:
            return Changed(self._dead(key, handle))
        # Never the same time as before: the old handle would live on.
        pop_time_ms = max(now_ms, handle.pop_time_ms + 1)
        offset, queue_id = handle.queue_offset, checkpoint.revive_queue_id
        self._log.check_point(key, offset, pop_time_ms, invisible_time_ms, queue_id, (offset,))
        # The new checkpoint alone tells this broker that the old one lost the message; an Apache broker wants the ack.
        self._log.write_acks(checkpoint, [offset])
        return Changed(HandleResult.OK, pop_time_ms, invisible_time_ms, queue_id)

    def extend(
        self, group: str, topic: str, handles: Sequence[PopHandle], invisible_time_ms: int
    ) -> list[HandleResult]:
        """Give messages more time, from now on, under the same handles; never less than they have.

        Raises InvalidParameter for a time out of range; StoreError when it could not be written down for all.
        """
        self._check_ready()
        _check_invisible_time(invisible_time_ms, minimum_ms=1)
        now_ms = self._now_ms()
        results = []
        taken: dict[Checkpoint, set[int]] = {}
        for handle in handles:
            key = _key(group, topic, handle)
            if _is_ordered(handle):
                results.append(self._settled(key, handle, self._ordered.extend(key, handle, invisible_time_ms)))
                continue
            checkpoint = self._live(key, handle, now_ms)
            if checkpoint is None:
                results.append(self._dead(key, handle))
                continue
            results.append(HandleResult.OK)
            if checkpoint.due_ms < now_ms + invisible_time_ms:
                taken.setdefault(checkpoint, set()).add(handle.queue_offset)
        for checkpoint, offsets in taken.items():
            pop_time_ms = checkpoint.pop_time_ms
            longer_ms = now_ms + invisible_time_ms - pop_time_ms
            first, *_ = ordered = sorted(offsets)
            self._log.check_point(
                checkpoint.key, first, pop_time_ms, longer_ms, checkpoint.revive_queue_id, ordered, is_prolonged=True
            )
        return results

    def _live(self, key: QueueKey, handle: PopHandle, now_ms: int) -> Checkpoint | None:
        """The checkpoint that a handle's message belongs to, if it is the handle's and its time is not over."""
        checkpoint = self._table.holder(key, handle.queue_offset)
        if checkpoint is None or checkpoint.pop_time_ms != handle.pop_time_ms or checkpoint.due_ms <= now_ms:
            return None
        return checkpoint

    def _was_acknowledged(self, key: QueueKey, handle: PopHandle, now_ms: int) -> bool:
        """Whether a message that belongs to no checkpoint was acknowledged before.

        It was, while the handle's own time is not over: nothing else but a new handle takes a message away earlier.
        """
        offset, pop_time_ms = handle.queue_offset, handle.pop_time_ms
        if self._table.holder(key, offset) is not None or self._table.was_replaced(key, offset, pop_time_ms):
            return False
        if self._table.was_acknowledged(key, offset, pop_time_ms):
            return True
        is_over = pop_time_ms + handle.invisible_time_ms <= now_ms
        return not is_over and self._has_message(key, handle)

    def _settled(self, key: QueueKey, handle: PopHandle, is_done: bool) -> HandleResult:
        return HandleResult.OK if is_done else self._dead(key, handle)

    def _dead(self, key: QueueKey, handle: PopHandle) -> HandleResult:
        return HandleResult.EXPIRED if self._has_message(key, handle) else HandleResult.NO_MESSAGE

    def _has_message(self, key: QueueKey, handle: PopHandle) -> bool:
        _, topic, queue_id = key
        return 0 <= handle.queue_offset < self._store.max_offset(topic, queue_id)

    def _check_room(self, count: int) -> None:
        popped = len(self._table) + len(self._ordered)
        if popped + count > self._messages_max:
            raise SystemBusy(
                f"[OVERLOAD] {popped} messages are popped and not acknowledged, the limit "
                f"(limits.popped_messages_max) is {self._messages_max}",
                limit="limits.popped_messages_max",
            )

    def _check_ready(self) -> None:
        if not self.ready:
            raise ServiceNotAvailable("the broker still reads what was popped before it started; try again")


def _key(group: str, topic: str, handle: PopHandle) -> QueueKey:
    return group, pop_retry_topic(group, topic, handle.retry_mark), handle.queue_id


def _is_ordered(handle: PopHandle) -> bool:
    return handle.revive_queue_id == ORDER_REVIVE_QUEUE_ID


def _check_invisible_time(invisible_time_ms: int, *, minimum_ms: int) -> None:
    if not minimum_ms <= invisible_time_ms <= INVISIBLE_TIME_MS_MAX:
        raise InvalidParameter(
            f"invisibleTime[{invisible_time_ms}] is illegal, it must be {minimum_ms} to {INVISIBLE_TIME_MS_MAX} ms"
        )


def _offsets(start: int, result: ReadResult) -> Sequence[int]:
    """Queue offsets of the records that were read: without gaps, unless some had another tag or are gone."""
    if result.next_offset - start == result.count:
        return range(start, result.next_offset)
    offsets = []
    for buffer in result.buffers:
        position = 0
        while position < len(buffer):
            head = peek_head(buffer, position)
            offsets.append(head.queue_offset)
            position += head.size_bytes
    return offsets
