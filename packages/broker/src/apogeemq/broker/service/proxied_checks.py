"""Questions about transactions to producers that stand behind a proxy: they wait until it takes them.

The mesh has no way of speaking first, so a proxy with producers always has one call open that waits for questions, and
a proxy that never made one (it is too old, or has no producers) is nobody to be asked. The line of a proxy ends with
its streams; what waits in it is lost then, and comes again by the transaction's own back-off, as does what a proxy took
and could not deliver. What was decided, or asked anew, while it waited is left out.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

from apogeemq.broker.core.clients import Member
from apogeemq.broker.service.transaction_checks import TransactionCheck
from apogeemq.mesh.clock import Clock, within
from apogeemq.remoting_codec.record import encode_record

WAITING_MAX = 1_000
"""Questions that may wait for one proxy."""
WAITING_SIZE_BYTES_MAX = 16 << 20
"""And the records in them: the last one may go beyond."""
TAKEN_SIZE_BYTES = 1 << 20
"""No further question is put into an answer that has so much."""


class ProxiedCheck(NamedTuple):
    """A question, the member of the group that was chosen for it, and the half message encoded."""

    check: TransactionCheck
    client_id: str
    record: bytes


class _Line:
    """What waits for one proxy."""

    def __init__(self) -> None:
        self.waiting: deque[ProxiedCheck] = deque()
        self.size_bytes = 0
        self.came = asyncio.Event()

    @property
    def has_room(self) -> bool:
        return len(self.waiting) < WAITING_MAX and self.size_bytes < WAITING_SIZE_BYTES_MAX

    def put(self, question: ProxiedCheck) -> None:
        self.waiting.append(question)
        self.size_bytes += len(question.record)
        self.came.set()

    def pop(self) -> ProxiedCheck:
        question = self.waiting.popleft()
        self.size_bytes -= len(question.record)
        return question


class ProxiedChecks:
    """The lines of all proxies; a ProducerWay. Needs a running event loop.

    Args:
        is_current: half topic offset → whether it is the newest copy of a pending message.
        clock: for waits.
    """

    def __init__(self, is_current: Callable[[int], bool], clock: Clock) -> None:
        self._is_current = is_current
        self._clock = clock
        self._lines: dict[Hashable, _Line] = {}

    def __len__(self) -> int:
        return sum(len(line.waiting) for line in self._lines.values())

    def reaches(self, channel: Hashable) -> bool:
        """Whether it is a proxy that takes questions, and has not left too many."""
        line = self._lines.get(channel)
        return line is not None and line.has_room

    def ask(self, member: Member[Hashable], check: TransactionCheck) -> None:
        """Let it wait for the member's proxy."""
        self._lines[member.channel].put(ProxiedCheck(check, member.client_id, encode_record(check.message)))

    async def take(self, owner: Hashable, count_max: int, deadline: float) -> list[ProxiedCheck]:
        """What waits for a proxy, as soon as there is something; nothing at the deadline (monotonic seconds)."""
        line = self._lines.setdefault(owner, _Line())
        while not (taken := self._current(line, count_max)):
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0:
                break
            line.came.clear()
            try:
                await within(self._clock, left_s, line.came.wait())
            except TimeoutError:
                break
        return taken

    def owner_gone(self, owner: Hashable) -> None:
        """A proxy's streams are lost."""
        self._lines.pop(owner, None)

    def _current(self, line: _Line, count_max: int) -> list[ProxiedCheck]:
        taken: list[ProxiedCheck] = []
        size_bytes = 0
        while line.waiting and len(taken) < count_max and size_bytes < TAKEN_SIZE_BYTES:
            question = line.pop()
            if self._is_current(question.check.message.queue_offset):
                taken.append(question)
                size_bytes += len(question.record)
        return taken
