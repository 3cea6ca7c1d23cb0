"""Which timers are pending, by the millisecond: in memory, eight bytes each until their time is near."""

from array import array
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

_BUCKET_BITS = 16
_POSITION_BITS = 48
_BUCKET_MASK = (1 << _BUCKET_BITS) - 1
POSITION_MASK = (1 << _POSITION_BITS) - 1


class TimerIndex:
    """Pairs (deliver ms, position), taken out in their order.

    ```
    far:   bucket of 65,536 ms → array of u64:  ms in the bucket, 16 bits │ position, 48 bits
    run:   the earliest bucket, sorted once, with a cursor
    late:  a heap of what was put in since at or before the run's bucket:  deliver ms │ position, 48 bits
    ```
    No more than one bucket is ever sorted, and it stays an array: a million timers due in one minute cost 8 MB, and
    0.1 µs each of sorting. Only what comes late, or comes back, costs a Python integer.
    """

    def __init__(self) -> None:
        self._far: dict[int, array[int]] = {}
        self._first_far: int | None = None
        self._run: array[int] = array("Q")
        self._run_at = 0
        self._run_bucket = -1
        self._late: list[int] = []

    def put(self, deliver_ms: int, position: int) -> None:
        """Add a pair. `deliver_ms` from 0, `position` below 2**48."""
        bucket = deliver_ms >> _BUCKET_BITS
        if bucket <= self._run_bucket:
            heappush(self._late, deliver_ms << _POSITION_BITS | position)
            return
        packed = (deliver_ms & _BUCKET_MASK) << _POSITION_BITS | position
        try:
            self._far[bucket].append(packed)
        except KeyError:
            self._far[bucket] = array("Q", (packed,))
            if self._first_far is None or bucket < self._first_far:
                self._first_far = bucket

    def pop_due(self, now_ms: int, max_count: int) -> list[tuple[int, int]]:
        """Take out at most `max_count` pairs whose time has come, earliest first."""
        found: list[tuple[int, int]] = []
        limit = now_ms + 1 << _POSITION_BITS
        while len(found) < max_count:
            late_head = self._late[0] if self._late else None
            run_head = self._run_head()
            if late_head is not None and (run_head is None or late_head < run_head):
                if late_head >= limit:
                    break
                head = heappop(self._late)
            elif run_head is not None:
                if run_head >= limit:
                    break
                head = run_head
                self._run_at += 1
            elif self._first_far is not None and self._first_far <= now_ms >> _BUCKET_BITS:
                self._begin_run(self._first_far)
                continue
            else:
                break
            found.append((head >> _POSITION_BITS, head & POSITION_MASK))
        return found

    def next_ms(self) -> int | None:
        """Not later than the first pair's time, and earlier by a bucket at most; None when there is none."""
        heads = [head >> _POSITION_BITS for head in (self._run_head(), *self._late[:1]) if head is not None]
        if heads:
            return min(heads)
        return None if self._first_far is None else self._first_far << _BUCKET_BITS

    def count_before(self, deliver_ms: int) -> int:
        """How many pairs are earlier than that."""
        limit = deliver_ms << _POSITION_BITS
        bucket = deliver_ms >> _BUCKET_BITS
        rest = (deliver_ms & _BUCKET_MASK) << _POSITION_BITS
        count = sum(head < limit for head in self._late)
        if self._run_bucket < bucket:
            count += len(self._run) - self._run_at
        elif self._run_bucket == bucket:
            count += sum(packed < rest for packed in self._run[self._run_at :])
        count += sum(len(pairs) for number, pairs in self._far.items() if number < bucket)
        return count + sum(packed < rest for packed in self._far.get(bucket, ()))

    def positions_between(self, first_ms: int, last_ms: int) -> list[int]:
        """Where the timers of these milliseconds lie, both included; the range spans seconds, not days."""
        found = [head & POSITION_MASK for head in self._late if first_ms <= head >> _POSITION_BITS <= last_ms]
        for bucket in range(first_ms >> _BUCKET_BITS, (last_ms >> _BUCKET_BITS) + 1):
            base_ms = bucket << _BUCKET_BITS
            low = max(0, first_ms - base_ms) << _POSITION_BITS
            stop = last_ms - base_ms + 1 << _POSITION_BITS
            pairs = self._run[self._run_at :] if bucket == self._run_bucket else self._far.get(bucket, ())
            found += [packed & POSITION_MASK for packed in pairs if low <= packed < stop]
        return found

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """All pairs, in no order. Nothing may be put in or taken out meanwhile."""
        for head in self._late:
            yield head >> _POSITION_BITS, head & POSITION_MASK
        runs = [(self._run_bucket, self._run[self._run_at :]), *self._far.items()]
        for bucket, pairs in runs:
            base_ms = bucket << _BUCKET_BITS
            for packed in pairs:
                yield base_ms + (packed >> _POSITION_BITS), packed & POSITION_MASK

    def drop_from(self, position: int) -> None:
        """Forget the pairs at or beyond a position."""
        self._late = [head for head in self._late if head & POSITION_MASK < position]
        heapify(self._late)
        self._run = array("Q", (packed for packed in self._run[self._run_at :] if packed & POSITION_MASK < position))
        self._run_at = 0
        for bucket in list(self._far):
            kept = array("Q", (packed for packed in self._far[bucket] if packed & POSITION_MASK < position))
            if kept:
                self._far[bucket] = kept
            else:
                del self._far[bucket]
        self._first_far = min(self._far, default=None)

    def _run_head(self) -> int | None:
        if self._run_at == len(self._run):
            return None
        return self._run_bucket << _BUCKET_BITS + _POSITION_BITS | self._run[self._run_at]

    def _begin_run(self, bucket: int) -> None:
        self._run = array("Q", sorted(self._far.pop(bucket)))
        self._run_at = 0
        self._run_bucket = bucket
        self._first_far = min(self._far, default=None)
