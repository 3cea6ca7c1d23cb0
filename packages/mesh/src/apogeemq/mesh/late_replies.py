"""Replies that come after their askers gave up, and who wants them all the same.

A reply may be under way already when its asker is cancelled or its time is up. Where it hands something out, nobody
has that until it is given back: so the asker can leave word of what to do with it. Such words are kept for LATE_S, and
for LATE_MAX calls at a time.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

LATE_MAX = 4096
"""Calls of one stream, or of one local caller, whose late reply is wanted; beyond that the oldest is forgotten."""

LATE_S = 30.0
"""How long after it gave up an asker still wants the reply. The other side answers a cancellation at once."""

KeyT = TypeVar("KeyT", bound=Hashable)
WhatT = TypeVar("WhatT")
ReplyT = TypeVar("ReplyT")

_log = logging.getLogger(__name__)


class LateReplies(Generic[KeyT, WhatT]):
    """What is to be done with late replies, by call. `now` is seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._kept: dict[KeyT, tuple[float, WhatT]] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: KeyT, what: WhatT, now: float) -> None:
        """A call was given up, its reply is still wanted."""
        while self._kept:
            oldest = next(iter(self._kept))
            if len(self._kept) < LATE_MAX and now <= self._kept[oldest][0]:
                break
            del self._kept[oldest]
        self._kept[key] = (now + LATE_S, what)

    def take(self, key: KeyT, now: float) -> WhatT | None:
        """The call's reply has come: what is to be done with it. None where nobody wants it, or not any more."""
        until, what = self._kept.pop(key, (now, None))
        return what if now <= until else None

    def forget(self, key: KeyT) -> None:
        """The call has ended without a reply. Harmless when nothing is kept for it."""
        self._kept.pop(key, None)


def tell_late(on_late: Callable[[ReplyT], None], reply: ReplyT) -> None:
    """Hand a late reply over, outside of any trace: the one it belonged to has ended."""
    try:
        contextvars.Context().run(on_late, reply)
    except Exception:  # noqa: BLE001 — who reads replies goes on with those of other calls
        _log.exception("a late reply could not be dealt with")
