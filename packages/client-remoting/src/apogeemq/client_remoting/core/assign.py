"""Which queues of a topic a member of a group reads, computed by each member for itself.

All members see the same list of queues and of members and sort both the same way, so that their results fit together;
while the lists differ (somebody just came or went), two members may read one queue for a moment.
Source: Apache AllocateMessageQueueAveragely; reference broker_behaviour.md §7.
"""

from collections.abc import Sequence
from typing import TypeVar

Q = TypeVar("Q")


def allocate_averagely(queues: Sequence[Q], client_ids: Sequence[str], client_id: str) -> list[Q]:
    """This member's contiguous share; none when it is not (yet) in the list of members.

    With n queues, m members, this one at index i and r = n mod m: the first r members get one queue more. With fewer
    queues than members the first n get one each. `queues` must be sorted, `client_ids` need not be.
    """
    members = sorted(client_ids)
    if client_id not in members or not queues:
        return []
    index = members.index(client_id)
    remainder = len(queues) % len(members)
    has_more = index < remainder
    size = 1 if len(queues) <= len(members) else len(queues) // len(members) + has_more
    start = index * size if has_more else index * size + remainder
    return list(queues[start : start + size])
