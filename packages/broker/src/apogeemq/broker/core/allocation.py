"""Who of a group reads which queues of a topic, as Java's clients and brokers divide them.

Every member must come to the same division, so queues and client ids are sorted first. With n queues and m members:

    AVG              contiguous runs: n // m each, one more for each of the first n % m members; n < m leaves some none
    AVG_BY_CIRCLE    member i gets the queues i, i + m, i + 2m, …
    popping          queues are shared: each member gets all brokers, with queue id -1 for "all queues of it",
                     or its own share and those of the `share_with` members after it

Source: reference broker_behaviour.md §7; Apache broker/processor/QueryAssignmentProcessor.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from apogeemq.remoting_codec.bodies import MessageQueue

ALL_QUEUES = -1
"""The queue id that stands for all queues of a broker."""

Strategy: TypeAlias = Callable[[Sequence[MessageQueue], int, int], list[MessageQueue]]
"""All queues, a member's index, how many members there are → that member's queues."""


def allocate_averagely(queues: Sequence[MessageQueue], index: int, members: int) -> list[MessageQueue]:
    """Contiguous runs whose sizes differ by at most one; the first members have the longer ones."""
    size, longer = divmod(len(queues), members)
    start = index * size + min(index, longer)
    return list(queues[start : start + size + (index < longer)])


def allocate_by_circle(queues: Sequence[MessageQueue], index: int, members: int) -> list[MessageQueue]:
    """Queue after queue to member after member."""
    return list(queues[index::members])


STRATEGIES: dict[str, Strategy] = {"AVG": allocate_averagely, "AVG_BY_CIRCLE": allocate_by_circle}
"""By the names that clients say. Those that need settings of the client (CONFIG, MACHINE_ROOM, …) can't be had here."""


def allocate_pull(
    strategy: Strategy, queues: Sequence[MessageQueue], client_ids: Sequence[str], client_id: str
) -> list[MessageQueue]:
    """What one member pulls from: nothing when it is not in the group."""
    members = sorted(client_ids)
    if client_id not in members:
        return []
    return strategy(sorted(queues), members.index(client_id), len(members))


def allocate_pop(
    strategy: Strategy, queues: Sequence[MessageQueue], client_ids: Sequence[str], client_id: str, share_with: int
) -> list[MessageQueue]:
    """What one member pops from, without duplicates.

    `share_with` is with how many others a queue is shared (popShareQueueNum). From all others on, and for 0 or less,
    everybody pops everywhere, whoever it is. With more members than queues each has one queue.
    """
    members, all_queues = sorted(client_ids), sorted(queues)
    if share_with <= 0 or share_with >= len(members) - 1:
        brokers = dict.fromkeys((queue.topic, queue.broker_name) for queue in all_queues)
        return [MessageQueue(topic, broker_name, ALL_QUEUES) for topic, broker_name in brokers]
    if client_id not in members:
        return []
    index = members.index(client_id)
    if len(members) > len(all_queues):
        return [all_queues[index % len(all_queues)]]
    shares = [(index + step) % len(members) for step in range(share_with + 1)]
    return list(dict.fromkeys(queue for share in shares for queue in strategy(all_queues, share, len(members))))
