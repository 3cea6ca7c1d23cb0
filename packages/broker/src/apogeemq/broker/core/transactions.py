"""Transactions that are not decided yet, and how far the two topics that record them are needed.

A half message lies in RMQ_SYS_TRANS_HALF_TOPIC, not seen by consumers, until its producer commits it or rolls it back;
then an operation record in RMQ_SYS_TRANS_OP_HALF_TOPIC names it. Each question to a producer, and each file of the log
that goes, stores it there once more:

    half topic   0    1    2    3    4    5         3 is a copy of 0, which says so in TRAN_PREPARED_QUEUE_OFFSET
                 A    B    C    A'   D    B'
    op topic     0: "2,"   1: "0,3,"                C is decided, A with all its copies too; B and D are pending

Whoever ends a transaction may name any of its copies. Two pointers say from where on both topics must be read at a
start: the half topic from the first offset that is the newest copy of a pending message (4, of D), the op topic from
the first record that names an offset from there on. Apache's broker keeps and reads the same two, as the offsets of
group CID_RMQ_SYS_TRANS. Source: reference broker_behaviour.md §4; Apache TransactionalMessageServiceImpl 5.3.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from heapq import heappop, heappush

from apogeemq.broker.errors import SystemBusy

DECIDED_MAX = 10_000
"""Transactions of which it is remembered how they were decided."""
OPS_PER_BLOCK = 64
"""The op topic's pointer moves by so many records: at a start a few more may be read than are needed."""


class Decision(Enum):
    """How a transaction ended."""

    COMMIT = auto()
    ROLLBACK = auto()
    GIVEN_UP = auto()
    """Nobody said so in time: the message lies in TRANS_CHECK_MAX_TIME_TOPIC."""


@dataclass(slots=True, eq=False)
class Transaction:
    """A half message that is pending.

    `offsets` are those of all its copies in the half topic, the first one first; `physical_offset` is the newest
    copy's. `topic` is where it goes when it is committed. `checks` counts the questions asked, `due_ms` is when to ask
    again (milliseconds since 1970).
    """

    offsets: list[int]
    physical_offset: int
    group: str
    topic: str
    born_ms: int
    due_ms: int
    checks: int = 0
    is_parked: bool = field(default=False, init=False)

    @property
    def origin(self) -> int:
        """The half message's first offset: what it is known by."""
        return self.offsets[0]

    @property
    def newest(self) -> int:
        """The offset of its newest copy."""
        return self.offsets[-1]


