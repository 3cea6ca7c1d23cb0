"""Pops that wait for a message: both doors hold them here, in the same way.

A pop that finds nothing stands in a line until a message arrives in a queue of its topic, or in the retry topic (where
messages come to whose time is over), or until its time is over. Nobody pops for an asker that is gone: what waits for
it is forgotten first. What was popped when its asker gave up is still answered, so that it can be given back; where the
answer can't be delivered any more, it comes again after its invisible time.

Messages that are not in memory any more are read in a thread, while the loop goes on.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable

from apogeemq.broker.core.pop import Popped, PopRequest
from apogeemq.broker.core.pop_waiters import Line, PopWaiter, PopWaiterTable
from apogeemq.broker.errors import BrokerError, PollingFull, PollingTimeout, RequestFailed
from apogeemq.broker.service.cold_reads import ColdReads
from apogeemq.broker.service.pop import ColdPop, NothingPopped, Pop, PopService
from apogeemq.store.errors import StoreError

log = logging.getLogger(__name__)


class Available:
    """There is something to pop, for who only looks. It may be somebody else's by the time that it is asked for."""


Found = Popped | Available

Answer = Callable[[Found | Exception], None]
"""Gets what was found, or why nothing was: a BrokerError (PollingTimeout and PollingFull among them) or StoreError."""

SERVED_PER_TURN_MAX = 16
"""Waiters of one line that are served before the loop has its turn."""

TURN_S = 0.002
"""How long lines are served before the loop has its turn; the last waiter may be begun within it."""


