"""Which producer of a group is asked about a transaction, among all that can be reached, whatever way leads to each."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Protocol

from apogeemq.broker.core.clients import ClientTable, Member
from apogeemq.broker.service.transaction_checks import TransactionCheck


class ProducerWay(Protocol):
    """A way of asking: over a producer's own connection, or by the proxy that it stands behind."""

    def reaches(self, channel: Hashable) -> bool:
        """Whether a member of this channel can be asked now."""
        ...

    def ask(self, member: Member[Hashable], check: TransactionCheck) -> None:
        """Put the question; to a member that `reaches` just said yes of. Nobody hears whether it arrives."""
        ...


class AskedProducers:
    """Chooses one of a group.

    Args:
        clients: knows them.
        ways: how they are asked; the first that reaches a member is taken.
        randrange: n → a number below n.
    """

    def __init__(
        self, clients: ClientTable[Hashable], ways: Sequence[ProducerWay], randrange: Callable[[int], int]
    ) -> None:
        self._clients = clients
        self._ways = ways
        self._randrange = randrange

    def has_producer(self, group: str) -> bool:
        """Whether one of a group can be asked now."""
        return any(True for _ in self._reached(group))

    def ask(self, group: str, check: TransactionCheck) -> bool:
        """Ask one of a group; whether there was one."""
        reached = list(self._reached(group))
        if not reached:
            return False
        way, member = reached[self._randrange(len(reached))]
        way.ask(member, check)
        return True

    def _reached(self, group: str) -> Iterator[tuple[ProducerWay, Member[Hashable]]]:
        for member in self._clients.producer_groups.get(group, {}).values():
            way = next((way for way in self._ways if way.reaches(member.channel)), None)
            if way is not None:
                yield way, member