class TransactionTable:
    """Pending transactions by the offsets of their half messages, and in the order in which they are due."""

    def __init__(self, *, pending_max: int) -> None:
        self.pending_max = pending_max
        self._by_offset: dict[int, Transaction] = {}
        self._by_newest: dict[int, Transaction] = {}
        """Ascending: offsets are given in that order, and a copy is newer than all."""
        self._due: list[tuple[int, int]] = []
        """Heap of (due_ms, origin); an entry that does not say what the transaction says is an old one."""
        self._parked: dict[str, dict[int, Transaction]] = {}
        self._decided: OrderedDict[int, Decision] = OrderedDict()
        self._ops = _OpBlocks()
        self.by_topic: Counter[str] = Counter()
        """How many are pending, by the topic where they go."""

    def __len__(self) -> int:
        return len(self._by_newest)

    def check_room(self) -> None:
        """Raise SystemBusy where one more would be too many."""
        if len(self) >= self.pending_max:
            raise SystemBusy(
                f"[OVERLOAD] {len(self)} transactions are pending, the limit (limits.pending_transactions_max) is "
                f"{self.pending_max}",
                limit="limits.pending_transactions_max",
            )

    def add(self, transaction: Transaction) -> None:
        """Take in a half message that was just stored, or found at the start."""
        for offset in transaction.offsets:
            self._by_offset[offset] = transaction
        self._by_newest[transaction.newest] = transaction
        heappush(self._due, (transaction.due_ms, transaction.origin))
        self.by_topic[transaction.topic] += 1

    def renew(self, transaction: Transaction, queue_offset: int, physical_offset: int, due_ms: int) -> None:
        """A copy of its half message was stored; it is due anew."""
        del self._by_newest[transaction.newest]
        transaction.offsets.append(queue_offset)
        transaction.physical_offset = physical_offset
        self._by_offset[queue_offset] = transaction
        self._by_newest[queue_offset] = transaction
        self.postpone(transaction, due_ms)

    def find(self, queue_offset: int) -> Transaction | None:
        """The pending transaction with a half message at that offset."""
        return self._by_offset.get(queue_offset)

    def is_newest(self, queue_offset: int) -> bool:
        """Whether the newest copy of a pending transaction's half message is at that offset."""
        return queue_offset in self._by_newest

    def decision(self, queue_offset: int) -> Decision | None:
        """How a transaction ended, if that was not long ago and since the start."""
        return self._decided.get(queue_offset)

    def settle(self, transaction: Transaction, decision: Decision, op_offset: int) -> None:
        """It is decided: the record at `op_offset` of the op topic names all its offsets."""
        self._forget(transaction)
        self._ops.add(op_offset, transaction.newest)
        for offset in transaction.offsets:
            self._decided[offset] = decision
        while len(self._decided) > DECIDED_MAX:
            self._decided.popitem(last=False)

    def replay_op(self, op_offset: int, offsets: Iterable[int]) -> None:
        """Know of an operation record that was there at the start."""
        self._ops.add(op_offset, max(offsets, default=-1))

    def _forget(self, transaction: Transaction) -> None:
        for offset in transaction.offsets:
            del self._by_offset[offset]
        del self._by_newest[transaction.newest]
        self.by_topic[transaction.topic] -= 1
        if not self.by_topic[transaction.topic]:
            del self.by_topic[transaction.topic]
        if transaction.is_parked:
            self._take_out(transaction)

    # -- when to ask ---------------------------------------------------------------------------------------------------

    def due(self, now_ms: int) -> Transaction | None:
        """One that is due, which stays so until it is postponed, renewed, parked or settled."""
        while self._due and self._due[0][0] <= now_ms:
            transaction = self._at_head()
            if transaction is not None:
                return transaction
            heappop(self._due)
        return None

    def next_due_ms(self) -> int | None:
        """When the next one is due; None while none waits for its time."""
        while self._due:
            if self._at_head() is not None:
                return self._due[0][0]
            heappop(self._due)
        return None

    def _at_head(self) -> Transaction | None:
        due_ms, origin = self._due[0]
        transaction = self._by_offset.get(origin)
        if transaction is None or transaction.is_parked or transaction.due_ms != due_ms:
            return None
        return transaction

    def postpone(self, transaction: Transaction, due_ms: int) -> None:
        """Ask at another time."""
        if transaction.is_parked:
            self._take_out(transaction)
        transaction.due_ms = due_ms
        heappush(self._due, (due_ms, transaction.origin))

    def park(self, transaction: Transaction) -> None:
        """Nobody of its group can be asked: it waits until `unpark`."""
        transaction.is_parked = True
        self._parked.setdefault(transaction.group, {})[transaction.origin] = transaction

    def parked(self) -> dict[str, Transaction]:
        """Groups for which something waits, each with what waits longest."""
        return {group: next(iter(waiting.values())) for group, waiting in self._parked.items()}

    def unpark(self, group: str, due_ms: int, count_max: int) -> None:
        """Let the first `count_max` that wait for a group be due at a time."""
        for transaction in list(self._parked.get(group, {}).values())[:count_max]:
            self.postpone(transaction, due_ms)

    def _take_out(self, transaction: Transaction) -> None:
        transaction.is_parked = False
        waiting = self._parked[transaction.group]
        del waiting[transaction.origin]
        if not waiting:
            del self._parked[transaction.group]

    # -- how far the topics are needed ---------------------------------------------------------------------------------

    def first_below(self, physical_offset: int) -> Transaction | None:
        """The first whose newest copy lies below an offset of the commit log."""
        first = next(iter(self._by_newest.values()), None)
        return first if first is not None and first.physical_offset < physical_offset else None

    def first_needed_half(self, end: int) -> int:
        """The half topic's first offset that a start must read; `end` is one past its last."""
        return next(iter(self._by_newest), end)

    def first_needed_op(self, half_needed: int, end: int) -> int:
        """The op topic's first offset that a start must read, when it reads the half topic from `half_needed` on."""
        return min(self._ops.first_needed(half_needed, end), end)


class _OpBlocks:
    """Operation records in blocks: for each the highest half offset that it names.

    While one transaction stays pending all that is decided meanwhile must be remembered; by blocks that is a number for
    64 of them.
    """

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, int]] = deque()
        """(number of the block, highest half offset), ascending."""

    def add(self, op_offset: int, half_offset: int) -> None:
        """A record at `op_offset` names half offsets up to `half_offset`."""
        number = op_offset // OPS_PER_BLOCK
        if self._blocks and self._blocks[-1][0] == number:
            half_offset = max(half_offset, self._blocks.pop()[1])
        self._blocks.append((number, half_offset))

    def first_needed(self, half_needed: int, end: int) -> int:
        """Where the first block begins that names an offset from `half_needed` on; `end` when none does."""
        while self._blocks and self._blocks[0][1] < half_needed:
            self._blocks.popleft()
        return self._blocks[0][0] * OPS_PER_BLOCK if self._blocks else end