class Poll:
    """A pop, and whom to give its messages."""

    __slots__ = ("answer", "deadline", "is_forgotten", "is_given_up", "owner", "pop", "waiter")

    def __init__(
        self, pop: Pop, deadline: float, owner: Hashable, answer: Answer, is_given_up: Callable[[], bool]
    ) -> None:
        self.pop = pop
        self.deadline = deadline
        self.owner = owner
        self.answer = answer
        self.is_given_up = is_given_up
        self.waiter: PopWaiter[Poll] | None = None
        self.is_forgotten = False

    @property
    def is_gone(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self.is_forgotten or self.is_given_up()


class PopPolls:
    """Pops at once, or when there is something. Needs a running event loop.

    Args:
        pops: the service.
        monotonic: seconds.
        waiting_max: waiting pops in all (maxPopPollingSize).
        waiting_per_key_max: and of one (topic, group, queue) (popPollingSize).
        hold_s_max: the longest wait, whatever is asked for.
        cold_reads: for messages that are not in memory any more.
    """

    def __init__(
        self,
        *,
        pops: PopService,
        monotonic: Callable[[], float],
        waiting_max: int,
        waiting_per_key_max: int,
        hold_s_max: float,
        cold_reads: ColdReads,
    ) -> None:
        self._pops = pops
        self._monotonic = monotonic
        self._hold_s_max = hold_s_max
        self._cold_reads = cold_reads
        self._table: PopWaiterTable[Poll] = PopWaiterTable(
            waiting_max=waiting_max, waiting_per_key_max=waiting_per_key_max
        )
        self._woken: dict[Line, None] = {}
        self._reading: dict[asyncio.Task[None], Poll] = {}
        self._loop = asyncio.get_running_loop()
        self._is_stopped = False

    def __len__(self) -> int:
        return len(self._table)

    async def pop(self, request: PopRequest, deadline: float, owner: Hashable) -> Popped:
        """Pop, waiting until `deadline` (monotonic seconds). A caller that is cancelled pops nothing any more.

        One that is cancelled when it has popped already gets its messages all the same: nobody else can have them.

        Raises PollingTimeout (nothing came), PollingFull, and what `PopService.check` and `PopService.pop` raise.
        """
        done: asyncio.Future[Popped] = self._loop.create_future()

        def answer(outcome: Found | Exception) -> None:
            if done.done():
                return  # cancelled in this very turn, before anything was popped
            if isinstance(outcome, Exception):
                done.set_exception(outcome)
            elif isinstance(outcome, Popped):
                done.set_result(outcome)

        poll = self.begin(self._pops.check(request), deadline, owner, answer, done.cancelled)
        try:
            return await done
        except asyncio.CancelledError:
            if done.cancelled():
                raise
            return done.result()
        finally:
            self.forget(poll)

    def begin(
        self,
        pop: Pop,
        deadline: float,
        owner: Hashable,
        answer: Answer,
        is_given_up: Callable[[], bool] = lambda: False,
    ) -> Poll:
        """Pop now, or wait for it; `answer` is called exactly once (perhaps before this returns), unless forgotten.

        `is_given_up` is asked before each pop, for askers that can go without having called forget() yet.
        """
        poll = Poll(pop, min(deadline, self._monotonic() + self._hold_s_max), owner, answer, is_given_up)
        self._go_on(poll, self._try(poll))
        return poll

    def count_of(self, topic: str, group: str, queue_id: int) -> int:
        """How many wait for the same; -1 is any queue, and counts by itself."""
        return self._table.count_of(topic, group, queue_id)

    def forget(self, poll: Poll) -> None:
        """The asker does not want it any more."""
        poll.is_forgotten = True
        if poll.waiter is not None:
            self._table.remove(poll.waiter)

    def drop_owner(self, owner: Hashable) -> None:
        """An asker is gone with all that it waits for."""
        self._table.drop_owner(owner)
        for poll in self._reading.values():
            if poll.owner == owner:
                poll.is_forgotten = True

    def message_arrived(self, topic: str, queue_id: int, tags_code: int) -> None:
        """A message can be read: serve who waits for it, once what was read from the network with it is all stored."""
        for line in self._table.woken_by(topic, queue_id, tags_code):
            self._wake(line)

    def offsets_reset(self, topic: str, group: str, queue_ids: Iterable[int]) -> None:
        """A group's offsets were set elsewhere: messages that lie there already are for those who wait."""
        queues = {-1, *queue_ids}
        for line in self._table.lines_of(topic):
            if line.group == group and (line.topic != topic or line.queue_id in queues):
                self._wake(line)

    def expire(self) -> None:
        """Answer those whose time is over."""
        for waiter in self._table.expire(self._monotonic()):
            waiter.what.answer(_nothing_came())

    async def stop(self) -> None:
        """Answer all who wait, and let reads come to their end."""
        self._is_stopped = True
        for waiter in self._table.drain():
            waiter.what.answer(_nothing_came())
        if self._reading:
            await asyncio.wait(list(self._reading))

    def _try(self, poll: Poll) -> Found | NothingPopped | ColdPop | Exception:
        try:
            if poll.pop.only_looks:
                return Available() if self._pops.look(poll.pop) else NothingPopped()
            return self._pops.pop(poll.pop)
        except (BrokerError, StoreError) as error:
            return error

    def _go_on(self, poll: Poll, outcome: Found | NothingPopped | ColdPop | Exception) -> None:
        """Answer, wait, or read from the disk, by how a pop came out."""
        if isinstance(outcome, NothingPopped):
            self._hold(poll, again=outcome.more)
        elif isinstance(outcome, ColdPop):
            self._read_cold(poll, outcome)
        else:
            poll.answer(outcome)

    def _hold(self, poll: Poll, *, again: bool) -> None:
        if self._is_stopped or (poll.deadline <= self._monotonic() and not again):
            poll.answer(_nothing_came())
            return
        pop = poll.pop
        line = Line(pop.topic.name, pop.group, pop.queue_id, pop.wanted.tag_codes)
        also = [topic for _, topic in pop.retry_topics]
        poll.waiter = PopWaiter(line, also, poll.deadline, poll.owner, poll)
        if not self._table.add(poll.waiter):
            is_full = len(self._table) >= self._table.waiting_max
            poll.answer(
                PollingFull(
                    f"{len(self._table)} pops wait, the limits (limits.held_pops_max, limits.held_pops_per_key_max) "
                    f"are {self._table.waiting_max} in all and {self._table.waiting_per_key_max} of one kind",
                    limit="limits.held_pops_max" if is_full else "limits.held_pops_per_key_max",
                )
            )
        elif again:
            self._wake(line)

    def _wake(self, line: Line) -> None:
        if not self._woken:
            self._loop.call_soon(self._serve_woken)
        self._woken[line] = None

    def _serve_woken(self) -> None:
        woken, self._woken = self._woken, {}
        turn_end = self._monotonic() + TURN_S
        for line in woken:
            if self._monotonic() < turn_end:
                self._serve(line, turn_end)
            else:
                self._wake(line)

    def _serve(self, line: Line, turn_end: float) -> None:
        """Pop for the head of a line, until there is nothing more to pop or nobody waits any more."""
        for _ in range(SERVED_PER_TURN_MAX):
            waiter = self._table.first(line)
            if waiter is None:
                return
            poll = waiter.what
            if poll.is_gone:
                self._table.remove(waiter)
                continue
            outcome = self._try(poll)
            if isinstance(outcome, NothingPopped):
                if outcome.more:
                    self._wake(line)
                return
            self._table.remove(waiter)
            self._go_on(poll, outcome)
            if self._monotonic() >= turn_end:
                break
        self._wake(line)

    def _read_cold(self, poll: Poll, cold: ColdPop) -> None:
        task = self._loop.create_task(self._run_cold(poll, cold))
        self._reading[task] = poll
        task.add_done_callback(self._reading.pop)

    async def _run_cold(self, poll: Poll, cold: ColdPop) -> None:
        outcome: Popped | NothingPopped | ColdPop | Exception
        try:
            result = await self._cold_reads.read(cold.read)
            outcome = NothingPopped() if poll.is_gone else self._pops.finish_cold(cold, result)
        except (BrokerError, StoreError) as error:
            outcome = error
        except Exception as error:
            log.exception("popping old messages of %s failed", cold.source.key)
            outcome = RequestFailed(f"popping failed: {error}")
        finally:
            self._pops.release_cold(cold)
        for line in self._table.lines_of(cold.source.key[1]):
            self._wake(line)  # who came meanwhile passed this queue by
        if not poll.is_gone:
            self._go_on(poll, outcome)


def _nothing_came() -> PollingTimeout:
    return PollingTimeout("nothing to pop came in the poll time")
